"""Cards and lines: the frames in which a page is laid out."""

from __future__ import annotations

from typing import Literal

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLayout, QSizePolicy, QVBoxLayout, QWidget

from tunedesk.gui.theme import MEASURES
from tunedesk.gui.widgets.button import Button
from tunedesk.gui.widgets.paint import painter_on, round_box, tokens
from tunedesk.gui.widgets.text import ElidedLabel, Label

Severity = Literal["bad", "warn", "ok", "info"]


class Rule(QWidget):
    """A line of one pixel."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(1)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        return QSize(8, 1)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        QPainter(self).fillRect(self.rect(), QColor(tokens().line))


class Card(QFrame):
    """A flat surface with a one-pixel edge, and optionally a title with a widget at its right."""

    def __init__(
        self,
        title: str = "",
        *,
        right: QWidget | None = None,
        subtitle: str = "",
        padded: bool = True,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._tone: Severity | None = None
        self._rules: list[QWidget] = []
        self._padding = MEASURES.padding if padded else 0
        self.setFrameShape(QFrame.Shape.NoFrame)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(1, 1, 1, 1)
        outer.setSpacing(0)
        self.title = ElidedLabel(title, "card")
        self.title.setObjectName("title")
        self.subtitle = Label(subtitle, "secondary", "t2", wrap=True)
        self.subtitle.setObjectName("subtitle")
        self._head = self._build_head(right)
        outer.addWidget(self._head)
        self.body = QVBoxLayout()
        self.body.setSpacing(8 if padded else 0)
        outer.addLayout(self.body, 1)
        self.set_title(title, subtitle)

    def _build_head(self, right: QWidget | None) -> QWidget:
        head = QWidget(self)
        row = QHBoxLayout(head)
        edge = MEASURES.padding - 1
        row.setContentsMargins(edge, 11, edge, 2)
        row.setSpacing(12)
        words = QVBoxLayout()
        words.setSpacing(0)
        words.addWidget(self.title)
        words.addWidget(self.subtitle)
        self.title.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        row.addLayout(words, 1)
        self._right: QWidget | None = None
        self._head_row = row
        if right is not None:
            self.set_right(right)
        return head

    def set_title(self, title: str, subtitle: str | None = None) -> None:
        """Change the title; a card without title and right-hand widget has no head."""
        self.title.setText(title)
        if subtitle is not None:
            self.subtitle.setText(subtitle)
        self.subtitle.setVisible(bool(self.subtitle.text()))
        self.setAccessibleName(title)
        has_head = bool(title) or self._right is not None
        self._head.setVisible(has_head)
        pad = max(0, self._padding - 1)
        tall = min(pad, 12)
        self.body.setContentsMargins(pad, min(pad, 2) if has_head else tall, pad, tall)

    def set_right(self, widget: QWidget) -> None:
        """Put `widget` at the right end of the title row."""
        if self._right is not None:
            self._head_row.removeWidget(self._right)
            self._right.deleteLater()
        self._right = widget
        if isinstance(widget, Button) and widget.is_compact():
            widget.set_in_row()
        margins = self._head_row.contentsMargins()
        quiet = isinstance(widget, Button) and widget.kind() == "quiet"
        margins.setRight(MEASURES.padding - (9 if quiet else 1))
        self._head_row.setContentsMargins(margins)
        self._head_row.addWidget(widget, 0, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

    def set_beside(self, widget: QWidget) -> None:
        """Put `widget` directly after the title, for example a legend."""
        self.title.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        self._head_row.setStretch(0, 0)
        self._head_row.insertWidget(1, widget, 1)
        self._head_row.setSpacing(20)

    def set_tone(self, tone: Severity | None) -> None:
        """Tint the card, for a verdict; None makes it plain."""
        self._tone = tone
        self.update()

    def add(self, widget: QWidget, stretch: int = 0) -> None:
        """Add a widget to the body."""
        self.body.addWidget(widget, stretch)

    def add_layout(self, layout: QLayout, stretch: int = 0) -> None:
        """Add a layout to the body."""
        self.body.addLayout(layout, stretch)

    def add_rule(self) -> None:
        """Add a line from edge to edge."""
        mark = QWidget(self)
        mark.setFixedHeight(9)
        self._rules.append(mark)
        self.body.addWidget(mark)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        fill, edge = colours.card, colours.line
        if self._tone is not None:
            prefix = "accent" if self._tone == "info" else self._tone
            fill, edge = colours.colour(f"{prefix}_soft"), colours.colour(f"{prefix}_line")
        painter = painter_on(self)
        round_box(painter, QRectF(self.rect()), MEASURES.radius_card, fill, edge)
        for mark in self._rules:
            if mark.isVisible():
                painter.fillRect(1, mark.y() + 4, self.width() - 2, 1, QColor(edge))
