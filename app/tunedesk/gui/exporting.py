"""Saving a run's adapter and checking it: owns the export engine and keeps what it has told."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from PySide6.QtCore import QObject, Signal

from tunedesk.core.client import EngineProcess
from tunedesk.core.events import Checked, Event, Export, Exported, Finished, Progress, Stage, Stop
from tunedesk.core.paths import cache_dir
from tunedesk.core.problems import Problem
from tunedesk.gui.worker import EngineWorker, EventSource, WorkerThread

Status = Literal["idle", "running", "done", "failed"]


class ExportSession(QObject):
    """One export at a time: its checks as they pass, then where it lies or why it failed."""

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.status: Status = "idle"
        self.stage = ""
        self.progress: Progress | None = None
        self.checks: tuple[Checked, ...] = ()
        self.exported: Exported | None = None
        self.problems: tuple[Problem, ...] = ()
        self.run = ""
        self.target = ""
        self.seconds = 0.0
        self._began = 0.0
        self._thread: WorkerThread | None = None
        self._leaving: set[WorkerThread] = set()

    def start(self, run: Path, target: Path, *, replace: bool = False) -> None:
        """Save the adapter of `run` to the folder `target`; an older one is replaced only when `replace` is true."""
        if self.status != "running":
            self.run = str(run)
            self._start(Export(run=str(run), to=str(target), replace=replace))

    def start_adapter(self, adapter: Path, target: Path, *, replace: bool = False) -> None:
        """`start` for the adapter in the folder `adapter` of the library."""
        if self.status != "running":
            self._start(Export(adapter=str(adapter), to=str(target), replace=replace))

    def _start(self, job: Export) -> None:
        self.target = job.to
        self._watch(EngineProcess(job, cache_dir() / "logs" / "export.log"))

    def _watch(self, source: EventSource) -> None:
        self.checks, self.problems, self.exported = (), (), None
        self.status, self.stage, self.progress = "running", self.tr("Starting"), None
        self._began = time.monotonic()
        worker = EngineWorker(source)
        worker.events.connect(self._on_events)
        thread = WorkerThread(worker, self)
        thread.done.connect(self._on_done)
        self._thread = thread
        thread.start()
        self.changed.emit()

    def cancel(self) -> None:
        """Ask the engine to end; what it has written so far is removed."""
        if self._thread:
            self._thread.worker.send(Stop())

    def reset(self) -> None:
        """Forget the last export, for another run or another go."""
        if self.status == "running":
            self.close()
        self.status, self.stage, self.progress = "idle", "", None
        self.checks, self.problems, self.exported = (), (), None
        self.run = self.target = ""
        self.changed.emit()

    def close(self) -> None:
        """Have the engine end and tidy up by itself. Never waits."""
        self.cancel()
        thread, self._thread = self._thread, None
        if thread:
            self._leaving.add(thread)
            thread.worker.let_go()

    def shut_down(self) -> None:
        """`close`, and wait for the threads."""
        self.close()
        for thread in list(self._leaving):
            thread.close()

    def _on_done(self) -> None:
        thread = self.sender()
        if isinstance(thread, WorkerThread):
            self._leaving.discard(thread)
            if thread is self._thread:
                self._thread = None
            thread.deleteLater()

    def _on_events(self, events: list[Event]) -> None:
        if self._thread is None or self.sender() is not self._thread.worker:
            return
        for event in events:
            self._take(event)
        self.changed.emit()

    def _take(self, event: Event) -> None:
        match event:
            case Stage(text=text):
                self.stage, self.progress = text, None
            case Progress():
                self.progress = event
            case Checked():
                self.checks = (*self.checks, event)
            case Exported():
                self.exported = event
            case Finished(outcome=outcome, problems=problems):
                self.problems = problems
                self.status = self._ending(outcome)
                self.stage, self.seconds = "", time.monotonic() - self._began
            case _:
                pass

    def _ending(self, outcome: str) -> Status:
        if outcome == "stopped":
            self.checks = ()
            return "idle"
        return "done" if outcome == "completed" and self.exported else "failed"
