"""LoRA and QLoRA through peft: thin matrices beside frozen ones, plain or packed in 4 bits.

Hu et al. 2021 (LoRA), Dettmers et al. 2023 (QLoRA), Kalajdzievski 2023 (rsLoRA), Liu et al. 2024 (DoRA), Meng et al.
2024 (PiSSA), Hayou et al. 2024 (LoRA+).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunedesk.core.counts import ATTENTION_NAMES
from tunedesk.core.problems import Problem, ProblemError, did_you_mean
from tunedesk.core.spec import MethodSection
from tunedesk.engine.loading import new_parts
from tunedesk.engine.methods.base import Setting, Weights, task_type
from tunedesk.engine.methods.through_peft import PeftTuned, RawPeftTuned, heads, wrapped

_PISSA = "pissa_niter_16"
"""The principal parts by 16 rounds of a randomised SVD: seconds instead of hours, and as good (Meng et al. 2024)."""


class LoraTuned(PeftTuned):
    """LoRA in training. With LoRA+ the matrix that starts at zero learns `ratio` times as fast."""

    lean = True

    def __init__(self, model: PeftModel, ratio: float | None) -> None:
        super().__init__(model)
        self._ratio = ratio

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        if self._ratio is None:
            return super().groups()
        named = [item for item in self.model.named_parameters() if item[1].requires_grad]
        fast = [parameter for name, parameter in named if ".lora_B." in name]
        slow = [parameter for name, parameter in named if ".lora_B." not in name]
        return [(slow, 1.0), (fast, self._ratio)]


class PissaTuned(LoraTuned, RawPeftTuned):
    """LoRA that began with the principal parts of the weights, which were taken out of the base.

    It is saved as plain LoRA of twice the rank, what is there now less what was there at first, so that it loads onto
    the untouched base: W - s B0 A0 + s B A = W + s [B, -B0] [A; A0].
    """

    def __init__(self, model: PeftModel, ratio: float | None) -> None:
        super().__init__(model, ratio)
        self._first = {name: tensor.clone() for name, tensor in PeftTuned.weights(self).items()}

    def weights(self) -> Weights:
        return {name: self._since(name, tensor) for name, tensor in PeftTuned.weights(self).items()}

    def _since(self, name: str, now: torch.Tensor) -> torch.Tensor:
        if name.endswith("lora_A.weight"):
            return torch.cat([now, self._first[name]])
        if name.endswith("lora_B.weight"):
            return torch.cat([now, -self._first[name]], dim=1)
        return now

    def config(self) -> dict[str, Any]:
        config = super().config()
        growth = math.sqrt(2) if config["use_rslora"] else 2  # alpha / rank, or alpha / sqrt(rank), stays as it was
        return {
            **config,
            "r": 2 * config["r"],
            "lora_alpha": config["lora_alpha"] * growth,
            "init_lora_weights": True,
        }


def attach(model: PreTrainedModel, setting: Setting) -> LoraTuned:
    """`model` with a fresh LoRA adapter in fp32. Raises `ProblemError` when a target module is not in the model."""
    section = setting.section
    new = new_parts(model)
    config = LoraConfig(
        r=section.rank,
        lora_dropout=section.dropout,
        use_rslora=section.rslora,
        use_dora=section.dora,
        init_lora_weights=_PISSA if section.init == "pissa" else True,
        **family(model, setting, new),
    )
    tuned = wrapped(model, config, setting)
    leave_casts(tuned)
    kind = PissaTuned if section.init == "pissa" else LoraTuned
    return kind(tuned, section.lora_plus_ratio)


def attach_plain(
    model: PreTrainedModel, method: MethodSection, alpha: float, checkpointing: bool, seed: int
) -> PeftModel:
    """The PeftModel alone of `attach`."""
    tuned: PeftModel = attach(model, Setting(method, alpha, checkpointing, seed)).model
    return tuned


def family(model: PreTrainedModel, setting: Setting, new: list[str]) -> dict[str, Any]:
    """What the configurations of LoRA and its kin have in common; `new` parts get no adapter and are trained whole."""
    return {
        "task_type": task_type(model),
        "modules_to_save": heads(new),
        "exclude_modules": rf"({'|'.join(map(re.escape, new))})(\..*)?" if new else None,
        "lora_alpha": _whole(setting.alpha),
        "target_modules": target_names(model, setting.section.target_modules),
        "fan_in_fan_out": any(isinstance(module, Conv1D) for module in model.modules()),
    }


def leave_casts(tuned: PeftModel) -> None:
    """Leave the number format of inputs to autocast; peft would go by way of fp32 and keep that."""
    for module in tuned.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False


def target_names(model: nn.Module, targets: Any) -> str | list[str]:
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


def linear_names(model: nn.Module) -> list[str]:
    """The last names of all linear layers that may get an adapter, the commonest first."""
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    names = Counter(
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    )
    return [name for name, _ in names.most_common()]


def _matches(model: nn.Module, wanted: str) -> bool:
    return any(
        (name == wanted or name.endswith(f".{wanted}")) and isinstance(module, nn.Linear | Conv1D)
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
