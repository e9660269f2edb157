"""Load a model, with a run's adapter on it, the way plain transformers and peft load them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil

from tunedesk.core.describe import ModelInfo
from tunedesk.core.hardware import GIB, cpu_name
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.core.runs import RunFolder
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


def choose_device(wanted: str = "auto") -> torch.device:
    """Where answers are computed: `wanted` if it is there, else the GPU with most free memory, else the CPU."""
    import torch

    if wanted != "cpu" and torch.cuda.is_available():
        free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
        return torch.device("cuda", free.index(max(free)))
    if wanted != "cpu" and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def device_name(device: torch.device) -> str:
    """The device's name as people know it."""
    import torch

    return torch.cuda.get_device_name(device).removeprefix("NVIDIA ") if device.type == "cuda" else cpu_name()


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


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`. Raises `ProblemError`."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ProblemError(_not_loaded("The tokenizer cannot be loaded.", folder, error)) from error


def load_base(folder: Path, device: torch.device, storage: Format = "stored") -> Any:
    """The causal language model in `folder`, in evaluation mode. Raises `ProblemError`.

    With ``stored`` this is what `AutoModelForCausalLM.from_pretrained(folder)` gives: the checkpoint's own dtype.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from tunedesk.engine.loading import nf4

    logging.disable_progress_bar()
    options: dict[str, Any] = {"dtype": "auto" if storage == "stored" else torch.bfloat16}
    if storage == "nf4":
        options |= {"quantization_config": nf4(torch.bfloat16), "device_map": {"": device}}
    try:
        model = AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True, **options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, SafetensorError) as error:
        raise ProblemError(_not_loaded("The model cannot be loaded.", folder, error)) from error
    except RuntimeError as error:
        if "memory" in str(error).lower():
            raise
        raise ProblemError(_not_loaded("The weights do not match config.json.", folder, error)) from error
    return (model if storage == "nf4" else model.to(device)).eval()


def attach_adapter(model: Any, folder: Path) -> Any:
    """`model` with the adapter in `folder` on it, by `PeftModel.from_pretrained`. Raises `ProblemError`."""
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        return PeftModel.from_pretrained(model, str(folder)).eval()
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
