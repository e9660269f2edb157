"""Methods that peft has: attached by it, saved in its own format, equal to plain peft to the bit."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PreTrainedModel

from tunedesk.engine.methods.base import Setting, Tuned, Weights, checkpoint_activations, in_fp32, trainable


class PeftTuned(Tuned):
    """A PeftModel in training whose file holds all that a resumed run needs."""

    def __init__(self, model: PeftModel) -> None:
        self.model: Any = model

    def weights(self) -> Weights:
        return dict(get_peft_model_state_dict(self.model, save_embedding_layers=False))

    def config(self) -> dict[str, Any]:
        config = self.model.peft_config[self.model.active_adapter].to_dict()
        config["inference_mode"] = True
        return {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}

    def restore(self, weights: Weights, rest: dict[str, Any]) -> None:
        del rest
        set_peft_model_state_dict(self.model, weights)


class RawPeftTuned(PeftTuned):
    """A PeftModel whose file holds what was learned in another form than it is trained in."""

    def rest(self) -> dict[str, Any]:
        return {"parameters": [parameter.detach().to("cpu", copy=True) for parameter in trainable(self.model)]}

    @torch.no_grad()
    def restore(self, weights: Weights, rest: dict[str, Any]) -> None:
        del weights
        for parameter, value in zip(trainable(self.model), rest["parameters"], strict=True):
            parameter.copy_(value)


def wrapped(model: PreTrainedModel, config: PeftConfig, setting: Setting) -> PeftModel:
    """`model` with a fresh adapter, drawn from the seed, what is trained in fp32; the base is frozen."""
    checkpoint_activations(model, setting.checkpointing)
    torch.manual_seed(setting.seed)
    tuned: PeftModel = get_peft_model(model, config, autocast_adapter_dtype=True)
    in_fp32(trainable(tuned))
    return tuned


def heads(new: list[str]) -> list[str] | None:
    """peft's `modules_to_save`: the last names of a classifier's `new` parts, which are trained whole."""
    return [name.rpartition(".")[2] for name in new] or None
