"""Where a person stands on the path Model, Data, Method, Fit, Train, Try, Export. Pure functions of the choices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tunedesk.core.describe import DataInfo, ModelInfo, TaskKind
from tunedesk.core.matching import unfit_method, unfit_task
from tunedesk.core.plan import Plan
from tunedesk.core.problems import Problem
from tunedesk.core.spec import RunSpec, TaskSection
from tunedesk.core.state import RunState

StepKey = Literal["model", "data", "method", "fit", "train", "try", "export"]
StepStatus = Literal["open", "settled", "trouble", "running", "failed"]
STEPS: tuple[StepKey, ...] = ("model", "data", "method", "fit", "train", "try", "export")

STARTER_MODEL: dict[TaskKind, str] = {
    "chat": "starter:chat",
    "completion": "starter:chat",
    "classification": "starter:encoder",
    "preference": "starter:chat",
}
"""The starter model of each task; the package index has none that turns one text into another."""
STARTER_DATA: dict[TaskKind, str] = {
    "chat": "starter:support",
    "completion": "starter:support",
    "classification": "starter:finance",
    "seq2seq": "starter:support",
    "preference": "starter:preferences",
}
COLUMNS_THERE = "Columns there:"
"""Begins the list of a file's columns in a problem."""


@dataclass(frozen=True)
class Project:
    """The choices made so far and what is known about them."""

    spec: RunSpec = field(default_factory=RunSpec)
    model: ModelInfo | None = None
    model_problems: tuple[Problem, ...] = ()
    data: DataInfo | None = None
    data_problems: tuple[Problem, ...] = ()
    plan: Plan | None = None
    run: RunState | None = None
    tried: bool = False
    exported: str | None = None

    @property
    def method_chosen(self) -> bool:
        """A method is always chosen once there is something to apply it to."""
        return self.model is not None and self.data is not None


def step_status(project: Project, key: StepKey) -> StepStatus:
    """How far `key` is: settled, open, in trouble, running or failed."""
    match key:
        case "model":
            return _choice_status(
                project.model is not None and not model_trouble(project), bool(model_trouble(project))
            )
        case "data":
            return _choice_status(project.data is not None, bool(project.data_problems))
        case "method":
            trouble = bool(method_trouble(project))
            return _choice_status(project.method_chosen and not trouble, trouble)
        case "fit":
            return _choice_status(project.plan is not None and project.plan.fits, project.plan is not None)
        case "train":
            return _train_status(project.run)
        case "try":
            return "settled" if project.tried else "open"
        case "export":
            return "settled" if project.exported else "open"


def _choice_status(settled: bool, trouble: bool) -> StepStatus:
    if settled:
        return "settled"
    return "trouble" if trouble else "open"


def _train_status(run: RunState | None) -> StepStatus:
    if run is None or run.status == "new":
        return "open"
    if run.status in ("starting", "running"):
        return "running"
    return "failed" if run.status == "failed" else "settled"


def model_trouble(project: Project) -> tuple[Problem, ...]:
    """Why the chosen model cannot be used for the task; empty when it can."""
    if project.model_problems or project.model is None:
        return project.model_problems
    problem = unfit_task(project.model, project.spec.task.kind)
    return (problem,) if problem else ()


def suited_task(model: ModelInfo, asked: TaskKind) -> TaskKind:
    """The task for `model`: what was asked for, unless a model of its kind can never do it."""
    kinds: dict[str, tuple[TaskKind, ...]] = {"encoder": ("classification",), "seq2seq": ("seq2seq",)}
    writes: tuple[TaskKind, ...] = ("chat", "completion", "classification", "preference")
    if not model.tasks or asked in kinds.get(model.kind, writes):
        return asked
    return model.tasks[0]


def with_task(spec: RunSpec, task: TaskKind) -> RunSpec:
    """`spec` with another task. Starter data follows it, as nobody chose it; columns of the other kind are dropped."""
    data = spec.data
    if (task == "classification") != (spec.task.kind == "classification"):
        data = data.model_copy(update={"columns": {}})
    if data.train in STARTER_DATA.values() and not data.columns:
        data = data.model_copy(update={"train": STARTER_DATA[task]})
    return spec.model_copy(update={"task": TaskSection(kind=task), "data": data})


def unfit_data(found: DataInfo, task: TaskKind) -> Problem | None:
    """The problem of data that is `found` to be of another kind than `task` learns from; None where columns decide."""
    columns = ", ".join(f"'{name}'" for name in found.all_columns)
    there = f" {COLUMNS_THERE} {columns}." if found.layout not in ("messages", "sharegpt") else ""
    if task != "classification" and found.task == "classification":
        count = f"{len(found.labels):,} labels" if found.labels else "labels"
        return Problem(
            code="data.labelled",
            what=f"{found.name} holds texts with {count}, and a model that writes learns from answers.",
            found=f"An encoder learns to give each text its label.{there}",
            fix="Choose an encoder, or another file.",
        )
    if task == "classification" and found.task == "chat":
        return Problem(
            code="data.conversations",
            what=f"{found.name} holds questions and answers, and an encoder learns from texts with labels.",
            found=f"A model that writes learns to answer.{there}",
            fix="Choose a model that writes, or texts with labels.",
        )
    return None


def method_trouble(project: Project) -> tuple[Problem, ...]:
    """Why the chosen method cannot tune the chosen model; empty when it can, or the model itself is in trouble."""
    if project.model is None or model_trouble(project):
        return ()
    problem = unfit_method(project.spec.method.name, project.model)
    return (problem,) if problem else ()


def blockers(project: Project) -> tuple[Problem, ...]:
    """Everything that stands between here and Start; empty when training may begin."""
    found = [*model_trouble(project), *method_trouble(project), *project.data_problems]
    if project.model is None and not found:
        found.append(Problem(code="model.none", what="No model is chosen.", fix="Choose one on the Model page."))
    if project.data is None and not project.data_problems:
        found.append(Problem(code="data.none", what="No data is chosen.", fix="Choose a file on the Data page."))
    return tuple(found)


def busy(run: RunState | None) -> bool:
    """Whether a run is starting or training."""
    return run is not None and run.status in ("starting", "running")
