"""How the next token is chosen: the row under the field to write in, and the popups behind it."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QSlider, QSpinBox, QWidget

from tunedesk.core.events import Sampling
from tunedesk.gui import words
from tunedesk.gui.pages._try_parts import InstructionsPopup, SamplingPopup
from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets import Button, Label


class SamplingBar(QWidget):
    """Temperature, length and seed; the settings that are seldom touched wait in popups."""

    closed = Signal()
    """A popup was closed."""

    def __init__(
        self, sampling: Sampling, system_prompt: str, *, popups_in: QWidget, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        row = QHBoxLayout(self)
        row.setContentsMargins(15, 4, 9, 9)
        row.setSpacing(8)
        self._add_temperature(row, sampling.temperature)
        self.at_most = self._spin("atMost", self.tr("Most tokens of an answer"), 1, 8192, sampling.max_new_tokens)
        self._add_spin(row, self.tr("At most"), self.at_most, self.tr("tokens"))
        self.seed = self._spin("seed", self.tr("Seed"), 0, 999_999, sampling.seed)
        self.seed_note = self._add_spin(row, self.tr("Seed"), self.seed, self.tr("same for both"))
        row.addStretch(1)
        self.more_button = Button(self.tr("More"), "quiet", trailing="chevron-down", compact=True)
        self.more_button.setObjectName("moreSampling")
        self.more_button.setAccessibleName(self.tr("More sampling"))
        self.prompt_button = Button("", "quiet", trailing="chevron-down", compact=True)
        self.prompt_button.setObjectName("instructions")
        row.addWidget(self.more_button)
        row.addWidget(self.prompt_button)
        self.instructions = InstructionsPopup(system_prompt, parent=popups_in)
        self.more = SamplingPopup(sampling, parent=popups_in)
        self._connect()

    def _connect(self) -> None:
        self.instructions.closed.connect(self.closed)
        self.more.closed.connect(self.closed)
        self.more_button.clicked.connect(lambda: self.more.open_above(self.more_button))
        self.prompt_button.clicked.connect(lambda: self.instructions.open_above(self.prompt_button))
        self.instructions.text.textChanged.connect(self._show_instructions)
        self._show_instructions()

    def _add_temperature(self, row: QHBoxLayout, value: float) -> None:
        self.temperature = QSlider(Qt.Orientation.Horizontal)
        self.temperature.setObjectName("temperature")
        self.temperature.setAccessibleName(self.tr("Temperature"))
        self.temperature.setToolTip(self.tr("0 always takes the likeliest word; higher is more varied."))
        self.temperature.setRange(0, 150)
        self.temperature.setSingleStep(5)
        self.temperature.setPageStep(10)
        self.temperature.setFixedWidth(88)
        self.temperature.setValue(round(value * 100))
        self.temperature_value = Label("", "strong")
        self.temperature_value.setObjectName("temperatureValue")
        self.temperature_value.setMinimumWidth(34)
        self.temperature.valueChanged.connect(self._show_temperature)
        self._show_temperature()
        row.addWidget(Label(self.tr("Temperature"), "secondary", "t2"))
        row.addWidget(self.temperature)
        row.addWidget(self.temperature_value)
        row.addSpacing(8)

    @staticmethod
    def _spin(name: str, accessible: str, low: int, high: int, value: int) -> QSpinBox:
        spin = QSpinBox()
        spin.setObjectName(name)
        spin.setAccessibleName(accessible)
        spin.setProperty("compact", True)
        spin.setButtonSymbols(QSpinBox.ButtonSymbols.NoButtons)
        spin.setAlignment(Qt.AlignmentFlag.AlignRight)
        spin.setRange(low, high)
        spin.setValue(value)
        spin.setFixedWidth(Theme.of().px(56))
        return spin

    @staticmethod
    def _add_spin(row: QHBoxLayout, before: str, spin: QSpinBox, after: str) -> Label:
        note = Label(after, "secondary", "t2")
        row.addWidget(Label(before, "secondary", "t2"))
        row.addWidget(spin)
        row.addWidget(note)
        row.addSpacing(8)
        return note

    def _show_temperature(self) -> None:
        self.temperature_value.setText(words.number(self.temperature.value() / 100, 2))

    def _show_instructions(self) -> None:
        on = bool(self.instructions.text.toPlainText().strip())
        self.prompt_button.setText(self.tr("Instructions on") if on else self.tr("Instructions off"))
        self.prompt_button.setAccessibleName(self.prompt_button.text())

    def system_prompt(self) -> str:
        """The instructions as they stand."""
        return self.instructions.text.toPlainText()

    def sampling(self) -> Sampling:
        """The settings of sampling as they stand."""
        return Sampling(
            temperature=self.temperature.value() / 100,
            top_p=self.more.top_p.value(),
            top_k=self.more.top_k.value(),
            repetition_penalty=self.more.penalty.value(),
            max_new_tokens=self.at_most.value(),
            seed=self.seed.value(),
        )
