"""A run as everyone sees it: `reduce` folds events into a `RunState`, live, reopened or in a test."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from tunedesk.core.describe import DataInfo
from tunedesk.core.events import (
    AdapterSaved,
    CheckpointSaved,
    DataDescribed,
    Evaluated,
    Event,
    Finished,
    ForgettingChecked,
    Notice,
    PlanMade,
    Progress,
    Stage,
    Started,
    StepDone,
    TrainingBegan,
)
from tunedesk.core.plan import Plan
from tunedesk.core.problems import Problem
from tunedesk.core.series import Series

Status = Literal["new", "starting", "running", "completed", "stopped", "failed"]


@dataclass(frozen=True)
class LogLine:
    """A sentence of the plain-words log. `time` is in seconds since the epoch."""

    time: float
    level: Literal["info", "good", "warn", "bad"]
    text: str
    step: int | None


@dataclass(frozen=True)
class RunState:
    """Everything the Train page shows. Losses are in nats per trained token; times in seconds since the epoch."""

    status: Status = "new"
    stage: str = ""
    progress: Progress | None = None
    began: TrainingBegan | None = None
    plan: Plan | None = None
    data: DataInfo | None = None
    started_at: float | None = None
    training_since: float | None = None
    last_time: float | None = None
    steps: Series[StepDone] = field(default_factory=Series)
    evaluations: Series[Evaluated] = field(default_factory=Series)
    log: Series[LogLine] = field(default_factory=Series)
    best: Evaluated | None = None
    checkpoint: CheckpointSaved | None = None
    adapter: AdapterSaved | None = None
    forgetting: ForgettingChecked | None = None
    peak_memory: int = 0
    problems: tuple[Problem, ...] = ()

    @property
    def step(self) -> int:
        """The last finished step, or the step before the first of a resumed run, or 0."""
        if self.steps:
            return self.steps[-1].step
        return self.began.first_step - 1 if self.began else 0

    @property
    def fraction(self) -> float:
        """Share of the planned steps that is done, 0 to 1."""
        return self.step / self.began.total_steps if self.began and self.began.total_steps else 0.0

    @property
    def base_loss(self) -> float | None:
        """Held-out loss of the untouched model."""
        return next((item.loss for item in self.evaluations if item.step == 0), None)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds to the end, from the last 50 steps and the checks among them; None before there are any."""
        if not self.began or not self.steps or self.last_time is None:
            return None
        recent = self.steps[-50:]
        left = self.began.total_steps - self.step
        per_step = sum(item.seconds for item in recent) / len(recent)
        return left * per_step

    @property
    def ended(self) -> bool:
        """Whether `Finished` was seen."""
        return self.status in ("completed", "stopped", "failed")


def reduce(state: RunState, event: Event) -> RunState:
    """`state` after `event`. Pure: neither argument is changed."""
    state = replace(state, last_time=event.time)
    match event:
        case Started():
            return replace(
                state,
                status="starting",
                started_at=state.started_at or event.time,
                stage="Starting",
                problems=(),
            )
        case Stage(text=text):
            return replace(state, stage=text, progress=None)
        case Progress():
            return replace(state, progress=event)
        case PlanMade(plan=plan):
            return replace(state, plan=plan)
        case DataDescribed(info=info):
            return replace(state, data=info)
        case TrainingBegan():
            return _begin(state, event)
        case StepDone():
            peak = max(state.peak_memory, event.memory_bytes)
            return replace(state, steps=state.steps.plus(event), peak_memory=peak, stage="Training")
        case Evaluated():
            best = event if event.best else state.best
            return replace(state, evaluations=state.evaluations.plus(event), best=best)
        case CheckpointSaved():
            return replace(state, checkpoint=event)
        case AdapterSaved():
            return replace(state, adapter=event)
        case ForgettingChecked():
            return replace(state, forgetting=event)
        case Notice(level=level, text=text, step=step):
            return _say(state, level, text, step, event.time)
        case Finished(outcome=outcome, problems=problems):
            return replace(state, status=outcome, problems=problems, stage="", progress=None)
        case _:
            return state


def reduce_all(events: Iterable[Event], state: RunState | None = None) -> RunState:
    """Fold all of `events` into `state`, or into a new one."""
    state = state or RunState()
    for event in events:
        state = reduce(state, event)
    return state


def _begin(state: RunState, event: TrainingBegan) -> RunState:
    """Training starts or goes on: points of steps that a resumed run will do again are dropped."""
    steps = Series([item for item in state.steps if item.step < event.first_step])
    evaluations = Series([item for item in state.evaluations if item.step < event.first_step])
    best = state.best if state.best and state.best.step < event.first_step else None
    if best is None:
        best = min(evaluations, key=lambda item: item.loss, default=None)
    return replace(
        state,
        status="running",
        began=event,
        training_since=event.time,
        steps=steps,
        evaluations=evaluations,
        best=best,
        stage="Training",
        progress=None,
    )


def _say(state: RunState, level: Literal["info", "good", "warn"], text: str, step: int | None, time: float) -> RunState:
    return replace(state, log=state.log.plus(LogLine(time, level, text, step)))
