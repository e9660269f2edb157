"""The fourth step: does it fit, and what should change?"""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError
from PySide6.QtCore import Qt
from PySide6.QtGui import QFontMetrics, QIcon
from PySide6.QtWidgets import (
    QComboBox,
    QGridLayout,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from tunedesk.core.hardware import GIB, Hardware, choose_device, short_cpu_name
from tunedesk.core.plan import Alternative, Plan
from tunedesk.core.project import Project, step_status
from tunedesk.core.spec import RunSpec
from tunedesk.gui import words
from tunedesk.gui.pages._card_dialog import CardDialog
from tunedesk.gui.pages._fit_plans import ChangesCard, OthersCard
from tunedesk.gui.pages._fit_settled import SettledCard
from tunedesk.gui.pages._plans import memory_row, shrinkable
from tunedesk.gui.pages._settings import SettingsDialog
from tunedesk.gui.pages.base import Page
from tunedesk.gui.session import Session
from tunedesk.gui.theme import Theme, icon
from tunedesk.gui.widgets import (
    Button,
    Card,
    EmptyState,
    Label,
    MemoryBar,
    MemoryTable,
    ProblemItem,
    Skeleton,
    TwoColumns,
)

OTHER: Final = "other"
SPARE: Final = int(0.5 * GIB)
"""With less than this between the upper end of the band and what is free, it is called tight."""


class FitPage(Page):
    """Memory of the run before anything starts, and what to change when it is too much."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, "fit", "")
        self.header.set_title(self.tr("Does it fit?"))
        self.header.set_subtitle(self.tr("Memory at the busiest moment of one step."))
        self._undo: RunSpec | None = None
        self._undo_text = ""
        self._build_header()
        self.empty = EmptyState("gauge", "")
        self.empty.setObjectName("empty")
        self.empty_button = Button("", "primary")
        self.empty_button.setObjectName("emptyGo")
        self.empty_button.clicked.connect(self._go_to_missing)
        self.empty.add_button(self.empty_button)
        self.loading = Card(self.tr("Reading"))
        self.skeleton = Skeleton(6)
        self.loading.add(self.skeleton)
        self.loading.body.addStretch(1)
        self.memory = self._build_memory()
        self.others = OthersCard()
        self.others.used.connect(self._use)
        self.columns = TwoColumns(self._build_left(), self.others, right_width=440)
        for widget, stretch in (
            (self.empty, 1),
            (self.loading, 1),
            (self.memory, 0),
            (self.columns, 1),
        ):
            self.body.addWidget(widget, stretch)
        self.all_settings = Button(self.tr("All settings"), "quiet")
        self.all_settings.setObjectName("allSettings")
        self.all_settings.clicked.connect(self.open_settings)
        self.footer.add_left(self.all_settings)
        self.problems.action_chosen.connect(self._on_action)

    # Building.

    def _build_header(self) -> None:
        self.device = QComboBox()
        self.device.setObjectName("device")
        self.device.setAccessibleName(self.tr("Device to plan for"))
        self.device.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.device.setFixedWidth(Theme.of().px(296))
        self._devices: list[tuple[str, str]] = []
        self.device.activated.connect(self._on_device)
        self.again = Button(self.tr("Measure again"), "plain", icon_name="refresh")
        self.again.setObjectName("again")
        self.again.clicked.connect(self._measure)
        self.header.add_action(self.device)
        self.header.add_action(self.again)

    def _build_memory(self) -> Card:
        card = Card()
        card.setObjectName("memory")
        self.bar = MemoryBar()
        self.bar.setObjectName("bar")
        self.table = MemoryTable()
        self.table.setObjectName("table")
        card.add(self.bar)
        card.add_rule()
        card.add(self.table)
        card.add_rule()
        card.add(self._build_hardware())
        card.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        return card

    def _build_hardware(self) -> QWidget:
        frame = QWidget()
        frame.setObjectName("hardware")
        self._hardware = QGridLayout(frame)
        self._hardware.setContentsMargins(0, 0, 0, 0)
        self._hardware.setHorizontalSpacing(24)
        self._hardware.setVerticalSpacing(0)
        names = {
            "gpu": self.tr("Graphics card"),
            "memory": self.tr("System memory"),
            "disk": self.tr("Disk for runs"),
            "cpu": self.tr("Processor"),
        }
        self.facts: dict[str, Label] = {}
        for place, (key, name) in enumerate(names.items()):
            value = Label(words.DASH, "secondary", "t1", wrap=True, selectable=True)
            value.setObjectName(f"fact_{key}")
            self.facts[key] = value
            self._hardware.addWidget(Label(name, "secondary", "t2"), 0, place)
            self._hardware.addWidget(value, 1, place, Qt.AlignmentFlag.AlignTop)
            self._hardware.setColumnStretch(place, 3 if key in ("gpu", "cpu") else 2)
        return frame

    def _build_left(self) -> QWidget:
        left = QWidget()
        column = QVBoxLayout(left)
        column.setContentsMargins(0, 0, 0, 0)
        self.changes = ChangesCard()
        self.changes.make_fit.clicked.connect(self._make_fit)
        self.settled = SettledCard()
        self.settled.changed.connect(self._set)
        self.no_gpu = Label("", "secondary", "t2", wrap=True)
        self.no_gpu.setObjectName("noGpu")
        column.setSpacing(10)
        column.addWidget(self.changes, 1)
        column.addWidget(self.settled, 1)
        column.addWidget(self.no_gpu)
        return left

    # Acts.

    def _set(self, name: str, value: object) -> None:
        try:
            self.session.set_training(**{name: value})
        except ValidationError as error:
            self.settled.fields[name].set_error(error.errors()[-1]["msg"].replace("Input should be", "Must be"))
            return
        self.settled.fields[name].set_error("")
        self.refresh()

    def _make_fit(self) -> None:
        plan = self.session.project.plan
        if plan is not None:
            self._apply(plan.settings, self.tr("Was %1 before.").replace("%1", words.gib(plan.asked.peak_bytes)))

    def _use(self, alternative: Alternative) -> None:
        plan = self.session.project.plan
        before = words.gib(plan.asked.peak_bytes) if plan else words.DASH
        self._apply(alternative.settings, self.tr("Was %1 before.").replace("%1", before))

    def _apply(self, settings: dict[str, int | float | bool | str], text: str) -> None:
        self._undo, self._undo_text = self.session.project.spec, text
        self.session.apply(settings)
        self.refresh()

    def _take_back(self) -> None:
        spec, self._undo = self._undo, None
        if spec is not None:
            self.session.set_spec(spec)
            self.refresh()

    def _measure(self) -> None:
        self.session.read_hardware()
        self.session.replan()
        self.refresh()

    def _on_device(self, place: int) -> None:
        key = self._devices[place][0]
        if key != OTHER:
            self.session.choose_device(key)
            return
        self._show_devices()
        self.ask_for_card()

    def ask_for_card(self) -> None:
        """Ask for a card that is not in this computer, to plan for it."""
        dialog = CardDialog(self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.accepted.connect(lambda: self.session.choose_device(dialog.wanted()))
        dialog.open()

    def open_settings(self) -> None:
        """Open the dialog with every setting."""
        dialog = SettingsDialog(self.session, self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def _on_action(self, index: int, key: str) -> None:  # noqa: ARG002
        match key:
            case "undo":
                self._take_back()
            case "model" | "method":
                self.go.emit(key)
            case "auto":
                self.session.choose_device("auto")
            case _:
                pass

    def _go_to_missing(self) -> None:
        self.go.emit("data" if self.session.project.model else "model")

    # Showing.

    def refresh(self) -> None:
        project = self.session.project
        plan = project.plan
        busy = self.session.model_activity is not None and plan is None
        self.empty.setVisible(plan is None and not busy)
        self.loading.setVisible(busy)
        for widget in (self.memory, self.columns):
            widget.setVisible(plan is not None)
        self.again.setEnabled(project.model is not None)
        self._show_devices()
        self._show_footer(project)
        if plan is None:
            self._show_empty(project)
            return
        if self._undo and (self._undo.model, self._undo.data) != (project.spec.model, project.spec.data):
            self._undo = None
        self._show_verdict(plan)
        self._show_memory(plan)
        self._show_hardware(self.session.hardware)
        self.changes.setVisible(not plan.fits)
        self.settled.setVisible(plan.fits)
        self.changes.show_plan(plan)
        self.settled.show_plan(project, plan)
        self.others.show_plan(project, plan)

    def _show_empty(self, project: Project) -> None:
        self.problems.clear()
        if project.model is None:
            self.empty.set_text(self.tr("Its memory can be told once there is a model."), self.tr("No model yet"))
            self.empty_button.setText(self.tr("Choose a model"))
        else:
            self.empty.set_text(self.tr("Its memory can be told once there is data."), self.tr("No data yet"))
            self.empty_button.setText(self.tr("Choose data"))

    def _show_devices(self) -> None:
        devices = self._device_list()
        if devices != self._devices:
            self._devices = devices
            self.device.clear()
            for _, text in devices:
                self._add_device(text)
        chosen = self.session.device_choice
        keys = [key for key, _ in devices]
        self.device.setCurrentIndex(keys.index(chosen) if chosen in keys else 0)

    def _add_device(self, text: str) -> None:
        metrics = QFontMetrics(Theme.of().font("body"))
        room = self.device.width() - 96
        short = text if metrics.horizontalAdvance(text) <= room else text.partition(", ")[0]
        shown = metrics.elidedText(short, Qt.TextElideMode.ElideRight, room)
        self.device.addItem(QIcon() if text.endswith("…") else icon("cpu"), shown)
        self.device.setItemData(self.device.count() - 1, text, Qt.ItemDataRole.ToolTipRole)

    def _device_list(self) -> list[tuple[str, str]]:
        hardware = self.session.hardware
        here = self.tr("%1, this computer")
        found = []
        if hardware is not None:
            found.append(("auto", here.replace("%1", short_cpu_name(choose_device(hardware).name))))
            if hardware.gpus:
                found.append(("cpu", here.replace("%1", short_cpu_name(choose_device(hardware, "cpu").name))))
        else:
            found.append(("auto", self.tr("This computer")))
        chosen = self.session.device_choice
        if ":" in chosen:
            name, _, size = chosen.rpartition(":")
            text = self.tr("%1, %2, not here").replace("%1", name).replace("%2", size.replace("GiB", " GiB"))
            found.append((chosen, text))
        return [*found, (OTHER, self.tr("Another card…"))]

    def _show_verdict(self, plan: Plan) -> None:
        aside = self.tr("First estimate from the model's dimensions")
        if plan.fits:
            item = self._good_verdict(plan, aside)
        elif plan.suggestion_fits:
            item = ProblemItem("warn", self._needs(plan), self._shrink_text(plan), (), aside)
        else:
            text = self.tr("No change of settings is enough on this device. A smaller model, or a larger card, is.")
            actions = (("model", self.tr("Choose another model")),)
            item = ProblemItem("bad", self._needs(plan), text, actions, aside)
        self.problems.set_problems([item])

    def _good_verdict(self, plan: Plan, aside: str) -> ProblemItem:
        headline = self.tr("Fits: needs about %1, and %2 is free.")
        headline = headline.replace("%1", words.gib(plan.asked.peak_bytes))
        headline = headline.replace("%2", words.gib(plan.device.free_bytes))
        spare = plan.device.free_bytes - plan.asked.high_bytes
        text = self.tr("At least %1 to spare.").replace("%1", words.gib(spare))
        if spare < SPARE:
            text = self.tr("It is tight: close other programs meanwhile.")
        actions: tuple[tuple[str, str], ...] = ()
        if self._undo is not None:
            text, actions = f"{text} {self._undo_text}", (("undo", self.tr("Undo")),)
        return ProblemItem("ok", headline, text, actions, aside)

    def _needs(self, plan: Plan) -> str:
        text = self.tr("Needs about %1, and %2 is free.")
        need = words.gib(plan.asked.peak_bytes)
        if plan.asked.peak_bytes <= plan.device.free_bytes:
            text = self.tr("May need up to %1, and %2 is free.")
            need = words.gib(plan.asked.high_bytes)
        return text.replace("%1", need).replace("%2", words.gib(plan.device.free_bytes))

    def _shrink_text(self, plan: Plan) -> str:
        names = {
            "activations": self.tr("activations"),
            "logits": self.tr("logits"),
            "weights": self.tr("model weights"),
        }
        parts = [f"{names[name]} ({words.gib(size)})" for name, size in shrinkable(plan)]
        text = words.listed(parts)
        return self.tr("%1 can shrink.").replace("%1", text[:1].upper() + text[1:]) if text else ""

    def _show_memory(self, plan: Plan) -> None:
        if plan.fits:
            rows = [memory_row(self.tr("This run"), plan.asked, True)]
        else:
            rows = [
                memory_row(self.tr("As you asked"), plan.asked, False),
                memory_row(self.tr("Suggested"), plan.suggested, plan.suggestion_fits),
            ]
        used = plan.device.total_bytes - plan.device.free_bytes
        note = self.tr("%1 in use").replace("%1", words.gib_number(used))
        if not plan.device.owned:
            note = self.tr("%1 kept for the screen").replace("%1", words.gib_number(used))
        self.bar.set_rows(
            rows,
            plan.device.free_bytes / GIB,
            plan.device.total_bytes / GIB,
            note=note,
            total_name="" if plan.device.kind == "cuda" else self.tr("Memory"),
        )
        self.table.set_rows(rows)

    def _show_hardware(self, hardware: Hardware | None) -> None:
        if hardware is None:
            return
        of = self.tr("%1 of %2 GiB free")
        cards = [
            f"{gpu.name.removeprefix('NVIDIA ')}, "
            + of.replace("%1", words.gib_number(gpu.free_bytes)).replace("%2", words.gib_number(gpu.total_bytes))
            for gpu in hardware.gpus
        ]
        cores = words.several(hardware.physical_cores, self.tr("core"), self.tr("cores"))
        bf16 = self.tr("fast in bf16") if hardware.fast_bf16 else self.tr("no fast bf16")
        values = {
            "gpu": "\n".join(cards) or self.tr("None to train on"),
            "memory": of.replace("%1", words.gib_number(hardware.memory_free)).replace(
                "%2", words.gib_number(hardware.memory_total)
            ),
            "disk": self.tr("%1 free").replace("%1", words.file_size(hardware.disk_free)),
            "cpu": f"{short_cpu_name(hardware.cpu)}, {cores}, {bf16}",
        }
        for key, value in values.items():
            self.facts[key].setText(value)
        self._show_no_gpu(hardware)

    def _show_no_gpu(self, hardware: Hardware) -> None:
        meaning = self.tr("Training runs on the processor. Fine for small models.")
        self.no_gpu.setVisible(not hardware.gpus)
        self.no_gpu.setText(f"{hardware.gpu_note} {meaning}".strip())

    def _show_footer(self, project: Project) -> None:
        settled = step_status(project, "fit") == "settled"
        self.footer.set_back(self.tr("Back: Method"))
        self.footer.set_next(self.tr("Next: Train"), enabled=settled, kind="primary" if settled else "plain")
        if settled:
            self.footer.set_hint(self._time_hint(project), "circle-check")
        elif project.plan is None:
            self.footer.set_hint(self.tr("Choose a model and data first"))
        else:
            self.footer.set_hint(self.tr("Settle the memory first"))

    def _time_hint(self, project: Project) -> str:
        seconds = project.plan.seconds_per_epoch if project.plan else None
        if seconds is None:
            return self.tr("Everything is settled. The first steps will show how long it takes.")
        about = words.duration(seconds * project.spec.training.epochs)
        return self.tr("Everything is settled. Training takes about %1.").replace("%1", about)
