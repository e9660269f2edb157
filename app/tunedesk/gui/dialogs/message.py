"""What went wrong, in words, with the details to copy."""

from __future__ import annotations

from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QPlainTextEdit, QWidget

from tunedesk.core.problems import Problem
from tunedesk.gui.dialogs.base import Dialog
from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets import Button, ProblemBar
from tunedesk.gui.words import problem_item

WIDTH = 560


class MessageDialog(Dialog):
    """A sentence and, under it, the details of a fault of the app itself."""

    def __init__(self, title: str, sentence: str, details: str, *, parent: QWidget | None = None) -> None:
        super().__init__("messageDialog", title, sentence, parent=parent)
        self.details = QPlainTextEdit(details)
        self.details.setObjectName("details")
        self.details.setAccessibleName(self.tr("Details"))
        self.details.setReadOnly(True)
        self.details.setFont(Theme.of().font("mono"))
        self.details.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.body.addWidget(self.details)
        copy = self.add_button(Button(self.tr("Copy the details"), icon_name="copy"), "copy")
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(self.details.toPlainText()))
        close = self.add_button(Button(self.tr("Close"), "primary"), "close", default=True)
        close.clicked.connect(self.accept)
        self.resize(640, 400)


class ProblemsDialog(Dialog):
    """Problems that belong to no page."""

    def __init__(self, problems: tuple[Problem, ...], *, parent: QWidget | None = None) -> None:
        super().__init__("problemsDialog", "", parent=parent)
        title = self.tr("One thing to settle") if len(problems) == 1 else self.tr("A few things to settle")
        self.setWindowTitle(title)
        self.title_label.setText(title)
        bar = ProblemBar()
        bar.setObjectName("problems")
        bar.set_problems([problem_item(problem) for problem in problems])
        bar.setMinimumHeight(bar.heightForWidth(WIDTH - 48))
        self.body.addWidget(bar)
        self.body.addStretch(1)
        close = self.add_button(Button(self.tr("Close"), "primary"), "close", default=True)
        close.clicked.connect(self.accept)
        self.setFixedWidth(WIDTH)
