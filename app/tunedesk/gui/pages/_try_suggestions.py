"""What may be asked first: the first questions, or texts, of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from tunedesk.core.describe import RenderedRow
from tunedesk.gui.pages._try_parts import example_button
from tunedesk.gui.widgets import Button, Card

MOST_SUGGESTIONS: Final = 4
_ASKS: Final = ("user", "source", "prompt")
"""The turns of a row that ask for something."""


def questions_of(rows: Sequence[RenderedRow]) -> tuple[str, ...]:
    """First questions of these rows, each once."""
    questions: dict[str, None] = {}
    for row in rows:
        turn = next((turn for turn in row.turns if turn.role in _ASKS), None)
        if turn is not None:
            text = "".join(span.text for span in turn.spans if span.kind == "context").strip()
            questions.setdefault(" ".join(text.split()))
    return tuple(text for text in questions if text)[:MOST_SUGGESTIONS]


class SuggestionsCard(Card):
    """A button for each of a few first questions."""

    asked = Signal(str)

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__("", subtitle=" ", parent=parent)
        self.setObjectName("suggestions")
        self._shown: tuple[str, ...] = ()
        self.buttons: list[Button] = []
        for number in range(MOST_SUGGESTIONS):
            button = example_button(f"suggestion_{number}")
            button.clicked.connect(lambda _=False, number=number: self.asked.emit(self._shown[number]))
            self.add(button)
            self.buttons.append(button)

    def show_rows(self, rows: Sequence[RenderedRow], *, texts: bool, enabled: bool) -> bool:
        """Offer the questions of `rows`, or the `texts` that are turned into others; whether there are any."""
        if texts:
            self.set_title(self.tr("Try one of these"), self.tr("The first texts of your data."))
        else:
            self.set_title(self.tr("Ask something"), self.tr("First questions from your data, or write your own."))
        found = questions_of(rows)
        if found != self._shown:
            self._shown = found
            for number, button in enumerate(self.buttons):
                text = found[number] if number < len(found) else ""
                button.setText(text)
                button.setToolTip(text)
                button.setAccessibleName(self.tr("Ask: {0}").format(text))
                button.setVisible(bool(text))
        for button in self.buttons:
            button.setEnabled(enabled)
        return bool(found)
