"""A list of findings or checks, each with a sign, a sentence and what can be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PySide6.QtCore import QPointF, QTimer, Signal
from PySide6.QtGui import QColor, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets.button import Button
from tunedesk.gui.widgets.glyphs import check_glyph
from tunedesk.gui.widgets.paint import painter_on, tokens
from tunedesk.gui.widgets.text import Label

CheckStatus = Literal["ok", "warn", "bad", "running", "waiting", "info"]


@dataclass(frozen=True, slots=True)
class CheckItem:
    """One finding or check; `actions` are (key, text) pairs."""

    key: str
    status: CheckStatus
    title: str
    text: str = ""
    actions: tuple[tuple[str, str], ...] = ()


class _Row(QWidget):
    action = Signal(str)

    def __init__(self, item: CheckItem, first: bool, parent: QWidget) -> None:
        super().__init__(parent)
        self.item = item
        self._first = first
        self._angle = 0
        self.setObjectName(f"check_{item.key}")
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        column = QVBoxLayout(self)
        column.setContentsMargins(42, 10, 16, 8)
        column.setSpacing(0)
        title = Label(item.title, "strong", wrap=True, selectable=True)
        title.setObjectName("title")
        column.addWidget(title)
        if item.text:
            words = Label(item.text, "secondary", "t2", wrap=True, selectable=True)
            words.setObjectName("text")
            column.addWidget(words)
        if item.actions:
            column.addLayout(self._actions())
        self.setAccessibleName(f"{item.title}. {item.text}")
        if item.status == "running" and not Theme.of().reduced_motion:
            timer = QTimer(self)
            timer.timeout.connect(self._turn)
            timer.start(80)

    def _actions(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(16)
        for key, words in self.item.actions:
            button = Button(words, "link", in_row=True)
            button.setObjectName(f"action_{key}")
            button.clicked.connect(lambda _=False, key=key: self.action.emit(key))
            row.addWidget(button)
        row.addStretch(1)
        return row

    def _turn(self) -> None:
        self._angle = (self._angle + 30) % 360
        self.update(0, 0, 40, self.height())

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        if not self._first:
            painter.fillRect(0, 0, self.width(), 1, QColor(colours.line))
        painter.translate(24, 20)
        painter.rotate(self._angle)
        check_glyph(painter, QPointF(0, 0), self.item.status, colours)


class CheckList(QWidget):
    """Findings or checks, one under the other; put it into a card with `padded=False`."""

    action_chosen = Signal(str, str)

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: list[_Row] = []
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(0)
        self._column.addStretch(1)

    def set_items(self, items: Sequence[CheckItem]) -> None:
        """Show these items; a row whose item is unchanged stays as it is."""
        kept = {row.item: row for row in self._rows}
        rows = [
            kept.pop(item) if item in kept else self._make(item, first=index == 0) for index, item in enumerate(items)
        ]
        for row in kept.values():
            self._column.removeWidget(row)
            row.hide()
            row.deleteLater()
        for index, row in enumerate(rows):
            self._column.insertWidget(index, row)
        self._rows = rows

    def _make(self, item: CheckItem, *, first: bool) -> _Row:
        row = _Row(item, first, self)
        row.action.connect(lambda key: self.action_chosen.emit(item.key, key))
        return row

    def items(self) -> list[CheckItem]:
        """Return what is shown."""
        return [row.item for row in self._rows]
