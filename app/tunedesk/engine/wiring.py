"""How a model is put together, taken down before something is attached to it, so that it can be put back exactly.

Methods attach in many ways: modules are replaced or wrapped (LoRA, IA³), hooked (bottleneck adapters), given other
weights (full, BitFit, an output layer of its own), and some break off in the middle. What they have in common is what
they can touch, and this is what is kept here: references, no copies of weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel

_TABLES = ("_modules", "_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs",
           "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called")  # fmt: skip
"""Where torch keeps the parts of a module, and what is called before and after it."""


class Wiring:
    """The parts, hooks, weights and configuration of `model` as they are when this is made.

    Not its buffers, nor weights packed in 4 bits, which their own modules bring into another form when first used.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._names = set(vars(model))
        self._config = dict(vars(model.config))
        self._modules = [(module, _tables(module)) for module in model.modules()]
        self._weights = [
            (item, item.data, item.requires_grad) for item in model.parameters() if not hasattr(item, "quant_state")
        ]

    def restore(self) -> None:
        """Put everything back. What was attached is gone with the last reference to it."""
        for module, tables in self._modules:
            for name, table in tables.items():
                setattr(module, name, table.copy())
        for parameter, data, learns in self._weights:
            if parameter.data_ptr() != data.data_ptr() or parameter.dtype != data.dtype:
                parameter.data = data
            parameter.requires_grad_(learns)
        for name in set(vars(self._model)) - self._names:
            delattr(self._model, name)
        vars(self._model.config).clear()
        vars(self._model.config).update(self._config)


def _tables(module: nn.Module) -> dict[str, Any]:
    packed = any(hasattr(item, "quant_state") for item in module.parameters(recurse=False))
    names = _TABLES if packed else (*_TABLES, "_parameters")
    return {name: table.copy() for name in names if isinstance(table := vars(module).get(name), dict | OrderedDict)}


@contextmanager
def left_packed(model: nn.Module) -> Iterator[None]:
    """Within it, `state_dict`, which peft asks for to learn names, does not touch weights packed in 4 bits.

    On processors with bf16 products bitsandbytes holds them in a form of its own, and would bring them back from it
    first, by way of a second rounding of their scales.
    """
    states = [state for item in model.parameters() if (state := getattr(item, "quant_state", None)) is not None]
    formed = [state for state in states if getattr(state, "packing_format_for_cpu", False)]
    for state in formed:
        state.packing_format_for_cpu = False
    try:
        yield
    finally:
        for state in formed:
            state.packing_format_for_cpu = True
