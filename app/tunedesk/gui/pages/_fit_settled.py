"""What a run that fits will do, in words, and the settings that decide its memory."""

from __future__ import annotations

from PySide6.QtCore import QSignalBlocker, Signal
from PySide6.QtWidgets import QComboBox, QDoubleSpinBox, QHBoxLayout, QSizePolicy, QSpinBox, QWidget

from tunedesk.core.hardware import GIB
from tunedesk.core.plan import Plan
from tunedesk.core.project import Project, rows_of
from tunedesk.gui import task_words, words
from tunedesk.gui.pages._parts import SignedList, editing
from tunedesk.gui.pages._plans import effect
from tunedesk.gui.theme import Tone
from tunedesk.gui.widgets import Badge, Card, CardGrid, Field, Label


class SettledCard(Card):
    """Steps, checks and the course of the learning rate; below them the fields, each with its effect."""

    changed = Signal(str, object)
    """The field of this name was given this value."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.setObjectName("settled")
        row = QHBoxLayout()
        row.setSpacing(8)
        self.badge = Badge(self.tr("Settled"), "ok")
        self.headline = Label("", "card")
        self.headline.setObjectName("settledTitle")
        row.addWidget(self.badge)
        row.addWidget(self.headline, 1)
        self.add_layout(row)
        self.body.addSpacing(4)
        self.lines = SignedList(gap=4)
        self.lines.setObjectName("lines")
        self.add(self.lines)
        self.body.addStretch(1)
        self.add_rule()
        self.add(self._build_fields())

    def _build_fields(self) -> CardGrid:
        self.micro = _count_box("micro", 4096)
        self.gather = _count_box("gather", 4096)
        self.length = _count_box("length", 1_048_576, step=64)
        self.recompute = _choice_box("recompute")
        self.precision = _choice_box("precision")
        self.epochs = QDoubleSpinBox()
        self.epochs.setObjectName("epochs")
        self.epochs.setRange(0.1, 1000)
        self.epochs.setDecimals(1)
        self.epochs.setKeyboardTracking(False)
        self.fields = {
            "micro_batch_size": Field(self.tr("Rows at a time"), self.micro),
            "gradient_accumulation_steps": Field(self.tr("Gather before update"), self.gather),
            "max_length": Field(self.tr("Longest text, tokens"), self.length),
            "gradient_checkpointing": Field(self.tr("Recompute activations"), self.recompute),
            "precision": Field(self.tr("Number format"), self.precision),
            "epochs": Field(self.tr("Passes over the data"), self.epochs),
        }
        for name, field in self.fields.items():
            self._connect(name, field.control)
            field.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)
        grid = CardGrid(min_width=140, gap=12)
        grid.setObjectName("fields")
        grid.set_cards(list(self.fields.values()))
        grid.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        return grid

    def _connect(self, name: str, control: QWidget) -> None:
        if isinstance(control, QSpinBox):
            control.valueChanged.connect(lambda value: self.changed.emit(name, value or "auto"))
        elif isinstance(control, QDoubleSpinBox):
            control.valueChanged.connect(lambda value: self.changed.emit(name, round(value, 1)))
        elif isinstance(control, QComboBox):
            control.activated.connect(lambda place: self.changed.emit(name, control.itemData(place)))

    def show_plan(self, project: Project, plan: Plan) -> None:
        """Show what this plan will do, and its settings."""
        self._show_words(project, plan)
        self._show_fields(project, plan)

    def _show_words(self, project: Project, plan: Plan) -> None:
        resolved = plan.resolved
        at_once = task_words.rows(resolved.micro_batch_size, rows_of(project.spec.task, project.data))
        title = self.tr("%1 at a time").replace("%1", at_once)
        if resolved.gradient_accumulation_steps > 1:
            times = words.count(resolved.gradient_accumulation_steps)
            title += self.tr(", gathered %1 times").replace("%1", times)
        if project.data and project.data.labels:
            labels = words.count(len(project.data.labels))
            title += self.tr(", with a new output layer for %1 labels").replace("%1", labels)
        elif project.data and project.data.span is not None:
            title += self.tr(", with a new output layer for a number")
        self.headline.setText(title)
        self.lines.set_lines(self._lines(project, plan))

    def _lines(self, project: Project, plan: Plan) -> list[tuple[str, str, Tone]]:
        resolved, training = plan.resolved, project.spec.training
        each = resolved.micro_batch_size * resolved.gradient_accumulation_steps
        steps = self.tr("%1 steps, each after %2: %3 over the data.")
        passes = words.decimal(training.epochs) + " " + (self.tr("pass") if training.epochs == 1 else self.tr("passes"))
        if training.max_steps is not None:
            passes = self.tr("at most")
            steps = self.tr("%1 steps %3, each after %2.")
        rows = task_words.rows(each, rows_of(project.spec.task, project.data))
        steps = steps.replace("%1", words.count(resolved.total_steps)).replace("%2", rows)
        lines: list[tuple[str, str, Tone]] = [(steps.replace("%3", passes), "tick", "ok")]
        lines.append((self._check_line(project, plan), "tick", "ok"))
        lines.append((self._rate_line(project, plan), "tick", "ok"))
        return lines

    def _check_line(self, project: Project, plan: Plan) -> str:
        held = project.data.eval_rows if project.data else 0
        if not held:
            text = self.tr("Nothing is held out, so the loss on unseen %1 is not known.")
            return text.replace("%1", task_words.row_names(rows_of(project.spec.task, project.data)))
        text = self.tr("Every %1 it is checked on %2 held-out %3 and saved.")
        steps = words.several(plan.resolved.eval_steps, self.tr("step"), self.tr("steps"))
        names = task_words.row_names(rows_of(project.spec.task, project.data))
        return text.replace("%1", steps).replace("%2", words.count(held)).replace("%3", names)

    def _rate_line(self, project: Project, plan: Plan) -> str:
        courses = {
            "cosine": self.tr("Learning rate up to %1, then down along a cosine."),
            "linear": self.tr("Learning rate up to %1, then straight down."),
            "constant": self.tr("Learning rate %1 throughout."),
        }
        text = courses[project.spec.training.lr_scheduler]
        return text.replace("%1", words.rate(plan.resolved.learning_rate))

    def _show_fields(self, project: Project, plan: Plan) -> None:
        training, resolved = project.spec.training, plan.resolved
        for box, asked, value in (
            (self.micro, training.micro_batch_size, resolved.micro_batch_size),
            (self.gather, training.gradient_accumulation_steps, resolved.gradient_accumulation_steps),
            (self.length, training.max_length, resolved.max_length),
        ):
            if editing(box):
                continue
            with QSignalBlocker(box):
                box.setSpecialValueText(self.tr("auto, %1").replace("%1", words.count(value)))
                box.setValue(0 if asked == "auto" else asked)
        on, off = self.tr("On"), self.tr("Off")
        now = on if resolved.gradient_checkpointing else off
        auto = self.tr("auto, %1")
        options = [("auto", auto.replace("%1", now.lower())), (False, off), (True, on)]
        _fill(self.recompute, options, training.gradient_checkpointing)
        formats: list[tuple[object, str]] = [("auto", auto.replace("%1", resolved.precision))]
        formats += [(name, name) for name in ("bf16", "fp16", "fp32")]
        _fill(self.precision, formats, training.precision)
        if not editing(self.epochs):
            with QSignalBlocker(self.epochs):
                self.epochs.setValue(training.epochs)
        self._show_field_helps(project, plan)

    def _show_field_helps(self, project: Project, plan: Plan) -> None:
        model, resolved = project.model, plan.resolved
        if model is None:
            return

        def change(**settings: object) -> int:
            keyed = {f"training.{name}": value for name, value in settings.items()}
            return effect(project.spec, plan, model, project.data, keyed)

        more = change(micro_batch_size=resolved.micro_batch_size + 1)
        half = change(max_length=max(8, resolved.max_length // 2))
        other = change(gradient_checkpointing=not resolved.gradient_checkpointing)
        saves = self.tr("Saves %1, slower") if not resolved.gradient_checkpointing else self.tr("Off takes %1 more")
        helps = {
            "micro_batch_size": self.tr("%1 for one more").replace("%1", _size(more)),
            "gradient_accumulation_steps": self.tr("No memory, only time"),
            "max_length": self.tr("Half saves %1").replace("%1", _size(-half)),
            "gradient_checkpointing": saves.replace("%1", _size(abs(other))),
            "precision": self._precision_help(plan),
            "epochs": self.tr("%1 steps in all").replace("%1", words.count(resolved.total_steps)),
        }
        for name, text in helps.items():
            self.fields[name].set_help(text)
        at_once = self.tr("%1 at a time").replace("%1", task_words.row_names(rows_of(project.spec.task, project.data)))
        self.fields["micro_batch_size"].set_label(at_once[:1].upper() + at_once[1:])

    def _precision_help(self, plan: Plan) -> str:
        best = "bf16" if plan.device.fast_bf16 else "fp16" if plan.device.kind == "cuda" else "fp32"
        if plan.resolved.precision == best:
            return self.tr("Best this device does")
        return self.tr("%1 is faster here").replace("%1", best)


def _size(value: int) -> str:
    return words.gib(value, 1 if abs(value) >= 0.1 * GIB else 2)


def _count_box(name: str, top: int, *, step: int = 1) -> QSpinBox:
    box = QSpinBox()
    box.setObjectName(name)
    box.setRange(0, top)
    box.setSingleStep(step)
    box.setGroupSeparatorShown(True)
    box.setKeyboardTracking(False)
    return box


def _choice_box(name: str) -> QComboBox:
    box = QComboBox()
    box.setObjectName(name)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(6)
    return box


def _fill(box: QComboBox, options: list[tuple[object, str]], current: object) -> None:
    """Show these (value, text) options and choose `current`; unchanged texts stay."""
    if [box.itemText(place) for place in range(box.count())] != [text for _, text in options]:
        box.clear()
        for value, text in options:
            box.addItem(text, value)
    places = [place for place, (value, _) in enumerate(options) if value is current or value == current]
    box.setCurrentIndex(places[0] if places else 0)
