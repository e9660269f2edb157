"""Where a person stands on the path Model, Data, Method, Fit, Train, Try, Export. Pure functions of the choices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tunedesk.core.describe import DataInfo, ModelInfo, TaskKind
from tunedesk.core.matching import TASK_WORDS, unfit_method, unfit_task
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

_PAIR = ("prompt", "completion")
_ROLES: dict[str, tuple[str, ...]] = {
    "chat": ("messages", *_PAIR, "system"),
    "completion": ("text", *_PAIR),
    "classification": ("text", "text_pair", "label"),
    "seq2seq": _PAIR,
    "preference": ("prompt", "chosen", "rejected"),
    "rated": (*_PAIR, "label", "chosen", "rejected"),
}
_LEARNED_FROM: dict[str, tuple[TaskKind, ...]] = {
    "data.labelled": ("classification",),
    "data.conversations": ("chat", "seq2seq"),
    "data.preferences": ("preference",),
}
"""The tasks that learn from what a file turned out to hold, by the code of the problem that says so."""


def roles_of(task: TaskSection) -> tuple[str, ...]:
    """What a column may be for this task."""
    return _ROLES[rows_of(task)]


def rows_of(task: TaskSection, data: DataInfo | None = None) -> TaskKind | Literal["rated"]:
    """What a row of `data` is: that of the task, or one answer with its rating, which KTO expects but does not need."""
    if task.kind != "preference":
        return task.kind
    rated = data.layout == "rated" if data else task.preference_loss == "kto"
    return "rated" if rated else "preference"


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


def suited_task(model: ModelInfo, spec: RunSpec, *, chosen: bool = False) -> TaskKind:
    """The task for `model`: what `spec` asks for, unless a model of its kind can never do it.

    Labels of starter data, unless they were `chosen`, go with the encoder that brought them.
    """
    asked = spec.task.kind
    kinds: dict[str, tuple[TaskKind, ...]] = {"encoder": ("classification",), "seq2seq": ("seq2seq",)}
    writes: tuple[TaskKind, ...] = ("chat", "completion", "classification", "preference")
    followed = asked == "classification" and not chosen and is_starter_data(spec)
    if model.kind == "decoder" and followed and model.tasks:
        return model.tasks[0]
    if not model.tasks or asked in kinds.get(model.kind, writes):
        return asked
    return model.tasks[0]


def is_starter_data(spec: RunSpec) -> bool:
    """Whether the data is the app's own, as it stands when nobody chose any."""
    return spec.data.train in STARTER_DATA.values() and not spec.data.columns


def with_task(spec: RunSpec, task: TaskKind, **choices: object) -> RunSpec:
    """`spec` with another task, or other `choices` in it (``problem_type``, ``preference_loss``, ``beta``).

    Starter data follows it, as nobody chose it; columns that it does not know are dropped. Raises
    `pydantic.ValidationError` for a choice that there is not.
    """
    before = spec.task.model_dump(exclude_unset=True) if task == spec.task.kind else {"kind": task}
    section = TaskSection.model_validate({**before, **choices})
    data = spec.data
    if data.columns and not set(data.columns) <= set(roles_of(section)):
        data = data.model_copy(update={"columns": {}})
    if data.train in STARTER_DATA.values() and not data.columns:
        data = data.model_copy(update={"train": STARTER_DATA[task]})
    return spec.model_copy(update={"task": section, "data": data})


def unfit_data(found: DataInfo, task: TaskKind, model: ModelInfo | None = None) -> Problem | None:
    """The problem of data that is `found` to be of another kind than `task` learns from; None where columns decide.

    What to do is what `model` can: learn the data's own task, or give way to a model that does.
    """
    columns = ", ".join(f"'{name}'" for name in found.all_columns)
    there = f" {COLUMNS_THERE} {columns}." if found.layout not in ("messages", "sharegpt") else ""
    code = _code_of(found)
    if code is None or task in _LEARNED_FROM[code] or (task == "completion" and found.layout == "prompt_completion"):
        return None
    count = f"{len(found.labels):,} labels" if found.labels else "labels"
    holds = {
        "data.labelled": "texts with their numbers" if found.problem_type == "regression" else f"texts with {count}",
        "data.conversations": "questions and answers",
        "data.preferences": "answers, better and worse ones",
    }[code]
    switch = switch_for(code, model)
    fix = {
        "data.labelled": "Choose a model that gives labels, or another file.",
        "data.conversations": "Choose a model that writes, or texts with labels.",
        "data.preferences": "Choose a model that writes, or another file.",
    }[code]
    if switch is not None:
        fix = f"Let the model learn to {TASK_WORDS[switch]}, or choose another file."
    return Problem(
        code=code,
        what=f"{found.name} holds {holds}, and this run is to learn to {TASK_WORDS[task]}.",
        found=f"Such rows teach to {TASK_WORDS[_LEARNED_FROM[code][0]]}.{there}",
        fix=fix,
    )


def _code_of(found: DataInfo) -> str | None:
    if found.task == "classification":
        return "data.labelled"
    if found.task == "preference":
        return "data.preferences"
    return "data.conversations" if found.task in ("chat", "seq2seq") else None


def switch_for(code: str, model: ModelInfo | None) -> TaskKind | None:
    """The task that learns from what the problem `code` found in a file; None where `model` cannot."""
    tasks = _LEARNED_FROM.get(code, ())
    return next((task for task in tasks if model is not None and unfit_task(model, task) is None), None)


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
