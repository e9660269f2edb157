"""Which column is what: asked for on the Data page where it cannot be told from the names."""

from __future__ import annotations

import re
from typing import Final

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from tunedesk.core.describe import TaskKind
from tunedesk.core.problems import Problem
from tunedesk.core.project import COLUMNS_THERE
from tunedesk.gui.widgets import Button, Card, Field

ROLES: Final[dict[TaskKind, tuple[str, ...]]] = {
    "chat": ("prompt", "completion"),
    "completion": ("text",),
    "classification": ("text", "text_pair", "label"),
}
OPTIONAL: Final = "text_pair"

_LIKELY: Final = {
    "prompt": ("prompt", "question", "instruction", "input", "user", "customer"),
    "completion": ("completion", "answer", "response", "reply", "output", "assistant"),
    "text": ("text", "content", "body", "sentence", "comment", "review", "message"),
    "text_pair": ("pair", "sentence2", "hypothesis"),
    "label": ("label", "class", "category", "sentiment", "topic", "intent", "rating", "kind", "type", "target"),
}


_COUNTERS: Final = ("id", "index", "number", "nr", "date")
"""Columns that hold no text."""


def columns_in(problem: Problem) -> tuple[str, ...]:
    """The column names that a problem lists: ``Columns there: 'a', 'b'.``; none when it lists none."""
    _, _, names = problem.found.partition(COLUMNS_THERE)
    return tuple(dict.fromkeys(re.findall(r"'([^']+)'", names)))


def guess_column(role: str, names: tuple[str, ...], otherwise: int) -> int:
    """The place of the column that most likely plays `role`."""
    for word in _LIKELY[role]:
        for place, name in enumerate(names):
            if word in name.lower():
                return place
    return otherwise


class MappingCard(Card):
    """A box for each part that the task needs, filled with the file's columns."""

    taken = Signal(dict)
    """The columns were named: role to column."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__("", parent=parent)
        self.setObjectName("mapping")
        self.set_title(self.tr("Which column is what?"))
        self._task: TaskKind = "chat"
        self._names: tuple[str, ...] = ()
        self.fields = {
            "prompt": self._field("columnPrompt", self.tr("The question"), self.tr("What the model reads")),
            "completion": self._field("columnCompletion", self.tr("The answer"), self.tr("What it learns to write")),
            "text": self._field("columnText", self.tr("The text"), ""),
            "text_pair": self._field("columnPair", self.tr("A second text"), self.tr("If texts come in pairs")),
            "label": self._field("columnLabel", self.tr("The label"), self.tr("What it learns to tell")),
        }
        self.boxes: dict[str, QComboBox] = {role: field.control for role, field in self.fields.items()}  # type: ignore[misc]
        self.use = Button(self.tr("Use these columns"), "primary")
        self.use.setObjectName("useColumns")
        self.use.clicked.connect(self._take)
        self.add_layout(self._build_row())
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)

    def _field(self, name: str, label: str, about: str) -> Field:
        box = QComboBox()
        box.setObjectName(name)
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(8)
        return Field(label, box, about)

    def _build_row(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(16)
        for field in self.fields.values():
            row.addWidget(field, 1)
        column = QVBoxLayout()
        column.addSpacing(20)
        column.addWidget(self.use)
        column.addStretch(1)
        row.addLayout(column)
        return row

    def ask(self, names: tuple[str, ...], task: TaskKind) -> None:
        """Ask which of the columns `names` are what `task` needs; without names there is nothing to ask."""
        self.setVisible(bool(names))
        if (names, task) == (self._names, self._task):
            return
        self._names, self._task = names, task
        labelled = task == "classification"
        self.fields["text"].set_help(self.tr("What it reads") if labelled else self.tr("What it learns to go on with"))
        for role, field in self.fields.items():
            field.setVisible(role in ROLES[task])
            field.set_error("")
        places = [place for place, name in enumerate(names) if name.lower() not in _COUNTERS] or [0]
        for count, role in enumerate(role for role in ROLES[task] if role != OPTIONAL):
            self._fill(role, guess_column(role, names, places[min(count, len(places) - 1)]))
        if OPTIONAL in ROLES[task]:
            self._fill(OPTIONAL, guess_column(OPTIONAL, names, -1) + 1)

    def _fill(self, role: str, place: int) -> None:
        box = self.boxes[role]
        box.clear()
        if role == OPTIONAL:
            box.addItem(self.tr("None"), "")
        for name in self._names:
            box.addItem(name, name)
        box.setCurrentIndex(place)

    def _take(self) -> None:
        chosen = {role: self.boxes[role].currentData() for role in ROLES[self._task]}
        columns = {role: name for role, name in chosen.items() if name}
        last = self.fields[ROLES[self._task][-1]]
        if len(set(columns.values())) < len(columns):
            last.set_error(self.tr("Choose different columns"))
            return
        last.set_error("")
        self.taken.emit(columns)
