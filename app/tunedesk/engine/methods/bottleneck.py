"""What Houlsby and Compacter share: where a layer gets its two adapters, and the model that has them.

Both sit before the residual addition and its norm: after the output projection of attention and after the feed-forward
(Houlsby et al. 2019, figure 2), behind the dropout where there is one, as in the authors' own program. A T5 has them in
the blocks of both its stacks, before the dropout and not after the attention to the source, as in the program of
Karimi Mahabadi et al. 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunedesk.core.problems import ProblemError
from tunedesk.engine.loading import new_parts
from tunedesk.engine.methods.base import (
    OwnModel,
    Setting,
    Weights,
    checkpoint_activations,
    in_fp32,
    task_type,
    unknown_architecture,
)

_PLACES = (
    ("attention.output.dropout", "output.dropout"),  # BERT, RoBERTa, ELECTRA, DeBERTa
    ("attention.dropout", "output.dropout"),  # MPNet
    ("attention.output_dropout", "ffn_output"),  # ALBERT
    ("attention.out_lin", "ffn.dropout"),  # DistilBERT
    ("attn.out_drop", "mlp.Wo"),  # ModernBERT
    ("attn.resid_dropout", "mlp.dropout"),  # GPT-2, GPT-J
    ("self_attn.o_proj", "mlp.down_proj"),  # LLaMA, Mistral, Qwen, Gemma, Phi-3
    ("self_attn.dense", "mlp.fc2"),  # Phi
    ("self_attn.out_proj", "fc2"),  # OPT, BART
    ("layer.0.SelfAttention.o", "layer.1.DenseReluDense.wo"),  # T5's encoder
    ("layer.0.SelfAttention.o", "layer.2.DenseReluDense.wo"),  # T5's decoder
    ("attention.dense", "mlp.dense_4h_to_h"),  # GPT-NeoX
    ("self_attention.dense", "mlp.dense_4h_to_h"),  # Falcon, BLOOM
)
"""In a layer: the module behind whose output attention's adapter sits, and that of the feed-forward."""


class BottleneckModel(OwnModel):
    """A base whose layers have `adapters`, in the order of ``places``; each adds to the output of its module.

    A classifier's head is trained whole. `shared` is what all adapters have in common, if anything.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        method_config: dict[str, Any],
        adapters: Sequence[nn.Module],
        shared: nn.Parameter | None = None,
    ) -> None:
        super().__init__(base, method_config)
        self.adapters = nn.ModuleList(adapters).to(base.device)
        self.common = None if shared is None else nn.Parameter(shared.data.to(base.device))  # a T5 has its own `shared`
        self._on = True
        for place, adapter in zip(method_config["places"], self.adapters, strict=True):
            base.get_submodule(place).register_forward_hook(self._hook(adapter))

    def _hook(self, adapter: nn.Module) -> Any:
        def add(module: nn.Module, inputs: Any, out: Tensor) -> Tensor:  # noqa: ARG001 (torch's signature)
            if not self._on:
                return out
            mixed = torch.is_autocast_enabled(out.device.type)
            x = out if mixed else out.to(self._dtype)
            more: Tensor = adapter(x) if self.common is None else adapter(x, self.common)
            return out + more.to(out.dtype)

        return add

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.adapters.parameters()).dtype

    def switch(self, on: bool) -> None:
        self._on = on

    def state(self) -> Weights:
        mine = {f"adapters.{name}": parameter for name, parameter in self.adapters.named_parameters()}
        if self.common is not None:
            mine["shared"] = self.common
        inside = tuple(f"{part}." for part in self.method_config["trained_parts"])
        head = {name: item for name, item in self.base_model.named_parameters() if inside and name.startswith(inside)}
        return {name: item.detach() for name, item in {**mine, **head}.items()}


def places_of(model: PreTrainedModel, method: str) -> list[str]:
    """The names of the modules whose outputs get an adapter, two a layer, from the first layer to the last.

    Of an encoder-decoder those of both stacks. Raises `ProblemError` for a model whose layers have other names.
    """
    there = {name for name, _ in model.named_modules()}
    stacks = [
        found
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and (found := _places_in(name, len(module), there))
    ]
    wanted = 2 if model.config.is_encoder_decoder else 1
    if len(stacks) < wanted:
        what = "has no layers of attention and feed-forward that it can tell."
        raise ProblemError(unknown_architecture(model, method, what))
    return [place for found in stacks[:wanted] for place in found]


def _places_in(stack: str, layers: int, there: set[str]) -> list[str]:
    """The places in the `layers` of a list of them; none where it is another list."""
    for pair in _PLACES:
        found = [f"{stack}.{number}.{part}" for number in range(layers) for part in pair]
        if found and there.issuperset(found):
            return found
    return []


def prepare(model: PreTrainedModel, setting: Setting) -> None:
    """Freeze `model` but for a classifier's head, and make chance that of the seed."""
    checkpoint_activations(model, setting.checkpointing)
    model.requires_grad_(False)
    for part in new_parts(model):
        in_fp32(list(model.get_submodule(part).parameters()))
    torch.manual_seed(setting.seed)


def common_config(model: PreTrainedModel, method: str) -> dict[str, Any]:
    """What both write into `adapter_config.json`."""
    new = new_parts(model)
    return {
        "peft_type": method.upper(),
        "task_type": task_type(model),
        "places": places_of(model, method),
        "hidden_size": model.config.hidden_size,
        "trained_parts": new,
    }
