"""All settings of training in one dialog, generated from the run file's own fields."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QComboBox,
    QDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLineEdit,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from tunedesk.core.plan import Plan
from tunedesk.core.spec import TaskSection, TrainingSection
from tunedesk.gui import words
from tunedesk.gui.session import Session
from tunedesk.gui.widgets import Button, Card, Field, Label, Rule

AUTO: Final = "auto"
BETA: Final = "beta"
"""The one field of the task that stands among those of training."""
AUTO_BETA: Final = "0.1"
"""What it is on auto."""


def choices_of(annotation: Any) -> tuple[object, ...]:
    """The values that a field is limited to, ``auto`` first where it is allowed; empty for numbers."""
    found: list[object] = []
    for part in _members(annotation):
        if get_origin(part) is Literal:
            found += [value for value in get_args(part) if value != AUTO]
        elif part is bool:
            found += [True, False]
        elif part is not NoneType:
            return ()
    return ((AUTO,) if allows_auto(annotation) else ()) + tuple(found)


def allows_auto(annotation: Any) -> bool:
    """Whether the field may be ``auto``."""
    return any(get_origin(part) is Literal and AUTO in get_args(part) for part in _members(annotation))


def allows_none(annotation: Any) -> bool:
    """Whether the field may be left empty."""
    return NoneType in _members(annotation)


def _members(annotation: Any) -> list[Any]:
    """The alternatives of a type, unions and constraints taken apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]


def parse(text: str, annotation: Any) -> object:
    """What was typed as a value; text that is no number stays text, for the model to refuse."""
    text = text.strip().replace(",", "").replace(words.MINUS, "-")
    if not text:
        return None if allows_none(annotation) else AUTO if allows_auto(annotation) else ""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


