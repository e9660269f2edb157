"""The Train page before the start: what will happen, and what stands in the way."""

from __future__ import annotations

from PySide6.QtCore import QLocale, Signal
from PySide6.QtWidgets import QLineEdit, QVBoxLayout, QWidget

from tunedesk.core.matching import TASK_WORDS
from tunedesk.core.methods import method
from tunedesk.core.paths import runs_dir
from tunedesk.core.plan import Plan
from tunedesk.core.project import Project
from tunedesk.gui import method_words, task_words, words
from tunedesk.gui.pages._parts import SignedList
from tunedesk.gui.runs_list import data_stem, run_names
from tunedesk.gui.session import Session
from tunedesk.gui.widgets import Card, Field, KeyValueList, TwoColumns

MOST_LABELS = 5
"""How many labels are named."""


class ReadyPanel(QWidget):
    """The run as it would be started, in words."""

    changed = Signal()
    """The name was edited."""

    def __init__(self, session: Session, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("ready")
        self._session = session
        self._taken: tuple[str, ...] = ()
        self._suggested = ""
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        self.columns = TwoColumns(self._build_facts(), self._build_side(), right_width=328)
        column.addWidget(self.columns, 1)

    def _build_facts(self) -> Card:
        card = Card(self.tr("What will happen"))
        self.facts = KeyValueList()
        self.facts.setObjectName("facts")
        card.add(self.facts)
        card.body.addStretch(1)
        return card

    def _build_side(self) -> Card:
        card = Card(self.tr("Name of the run"))
        self.name = QLineEdit()
        self.name.setObjectName("runName")
        self.name.setMaxLength(60)
        self.name.setLocale(QLocale())
        self.name.textEdited.connect(self.changed)
        self.name.setAccessibleName(self.tr("Name of the run"))
        self.name_field = Field("", self.name, self.tr("It is listed at the left under this name."))
        self.name_field.label.hide()
        card.add(self.name_field)
        card.add_rule()
        self.promises = SignedList()
        self.promises.setObjectName("promises")
        card.add(self.promises)
        card.body.addStretch(1)
        return card

    def run_name(self) -> str | None:
        """The name to give the run."""
        return self.name.text().strip() or self._suggested or None

    def ask_names(self) -> None:
        """Find out which names are taken."""
        self._session.background.run(run_names, self._take_names)

    def _take_names(self, names: tuple[str, ...]) -> None:
        self._taken = names
        self._suggest(self._session.project)

    def refresh(self, project: Project) -> None:
        """Show the choices of the moment."""
        self._suggest(project)
        self.facts.set_rows(self._facts(project))
        self.promises.set_texts(self._promises(project.plan))

    def _suggest(self, project: Project) -> None:
        untouched = self.name.text() in ("", self._suggested)
        self._suggested = self._free_name(project)
        self.name.setPlaceholderText(self._suggested)
        if untouched and not self.name.hasFocus():
            self.name.setText(self._suggested)

    def _free_name(self, project: Project) -> str:
        stem = f"{data_stem(project.spec)} {method(project.spec.method.name).title}"
        names = (stem if number == 1 else f"{stem} {number}" for number in range(1, len(self._taken) + 2))
        return next(name for name in names if name not in self._taken)

    def _facts(self, project: Project) -> list[tuple[str, str]]:
        plan = project.plan
        labels = [(self.tr("Labels"), self._labels(project))] if project.spec.task.kind == "classification" else []
        if project.data and project.data.span is not None:
            labels = [(self.tr("Numbers"), task_words.span(project.data))]
        return [
            (self.tr("It learns to"), self._task(project)),
            (self.tr("Model"), project.model.name if project.model else ""),
            (self.tr("Data"), self._data(project)),
            *labels,
            (self.tr("Method"), self._method(project)),
            (self.tr("Steps"), self._steps(project)),
            (self.tr("Each step"), self._batch(plan)),
            (self.tr("Learning rate"), self._rate(project)),
            (self.tr("Longest text"), self._length(plan)),
            (self.tr("Where"), self._device(plan)),
            (self.tr("Memory"), self._memory(plan)),
            (self.tr("Saved in"), str(runs_dir())),
        ]

    def _task(self, project: Project) -> str:
        task = project.spec.task
        said = self.tr(TASK_WORDS[task.kind])
        if task.kind != "preference":
            return said
        beta = words.decimal(0.1 if task.beta == "auto" else task.beta)
        return self.tr("{0} ({1}, beta {2})").format(said, task.preference_loss.upper(), beta)

    def _data(self, project: Project) -> str:
        data = project.data
        if data is None:
            return ""
        learned = words.several(data.train_rows, self.tr("row"), self.tr("rows"))
        held = words.count(data.eval_rows)
        return self.tr("{0}: {1} to learn from, {2} held out to check progress").format(data.name, learned, held)

    def _labels(self, project: Project) -> str:
        """The first few labels by name."""
        names = [label.name for label in project.data.labels] if project.data else []
        more = len(names) - MOST_LABELS
        if more > 1:
            names = [*names[:MOST_LABELS], self.tr("{0} more").format(words.count(more))]
        return words.listed(names)

    def _method(self, project: Project) -> str:
        section = project.spec.method
        name = method_words.in_short(section)
        plan = project.plan
        if plan is None:
            return name
        trained, whole = words.large(plan.trainable_parameters), words.large(plan.total_parameters)
        if project.spec.task.kind == "classification" and section.name != "full":
            told = self.tr("{0} and a new output layer: train {1} weights beside {2} frozen ones")
            return told.format(name, trained, whole)
        return f"{name}: {method_words.share(section.name, trained, whole)}"

    def _steps(self, project: Project) -> str:
        plan = project.plan
        if plan is None:
            return ""
        steps = words.several(plan.resolved.total_steps, self.tr("step"), self.tr("steps"))
        passes = plan.resolved.total_steps / max(1, plan.resolved.steps_per_epoch)
        rounds = f"{passes:.1f}".removesuffix(".0")
        each = self.tr("pass") if rounds == "1" else self.tr("passes")
        return self.tr("{0}, {1} {2} over the data").format(steps, rounds, each)

    def _batch(self, plan: Plan | None) -> str:
        if plan is None:
            return ""
        micro, times = plan.resolved.micro_batch_size, plan.resolved.gradient_accumulation_steps
        rows = words.several(micro * times, self.tr("row"), self.tr("rows"))
        if times == 1:
            return rows
        return self.tr("{0}: {1} at a time, added up {2} times").format(rows, words.count(micro), words.count(times))

    def _rate(self, project: Project) -> str:
        if project.plan is None:
            return ""
        curve = {
            "cosine": self.tr("falls along a cosine"),
            "linear": self.tr("falls in a line"),
            "constant": self.tr("stays"),
        }[project.spec.training.lr_scheduler]
        return self.tr("{0} at its peak, then {1}").format(words.rate(project.plan.resolved.learning_rate), curve)

    def _length(self, plan: Plan | None) -> str:
        if plan is None:
            return ""
        return self.tr("{0} tokens; longer rows are cut at the end").format(words.count(plan.resolved.max_length))

    def _device(self, plan: Plan | None) -> str:
        return self.tr("{0}, in {1}").format(plan.device.name, plan.resolved.precision) if plan else ""

    def _memory(self, plan: Plan | None) -> str:
        if plan is None:
            return ""
        return self.tr("about {0}; {1} is free").format(words.band(plan.asked), words.gib(plan.device.free_bytes))

    def _promises(self, plan: Plan | None) -> list[str]:
        steps = plan.resolved.save_steps if plan else 0
        every = self.tr("{0} steps").format(words.count(steps) if plan else words.DASH)
        return [
            self.tr("It runs on its own. You may close this window; it goes on and is found in the list of runs."),
            self.tr("A checkpoint is kept every {0}. A power cut costs what came after the last one.").format(
                self.tr("step") if steps == 1 else every
            ),
            self.tr("You can stop at any time; the best result so far is kept."),
            self.tr("Nothing leaves this computer."),
        ]
