"""The acts of the adapter library that need more than a press: import, combine, export."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtGui import QMouseEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLineEdit,
    QScrollArea,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from tunedesk.core.adapters import LONGEST_NAME, Adapter
from tunedesk.core.hardware import disk_free
from tunedesk.gui import adapter_words, words
from tunedesk.gui.adapter_library import AdapterLibrary
from tunedesk.gui.pages._parts import ContentScroll, clear, keep_place
from tunedesk.gui.places import export_folder, file_name
from tunedesk.gui.session import Session
from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets import (
    Button,
    Card,
    CheckItem,
    CheckList,
    ElidedLabel,
    Field,
    Label,
    Rule,
    SlimProgress,
)

MOST_WEIGHT: Final = 2.0
"""Twice what the adapter was trained to do; beyond that the model leaves the words it knows."""
_STEP: Final = 0.05


class WorkLine(QWidget):
    """What the engine does now, and how far it is; it keeps its place while there is nothing to say."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        self.stage = ElidedLabel("", "secondary", "t2")
        self.stage.setObjectName("stage")
        self.bar = SlimProgress()
        self.bar.setObjectName("stageBar")
        self.bar.setAccessibleName(self.tr("Progress"))
        column.addWidget(self.stage)
        column.addWidget(self.bar)
        keep_place(self)
        self.hide()

    def show_work(self, stage: str, done: float | None) -> None:
        """Show a stage; an empty one is none."""
        self.stage.setText(stage)
        self.bar.set_value(done)
        self.setVisible(bool(stage))


class Form(QWidget):
    """One act: its fields, whether they are enough, and the act itself."""

    changed = Signal()
    """A field changed."""
    title = ""
    sentence = ""

    def __init__(self, library: AdapterLibrary, session: Session) -> None:
        super().__init__()
        self.library, self.session = library, session
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(0, 0, 0, 0)
        self.column.setSpacing(12)

    @property
    def working(self) -> bool:
        """Whether the act is under way."""
        raise NotImplementedError  # pragma: no cover

    def missing(self) -> str:
        """What is missing before the act can begin, or an empty text."""
        raise NotImplementedError  # pragma: no cover

    def act_words(self) -> tuple[str, str]:
        """What the button says, before and during the act."""
        raise NotImplementedError  # pragma: no cover

    def act(self) -> None:
        """Begin."""
        raise NotImplementedError  # pragma: no cover

    def cancel(self) -> None:
        """Have the act end."""
        self.library.cancel()

    def refresh(self) -> None:
        """Show how far the act is."""
        raise NotImplementedError  # pragma: no cover

    def begin(self) -> None:
        """The form is shown: put the focus where work begins."""
        raise NotImplementedError  # pragma: no cover

    def _folder_row(self, field: QLineEdit, choose: Button) -> QWidget:
        whole = QWidget()
        row = QHBoxLayout(whole)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(field, 1)
        row.addWidget(choose)
        return whole


def _share(library: AdapterLibrary) -> float | None:
    progress = library.progress
    return progress.done / progress.total if progress and progress.total else None


class ImportForm(Form):
    """A folder with an adapter in PEFT's format, made elsewhere, and what it is to be called."""

    def __init__(self, library: AdapterLibrary, session: Session) -> None:
        super().__init__(library, session)
        self.title = self.tr("Import an adapter")
        self.sentence = self.tr(
            "From a folder in PEFT's format, made for {0} with any program. It is copied and loaded once to see "
            "whether it fits; the folder itself stays as it is."
        ).format(library.base_name)
        self.folder = QLineEdit()
        self.folder.setObjectName("importFolder")
        self.folder.setAccessibleName(self.tr("Folder of the adapter"))
        self.folder.setPlaceholderText(self.tr("The folder that holds adapter_config.json"))
        self.folder.textChanged.connect(self._on_folder)
        self.choose = Button(self.tr("Choose"), icon_name="folder")
        self.choose.setObjectName("chooseImport")
        self.choose.setAccessibleName(self.tr("Choose the folder of the adapter"))
        self.choose.clicked.connect(self.ask_folder)
        self.name = QLineEdit()
        self.name.setObjectName("importName")
        self.name.setMaxLength(LONGEST_NAME)
        self.work = WorkLine()
        card = Card()
        card.body.setSpacing(12)
        row = Field(self.tr("Folder"), self._folder_row(self.folder, self.choose))
        row.label.setBuddy(self.folder)
        card.add(row)
        card.add(Field(self.tr("Name"), self.name, self.tr("What it is called here. Without one, as its folder is.")))
        self.column.addWidget(card)
        self.column.addWidget(self.work)
        self.column.addStretch(1)

    @property
    def working(self) -> bool:
        return self.library.work == "import"

    def missing(self) -> str:
        return "" if self.folder.text().strip() else self.tr("Name the folder first.")

    def act_words(self) -> tuple[str, str]:
        return self.tr("Import"), self.tr("Importing")

    def act(self) -> None:
        source = Path(self.folder.text().strip()).expanduser()
        self.library.take_in(str(source), self.name.text().strip() or None)

    def begin(self) -> None:
        self.folder.setFocus()

    def refresh(self) -> None:
        for widget in (self.folder, self.choose, self.name):
            widget.setEnabled(not self.working)
        self.work.show_work(self.library.stage if self.working else "", _share(self.library))

    def ask_folder(self) -> None:
        """Let the person choose the folder."""
        chosen = QFileDialog.getExistingDirectory(self, self.tr("Folder of the adapter"), self.folder.text())
        if chosen:
            self.folder.setText(chosen)

    def _on_folder(self) -> None:
        self.name.setPlaceholderText(Path(self.folder.text().strip()).name)
        self.changed.emit()


