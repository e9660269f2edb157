"""Where a person stands on the path Model, Data, Method, Fit, Train, Try, Export. Pure functions of the choices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tunedesk.core.describe import DataInfo, ModelInfo, TaskKind
from tunedesk.core.plan import Plan
from tunedesk.core.problems import Problem
from tunedesk.core.spec import RunSpec
from tunedesk.core.state import RunState

StepKey = Literal["model", "data", "method", "fit", "train", "try", "export"]
StepStatus = Literal["open", "settled", "trouble", "running", "failed"]
STEPS: tuple[StepKey, ...] = ("model", "data", "method", "fit", "train", "try", "export")


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
            return _choice_status(project.method_chosen, False)
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
    if project.spec.task.kind in project.model.tasks:
        return ()
    return (unfit_model(project.model, project.spec.task.kind),)


def unfit_model(model: ModelInfo, task: TaskKind) -> Problem:
    """The problem of a model that cannot do `task`."""
    if task == "classification":
        return Problem(
            code="model.wrong_kind",
            what=f"{model.name} cannot be tuned to give labels.",
            found=f"It is a {model.family} {model.kind}. Labels need a model that reads, such as starter:encoder.",
            fix="Choose an encoder, or data that the model can answer.",
        )
    if model.kind != "decoder":
        return Problem(
            code="model.wrong_kind",
            what=f"{model.name} does not write text.",
            found=f"It is a {model.family} {model.kind}. Conversations need a model that writes, such as starter:chat.",
            fix="Choose a model that writes text.",
        )
    return Problem(
        code="model.no_template",
        what=f"{model.name} has no chat template.",
        found="It is a base model: it goes on with text but does not know turns of a conversation.",
        fix="Choose its instruct or chat version, or set the task to completion.",
    )


def blockers(project: Project) -> tuple[Problem, ...]:
    """Everything that stands between here and Start; empty when training may begin."""
    found = [*model_trouble(project), *project.data_problems]
    if project.model is None and not found:
        found.append(Problem(code="model.none", what="No model is chosen.", fix="Choose one on the Model page."))
    if project.data is None and not project.data_problems:
        found.append(Problem(code="data.none", what="No data is chosen.", fix="Choose a file on the Data page."))
    return tuple(found)


def busy(run: RunState | None) -> bool:
    """Whether a run is starting or training."""
    return run is not None and run.status in ("starting", "running")
