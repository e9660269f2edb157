"""Tokenizer and base model from a local folder, in the precision and on the device of the plan. safetensors only."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from tunedesk.core.describe import ModelInfo, TaskKind
from tunedesk.core.hardware import Device, Hardware, choose_device, read_hardware
from tunedesk.core.matching import unfit, unfit_task
from tunedesk.core.problems import Problem, ProblemError, raise_if_any
from tunedesk.core.spec import MethodName

Precision = Literal["bf16", "fp16", "fp32"]

DTYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load_tokenizer(info: ModelInfo) -> PreTrainedTokenizerBase:
    """The tokenizer in the model's folder. Raises `ProblemError`."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(local_path(info), trust_remote_code=False)
    except _UNREADABLE as error:
        raise ProblemError(
            Problem(
                code="model.tokenizer",
                what=f"The tokenizer of {info.name} cannot be read.",
                where=info.path or "",
                found=first_line(error),
                fix="The folder needs tokenizer.json (or tokenizer.model) and tokenizer_config.json.",
            )
        ) from error
    return tokenizer


def local_path(info: ModelInfo) -> str:
    """The model's folder on this computer. Raises `ProblemError` when it is not here yet."""
    if info.path is None:
        raise ProblemError(
            Problem(
                code="model.not_here",
                what=f"{info.name} is not on this computer yet.",
                fix="Fetch it first: choose it on the Model page, or start the training while online.",
            )
        )
    return info.path


_NEW = "_tunedesk_new_parts"

_UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError, ImportError, SafetensorError,
    StrictDataclassError,
)  # fmt: skip
"""What transformers raises for a folder whose files do not make sense."""

HEADS = ("classifier", "pre_classifier", "score", "lm_head")
"""Names of output layers in transformers. They are small, and a classifier's are trained: never packed."""


def check_task(info: ModelInfo, task: TaskKind, method: MethodName | None = None) -> None:
    """Raises `ProblemError` when the model cannot do `task`, or not with `method`."""
    problem = unfit(method, info, task) if method else unfit_task(info, task)
    if problem:
        raise ProblemError(problem)


def pick_device(wanted: str) -> Device:
    """The device that `wanted` names, as far as this torch can use it. Raises `ProblemError`."""
    return choose(usable(read_hardware()), wanted)


def choose(hardware: Hardware, wanted: str) -> Device:
    """`core.hardware.choose_device` with its sentence as a `ProblemError`."""
    try:
        return choose_device(hardware, wanted)
    except ValueError as error:
        raise ProblemError(
            Problem(
                code="device.missing",
                what=f"The device '{wanted}' cannot be had.",
                found=str(error),
                fix='Set training.device = "auto" to take what is there.',
            )
        ) from error


def usable(hardware: Hardware) -> Hardware:
    """`hardware` without the GPUs that this build of torch cannot reach."""
    if not hardware.gpus or torch.cuda.is_available():
        return hardware
    built = "is built for the processor alone" if torch.version.cuda is None else "cannot reach the driver"
    note = f"There is a GPU ({hardware.gpus[0].name}), but the installed torch {built}."
    return hardware.model_copy(update={"gpus": (), "gpu_note": note})


def torch_device(device: Device) -> torch.device:
    """The torch device of `device`; of several GPUs the one with most free memory."""
    if device.kind != "cuda":
        return torch.device(device.kind)
    free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
    return torch.device("cuda", free.index(max(free)))


def use_physical_cores() -> None:
    """One thread for each physical core: matrix products gain nothing from hyper-threads."""
    torch.set_num_threads(max(1, read_hardware().physical_cores))


def load_base(
    info: ModelInfo,
    precision: Precision | Literal["stored"],
    device: torch.device,
    quantised: bool = False,
    for_training: bool = True,
    labels: Sequence[str] = (),
) -> PreTrainedModel:
    """The base model on `device`, its weights in `precision` or, quantised, its linear layers in packed NF4.

    With `labels` it is a classifier that gives these, its head new unless the files hold one of that size.
    ``stored`` is the checkpoint's own dtype. Raises `ProblemError` when the folder holds no safetensors of that model.
    """
    transformers_logging.disable_progress_bar()
    dtype = "auto" if precision == "stored" else DTYPES[precision]
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False}
    if quantised:
        options |= {"quantization_config": nf4(DTYPES[precision], HEADS if labels else ()), "device_map": {"": device}}
    if labels:
        options |= {
            "num_labels": len(labels),
            "id2label": dict(enumerate(labels)),
            "label2id": {label: place for place, label in enumerate(labels)},
            "problem_type": "single_label_classification",
        }
    kind = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    if _soft_caps(local_path(info)):
        options["attn_implementation"] = "eager"  # the fused kernels leave out the cap on attention scores
    options["ignore_mismatched_sizes"] = True  # told below, in words
    model: PreTrainedModel
    try:
        model, found = kind.from_pretrained(local_path(info), output_loading_info=True, **options)
    except _UNREADABLE as error:
        raise ProblemError(
            Problem(
                code="model.load",
                what=f"{info.name} cannot be loaded.",
                where=info.path or "",
                found=first_line(error),
                fix="The folder needs config.json and whole *.safetensors files of a model that writes text.",
            )
        ) from error
    found["mismatched_keys"] = [*found["mismatched_keys"], *_misshapen(model)]  # transformers passes over packed ones
    new = _new_parts(model, found["missing_keys"]) if labels else []
    raise_if_any(_gaps(info, found, new))
    setattr(model, _NEW, new)
    if not quantised:
        model.to(device)
    elif for_training:
        _keep_packed(model)
    model.config.use_cache = not for_training
    if for_training:  # to a prompt's last token alone, torch would apply frozen output weights by way of a copy of them
        model.requires_grad_(False)
    return model


