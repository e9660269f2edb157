"""The third step: which part of the model learns, and how."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt, QTimer
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from tunedesk.core.matching import short, unfit, unfit_task
from tunedesk.core.methods import GROUPS, Method, offered
from tunedesk.core.plan import Estimate, Plan
from tunedesk.core.problems import Problem
from tunedesk.core.project import step_status
from tunedesk.core.spec import MethodName
from tunedesk.gui import method_words, words
from tunedesk.gui.advice import advice, first_choice
from tunedesk.gui.pages._method_detail import MethodDetail
from tunedesk.gui.pages._parts import ContentScroll
from tunedesk.gui.pages._plans import changed, frugal, method_plans
from tunedesk.gui.pages.base import Page
from tunedesk.gui.session import Session
from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets import BadgeKind, Button, ChoiceGroup, Label, MethodCard, MethodItem, TwoColumns
from tunedesk.gui.words import problem_item

SIDE = 312
NARROW = 640
"""Width below which the detail goes under the cards."""


class MethodPage(Page):
    """A short card for each method in its group, and the chosen one in full at the side."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, "method", "")
        self.header.set_title(self.tr("Method"))
        self.header.set_subtitle(self.tr("Which part of the model learns. The rest stays as it is."))
        self.header.add_action(_Legend(self.tr("Trained"), self.tr("Frozen")))
        self.help_choose = Button(self.tr("Help me choose"), "plain", icon_name="lightbulb")
        self.help_choose.setObjectName("helpChoose")
        self.help_choose.setAccessibleName(self.help_choose.text())
        self.header.add_action(self.help_choose)
        self._shown_for: object = None
        self.detail = MethodDetail(session)
        self.help_choose.clicked.connect(self.open_advisor)
        self.body.addWidget(TwoColumns(self._build_cards(), self.detail, right_width=SIDE, narrow_below=NARROW), 1)

    def _build_cards(self) -> ContentScroll:
        self.methods = ChoiceGroup(min_width=188)
        self.methods.setObjectName("methods")
        self.methods.setAccessibleName(self.tr("Methods"))
        self.cards: dict[MethodName, MethodCard] = {item.name: MethodCard(self._item(item, None)) for item in offered()}
        groups = (
            (title, [self.cards[item.name] for item in offered() if item.group == key]) for key, title in GROUPS.items()
        )
        self.methods.set_sections([(self.tr(title), cards) for title, cards in groups if cards])
        self.methods.chosen.connect(self._choose)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.methods)
        self.note = Label("", "secondary", "t2", wrap=True)
        self.note.setObjectName("note")
        column.addSpacing(8)
        column.addWidget(self.note)
        column.addStretch(1)
        self.view = ContentScroll(inside)
        self.view.setObjectName("cards")
        self.view.viewport().setProperty("ringPasses", True)
        return self.view

    # Acts.

    def _choose(self, key: str) -> None:
        self.session.set_method(name=key)
        self._reveal()

    def _reveal(self) -> None:
        """Scroll to the chosen card."""
        if key := self.methods.current():
            self.view.ensureWidgetVisible(self.methods.card(key), 0, 24)

    def open_advisor(self) -> None:
        """Open the recommender; its answers count here from then on."""
        self.detail.open_advisor().finished.connect(self.refresh)

    # Showing.

    def refresh(self) -> None:
        project = self.session.project
        session = self.session
        asides = (session.model_activity, session.dropped_method, tuple(session.answers.items()))
        seen = (project.spec, project.plan, project.model, project.data, asides)
        if seen == self._shown_for:
            return
        self._shown_for = seen
        plans = self._plans()
        first = first_choice(advice(project, self.session.answers), project)
        for item in offered():
            recommended = first is not None and item.name == first.method
            self.cards[item.name].set_item(self._item(item, plans.get(item.name), recommended))
        if self.methods.current() != project.spec.method.name:
            self.methods.set_current(project.spec.method.name)
            QTimer.singleShot(0, self, self._reveal)
        self.detail.show_project(project, plans.get(project.spec.method.name))
        self._show_note()
        self._show_dropped()
        self._show_footer()

    def _plans(self) -> dict[MethodName, Plan]:
        project = self.session.project
        if project.plan is None or project.model is None:
            return {}
        return method_plans(project.spec, project.plan, project.model, project.data)

    def _item(self, item: Method, plan: Plan | None, recommended: bool = False) -> MethodItem:
        problem = self._problem(item)
        memory, unit, fits = words.DASH, "GiB", True
        if plan is not None:
            need, fits = self._need(item, plan)
            memory = words.gib_number(need.peak_bytes)
            in_four_bits = not plan.fits and "method.quantised" in plan.settings
            unit = self.tr("GiB, 4-bit") if in_four_bits else unit
        badge, kind = self._badge(problem, fits, recommended)
        return MethodItem(
            key=item.name,
            name=item.title,
            schematic=item.drawing,
            sentence=self.tr(item.summary),
            suits=self.tr(item.suits),
            trained=f"{_share(plan)} {self.tr('trained')}",
            memory=f"{memory} {unit}",
            fits=fits,
            badge=badge,
            badge_kind=kind,
            reason=problem.what if problem else "",
        )

    def _badge(self, problem: Problem | None, fits: bool, recommended: bool) -> tuple[str, BadgeKind]:
        if problem is not None:
            return self.tr(short(problem)).capitalize(), "neutral"
        if not fits:
            return self.tr("Too big"), "bad"
        return (self.tr("Recommended"), "recommended") if recommended else ("", "neutral")

    def _problem(self, item: Method) -> Problem | None:
        """Why the method cannot be used here; what the model itself cannot do is told on the Model page."""
        project = self.session.project
        task = project.spec.task.kind
        if project.model is None or unfit_task(project.model, task):
            return None
        return unfit(item.name, project.model, task)

    def _need(self, item: Method, plan: Plan) -> tuple[Estimate, bool]:
        """What the method needs with the settings that the app suggests, and whether that fits."""
        project = self.session.project
        if project.model is None:
            return plan.asked, plan.fits
        return frugal(changed(project.spec, {"method.name": item.name}), plan, project.model, project.data)

    def _show_note(self) -> None:
        plan = self.session.project.plan
        if plan is None:
            self.note.setText("")
            return
        text = self.tr("Memory with the settings that the app suggests; {0} free on {1}.")
        self.note.setText(text.format(words.gib(plan.device.free_bytes), plan.device.name))

    def _show_dropped(self) -> None:
        """Say why another method took the place of the chosen one."""
        problem = self.session.dropped_method
        if problem is None:
            self.problems.clear()
            return
        self.problems.set_problems([problem_item(problem, severity="info", aside=self.tr("LoRA is chosen instead"))])

    def _show_footer(self) -> None:
        project = self.session.project
        settled = step_status(project, "method") == "settled"
        self.footer.set_back(self.tr("Back: Data"))
        self.footer.set_next(self.tr("Next: Fit"), enabled=settled, kind="primary" if settled else "plain")
        if not (project.model and project.plan):
            self.footer.set_hint(self.tr("Memory is known once a model and data are chosen"))
            return
        trained = project.plan.trainable_parameters
        whole, size = words.large(project.model.parameters), words.file_size(trained * 4)
        name = project.spec.method.name
        if project.spec.task.kind == "classification" and name != "full":
            hint = self.tr("{0} of {1} weights are trained, the new output layer among them. About {2}.")
            self.footer.set_hint(hint.format(words.large(trained), whole, size))
            return
        self.footer.set_hint(method_words.cost(name, words.large(trained), whole, size))


def _share(plan: Plan | None) -> str:
    """How much of the model is trained; a dash where it is not known."""
    if plan is None or not plan.trainable_parameters:
        return words.DASH
    return words.share(min(1.0, plan.trainable_parameters / max(1, plan.total_parameters)))


class _Legend(QWidget):
    """What the two colours of the drawings mean."""

    def __init__(self, trained: str, frozen: str, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 6, 12, 0)
        row.setSpacing(6)
        for token, text in (("accent_fill", trained), ("frozen", frozen)):
            row.addWidget(_Swatch(token))
            row.addWidget(Label(text, "secondary", "t2"))
            row.addSpacing(4)


class _Swatch(QWidget):
    """A square in the colour of a token."""

    def __init__(self, token: str, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._token = token
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        return QSize(10, 16)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(Theme.of().tokens.colour(self._token)))
        painter.drawRoundedRect(QRectF(0, (self.height() - 10) / 2, 10, 10), 2, 2)
