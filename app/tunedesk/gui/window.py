"""The one window: the rail at the left, the page of the step at hand beside it."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QEvent, QPoint, Qt, QTimer, QUrl, Signal
from PySide6.QtGui import QCloseEvent, QDesktopServices, QKeySequence, QPaintEvent, QShortcut
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QMainWindow, QMenu, QStackedWidget, QWidget

from tunedesk.core.problems import Problem
from tunedesk.core.project import STEPS, StepKey
from tunedesk.core.state import RunState
from tunedesk.gui import words
from tunedesk.gui.adapter_library import AdapterLibrary
from tunedesk.gui.chatting import ChatSession
from tunedesk.gui.exporting import ExportSession
from tunedesk.gui.pages.base import Page
from tunedesk.gui.rail_lines import RailLines, best_right
from tunedesk.gui.runs_list import RunsReader, RunSummary
from tunedesk.gui.session import Session, file_source
from tunedesk.gui.widgets import Rail, RunItem, Severity, Toast

SMALLEST = (960, 640)
PREPARE_AFTER_MS = 1200
"""When the pages that take longest to build are made ready: well after the first paint, before they are asked for."""


class MainWindow(QMainWindow):
    """Shows the session. Pages are built when they are first shown, so that the window is there at once."""

    painted = Signal()
    """The window was painted for the first time."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.chat = ChatSession(self)
        self.exporter = ExportSession(self)
        self.library = AdapterLibrary(session, self)
        self._pages: dict[str, Page] = {}
        self._lines = RailLines(session)
        self._reader = RunsReader()
        self._summaries: list[RunSummary] = []
        self._items: list[RunItem] = []
        self._shown_run: Path | None = None
        self._run_ended = True
        self._was_painted = False
        self._may_close = False
        self.setObjectName("mainWindow")
        self.setWindowTitle("TuneDesk")
        self.setMinimumSize(*SMALLEST)
        self.resize(max(SMALLEST[0], session.settings.window_width), max(SMALLEST[1], session.settings.window_height))
        self._build()
        self._connect()
        self._add_shortcuts()
        self.refresh_rail()
        self._refresh_device()
        self.go("model")

    def _build(self) -> None:
        self.rail = Rail()
        self.stack = QStackedWidget()
        self.stack.setObjectName("pages")
        middle = QWidget()
        row = QHBoxLayout(middle)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self.rail)
        row.addWidget(self.stack, 1)
        self.setCentralWidget(middle)

    def _connect(self) -> None:
        self.rail.step_chosen.connect(self.go)
        self.rail.run_chosen.connect(self.open_run)
        self.rail.new_run_asked.connect(self.new_run)
        self.rail.settings_asked.connect(self.show_settings)
        self.rail.run_menu_asked.connect(self._show_run_menu)
        session = self.session
        session.project_changed.connect(self._on_project)
        session.activity_changed.connect(self.refresh_rail)
        session.state_changed.connect(self._on_state)
        session.run_changed.connect(self._on_run)
        session.runs_changed.connect(self.read_runs)
        session.hardware_changed.connect(self._refresh_device)
        session.failed.connect(self.show_problems)

    def _add_shortcuts(self) -> None:
        for number, key in enumerate(STEPS, start=1):
            self._shortcut(f"Ctrl+{number}", lambda key=key: self.go(key))
        self._shortcut("Ctrl+O", self.ask_for_data)
        self._shortcut("Ctrl+,", self.show_settings)
        self._shortcut("Ctrl+Q", self.close)
        self._shortcut("F1", self.show_about)

    def _shortcut(self, keys: str, act: object) -> None:
        shortcut = QShortcut(QKeySequence(keys), self)
        shortcut.setObjectName(f"shortcut_{keys}")
        shortcut.activated.connect(act)

    # Starting.

    def start_work(self) -> None:
        """Begin what takes time: read the hardware and the runs, and look at the model and the data of last time."""
        session = self.session
        session.watch_hardware()
        self.read_runs()
        if session.settings.data_source:
            section = session.project.spec.data.model_copy(update={"train": session.settings.data_source})
            session.set_spec(session.project.spec.model_copy(update={"data": section}))
        session.choose_model(session.settings.model_source or "starter:chat")
        QTimer.singleShot(PREPARE_AFTER_MS, self._prepare)

    def _prepare(self) -> None:
        if not self.session.training:
            self.page("train")

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if not self._was_painted:
            self._was_painted = True
            QTimer.singleShot(0, self.painted.emit)

    # Pages.

    def page(self, key: StepKey) -> Page:
        """The page of a step; built on first use."""
        if key not in self._pages:
            made = self._make_page(key)
            made.go.connect(self.go)
            self._pages[key] = made
            self.stack.addWidget(made)
        return self._pages[key]

    def _make_page(self, key: StepKey) -> Page:
        match key:
            case "model":
                from tunedesk.gui.pages.model import ModelPage

                return ModelPage(self.session)
            case "data":
                from tunedesk.gui.pages.data import DataPage

                return DataPage(self.session)
            case "method":
                from tunedesk.gui.pages.method import MethodPage

                return MethodPage(self.session)
            case "fit":
                from tunedesk.gui.pages.fit import FitPage

                return FitPage(self.session)
            case "train":
                from tunedesk.gui.pages.train import TrainPage

                return TrainPage(self.session)
            case "try":
                from tunedesk.gui.pages.try_ import TryPage

                return TryPage(self.session, self.chat, self.library)
            case "export":
                from tunedesk.gui.pages.export import ExportPage

                return ExportPage(self.session, self.exporter)

    def go(self, key: StepKey) -> None:
        """Show the page of a step."""
        self.stack.setCurrentWidget(self.page(key))
        self.rail.set_current(key)

    @property
    def current(self) -> StepKey:
        """The step whose page is shown."""
        shown = self.stack.currentWidget()
        return shown.key if isinstance(shown, Page) else "model"

    # The rail.

    def refresh_rail(self) -> None:
        """Show the state of every step."""
        steps = self._lines.steps()
        if steps != self.rail.steps():
            self.rail.set_steps(steps)

    def _refresh_device(self) -> None:
        self.rail.set_device(self._lines.device(self.session.hardware))

    def read_runs(self) -> None:
        """Read the list of runs anew, off the GUI thread."""
        self.session.background.run(self._reader.read, self._take_runs)

    def _take_runs(self, summaries: list[RunSummary]) -> None:
        self._summaries = summaries
        self._show_runs()

    def _show_runs(self) -> None:
        items = self._lines.runs(self._summaries)
        if items != self._items:
            self._items = items
            self.rail.set_runs(items)
        self.rail.set_current_run(self.session.run.id if self.session.run else "")

    def _on_project(self) -> None:
        self.refresh_rail()
        self._remember_choices()

    def _remember_choices(self) -> None:
        project, settings = self.session.project, self.session.settings
        changes = {}
        if project.model and project.model.source == project.spec.model.source != settings.model_source:
            changes["model_source"] = project.spec.model.source
        if project.data and project.spec.data.train != settings.data_source:
            changes["data_source"] = project.spec.data.train
        if changes:
            self.session.change_settings(**changes)

    def _on_state(self) -> None:
        self.refresh_rail()
        self._show_runs()
        state = self.session.project.run
        if state is not None and state.ended and not self._run_ended:
            self.read_runs()
            self._tell_end(state)
        self._run_ended = state is None or state.ended

    def _on_run(self) -> None:
        run = self.session.run
        path = run.path if run else None
        if path != self._shown_run:
            self._shown_run = path
            self.exporter.reset()
            self.chat.close()
            self.chat.new_chat()
        if self.session.training:
            self.chat.close()
        self._show_runs()

    def _tell_end(self, state: RunState) -> None:
        if self.current == "train":
            return
        kind: Severity = "bad" if state.status == "failed" else "ok"
        toast = Toast.show_in(self, self._ending(state), kind=kind, action=self.tr("Show"), seconds=8)
        toast.action_asked.connect(lambda: self.go("train"))

    def _ending(self, state: RunState) -> str:
        if state.status == "failed":
            return self.tr("Training broke off at step {0}.").format(words.count(state.step))
        start = self.tr("Training is done.") if state.status == "completed" else self.tr("Training was stopped.")
        if state.best is None:
            return start
        if right := best_right(state):
            return self.tr("{0} It gets {1} held-out texts right.").format(start, right)
        return self.tr("{0} Best held-out loss {1}.").format(start, words.loss(state.best.loss))

    def open_run(self, run_id: str) -> None:
        """Show a run of the list, on the Train page."""
        self.session.show_run(run_id)
        self.go("train")

    def new_run(self) -> None:
        """Begin a new run with the choices of the shown one; a run that trains goes on."""
        self.session.new_run()
        self.go("model")

    def _show_run_menu(self, run_id: str, where: QPoint) -> None:
        summary = next((item for item in self._summaries if item.id == run_id), None)
        if summary is None:
            return
        menu = QMenu(self)
        menu.setObjectName("runMenu")
        menu.addAction(self.tr("Open"), lambda: self.open_run(run_id))
        menu.addAction(
            self.tr("Show in folder"), lambda: QDesktopServices.openUrl(QUrl.fromLocalFile(str(summary.path)))
        )
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(where)

    # Dialogs.

    def show_settings(self) -> None:
        """Open the settings."""
        from tunedesk.gui.dialogs.settings import SettingsDialog

        SettingsDialog(self.session, parent=self).open()

    def show_about(self) -> None:
        """Say what this app is."""
        from tunedesk.gui.dialogs.about import AboutDialog

        AboutDialog(parent=self).open()

    def show_problems(self, problems: tuple[Problem, ...]) -> None:
        """Show problems that belong to no page."""
        from tunedesk.gui.dialogs.message import ProblemsDialog

        ProblemsDialog(problems, parent=self).open()

    def ask_for_data(self) -> None:
        """Let the person choose a file of training data."""
        kinds = self.tr("Training data (*.jsonl *.json *.csv *.tsv *.parquet *.txt);;All files (*)")
        path, _ = QFileDialog.getOpenFileName(self, self.tr("Open data"), "", kinds)
        if path:
            self.session.choose_data(file_source(Path(path)))
            self.go("data")

    # Closing.

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.ActivationChange and self.isActiveWindow() and self._was_painted:
            self.read_runs()

    def closeEvent(self, event: QCloseEvent) -> None:
        if self.session.training and not self._may_close:
            event.ignore()
            self._ask_before_closing()
            return
        self._save_size()
        self.chat.shut_down()
        self.exporter.shut_down()
        self.library.shut_down()
        self.session.close()
        event.accept()

    def _ask_before_closing(self) -> None:
        from tunedesk.gui.dialogs.closing import ClosingDialog

        state = self.session.project.run
        total = state.began.total_steps if state and state.began else 0
        step = self.tr("Starting")
        if state and total:
            step = self.tr("Step {0} of {1}").format(words.count(state.step), words.count(total))
        dialog = ClosingDialog(step, parent=self)
        dialog.chosen.connect(self._close_with)
        dialog.open()

    def _close_with(self, choice: str) -> None:
        if choice == "stop":
            self.session.stop_run()
        self._may_close = True
        self.close()

    def _save_size(self) -> None:
        if not (self.isMaximized() or self.isFullScreen()):
            self.session.failed.disconnect(self.show_problems)
            self.session.change_settings(window_width=self.width(), window_height=self.height())
