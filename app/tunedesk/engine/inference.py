"""A model that answers: where it is computed, how its weights are held, and a run's adapter on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil

from tunedesk.core.describe import ModelInfo
from tunedesk.core.hardware import GIB, Device
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.core.runs import RunFolder
from tunedesk.engine.label_head import LabelHead
from tunedesk.engine.model_folder import read_header

if TYPE_CHECKING:
    import torch

Format = Literal["stored", "bf16", "nf4"]

_WORKSPACE = GIB // 4
"""Bytes that answering takes beside the weights: library workspaces and the cache of a few thousand tokens."""


@dataclass(frozen=True)
class FoundAdapter:
    """A run's newest whole adapter. `step` is None for the run's own `adapter/`."""

    path: Path
    step: int | None


def find_adapter(run: RunFolder) -> FoundAdapter:
    """The run's `adapter/`, or that of its newest whole checkpoint. Raises `ProblemError` when there is none."""
    if is_adapter(run.adapter):
        return FoundAdapter(run.adapter, None)
    steps = []
    for path in run.checkpoints.glob("step-*") if run.checkpoints.is_dir() else ():
        number = path.name.removeprefix("step-")
        if number.isdecimal():
            steps.append((int(number), path))
    for step, path in sorted(steps, reverse=True):
        for folder in (path / "adapter", path):
            if is_adapter(folder):
                return FoundAdapter(folder, step)
    raise ProblemError(
        Problem(
            code="run.no_adapter",
            what="This run has no adapter yet.",
            where=str(run.path),
            found="It ended before its first checkpoint." if run.events_file.exists() else "It was never started.",
            fix=f"`tunedesk resume {run.path}` trains it.",
        )
    )


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds a whole adapter in PEFT's format."""
    try:
        json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return bool(read_header(folder / "adapter_model.safetensors"))
    except (OSError, ValueError):
        return False


def pick_device(wanted: str) -> Device:
    """Where answers are computed: where the run was, if this computer has that, else the best there is."""
    from tunedesk.engine import loading

    try:
        return loading.pick_device(wanted)
    except ProblemError:
        return loading.pick_device("auto")


def choose_format(info: ModelInfo, device: torch.device) -> Format:
    """The weights as they are stored where they fit in free memory; else 16 bits, else NF4.

    Raises `ProblemError` when not even 4-bit weights fit.
    """
    free = free_memory(device) - _WORKSPACE
    two_bytes = 2 * info.parameters
    if info.weight_bytes <= free:
        return "stored"
    if two_bytes <= free:
        return "bf16"
    if 0.6 * info.parameters <= free and device.type != "mps":
        return "nf4"
    raise ProblemError(
        Problem(
            code="memory.full",
            what=f"{info.name} does not fit in the memory that is free.",
            found=f"Its weights take {info.weight_bytes / GIB:.1f} GiB; {max(0, free) / GIB:.1f} GiB are free.",
            fix="Close other programs, or choose a smaller model.",
        )
    )


def free_memory(device: torch.device) -> int:
    """Free bytes where `device` keeps its tensors."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def load_base(info: ModelInfo, device: torch.device, storage: Format, head: LabelHead | None = None) -> Any:
    """The causal language model in the folder of `info`, in evaluation mode. Raises `ProblemError` as training does.

    With ``stored`` this is what `AutoModelForCausalLM.from_pretrained` gives: the checkpoint's own dtype. With `head`
    it is a classifier, whose outputs only mean something once an adapter has brought their weights.
    """
    from tunedesk.engine import loading

    precision: Literal["stored", "bf16"] = "stored" if storage == "stored" else "bf16"
    return loading.load_base(info, precision, device, quantised=storage == "nf4", for_training=False, head=head)


def attach_adapter(model: Any, folder: Path) -> Any:
    """`model` with the adapter in `folder` on it, a PeftModel or one of the like. Raises `ProblemError`."""
    from safetensors import SafetensorError

    from tunedesk.engine.methods import attach_saved

    try:
        return attach_saved(model, folder)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ProblemError(_not_loaded("The adapter cannot be loaded.", folder, error)) from error
    except RuntimeError as error:
        if "memory" in str(error).lower():
            raise
        raise ProblemError(_not_loaded("The adapter was not made for this model.", folder, error)) from error


def precision_name(model: Any) -> str:
    """``nf4``, ``bf16``, ``fp16`` or ``fp32``: how the base's weights are held."""
    if getattr(model, "is_loaded_in_4bit", False):
        return "nf4"
    name = str(next(model.parameters()).dtype).removeprefix("torch.")
    return {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(name, name)


def _not_loaded(what: str, folder: Path, error: Exception) -> Problem:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return Problem(
        code="model.not_loaded",
        what=what,
        where=str(folder),
        found=(lines[0] if lines else type(error).__name__)[:300],
        fix="The files may be damaged or belong to different models. The log has the details.",
    )


def room_beside(info: ModelInfo, model: Any) -> ModelInfo:
    """`info` with the context that the virtual tokens of the adapter on `model` leave for text."""
    from tunedesk.engine.methods import virtual_tokens

    if info.context_length is None:
        return info
    return info.model_copy(update={"context_length": info.context_length - virtual_tokens(model)})
