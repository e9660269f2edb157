"""The job `MakePlan`: resolve every `auto` of a run and say whether it fits, before anything is loaded."""

from __future__ import annotations

from typing import Literal

from tunedesk.core.events import DataDescribed, MakePlan, ModelDescribed, PlanMade, Stage
from tunedesk.core.hardware import Device, choose_device, read_hardware
from tunedesk.core.plan import make_plan
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.core.spec import parse_spec
from tunedesk.engine.channel import Channel
from tunedesk.engine.describe_data import ticker
from tunedesk.engine.material import describe, gather, length_limit, renderer_of, tokenise


def make_plan_job(job: MakePlan, channel: Channel) -> Literal["completed", "stopped"]:
    """Emit `ModelDescribed`, `DataDescribed` and `PlanMade`.

    Raises `ProblemError` with the faults of the run file, the model or the data, and `Stopped` on request.
    """
    from tunedesk.engine.loading import check_task, load_tokenizer
    from tunedesk.engine.sources import resolve

    spec = parse_spec(job.run_toml)
    device = _device(job.device if job.device != "auto" else spec.training.device)
    channel.emit(Stage(text="Reading the model"))
    info = resolve(spec.model.source, spec.model.revision, channel, fetch=False)
    check_task(info, spec.task.kind, spec.method.name)
    channel.emit(ModelDescribed(info=info))
    channel.emit(Stage(text="Reading the rows"))
    task = spec.task
    material = gather(
        spec.data, task.kind, spec.training.seed, ticker(channel), task.problem_type, task.preference_loss
    )
    tokens = tokenise(material, renderer_of(material, load_tokenizer(info), info), ticker(channel), info)
    data = describe(material, tokens, length_limit(spec.training.max_length, info))
    channel.emit(DataDescribed(info=data))
    channel.emit(PlanMade(plan=make_plan(spec, info, data, device)))
    return "completed"


def _device(wanted: str) -> Device:
    """The device of that name. torch is only asked when there is a GPU that it might not reach."""
    hardware = read_hardware()
    if hardware.gpus and ":" not in wanted and wanted != "cpu":
        from tunedesk.engine.loading import usable

        hardware = usable(hardware)
    try:
        return choose_device(hardware, wanted)
    except ValueError as error:
        raise ProblemError(
            Problem(
                code="device.missing",
                what=f"The device '{wanted}' cannot be had.",
                found=str(error),
                fix="Use auto, cpu, cuda, mps or a card such as 'RTX 3060:12GiB'.",
            )
        ) from error