class _Name(ElidedLabel):
    """A name that ticks its box when it is pressed."""

    def __init__(self, name: str, box: QCheckBox) -> None:
        super().__init__(name, "strong")
        self._box = box

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        super().mouseReleaseEvent(event)
        if self._box.isEnabled():
            self._box.click()


class PartRow(QWidget):
    """One adapter that can be part of a sum, and its weight."""

    changed = Signal()
    weighed = Signal()
    """The person set the weight."""

    def __init__(self, adapter: Adapter, reason: str, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.adapter = adapter
        self.setObjectName(f"part_{adapter.id}")
        self.box = QCheckBox()
        self.box.setObjectName("take")
        self.box.setAccessibleName(self.tr("Take {0}").format(adapter.name))
        self.box.setAccessibleDescription(reason)
        self.box.setEnabled(not reason)
        self.box.toggled.connect(self._on_taken)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setObjectName("weightSlider")
        self.slider.setAccessibleName(self.tr("Weight of {0}").format(adapter.name))
        self.slider.setRange(0, round(MOST_WEIGHT / _STEP))
        self.slider.setFixedWidth(Theme.of().px(160))
        self.slider.valueChanged.connect(lambda value: self._set(value * _STEP))
        self.number = QDoubleSpinBox()
        self.number.setObjectName("weight")
        self.number.setAccessibleName(self.slider.accessibleName())
        self.number.setRange(0, MOST_WEIGHT)
        self.number.setSingleStep(_STEP)
        self.number.setDecimals(2)
        self.number.setFixedWidth(Theme.of().px(84))
        self.number.valueChanged.connect(self._set)
        words_column = QVBoxLayout()
        words_column.setSpacing(0)
        name = _Name(adapter.name, self.box)
        name.setObjectName("name")
        name.setEnabled(not reason)
        note = ElidedLabel(reason or adapter_words.in_short(adapter), "secondary", "t2")
        note.setObjectName("note")
        words_column.addWidget(name)
        words_column.addWidget(note)
        row = QHBoxLayout(self)
        row.setContentsMargins(15, 7, 15, 7)
        row.setSpacing(12)
        row.addWidget(self.box)
        row.addLayout(words_column, 1)
        for widget in (self.slider, self.number):
            keep_place(widget)
            widget.hide()
            row.addWidget(widget)

    @property
    def taken(self) -> bool:
        """Whether it is part of the sum."""
        return self.box.isChecked()

    def set_weight(self, weight: float) -> None:
        """Change the weight without a signal."""
        with QSignalBlocker(self.slider), QSignalBlocker(self.number):
            self.slider.setValue(round(weight / _STEP))
            self.number.setValue(weight)

    def _set(self, weight: float) -> None:
        self.set_weight(weight)
        self.weighed.emit()
        self.changed.emit()

    def _on_taken(self, taken: bool) -> None:
        self.slider.setVisible(taken)
        self.number.setVisible(taken)
        self.changed.emit()


class CombineForm(Form):
    """Two or more LoRAs with their weights, and the name of the sum."""

    def __init__(self, library: AdapterLibrary, session: Session) -> None:
        super().__init__(library, session)
        self.title = self.tr("Combine adapters")
        self.sentence = self.tr(
            "Adds up what the adapters change, each by its weight, to one new adapter. It works best when they learned "
            "different things in the same manner. Two that pull the same words apart give a bit of neither: try the "
            "sum before you rely on it."
        )
        self._weighed = False
        self._proposed = ""
        self._shown: tuple[Adapter, ...] = ()
        self.rows: list[PartRow] = []
        self._list = QVBoxLayout()
        content = QWidget()
        content.setLayout(self._list)
        self._list.setContentsMargins(0, 0, 0, 0)
        self._list.setSpacing(0)
        card = Card(padded=False)
        card.setObjectName("parts")
        card.body.setContentsMargins(0, 4, 0, 4)
        card.add(self._scroll(content), 1)
        self.name = QLineEdit()
        self.name.setObjectName("combinedName")
        self.name.setMaxLength(LONGEST_NAME)
        self.name.textChanged.connect(self.changed)
        self.sum = Label("", "secondary", "t2", wrap=True)
        self.sum.setObjectName("sum")
        self.work = WorkLine()
        self.column.addWidget(card, 1)
        self.column.addWidget(self.sum)
        self.column.addWidget(Field(self.tr("Name of the new adapter"), self.name))
        self.column.addWidget(self.work)

    @staticmethod
    def _scroll(content: QWidget) -> QScrollArea:
        area = QScrollArea()
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setWidgetResizable(True)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setMinimumHeight(Theme.of().px(140))
        area.setWidget(content)
        return area

    @property
    def working(self) -> bool:
        return self.library.work == "combine"

    def taken(self) -> list[PartRow]:
        """The rows that are part of the sum."""
        return [row for row in self.rows if row.taken]

    def missing(self) -> str:
        if len(self.taken()) < 2:
            return self.tr("Tick two or more.")
        if not all(row.number.value() for row in self.taken()):
            return self.tr("A weight of 0 leaves an adapter out: untick it.")
        return "" if self.name.text().strip() else self.tr("Give the new adapter a name.")

    def act_words(self) -> tuple[str, str]:
        return self.tr("Combine"), self.tr("Combining")

    def act(self) -> None:
        rows = self.taken()
        adapters = tuple(row.adapter for row in rows)
        weights = tuple(round(row.number.value(), 2) for row in rows)
        self.library.combine(adapters, weights, self.name.text().strip())

    def begin(self) -> None:
        self._fill()
        first = next((row.box for row in self.rows if row.box.isEnabled()), None)
        (first or self.name).setFocus()

    def _fill(self) -> None:
        """Show the adapters of the moment; what was ticked before stays while they are the same."""
        if self._shown == self.library.adapters:
            return
        self._shown, self._weighed = self.library.adapters, False
        clear(self._list)
        self.rows = []
        for adapter in self._shown:
            if self.rows:
                self._list.addWidget(Rule())
            row = PartRow(adapter, adapter_words.why_not_combined(adapter))
            row.changed.connect(self._on_row)
            row.weighed.connect(self._on_weighed)
            row.box.toggled.connect(self._share_out)
            self._list.addWidget(row)
            self.rows.append(row)
        self._list.addStretch(1)
        self._on_row()

    def take(self, adapters: tuple[Adapter, ...]) -> None:
        """Tick these adapters."""
        for row in self.rows:
            if row.adapter in adapters and row.box.isEnabled():
                row.box.setChecked(True)

    def _on_weighed(self) -> None:
        self._weighed = True

    def _share_out(self) -> None:
        """Equal weights that add up to 1, until the person sets one."""
        rows = self.taken()
        if not self._weighed:
            for row in rows:
                row.set_weight(round(1 / len(rows), 2))
        else:
            for row in rows:
                if not row.number.value():
                    row.set_weight(0.5)
        self._on_row()

    def _on_row(self) -> None:
        rows = self.taken()
        parts = [f"{words.number(row.number.value(), 2)} × {row.adapter.name}" for row in rows]
        self.sum.setText(" + ".join(parts) if parts else self.tr("Nothing is ticked yet."))
        proposed = " + ".join(row.adapter.name for row in rows)[:LONGEST_NAME] if len(rows) > 1 else ""
        if self.name.text() == self._proposed:
            self.name.setText(proposed)
        self._proposed = proposed
        self.changed.emit()

    def refresh(self) -> None:
        for widget in (*self.rows, self.name):
            widget.setEnabled(not self.working)
        self.work.show_work(self.library.stage if self.working else "", _share(self.library))


class ExportForm(Form):
    """A folder that takes one adapter, and the checks that it passes."""

    def __init__(self, library: AdapterLibrary, session: Session) -> None:
        super().__init__(library, session)
        self.exporter = library.exporter
        self.adapter: Adapter | None = None
        self.sentence = self.tr("It takes its place only when it was read back and every check has passed.")
        self.place = QLineEdit()
        self.place.setObjectName("exportPlace")
        self.place.setAccessibleName(self.tr("Folder to save to"))
        self.place.textChanged.connect(self._show_room)
        self.choose = Button(self.tr("Choose"), icon_name="folder")
        self.choose.setObjectName("chooseExport")
        self.choose.setAccessibleName(self.tr("Choose the folder to save to"))
        self.choose.clicked.connect(self.ask_folder)
        self.place_field = Field(self.tr("Save to"), self._folder_row(self.place, self.choose))
        self.place_field.label.setBuddy(self.place)
        self.checks = CheckList()
        self.checks.setObjectName("exportChecks")
        self.nothing = Label(
            self.tr("Not saved yet. The weights, the settings and the answers are compared after writing."),
            "body",
            "t2",
            wrap=True,
        )
        self.nothing.setObjectName("nothingSaved")
        content = QWidget()
        inside = QVBoxLayout(content)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.setSpacing(0)
        self.nothing.setContentsMargins(15, 12, 15, 12)
        inside.addWidget(self.nothing)
        inside.addWidget(self.checks, 1)
        card = Card(padded=False)
        card.add(ContentScroll(content, at_least=Theme.of().px(180)), 1)
        self.column.addWidget(self.place_field)
        self.column.addWidget(card, 1)

    def take(self, adapter: Adapter) -> None:
        """Offer to save `adapter`."""
        if self.exporter.status != "running":
            self.exporter.reset()
        self.adapter = adapter
        self.title = self.tr("Export {0}").format(adapter.name)
        self.place.setText(str(export_folder(self.session.settings) / f"{file_name(adapter.name)}-adapter"))

    @property
    def status(self) -> Literal["idle", "running", "done", "failed"]:
        """How the export stands."""
        return self.exporter.status

    @property
    def working(self) -> bool:
        return self.exporter.status == "running"

    def missing(self) -> str:
        return "" if self.place.text().strip() else self.tr("Name the folder first.")

    def act_words(self) -> tuple[str, str]:
        return self.tr("Save adapter"), self.tr("Saving")

    def act(self) -> None:
        self.save()

    def save(self, *, replace: bool = False) -> None:
        """Save it to the folder that is named."""
        if self.adapter is None:
            return
        target = Path(self.place.text().strip()).expanduser()
        if self.adapter.origin == "run":
            self.exporter.start(self.adapter.path.parent, target, replace=replace)
        else:
            self.exporter.start_adapter(self.adapter.path, target, replace=replace)

    def cancel(self) -> None:
        self.exporter.cancel()

    def begin(self) -> None:
        self.place.setFocus()

    def ask_folder(self) -> None:
        """Let the person choose the folder that takes the result."""
        now = Path(self.place.text() or ".").expanduser()
        chosen = QFileDialog.getExistingDirectory(self, self.tr("Folder that takes the result"), str(now.parent))
        if chosen:
            self.place.setText(str(Path(chosen) / now.name))
            self.session.change_settings(export_folder=chosen)

    def _show_room(self) -> None:
        free = words.file_size(disk_free(Path(self.place.text() or ".").expanduser().absolute()))
        self.place_field.set_help(self.tr("{0} free. An older folder is replaced only if you say so.").format(free))
        self.changed.emit()

    def refresh(self) -> None:
        for widget in (self.place, self.choose):
            widget.setEnabled(not self.working)
        items = [
            CheckItem(file_name(check.name), "ok" if check.passed else "bad", check.name, check.detail)
            for check in self.exporter.checks
        ]
        if self.working:
            items.append(CheckItem("now", "running", self.exporter.stage or self.tr("Starting")))
        if self.exporter.exported is not None and self.status == "done":
            done = self.exporter.exported
            items.append(CheckItem("sha256", "info", "SHA-256", done.sha256))
        self.checks.set_items(items)
        self.nothing.setVisible(not items)
