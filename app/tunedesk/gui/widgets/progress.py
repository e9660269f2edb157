"""A slim progress bar with ticks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from PySide6.QtCore import QRectF, QSize, Qt, QTimer
from PySide6.QtGui import QBrush, QColor, QHideEvent, QPainter, QPainterPath, QPaintEvent, QShowEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets.paint import painter_on, tokens

ProgressTone = Literal["accent", "ok", "third", "neutral", "paused"]

_FILL: Final = {"accent": "accent_fill", "ok": "ok", "third": "chart_third", "neutral": "ctl", "paused": "ctl"}


class SlimProgress(QWidget):
    """A bar of 8 px. Ticks mark parts such as epochs; the marker is a strong line, such as a prediction."""

    def __init__(self, *, height: int = 8, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._bar = height
        self._value: float | None = 0.0
        self._ticks: tuple[float, ...] = ()
        self._marker: float | None = None
        self._tone: ProgressTone = "accent"
        self._phase = 0.0
        self._timer = QTimer(self)
        self._timer.setInterval(40)
        self._timer.timeout.connect(self._move)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def value(self) -> float | None:
        """Return the share done, or None while no end is known."""
        return self._value

    def set_value(self, value: float | None) -> None:
        """Set the share done, 0 to 1; None shows that no end is known."""
        self._value = None if value is None else min(1.0, max(0.0, value))
        if self._value is None and self.isVisible():
            self._wander()
        elif self._value is not None:
            self._timer.stop()
        self.setAccessibleDescription("" if self._value is None else f"{self._value:.0%}")
        self.update()

    def set_ticks(self, ticks: Sequence[float]) -> None:
        """Mark these shares with thin lines."""
        self._ticks = tuple(ticks)
        self.update()

    def set_marker(self, share: float | None) -> None:
        """Mark one share with a strong line over the whole height."""
        self._marker = share
        self.update()

    def set_tone(self, tone: ProgressTone) -> None:
        """Change the colour; paused is grey and striped."""
        self._tone = tone
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(120, self._bar + 6)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._value is None:
            self._wander()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._timer.stop()

    def _wander(self) -> None:
        """Let the piece move along the track; with reduced motion it rests in the middle."""
        if Theme.of().reduced_motion:
            self._phase = 0.5
        else:
            self._timer.start()

    def _move(self) -> None:
        self._phase = (self._phase + 0.015) % 1.0
        self.update()

    def _filled(self, track: QRectF) -> QRectF:
        if self._value is None:
            start = -0.3 + 1.3 * self._phase
            return QRectF(track.x() + track.width() * start, track.y(), track.width() * 0.3, track.height())
        return QRectF(track.x(), track.y(), track.width() * self._value, track.height())

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        track = QRectF(0, (self.height() - self._bar) / 2, self.width(), self._bar)
        shape = QPainterPath()
        shape.addRoundedRect(track, min(4, self._bar / 2), min(4, self._bar / 2))
        painter.fillPath(shape, QColor(colours.hover))
        self._paint_fill(painter, track, shape, colours.colour(_FILL[self._tone]))
        for tick in self._ticks:
            inside = self._value is not None and tick < self._value
            x = round(track.width() * tick)
            painter.fillRect(
                QRectF(x, track.y() - 2, 1, track.height() + 4), QColor(colours.card if inside else colours.ctl)
            )
        if self._marker is not None:
            x = round(min(1.0, self._marker) * (track.width() - 2))
            painter.fillRect(QRectF(x - 1, track.y() - 3, 4, track.height() + 6), QColor(colours.card))
            painter.fillRect(QRectF(x, track.y() - 3, 2, track.height() + 6), QColor(colours.t1))

    def _paint_fill(self, painter: QPainter, track: QRectF, shape: QPainterPath, colour: str) -> None:
        filled = QPainterPath()
        radius = min(4, self._bar / 2)
        filled.addRoundedRect(self._filled(track), radius, radius)
        painter.fillPath(filled.intersected(shape), QColor(colour))
        if self._tone == "paused":
            stripes = QBrush(QColor(tokens().card), Qt.BrushStyle.BDiagPattern)
            painter.fillPath(filled.intersected(shape), stripes)
