"""What the model should learn: the tasks that it can do, and the choices within one."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QSize, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QHBoxLayout, QSizePolicy, QStackedLayout, QWidget

from tunedesk.core.describe import DataInfo
from tunedesk.core.matching import TASKS, unfit_task
from tunedesk.core.project import Project
from tunedesk.gui import task_words
from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets import Card, Label, Segmented

_EDGES: Final = 30
_GAP: Final = 16


class TaskCard(Card):
    """A row of tasks, and below it the choices of the chosen one with what they mean."""

    chosen = Signal(str, dict)
    """This task, with these choices of its own, is to be learned."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.setObjectName("taskCard")
        self.question = Label(self.tr("What should it learn?"), "card")
        self.setAccessibleName(self.question.text())
        self.tasks = Segmented([(task, task_words.title(task)) for task in TASKS], name=self.question.text())
        self.tasks.setObjectName("task")
        self.tasks.chosen.connect(lambda key: self.chosen.emit(key, {}))
        self.problem_type = Segmented(
            (
                ("auto", self.tr("Auto")),
                ("single_label", self.tr("One label")),
                ("multi_label", self.tr("Several labels")),
                ("regression", self.tr("A number")),
            ),
            name=self.tr("What a text gets"),
        )
        self.problem_type.setObjectName("problemType")
        self.problem_type.chosen.connect(lambda key: self.chosen.emit("classification", {"problem_type": key}))
        self.loss = Segmented((("dpo", "DPO"), ("kto", "KTO"), ("orpo", "ORPO")), name=self.tr("How it is compared"))
        self.loss.setObjectName("preferenceLoss")
        self.loss.chosen.connect(lambda key: self.chosen.emit("preference", {"preference_loss": key}))
        self.note = Label("", "secondary", "t2", wrap=True)
        self.note.setObjectName("taskNote")
        self.note.setMinimumHeight(Theme.of().px(32))
        self._possible = frozenset(TASKS)
        self._build_rows()
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)

    def _build_rows(self) -> None:
        self.choices = QWidget()
        self._stack = QStackedLayout(self.choices)
        for choice in (self.problem_type, self.loss):
            self._stack.addWidget(choice)
        self.choices.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self._first = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        self._first.setSpacing(_GAP)
        self._first.addWidget(self.question)
        self._first.addWidget(self.tasks)
        self._first.addStretch(1)
        second = QHBoxLayout()
        second.setSpacing(_GAP)
        second.addWidget(self.choices)
        second.addWidget(self.note, 1)
        self.add_layout(self._first)
        self.add_layout(second)

    def minimumSizeHint(self) -> QSize:
        """The tasks make do with the room that there is."""
        return QSize(320, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._place()

    def _place(self) -> None:
        """The tasks stand beside the question, or under it; where that is too narrow, without those it cannot do."""
        room = self.width() - _EDGES
        for task in TASKS:
            self.tasks.set_option_shown(task, True)
        if self.tasks.sizeHint().width() > room:
            for task in TASKS:
                self.tasks.set_option_shown(task, task in self._possible)
        wide = self.question.sizeHint().width() + _GAP + self.tasks.sizeHint().width()
        below = wide > room
        direction = QBoxLayout.Direction.TopToBottom if below else QBoxLayout.Direction.LeftToRight
        if self._first.direction() != direction:
            self._first.setDirection(direction)
            self._first.setSpacing(6 if below else _GAP)

    def show_project(self, project: Project) -> None:
        """Show what is to be learned, and why the model cannot learn the other things."""
        section, model = project.spec.task, project.model
        possible = set(TASKS)
        for task in TASKS:
            problem = unfit_task(model, task) if model else None
            self.tasks.set_option_enabled(task, problem is None, " ".join(problem.lines()) if problem else "")
            if problem is not None:
                possible.discard(task)
        self._possible = frozenset(possible | {section.kind})
        self.tasks.set_current(section.kind)
        self.problem_type.set_current(section.problem_type)
        self.loss.set_current(section.preference_loss)
        self._show_choices(section.kind)
        self._show_note(project, project.data)
        self._place()

    def _show_choices(self, kind: str) -> None:
        choice = {"classification": self.problem_type, "preference": self.loss}.get(kind)
        self.choices.setVisible(choice is not None)
        if choice is not None:
            self._stack.setCurrentWidget(choice)
            self.choices.setFixedSize(choice.sizeHint())

    def _show_note(self, project: Project, data: DataInfo | None) -> None:
        text = task_words.about(project.spec.task, data)
        if self.note.text() != text:
            self.note.setText(text)
