"""The third step: which part of the model learns, and how."""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError
from PySide6.QtCore import QRectF, QSignalBlocker, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from tunedesk.core.hardware import GIB
from tunedesk.core.methods import ALPHA, DROPOUT, METHODS, RANK, TARGETS, Method, method
from tunedesk.core.plan import Estimate, Plan, trained_linears
from tunedesk.core.project import step_status
from tunedesk.gui import words
from tunedesk.gui.pages._parts import SignedList, editing, keep_place
from tunedesk.gui.pages._plans import changed, effect, frugal, memory_row, method_plans
from tunedesk.gui.pages._settings import SettingsDialog
from tunedesk.gui.pages.base import Page
from tunedesk.gui.session import Session
from tunedesk.gui.theme import MEMORY_PARTS, Theme
from tunedesk.gui.widgets import (
    Button,
    Card,
    ChoiceGroup,
    Field,
    Label,
    MemoryStrip,
    MethodCard,
    MethodItem,
    Segmented,
    TwoColumns,
)

STRIP_NAME: Final = 64


class MethodPage(Page):
    """A card for each method with its share of trained weights and its memory, and the settings of the chosen one."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, "method", "")
        self.header.set_title(self.tr("Method"))
        self.header.set_subtitle(self.tr("Which part of the model learns. The rest stays as it is."))
        self.header.add_action(_Legend(self.tr("Trained"), self.tr("Frozen")))
        self._shown_for: object = None
        self.methods = ChoiceGroup(min_width=200)
        self.methods.setObjectName("methods")
        self.methods.setAccessibleName(self.tr("Methods"))
        self.cards = {item.name: MethodCard(self._item(item, None)) for item in METHODS}
        self.methods.set_cards(list(self.cards.values()))
        self.methods.chosen.connect(lambda key: self._set(self._why_field, name=key))
        left = QWidget()
        column = QVBoxLayout(left)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(12)
        column.addWidget(self.methods)
        column.addWidget(self._build_about(), 1)
        column.addWidget(self._build_memory())
        self.body.addWidget(TwoColumns(left, self._build_side(), right_width=312), 1)

    # Building.

    def _build_about(self) -> Card:
        self.about = Card(" ")
        self.about.setObjectName("about")
        self.good, self.poor = SignedList("tick", "ok"), SignedList("minus", "t3")
        self.good.setObjectName("good")
        self.poor.setObjectName("poor")
        grid = QGridLayout()
        grid.setHorizontalSpacing(24)
        grid.setVerticalSpacing(8)
        for place, (title, listing) in enumerate(
            [(self.tr("Good at"), self.good), (self.tr("Think twice for"), self.poor)]
        ):
            grid.addWidget(Label(title, "secondary", "t2"), 0, place)
            grid.addWidget(listing, 1, place, Qt.AlignmentFlag.AlignTop)
            grid.setColumnStretch(place, 1)
        self.about.add_layout(grid)
        self.about.body.addStretch(1)
        self.about.add_rule()
        self.source = Label("", "secondary", "t2", wrap=True, selectable=True)
        self.source.setObjectName("source")
        self.about.add(self.source)
        return self.about

    def _build_memory(self) -> Card:
        self.free = Label("", "secondary", "t2")
        self.free.setObjectName("free")
        card = Card(self.tr("Memory beside each other"), right=self.free)
        card.setObjectName("memory")
        grid = QGridLayout()
        grid.setHorizontalSpacing(12)
        grid.setVerticalSpacing(8)
        self.strips: dict[str, MemoryStrip] = {}
        self.needs: dict[str, Label] = {}
        for row, item in enumerate(METHODS):
            name = Label(item.title, "body")
            name.setMinimumWidth(STRIP_NAME)
            strip, need = MemoryStrip(), Label(words.DASH, "body", "t1")
            strip.setObjectName(f"strip_{item.name}")
            keep_place(strip)
            need.setObjectName(f"need_{item.name}")
            need.setMinimumWidth(72)
            need.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.strips[item.name], self.needs[item.name] = strip, need
            grid.addWidget(name, row, 0)
            grid.addWidget(strip, row, 1)
            grid.addWidget(need, row, 2)
        grid.setColumnStretch(1, 1)
        card.add_layout(grid)
        card.add(_PartsLegend())
        note = self.tr("The line marks what is free. Fit shows what each part is, and what to change.")
        card.add(Label(note, "secondary", "t2", wrap=True))
        card.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        return card

    def _build_side(self) -> Card:
        card = Card()
        card.setObjectName("side")
        card.body.setSpacing(6)
        self.why = Label("", "secondary", "accent")
        self.why.setObjectName("why")
        card.add(self.why)
        self.reasons = SignedList("tick", "ok")
        self.reasons.setObjectName("reasons")
        card.add(self.reasons)
        self._why_field: Field | None = None
        self.rank_field = self._build_rank()
        self.alpha_field = self._build_alpha()
        self.targets_field = self._build_targets()
        self.dropout_field = self._build_dropout()
        for field in (self.rank_field, self.alpha_field, self.targets_field, self.dropout_field):
            field.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)
            card.add_rule()
            card.add(field)
        card.body.addStretch(1)
        card.add_rule()
        self.more = Button(self.tr("More settings"), "link", trailing="chevron-right", compact=True)
        self.more.setObjectName("more")
        self.more.clicked.connect(self.open_settings)
        row = QHBoxLayout()
        row.addWidget(self.more)
        row.addStretch(1)
        card.add_layout(row)
        return card

    def _build_rank(self) -> Field:
        self.rank = Segmented(name=RANK.label)
        self.rank.setObjectName("rank")
        self.rank.chosen.connect(lambda key: self._set(self.rank_field, rank=int(key)))
        return Field(self.tr(RANK.label), self.rank, self.tr(RANK.help), inline=True)

    def _build_alpha(self) -> Field:
        self.alpha = _spin("alpha", 4096, 8, 1)
        self.alpha.valueChanged.connect(self._on_alpha)
        return Field(self.tr(ALPHA.label), self.alpha, self.tr(ALPHA.help), inline=True)

    def _build_dropout(self) -> Field:
        self.dropout = _spin("dropout", 0.9, 0.05, 2)
        self.dropout.valueChanged.connect(lambda value: self._set(self.dropout_field, dropout=round(value, 2)))
        return Field(self.tr(DROPOUT.label), self.dropout, self.tr(DROPOUT.help), inline=True)

    def _build_targets(self) -> Field:
        self.targets = QComboBox()
        self.targets.setObjectName("targets")
        self.targets.setProperty("compact", True)
        self.targets.addItem(self.tr("All linear layers"), "all-linear")
        self.targets.addItem(self.tr("Attention only"), "attention")
        self.targets.activated.connect(self._on_targets)
        return Field(self.tr(TARGETS.label), self.targets, self.tr(TARGETS.help), inline=True)

    # Acts.

    def _set(self, field: Field | None, **changes: object) -> None:
        try:
            self.session.set_method(**changes)
        except ValidationError as error:
            if field is not None:
                field.set_error(error.errors()[-1]["msg"].replace("Input should be", "Must be"))
            return
        if field is not None:
            field.set_error("")
        self.refresh()

    def _on_alpha(self, value: float) -> None:
        self._set(self.alpha_field, alpha=round(value, 1) if value > 0 else "auto")

    def _on_targets(self, place: int) -> None:
        wanted = self.targets.itemData(place)
        if wanted in ("all-linear", "attention"):
            self._set(self.targets_field, target_modules=wanted)

    def open_settings(self) -> None:
        """Open the dialog with every setting."""
        dialog = SettingsDialog(self.session, self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    # Showing.

    def refresh(self) -> None:
        project = self.session.project
        seen = (project.spec, project.plan, project.model, project.data, self.session.model_activity)
        if seen == self._shown_for:
            return
        self._shown_for = seen
        plans = self._plans()
        chosen = method(project.spec.method.name)
        recommended = project.plan.recommended_method if project.plan else ""
        for item in METHODS:
            self.cards[item.name].set_item(self._item(item, plans.get(item.name), item.name == recommended))
        self.methods.set_current(chosen.name)
        self._show_about(chosen)
        self._show_memory(plans)
        self._show_why()
        self._show_values()
        self._show_effects(plans.get(chosen.name))
        self._show_footer()

    def _plans(self) -> dict[str, Plan]:
        project = self.session.project
        if project.plan is None or project.model is None:
            return {}
        return method_plans(project.spec, project.plan, project.model, project.data)

    def _need(self, name: str, plan: Plan) -> tuple[Estimate, bool]:
        project = self.session.project
        if project.model is None:
            return plan.asked, plan.fits
        return frugal(changed(project.spec, {"method.name": name}), plan, project.model, project.data)

    def _item(self, item: Method, plan: Plan | None, recommended: bool = False) -> MethodItem:
        trained = memory = words.DASH
        fits = True
        if plan is not None:
            need, fits = self._need(item.name, plan)
            trained = words.share(plan.trainable_parameters / plan.total_parameters)
            memory = words.gib_number(need.peak_bytes)
        badge = "" if fits else self.tr("Too big")
        if recommended and fits:
            badge = self.tr("Recommended")
        return MethodItem(
            key=item.name,
            name=item.title,
            schematic=item.drawing,
            sentence=self.tr(item.summary),
            suits=self.tr(item.suits),
            trained=f"{trained} {self.tr('trained')}",
            memory=f"{memory} GiB",
            fits=fits,
            badge=badge,
            badge_kind="recommended" if fits else "bad",
        )

    def _show_about(self, chosen: Method) -> None:
        self.about.set_title(chosen.title)
        self.good.set_texts([self.tr(text) for text in chosen.good])
        self.poor.set_texts([self.tr(text) for text in chosen.poor])
        self.source.setText(chosen.source)

    def _show_memory(self, plans: dict[str, Plan]) -> None:
        device = self.session.project.plan.device if self.session.project.plan else None
        free = self.tr("%1 free on %2")
        self.free.setText(
            free.replace("%1", words.gib(device.free_bytes)).replace("%2", device.name) if device else words.DASH
        )
        for name, strip in self.strips.items():
            strip.setVisible(name in plans)
            if name not in plans:
                self.needs[name].setText(words.DASH)
                self.needs[name].set_tone("t1")
        for name, plan in plans.items():
            need, fits = self._need(name, plan)
            row = memory_row(method(name).title, need, fits)
            self.strips[name].set_row(row, plan.device.free_bytes / GIB, plan.device.total_bytes / GIB)
            self.needs[name].setText(words.gib(need.peak_bytes))
            self.needs[name].set_tone("t1" if fits else "bad")

    def _show_why(self) -> None:
        plan = self.session.project.plan
        if plan is None:
            self.why.setText(self.tr("Advice"))
            waiting = self.tr("Once a model and data are chosen, this says what suits them and this computer.")
            self.reasons.set_lines([(waiting, "info", "t3")])
            return
        title = method(plan.recommended_method).title
        self.why.setText(self.tr("Why %1").replace("%1", title))
        self.reasons.set_texts(plan.reasons)

    def _show_values(self) -> None:
        section, plan = self.session.project.spec.method, self.session.project.plan
        ranks = sorted({*RANK.choices, section.rank})
        options = [(str(rank), str(rank)) for rank in ranks]
        if options != getattr(self, "_ranks", None):
            self._ranks = options
            self.rank.set_options(options)
        self.rank.set_current(str(section.rank))
        resolved = plan.resolved.alpha if plan else 2.0 * section.rank
        with QSignalBlocker(self.alpha), QSignalBlocker(self.dropout), QSignalBlocker(self.targets):
            if not editing(self.alpha):
                self.alpha.setSpecialValueText(self.tr("auto, %1").replace("%1", words.decimal(resolved)))
                self.alpha.setValue(0 if section.alpha == "auto" else section.alpha)
            if not editing(self.dropout):
                self.dropout.setValue(section.dropout)
            self._show_targets(section.target_modules)

    def _show_targets(self, targets: str | tuple[str, ...]) -> None:
        while self.targets.count() > 2:
            self.targets.removeItem(2)
        if isinstance(targets, tuple):
            self.targets.addItem(", ".join(targets), targets)
            self.targets.setCurrentIndex(2)
        else:
            self.targets.setCurrentIndex(self.targets.findData(targets))

    def _show_effects(self, plan: Plan | None) -> None:
        rank = targets = ""
        project = self.session.project
        if plan is not None and project.model is not None:
            section = project.spec.method
            double = min(1024, section.rank * 2)
            more = effect(project.spec, plan, project.model, project.data, {"method.rank": double})
            rank = self.tr("Doubling it adds %1.").replace("%1", _small(more))
            targets = self._targets_effect(plan)
        self.rank_field.set_help(" ".join(filter(None, [self.tr("Room to learn."), rank])) if rank else RANK.help)
        self.targets_field.set_help(targets or self.tr(TARGETS.help))
        self.rank.setToolTip(self.tr(RANK.help))
        self.targets.setToolTip(self.tr(TARGETS.help))

    def _targets_effect(self, plan: Plan) -> str:
        project = self.session.project
        model, chosen = project.model, project.spec.method.target_modules
        if model is None:
            return ""
        layers = sum(count for _, _, count in trained_linears(model, chosen))
        total = sum(item.count for item in model.linears)
        text = self.tr("%1 of %2 layers.").replace("%1", words.count(layers)).replace("%2", words.count(total))
        other = "attention" if chosen == "all-linear" else "all-linear"
        change = effect(project.spec, plan, model, project.data, {"method.target_modules": other})
        less = self.tr("Attention only saves %1 and learns less.")
        more = self.tr("All linear layers learn best, for %1 more.")
        return f"{text} {(less if change <= 0 else more).replace('%1', _small(abs(change)))}"

    def _show_footer(self) -> None:
        project = self.session.project
        settled = step_status(project, "method") == "settled"
        self.footer.set_back(self.tr("Back: Data"))
        self.footer.set_next(self.tr("Next: Fit"), enabled=settled, kind="primary" if settled else "plain")
        if project.model and project.plan:
            trained = project.plan.trainable_parameters
            hint = self.tr("%1 of %2 weights are trained. The adapter will be about %3.")
            if project.spec.task.kind == "classification":
                hint = self.tr("%1 of %2 weights are trained, the new output layer among them. About %3.")
            hint = hint.replace("%1", words.large(trained)).replace("%2", words.large(project.model.parameters))
            self.footer.set_hint(hint.replace("%3", words.file_size(trained * 4)))
        else:
            self.footer.set_hint(self.tr("Memory is known once a model and data are chosen"))


def _small(size: int) -> str:
    """Memory with enough digits to tell a small change from none."""
    return words.gib(size, 1 if abs(size) >= 0.1 * GIB else 2) if abs(size) >= 0.005 * GIB else words.file_size(size)


def _spin(name: str, top: float, step: float, decimals: int) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setObjectName(name)
    box.setProperty("compact", True)
    box.setRange(0, top)
    box.setSingleStep(step)
    box.setDecimals(decimals)
    box.setKeyboardTracking(False)
    box.setFixedWidth(108)
    return box


class _Legend(QWidget):
    """What the two colours of the drawings mean."""

    def __init__(self, trained: str, frozen: str, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 6, 0, 0)
        row.setSpacing(6)
        for token, text in (("accent_fill", trained), ("frozen", frozen)):
            row.addWidget(_Swatch(token))
            row.addWidget(Label(text, "secondary", "t2"))
            row.addSpacing(4)


class _PartsLegend(QWidget):
    """What the colours of the memory strips mean."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 4, 0, 0)
        row.setSpacing(6)
        names = [
            self.tr("Weights"),
            self.tr("Adapter"),
            self.tr("Gradients"),
            self.tr("Optimiser"),
            self.tr("Activations"),
            self.tr("Logits"),
            self.tr("Overhead"),
        ]
        for part, name in zip(MEMORY_PARTS, names, strict=True):
            row.addWidget(_Swatch(part))
            row.addWidget(Label(name, "secondary", "t2"))
            row.addSpacing(6)
        row.addStretch(1)


class _Swatch(QWidget):
    """A square in the colour of a token or of a part of the memory."""

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
        tokens = Theme.of().tokens
        colour = tokens.memory.part(self._token) if self._token in MEMORY_PARTS else tokens.colour(self._token)
        painter.setBrush(QColor(colour))
        painter.drawRoundedRect(QRectF(0, (self.height() - 10) / 2, 10, 10), 2, 2)
