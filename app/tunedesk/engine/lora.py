"""LoRA on a frozen base, plain or packed in 4 bits, through peft."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunedesk.core.plan import ATTENTION_NAMES
from tunedesk.core.problems import Problem, ProblemError, did_you_mean
from tunedesk.core.spec import MethodSection
from tunedesk.engine.loading import new_parts


def attach(model: PreTrainedModel, method: MethodSection, alpha: float, checkpointing: bool, seed: int) -> PeftModel:
    """`model` with a fresh adapter in fp32, ready to train; the base is frozen.

    Raises `ProblemError` when a target module is not in the model.
    """
    new = new_parts(model)
    config = LoraConfig(
        task_type="SEQ_CLS" if new else "CAUSAL_LM",
        modules_to_save=[name.rpartition(".")[2] for name in new] or None,
        exclude_modules=rf"({'|'.join(map(re.escape, new))})(\..*)?" if new else None,
        r=method.rank,
        lora_alpha=_whole(alpha),
        lora_dropout=method.dropout,
        target_modules=target_names(model, method.target_modules),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    torch.manual_seed(seed)
    tuned: PeftModel = get_peft_model(model, config, autocast_adapter_dtype=True)
    for module in tuned.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False  # autocast does it; peft would go by way of fp32 and keep that
    for parameter in trainable(tuned):
        parameter.data = parameter.data.float()  # a new head
    return tuned


def target_names(model: torch.nn.Module, targets: Any) -> str | list[str]:
    """The names that peft matches: ``all-linear``, the attention layers, or the stated names, checked."""
    if targets == "all-linear":
        return "all-linear"
    there = linear_names(model)
    if targets == "attention":
        found = [name for name in there if name in ATTENTION_NAMES]
        if not found:
            raise ProblemError(_no_match("attention", there))
        return found
    wrong = [name for name in targets if not _matches(model, name)]
    if wrong or not targets:
        raise ProblemError([_no_match(name, there) for name in wrong] or [_no_match("", there)])
    return list(targets)


def linear_names(model: torch.nn.Module) -> list[str]:
    """The last names of all linear layers that may get an adapter, the commonest first."""
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    names = Counter(
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    )
    return [name for name, _ in names.most_common()]


def _matches(model: torch.nn.Module, wanted: str) -> bool:
    return any(
        (name == wanted or name.endswith(f".{wanted}")) and isinstance(module, torch.nn.Linear | Conv1D)
        for name, module in model.named_modules()
    )


def _no_match(name: str, there: list[str]) -> Problem:
    close = did_you_mean(name, there)
    return Problem(
        code="method.target_modules",
        what=f"No linear layer of this model is called '{name}'." if name else "No layer is named to get an adapter.",
        where="RUN.toml, key 'target_modules' in [method].",
        found=f"Names there: {', '.join(there)}.",
        fix=close if "Did you mean" in close else 'Use these names, or target_modules = "all-linear".',
    )


def _whole(value: float) -> int | float:
    return int(value) if value == int(value) else value


def trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The parameters that learn, in a fixed order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
