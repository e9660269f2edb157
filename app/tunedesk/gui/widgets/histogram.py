"""How long the rows are, and where they are cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PySide6.QtCore import QLocale, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from tunedesk.gui.theme import Tokens
from tunedesk.gui.widgets.memory import nice_step
from tunedesk.gui.widgets.paint import painter_on, px, round_box, text, text_width, tokens

_TOP: Final = 34
_BOTTOM: Final = 24
_KEYS: Final = {Qt.Key.Key_Left: -1, Qt.Key.Key_Down: -1, Qt.Key.Key_Right: 1, Qt.Key.Key_Up: 1}


class Histogram(QWidget):
    """Bars of counts over length in tokens; the cut line moves with the mouse and the arrow keys."""

    cut_changed = Signal(int)

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._counts: list[int] = []
        self._bin = 1
        self._cut = 0
        self._longer: int | None = None
        self._editable = True
        self._dragging = False
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self._describe()

    def set_data(self, counts: Sequence[int], bin_width: int) -> None:
        """Show how many rows fall into each bin of `bin_width` tokens, from 0 on."""
        self._counts, self._bin = list(counts), max(1, bin_width)
        self._describe()
        self.update()

    def set_cut(self, cut: int, longer: int | None = None) -> None:
        """Move the cut line without a signal; 0 hides it. `longer` is the exact count past it, if known."""
        self._cut, self._longer = cut, longer
        self._describe()
        self.update()

    def cut(self) -> int:
        """Return where texts are cut, in tokens."""
        return self._cut

    def longer(self) -> int:
        """Return how many are longer than the cut: the exact count if given, else that of the bins past it."""
        if self._longer is not None:
            return self._longer
        return sum(count for index, count in enumerate(self._counts) if index * self._bin >= self._cut > 0)

    def set_editable(self, editable: bool) -> None:
        """Allow or forbid moving the line."""
        self._editable = editable
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus if editable else Qt.FocusPolicy.NoFocus)
        self.update()

    def _describe(self) -> None:
        words = self.tr("Length in tokens of %1 rows").replace("%1", QLocale().toString(sum(self._counts)))
        if self._cut:
            words += ", " + self._cut_words() + ", " + self._longer_words()
        self.setAccessibleName(words)

    def _cut_words(self) -> str:
        return self.tr("Cut at %1").replace("%1", QLocale().toString(self._cut))

    def _longer_words(self) -> str:
        longer = self.longer()
        if not longer:
            return self.tr("none is longer")
        words = self.tr("1 is longer") if longer == 1 else self.tr("%1 are longer")
        return words.replace("%1", QLocale().toString(longer))

    def sizeHint(self) -> QSize:
        return QSize(320, 180)

    def minimumSizeHint(self) -> QSize:
        return QSize(200, 140)

    def _left(self) -> float:
        words = QLocale().toString(round(self._y_axis()[1]))
        return max(px(28), round(text_width(words, "axis")) + 12)

    def _y_axis(self) -> tuple[float, float]:
        """Return the step of the y axis and its highest number."""
        most = max(self._counts, default=0)
        step = max(1.0, nice_step(most, 3))
        return step, max(1.0, step * -(-most // step))

    def _end(self) -> int:
        return max(1, len(self._counts)) * self._bin

    def _x(self, tokens_: float) -> float:
        return self._left() + (self.width() - self._left() - 8) * tokens_ / self._end()

    def _base(self) -> float:
        return self.height() - px(_BOTTOM)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        step, top_value = self._y_axis()
        self._paint_y(painter, step, top_value, colours)
        self._paint_bars(painter, top_value, colours)
        self._paint_x(painter, colours)
        if self._cut:
            self._paint_cut(painter, colours)

    def _paint_y(self, painter: QPainter, step: float, top_value: float, colours: Tokens) -> None:
        height = self._base() - _TOP
        for index in range(round(top_value / step) + 1):
            y = round(self._base() - height * index * step / top_value)
            painter.fillRect(QRectF(self._left(), y, self.width() - self._left() - 8, 1), QColor(colours.chart_grid))
            words = QLocale().toString(round(index * step))
            box = QRectF(0, y - 8, self._left() - 8, 16)
            text(painter, box, words, "axis", colours.t3, align=Qt.AlignmentFlag.AlignRight)

    def _paint_bars(self, painter: QPainter, top_value: float, colours: Tokens) -> None:
        height = self._base() - _TOP
        for index, count in enumerate(self._counts):
            if not count:
                continue
            left, right = round(self._x(index * self._bin)), round(self._x((index + 1) * self._bin))
            tall = max(2.0, height * count / top_value)
            past = 0 < self._cut <= index * self._bin
            ink = colours.chart_eval if past else colours.chart_train
            painter.fillRect(QRectF(left, self._base() - tall, max(1, right - left - 1), tall), QColor(ink))

    def _paint_x(self, painter: QPainter, colours: Tokens) -> None:
        step = self._tick_step()
        y = self._base() + 4
        for value in range(0, self._end() + 1, step):
            words = QLocale().toString(value)
            box = QRectF(self._x(value) - 40, y, 80, px(16))
            box.moveLeft(min(box.left(), self.width() - 40 - text_width(words, "axis") / 2 - 1))
            text(painter, box, words, "axis", colours.t3, align=Qt.AlignmentFlag.AlignHCenter)

    def _tick_step(self) -> int:
        room = max(1, int((self.width() - self._left()) / px(58)))
        step = self._bin
        while self._end() / step > room:
            step *= 2
        return step

    def _paint_cut(self, painter: QPainter, colours: Tokens) -> None:
        x = round(self._x(min(self._cut, self._end())))
        painter.fillRect(QRectF(x - 1, 14, 2, self._base() - 14), QColor(colours.t1))
        if self._editable:
            self._paint_handle(painter, x, colours)
        words, rest = self._cut_words(), self._longer_words()
        width, tail = text_width(words, "secondary", 600), text_width(rest, "secondary", 500)
        beside = x + 10 + tail < self.width()
        left = max(0.0, x - width - 8 - (0 if beside else tail + 10))
        text(painter, QRectF(left, 4, width + 2, 16), words, "secondary", colours.t1, weight=600)
        ink = colours.warn if self.longer() else colours.t2
        start = max(x + 10.0, left + width + 10) if beside else left + width + 10
        text(painter, QRectF(start, 4, tail + 2, 16), rest, "secondary", ink, weight=500)

    def _paint_handle(self, painter: QPainter, x: int, colours: Tokens) -> None:
        edge = colours.accent if self._dragging else colours.t1
        round_box(painter, QRectF(x - 4.5, 42, 9, 22), 4, colours.card, edge, 1.5)
        for dx in (-1.5, 0.5):
            painter.fillRect(QRectF(x + dx, 49, 1, 8), QColor(colours.t2))

    def _near(self, event: QMouseEvent) -> bool:
        return self._editable and self._cut > 0 and abs(event.position().x() - self._x(min(self._cut, self._end()))) < 8

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self._dragging = self._near(event)
        self.update()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self.setCursor(
            Qt.CursorShape.SplitHCursor if self._dragging or self._near(event) else Qt.CursorShape.ArrowCursor
        )
        if self._dragging:
            share = (event.position().x() - self._left()) / (self.width() - self._left() - 8)
            self._change(share * self._end())

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:  # noqa: ARG002
        self._dragging = False
        self.update()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        step = _KEYS.get(Qt.Key(event.key()))
        if step is None or not self._editable or not self._cut:
            super().keyPressEvent(event)
            return
        self._change(self._cut + step * self._bin)

    def _change(self, wanted: float) -> None:
        snapped = max(self._bin, min(self._end(), round(wanted / self._bin) * self._bin))
        if snapped != self._cut:
            self.set_cut(snapped)
            self.cut_changed.emit(snapped)
