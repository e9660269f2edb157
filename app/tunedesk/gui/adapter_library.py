"""The adapters of the chosen base: read and changed off the GUI thread, and the jobs that add to them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from PySide6.QtCore import QObject, Signal

from tunedesk.core.adapters import Adapter, delete_adapter, list_adapters, rename_adapter
from tunedesk.core.client import EngineProcess
from tunedesk.core.events import (
    AdapterAdded,
    CombineAdapters,
    Event,
    Finished,
    ImportAdapter,
    Progress,
    Stage,
    Stop,
)
from tunedesk.core.paths import cache_dir
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.gui.exporting import ExportSession
from tunedesk.gui.pages._parts import short_source
from tunedesk.gui.session import Session
from tunedesk.gui.worker import EngineWorker, EventSource, WorkerThread

Work = Literal["", "changing", "import", "combine"]


class _Found(NamedTuple):
    """What was read: the adapters of `base` by their real folders, the newest first."""

    base: str
    adapters: dict[str, Adapter]


class AdapterLibrary(QObject):
    """The list, one change or job at a time, and the problems of the last one."""

    changed = Signal()
    """The list, the work or the problems changed."""
    added = Signal(object)
    """A new `Adapter` is in the library and in the list."""
    renamed = Signal(object)
    """An adapter, as it is called now."""
    deleted = Signal(object)
    """An adapter that is gone."""

    def __init__(self, session: Session, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.session = session
        self.exporter = ExportSession(self)
        self.base = ""
        self._by_folder: dict[str, Adapter] = {}
        self.loaded = False
        self.work: Work = ""
        self.stage = ""
        self.progress: Progress | None = None
        self.problems: tuple[Problem, ...] = ()
        self._added: AdapterAdded | None = None
        self._thread: WorkerThread | None = None
        self._leaving: set[WorkerThread] = set()
        session.runs_changed.connect(self.read)

    @property
    def base_name(self) -> str:
        """What the base is called."""
        model = self.session.project.model
        return model.name if model and model.source == self.base else short_source(self.base)

    # The list.

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """The adapters of the base, the newest first."""
        return tuple(self._by_folder.values())

    def read(self) -> None:
        """Read the list of the adapters of the session's base anew."""
        base = self.session.project.spec.model.source
        if base != self.base:
            self.base, self._by_folder, self.loaded = base, {}, False
            self.changed.emit()
        self.session.background.run(lambda: _find(base), self._take_list)

    def _take_list(self, found: _Found) -> None:
        if found.base != self.base or (self.loaded and found.adapters == self._by_folder):
            return
        self._by_folder, self.loaded = found.adapters, True
        self.changed.emit()

    def at(self, path: str | Path | None) -> Adapter | None:
        """The adapter in the folder `path`, if it is in the list."""
        return self._by_folder.get(os.path.realpath(path)) if path else None

    # Changes that are quick.

    def rename(self, adapter: Adapter, name: str) -> None:
        """Call `adapter` by another name; `renamed`, or `problems`."""
        self._change(lambda: rename_adapter(adapter, name), self.renamed.emit)

    def delete(self, adapter: Adapter) -> None:
        """Delete `adapter`; `deleted`, or `problems`."""

        def work() -> Adapter:
            delete_adapter(adapter)
            return adapter

        self._change(work, self.deleted.emit)

    def _change(self, work: Callable[[], Adapter], then: Callable[[Adapter], object]) -> None:
        if self.work:
            return
        self.work, self.problems = "changing", ()
        base = self.base

        def attempt() -> tuple[Adapter | tuple[Problem, ...], _Found]:
            try:
                done: Adapter | tuple[Problem, ...] = work()
            except ProblemError as error:
                done = error.problems
            return done, _find(base)

        def told(answer: tuple[Adapter | tuple[Problem, ...], _Found]) -> None:
            done, found = answer
            self.work = ""
            self._take_list(found)
            if isinstance(done, Adapter):
                then(done)
            else:
                self.problems = done
            self.changed.emit()

        self.session.background.run(attempt, told)
        self.changed.emit()

    def forget_problems(self) -> None:
        """The problems of the last change or job were read."""
        if self.problems:
            self.problems = ()
            self.changed.emit()

    # Jobs of the engine.

    def take_in(self, source: str, name: str | None) -> None:
        """Import the adapter in the folder `source`; `added`, or `problems`."""
        self._start("import", ImportAdapter(source=source, model=self.base, name=name))

    def combine(self, adapters: tuple[Adapter, ...], weights: tuple[float, ...], name: str) -> None:
        """Add up `adapters` by `weights` to a new one called `name`; `added`, or `problems`."""
        paths = tuple(str(item.path) for item in adapters)
        self._start("combine", CombineAdapters(adapters=paths, weights=weights, name=name))

    def _start(self, work: Literal["import", "combine"], job: ImportAdapter | CombineAdapters) -> None:
        if not self.work:
            self._watch(work, EngineProcess(job, cache_dir() / "logs" / "adapters.log"))

    def _watch(self, work: Literal["import", "combine"], source: EventSource) -> None:
        self.work, self.problems, self._added = work, (), None
        self.stage, self.progress = self.tr("Starting"), None
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

    def shut_down(self) -> None:
        """Have the engine end and tidy up by itself, and wait for the threads."""
        self.cancel()
        thread, self._thread = self._thread, None
        if thread:
            self._leaving.add(thread)
            thread.worker.let_go()
        for leaving in list(self._leaving):
            leaving.close()
        self.exporter.shut_down()

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
            match event:
                case Stage(text=text):
                    self.stage, self.progress = text, None
                case Progress():
                    self.progress = event
                case AdapterAdded():
                    self._added = event
                case Finished(problems=problems):
                    self.work, self.stage, self.progress = "", "", None
                    self.problems = problems
                    self._tell_added()
                case _:
                    pass
        self.changed.emit()

    def _tell_added(self) -> None:
        added, base = self._added, self.base
        if added is None or self.problems:
            return

        def told(found: _Found) -> None:
            self._take_list(found)
            adapter = self.at(added.path)
            if adapter is not None:
                self.added.emit(adapter)

        self.session.background.run(lambda: _find(base), told)


def _find(base: str) -> _Found:
    return _Found(base, {os.path.realpath(item.path): item for item in list_adapters(base)})
