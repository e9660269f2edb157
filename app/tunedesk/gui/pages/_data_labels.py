"""The labels of classification data, each with the number of its rows."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtWidgets import QSizePolicy, QWidget

from tunedesk.core.describe import LabelCount
from tunedesk.gui import words
from tunedesk.gui.widgets import Bar, BarList, Card, Label

MOST: int = 6
"""How many labels are shown at first; there may be forty."""


class LabelsCard(Card):
    """A bar for each label, the one with most rows first; hidden while there are none."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        self.note = Label("", "secondary", "t2")
        self.note.setObjectName("labelsNote")
        super().__init__("", right=self.note, parent=parent)
        self.set_title(self.tr("Labels"))
        self.setObjectName("labels")
        self.list = BarList(most=MOST)
        self.list.setObjectName("labelList")
        self.add(self.list)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self.hide()

    def show_labels(self, labels: Sequence[LabelCount], *, several: bool = False) -> None:
        """Show these labels with their rows; `several` of them may belong to one row."""
        self.setVisible(bool(labels))
        most = max((label.rows for label in labels), default=1)
        ordered = sorted(labels, key=lambda label: -label.rows)
        self.list.set_bars([Bar(label.name, label.rows / most, words.count(label.rows)) for label in ordered])
        self.note.setText(self.tr("Rows with each; a row may have several") if several else self.tr("Rows with each"))