def typed(value: object) -> str:
    """A value as it is typed into a field."""
    if value is None or value == AUTO:
        return ""
    if isinstance(value, float) and 0 < abs(value) < 0.01:
        return words.rate(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def faults(values: dict[str, object]) -> dict[str, str]:
    """What is wrong with each value, by field; empty when all can be used."""
    training = {name: value for name, value in values.items() if name != BETA}
    task = {name: value for name, value in values.items() if name == BETA}
    return {**_faults_of(TrainingSection, training), **_faults_of(TaskSection, task)}


def _faults_of(section: type[TrainingSection | TaskSection], values: dict[str, object]) -> dict[str, str]:
    try:
        section.model_validate(values)
    except ValidationError as error:
        found: dict[str, str] = {}
        for item in error.errors():
            if item["type"] != "literal_error" or str(item["loc"][0]) not in found:
                found[str(item["loc"][0])] = item["msg"].replace("Input should be", "Must be")
        return found
    return {}


def field_of(name: str) -> FieldInfo:
    """The field of the run file that is called `name`."""
    return TaskSection.model_fields[BETA] if name == BETA else TrainingSection.model_fields[name]


class SettingsDialog(QDialog):
    """Every field of training with what it does; a wrong value is explained at its field."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session = session
        self.setObjectName("settingsDialog")
        self.setWindowTitle(self.tr("All settings"))
        self.resize(760, 640)
        self.fields: dict[str, Field] = {}
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self._build_scroll(), 1)
        column.addWidget(Rule())
        column.addLayout(self._build_buttons())
        self.show_values(session.project.spec.training, session.project.plan, session.project.spec.task.beta)

    # Building.

    def _build_scroll(self) -> QScrollArea:
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(24, 20, 24, 20)
        column.setSpacing(16)
        head = QVBoxLayout()
        head.setSpacing(0)
        head.addWidget(Label(self.tr("All settings"), "title"))
        intro = self.tr("What is left empty or on auto is chosen for your model, data and computer.")
        head.addWidget(Label(intro, "body", "t2", wrap=True))
        column.addLayout(head)
        for title, names in self._groups():
            column.addWidget(self._group(title, names))
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setObjectName("scroll")
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inside)
        return scroll

    def _groups(self) -> list[tuple[str, list[str]]]:
        learning = ["learning_rate", "lr_scheduler", "warmup_ratio", "epochs", "max_steps", "weight_decay"]
        memory = ["micro_batch_size", "gradient_accumulation_steps", "max_length", "gradient_checkpointing"]
        groups = [
            (self.tr("Learning"), [*learning, "max_grad_norm", "seed"]),
            (self.tr("Memory and speed"), [*memory, "precision", "device"]),
            (self.tr("Checks and checkpoints"), ["eval_steps", "save_steps", "keep_checkpoints", "forgetting"]),
        ]
        if self.session.project.spec.task.kind == "preference":
            groups.insert(0, (self.tr("Preference"), [BETA]))
        placed = {name for _, names in groups for name in names}
        rest = [name for name in TrainingSection.model_fields if name not in placed]
        return [*groups, (self.tr("More"), rest)] if rest else groups

    def _group(self, title: str, names: list[str]) -> Card:
        card = Card(title)
        grid = QGridLayout()
        grid.setHorizontalSpacing(24)
        grid.setVerticalSpacing(12)
        for place, name in enumerate(names):
            field = self._field(name, field_of(name))
            grid.addWidget(field, place // 2, place % 2, Qt.AlignmentFlag.AlignTop)
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(1, 1)
        card.add_layout(grid)
        return card

    def _field(self, name: str, info: FieldInfo) -> Field:
        choices = choices_of(info.annotation)
        control: QWidget
        if choices:
            control = QComboBox()
            for choice in choices:
                control.addItem("", choice)
            control.currentIndexChanged.connect(lambda: self._check(name))
        else:
            control = QLineEdit()
            control.editingFinished.connect(lambda: self._check(name))
            control.textEdited.connect(lambda: self.fields[name].set_error(""))
        control.setObjectName(name)
        field = Field(self._label(name), control, (info.description or "").replace("`", ""))
        field.setObjectName(f"field_{name}")
        self.fields[name] = field
        return field

    def _label(self, name: str) -> str:
        labels = {
            "learning_rate": self.tr("Learning rate"),
            "lr_scheduler": self.tr("Course of the learning rate"),
            "warmup_ratio": self.tr("Warm-up, share of the steps"),
            "epochs": self.tr("Passes over the data (epochs)"),
            "max_steps": self.tr("Steps at most"),
            "micro_batch_size": self.tr("Conversations at a time"),
            "gradient_accumulation_steps": self.tr("Gather before each update"),
            "max_length": self.tr("Longest text, in tokens"),
            "gradient_checkpointing": self.tr("Recompute activations"),
            "precision": self.tr("Number format"),
            "device": self.tr("Computed on"),
            "weight_decay": self.tr("Weight decay"),
            "max_grad_norm": self.tr("Longest gradient"),
            "eval_steps": self.tr("Steps between checks"),
            "save_steps": self.tr("Steps between checkpoints"),
            "keep_checkpoints": self.tr("Checkpoints kept"),
            "seed": self.tr("Seed"),
            "forgetting": self.tr("Check what it forgets"),
            BETA: self.tr("How hard the old model holds it (beta)"),
        }
        return labels.get(name, name.replace("_", " ").capitalize())

    def _build_buttons(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setContentsMargins(24, 12, 24, 12)
        row.setSpacing(8)
        self.reset = Button(self.tr("Back to the defaults"), "quiet")
        self.reset.setObjectName("reset")
        self.reset.clicked.connect(lambda: self.show_values(TrainingSection(), self.session.project.plan, AUTO))
        self.hint = Label("", "secondary", "bad")
        self.hint.setObjectName("hint")
        self.cancel = Button(self.tr("Cancel"), "plain")
        self.cancel.setObjectName("cancel")
        self.cancel.clicked.connect(self.reject)
        self.use = Button(self.tr("Use these settings"), "primary")
        self.use.setObjectName("use")
        self.use.clicked.connect(self._take)
        row.addWidget(self.reset)
        row.addStretch(1)
        row.addWidget(self.hint)
        row.addWidget(self.cancel)
        row.addWidget(self.use)
        return row

    # Values.

    def show_values(self, training: TrainingSection, plan: Plan | None, beta: float | str = AUTO) -> None:
        """Fill every field; what is on auto says which value that is."""
        for name, field in self.fields.items():
            value = beta if name == BETA else getattr(training, name)
            resolved = AUTO_BETA if name == BETA else resolved_text(plan, name)
            control = field.control
            if isinstance(control, QComboBox):
                self._fill_combo(control, value, resolved)
            elif isinstance(control, QLineEdit):
                control.setText(typed(value))
                control.setPlaceholderText(self._placeholder(name, resolved))
            field.set_error("")
        self.hint.setText("")

    def _fill_combo(self, combo: QComboBox, value: object, resolved: str) -> None:
        for place in range(combo.count()):
            choice = combo.itemData(place)
            text = self._choice_text(choice)
            combo.setItemText(place, f"{text} ({resolved})" if choice == AUTO and resolved else text)
            if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                combo.setCurrentIndex(place)

    def _choice_text(self, choice: object) -> str:
        names = {
            "cosine": self.tr("Cosine, down to nothing"),
            "linear": self.tr("Straight down"),
            "constant": self.tr("Constant"),
            "cpu": self.tr("Processor"),
            "cuda": self.tr("NVIDIA graphics card (cuda)"),
            "mps": self.tr("Apple graphics (mps)"),
        }
        if isinstance(choice, bool):
            return self.tr("On") if choice else self.tr("Off")
        return names.get(str(choice), str(choice))

    def _placeholder(self, name: str, resolved: str) -> str:
        annotation = field_of(name).annotation
        if allows_auto(annotation):
            return f"{AUTO} ({resolved})" if resolved else AUTO
        return self.tr("no limit") if allows_none(annotation) else ""

    def values(self) -> dict[str, object]:
        """What the fields say now."""
        found: dict[str, object] = {}
        for name, field in self.fields.items():
            control = field.control
            if isinstance(control, QComboBox):
                found[name] = control.currentData()
            elif isinstance(control, QLineEdit):
                found[name] = parse(control.text(), field_of(name).annotation)
        return found

    def _check(self, name: str) -> None:
        if name in self.fields:
            self.fields[name].set_error(faults(self.values()).get(name, ""))

    def _take(self) -> None:
        values = self.values()
        wrong = faults(values)
        for name, field in self.fields.items():
            field.set_error(wrong.get(name, ""))
        if wrong:
            first = self.fields[next(name for name in self.fields if name in wrong)]
            self.hint.setText(self.tr("Some values cannot be used yet"))
            first.control.setFocus()
            return
        beta = values.pop(BETA, None)
        if isinstance(beta, int | float | str):
            self.session.set_beta(beta)
        self.session.set_training(**values)
        self.accept()


def resolved_text(plan: Plan | None, name: str) -> str:
    """The value that ``auto`` stands for in `plan`, as text; empty when it is not known."""
    value = getattr(plan.resolved, name, None) if plan else None
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return words.rate(value) if value < 0.01 else words.decimal(value)
    return words.count(value) if isinstance(value, int) else str(value)
