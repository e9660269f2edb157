"""What every dialog shares: a title, a body, and a foot of buttons at the right."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialog, QHBoxLayout, QVBoxLayout, QWidget

from tunedesk.gui.widgets import Button, Label


class Dialog(QDialog):
    """A calm dialog that does not stop the window's event loop; show it with `open`. It deletes itself when closed."""

    def __init__(self, name: str, title: str, sentence: str = "", *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName(name)
        self.setWindowTitle(title)
        self.setAccessibleName(title)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 20, 24, 20)
        column.setSpacing(16)
        head = QVBoxLayout()
        head.setSpacing(4)
        self.title_label = Label(title, "verdict")
        self.title_label.setObjectName("title")
        head.addWidget(self.title_label)
        self.sentence = Label(sentence, "body", "t2", wrap=True)
        self.sentence.setObjectName("sentence")
        self.sentence.setVisible(bool(sentence))
        head.addWidget(self.sentence)
        column.addLayout(head)
        self.body = QVBoxLayout()
        self.body.setSpacing(12)
        column.addLayout(self.body, 1)
        self.foot = QHBoxLayout()
        self.foot.setSpacing(8)
        self.foot.addStretch(1)
        column.addLayout(self.foot)

    def add_button(self, button: Button, name: str, *, default: bool = False) -> Button:
        """Add a button to the foot, left to right; Enter presses the default one."""
        button.setObjectName(name)
        button.setAccessibleName(button.text())
        button.setDefault(default)
        if default:
            button.setFocus()
        self.foot.addWidget(button)
        return button

    def add_left(self, widget: QWidget) -> None:
        """Add a widget at the left end of the foot."""
        self.foot.insertWidget(self.foot.count() - 1 if self.foot.count() == 1 else 0, widget)