def new_parts(model: PreTrainedModel) -> list[str]:
    """What of a classifier from `load_base` is trained from scratch: its head, and a pooler that the files lack."""
    return list(getattr(model, _NEW, ()))


def _new_parts(model: PreTrainedModel, missing: Iterable[str]) -> list[str]:
    base = model.base_model_prefix
    heads = [
        name for name, module in model.named_children() if name != base and next(module.parameters(), None) is not None
    ]
    pooler = f"{base}.pooler"
    return [*heads, pooler] if any(name.startswith(f"{pooler}.") for name in missing) else heads


def _misshapen(model: PreTrainedModel) -> list[str]:
    """Packed weights of another shape than their layer."""
    return [
        f"{name}.weight"
        for name, module in model.named_modules()
        if (state := getattr(getattr(module, "weight", None), "quant_state", None)) is not None
        and tuple(state.shape) != (module.out_features, module.in_features)
    ]


def _gaps(info: ModelInfo, found: dict[str, Any], new: Sequence[str]) -> list[Problem]:
    """Weights that the files lack or hold in another shape, and that are not of a `new` part: random numbers."""
    missing, other = (
        sorted(name for name in names if not name.startswith(tuple(f"{part}." for part in new)))
        for names in (
            found["missing_keys"],
            [str(item[0] if isinstance(item, tuple) else item) for item in found["mismatched_keys"]],
        )
    )
    problems = []
    for code, names, what in (
        ("model.incomplete", missing, "are missing"),
        ("model.mismatch", other, "have another shape than config.json says"),
    ):
        if names:
            more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
            problems.append(
                Problem(
                    code=code,
                    what=f"{len(names):,} of the weights of {info.name} {what}.",
                    where=info.path or "",
                    found=f"{', '.join(names[:3])}{more}.",
                    fix="Download the model again; config.json and the weights must be of one model.",
                )
            )
    return problems


def check_vocabulary(info: ModelInfo, largest: int) -> None:
    """Raises `ProblemError` when a token has no embedding; `largest` is the largest token id of the data."""
    if largest < info.vocabulary:
        return
    raise ProblemError(
        Problem(
            code="model.tokenizer_mismatch",
            what=f"The tokenizer of {info.name} knows more tokens than the model.",
            where=info.path or "",
            found=f"A row needs token {largest:,}; the model has {info.vocabulary:,}, counted from 0.",
            fix="Take tokenizer and weights from the same model.",
        )
    )


def nf4(dtype: torch.dtype, whole: Sequence[str] = ()) -> Any:
    """4-bit NormalFloat with double quantisation, arithmetic in `dtype` (Dettmers et al. 2023).

    Modules named in `whole` are not packed, nor is the output layer.
    """
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(whole) or None,
    )


def _keep_packed(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking weights in place for CPU inference: it undoes the double quantisation."""
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _soft_caps(path: str) -> bool:
    try:
        config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(config.get("attn_logit_softcapping"))


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all parameters and buffers with the scales of packed ones; shared storage is counted once."""
    storages = {}
    for tensor in _tensors(model):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _tensors(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    yield from model.buffers()
    for parameter in model.parameters():
        yield parameter
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            yield from _scales(state)


def _scales(state: Any) -> Iterator[torch.Tensor]:
    for value in (state.absmax, state.code, state.offset):
        if isinstance(value, torch.Tensor):
            yield value
    if getattr(state, "state2", None) is not None:
        yield from _scales(state.state2)


def parameter_count(model: torch.nn.Module) -> int:
    """Weights of the model; a packed one counts what it stands for."""
    count = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        count += state.shape.numel() if state is not None else parameter.numel()
    return count


def versions() -> dict[str, str]:
    """What computes: name to version."""
    import bitsandbytes
    import peft
    import transformers

    import tunedesk

    return {
        "tunedesk": tunedesk.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "bitsandbytes": bitsandbytes.__version__,
    }


def first_line(error: BaseException) -> str:
    """The first line of what an exception says."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
