"""What the checks on held-out rows found beside the loss: now, at its best, and before training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QWidget

from tunedesk.core.events import Evaluated
from tunedesk.core.measures import MEASURES, measures_in
from tunedesk.core.state import RunState
from tunedesk.gui import task_words, words
from tunedesk.gui.pages._parts import clear
from tunedesk.gui.widgets import Card, ElidedLabel, Label
from tunedesk.gui.widgets.paint import text_width

MOST: Final = 4
"""So many figures stand beside each other."""
_BY_KEY: Final = {measure.key: measure for measure in MEASURES}
_SHORT: Final = {"macro_f1": "f1", "micro_f1": "micro"}
_WIDEST: Final = {
    "right": "000",
    **dict.fromkeys(("accuracy", "preference_accuracy", "exact_match"), "100%"),
    **dict.fromkeys(("pearson", "reward_margin"), f"{words.MINUS}0.000"),
}
"""The widest that a figure mostly is: its room is kept from the first, so that no column moves."""
_ROWS: Final = ("latest", "best", "base")


def columns_of(metrics: Mapping[str, float]) -> tuple[str, ...]:
    """The figures that tell most of a check with `metrics`; none of one that has the loss alone.

    One label for each text is counted too; the loss of numbers is the square of their RMSE.
    """
    keys = [measure.key for measure, _ in measures_in(metrics) if measure.key != "perplexity"]
    if not keys:
        return ()
    first = ("right",) if "accuracy" in keys and "micro_f1" not in keys else ()
    last = () if "rmse" in keys else ("loss",)
    return (*first, *keys, *last)[: MOST + 1]


class ChecksCard(Card):
    """A small table: a row for the latest check, the best one and the untouched model."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__("", parent=parent)
        self.set_title(self.tr("Held-out data"))
        self.body.setContentsMargins(15, 11, 15, 11)
        self.body.setSpacing(4)
        self.setObjectName("checksCard")
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(10)
        self._grid.setVerticalSpacing(0)
        self._grid.setColumnStretch(0, 1)
        self._columns: tuple[str, ...] = ()
        self._names: dict[str, Label] = {}
        self._cells: dict[str, dict[str, Label]] = {}
        self.add_layout(self._grid)
        self.about = ElidedLabel("", "secondary", "t2")
        self.about.setObjectName("checksAbout")
        self.add(self.about)
        self.hide()

    def _title_of(self, column: str) -> tuple[str, str]:
        """The title of a column and what it means."""
        heads = {
            "right": (self.tr("Right"), self.tr("How many texts get the right label.")),
            "accuracy": (self.tr("Share"), self.tr("The share of texts that get the right label.")),
            "loss": (self.tr("Loss"), self.tr("How unsure the model is of what is right. Lower is better.")),
            "reward_margin": (self.tr("Margin"), self.tr(_BY_KEY["reward_margin"].meaning)),
        }
        if column == "accuracy" and "right" not in self._columns:
            return self.tr("Exact"), self.tr("The share of texts that get exactly their labels.")
        if column in heads:
            return heads[column]
        measure = _BY_KEY[column]
        return self.tr(measure.title), self.tr(measure.meaning)

    def _build(self, columns: tuple[str, ...]) -> None:
        clear(self._grid)
        self._columns = columns
        for place, column in enumerate(columns, start=1):
            title, meaning = self._title_of(column)
            head = self._cell(title, 0, place, "secondary", "t2")
            head.setToolTip(meaning)
        titles = {"latest": self.tr("Latest"), "best": self.tr("Best, kept"), "base": self.tr("Before")}
        for row, key in enumerate(_ROWS, start=1):
            self._names[key] = Label(titles[key], "secondary", "t2")
            self._grid.addWidget(self._names[key], row, 0)
            self._grid.setRowMinimumHeight(row, self._names[key].sizeHint().height())
            self._cells[key] = {
                name: self._cell(words.DASH, row, place, "strong" if place == 1 else "body", "t1")
                for place, name in enumerate(columns, start=1)
            }
            for name, cell in self._cells[key].items():
                cell.setObjectName(f"{key}_{_SHORT.get(name, name)}")
                cell.setToolTip(self._title_of(name)[1])
                cell.setMinimumWidth(math.ceil(text_width(_WIDEST.get(name, "0.000"), "strong")))

    def _cell(self, text: str, row: int, column: int, role: str, tone: str) -> Label:
        label = Label(text, role, tone)  # type: ignore[arg-type]
        label.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self._grid.addWidget(label, row, column, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return label

    def show_state(self, state: RunState) -> None:
        """Show the checks; a run without such measures has no card."""
        checks = [check for check in state.evaluations if columns_of(check.metrics)]
        self.setVisible(bool(checks))
        if not checks:
            return
        columns = columns_of(checks[-1].metrics)
        if columns != self._columns:
            self._build(columns)
        rows = state.began.eval_rows if state.began else 0
        if "preference_accuracy" in columns:
            self.set_title(self.tr("Of {0} held-out rows").format(words.count(rows)))
        else:
            self.set_title(self.tr("Of {0} held-out texts").format(words.count(rows)))
        self.about.setText(self._meaning(columns))
        base = checks[0] if checks[0].step == 0 else None
        latest = checks[-1] if checks[-1] is not base else None
        for key, check in (("latest", latest), ("best", state.best), ("base", base)):
            self._show(key, check, rows)

    def _meaning(self, columns: tuple[str, ...]) -> str:
        if "macro_f1" in columns:
            return self.tr("In macro-F1 a rare label counts like any other.")
        return self.tr(_BY_KEY[columns[1] if columns[0] in ("right", "exact_match") else columns[0]].meaning)

    def _show(self, key: str, check: Evaluated | None, rows: int) -> None:
        values = {name: self._value(name, check, rows) for name in self._columns}
        for name, cell in self._cells[key].items():
            cell.setText(values[name])
        self._grid.invalidate()
        said = ", ".join([self._names[key].text(), *values.values()])
        self._cells[key][self._columns[0]].setAccessibleName(said)
        if check is not None:
            self._names[key].setToolTip(self.tr("Step {0}").format(words.count(check.step)))

    def _value(self, name: str, check: Evaluated | None, rows: int) -> str:
        if check is None or not check.metrics:
            return words.DASH
        if name == "loss":
            return words.loss(check.loss)
        if name == "right":
            return words.count(round(check.metrics["accuracy"] * rows))
        value = check.metrics.get(name, math.nan)
        if name in ("accuracy", "preference_accuracy", "exact_match") and math.isfinite(value):
            return words.share(value)
        return task_words.measured(_BY_KEY[name], value)
