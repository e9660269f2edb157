"""The question on closing the window while a run trains."""

from __future__ import annotations

from typing import Literal

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from tunedesk.gui.dialogs.base import Dialog
from tunedesk.gui.widgets import Button

ClosingChoice = Literal["keep", "stop"]


class ClosingDialog(Dialog):
    """Keep training (the default), stop and keep the best, or stay."""

    chosen = Signal(str)

    def __init__(self, step: str, *, parent: QWidget | None = None) -> None:
        super().__init__("closingDialog", "", parent=parent)
        title = self.tr("A run is training")
        self.setWindowTitle(title)
        self.title_label.setText(title)
        self.sentence.setText(
            self.tr("{0}. It runs on its own: it can go on without this window, and you find it in the list of runs.")
            .format(step)
            .strip()
        )
        self.sentence.show()
        cancel = self.add_button(Button(self.tr("Cancel"), "quiet"), "cancel")
        cancel.clicked.connect(self.reject)
        stop = self.add_button(Button(self.tr("Stop and keep best")), "stop")
        stop.clicked.connect(lambda: self._choose("stop"))
        keep = self.add_button(Button(self.tr("Keep training in the background"), "primary"), "keep", default=True)
        keep.clicked.connect(lambda: self._choose("keep"))
        keep.setFocus()
        self.setMinimumWidth(540)

    def _choose(self, choice: ClosingChoice) -> None:
        self.accept()
        self.chosen.emit(choice)
