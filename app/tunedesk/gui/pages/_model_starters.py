"""The two starter models beside each other: one that writes, one that gives labels."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from tunedesk.core import starter
from tunedesk.core.describe import ModelInfo
from tunedesk.core.project import STARTER_MODEL
from tunedesk.gui import words
from tunedesk.gui.widgets import ChoiceCard, ChoiceGroup

CHAT: Final = STARTER_MODEL["chat"]
ENCODER: Final = STARTER_MODEL["classification"]


class StarterPanel(QWidget):
    """A card for each starter model; the one in use is chosen."""

    chosen = Signal(str)
    """Take this source as the model."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._sizes: dict[str, str] = {}
        self.cards = {
            CHAT: self._card(
                CHAT,
                self.tr("Chat"),
                self.tr("Learns to answer in conversations, in a few minutes."),
                self.tr("135 million weights"),
            ),
            ENCODER: self._card(
                ENCODER,
                self.tr("Labels"),
                self.tr("Learns to give each text a label, in about a minute."),
                self.tr("23 million weights"),
            ),
        }
        self.group = ChoiceGroup(min_width=240)
        self.group.setObjectName("starters")
        self.group.setAccessibleName(self.tr("Starter models"))
        self.group.set_cards(list(self.cards.values()))
        self.group.chosen.connect(self.chosen)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.group)

    def _card(self, source: str, badge: str, about: str, size: str) -> ChoiceCard:
        name = source.removeprefix("starter:")
        item = starter.starter(name)
        here = self.tr("Ready here")
        if starter.find(name) is None:
            here = self.tr("{0} to fetch once").format(words.file_size(item.wheel_bytes))
        card = ChoiceCard(source, item.title, about, left=here, right=size, badge=badge)
        card.setObjectName(f"starter_{name}")
        self._sizes[source] = size
        return card

    def show_use(self, source: str, model: ModelInfo | None) -> None:
        """Mark the one in use; what has been described is on this computer."""
        self.group.set_current(source)
        if model is not None and model.source in self.cards:
            self.cards[model.source].set_facts(self.tr("Ready here"), self._sizes[model.source])
