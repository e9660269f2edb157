"""A run is a folder: enough by itself to reopen, resume, compare, export or move the run."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import psutil
from pydantic import ValidationError

from tunedesk.core.events import Started, read_event, read_events_file
from tunedesk.core.paths import runs_dir
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.core.spec import RunSpec, parse_spec
from tunedesk.core.state import RunState, reduce_all

INTERRUPTED = Problem(
    code="run.interrupted",
    what="Training was cut short: the training process is gone.",
    found="It ended without a word, as after a power cut, a restart or a forced quit.",
    fix="Resume goes on from the last checkpoint.",
)


@dataclass(frozen=True)
class RunFolder:
    """The places inside a run's folder."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def spec_file(self) -> Path:
        return self.path / "run.toml"

    @property
    def environment_file(self) -> Path:
        return self.path / "environment.json"

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log_file(self) -> Path:
        return self.path / "engine.log"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def report_file(self) -> Path:
        return self.path / "report.json"

    @property
    def stop_request(self) -> Path:
        """A file whose presence asks the engine to stop; for a window that did not start it."""
        return self.path / "stop.request"

    def spec(self) -> RunSpec:
        """What was asked for. Raises `ProblemError`."""
        try:
            text = self.spec_file.read_text(encoding="utf-8")
        except OSError as error:
            raise not_a_run(self.path) from error
        return parse_spec(text, str(self.spec_file))

    def state(self) -> RunState:
        """The run's state from its events; a run whose process is gone without `Finished` is failed."""
        if not self.events_file.exists():
            return RunState()
        try:
            events = read_events_file(self.events_file)
        except ValidationError as error:
            raise ProblemError(
                Problem(
                    code="run.events",
                    what="The record of this run cannot be read.",
                    where=str(self.events_file),
                    found=f"Line {self._odd_line():,} is no event of this version.",
                    fix="It may come from another version of TuneDesk, or be damaged.",
                )
            ) from error
        state = reduce_all(events)
        if state.ended or not events or self.alive():
            return state
        return replace(state, status="failed", problems=(INTERRUPTED,), stage="", progress=None)

    def _odd_line(self) -> int:
        """The number of the first line of the record that cannot be read."""
        with self.events_file.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    read_event(line)
                except ValidationError:
                    return number
        return 0

    def outcome(self) -> str | None:
        """How the run ended by its report, `completed`, `stopped` or `failed`; None while it has none."""
        try:
            report = json.loads(self.report_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return report.get("outcome") if isinstance(report, dict) else None

    def process_id(self) -> int | None:
        """The pid of the last engine that worked on this run."""
        pid = None
        for event in read_events_file(self.events_file):
            if isinstance(event, Started):
                pid = event.pid
        return pid

    def alive(self) -> bool:
        """Whether an engine process still works on this run."""
        pid = self.process_id() if self.events_file.exists() else None
        return pid is not None and is_engine(pid)


def is_engine(pid: int) -> bool:
    """Whether the process `pid` exists and is a TuneDesk engine."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "tunedesk.engine" in process.cmdline()
    except psutil.Error:
        return False


def not_a_run(path: Path) -> ProblemError:
    """The problem of a folder that holds no run."""
    return ProblemError(
        Problem(
            code="run.missing",
            what=f"{path} is not a run.",
            found="It has no run.toml." if _is_dir(path) else "There is no such folder.",
            fix="`tunedesk runs` lists the runs of this computer.",
        )
    )


def _is_dir(path: Path) -> bool:
    with suppress(OSError, ValueError):
        return path.is_dir()
    return False


def open_run(name: str | Path) -> RunFolder:
    """The run in the folder `name`, or the run of that id among the user's runs. Raises `ProblemError`."""
    run = find_run(name)
    if run is None:
        raise not_a_run(Path(name))
    return run


def find_run(name: str | Path) -> RunFolder | None:
    """The run in the folder `name`, or the run of that id among the user's runs; None when there is none."""
    for path in (Path(name).expanduser(), runs_dir() / name):
        with suppress(OSError, ValueError):  # a name that no file can have
            if (path / "run.toml").is_file():
                return RunFolder(path.resolve())
    return None


def create_run(spec: RunSpec, out: Path | None = None, now: datetime | None = None) -> RunFolder:
    """Make the folder of a new run and write what was asked for into it.

    Without `out` the folder gets a name of its own under the user's runs. Raises `ProblemError` when the folder holds
    something already or cannot be written.
    """
    path = out.expanduser().resolve() if out else _fresh_path(spec, now or datetime.now().astimezone())
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ProblemError(
            Problem(
                code="run.exists",
                what=f"{path} is not empty." if path.is_dir() else f"{path} is a file, not a folder.",
                fix="Nothing is written over. Name another folder with --out, or `tunedesk resume` that run.",
            )
        )
    run = RunFolder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_atomic(run.spec_file, spec.to_toml())
    except OSError as error:
        raise ProblemError(cannot_write(path, error)) from error
    return run


def cannot_write(path: Path, error: OSError) -> Problem:
    """The problem of a place that cannot be written: full, read-only, or not allowed."""
    full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    return Problem(
        code="disk.full" if full else "disk.unwritable",
        what="The disk is full." if full else f"Nothing can be written to {path}.",
        where=str(path),
        found=(error.strerror or str(error)) + ".",
        fix="Free some space, or choose another folder." if full else "Choose a folder that you may write to.",
    )


def _fresh_path(spec: RunSpec, now: datetime) -> Path:
    words = spec.name or f"{Path(spec.data.train.removeprefix('starter:')).stem} {spec.method.name}"
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:40] or "run"
    stem = f"{now:%Y%m%d-%H%M%S}-{slug}"
    names: Iterator[str] = (stem if number == 1 else f"{stem}-{number}" for number in range(1, 1000))
    return next(path for name in names if not (path := runs_dir() / name).exists())


def list_runs(root: Path | None = None) -> list[RunFolder]:
    """All runs under `root`, the newest first."""
    root = root or runs_dir()
    if not root.is_dir():
        return []
    folders = [RunFolder(path) for path in root.iterdir() if (path / "run.toml").is_file()]
    return sorted(folders, key=lambda run: run.spec_file.stat().st_mtime, reverse=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write beside `path`, flush to the disk, and rename into place."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """`write_atomic` of `value` as indented JSON."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
