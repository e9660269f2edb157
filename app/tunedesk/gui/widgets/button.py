"""Buttons: primary, plain, quiet, link and danger; 32 or 28 high, with icons."""

from __future__ import annotations

from typing import Literal, NamedTuple

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, QTimer
from PySide6.QtGui import QColor, QEnterEvent, QIcon, QPainter, QPaintEvent
from PySide6.QtWidgets import QPushButton, QSizePolicy, QToolButton, QWidget

from tunedesk.gui.theme import Theme, Tokens, TypeRole, icon, pixmap
from tunedesk.gui.widgets.paint import painter_on, px, ring, round_box, text, text_width, tokens

ButtonKind = Literal["primary", "plain", "quiet", "link", "danger"]

_ICON = 16


class _Look(NamedTuple):
    fill: str
    edge: str
    ink: str


class Button(QPushButton):
    """A push button in one of five kinds, painted from the tokens."""

    def __init__(
        self,
        text: str = "",
        kind: ButtonKind = "plain",
        *,
        icon_name: str = "",
        trailing: str = "",
        compact: bool = False,
        in_row: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(text, parent)
        self._kind: ButtonKind = kind
        self._icon_name = icon_name
        self._trailing = trailing
        self._compact = compact or in_row
        self._in_row = in_row
        self._busy_angle: int | None = None
        self._spin = QTimer(self)
        self._spin.setInterval(80)
        self._spin.timeout.connect(self._turn)
        self.setAutoDefault(False)
        self.setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Fixed)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.set_kind(kind)

    def kind(self) -> ButtonKind:
        """Return which kind of button this is."""
        return self._kind

    def set_kind(self, kind: ButtonKind) -> None:
        """Change the kind, for example when Next becomes the page's primary act."""
        self._kind = kind
        self.setProperty("kind", kind)
        self.setCursor(Qt.CursorShape.PointingHandCursor if kind == "link" else Qt.CursorShape.ArrowCursor)
        self.updateGeometry()
        self.update()

    def set_icon_name(self, name: str) -> None:
        """Change the icon before the text; an empty name removes it."""
        self._icon_name = name
        self.updateGeometry()
        self.update()

    def set_trailing(self, name: str) -> None:
        """Change the icon after the text; an empty name removes it."""
        self._trailing = name
        self.updateGeometry()
        self.update()

    def set_busy(self, busy: bool) -> None:
        """Show a turning ring in the icon's place while an act is under way."""
        self._busy_angle = 0 if busy else None
        if busy and not Theme.of().reduced_motion:
            self._spin.start()
        else:
            self._spin.stop()
        self.updateGeometry()
        self.update()

    def is_busy(self) -> bool:
        """Return whether the ring is shown."""
        return self._busy_angle is not None

    def sizeHint(self) -> QSize:
        width = text_width(self.text(), self._role(), self._weight()) + 2 * self._padding()
        if self._icon_name or self.is_busy():
            width += _ICON + (self._gap() if self.text() else 0)
        if self._trailing:
            width += _ICON + 4
        return QSize(round(width + 0.5), px(self._tall()))

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    def set_in_row(self, in_row: bool = True) -> None:
        """Make the button 24 high, as it is in a row of a card."""
        self._in_row = in_row
        self._compact = self._compact or in_row
        self.updateGeometry()

    def is_compact(self) -> bool:
        """Return whether the button is smaller than 32."""
        return self._compact

    def _tall(self) -> int:
        if self._in_row:
            return 24
        return 28 if self._compact or self._kind == "link" else 32

    def _role(self) -> TypeRole:
        return "secondary" if self._compact else "body"

    def _weight(self) -> int:
        return 500

    def _padding(self) -> int:
        if self._kind == "link":
            return 0
        return 9 if self._compact else 12

    def _gap(self) -> int:
        return 6 if self._compact else 8

    def _turn(self) -> None:
        self._busy_angle = ((self._busy_angle or 0) + 30) % 360
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        look = _look(tokens(), self._kind, self.isEnabled(), self.underMouse(), self.isDown() or self.isChecked())
        painter = painter_on(self)
        if look.fill or look.edge:
            round_box(painter, QRectF(self.rect()), 6, look.fill, look.edge)
        x = self._paint_lead(painter, self._start(), look.ink)
        middle = self.height() / 2
        words = QRectF(x, 0, self.width() - x - (self._padding() - 1), self.height())
        drawn = text(painter, words, self.text(), self._role(), look.ink, weight=self._weight())
        if self._kind == "link" and self.underMouse() and self.isEnabled():
            y = round(middle + px(7)) + 0.5
            painter.drawLine(QPointF(x, y), QPointF(x + drawn, y))
        if self._trailing:
            self._draw_icon(painter, x + drawn + 5, self._trailing, look.ink)

    def _paint_lead(self, painter: QPainter, x: float, ink: str) -> float:
        """Draw the icon or the turning ring, and return where the text begins."""
        if self.is_busy():
            painter.save()
            painter.translate(x + 8, self.height() / 2)
            painter.rotate(self._busy_angle or 0)
            ring(painter, QRectF(-6, -6, 12, 12), 0.3, ink, _faint(ink))
            painter.restore()
        elif self._icon_name:
            self._draw_icon(painter, x, self._icon_name, ink)
        else:
            return x
        return x + _ICON + self._gap()

    def _start(self) -> float:
        content = self.sizeHint().width() - 2 * self._padding()
        if self._kind == "link" or self.property("leftAligned"):
            return self._padding()
        return max(self._padding(), (self.width() - content) / 2)

    def _draw_icon(self, painter: QPainter, x: float, name: str, ink: str) -> None:
        image = pixmap(name, _ICON, ink, self.devicePixelRatioF())
        painter.drawPixmap(round(x), (self.height() - _ICON) // 2, image)


def _faint(ink: str) -> str:
    colour = QColor(ink)
    colour.setAlphaF(0.3)
    return colour.name(QColor.NameFormat.HexArgb)


def _look(colours: Tokens, kind: ButtonKind, enabled: bool, hover: bool, down: bool) -> _Look:
    if not enabled:
        return _Look("", colours.line if kind not in {"quiet", "link"} else "", colours.t3)
    ground = colours.pressed if down else colours.hover if hover else ""
    match kind:
        case "primary":
            fill = colours.accent_pressed if down else colours.accent_hover if hover else colours.accent_fill
            return _Look(fill, "", colours.on_accent)
        case "plain":
            return _Look(ground or colours.card, colours.line2, colours.t1)
        case "danger":
            return _Look(ground or colours.card, colours.line2, colours.bad)
        case "quiet":
            return _Look(ground, "", colours.t1 if hover else colours.t2)
        case "link":
            return _Look("", "", colours.accent)


class IconButton(QToolButton):
    """A quiet square button of 28 px that holds one icon."""

    def __init__(self, icon_name: str, tip: str, *, role: str = "t2", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._role = role
        self._fit()
        Theme.of().changed.connect(self._fit)
        self.setToolTip(tip)
        self.setAccessibleName(tip)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self._name = icon_name

    def set_icon_name(self, name: str) -> None:
        """Change the icon."""
        self._name = name
        self.update()

    def _fit(self) -> None:
        self.setFixedSize(px(28), px(28))

    def as_icon(self) -> QIcon:
        """Return the icon, for a menu entry that does the same."""
        return icon(self._name, self._role)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        if self.isEnabled() and (self.isDown() or self.underMouse()):
            fill = colours.pressed if self.isDown() else colours.hover
            round_box(painter, QRectF(self.rect()), 6, fill)
        ink = colours.colour(self._role if self.isEnabled() else "t3")
        left = (self.width() - _ICON) // 2
        painter.drawPixmap(left, (self.height() - _ICON) // 2, pixmap(self._name, _ICON, ink, self.devicePixelRatioF()))

    def enterEvent(self, event: QEnterEvent) -> None:
        super().enterEvent(event)
        self.update()

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self.update()
