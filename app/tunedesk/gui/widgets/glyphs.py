"""The signs of the rail and of lists of checks: shape and colour together say the state."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen, QPolygonF

from tunedesk.gui.theme import Tokens
from tunedesk.gui.theme.proxy import tick_shape
from tunedesk.gui.widgets.paint import cross, ring, round_pen


def disc(painter: QPainter, centre: QPointF, radius: float, colour: str) -> None:
    """Draw a filled disc."""
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(colour))
    painter.drawEllipse(centre, radius, radius)


def hollow(painter: QPainter, centre: QPointF, radius: float, colour: str, width: float = 1.5) -> None:
    """Draw a hollow ring."""
    painter.setPen(QPen(QColor(colour), width))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawEllipse(centre, radius, radius)


def tick(painter: QPainter, centre: QPointF, colour: str, scale: float = 1.0, width: float = 1.75) -> None:
    """Draw a tick."""
    painter.setPen(round_pen(colour, width))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawPolyline(tick_shape(centre, scale))


def triangle(painter: QPainter, centre: QPointF, colour: str, ink: str) -> None:
    """Draw a filled triangle with an exclamation mark."""
    x, y = centre.x(), centre.y()
    painter.setPen(round_pen(colour, 2))
    painter.setBrush(QColor(colour))
    painter.drawPolygon(QPolygonF([QPointF(x, y - 6.5), QPointF(x + 7, y + 6), QPointF(x - 7, y + 6)]))
    painter.setPen(round_pen(ink, 1.5))
    painter.drawLine(QPointF(x, y - 2.5), QPointF(x, y + 1))
    painter.drawPoint(QPointF(x, y + 3.75))


def step_glyph(
    painter: QPainter, centre: QPointF, status: str, colours: Tokens, *, current: bool, progress: float | None
) -> None:
    """Draw the sign of a step."""
    ground = colours.rail
    match status:
        case "settled":
            disc(painter, centre, 8, colours.ok)
            tick(painter, centre, ground)
        case "trouble":
            triangle(painter, centre, colours.warn, ground)
        case "failed":
            disc(painter, centre, 8, colours.bad)
            cross(painter, centre, 2.75, ground, 1.75)
        case "running" | "paused":
            ink, track = (colours.accent, colours.accent_line) if status == "running" else (colours.t2, colours.line2)
            box = QRectF(centre.x() - 7, centre.y() - 7, 14, 14)
            ring(painter, box, progress or 0, ink, track)
            disc(painter, centre, 3, ink)
        case _ if current:
            hollow(painter, centre, 7.25, colours.accent, 1.75)
            disc(painter, centre, 3, colours.accent)
        case _:
            hollow(painter, centre, 7.25, colours.ctl)


def run_glyph(painter: QPainter, centre: QPointF, status: str, colours: Tokens) -> None:
    """Draw the sign of a run."""
    match status:
        case "running":
            hollow(painter, centre, 3.25, colours.accent, 1.75)
        case "paused":
            hollow(painter, centre, 3.25, colours.ctl, 1.75)
        case "done":
            disc(painter, centre, 3, colours.ok)
        case "failed":
            cross(painter, centre, 3, colours.bad)
        case _:
            painter.fillRect(QRectF(centre.x() - 2.5, centre.y() - 2.5, 5, 5), QColor(colours.ctl))


def check_glyph(painter: QPainter, centre: QPointF, status: str, colours: Tokens) -> None:
    """Draw the sign of one check or finding."""
    from tunedesk.gui.theme.icons import draw

    box = QRectF(centre.x() - 7, centre.y() - 7, 14, 14)
    match status:
        case "ok":
            tick(painter, centre, colours.ok, 1.2, 1.5)
        case "bad":
            cross(painter, centre, 3.5, colours.bad)
        case "warn":
            draw(painter, "alert", box, colours.warn)
        case "running":
            ring(painter, box.adjusted(1.5, 1.5, -1.5, -1.5), 0.3, colours.accent, colours.accent_line, 1.75)
        case "info":
            draw(painter, "info", box, colours.t2)
        case "star":
            draw(painter, "star", box, colours.ok)
        case "waiting":
            hollow(painter, centre, 5.5, colours.ctl, 1.25)
        case _:
            disc(painter, centre, 2, colours.ctl)
