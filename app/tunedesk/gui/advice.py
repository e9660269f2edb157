"""The recommender's view of the project: the situation, its advice, and what of it may be chosen."""

from __future__ import annotations

from collections.abc import Mapping

from tunedesk.core.matching import unfit
from tunedesk.core.methods import offered
from tunedesk.core.plan import make_plan
from tunedesk.core.project import Project
from tunedesk.core.recommend import Advice, Choice, Memory, Situation, advise, room
from tunedesk.gui.pages._plans import changed, frugal


def situation(project: Project, answers: Mapping[str, object]) -> Situation | None:
    """What is known of the project, with a person's `answers` in front; None while there is no plan or no data."""
    model, data = project.model, project.data
    room_here = memory(project)
    if model is None or data is None or room_here is None:
        return None
    known: dict[str, object] = {
        "task": project.spec.task.kind,
        "rows": data.train_rows,
        "memory": room_here,
        "parameters": model.parameters,
    }
    return Situation(**{**known, **answers})  # type: ignore[arg-type]


def memory(project: Project) -> Memory | None:
    """What the planner's device is for the model, with this data and settings that cost time alone."""
    plan, model = project.plan, project.model
    if plan is None or model is None:
        return None
    if plan.recommended_method == "lora":
        return "ample" if room(model.parameters, plan.device.free_bytes) == "ample" else "fits"
    spec = changed(project.spec, {"method.name": "qlora"})
    quantised = make_plan(spec, model, project.data, plan.device)
    _, fits = frugal(spec, quantised, model, project.data)
    return "tight" if fits else "short"


def advice(project: Project, answers: Mapping[str, object]) -> Advice | None:
    """The advice for the project; None while too little is known."""
    found = situation(project, answers)
    return advise(found, project.model) if found else None


def first_choice(found: Advice | None, project: Project) -> Choice | None:
    """The best of the advised methods that may be chosen for a run here."""
    names = {item.name for item in offered()}
    for choice in found.ranked if found else ():
        possible = project.model is None or unfit(choice.method, project.model, project.spec.task.kind) is None
        if choice.method in names and possible:
            return choice
    return None
