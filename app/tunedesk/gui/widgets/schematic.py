"""Small drawings of the methods: grey is frozen, accent is trained, all at one scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from PySide6.QtCore import QLineF, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QSizePolicy, QWidget

from tunedesk.gui.theme import Tokens
from tunedesk.gui.widgets.paint import painter_on, round_pen, tokens


class _Pen:
    """Draws blocks of a schematic in a box 112 wide and 44 high."""

    def __init__(self, painter: QPainter, colours: Tokens) -> None:
        self.painter = painter
        self.colours = colours

    def block(self, x: float, y: float, w: float, h: float, *, trained: bool = False, radius: float = 1.5) -> None:
        self.painter.setPen(Qt.PenStyle.NoPen)
        self.painter.setBrush(QColor(self.colours.accent_fill if trained else self.colours.frozen))
        self.painter.drawRoundedRect(QRectF(x, y, w, h), radius, radius)

    def outline(self, x: float, y: float, w: float, h: float) -> None:
        self.painter.setPen(QPen(QColor(self.colours.ctl), 1))
        self.painter.setBrush(Qt.BrushStyle.NoBrush)
        self.painter.drawRoundedRect(QRectF(x + 0.5, y + 0.5, w - 1, h - 1), 1.5, 1.5)

    def sign(self, x: float, *, times: bool = False) -> None:
        self.painter.setPen(round_pen(self.colours.t2, 1.25))
        centre = QPointF(x, 24)
        if times:
            self.painter.drawLine(centre + QPointF(-2.5, -2.5), centre + QPointF(2.5, 2.5))
            self.painter.drawLine(centre + QPointF(-2.5, 2.5), centre + QPointF(2.5, -2.5))
            return
        self.painter.drawLine(centre - QPointF(3, 0), centre + QPointF(3, 0))
        self.painter.drawLine(centre - QPointF(0, 3), centre + QPointF(0, 3))

    def bow(self, x: float, *, width: float = 18) -> None:
        points = [(0, 12), (6, 19), (width - 6, 19), (width, 12), (width, 36), (width - 6, 29), (6, 29), (0, 36)]
        self.painter.setPen(Qt.PenStyle.NoPen)
        self.painter.setBrush(QColor(self.colours.accent_fill))
        self.painter.drawPolygon(QPolygonF([QPointF(x + dx, dy) for dx, dy in points]))

    def pair(self) -> None:
        self.sign(48)
        self.block(56, 4, 8, 40, trained=True)
        self.block(68, 20, 36, 8, trained=True)


def _lora(pen: _Pen) -> None:
    pen.block(0, 4, 40, 40)
    pen.pair()


def _qlora(pen: _Pen) -> None:
    for row in range(4):
        for column in range(4):
            pen.block(column * 10.25, 4 + row * 10.25, 9, 9, radius=0.5)
    pen.pair()


def _adalora(pen: _Pen) -> None:
    """Thin matrices whose ranks are kept or given up one by one."""
    pen.block(0, 4, 40, 40)
    pen.sign(48)
    for index in range(2):
        pen.block(56 + index * 6, 4, 4, 40, trained=True, radius=1)
        pen.block(77, 16 + index * 6, 34, 4, trained=True, radius=1)
    pen.outline(68, 4, 4, 40)
    pen.outline(77, 28, 34, 4)


def _houlsby(pen: _Pen) -> None:
    for x in (0, 38, 76):
        pen.block(x, 4, 16, 40)
    pen.bow(18)
    pen.bow(56)


def _compacter(pen: _Pen) -> None:
    pen.block(0, 4, 16, 40)
    pen.block(88, 4, 16, 40)
    for x in (32, 60):
        for y in (8, 30):
            pen.block(x, y, 10, 10, trained=True)
    pen.painter.setPen(round_pen(pen.colours.accent_fill, 1.5))
    for x in (42, 60):
        inner = 48 if x == 42 else 54
        pen.painter.drawLines([QLineF(x, 18, inner, 22), QLineF(x, 30, inner, 26)])
    pen.painter.setBrush(Qt.BrushStyle.NoBrush)
    pen.painter.drawEllipse(QPointF(51, 24), 3.5, 3.5)


def _ia3(pen: _Pen) -> None:
    pen.block(0, 4, 40, 40)
    pen.sign(49, times=True)
    for index in range(6):
        pen.block(58 + index * 8, 20, 7, 8, trained=True, radius=1)


def _prefix(pen: _Pen) -> None:
    for row in range(3):
        y = 6 + row * 14
        pen.block(0, y, 9, 10, trained=True)
        pen.block(12, y, 9, 10, trained=True)
        pen.block(25, y, 79, 10)


def _prompt(pen: _Pen) -> None:
    for index in range(7):
        pen.block(index * 14, 16, 11, 16, trained=index < 3)


def _p_tuning(pen: _Pen) -> None:
    for index in range(7):
        pen.block(index * 14, 28, 11, 16, trained=index < 3)
    pen.block(8, 4, 23, 12, trained=True)
    pen.painter.setPen(round_pen(pen.colours.accent_fill, 1.5))
    pen.painter.drawLines([QLineF(13, 16, 5.5, 26), QLineF(19.5, 16, 19.5, 26), QLineF(26, 16, 33.5, 26)])


def _bitfit(pen: _Pen) -> None:
    for index in range(3):
        pen.block(index * 36, 4, 24, 40)
        pen.block(index * 36 + 26, 4, 4, 40, trained=True, radius=1)


def _last_layer(pen: _Pen) -> None:
    for index in range(4):
        pen.block(0, 4 + index * 10.6, 104, 8, trained=index == 0)


def _full(pen: _Pen) -> None:
    for index in range(4):
        pen.block(0, 4 + index * 10.6, 104, 8, trained=True)


_DRAWINGS: Final[dict[str, Callable[[_Pen], None]]] = {
    "lora": _lora,
    "qlora": _qlora,
    "adalora": _adalora,
    "ia3": _ia3,
    "houlsby": _houlsby,
    "compacter": _compacter,
    "prefix": _prefix,
    "prompt": _prompt,
    "p_tuning": _p_tuning,
    "bitfit": _bitfit,
    "last_layer": _last_layer,
    "full": _full,
}
SCHEMATICS: Final = tuple(_DRAWINGS)


def draw_schematic(
    painter: QPainter, kind: str, spot: QPointF, colours: Tokens, *, faint: bool = False, scale: float = 1.0
) -> None:
    """Draw one schematic with its top left corner at `spot`."""
    painter.save()
    painter.translate(spot)
    painter.scale(scale, scale)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    if faint:
        painter.setOpacity(0.45)
    _DRAWINGS[kind](_Pen(painter, colours))
    painter.restore()


class Schematic(QWidget):
    """One drawing, 112 by 48."""

    def __init__(self, kind: str, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._kind = kind
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.set_kind(kind)

    def set_kind(self, kind: str) -> None:
        """Show another method; the kinds are in `SCHEMATICS`."""
        if kind not in _DRAWINGS:
            raise ValueError(f"There is no schematic called {kind!r}.")
        self._kind = kind
        self.setAccessibleName(self.tr("Drawing of the method: grey is frozen, colour is trained"))
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(112, 48)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        draw_schematic(painter_on(self), self._kind, QPointF(0, 0), tokens(), faint=not self.isEnabled())
