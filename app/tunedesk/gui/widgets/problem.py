"""Problems in words: what is wrong, where, what is there now, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Final

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from tunedesk.gui.theme import MEASURES, pixmap
from tunedesk.gui.widgets.button import Button
from tunedesk.gui.widgets.card import Severity
from tunedesk.gui.widgets.paint import painter_on, round_box, tokens
from tunedesk.gui.widgets.text import Label

_ICONS: Final[dict[Severity, str]] = {"bad": "problem", "warn": "alert", "ok": "circle-check", "info": "info"}


@dataclass(frozen=True, slots=True)
class ProblemItem:
    """One problem, or one good verdict; `actions` are (key, text) pairs."""

    severity: Severity
    headline: str
    text: str = ""
    actions: tuple[tuple[str, str], ...] = ()
    aside: str = ""


class _Row(QWidget):
    action = Signal(str)

    def __init__(self, item: ProblemItem, parent: QWidget) -> None:
        super().__init__(parent)
        self.item = item
        self.setAccessibleName(f"{item.headline} {item.text}".strip())
        row = QHBoxLayout(self)
        row.setContentsMargins(44, 9, 16, 9)
        row.setSpacing(12)
        words = Label("", wrap=True, selectable=True, rich=True)
        words.setObjectName("words")
        words.setText(f"<b>{escape(item.headline)}</b> {escape(item.text)}".strip())
        words.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        words.setMinimumHeight(24)
        row.addWidget(words, 1)
        if item.aside:
            row.addWidget(Label(item.aside, "secondary", "t2"))
        for index, (key, text) in enumerate(item.actions):
            row.addWidget(self._button(key, text, first=index == 0), 0, Qt.AlignmentFlag.AlignTop)

    def _button(self, key: str, text: str, *, first: bool) -> Button:
        button = Button(text, "plain" if first else "quiet", in_row=True)
        button.setObjectName(f"action_{key}")
        button.clicked.connect(lambda: self.action.emit(key))
        return button

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        prefix = "accent" if self.item.severity == "info" else self.item.severity
        painter = painter_on(self)
        fill, edge = colours.colour(f"{prefix}_soft"), colours.colour(f"{prefix}_line")
        round_box(painter, QRectF(self.rect()), MEASURES.radius_card, fill, edge)
        image = pixmap(_ICONS[self.item.severity], 16, colours.colour(prefix), self.devicePixelRatioF())
        painter.drawPixmap(17, 13, image)


class ProblemBar(QWidget):
    """All problems of a page, one under the other; hidden while there is none."""

    action_chosen = Signal(int, str)

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: list[_Row] = []
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(8)
        self.hide()

    def set_problems(self, items: list[ProblemItem]) -> None:
        """Show these problems in the place of the former ones."""
        if items == self.problems():
            return
        for row in self._rows:
            self._column.removeWidget(row)
            row.hide()
            row.deleteLater()
        self._rows = [self._add(index, item) for index, item in enumerate(items)]
        self.setAccessibleName(" ".join(row.accessibleName() for row in self._rows))
        self.setVisible(bool(items))

    def _add(self, index: int, item: ProblemItem) -> _Row:
        row = _Row(item, self)
        row.setObjectName(f"problem_{index}")
        row.action.connect(lambda key: self.action_chosen.emit(index, key))
        self._column.addWidget(row)
        return row

    def clear(self) -> None:
        """Remove all problems."""
        self.set_problems([])

    def problems(self) -> list[ProblemItem]:
        """Return what is shown."""
        return [row.item for row in self._rows]
