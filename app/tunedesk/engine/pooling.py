"""The scores of a classifier that reads from left to right: those of the last token that is no padding."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from tunedesk.engine.loading import new_parts
from tunedesk.engine.methods import OwnModel


def pooled_scores(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """What the classifier `model` says of texts that are padded at the right, (rows, outputs), with gradient.

    Encoders make one thing of a text before they score it. Decoders score every token, and transformers then looks for
    the last one that is not the padding token: wrong where a text ends in that token, and where virtual tokens came
    before the text, for then it takes the last place of all. So their scores are caught at the head, and the last real
    token is found by the mask.
    """
    base = model.get_base_model() if isinstance(model, PeftModel | OwnModel) else model
    caught: list[Tensor] = []

    def catch(_: nn.Module, arguments: Any, scores: Tensor) -> None:
        del arguments
        caught.append(scores)

    hook = base.get_submodule(head_name(base)).register_forward_hook(catch)
    try:
        pooled: Tensor = model(**known_inputs(base, inputs)).logits
    finally:
        hook.remove()
    if caught[-1].dim() == 2:
        return pooled
    mask = inputs["attention_mask"]
    before = caught[-1].shape[1] - mask.shape[1]  # virtual tokens
    return caught[-1][torch.arange(len(mask), device=mask.device), before + mask.sum(1) - 1]


def head_name(base: Any) -> str:
    """The name of the layer that gives the scores: the last of the new parts, a pooler aside."""
    return [part for part in new_parts(base) if "." not in part][-1]


def known_inputs(base: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """`inputs` without token types where the model tells no types apart, whatever its tokenizer gives."""
    types = (getattr(base.config, "type_vocab_size", 0) or 0) > 1
    return {name: tensor for name, tensor in inputs.items() if types or name != "token_type_ids"}
