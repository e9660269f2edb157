"""The engine's side of the contract: events out on the saved standard output, commands in from standard input."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

from pydantic import ValidationError

from tunedesk.core.events import Command, Event, Job, Stop, read_command, read_job, write_line

E = TypeVar("E", bound=Event)


class Stopped(Exception):  # noqa: N818 (it is no error)
    """A `Stop` was obeyed in the middle of something that has no result yet, such as a download."""


class Channel:
    """Numbers, stamps and writes events; collects commands in a thread.

    The reader may go away (its window was closed): events are then written to the run's record alone and the job goes
    on.
    """

    def __init__(self, out: IO[bytes], commands: IO[bytes]) -> None:
        self._out: IO[bytes] | None = out
        self._commands_in = commands
        self._record: IO[bytes] | None = None
        self._stop_request: Path | None = None
        self._seq = 0
        self._queue: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._input_ended = False

    def read_job(self) -> Job:
        """The job on the first line of the input. Raises `pydantic.ValidationError`."""
        return read_job(self._commands_in.readline())

    def listen(self) -> None:
        """Start to collect commands."""
        threading.Thread(target=self._collect, name="commands", daemon=True).start()

    def record_to(self, events_file: Path, stop_request: Path) -> None:
        """From now on append every event to `events_file` too, numbered on from its last line.

        The file `stop_request` counts as a `Stop` command while it exists.
        """
        self._seq += _last_seq(events_file)
        self._record = events_file.open("ab")
        self._stop_request = stop_request

    def emit(self, event: Event) -> None:
        """Send `event` with the next number and the time. A full disk raises `OSError` from the run's record."""
        self._seq += 1
        stamped = event.model_copy(update={"seq": self._seq, "time": time.time()})
        line = write_line(stamped).encode("utf-8")
        if self._out is not None:
            try:
                self._out.write(line)
                self._out.flush()
            except OSError:
                self._out = None
        if self._record is not None:
            self._record.write(line)
            self._record.flush()

    def take(self, timeout: float | None = 0.0) -> Command | None:
        """The next command within `timeout` seconds (None waits for ever), or None at the end of the input."""
        with suppress(queue.Empty):
            command = self._queue.get(block=timeout is None or timeout > 0, timeout=timeout)
            if command is None:
                self._input_ended = True
                self._queue.put(None)  # the end stays the end, however often it is asked for
            return command
        return None

    @property
    def input_ended(self) -> bool:
        """Whether `take` has met the end of the input; None from it means "nothing now" until then."""
        return self._input_ended

    @property
    def stop_asked(self) -> bool:
        """Whether a `Stop` has come, by whichever way."""
        if self._stop_request is not None and self._stop_request.exists():
            self._stopping.set()
        return self._stopping.is_set()

    def _collect(self) -> None:
        for line in self._commands_in:
            try:
                command = read_command(line)
            except ValidationError as error:
                print(f"not a command: {line!r}: {error}", file=sys.stderr)  # noqa: T201
                continue
            if isinstance(command, Stop):
                self._stopping.set()
            self._queue.put(command)
        self._queue.put(None)


def open_channel() -> Channel:
    """Keep file descriptor 1 for events alone: whatever else prints goes to the log from now on.

    Must run before torch is imported, since progress bars and C libraries write to descriptor 1.
    """
    saved = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return Channel(os.fdopen(saved, "wb"), sys.stdin.buffer)


def _last_seq(events_file: Path) -> int:
    from tunedesk.core.events import read_events_file

    if not events_file.exists():
        return 0
    _drop_torn_line(events_file)
    events = read_events_file(events_file)
    return events[-1].seq if events else 0


def _drop_torn_line(events_file: Path) -> None:
    """Cut off a last line that a crash left without its end, so that the next event starts on a line of its own."""
    data = events_file.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        with events_file.open("r+b") as file:
            file.truncate(whole)
