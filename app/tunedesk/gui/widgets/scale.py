"""A number between the least and the most that the data has, and what the data says."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets.paint import painter_on, px, round_box, text, tokens

_BAR: Final = 8
_HEIGHT: Final = 44


class NumberScale(QWidget):
    """A track from the least to the most, a disc at the number, a stroke at what the data says."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._span = (0.0, 1.0)
        self._ends = ("", "")
        self._value: float | None = None
        self._truth: float | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        Theme.of().changed.connect(self.update)

    def set_span(self, low: float, high: float, ends: tuple[str, str]) -> None:
        """Say from where to where the numbers of the data go, and how both ends are written."""
        self._span, self._ends = (low, high), ends
        self._describe()

    def set_value(self, value: float | None, truth: float | None = None) -> None:
        """Show a number, and where the data has it; None shows the empty track."""
        self._value, self._truth = value, truth
        self._describe()

    def _describe(self) -> None:
        words = self.tr("From {0} to {1}").format(*self._ends)
        if self._value is not None:
            words = f"{self._value:g}. {words}"
        self.setAccessibleName(words)
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(240, px(_HEIGHT))

    def _share(self, value: float) -> float:
        low, high = self._span
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours, painter = tokens(), painter_on(self)
        track = QRectF(8, px(14) - _BAR / 2, self.width() - 16, _BAR)
        round_box(painter, track, _BAR / 2, colours.hover)
        if self._value is not None:
            x = track.left() + self._share(self._value) * track.width()
            round_box(painter, QRectF(track.left(), track.top(), x - track.left(), _BAR), _BAR / 2, colours.chart_train)
            if self._truth is not None:
                at = track.left() + self._share(self._truth) * track.width()
                painter.setPen(QPen(QColor(colours.t1), 2))
                painter.drawLine(QPointF(at, track.top() - 5), QPointF(at, track.bottom() + 5))
            painter.setPen(QPen(QColor(colours.card), 2))
            painter.setBrush(QColor(colours.chart_train))
            painter.drawEllipse(QPointF(x, track.center().y()), 7, 7)
        row = QRectF(0, px(26), self.width(), px(16))
        text(painter, row, self._ends[0], "axis", colours.t3)
        text(painter, row, self._ends[1], "axis", colours.t3, align=Qt.AlignmentFlag.AlignRight)
