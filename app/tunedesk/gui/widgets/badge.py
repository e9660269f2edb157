"""A small chip with one word or two."""

from __future__ import annotations

from typing import Final, Literal

from PySide6.QtCore import QRectF, QSize
from PySide6.QtGui import QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from tunedesk.gui.theme import pixmap
from tunedesk.gui.widgets.paint import painter_on, px, round_box, text, text_width, tokens

BadgeKind = Literal["recommended", "ok", "warn", "bad", "neutral"]

_PREFIX: Final = {"recommended": "accent", "ok": "ok", "warn": "warn", "bad": "bad"}


class Badge(QWidget):
    """A chip: recommended, ok (with a tick), warn, bad or neutral. Hidden while it has no text."""

    def __init__(self, text: str = "", kind: BadgeKind = "neutral", *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text = ""
        self._kind: BadgeKind = kind
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.set_badge(text, kind)

    def text(self) -> str:
        """Return the words on the chip."""
        return self._text

    def kind(self) -> BadgeKind:
        """Return the kind of chip."""
        return self._kind

    def set_badge(self, text: str, kind: BadgeKind = "neutral") -> None:
        """Change words and kind."""
        self._text, self._kind = text, kind
        self.setAccessibleName(text)
        if self.parent() is not None or not text:
            self.setVisible(bool(text))
        self.updateGeometry()
        self.update()

    def _mark(self) -> int:
        return 16 if self._kind == "ok" else 0

    def sizeHint(self) -> QSize:
        return QSize(round(text_width(self._text, "axis") + 12 + self._mark() + 1), px(20))

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        prefix = _PREFIX.get(self._kind, "")
        fill = colours.colour(f"{prefix}_soft") if prefix else colours.sunk
        edge = colours.colour(f"{prefix}_line") if prefix else colours.line
        ink = colours.colour(prefix) if prefix else colours.t2
        painter = painter_on(self)
        round_box(painter, QRectF(self.rect()), 4, fill, edge)
        if self._mark():
            painter.drawPixmap(6, (self.height() - 12) // 2, pixmap("tick", 12, ink, self.devicePixelRatioF()))
        text(
            painter,
            QRectF(6 + self._mark(), 0, self.width() - 12 - self._mark() + 1, self.height()),
            self._text,
            "axis",
            ink,
        )
