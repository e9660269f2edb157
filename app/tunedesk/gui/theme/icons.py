"""Stroke icons, drawn from SVG in the colours of the theme and at the pixel ratio of the screen."""

from __future__ import annotations

from functools import cache

from PySide6.QtCore import QByteArray, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QIcon, QIconEngine, QPainter, QPixmap, QPixmapCache
from PySide6.QtSvg import QSvgRenderer

from tunedesk.gui.theme.paths import resources
from tunedesk.gui.theme.tokens import MEASURES


@cache
def icon_names() -> tuple[str, ...]:
    """Return the names of all shipped icons."""
    return tuple(sorted(path.stem for path in (resources() / "icons").glob("*.svg")))


@cache
def _source(name: str) -> str:
    return (resources() / "icons" / f"{name}.svg").read_text(encoding="utf-8")


def svg(name: str, colour: str, size: float = MEASURES.icon) -> str:
    """Return the SVG text of an icon in one colour, its stroke 1.5 px wide at `size`."""
    stroke = MEASURES.icon_stroke * 24 / size
    text = _source(name).replace("currentColor", colour)
    return text if name == "logo" else text.replace('stroke-width="1.5"', f'stroke-width="{stroke:.3f}"')


def draw(painter: QPainter, name: str, rect: QRectF, colour: str) -> None:
    """Draw an icon into `rect`."""
    renderer = QSvgRenderer(QByteArray(svg(name, colour, rect.height()).encode()))
    renderer.render(painter, rect)


def pixmap(name: str, size: int, colour: str, dpr: float = 1.0) -> QPixmap:
    """Return a square pixmap of `size` device-independent pixels."""
    key = f"tunedesk/{name}/{size}/{colour}/{dpr}"
    found = QPixmap()
    if QPixmapCache.find(key, found):
        return found
    drawn = _render(name, size, colour, dpr)
    QPixmapCache.insert(key, drawn)
    return drawn


def _render(name: str, size: int, colour: str, dpr: float) -> QPixmap:
    drawn = QPixmap(round(size * dpr), round(size * dpr))
    drawn.setDevicePixelRatio(dpr)
    drawn.fill(Qt.GlobalColor.transparent)
    painter = QPainter(drawn)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    draw(painter, name, QRectF(0, 0, size, size), colour)
    painter.end()
    return drawn


class ThemeIconEngine(QIconEngine):
    """Draws one icon in the colour that a role has in the theme of the moment."""

    def __init__(self, name: str, role: str) -> None:
        super().__init__()
        self._name = name
        self._role = role

    def _colour(self, mode: QIcon.Mode) -> str:
        from tunedesk.gui.theme.style import Theme

        role = "t3" if mode is QIcon.Mode.Disabled else self._role
        return Theme.of().tokens.colour(role)

    def paint(self, painter: QPainter, rect: QRect, mode: QIcon.Mode, state: QIcon.State) -> None:  # noqa: ARG002
        side = min(rect.width(), rect.height())
        square = QRectF(0, 0, side, side)
        square.moveCenter(QRectF(rect).center())
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        draw(painter, self._name, square, self._colour(mode))
        painter.restore()

    def pixmap(self, size: QSize, mode: QIcon.Mode, state: QIcon.State) -> QPixmap:
        return self.scaledPixmap(size, mode, state, 1.0)

    def scaledPixmap(self, size: QSize, mode: QIcon.Mode, state: QIcon.State, scale: float) -> QPixmap:  # noqa: ARG002
        side = min(size.width(), size.height())
        return pixmap(self._name, side, self._colour(mode), scale)

    def clone(self) -> QIconEngine:
        return ThemeIconEngine(self._name, self._role)

    def key(self) -> str:
        return f"tunedesk-{self._name}-{self._role}"


def icon(name: str, role: str = "t1") -> QIcon:
    """Return an icon that follows the theme; `role` is the name of a colour token."""
    if name not in icon_names():
        raise ValueError(f"There is no icon called {name!r}.")
    return QIcon(ThemeIconEngine(name, role))
