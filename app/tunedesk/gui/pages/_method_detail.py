"""The side of the Method page: what is advised, what the chosen method is, and its settings."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from tunedesk.core.counts import trained_linears
from tunedesk.core.matching import matches
from tunedesk.core.methods import Method, method
from tunedesk.core.plan import Plan
from tunedesk.core.project import Project
from tunedesk.gui import words
from tunedesk.gui.advice import advice, first_choice
from tunedesk.gui.dialogs.advisor import AdvisorDialog, verdict_words
from tunedesk.gui.pages._method_fields import MethodFields
from tunedesk.gui.pages._parts import ContentScroll, SignedList
from tunedesk.gui.pages._plans import effect, small_size
from tunedesk.gui.pages._settings import SettingsDialog
from tunedesk.gui.session import Session
from tunedesk.gui.widgets import Button, Card, Label, Rule


class MethodDetail(Card):
    """Advice, the chosen method in words, and its settings; scrolls by itself."""

    def __init__(self, session: Session, *, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.session = session
        self.setObjectName("side")
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 8, 4)
        column.setSpacing(8)
        for part in (*self._build_advice(), Rule(), *self._build_about()):
            column.addWidget(part)
        self.fields = MethodFields(session.set_method)
        self.fields.setObjectName("fields")
        column.addWidget(self.fields)
        column.addWidget(Rule())
        self.source = Label("", "secondary", "t2", wrap=True, selectable=True)
        self.source.setObjectName("source")
        column.addWidget(self.source)
        column.addStretch(1)
        self.view = ContentScroll(inside)
        self.view.setObjectName("detail")
        self.add(self.view, 1)
        self.add_rule()
        self.add_layout(self._build_foot())

    # Building.

    def _build_advice(self) -> tuple[QWidget, ...]:
        self.why = Label("", "secondary", "accent", wrap=True)
        self.why.setObjectName("why")
        self.reasons = SignedList("tick", "ok", gap=4)
        self.reasons.setObjectName("reasons")
        return self.why, self.reasons

    def _build_about(self) -> tuple[QWidget, ...]:
        self.name = Label("", "card")
        self.name.setObjectName("name")
        self.suits = Label("", "secondary", "t2", wrap=True)
        self.suits.setObjectName("suits")
        self.changes = Label("", "body", "t2", wrap=True)
        self.changes.setObjectName("changes")
        self.good, self.poor = SignedList("tick", "ok", gap=4), SignedList("minus", "t3", gap=4)
        self.good.setObjectName("good")
        self.poor.setObjectName("poor")
        good = Label(self.tr("Good at"), "secondary", "t2")
        poor = Label(self.tr("Think twice for"), "secondary", "t2")
        return self.name, self.suits, self.changes, good, self.good, poor, self.poor

    def _build_foot(self) -> QHBoxLayout:
        self.more = Button(self.tr("More settings"), "link", trailing="chevron-right", compact=True)
        self.more.setObjectName("more")
        self.more.clicked.connect(self.open_settings)
        row = QHBoxLayout()
        row.addWidget(self.more)
        row.addStretch(1)
        return row

    # Acts.

    def open_settings(self) -> None:
        """Open the dialog with every setting of training."""
        dialog = SettingsDialog(self.session, self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def open_advisor(self) -> AdvisorDialog:
        """Open the recommender."""
        dialog = AdvisorDialog(self.session, parent=self.window())
        dialog.open()
        return dialog

    # Showing.

    def show_project(self, project: Project, plan: Plan | None) -> None:
        """Show the chosen method; `plan` is its plan where the planner knows it."""
        chosen = method(project.spec.method.name)
        if chosen.title != self.name.text():
            self.view.verticalScrollBar().setValue(0)
        self._show_advice(project)
        self._show_about(chosen, project)
        self.fields.show_section(project.spec.method, plan, project.model.hidden_size if project.model else None)
        self._show_effects(project, plan)

    def _show_advice(self, project: Project) -> None:
        found = advice(project, self.session.answers)
        if found is None:
            self.why.setText(self.tr("Advice"))
            waiting = self.tr("Once a model and data are chosen, this says what suits them and this computer.")
            self.reasons.set_lines([(waiting, "info", "t3")])
            return
        first = first_choice(found, project)
        if first is not None:
            self.why.setText(self.tr("Why {0}").format(method(first.method).title))
            self.reasons.set_texts([self.tr(first.why)])
            return
        self.why.setText(verdict_words()[found.verdict])
        self.reasons.set_lines([(self.tr(found.reasons[0]), "alert", "warn")] if found.reasons else [])

    def _show_about(self, chosen: Method, project: Project) -> None:
        self.name.setText(chosen.title)
        self.suits.setText(self.tr("Suits {0}").format(self.tr(chosen.suits)))
        self.changes.setText(self.tr(chosen.changes))
        self.good.set_texts([self.tr(text) for text in chosen.good])
        warned = _cautions(chosen, project)
        said = " ".join(warned)
        lines = [(text, "alert", "warn") for text in warned]
        lines += [(text, "minus", "t3") for text in chosen.poor if text.rpartition(": ")[2] not in said]
        self.poor.set_lines([(self.tr(text), icon, tone) for text, icon, tone in lines])  # type: ignore[misc]
        self.source.setText(chosen.source)

    def _show_effects(self, project: Project, plan: Plan | None) -> None:
        """Say at the rank and at the layers what another value would cost here."""
        fields = self.fields.fields
        if plan is None or project.model is None or "rank" not in self.fields.shown():
            self.fields.reset_help("rank", "target_modules")
            return
        double = min(1024, project.spec.method.rank * 2)
        more = effect(project.spec, plan, project.model, project.data, {"method.rank": double})
        fields["rank"].set_help(self.tr("Room to learn. Doubling it adds {0}.").format(small_size(more)))
        fields["target_modules"].set_help(self._targets_effect(project, plan))

    def _targets_effect(self, project: Project, plan: Plan) -> str:
        model, chosen = project.model, project.spec.method.target_modules
        if model is None:
            return ""
        layers = sum(count for _, _, count in trained_linears(model, chosen))
        total = sum(item.count for item in model.linears)
        text = self.tr("{0} of {1} layers.").format(words.count(layers), words.count(total))
        other = "attention" if chosen == "all-linear" else "all-linear"
        change = effect(project.spec, plan, model, project.data, {"method.target_modules": other})
        less = self.tr("Attention only saves {0} and learns less.")
        more = self.tr("All linear layers learn best, for {0} more.")
        return f"{text} {(less if change <= 0 else more).format(small_size(abs(change)))}"


def _cautions(chosen: Method, project: Project) -> tuple[str, ...]:
    """What to think of with this model and task."""
    if project.model is None:
        return ()
    found = matches(project.model, project.spec.task.kind)
    return next(item.cautions for item in found if item.method == chosen.name)
