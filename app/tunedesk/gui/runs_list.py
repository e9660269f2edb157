"""The runs of this computer as the rail lists them: read from their records, fast, and only when these have grown."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from tunedesk.core.events import Evaluated, Event, Finished, Started, StepDone, TrainingBegan, read_event
from tunedesk.core.methods import method
from tunedesk.core.problems import ProblemError
from tunedesk.core.runs import RunFolder, is_engine, list_runs
from tunedesk.core.spec import RunSpec

RunStatus = Literal["running", "done", "failed", "stopped"]

_TELLING = tuple(f'"kind":"{kind}"'.encode() for kind in ("evaluated", "finished", "started", "training_began"))
_STEP = b'"kind":"step"'
_ENDS: dict[str, RunStatus] = {"completed": "done", "stopped": "stopped", "failed": "failed"}


@dataclass(frozen=True)
class RunSummary:
    """What the list shows of a run. `fraction` is the share of its steps that is done; `pid` its last engine.

    `best` is the lowest held-out loss; `metrics` are what else was measured then.
    """

    id: str
    path: Path
    name: str
    status: RunStatus = "failed"
    best: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    fraction: float = 0.0
    pid: int | None = None
    ended: bool = False


def run_name(spec: RunSpec) -> str:
    """What a run is called: its own name, or its data and method."""
    if spec.name:
        return spec.name
    return f"{data_stem(spec)} {method(spec.method.name).title}"


def data_stem(spec: RunSpec) -> str:
    """The data's name without folder and ending, as a word that begins a name."""
    stem = Path(spec.data.train.removeprefix("starter:")).stem.replace("_", " ").replace("-", " ").strip()
    return stem[:1].upper() + stem[1:] or "Run"


class RunsReader:
    """Reads all runs; keeps what it knows of a record until that record changes. Not for two threads at once."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int], RunSummary]] = {}

    def read(self) -> list[RunSummary]:
        """All runs, the newest first."""
        return [self._summary(run) for run in list_runs()]

    def _summary(self, run: RunFolder) -> RunSummary:
        try:
            stat = run.events_file.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
        except OSError:
            stamp = (0, 0)
        known = self._known.get(run.path)
        summary = known[1] if known and known[0] == stamp else summarise(run)
        self._known[run.path] = (stamp, summary)
        if summary.ended or summary.pid is None:
            return summary
        return replace(summary, status="running" if is_engine(summary.pid) else "failed")


def summarise(run: RunFolder) -> RunSummary:
    """Read one run's record. Only the few lines that tell something are parsed."""
    try:
        name = run_name(run.spec())
    except ProblemError:
        name = run.id
    summary = RunSummary(run.id, run.path, name)
    last_step, total = b"", 0
    try:
        with run.events_file.open("rb") as file:
            for line in file:
                if _STEP in line:
                    last_step = line
                elif any(mark in line for mark in _TELLING):
                    event = _parse(line)
                    total = event.total_steps if isinstance(event, TrainingBegan) else total
                    summary = _fold(summary, event)
    except OSError:
        return summary
    step = _parse(last_step)
    if isinstance(step, StepDone) and total:
        summary = replace(summary, fraction=min(1.0, step.step / total))
    return summary


def _parse(line: bytes) -> Event | None:
    try:
        return read_event(line) if line.endswith(b"\n") else None
    except ValidationError:
        return None


def _fold(summary: RunSummary, event: Event | None) -> RunSummary:
    match event:
        case Started(pid=pid):
            return replace(summary, pid=pid, ended=False, status="running")
        case Evaluated(loss=loss, best=True, metrics=metrics) if math.isfinite(loss):
            return replace(summary, best=loss, metrics=metrics)
        case Finished(outcome=outcome):
            return replace(summary, ended=True, status=_ENDS[outcome])
        case _:
            return summary


def run_names() -> tuple[str, ...]:
    """The names of all runs."""
    names = []
    for run in list_runs():
        try:
            names.append(run_name(run.spec()))
        except ProblemError:
            names.append(run.id)
    return tuple(names)
