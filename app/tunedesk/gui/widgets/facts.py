"""Facts in two columns, and fields with a label and a line of help."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from tunedesk.gui.widgets.text import Label


class KeyValueList(QWidget):
    """Names at the left, values at the right of them."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._values: dict[str, Label] = {}
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(16)
        self._grid.setVerticalSpacing(4)
        self._grid.setColumnStretch(1, 1)

    def set_rows(self, rows: Sequence[tuple[str, str]]) -> None:
        """Show these facts; while the names stay the same, only the values change."""
        if list(self._values) != [name for name, _ in rows]:
            self._rebuild([name for name, _ in rows])
        for name, value in rows:
            self.set_value(name, value)

    def _rebuild(self, names: list[str]) -> None:
        while (item := self._grid.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.deleteLater()
        self._values = {}
        for row, name in enumerate(names):
            value = Label("", "body", wrap=True, selectable=True)
            self._grid.addWidget(Label(name, "body", "t2"), row, 0, Qt.AlignmentFlag.AlignTop)
            self._grid.addWidget(value, row, 1)
            self._values[name] = value

    def set_value(self, name: str, value: str) -> None:
        """Change one value; an empty one is shown as a dash. An unknown name raises `KeyError`."""
        self._values[name].setText(value or "–")
        self._values[name].setAccessibleName(f"{name}: {value or '–'}")

    def rows(self) -> list[tuple[str, str]]:
        """Return what is shown."""
        return [(name, label.text()) for name, label in self._values.items()]


class Field(QWidget):
    """A label, its control, and under them what the choice does to memory, time or quality."""

    def __init__(
        self, label: str, control: QWidget, help: str = "", *, inline: bool = False, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.control = control
        self._help = help
        self._error = ""
        self.label = Label(label, "strong" if inline else "secondary", "t1" if inline else "t2")
        self.label.setObjectName("label")
        self.label.setBuddy(control)
        self.help_line = Label("", "secondary", "t2", wrap=True)
        self.help_line.setObjectName("help")
        control.setAccessibleName(control.accessibleName() or label)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        if inline:
            row = QHBoxLayout()
            row.setSpacing(12)
            row.addWidget(self.label, 1)
            row.addWidget(control)
            column.addLayout(row)
        else:
            column.addWidget(self.label)
            column.addWidget(control)
        column.addWidget(self.help_line)
        column.addStretch(1)
        policy = QSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self._show()

    def set_label(self, text: str) -> None:
        """Change the label, which is also what the control is called."""
        self.label.setText(text)
        self.control.setAccessibleName(text)

    def set_help(self, text: str) -> None:
        """Change the line of help."""
        self._help = text
        self._show()

    def set_error(self, text: str) -> None:
        """Say what is wrong with the value; an empty text clears it."""
        self._error = text
        wrong = bool(text)
        if bool(self.control.property("wrong")) != wrong:
            self.control.setProperty("wrong", wrong)
            self.control.style().unpolish(self.control)
            self.control.style().polish(self.control)
        self._show()

    def error(self) -> str:
        """Return what is wrong, or an empty text."""
        return self._error

    def _show(self) -> None:
        words = self._error or self._help
        self.help_line.set_tone("bad" if self._error else "t2")
        self.help_line.setText(words)
        self.help_line.setVisible(bool(words))
        self.control.setAccessibleDescription(words)
