"""The fourth step: does it fit, and what should change?"""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError
from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtGui import QFontMetrics, QIcon
from PySide6.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from tunedesk.core.hardware import GIB, Hardware, choose_device, short_cpu_name
from tunedesk.core.plan import Alternative, Change, Plan
from tunedesk.core.project import Project, step_status
from tunedesk.core.spec import RunSpec
from tunedesk.gui import words
from tunedesk.gui.pages._card_dialog import CardDialog
from tunedesk.gui.pages._parts import SignedList, clear, editing
from tunedesk.gui.pages._plans import effect, estimate_with, memory_row, shrinkable
from tunedesk.gui.pages._settings import SettingsDialog
from tunedesk.gui.pages.base import Page
from tunedesk.gui.session import Session
from tunedesk.gui.theme import Theme, Tone, icon
from tunedesk.gui.widgets import (
    Badge,
    Button,
    Card,
    CardGrid,
    EmptyState,
    Field,
    Label,
    MemoryBar,
    MemoryStrip,
    MemoryTable,
    ProblemItem,
    Rule,
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
        self.columns = TwoColumns(self._build_left(), self._build_others(), right_width=440)
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
        self.changes = self._build_changes()
        self.settled = self._build_settled()
        self.no_gpu = Label("", "secondary", "t2", wrap=True)
        self.no_gpu.setObjectName("noGpu")
        column.setSpacing(10)
        column.addWidget(self.changes, 1)
        column.addWidget(self.settled, 1)
        column.addWidget(self.no_gpu)
        return left

    def _build_changes(self) -> Card:
        self.make_fit = Button(self.tr("Make it fit"), "primary")
        self.make_fit.setObjectName("makeFit")
        self.make_fit.clicked.connect(self._make_fit)
        card = Card(" ", right=self.make_fit, subtitle=" ", padded=False)
        card.setObjectName("changes")
        card.body.setSpacing(0)
        card.body.addSpacing(6)
        self._change_rows = QVBoxLayout()
        self._change_rows.setSpacing(0)
        card.add_layout(self._change_rows)
        card.body.addStretch(1)
        self._changes_shown: object = None
        return card

    def _build_settled(self) -> Card:
        card = Card()
        card.setObjectName("settled")
        row = QHBoxLayout()
        row.setSpacing(8)
        self.badge = Badge(self.tr("Settled"), "ok")
        self.title = Label("", "card")
        self.title.setObjectName("settledTitle")
        row.addWidget(self.badge)
        row.addWidget(self.title, 1)
        card.add_layout(row)
        card.body.addSpacing(4)
        self.lines = SignedList(gap=4)
        self.lines.setObjectName("lines")
        card.add(self.lines)
        card.body.addStretch(1)
        card.add_rule()
        card.add(self._build_fields())
        return card

    def _build_others(self) -> Card:
        self.others = Card(" ", subtitle=" ", padded=False)
        self.others.setObjectName("others")
        self.others.body.setSpacing(0)
        self.others.body.addSpacing(6)
        self._other_rows = QVBoxLayout()
        self._other_rows.setSpacing(0)
        self.others.add_layout(self._other_rows)
        self.others.body.addStretch(1)
        self._others_shown: object = None
        return self.others

    def _build_fields(self) -> CardGrid:
        self.micro = _count_box("micro", 4096)
        self.gather = _count_box("gather", 4096)
        self.length = _count_box("length", 1_048_576, step=64)
        self.recompute = _choice_box("recompute")
        self.precision = _choice_box("precision")
        self.epochs = QDoubleSpinBox()
        self.epochs.setObjectName("epochs")
        self.epochs.setRange(0.1, 1000)
        self.epochs.setDecimals(1)
        self.epochs.setKeyboardTracking(False)
        self.fields = {
            "micro_batch_size": Field(self.tr("Conversations at a time"), self.micro),
            "gradient_accumulation_steps": Field(self.tr("Gather before update"), self.gather),
            "max_length": Field(self.tr("Longest text, tokens"), self.length),
            "gradient_checkpointing": Field(self.tr("Recompute activations"), self.recompute),
            "precision": Field(self.tr("Number format"), self.precision),
            "epochs": Field(self.tr("Passes over the data"), self.epochs),
        }
        for name, field in self.fields.items():
            self._connect(name, field.control)
            field.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)
        grid = CardGrid(min_width=140, gap=12)
        grid.setObjectName("fields")
        grid.set_cards(list(self.fields.values()))
        grid.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        return grid

    def _connect(self, name: str, control: QWidget) -> None:
        if isinstance(control, QSpinBox):
            control.valueChanged.connect(lambda value: self._set(name, value or "auto"))
        elif isinstance(control, QDoubleSpinBox):
            control.valueChanged.connect(lambda value: self._set(name, round(value, 1)))
        elif isinstance(control, QComboBox):
            control.activated.connect(lambda place: self._set(name, control.itemData(place)))

    # Acts.

    def _set(self, name: str, value: object) -> None:
        try:
            self.session.set_training(**{name: value})
        except ValidationError as error:
            self.fields[name].set_error(error.errors()[-1]["msg"].replace("Input should be", "Must be"))
            return
        self.fields[name].set_error("")
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
        self._show_changes(plan)
        self._show_settled(project, plan)
        self._show_others(project, plan)
        self._show_fields(project, plan)

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

    def _show_changes(self, plan: Plan) -> None:
        seen = (plan.changes, plan.asked, plan.suggested)
        if seen == self._changes_shown:
            return
        self._changes_shown = seen
        clear(self._change_rows)
        enough = plan.suggestion_fits
        count = words.several(len(plan.changes), self.tr("change"), self.tr("changes"))
        title = self.tr("Suggested: %1") if enough else self.tr("Closest: %1, still too much")
        self.changes.set_title(title.replace("%1", count), self._kept(plan))
        self.make_fit.setVisible(enough)
        for change in plan.changes:
            self._change_rows.addWidget(Rule())
            self._change_rows.addWidget(self._change_row(change))
        self._change_rows.addWidget(Rule())
        self._change_rows.addWidget(self._total_row(plan))

    def _kept(self, plan: Plan) -> str:
        keys = {change.key for change in plan.changes}
        kept = [self.tr("model"), self.tr("data")]
        if "method.name" not in keys:
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

    def _show_settled(self, project: Project, plan: Plan) -> None:
        resolved = plan.resolved
        at_once = words.several(resolved.micro_batch_size, self.tr("conversation"), self.tr("conversations"))
        title = self.tr("%1 at a time").replace("%1", at_once)
        if resolved.gradient_accumulation_steps > 1:
            times = words.count(resolved.gradient_accumulation_steps)
            title += self.tr(", gathered %1 times").replace("%1", times)
        self.title.setText(title)
        self.lines.set_lines(self._settled_lines(project, plan))

    def _settled_lines(self, project: Project, plan: Plan) -> list[tuple[str, str, Tone]]:
        resolved, training = plan.resolved, project.spec.training
        each = resolved.micro_batch_size * resolved.gradient_accumulation_steps
        steps = self.tr("%1 steps, each after %2 conversations: %3 over the data.")
        passes = words.decimal(training.epochs) + " " + (self.tr("pass") if training.epochs == 1 else self.tr("passes"))
        if training.max_steps is not None:
            passes = self.tr("at most")
            steps = self.tr("%1 steps %3, each after %2 conversations.")
        steps = steps.replace("%1", words.count(resolved.total_steps)).replace("%2", words.count(each))
        lines: list[tuple[str, str, Tone]] = [(steps.replace("%3", passes), "tick", "ok")]
        lines.append((self._check_line(project, plan), "tick", "ok"))
        lines.append((self._rate_line(project, plan), "tick", "ok"))
        return lines

    def _check_line(self, project: Project, plan: Plan) -> str:
        held = project.data.eval_rows if project.data else 0
        if not held:
            return self.tr("Nothing is held out, so the loss on unseen conversations is not known.")
        text = self.tr("Every %1 it is checked on %2 held-out conversations and saved.")
        steps = words.several(plan.resolved.eval_steps, self.tr("step"), self.tr("steps"))
        return text.replace("%1", steps).replace("%2", words.count(held))

    def _rate_line(self, project: Project, plan: Plan) -> str:
        courses = {
            "cosine": self.tr("Learning rate up to %1, then down along a cosine."),
            "linear": self.tr("Learning rate up to %1, then straight down."),
            "constant": self.tr("Learning rate %1 throughout."),
        }
        text = courses[project.spec.training.lr_scheduler]
        return text.replace("%1", words.rate(plan.resolved.learning_rate))

    def _show_others(self, project: Project, plan: Plan) -> None:
        seen = (plan.alternatives, plan.device)
        if seen == self._others_shown:
            return
        self._others_shown = seen
        clear(self._other_rows)
        about = self.tr("These fit too, but each gives something up.")
        if not plan.alternatives:
            about = self.tr("No single change is enough here.")
        self.others.set_title(self.tr("Other ways"), "" if plan.fits else about)
        for place, alternative in enumerate(plan.alternatives):
            self._other_rows.addWidget(Rule())
            self._other_rows.addWidget(self._other_row(place, alternative, project, plan))

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
        use.clicked.connect(lambda: self._use(alternative))
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

    def _show_fields(self, project: Project, plan: Plan) -> None:
        training, resolved = project.spec.training, plan.resolved
        for box, asked, value in (
            (self.micro, training.micro_batch_size, resolved.micro_batch_size),
            (self.gather, training.gradient_accumulation_steps, resolved.gradient_accumulation_steps),
            (self.length, training.max_length, resolved.max_length),
        ):
            if editing(box):
                continue
            with QSignalBlocker(box):
                box.setSpecialValueText(self.tr("auto, %1").replace("%1", words.count(value)))
                box.setValue(0 if asked == "auto" else asked)
        on, off = self.tr("On"), self.tr("Off")
        now = on if resolved.gradient_checkpointing else off
        auto = self.tr("auto, %1")
        options = [("auto", auto.replace("%1", now.lower())), (False, off), (True, on)]
        _fill(self.recompute, options, training.gradient_checkpointing)
        formats: list[tuple[object, str]] = [("auto", auto.replace("%1", resolved.precision))]
        formats += [(name, name) for name in ("bf16", "fp16", "fp32")]
        _fill(self.precision, formats, training.precision)
        if not editing(self.epochs):
            with QSignalBlocker(self.epochs):
                self.epochs.setValue(training.epochs)
        self._show_field_helps(project, plan)

    def _show_field_helps(self, project: Project, plan: Plan) -> None:
        model, resolved = project.model, plan.resolved
        if model is None:
            return

        def change(**settings: object) -> int:
            keyed = {f"training.{name}": value for name, value in settings.items()}
            return effect(project.spec, plan, model, project.data, keyed)

        more = change(micro_batch_size=resolved.micro_batch_size + 1)
        half = change(max_length=max(8, resolved.max_length // 2))
        other = change(gradient_checkpointing=not resolved.gradient_checkpointing)
        saves = self.tr("Saves %1, slower") if not resolved.gradient_checkpointing else self.tr("Off takes %1 more")
        helps = {
            "micro_batch_size": self.tr("%1 for one more").replace("%1", _size(more)),
            "gradient_accumulation_steps": self.tr("No memory, only time"),
            "max_length": self.tr("Half saves %1").replace("%1", _size(-half)),
            "gradient_checkpointing": saves.replace("%1", _size(abs(other))),
            "precision": self._precision_help(plan),
            "epochs": self.tr("%1 steps in all").replace("%1", words.count(resolved.total_steps)),
        }
        for name, text in helps.items():
            self.fields[name].set_help(text)

    def _precision_help(self, plan: Plan) -> str:
        best = "bf16" if plan.device.fast_bf16 else "fp16" if plan.device.kind == "cuda" else "fp32"
        if plan.resolved.precision == best:
            return self.tr("Best this device does")
        return self.tr("%1 is faster here").replace("%1", best)

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


def _size(value: int) -> str:
    return words.gib(value, 1 if abs(value) >= 0.1 * GIB else 2)


def _count_box(name: str, top: int, *, step: int = 1) -> QSpinBox:
    box = QSpinBox()
    box.setObjectName(name)
    box.setRange(0, top)
    box.setSingleStep(step)
    box.setGroupSeparatorShown(True)
    box.setKeyboardTracking(False)
    return box


def _choice_box(name: str) -> QComboBox:
    box = QComboBox()
    box.setObjectName(name)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(6)
    return box


def _fill(box: QComboBox, options: list[tuple[object, str]], current: object) -> None:
    """Show these (value, text) options and choose `current`; unchanged texts stay."""
    if [box.itemText(place) for place in range(box.count())] != [text for _, text in options]:
        box.clear()
        for value, text in options:
            box.addItem(text, value)
    places = [place for place, (value, _) in enumerate(options) if value is current or value == current]
    box.setCurrentIndex(places[0] if places else 0)


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
