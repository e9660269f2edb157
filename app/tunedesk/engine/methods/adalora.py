"""AdaLoRA through peft: LoRA as B E A whose rank moves to the matrices that need it (Zhang et al. 2023).

The importance of each rank is smoothed over the steps; after every step the least important are set to zero, ever more
of them until the mean rank is the one that was asked for.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import AdaLoraConfig
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunedesk.engine.loading import new_parts
from tunedesk.engine.methods.base import Setting, Weights
from tunedesk.engine.methods.lora import family, leave_casts
from tunedesk.engine.methods.through_peft import RawPeftTuned, wrapped

_START = 1.5
"""Rank at first over rank at the end (Zhang et al. 2023, section 3.3)."""

_BEFORE, _AFTER = 0.12, 0.5
"""Shares of the steps before the first cut and after the last, about those of the paper's GLUE runs."""

_ORTHOGONALITY = 0.5
"""Weight of the term that keeps A and B orthogonal; the paper tries 0.1, 0.3 and 0.5."""


class AdaLoraTuned(RawPeftTuned):
    """AdaLoRA in training, with the importance of every rank."""

    def penalty(self) -> Tensor:
        distances = [_distance(name, parameter) for name, parameter in self.model.named_parameters() if _thin(name)]
        return _ORTHOGONALITY * (sum(distances, start=torch.zeros((), device=self.model.device)) / len(distances))

    def after_step(self, step: int) -> None:
        self.model.base_model.update_and_allocate(step)

    def rest(self) -> dict[str, Any]:
        allocator = self.model.base_model.rankallocator
        smoothed = {"mean": allocator.exp_avg_ipt, "spread": allocator.exp_avg_unc}
        return {
            **super().rest(),
            **{key: {name: tensor.cpu() for name, tensor in held.items()} for key, held in smoothed.items()},
            "rank_pattern": self._config.rank_pattern,
        }

    def restore(self, weights: Weights, rest: dict[str, Any]) -> None:
        super().restore(weights, rest)
        allocator, device = self.model.base_model.rankallocator, self.model.device
        allocator.exp_avg_ipt = {name: tensor.to(device) for name, tensor in rest["mean"].items()}
        allocator.exp_avg_unc = {name: tensor.to(device) for name, tensor in rest["spread"].items()}
        allocator.ipt = {name: torch.zeros_like(tensor) for name, tensor in allocator.exp_avg_ipt.items()}
        self._config.rank_pattern = rest["rank_pattern"]

    @property
    def _config(self) -> Any:
        return self.model.peft_config[self.model.active_adapter]


def _thin(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def _distance(name: str, matrix: nn.Parameter) -> Tensor:
    """How far the rank's vectors are from being orthonormal: the Frobenius norm of P P' - 1."""
    products = matrix @ matrix.T if ".lora_A." in name else matrix.T @ matrix
    distance: Tensor = torch.linalg.norm(products - torch.eye(len(products), device=matrix.device))
    return distance


def attach(model: PreTrainedModel, setting: Setting) -> AdaLoraTuned:
    """`model` with a fresh AdaLoRA adapter in fp32. Raises `ProblemError` when a target module is not in the model."""
    rank, steps = setting.section.rank, setting.total_steps
    config = AdaLoraConfig(
        target_r=rank,
        init_r=-int(-_START * rank // 1),
        tinit=int(_BEFORE * steps),
        tfinal=int(_AFTER * steps),
        deltaT=1,  # a rank that is zero now stays zero in the file
        orth_reg_weight=_ORTHOGONALITY,
        total_step=steps,
        lora_dropout=setting.section.dropout,
        **family(model, setting, new_parts(model)),
    )
    tuned = wrapped(model, config, setting)
    leave_casts(tuned)
    return AdaLoraTuned(tuned)
