"""Which label was given for which: right labels down, given labels across, a count in each cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QHelpEvent, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from tunedesk.gui.theme import Theme, Tokens
from tunedesk.gui.widgets.paint import font, painter_on, px, text, text_width, tokens

_STRONGEST: Final = 0.42
"""How much of its colour a full cell has; the number on it stays readable in every theme."""
_MOST_WIDTH: Final = 132
_MOST_HEIGHT: Final = 56
_FOOT: Final = 22
_HEAD: Final = 22
_TILTED: Final = 84
"""Height of the names at the top when they are turned."""
_NAMES: Final = 0.26
_MANY_NAMES: Final = 0.18
"""Names at the left take no more than this of the width; of more than `_MANY` labels less."""
_MANY: Final = 20
_LINE: Final = 12
"""The least height of a row whose name can be read."""
_LEAST: Final = 200
_ARROWS: Final = {
    Qt.Key.Key_Left: (0, -1),
    Qt.Key.Key_Right: (0, 1),
    Qt.Key.Key_Up: (-1, 0),
    Qt.Key.Key_Down: (1, 0),
}


class ConfusionMatrix(QWidget):
    """A square of counts; the cell that is pointed at, or reached with the arrow keys, is told in words below."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._labels: tuple[str, ...] = ()
        self._counts: tuple[tuple[int, ...], ...] = ()
        self._cell: tuple[int, int] | None = None
        self._roomy = False
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setProperty("ringRadius", 6)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(240, _LEAST)
        Theme.of().changed.connect(self.update)

    def set_matrix(self, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> None:
        """Show `counts` by right label (rows) and given label (columns), both in the order of `labels`."""
        given = tuple(tuple(row) for row in counts)
        names = tuple(labels) if len(labels) == len(given) else tuple(str(place + 1) for place in range(len(given)))
        if (names, given) == (self._labels, self._counts):
            return
        if names != self._labels:
            self._cell = None
        self._labels, self._counts = names, given
        self._fit()
        self._describe()
        self.update()

    def make_room(self, *, roomy: bool) -> None:
        """Ask for the height at which every name can be read, or for little while something else is shown."""
        self._roomy = roomy
        self._fit()

    def _fit(self) -> None:
        needed = px(_TILTED) + px(_FOOT) + len(self._labels) * px(_LINE)
        self.setMinimumHeight(max(_LEAST, needed) if self._roomy else _LEAST)

    def counts(self) -> tuple[tuple[int, ...], ...]:
        """Return what is shown."""
        return self._counts

    def words_of(self, right: int, given: int) -> str:
        """Return a cell in words."""
        count, whole = self._counts[right][given], sum(self._counts[right])
        if right == given:
            said = self.tr("{0} of {1} with the label {2} got it.")
            return said.format(count, whole, self._labels[right])
        said = self.tr("{0} of {1} with the label {2} were taken for {3}.")
        return said.format(count, whole, self._labels[right], self._labels[given])

    def summary(self) -> str:
        """Return how many are right, and what is mixed up most."""
        whole = sum(map(sum, self._counts))
        right = sum(row[place] for place, row in enumerate(self._counts))
        words = self.tr("{0} of {1} got the right label.").format(right, whole)
        wrong = [
            (count, down, across)
            for down, row in enumerate(self._counts)
            for across, count in enumerate(row)
            if down != across and count
        ]
        if wrong:
            _, down, across = max(wrong, key=lambda item: item[0])
            words = f"{words} {self.tr('Mixed up most:')} {self.words_of(down, across)}"
        return words

    def _describe(self) -> None:
        self.setAccessibleName(self.summary())
        self.setAccessibleDescription(self.words_of(*self._cell) if self._cell else "")

    def sizeHint(self) -> QSize:
        return QSize(480, 300)

    # Places.

    def _side(self) -> float:
        longest = max((text_width(name, "axis") for name in self._labels), default=0.0)
        most = _MANY_NAMES if len(self._labels) > _MANY else _NAMES
        return float(min(longest + 10, self.width() * most))

    def _right(self) -> float:
        whole = max((sum(row) for row in self._counts), default=0)
        return text_width(self.tr("{0} of {1}").format(whole, whole), "axis") + 12

    def _grid(self) -> QRectF:
        """Where the cells are."""
        count = max(1, len(self._labels))
        left, right = self._side(), self._right()
        width = min((self.width() - left - right) / count, px(_MOST_WIDTH))
        head = px(_HEAD) if self._fits_across(width) else px(_TILTED) if width >= px(11) else px(8)
        height = min((self.height() - head - px(_FOOT)) / count, px(_MOST_HEIGHT))
        return QRectF(left, head, width * count, height * count)

    def _fits_across(self, width: float) -> bool:
        """Whether every name fits over its column; a long one may be cut a little in a wide column."""
        longest = max((text_width(name, "axis") for name in self._labels), default=0.0)
        return width >= min(longest + 8, px(84))

    def _at(self, position: QPointF) -> tuple[int, int] | None:
        grid, count = self._grid(), len(self._labels)
        if not count or not grid.contains(position):
            return None
        down = int((position.y() - grid.top()) / (grid.height() / count))
        across = int((position.x() - grid.left()) / (grid.width() / count))
        return min(down, count - 1), min(across, count - 1)

    # Painting.

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        if not self._labels:
            return
        colours, grid, count = tokens(), self._grid(), len(self._labels)
        painter = painter_on(self)
        width, height = grid.width() / count, grid.height() / count
        self._paint_names(painter, grid, width, height, colours)
        widest = max(text_width(str(number), "axis", 600) for row in self._counts for number in row)
        numbers = width >= widest + 4 and height >= px(13)
        gap = 2.0 if min(width, height) >= 16 else 1.0 if min(width, height) >= 6 else 0.0
        for down in range(count):
            for across in range(count):
                cell = QRectF(grid.left() + across * width, grid.top() + down * height, width - gap, height - gap)
                self._paint_cell(painter, cell, (down, across), numbers, colours)
        if self._cell is not None:
            down, across = self._cell
            box = QRectF(grid.left() + across * width, grid.top() + down * height, width - gap, height - gap)
            painter.setPen(QPen(QColor(colours.t1), 1.5))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(box)
        words = self.words_of(*self._cell) if self._cell else self.summary()
        foot = QRectF(2, self.height() - px(_FOOT), self.width() - 4, px(_FOOT))
        text(painter, foot, words, "secondary", colours.t2)

    def _paint_cell(
        self, painter: QPainter, box: QRectF, place: tuple[int, int], numbers: bool, colours: Tokens
    ) -> None:
        down, across = place
        count, whole = self._counts[down][across], sum(self._counts[down])
        painter.fillRect(box, QColor(colours.sunk))
        fill = QColor(colours.chart_train if down == across else colours.chart_eval)
        if count:
            fill.setAlphaF(_STRONGEST * (0.25 + 0.75 * count / whole))
            painter.fillRect(box, fill)
        if down == across and min(box.width(), box.height()) >= 5:
            painter.setPen(QPen(QColor(colours.chart_train), 1))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(box.adjusted(0.5, 0.5, -0.5, -0.5))
        if numbers:
            ink, weight = (colours.t1, 600 if down == across else 500) if count else (colours.t3, 400)
            align = Qt.AlignmentFlag.AlignHCenter
            text(painter, box, str(count), "axis", ink, align=align, weight=weight)

    def _paint_names(self, painter: QPainter, grid: QRectF, width: float, height: float, colours: Tokens) -> None:
        if height >= px(11):
            for place, name in enumerate(self._labels):
                row = QRectF(0, grid.top() + place * height, grid.left() - 8, height)
                text(painter, row, name, "axis", colours.t2, align=Qt.AlignmentFlag.AlignRight)
                right, whole = self._counts[place][place], sum(self._counts[place])
                said = self.tr("{0} of {1}").format(right, whole)
                row = QRectF(grid.right() + 8, row.y(), self.width() - grid.right() - 8, height)
                text(painter, row, said, "axis", colours.t3)
        if self._fits_across(width):
            for place, name in enumerate(self._labels):
                box = QRectF(grid.left() + place * width + 2, grid.top() - px(20), width - 4, px(18))
                text(painter, box, name, "axis", colours.t2, align=Qt.AlignmentFlag.AlignHCenter)
        elif width >= px(11):
            for place, name in enumerate(self._labels):
                self._paint_turned(painter, name, grid.left() + (place + 0.5) * width, grid.top() - 5, colours)

    def _paint_turned(self, painter: QPainter, name: str, x: float, bottom: float, colours: Tokens) -> None:
        painter.save()
        painter.translate(x, bottom)
        painter.rotate(-90)
        face = font("axis")
        room = bottom - 2
        shown = QFontMetricsF(face).elidedText(name, Qt.TextElideMode.ElideRight, room)
        painter.setFont(face)
        painter.setPen(QColor(colours.t2))
        flags = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextSingleLine
        painter.drawText(QRectF(0, -px(8), room, px(16)), int(flags), shown)
        painter.restore()

    # Pointing.

    def _point(self, cell: tuple[int, int] | None) -> None:
        if cell != self._cell:
            self._cell = cell
            self._describe()
            self.update()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self._point(self._at(event.position()))

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self._point(None)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        step = _ARROWS.get(Qt.Key(event.key()))
        if step is None or not self._labels:
            super().keyPressEvent(event)
            return
        last = len(self._labels) - 1
        down, across = self._cell or (0, 0)
        if self._cell is not None:
            down, across = down + step[0], across + step[1]
        self._point((min(max(down, 0), last), min(max(across, 0), last)))

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            cell = self._at(QPointF(event.pos()))
            QToolTip.showText(event.globalPos(), self.words_of(*cell) if cell else "", self)
            return True
        return super().event(event)
