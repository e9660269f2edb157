"""Which column is what: asked for on the Data page where it cannot be told from the names."""

from __future__ import annotations

import re
from typing import Final

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from tunedesk.core.problems import Problem
from tunedesk.core.project import COLUMNS_THERE
from tunedesk.gui.task_words import RowKind
from tunedesk.gui.widgets import Button, Card, Field

ROLES: Final[dict[RowKind, tuple[str, ...]]] = {
    "chat": ("system", "prompt", "completion"),
    "completion": ("prompt", "text"),
    "classification": ("text", "text_pair", "label"),
    "seq2seq": ("prompt", "completion"),
    "preference": ("prompt", "chosen", "rejected"),
    "rated": ("prompt", "completion", "label"),
}
OPTIONAL: Final[dict[RowKind, tuple[str, ...]]] = {
    "chat": ("system",),
    "completion": ("prompt",),
    "classification": ("text_pair",),
    "preference": ("prompt",),
}
"""The parts that a row can do without."""

_LIKELY: Final = {
    "prompt": ("prompt", "question", "instruction", "input", "user", "customer"),
    "completion": ("completion", "answer", "response", "reply", "output", "assistant"),
    "text": ("text", "content", "body", "sentence", "comment", "review", "message"),
    "text_pair": ("pair", "sentence2", "hypothesis"),
    "system": ("system", "persona"),
    "chosen": ("chosen", "better", "preferred", "accepted", "winner"),
    "rejected": ("rejected", "worse", "loser"),
    "label": ("label", "class", "category", "sentiment", "topic", "intent", "rating", "kind", "type", "target"),
}

_COUNTERS: Final = ("id", "index", "number", "nr", "date")
"""Columns that hold no text."""


def columns_in(problem: Problem) -> tuple[str, ...]:
    """The column names that a problem lists: ``Columns there: 'a', 'b'.``; none when it lists none."""
    _, _, names = problem.found.partition(COLUMNS_THERE)
    return tuple(dict.fromkeys(re.findall(r"'([^']+)'", names)))


def guess_columns(rows: RowKind, names: tuple[str, ...]) -> dict[str, int]:
    """The place of the column that most likely plays each part of `rows`; -1 for one that can be done without.

    A name that says so decides; what is left over goes to the parts in their order.
    """
    found = {role: _named(role, names) for role in ROLES[rows]}
    needed = [role for role in ROLES[rows] if role not in OPTIONAL.get(rows, ())]
    for role in OPTIONAL.get(rows, ()):
        if found[role] in [found[other] for other in needed]:
            found[role] = -1
    places = [place for place, name in enumerate(names) if name.lower() not in _COUNTERS] or [0]
    for role in needed:
        if found[role] < 0:
            left = [place for place in places if place not in found.values()] or places
            found[role] = left[0]
    return found


def _named(role: str, names: tuple[str, ...]) -> int:
    for word in _LIKELY[role]:
        for place, name in enumerate(names):
            if word in name.lower():
                return place
    return -1


class MappingCard(Card):
    """A box for each part that the task needs, filled with the file's columns."""

    taken = Signal(dict)
    """The columns were named: role to column."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__("", parent=parent)
        self.setObjectName("mapping")
        self.set_title(self.tr("Which column is what?"))
        self._rows: RowKind = "chat"
        self._names: tuple[str, ...] = ()
        self.fields = {
            "system": self._field("columnSystem"),
            "prompt": self._field("columnPrompt"),
            "completion": self._field("columnCompletion"),
            "chosen": self._field("columnChosen"),
            "rejected": self._field("columnRejected"),
            "text": self._field("columnText"),
            "text_pair": self._field("columnPair"),
            "label": self._field("columnLabel"),
        }
        self._name_fields()
        self.boxes: dict[str, QComboBox] = {role: field.control for role, field in self.fields.items()}  # type: ignore[misc]
        self.use = Button(self.tr("Use these columns"), "primary")
        self.use.setObjectName("useColumns")
        self.use.clicked.connect(self._take)
        self.add_layout(self._build_row())
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)

    def _field(self, name: str) -> Field:
        box = QComboBox()
        box.setObjectName(name)
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(8)
        return Field("", box, "")

    def _name_fields(self) -> None:
        """Say what each part is for the rows that are asked about."""
        said = {
            "system": (self.tr("Instructions"), self.tr("What it is told first")),
            "prompt": (self.tr("The question"), self.tr("What the model reads")),
            "completion": (self.tr("The answer"), self.tr("What it learns to write")),
            "chosen": (self.tr("Better answer"), self.tr("What it learns to prefer")),
            "rejected": (self.tr("Worse answer"), self.tr("What it learns to shun")),
            "text": (self.tr("The text"), self.tr("What it learns to go on with")),
            "text_pair": (self.tr("A second text"), self.tr("If texts come in pairs")),
            "label": (self.tr("The label"), self.tr("What it learns to tell")),
        }
        match self._rows:
            case "classification":
                said["text"] = (self.tr("The text"), self.tr("What it reads"))
            case "seq2seq":
                said["prompt"] = (self.tr("Text"), self.tr("What the model reads"))
                said["completion"] = (self.tr("Result"), self.tr("What it learns to write"))
            case "completion":
                said["prompt"] = (self.tr("The beginning"), self.tr("If a part is only read"))
                said["text"] = (self.tr("The text"), self.tr("What it learns to write"))
            case "rated":
                said["completion"] = (self.tr("The answer"), self.tr("What was rated"))
                said["label"] = (self.tr("Rating"), self.tr("Good or bad"))
            case _:
                pass
        for role, field in self.fields.items():
            label, about = said[role]
            field.set_label(label)
            field.set_help(about)

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

    def ask(self, names: tuple[str, ...], rows: RowKind) -> None:
        """Ask which of the columns `names` are what `rows` are made of; without names there is nothing to ask."""
        self.setVisible(bool(names))
        if (names, rows) == (self._names, self._rows):
            return
        self._names, self._rows = names, rows
        self._name_fields()
        for role, field in self.fields.items():
            field.setVisible(role in ROLES[rows])
            field.set_error("")
        for role, place in guess_columns(rows, names).items():
            self._fill(role, place + 1 if role in OPTIONAL.get(rows, ()) else place)

    def _fill(self, role: str, place: int) -> None:
        box = self.boxes[role]
        box.clear()
        if role in OPTIONAL.get(self._rows, ()):
            box.addItem(self.tr("None"), "")
        for name in self._names:
            box.addItem(name, name)
        box.setCurrentIndex(place)

    def _take(self) -> None:
        chosen = {role: self.boxes[role].currentData() for role in ROLES[self._rows]}
        columns = {role: name for role, name in chosen.items() if name}
        last = self.fields[ROLES[self._rows][-1]]
        if len(set(columns.values())) < len(columns):
            last.set_error(self.tr("Choose different columns"))
            return
        last.set_error("")
        if self._rows == "completion" and "prompt" in columns:
            columns["completion"] = columns.pop("text")
        self.taken.emit(columns)
