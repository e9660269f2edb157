"""A short list of horizontal bars: a name, a bar, a figure. The first few are shown, the others when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PySide6.QtCore import QEvent, QRectF, QSize, Qt
from PySide6.QtGui import QHelpEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QToolTip, QVBoxLayout, QWidget

from tunedesk.gui.theme import Theme, Tokens, pixmap
from tunedesk.gui.widgets.button import Button
from tunedesk.gui.widgets.paint import painter_on, px, round_box, text, text_width, tokens

_ROW: Final = 24
_BAR: Final = 8
_GAP: Final = 12
_TICK: Final = 22
_NAME_SHARE: Final = 0.4
"""Names take no more than this of the width."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A row: `share` (0 to 1) is the length of its bar, `figure` what it says. A quiet bar is grey, a marked ticked."""

    name: str
    share: float
    figure: str
    quiet: bool = False
    marked: bool = False


class _Rows(QWidget):
    def __init__(self) -> None:
        super().__init__()
        self._bars: tuple[Bar, ...] = ()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        Theme.of().changed.connect(self.updateGeometry)

    def set_bars(self, bars: Sequence[Bar]) -> None:
        self._bars = tuple(bars)
        self.setAccessibleName(", ".join(self._said(bar) for bar in bars))
        self.updateGeometry()
        self.update()

    def _said(self, bar: Bar) -> str:
        said = f"{bar.name} {bar.figure}"
        return self.tr("{0}, given").format(said) if bar.marked else said

    def _tick(self) -> int:
        """Room for the ticks, if there are any."""
        return px(_TICK) if any(bar.marked for bar in self._bars) else 0

    def sizeHint(self) -> QSize:
        return QSize(240, px(_ROW) * len(self._bars))

    def minimumSizeHint(self) -> QSize:
        return QSize(120, self.sizeHint().height())

    def _name_width(self) -> float:
        longest = max((text_width(bar.name, "body", 500) for bar in self._bars), default=0.0)
        return min(longest + 1, self.width() * _NAME_SHARE)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        name = self._name_width()
        figure = max((text_width(bar.figure, "body", 500) for bar in self._bars), default=0.0) + 1
        tick = self._tick()
        for place, bar in enumerate(self._bars):
            row = QRectF(tick, place * px(_ROW), self.width() - tick, px(_ROW))
            if bar.marked:
                top = round(row.center().y() - 8)
                painter.drawPixmap(0, top, pixmap("tick", 16, colours.accent, self.devicePixelRatioF()))
            self._paint_row(painter, row, bar, (name, figure), colours)

    def _paint_row(
        self, painter: QPainter, row: QRectF, bar: Bar, widths: tuple[float, float], colours: Tokens
    ) -> None:
        name, figure = widths
        ink, weight = (colours.t2, 400) if bar.quiet else (colours.t1, 500)
        text(painter, QRectF(row.x(), row.y(), name, row.height()), bar.name, "body", ink, weight=weight)
        track = QRectF(row.x() + name + _GAP, row.center().y() - _BAR / 2, row.width() - name - figure - 2 * _GAP, _BAR)
        round_box(painter, track, _BAR / 2, colours.hover)
        length = max(0.0, min(1.0, bar.share)) * track.width()
        if length > 0:
            filled = QRectF(track.x(), track.y(), max(_BAR, length), _BAR)
            round_box(painter, filled, _BAR / 2, colours.memory.overhead if bar.quiet else colours.chart_train)
        box = QRectF(row.right() - figure, row.y(), figure, row.height())
        text(painter, box, bar.figure, "body", ink, align=Qt.AlignmentFlag.AlignRight, weight=weight)

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            place = event.pos().y() // px(_ROW)
            cut = 0 <= place < len(self._bars) and self._is_cut(self._bars[place])
            QToolTip.showText(event.globalPos(), self._bars[place].name if cut else "", self)
            return True
        return super().event(event)

    def _is_cut(self, bar: Bar) -> bool:
        return text_width(bar.name, "body", 500) > self._name_width()


class BarList(QWidget):
    """Bars, the first `most` of them at first; a link below shows the others."""

    def __init__(self, *, most: int = 8, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._most, self._whole = most, False
        self._bars: tuple[Bar, ...] = ()
        self._rows = _Rows()
        self._rows.setObjectName("bars")
        self.more = Button("", "link", compact=True)
        self.more.setObjectName("moreBars")
        self.more.clicked.connect(self._toggle)
        foot = QHBoxLayout()
        foot.addWidget(self.more)
        foot.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self._rows)
        column.addLayout(foot)
        self._show()

    def set_bars(self, bars: Sequence[Bar]) -> None:
        """Show these; whether all are shown stays as it is while their names stay."""
        if {bar.name for bar in bars} != {bar.name for bar in self._bars}:
            self._whole = False
        self._bars = tuple(bars)
        self._show()

    def bars(self) -> tuple[Bar, ...]:
        """Return what was given."""
        return self._bars

    def shown(self) -> tuple[Bar, ...]:
        """Return the bars on screen."""
        return self._bars if self._whole or not self._hidden() else self._bars[: self._most]

    def _hidden(self) -> int:
        """How many do not fit the short list; one too many is shown in the place of the link."""
        left = len(self._bars) - self._most
        return left if left > 1 else 0

    def _toggle(self) -> None:
        self._whole = not self._whole
        self._show()

    def _show(self) -> None:
        self._rows.set_bars(self.shown())
        self.more.setVisible(bool(self._hidden()))
        more = self.tr("and {0} more").format(self._hidden())
        self.more.setText(self.tr("Show fewer") if self._whole else more)
        self.setAccessibleName(self._rows.accessibleName())
