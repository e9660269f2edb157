"""The adapter library: every adapter of the chosen base, and what can be done with one."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, QTimer, QUrl, Signal
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QStackedWidget, QVBoxLayout, QWidget

from tunedesk.core.adapters import Adapter
from tunedesk.core.problems import Problem
from tunedesk.gui import adapter_words, words
from tunedesk.gui.adapter_library import AdapterLibrary
from tunedesk.gui.dialogs._adapter_forms import CombineForm, ExportForm, Form, ImportForm
from tunedesk.gui.dialogs._adapter_table import AdapterTable
from tunedesk.gui.dialogs.base import Dialog
from tunedesk.gui.session import Session
from tunedesk.gui.widgets import Button, Card, EmptyState, ProblemBar, ProblemItem, Skeleton
from tunedesk.gui.words import problem_item

SEARCH_FROM = 8
"""So many adapters are searched; fewer are seen at a glance."""
LIST, IMPORT, COMBINE, EXPORT = range(4)
READING, NOTHING, TABLE = range(3)


class AdaptersDialog(Dialog):
    """A list with its acts; importing, combining and exporting take its place and lead back to it."""

    try_asked = Signal(object)
    """An adapter is to answer on the Try page."""

    def __init__(self, library: AdapterLibrary, session: Session, *, parent: QWidget | None = None) -> None:
        super().__init__("adaptersDialog", "", parent=parent)
        self._library, self._session = library, session
        self._asked_delete: Adapter | None = None
        self._told: ProblemItem | None = None
        self._was_working = False
        self.problems = ProblemBar()
        self.problems.setObjectName("problems")
        self.problems.action_chosen.connect(self._on_action)
        self.body.addWidget(self.problems)
        self.stack = QStackedWidget()
        self.stack.setObjectName("views")
        self.import_form = ImportForm(library, session)
        self.combine_form = CombineForm(library, session)
        self.export_form = ExportForm(library, session)
        self.stack.addWidget(self._build_list())
        for form in self._forms():
            form.changed.connect(self._show_foot)
            self.stack.addWidget(form)
        self.body.addWidget(self.stack, 1)
        self._build_foot()
        library.changed.connect(self.refresh)
        library.exporter.changed.connect(self.refresh)
        library.added.connect(self._on_added)
        library.renamed.connect(self._on_renamed)
        library.deleted.connect(self._on_deleted)
        library.forget_problems()
        library.read()
        self.resize(860, 560)
        self._go(LIST)

    # Building.

    def _forms(self) -> tuple[ImportForm, CombineForm, ExportForm]:
        return self.import_form, self.combine_form, self.export_form

    def _build_list(self) -> QWidget:
        whole = QWidget()
        column = QVBoxLayout(whole)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(12)
        column.addLayout(self._build_head())
        self.table = AdapterTable()
        self.table.chosen.connect(self._show_foot)
        self.table.try_asked.connect(self._try)
        self.table.renamed.connect(self._library.rename)
        card = Card(padded=False)
        card.setObjectName("tableCard")
        card.body.setContentsMargins(4, 4, 4, 4)
        card.add(self.table, 1)
        reading = Card()
        reading.add(Skeleton(4))
        reading.body.addStretch(1)
        self.empty = EmptyState("layers", "", title=self.tr("No adapter yet"))
        self.empty.setObjectName("emptyLibrary")
        self.states = QStackedWidget()
        self.states.setObjectName("states")
        for state in (reading, self.empty, card):
            self.states.addWidget(state)
        column.addWidget(self.states, 1)
        column.addLayout(self._build_acts())
        return whole

    def _build_head(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(8)
        self.search = QLineEdit()
        self.search.setObjectName("search")
        self.search.setAccessibleName(self.tr("Search the adapters"))
        self.search.setPlaceholderText(self.tr("Search"))
        self.search.setClearButtonEnabled(True)
        self.search.setMaximumWidth(280)
        self.search.textChanged.connect(self._on_search)
        row.addWidget(self.search, 1)
        row.addStretch(1)
        self.import_button = self._button(self.tr("Import…"), "import", "download")
        self.import_button.clicked.connect(lambda: self._go(IMPORT))
        self.combine_button = self._button(self.tr("Combine…"), "combine", "plus")
        self.combine_button.clicked.connect(self._combine)
        row.addWidget(self.import_button)
        row.addWidget(self.combine_button)
        return row

    def _build_acts(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(8)
        self.rename_button = self._button(self.tr("Rename"), "rename", "pencil")
        self.rename_button.clicked.connect(self.table.rename)
        self.export_button = self._button(self.tr("Export…"), "export", "package")
        self.export_button.clicked.connect(self._export)
        self.delete_button = self._button(self.tr("Delete…"), "delete", "trash")
        self.delete_button.clicked.connect(self._ask_delete)
        for button in (self.rename_button, self.export_button, self.delete_button):
            row.addWidget(button)
        row.addStretch(1)
        return row

    @staticmethod
    def _button(text: str, name: str, icon_name: str) -> Button:
        button = Button(text, icon_name=icon_name)
        button.setObjectName(name)
        button.setAccessibleName(text)
        return button

    def _build_foot(self) -> None:
        self.back_button = self.add_button(Button(self.tr("Back"), "quiet"), "back")
        self.back_button.clicked.connect(self._back)
        self.close_button = self.add_button(Button(self.tr("Close")), "close")
        self.close_button.clicked.connect(self.reject)
        self.act_button = self.add_button(Button("", "primary"), "act")
        self.act_button.clicked.connect(self._act)

    # Showing.

    @property
    def form(self) -> Form | None:
        """The act that is shown in the place of the list."""
        place = self.stack.currentIndex()
        return self._forms()[place - 1] if place != LIST else None

    def _go(self, place: int) -> None:
        self._asked_delete = self._told = None
        self._library.forget_problems()
        self.stack.setCurrentIndex(place)
        form = self.form
        if form is not None:
            form.begin()
        self.refresh()
        if form is None:
            self._focus_list()

    def _focus_list(self) -> None:
        if self.states.currentIndex() == TABLE:
            self.table.setFocus()
        else:
            self.import_button.setFocus()

    def refresh(self) -> None:
        """Show the list, the work and the problems as they are now."""
        form = self.form
        name = self._library.base_name
        title = form.title if form else self.tr("Adapters of {0}").format(name)
        self.setWindowTitle(title)
        self.setAccessibleName(title)
        self.title_label.setText(title)
        about = self.tr("Each lies beside the same original, so Try changes from one to another in a moment.")
        self.sentence.setText(form.sentence if form else about)
        self.sentence.show()
        if form:
            form.refresh()
        self._show_list(name)
        self._show_problems()
        self._show_foot()

    def _show_list(self, name: str) -> None:
        adapters = self._library.adapters
        state = TABLE if adapters else NOTHING if self._library.loaded else READING
        if list(adapters) != self.table.everything():
            self.table.show_adapters(adapters)
        if self.states.currentIndex() != state:
            self.states.setCurrentIndex(state)
            if self.form is None and self.isVisible():
                self._focus_list()
        text = self.tr("A finished run of {0} adds its adapter here; one that was made elsewhere can be imported.")
        self.empty.set_text(text.format(name), self.tr("No adapter yet"))
        self.search.setVisible(len(adapters) >= SEARCH_FROM or bool(self.search.text()))

    def _show_problems(self) -> None:
        exporter = self._library.exporter
        problems = list(self._library.problems)
        if self.form is self.export_form and exporter.status == "failed":
            problems += exporter.problems
        items = [problem_item(item, self._actions(item)) for item in problems]
        if self._asked_delete is not None and not problems:
            items.append(self._delete_item(self._asked_delete))
        if self._told is not None and not items:
            items.append(self._told)
        if self.form is self.export_form and exporter.status == "done" and exporter.exported:
            items.append(self._exported_item(exporter.exported.path))
        self.problems.set_problems(items)

    def _actions(self, problem: Problem) -> tuple[tuple[str, str], ...]:
        if self.form is self.export_form and problem.code == "export.not_empty":
            return (("replace", self.tr("Replace it")), ("choose", self.tr("Choose another folder")))
        if self.form in (self.import_form, self.export_form):
            return (("choose", self.tr("Choose another folder")),)
        return ()

    def _delete_item(self, adapter: Adapter) -> ProblemItem:
        size = words.file_size(adapter.bytes)
        stays = {
            "run": self.tr("Only the adapter of this run goes ({0}). Its checkpoints, its record and its report stay."),
            "imported": self.tr("Its copy in the library goes ({0}). The folder that it came from stays."),
            "combined": self.tr("The sum goes ({0}). The adapters that it was made of stay."),
        }
        actions = (("keep", self.tr("Keep it")), ("delete", self.tr("Delete it")))
        headline = self.tr("Delete {0}?").format(adapter.name)
        return ProblemItem("warn", headline, stays[adapter.origin].format(size), actions)

    def _exported_item(self, path: str) -> ProblemItem:
        text = self.tr("Every check passed. It lies in {0}.").format(path)
        return ProblemItem("ok", self.tr("Saved and checked."), text, (("folder", self.tr("Show in folder")),))

    def _show_foot(self) -> None:
        form, adapter, idle = self.form, self.table.adapter(), not self._library.work
        for button in (self.rename_button, self.export_button, self.delete_button):
            button.setEnabled(adapter is not None and idle)
        self.import_button.setEnabled(idle)
        self._show_combine()
        self.back_button.setVisible(form is not None)
        self.close_button.setVisible(form is None)
        if form is None:
            self._set_act(self.tr("Try it"), enabled=adapter is not None, reason="")
            return
        self.back_button.setText(self.tr("Cancel") if form.working else self.tr("Back"))
        self.back_button.setAccessibleName(self.back_button.text())
        before, during = form.act_words()
        missing = form.missing()
        self._set_act(during if form.working else before, enabled=not form.working and not missing, reason=missing)
        self.act_button.set_busy(form.working)
        if self._was_working and not form.working and self.act_button.isEnabled():
            self.act_button.setFocus()
        self._was_working = form.working

    def _set_act(self, text: str, *, enabled: bool, reason: str) -> None:
        self.act_button.set_busy(False)
        self.act_button.setText(text)
        self.act_button.setAccessibleName(text)
        self.act_button.setAccessibleDescription(reason)
        self.act_button.setToolTip(reason)
        self.act_button.setEnabled(enabled)

    def _show_combine(self) -> None:
        able = [item for item in self._library.adapters if not adapter_words.why_not_combined(item)]
        reason = "" if len(able) > 1 else self.tr("Needs two LoRA adapters of this model; adding up is made for LoRA.")
        self.combine_button.setEnabled(not reason and not self._library.work)
        self.combine_button.setToolTip(reason)
        self.combine_button.setAccessibleDescription(reason)

    # Acting.

    def _on_search(self, text: str) -> None:
        self.table.search(text)

    def _try(self) -> None:
        adapter = self.table.adapter()
        if adapter is not None:
            self.try_asked.emit(adapter)
            self.accept()

    def _act(self) -> None:
        if self.form is None:
            self._try()
        else:
            self._told = None
            self.form.act()

    def _back(self) -> None:
        form = self.form
        if form is not None and form.working:
            form.cancel()
        else:
            self._go(LIST)

    def _combine(self) -> None:
        adapter = self.table.adapter()
        self._go(COMBINE)
        if adapter is not None:
            self.combine_form.take((adapter,))

    def _export(self) -> None:
        adapter = self.table.adapter()
        if adapter is not None:
            self.export_form.take(adapter)
            self._go(EXPORT)

    def _ask_delete(self) -> None:
        self._library.forget_problems()
        self._told, self._asked_delete = None, self.table.adapter()
        self._show_problems()
        keep = self.problems.findChild(Button, "action_keep")
        if keep is not None:
            keep.setFocus(Qt.FocusReason.TabFocusReason)

    def _on_action(self, index: int, key: str) -> None:  # noqa: ARG002
        match key:
            case "delete" | "keep":
                adapter, self._asked_delete = self._asked_delete, None
                if key == "delete" and adapter is not None:
                    self._library.delete(adapter)
                self._show_problems()
                self._focus_list()
            case "replace":
                self.export_form.save(replace=True)
            case "choose":
                form = self.form
                if isinstance(form, ImportForm | ExportForm):
                    form.ask_folder()
            case "folder":
                exported = self._library.exporter.exported
                if exported is not None:
                    QDesktopServices.openUrl(QUrl.fromLocalFile(str(Path(exported.path))))

    def _on_added(self, adapter: Adapter) -> None:
        self._go(LIST)
        self.search.clear()
        self.table.select(adapter)
        self._tell(self.tr("{0} is in the library.").format(adapter.name))

    def _on_renamed(self, adapter: Adapter) -> None:
        self.table.select(adapter)

    def _on_deleted(self, adapter: Adapter) -> None:
        self._tell(self.tr("{0} is deleted.").format(adapter.name))

    def _tell(self, text: str) -> None:
        self._told = ProblemItem("ok", text)
        self._show_problems()
        QTimer.singleShot(0, self, self._show_foot)

    def done(self, result: int) -> None:
        """Close; what is under way is given up."""
        self._library.cancel()
        if self._library.exporter.status == "running":
            self._library.exporter.cancel()
        self._library.forget_problems()
        super().done(result)
