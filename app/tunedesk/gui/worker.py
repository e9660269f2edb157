"""The one bridge between window and engine: workers that live in a `QThread` and own an engine process.

A worker reads and validates the engine's lines, folds them, and emits at about 10 Hz. The GUI thread only paints.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from PySide6.QtCore import QObject, QThread, QThreadPool, Signal

from tunedesk.core.events import Command, Event, Finished
from tunedesk.core.problems import Problem
from tunedesk.core.state import RunState, reduce

T = TypeVar("T")

INTERVAL = 0.1
"""Seconds between two signals while events stream in."""


class EventSource(Protocol):
    """What a worker watches: an `EngineProcess` or a `RunFollower`."""

    def start(self) -> None: ...
    def next_event(self, timeout: float | None = None) -> Event | None: ...
    @property
    def finished(self) -> bool: ...
    def send(self, command: Command) -> None: ...
    def kill(self) -> None: ...
    def detach(self) -> None: ...


class EngineWorker(QObject):
    """Runs one job: `events` carries lists of events, the last list ends with `Finished`; then `ended`."""

    events = Signal(list)
    ended = Signal()

    def __init__(self, source: EventSource) -> None:
        super().__init__()
        self._source = source
        self._letting_go = False

    def run(self) -> None:
        """Start the source and pass its events on until the last; runs in the worker's thread."""
        try:
            self._source.start()
        except OSError as error:
            self._pass_on([_not_started(error)])
            self.ended.emit()
            return
        while not self._source.finished and not self._letting_go:
            self._pass_on(self._gather())
        self.ended.emit()

    def _gather(self) -> list[Event]:
        """The events of the next interval; waits for the first."""
        batch: list[Event] = []
        until = time.monotonic() + INTERVAL
        while not self._source.finished and not self._letting_go:
            left = until - time.monotonic()
            event = self._source.next_event(timeout=max(0.0, left) if batch else INTERVAL)
            if event is not None:
                batch.append(event)
            if time.monotonic() >= until:
                break
        return batch

    def _pass_on(self, batch: list[Event]) -> None:
        if batch:
            self.events.emit(batch)

    def send(self, command: Command) -> None:
        """Send a command to the engine; may be called from the GUI thread."""
        self._source.send(command)

    def kill(self) -> None:
        """End the engine at once; may be called from the GUI thread."""
        self._source.kill()

    def let_go(self) -> None:
        """Stop to watch and leave the engine running; may be called from the GUI thread."""
        self._letting_go = True
        self._source.detach()


class TrainingWorker(EngineWorker):
    """Shows and steers one training run: folds its events and emits the newest `RunState` with `state_changed`."""

    state_changed = Signal(object)

    def __init__(self, source: EventSource, state: RunState | None = None) -> None:
        super().__init__(source)
        self._state = state or RunState()

    def _pass_on(self, batch: list[Event]) -> None:
        if not batch:
            return
        for event in batch:
            self._state = reduce(self._state, event)
        super()._pass_on(batch)
        self.state_changed.emit(self._state)


class WorkerThread(QObject):
    """A worker in its own thread, with a safe end. Keep a reference until `done`."""

    done = Signal()

    def __init__(self, worker: EngineWorker, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.worker = worker
        self._thread = QThread()
        self._thread.setObjectName(type(worker).__name__)
        worker.moveToThread(self._thread)
        self._thread.started.connect(worker.run)
        worker.ended.connect(self._thread.quit)
        self._thread.finished.connect(self.done)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the thread is at work."""
        return self._thread.isRunning()

    def close(self, wait_ms: int = 5000) -> None:
        """Let go of the engine and wait for the thread."""
        self.worker.let_go()
        self._thread.quit()
        self._thread.wait(wait_ms)

    def end(self, wait_ms: int = 5000) -> None:
        """End the engine at once and wait for the thread."""
        self.worker.kill()
        self.close(wait_ms)


class Background(QObject):
    """Does short work, such as reading files, off the GUI thread, one piece after the other.

    The answer comes back in the GUI thread. After `close` no answer comes.
    """

    _done = Signal(object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(1)
        self._open = True
        self._done.connect(self._deliver)

    def run(self, work: Callable[[], T], then: Callable[[T], object]) -> None:
        """Call `work` in the background, then `then` with its answer in the GUI thread."""
        self._pool.start(lambda: self._work(work, then))

    def _work(self, work: Callable[[], T], then: Callable[[T], object]) -> None:
        if self._open:
            self._done.emit(then, work())

    def _deliver(self, then: Callable[[object], object], answer: object) -> None:
        if self._open:
            then(answer)

    def close(self) -> None:
        """Drop what waits and let the piece at hand end."""
        self._open = False
        self._pool.clear()
        self._pool.waitForDone()


def _not_started(error: OSError) -> Finished:
    return Finished(
        time=time.time(),
        outcome="failed",
        problems=(
            Problem(
                code="engine.not_started",
                what="The training process could not be started.",
                found=error.strerror or str(error),
                where=str(error.filename or ""),
                fix="Check that the disk is not full and that TuneDesk is installed whole.",
            ),
        ),
    )
