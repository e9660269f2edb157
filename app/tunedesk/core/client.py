"""The engine as a child process: send it a job and commands, read its events. No Qt; the command line uses it too."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil
from pydantic import ValidationError

from tunedesk.core.events import Command, Event, Finished, Job, Stop, read_event, write_line
from tunedesk.core.problems import Problem
from tunedesk.core.runs import INTERRUPTED, RunFolder, is_engine

_END = object()


class EngineProcess:
    """One engine process that does one job.

    Whatever happens to the process, `events` yields exactly one `Finished`, last: the engine's own, or one made here
    from the exit status and the end of the log.
    """

    def __init__(self, job: Job, log_file: Path, events_file: Path | None = None) -> None:
        """Prepare `job`. What the process prints goes to the end of `log_file`.

        `events_file` is the run's record; a `Finished` that is made here is added to it.
        """
        self._job = job
        self._log_file = log_file
        self._events_file = events_file
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.SimpleQueue[bytes | object] = queue.SimpleQueue()
        self._finished = False
        self._seq = 0
        self._write_lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """The process id once started."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process and hand it the job. Raises `OSError` when the log file cannot be written."""
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # Windows: Ctrl+C stays with the parent
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tunedesk.engine"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONUTF8": "1"},
                start_new_session=sys.platform != "win32",
                creationflags=flags,
            )
        assert self._process.stdout is not None
        threading.Thread(target=self._pump, args=(self._process.stdout,), name="engine-events", daemon=True).start()
        self._write(write_line(self._job))

    def send(self, command: Command) -> None:
        """Send a command; without effect once the process is gone."""
        self._write(write_line(command))

    def next_event(self, timeout: float | None = None) -> Event | None:
        """The next event, or None when none came within `timeout` seconds or after `Finished`."""
        if self._finished:
            return None
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            return None
        event = self._read(line) if isinstance(line, bytes) else self._explain_death()
        self._seq = max(self._seq, event.seq)
        if isinstance(event, Finished):
            self._finished = True
        return event

    def events(self) -> Iterator[Event]:
        """All events until `Finished`; waits for each."""
        while not self._finished:
            event = self.next_event()
            if event is not None:
                yield event

    @property
    def finished(self) -> bool:
        """Whether `Finished` was handed out."""
        return self._finished

    def kill(self) -> None:
        """End the process at once; `events` still ends with `Finished`."""
        if self._process:
            self._process.kill()

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit status, or None when the process outlives `timeout` seconds."""
        if self._process is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout)
        return None

    def detach(self) -> None:
        """Let go of a process that is to outlive this one."""
        if self._process and self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()

    def _write(self, line: str) -> None:
        process = self._process
        if process is None or process.stdin is None or process.stdin.closed:
            return
        with self._write_lock, suppress(OSError):  # a dead process is reported by `events`
            process.stdin.write(line.encode("utf-8"))
            process.stdin.flush()

    def _pump(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(_END)

    def _read(self, line: bytes) -> Event:
        try:
            return read_event(line)
        except ValidationError as error:
            self.kill()
            return self._ending(
                Problem(
                    code="engine.protocol",
                    what="The training process sent something that this version does not understand.",
                    found=line[:200].decode("utf-8", "replace").strip(),
                    where=str(self._log_file),
                    fix=f"Install TuneDesk again; its parts are of different versions. ({error.error_count()} faults)",
                )
            )

    def _explain_death(self) -> Finished:
        status = self.wait(10)
        return self._ending(death_problem(status, last_lines(self._log_file), str(self._log_file)))

    def _ending(self, problem: Problem) -> Finished:
        event = Finished(seq=self._seq + 1, time=time.time(), outcome="failed", problems=(problem,))
        if self._events_file and self._events_file.exists():
            with suppress(OSError), self._events_file.open("ab") as file:
                file.write(write_line(event).encode("utf-8"))
        return event


def death_problem(status: int | None, log: str, log_file: str) -> Problem:
    """Why a process that sent no `Finished` is gone, in words for a person."""
    killed = status is not None and (status == -9 or status == 137)
    if killed:
        what = "The training process was ended from outside."
        found = "The system ends a process that takes too much memory; a person or a program can, too."
        fix = "Resume goes on from the last checkpoint. If it happens again, choose a smaller batch or shorter texts."
    else:
        what = "The training process broke off."
        found = f"It ended with {_status_words(status)}." + (f" Last words: {log}" if log else "")
        fix = "The log has the details. Resume goes on from the last checkpoint."
    return Problem(code="engine.killed" if killed else "engine.died", what=what, found=found, where=log_file, fix=fix)


def _status_words(status: int | None) -> str:
    if status is None:
        return "no exit status"
    if status < 0:
        with suppress(ValueError):
            return f"signal {signal.Signals(-status).name}"
    return f"exit status {status}"


def last_lines(path: Path, count: int = 3) -> str:
    """The last non-empty lines of a text file, joined; empty when it cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 4096))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return " / ".join(lines[-count:])
    return ""


class RunFollower:
    """A run that another window or the command line started: its events are read from its record as they come.

    Offers what `EngineProcess` offers to those who watch a run.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._file: IO[bytes] | None = None
        self._finished = False
        self._pid: int | None = None

    def start(self) -> None:
        """Open the record. Raises `OSError`."""
        self._pid = self._run.process_id()
        self._file = self._run.events_file.open("rb")

    def next_event(self, timeout: float | None = None) -> Event | None:
        """The next event, or None when none came within `timeout` seconds or after `Finished`."""
        deadline = time.monotonic() + (timeout if timeout is not None else 3600.0)
        while not self._finished and self._file is not None:
            alive = self._alive()
            event = self._read_line()
            if event is not None:
                self._finished = isinstance(event, Finished) and not self._goes_on()
                return event
            if not alive:
                self._finished = True
                return Finished(time=time.time(), outcome="failed", problems=(INTERRUPTED,))
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.1)
        return None

    @property
    def finished(self) -> bool:
        """Whether the run has ended."""
        return self._finished

    def send(self, command: Command) -> None:
        """Ask the run to stop; other commands need the window that started it."""
        if isinstance(command, Stop):
            self._run.stop_request.touch()

    def kill(self) -> None:
        """End the engine at once."""
        if self._pid is not None and is_engine(self._pid):
            psutil.Process(self._pid).kill()

    def detach(self) -> None:
        """Let go of the record."""
        if self._file:
            self._file.close()
            self._file = None
            self._finished = True

    def _alive(self) -> bool:
        return self._pid is not None and is_engine(self._pid)

    def _goes_on(self) -> bool:
        """Whether there is more after a `Finished`: the run was resumed since."""
        assert self._file is not None
        place = self._file.tell()
        more = self._file.read(1)
        self._file.seek(place)
        return bool(more)

    def _read_line(self) -> Event | None:
        assert self._file is not None
        place = self._file.tell()
        line = self._file.readline()
        if line.endswith(b"\n"):
            return read_event(line)
        self._file.seek(place)
        return None
