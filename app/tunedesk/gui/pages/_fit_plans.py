"""What to change so that a run fits: the suggestion as a whole, and single changes that are enough."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QGridLayout, QVBoxLayout, QWidget

from tunedesk.core.hardware import GIB
from tunedesk.core.plan import Alternative, Change, Plan
from tunedesk.core.project import Project
from tunedesk.gui import words
from tunedesk.gui.pages._parts import clear
from tunedesk.gui.pages._plans import estimate_with, memory_row
from tunedesk.gui.widgets import Button, Card, Label, MemoryStrip, Rule


class ChangesCard(Card):
    """The suggested changes, each with what it saves and costs, and the button that makes them."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        self.make_fit = Button("", "primary")
        super().__init__(" ", right=self.make_fit, subtitle=" ", padded=False, parent=parent)
        self.make_fit.setText(self.tr("Make it fit"))
        self.make_fit.setObjectName("makeFit")
        self.setObjectName("changes")
        self.body.setSpacing(0)
        self.body.addSpacing(6)
        self._rows = QVBoxLayout()
        self._rows.setSpacing(0)
        self.add_layout(self._rows)
        self.body.addStretch(1)
        self._shown: object = None

    def show_plan(self, plan: Plan) -> None:
        """Show the changes of this plan."""
        seen = (plan.changes, plan.asked, plan.suggested)
        if seen == self._shown:
            return
        self._shown = seen
        clear(self._rows)
        enough = plan.suggestion_fits
        count = words.several(len(plan.changes), self.tr("change"), self.tr("changes"))
        title = self.tr("Suggested: %1") if enough else self.tr("Closest: %1, still too much")
        self.set_title(title.replace("%1", count), self._kept(plan))
        self.make_fit.setVisible(enough)
        for change in plan.changes:
            self._rows.addWidget(Rule())
            self._rows.addWidget(self._change_row(change))
        self._rows.addWidget(Rule())
        self._rows.addWidget(self._total_row(plan))

    def _kept(self, plan: Plan) -> str:
        kept = [self.tr("model"), self.tr("data")]
        if "method.name" not in plan.settings:
            kept.append(self.tr("method"))
        return self.tr("Same %1.").replace("%1", self.tr(", same ").join(kept))

    def _change_row(self, change: Change) -> QWidget:
        saved = words.gib_change(-change.saved_bytes)
        row = _change_line(change.label, change.before, change.after, saved, change.note)
        row.setObjectName(f"change_{change.key}")
        return row

    def _total_row(self, plan: Plan) -> QWidget:
        before, after = words.gib(plan.asked.peak_bytes), words.gib(plan.suggested.peak_bytes)
        saved = words.gib_change(plan.suggested.peak_bytes - plan.asked.peak_bytes)
        row = _change_line(self.tr("In all"), before, after, saved, "", strong=True)
        row.setObjectName("changeTotal")
        return row


class OthersCard(Card):
    """Single changes that fit too, each naming what it gives up."""

    used = Signal(object)
    """Use this `Alternative`."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(" ", subtitle=" ", padded=False, parent=parent)
        self.setObjectName("others")
        self.body.setSpacing(0)
        self.body.addSpacing(6)
        self._rows = QVBoxLayout()
        self._rows.setSpacing(0)
        self.add_layout(self._rows)
        self.body.addStretch(1)
        self._shown: object = None

    def show_plan(self, project: Project, plan: Plan) -> None:
        """Show the alternatives of this plan."""
        seen = (plan.alternatives, plan.device)
        if seen == self._shown:
            return
        self._shown = seen
        clear(self._rows)
        about = self.tr("These fit too, but each gives something up.")
        if not plan.alternatives:
            about = self.tr("No single change is enough here.")
        self.set_title(self.tr("Other ways"), "" if plan.fits else about)
        for place, alternative in enumerate(plan.alternatives):
            self._rows.addWidget(Rule())
            self._rows.addWidget(self._other_row(place, alternative, project, plan))

    def _other_row(self, place: int, alternative: Alternative, project: Project, plan: Plan) -> QWidget:
        row = QWidget()
        row.setObjectName(f"other_{place}")
        grid = QGridLayout(row)
        grid.setContentsMargins(16, 4, 16, 4)
        grid.setHorizontalSpacing(12)
        grid.setVerticalSpacing(2)
        use = Button(self.tr("Use"), "plain", compact=True, in_row=True)
        use.setObjectName(f"use_{place}")
        use.setAccessibleName(self.tr("Use %1").replace("%1", alternative.title))
        use.clicked.connect(lambda: self.used.emit(alternative))
        strip = MemoryStrip()
        if project.model is not None:
            estimate = estimate_with(project.spec, plan, project.model, project.data, alternative.settings)
            device = plan.device
            row_of = memory_row(alternative.title, estimate, True)
            strip.set_row(row_of, device.free_bytes / GIB, device.total_bytes / GIB)
        need = Label(words.gib(alternative.peak_bytes), "secondary", "t1")
        grid.addWidget(Label(alternative.title, "strong", "t1"), 0, 0)
        grid.addWidget(use, 0, 1, Qt.AlignmentFlag.AlignRight)
        grid.addWidget(strip, 1, 0)
        grid.addWidget(need, 1, 1, Qt.AlignmentFlag.AlignRight)
        grid.addWidget(Label(alternative.note, "secondary", "t2", wrap=True), 2, 0, 1, 2)
        grid.setColumnStretch(0, 1)
        return row


def _change_line(label: str, before: str, after: str, saved: str, note: str, *, strong: bool = False) -> QWidget:
    """One change: what, from, to, memory saved, and under it what it costs."""
    line = QWidget()
    line.setAccessibleName(f"{label}: {before}, {after}, {saved}. {note}")
    grid = QGridLayout(line)
    grid.setContentsMargins(16, 10, 16, 12)
    grid.setHorizontalSpacing(12)
    grid.setVerticalSpacing(0)
    arrow = Label("→", "body", "t2")
    cells: list[tuple[QWidget, int]] = [
        (Label(label, "card" if strong else "strong"), 0),
        (Label(before, "body", "t2"), 1),
        (arrow, 2),
        (Label(after, "card" if strong else "strong"), 3),
    ]
    for widget, place in cells:
        grid.addWidget(widget, 0, place)
    amount = Label(saved, "card", "ok")
    amount.setMinimumWidth(76)
    amount.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    grid.addWidget(amount, 0, 4)
    grid.setColumnStretch(0, 1)
    grid.setColumnMinimumWidth(3, 80)
    if note:
        grid.addWidget(Label(note, "secondary", "t2", wrap=True), 1, 0, 1, 5)
    return line
