"""Tokenizer and base model from a local folder, in the precision and on the device of the plan. safetensors only."""

from __future__ import annotations

import copy
import json
import platform
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from tunedesk.core.describe import ModelInfo, TaskKind
from tunedesk.core.hardware import Device, Hardware, choose_device, read_hardware
from tunedesk.core.matching import unfit, unfit_task
from tunedesk.core.problems import Problem, ProblemError, raise_if_any
from tunedesk.core.spec import MethodName
from tunedesk.engine.label_head import LabelHead
from tunedesk.engine.model_folder import read_header, weight_files

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
_HEAD = "_tunedesk_head"

_UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError, ImportError, SafetensorError,
    StrictDataclassError,
)  # fmt: skip
"""What transformers raises for a folder whose files do not make sense."""

_REPACKED = 32, 64
"""Outputs and inputs of the blocks that bitsandbytes repacks for a CPU."""

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
    head: LabelHead | None = None,
) -> PreTrainedModel:
    """The base model on `device`, its weights in `precision` or, quantised, its linear layers in packed NF4.

    With `head` it is a classifier that gives this, its head new unless the files hold one of that size.
    ``stored`` is the checkpoint's own dtype. Raises `ProblemError` when the folder holds no safetensors of that model.
    """
    transformers_logging.disable_progress_bar()
    dtype = "auto" if precision == "stored" else DTYPES[precision]
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": False}
    if quantised:
        options |= {"quantization_config": nf4(DTYPES[precision], HEADS if head else ()), "device_map": {"": device}}
    if head:
        options |= head.options()
    writes = AutoModelForSeq2SeqLM if info.kind == "seq2seq" else AutoModelForCausalLM
    kind = AutoModelForSequenceClassification if head else writes
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
    new = _new_parts(model, found["missing_keys"]) if head else []
    raise_if_any(_gaps(info, found, new))
    setattr(model, _NEW, new)
    setattr(model, _HEAD, head)
    if head and model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = 0  # batches are refused without; which token pads is in the mask
    if info.kind == "seq2seq" and model.config.decoder_start_token_id is None:
        model.config.decoder_start_token_id = model.config.pad_token_id  # as in all T5 models
    if not quantised:
        model.to(device)
    else:
        _keep_packed(model, for_training)
    model.config.use_cache = not for_training
    if for_training:  # to a prompt's last token alone, torch would apply frozen output weights by way of a copy of them
        model.requires_grad_(False)
    return model


def new_parts(model: PreTrainedModel) -> list[str]:
    """What of a classifier from `load_base` is trained from scratch: its head, and a pooler that the files lack."""
    return list(getattr(model, _NEW, ()))


def head_of(model: PreTrainedModel) -> LabelHead | None:
    """What the outputs of a classifier from `load_base` mean; None of other models."""
    found: LabelHead | None = getattr(model, _HEAD, None)
    return found


def classifier_on(model: PreTrainedModel, head: LabelHead) -> PreTrainedModel:
    """The classifier of `model`'s family on the body of `model`, which both have in common from then on.

    Its outputs mean nothing before an adapter brings their weights, which are zero.
    """
    shell = _shell(model.config, head)
    setattr(shell, shell.base_model_prefix, model.base_model)
    new = _new_parts(shell, [])
    pooler = f"{shell.base_model_prefix}.pooler"
    for part in (shell.get_submodule(name) for name in new):
        part.to_empty(device=model.device).to(model.dtype)
        for parameter in part.parameters():
            torch.nn.init.zeros_(parameter)
    for name in ("is_loaded_in_4bit", "is_quantized", "quantization_method", "hf_quantizer"):
        if hasattr(model, name):
            setattr(shell, name, getattr(model, name))
    setattr(shell, _NEW, [*new, pooler] if pooler in new_parts(model) else new)
    setattr(shell, _HEAD, head)
    return shell.eval()


def skeleton(info: ModelInfo, head: LabelHead | None = None) -> PreTrainedModel:
    """What `load_base` gives, without weights: on torch's meta device, in no memory."""
    config = AutoConfig.from_pretrained(local_path(info), trust_remote_code=False)
    if head:
        model = _shell(config, head)
        names = [item.name for path in weight_files(Path(local_path(info))) for item in read_header(path)]
        pooled = any("pooler." in name for name in names) or getattr(model.base_model, "pooler", None) is None
        setattr(model, _NEW, _new_parts(model, [] if pooled else [f"{model.base_model_prefix}.pooler.dense.weight"]))
        setattr(model, _HEAD, head)
        return model
    kind = AutoModelForSeq2SeqLM if info.kind == "seq2seq" else AutoModelForCausalLM
    with torch.device("meta"):
        written: PreTrainedModel = kind.from_config(config)
    return written


def _shell(config: PretrainedConfig, head: LabelHead) -> PreTrainedModel:
    """The classifier that `config` and `head` describe, on the meta device."""
    own = copy.deepcopy(config)
    for name, value in head.options().items():
        setattr(own, name, value)
    if own.get_text_config().pad_token_id is None:
        own.get_text_config().pad_token_id = 0  # as `load_base`
    with torch.device("meta"):
        shell: PreTrainedModel = AutoModelForSequenceClassification.from_config(own)
    return shell


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


def _keep_packed(model: PreTrainedModel, for_training: bool) -> None:
    """Keep bitsandbytes from repacking weights in place for answering on a CPU.

    While training it would undo the double quantisation; and it fails on layers that are no whole number of its blocks
    (`bitsandbytes.functional._convert_weight_packed_for_cpu`, 0.50).
    """
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            whole = module.out_features % _REPACKED[0] == 0 and module.in_features % _REPACKED[1] == 0
            if for_training or not whole:
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
