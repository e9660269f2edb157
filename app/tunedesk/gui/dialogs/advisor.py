"""Help me choose: four plain questions, a few facts, and the recommender's answer beside them."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, QSignalBlocker, Qt
from PySide6.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QSpinBox, QVBoxLayout, QWidget

from tunedesk.core.matching import TASK_WORDS
from tunedesk.core.methods import method, offered
from tunedesk.core.recommend import Advice, Choice, Situation, advise
from tunedesk.gui import words
from tunedesk.gui.advice import first_choice, memory
from tunedesk.gui.dialogs.base import Dialog
from tunedesk.gui.pages._parts import ContentScroll, SignedList, clear
from tunedesk.gui.session import Session
from tunedesk.gui.widgets import Button, Card, Field, Label, Schematic

MOST_ROWS = 100_000_000
MOST_TASKS = 10_000
_WORDS_OF = {"enough": "prompting", "weak": "prompting", "far": "shift"}
"""Facts that are a word of a field of the situation; the others are fields of their own."""


class AdvisorDialog(Dialog):
    """Asks what matters and answers at once; what the project tells is filled in."""

    def __init__(self, session: Session, *, parent: QWidget | None = None) -> None:
        super().__init__("advisorDialog", "", parent=parent)
        self._session = session
        self.setWindowTitle(self.tr("Help me choose"))
        self.setAccessibleName(self.windowTitle())
        self.title_label.setText(self.windowTitle())
        self.sentence.setText(self.tr("What your project tells is filled in. Every answer changes the advice at once."))
        self.sentence.setVisible(True)
        row = QHBoxLayout()
        row.setSpacing(24)
        row.addWidget(self._build_questions(), 1)
        row.addWidget(self._build_answer())
        self.body.addLayout(row, 1)
        close = self.add_button(Button(self.tr("Close"), "plain"), "close")
        close.clicked.connect(self.accept)
        self.use = self.add_button(Button("", "primary"), "use")
        self.use.clicked.connect(self._use)
        self._first: Choice | None = None
        self._fill()
        self.resize(880, 660)
        self.task.setFocus()

    # Building.

    def _build_questions(self) -> QWidget:
        self.task = self._combo("task", list(TASK_WORDS.items()))
        self.rows = self._number("rows", MOST_ROWS)
        self.memory = self._combo(
            "memoryRoom",
            [
                ("ample", self.tr("Enough to train every weight")),
                ("fits", self.tr("Enough for its weights in 16 bits")),
                ("tight", self.tr("Enough for its weights in 4 bits alone")),
                ("short", self.tr("Less than that")),
            ],
        )
        self.keep = self._combo(
            "keep",
            [
                ("little", self.tr("Not much")),
                ("some", self.tr("It should stay sensible")),
                ("much", self.tr("Nothing may be lost")),
            ],
        )
        self.tasks = self._number("tasks", MOST_TASKS)
        self.memory_field = Field(self.tr("How much memory is there for the model?"), self.memory, " ")
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 12, 0)
        column.setSpacing(10)
        column.addWidget(Field(self.tr("What should the model learn to do?"), self.task))
        numbers = QHBoxLayout()
        numbers.setSpacing(12)
        numbers.addWidget(Field(self.tr("Rows of data to learn from"), self.rows), 1)
        numbers.addWidget(Field(self.tr("Tasks that share the model"), self.tasks), 1)
        column.addLayout(numbers)
        column.addWidget(self.memory_field)
        column.addWidget(Field(self.tr("How much do the model's old skills matter?"), self.keep))
        column.addWidget(self._build_facts())
        column.addStretch(1)
        scroll = ContentScroll(inside)
        scroll.setObjectName("questions")
        scroll.viewport().setProperty("ringPasses", True)
        return scroll

    def _build_facts(self) -> QWidget:
        facts = QWidget()
        column = QVBoxLayout(facts)
        column.setContentsMargins(0, 4, 0, 0)
        column.setSpacing(0)
        column.addWidget(Label(self.tr("Is any of this so?"), "secondary", "t2"))
        self.facts = {key: self._fact(key, text) for key, text in self._fact_words()}
        for box in self.facts.values():
            column.addWidget(box)
        return facts

    def _combo(self, name: str, answers: list[tuple[str, str]]) -> QComboBox:
        combo = QComboBox()
        combo.setObjectName(name)
        for key, text in answers:
            combo.addItem(text[:1].upper() + text[1:], key)
        combo.activated.connect(self._answer)
        return combo

    def _number(self, name: str, most: int) -> QSpinBox:
        box = QSpinBox()
        box.setObjectName(name)
        box.setRange(1, most)
        box.setGroupSeparatorShown(True)
        box.valueChanged.connect(self._answer)
        return box

    def _fact_words(self) -> list[tuple[str, str]]:
        return [
            ("manner", self.tr("It is about a tone or a persona, not a skill")),
            ("changing", self.tr("The data holds facts that soon change")),
            ("enough", self.tr("A good prompt does it already")),
            ("weak", self.tr("A good prompt was tried and is not enough")),
            ("far", self.tr("Its language or field is new to the model")),
            ("last_point", self.tr("The last point of quality is worth any price")),
            ("one_file", self.tr("A single plain model must come out")),
            ("new_parts", self.tr("The network itself is to change")),
        ]

    def _fact(self, key: str, text: str) -> QCheckBox:
        box = QCheckBox(text)
        box.setObjectName(f"fact_{key}")
        box.toggled.connect(lambda on: self._tick(key, on))
        return box

    def _build_answer(self) -> Card:
        card = Card()
        card.setObjectName("answer")
        card.setFixedWidth(400)
        self.verdict = Label("", "verdict", wrap=True)
        self.verdict.setObjectName("verdict")
        self.reasons = SignedList("tick", "ok", gap=6)
        self.reasons.setObjectName("adviceReasons")
        self.instead = SignedList("lightbulb", "accent")
        self.instead.setObjectName("instead")
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 8, 0)
        column.setSpacing(12)
        self.ranked = QVBoxLayout()
        self.ranked.setSpacing(12)
        column.addWidget(self.verdict)
        column.addWidget(self.reasons)
        column.addLayout(self.ranked)
        column.addWidget(self.instead)
        column.addStretch(1)
        card.add(ContentScroll(inside), 1)
        return card

    # Answering.

    def _fill(self) -> None:
        """Answer what the project knows, and what was answered before."""
        project, answers = self._session.project, self._session.answers
        with QSignalBlocker(self.rows), QSignalBlocker(self.tasks):
            _choose(self.task, project.spec.task.kind)
            _choose(self.keep, str(answers.get("keep", "some")))
            self.tasks.setValue(int(str(answers.get("tasks", 1))))
            self.rows.setValue(project.data.train_rows if project.data else 1)
        plan, model = project.plan, project.model
        if plan is not None and model is not None:
            _choose(self.memory, str(memory(project)))
            about = self.tr("{0} free on {1}; {2} has {3} weights.")
            device = plan.device
            free = words.gib(device.free_bytes)
            self.memory_field.set_help(about.format(free, device.name, model.name, words.large(model.parameters)))
        else:
            self.memory_field.set_help(self.tr("Without a model and data this is yours to say."))
        for key, box in self.facts.items():
            with QSignalBlocker(box):
                box.setChecked(answers.get(_WORDS_OF.get(key, key)) in (True, key))
        self._answer()

    def _tick(self, key: str, on: bool) -> None:
        """A prompt cannot be both enough and not."""
        other = {"enough": "weak", "weak": "enough"}.get(key)
        if on and other:
            with QSignalBlocker(self.facts[other]):
                self.facts[other].setChecked(False)
        self._answer()

    def answers(self) -> dict[str, object]:
        """What was answered that the project does not know."""
        ticked = {key for key, box in self.facts.items() if box.isChecked()}
        found: dict[str, object] = {"keep": self.keep.currentData(), "tasks": self.tasks.value()}
        for key in ticked:
            field = _WORDS_OF.get(key)
            found[field or key] = key if field else True
        return found

    def _answer(self) -> None:
        project = self._session.project
        self._session.answers = self.answers()
        situation = Situation(
            task=self.task.currentData(),
            rows=self.rows.value(),
            memory=self.memory.currentData(),
            parameters=project.model.parameters if project.model else None,
            **self._session.answers,  # type: ignore[arg-type]
        )
        self._show(advise(situation, project.model))

    def _show(self, advice: Advice) -> None:
        self.verdict.setText(verdict_words()[advice.verdict])
        signs = {"peft": ("tick", "ok"), "full": ("tick", "ok"), "none": ("info", "warn"), "cannot": ("alert", "warn")}
        icon, tone = signs[advice.verdict]
        self.reasons.set_lines([(self.tr(text), icon, tone) for text in advice.reasons])  # type: ignore[misc]
        clear(self.ranked)
        for place, choice in enumerate(advice.ranked, 1):
            self.ranked.addWidget(self._choice(place, choice))
        self.instead.set_texts([self.tr(advice.instead)] if advice.instead else [])
        self.instead.setVisible(bool(advice.instead))
        self._first = first_choice(advice, self._session.project)
        self.use.setVisible(self._first is not None)
        self.use.setDefault(self._first is not None)
        if self._first is not None:
            self.use.setText(self.tr("Use {0}").format(method(self._first.method).title))
            self.use.setAccessibleName(self.use.text())

    def _choice(self, place: int, choice: Choice) -> QWidget:
        item = method(choice.method)
        box = QWidget()
        box.setObjectName(f"choice_{item.name}")
        row = QHBoxLayout(box)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(16)
        row.addWidget(Schematic(item.drawing), 0, Qt.AlignmentFlag.AlignTop)
        text = QVBoxLayout()
        text.setSpacing(0)
        text.addWidget(Label(f"{place}. {item.title}", "card"))
        why = self.tr(choice.why)
        if item not in offered():
            why = f"{why} {self.tr('Not in this version yet.')}"
        text.addWidget(Label(why, "secondary", "t2", wrap=True))
        row.addLayout(text, 1)
        return box

    def _use(self) -> None:
        if self._first is not None:
            self._session.set_method(name=self._first.method)
        self.accept()


def _choose(combo: QComboBox, key: str) -> None:
    combo.setCurrentIndex(max(0, combo.findData(key)))


def verdict_words() -> dict[str, str]:
    """The verdicts of an advice in words."""
    return {
        verdict: QCoreApplication.translate("Advice", text)
        for verdict, text in (
            ("peft", "Train a small part of the model"),
            ("full", "Full fine-tuning"),
            ("none", "Do not fine-tune"),
            ("cannot", "These methods do not work here"),
        )
    }
