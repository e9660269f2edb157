"""Asks for a card that is not in this computer."""

from __future__ import annotations

from PySide6.QtWidgets import QDialog, QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from tunedesk.core.hardware import Device, Hardware, choose_device
from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets import Button, Field, Label


class CardDialog(QDialog):
    """Asks for the name and the memory of a card that is not in this computer."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("cardDialog")
        self.setWindowTitle(self.tr("Another card"))
        self.setFixedWidth(400)
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 20, 24, 16)
        column.setSpacing(8)
        column.addWidget(Label(self.tr("Another card"), "verdict"))
        about = self.tr(
            "Plan for a card that is not in this computer. Nothing is measured; its whole memory is assumed."
        )
        column.addWidget(Label(about, "body", "t2", wrap=True))
        self.name = QLineEdit()
        self.name.setObjectName("cardName")
        self.name.setPlaceholderText("RTX 4090:24GiB")
        self.name_field = Field(self.tr("Name and memory"), self.name, self.tr("Such as RTX 3060:12GiB"))
        self.name_field.setMinimumHeight(Theme.of().px(92))
        column.addSpacing(4)
        column.addWidget(self.name_field)
        row = QHBoxLayout()
        row.addStretch(1)
        cancel = Button(self.tr("Cancel"), "plain")
        cancel.setObjectName("cancel")
        cancel.clicked.connect(self.reject)
        self.use = Button(self.tr("Plan for it"), "primary")
        self.use.setObjectName("use")
        self.use.setDefault(True)
        self.use.clicked.connect(self._take)
        row.addWidget(cancel)
        row.addWidget(self.use)
        column.addLayout(row)
        self.setFixedHeight(column.totalHeightForWidth(400))

    def wanted(self) -> str:
        """The card as the planner takes it."""
        return self.name.text().strip()

    def _take(self) -> None:
        fault = self._fault()
        self.name_field.set_error(fault)
        if not fault:
            self.accept()

    def _fault(self) -> str:
        """What is wrong with what was typed, or an empty text."""
        if not self.wanted().rpartition(":")[0].strip():
            return self.tr("Write the name, a colon and the memory, as in RTX 3060:12GiB.")
        return size_fault(self.wanted())


def size_fault(wanted: str) -> str:
    """Why the memory in ``name:size`` cannot be read, or an empty text."""
    try:
        imagined_device(wanted)
    except ValueError as error:
        return str(error)
    return ""


def imagined_device(wanted: str) -> Device:
    """The made-up card `wanted`; nothing of this computer matters to it. Raises `ValueError`."""
    nothing = Hardware(
        gpus=(),
        gpu_note="",
        cpu="",
        physical_cores=1,
        fast_bf16=False,
        memory_total=0,
        memory_free=0,
        disk_free=0,
        system="",
    )
    return choose_device(nothing, wanted)
