"""How many held-out texts a classifier gets right: now, at its best, and before training."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QWidget

from tunedesk.core.events import Evaluated
from tunedesk.core.state import RunState
from tunedesk.gui import words
from tunedesk.gui.widgets import Card, ElidedLabel, Label

COLUMNS: Final = ("right", "accuracy", "f1", "loss")


class ChecksCard(Card):
    """A small table: a row for the latest check, the best one and the untouched model."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__("", parent=parent)
        self.set_title(self.tr("Held-out texts"))
        self.body.setContentsMargins(15, 11, 15, 11)
        self.body.setSpacing(4)
        self.setObjectName("checksCard")
        self._grid = QGridLayout()
        self._grid.setHorizontalSpacing(12)
        self._grid.setVerticalSpacing(0)
        heads = {
            "right": (self.tr("Right"), ""),
            "accuracy": (self.tr("Share"), self.tr("The share of texts that get the right label.")),
            "f1": (self.tr("Macro-F1"), self.tr("How well each label is found, the mean over labels. 1 is perfect.")),
            "loss": (self.tr("Loss"), self.tr("How unsure the model is of the right labels. Lower is better.")),
        }
        for column, (text, tip) in enumerate(heads.values(), start=1):
            head = self._cell(text, 0, column, "secondary", "t2")
            head.setToolTip(tip)
        rows = {"latest": self.tr("Latest"), "best": self.tr("Best, kept"), "base": self.tr("Before")}
        self._names: dict[str, Label] = {}
        self._cells: dict[str, dict[str, Label]] = {}
        for row, (key, text) in enumerate(rows.items(), start=1):
            self._names[key] = Label(text, "secondary", "t2")
            self._grid.addWidget(self._names[key], row, 0)
            self._cells[key] = {
                name: self._cell(words.DASH, row, column, "strong" if name == "right" else "body", "t1")
                for column, name in enumerate(COLUMNS, start=1)
            }
            for name, cell in self._cells[key].items():
                cell.setObjectName(f"{key}_{name}")
        self._grid.setColumnStretch(0, 1)
        self.add_layout(self._grid)
        about = self.tr("In macro-F1 a rare label counts like any other.")
        self.add(ElidedLabel(about, "secondary", "t2"))
        self.hide()

    def _cell(self, text: str, row: int, column: int, role: str, tone: str) -> Label:
        label = Label(text, role, tone)  # type: ignore[arg-type]
        self._grid.addWidget(label, row, column, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return label

    def show_state(self, state: RunState) -> None:
        """Show the checks of a classifier; a run without such measures has no card."""
        checks = [check for check in state.evaluations if "accuracy" in check.metrics]
        self.setVisible(bool(checks))
        if not checks:
            return
        rows = state.began.eval_rows if state.began else 0
        self.set_title(self.tr("Of {0} held-out texts").format(words.count(rows)))
        base = checks[0] if checks[0].step == 0 else None
        latest = checks[-1] if checks[-1] is not base else None
        for key, check in (("latest", latest), ("best", state.best), ("base", base)):
            self._show(key, check, rows)

    def _show(self, key: str, check: Evaluated | None, rows: int) -> None:
        values = dict.fromkeys(COLUMNS, words.DASH)
        if check is not None and "accuracy" in check.metrics:
            accuracy = check.metrics["accuracy"]
            values = {
                "right": words.count(round(accuracy * rows)),
                "accuracy": words.share(accuracy),
                "f1": words.number(check.metrics.get("macro_f1", float("nan")), 3),
                "loss": words.loss(check.loss),
            }
        for name, cell in self._cells[key].items():
            cell.setText(values[name])
        said = ", ".join([self._names[key].text(), *values.values()])
        self._cells[key]["right"].setAccessibleName(said)
        if check is not None:
            self._names[key].setToolTip(self.tr("Step {0}").format(words.count(check.step)))
