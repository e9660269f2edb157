"""Small helpers that the painted widgets share."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QPainter, QPen
from PySide6.QtWidgets import QWidget

from tunedesk.gui.theme import Theme, Tokens, TypeRole


def tokens() -> Tokens:
    """Return the colours of the moment."""
    return Theme.of().tokens


def font(role: TypeRole, weight: int | None = None) -> QFont:
    """Return the font of a type role."""
    return Theme.of().font(role, weight=weight)


def px(length: float) -> int:
    """Return a length that grows with the text."""
    return Theme.of().px(length)


def painter_on(widget: QWidget) -> QPainter:
    """Return an antialiased painter on `widget`."""
    painter = QPainter(widget)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    return painter


def round_box(painter: QPainter, rect: QRectF, radius: float, fill: str, edge: str = "", width: float = 1) -> None:
    """Fill a rounded box and draw its edge inside `rect`, on half pixels."""
    painter.setPen(QPen(QColor(edge), width) if edge else Qt.PenStyle.NoPen)
    painter.setBrush(QColor(fill) if fill else Qt.BrushStyle.NoBrush)
    inset = width / 2 if edge else 0
    painter.drawRoundedRect(rect.adjusted(inset, inset, -inset, -inset), radius, radius)


def text(
    painter: QPainter,
    rect: QRectF,
    words: str,
    role: TypeRole,
    colour: str,
    *,
    align: Qt.AlignmentFlag = Qt.AlignmentFlag.AlignLeft,
    weight: int | None = None,
) -> float:
    """Draw one line of text in the vertical middle of `rect`, elided at its end; return its width."""
    face = font(role, weight)
    metrics = QFontMetricsF(face)
    shown = metrics.elidedText(words, Qt.TextElideMode.ElideRight, rect.width() + 0.5)
    painter.setFont(face)
    painter.setPen(QColor(colour))
    flags = align | Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextSingleLine
    painter.drawText(rect, int(flags), shown)
    return metrics.horizontalAdvance(shown)


def text_width(words: str, role: TypeRole, weight: int | None = None) -> float:
    """Return the width of one line of text."""
    return QFontMetricsF(font(role, weight)).horizontalAdvance(words)


def round_pen(colour: str, width: float) -> QPen:
    """Return a pen with round ends and joins."""
    pen = QPen(QColor(colour), width)
    pen.setCapStyle(Qt.PenCapStyle.RoundCap)
    pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
    return pen


def cross(painter: QPainter, centre: QPointF, half: float, colour: str, width: float = 1.5) -> None:
    """Draw a cross around `centre`."""
    painter.setPen(round_pen(colour, width))
    painter.drawLine(centre + QPointF(-half, -half), centre + QPointF(half, half))
    painter.drawLine(centre + QPointF(-half, half), centre + QPointF(half, -half))


def ring(painter: QPainter, rect: QRectF, share: float, colour: str, track: str, width: float = 2) -> None:
    """Draw a ring filled clockwise from the top by `share`."""
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.setPen(QPen(QColor(track), width))
    painter.drawEllipse(rect)
    pen = QPen(QColor(colour), width)
    pen.setCapStyle(Qt.PenCapStyle.FlatCap)
    painter.setPen(pen)
    painter.drawArc(rect, 90 * 16, -round(share * 360 * 16))
