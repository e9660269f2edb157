"""Classifiers on the fast path: whole encoder layers as one function each, or lean adapters under transformers' own.

Either way frozen layers keep their own number format without autocast, and the head, which is trained, is in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from tunedesk.engine.fast.encoder_block import EncoderBlock, EncoderBlockFunction, Texts, fits
from tunedesk.engine.fast.lean_linear import Scratch, lean, make_lean
from tunedesk.engine.pooling import known_inputs, pooled_scores

_DROPOUTS = 3
"""Of one layer: the shares of attention, and both outputs."""


class LeanClassifier:
    """`model` rearranged in place; the adapter stays peft's."""

    def __init__(self, model: PeftModel) -> None:
        base: Any = model.get_base_model()
        self._model, self._base = model, base
        self._anchor = torch.zeros((), requires_grad=True)
        scratch: Scratch = {}
        layers = _layers(base)
        fused = base.device.type == "cpu" and bool(layers) and not _checkpointed(base)
        fused = fused and all(fits(layer) for layer in layers) and type(base).__name__ in _HEADS
        self._blocks = [EncoderBlock(layer, base.dtype, scratch) for layer in layers] if fused else []
        self._groups = [group for block in self._blocks for group in block.groups]
        inside = {id(module) for layer in layers for module in layer.modules()} if fused else set()
        for module in base.modules():
            if isinstance(module, LoraLayer) and id(module) not in inside:
                self._groups.append(make_lean(module, self._anchor, base.dtype, scratch))
            if isinstance(module, ModulesToSaveWrapper):
                module.register_forward_pre_hook(_in_fp32)

    def scores(self, inputs: dict[str, Tensor]) -> Tensor:
        """The labels' scores (rows, labels), with gradient, of what transformers' forward takes."""
        for group in self._groups:
            group.refresh()
        if not self._blocks:
            return pooled_scores(self._model, inputs)
        inputs = known_inputs(self._base, inputs)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        types = {"token_type_ids": inputs["token_type_ids"]} if "token_type_ids" in inputs else {}
        body: Any = getattr(self._base, self._base.base_model_prefix)
        h = body.embeddings(input_ids=ids, **types)
        rows, length, width = h.shape
        padded = bool((mask == 0).any())
        unseen = torch.where(mask[:, None] == 0, torch.finfo(h.dtype).min, 0.0).to(h.dtype) if padded else None
        texts = Texts(rows, length, unseen)
        h = h.reshape(-1, width)
        learning = False
        for block in self._blocks:
            learning = learning or block.learns
            anchor = self._anchor if learning else self._anchor.detach()
            h = EncoderBlockFunction.apply(h, anchor, block, texts, self._seeds())  # type: ignore[no-untyped-call]
        scores: Tensor = _HEADS[type(self._base).__name__](self._base, h.view(rows, length, width))
        return scores

    def _seeds(self) -> tuple[int, ...]:
        """Of one layer's dropouts, from torch's own generator: a resumed run draws the same."""
        return tuple(torch.randint(2**31, (_DROPOUTS,)).tolist()) if self._model.training else ()


def _bert(model: Any, hidden: Tensor) -> Tensor:
    out: Tensor = model.classifier(model.dropout(model.bert.pooler(hidden)))
    return out


def _roberta(model: Any, hidden: Tensor) -> Tensor:
    out: Tensor = model.classifier(hidden)
    return out


def _distilbert(model: Any, hidden: Tensor) -> Tensor:
    out: Tensor = model.classifier(model.dropout(torch.relu(model.pre_classifier(hidden[:, 0]))))
    return out


_HEADS = {
    "BertForSequenceClassification": _bert,
    "RobertaForSequenceClassification": _roberta,
    "DistilBertForSequenceClassification": _distilbert,
}
"""How each family comes from the last hidden state (rows, L, H) to scores."""


def _layers(base: Any) -> list[nn.Module]:
    body = getattr(base, base.base_model_prefix, None)
    inner = getattr(body, "encoder", None) or getattr(body, "transformer", None)
    return list(getattr(inner, "layer", ()))


def _checkpointed(base: Any) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in base.modules())


def _in_fp32(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The trained head is held in fp32."""
    return tuple(item.float() if isinstance(item, Tensor) else item for item in inputs)


def make_lean_classifier(model: PeftModel) -> LeanClassifier | None:
    """`LeanClassifier` of `model`, or None when a layer has an adapter that is not plain LoRA."""
    base: Any = model.get_base_model()
    layers = [module for module in base.modules() if isinstance(module, LoraLayer)]
    return LeanClassifier(model) if layers and all(lean(layer) for layer in layers) else None
