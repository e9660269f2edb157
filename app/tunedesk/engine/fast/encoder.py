"""Classifiers on the fast path: lean adapters under transformers' own layers, and a head in fp32."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from tunedesk.engine.fast.lean_linear import Scratch, lean, make_lean


class LeanClassifier:
    """`model` rearranged in place, so that it needs no autocast: frozen layers in their own number format."""

    def __init__(self, model: PeftModel) -> None:
        base: Any = model.get_base_model()
        anchor = torch.zeros((), requires_grad=True)
        scratch: Scratch = {}
        layers = [module for module in base.modules() if isinstance(module, LoraLayer)]
        self._groups = [make_lean(layer, anchor, base.dtype, scratch) for layer in layers]
        for module in base.modules():
            if isinstance(module, ModulesToSaveWrapper):
                module.register_forward_pre_hook(_in_fp32)

    def refresh(self) -> None:
        """Renew the copies of the adapters that the products read."""
        for group in self._groups:
            group.refresh()


def _in_fp32(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The trained head is held in fp32."""
    return tuple(item.float() if isinstance(item, Tensor) else item for item in inputs)


def make_lean_classifier(model: PeftModel) -> LeanClassifier | None:
    """`LeanClassifier` of `model`, or None when a layer has an adapter that is not plain LoRA."""
    base: Any = model.get_base_model()
    layers = [module for module in base.modules() if isinstance(module, LoraLayer)]
    return LeanClassifier(model) if all(lean(layer) for layer in layers) else None
