"""Trained places before the text, through peft: prefix tuning, prompt tuning and P-tuning.

Li and Liang 2021 (keys and values before each layer's own), Lester et al. 2021 (embeddings before the input), Liu et
al. 2021 (embeddings that a small network makes while training).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import PeftModel, PeftType, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig
from transformers import PreTrainedModel

from tunedesk.core.problems import Problem, ProblemError
from tunedesk.engine.loading import new_parts
from tunedesk.engine.methods.base import Setting, task_type, unknown_architecture
from tunedesk.engine.methods.through_peft import RawPeftTuned, heads, wrapped

_STARTS = {"random": "RANDOM", "text": "TEXT", "vocabulary": "SAMPLE_VOCAB"}


class PromptTuned(RawPeftTuned):
    """Virtual tokens in training. They are saved as what the small network makes of them, without the network."""

    def __init__(self, model: PeftModel, virtual_tokens: int) -> None:
        super().__init__(model)
        self.virtual_tokens = virtual_tokens

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """As peft's `disable_adapter`, which wants a model that generates."""
        model, with_prompt = self.model, self.model.forward
        model.forward, model._adapters_disabled = model.base_model.forward, True
        try:
            yield
        finally:
            model.forward, model._adapters_disabled = with_prompt, False


def attach_prefix(model: PreTrainedModel, setting: Setting) -> PromptTuned:
    """Keys and values before each layer's own. Raises `ProblemError` for a model that takes none.

    Trained directly they start at zero: drawn at random they doubled the loss of the starter model, from 4.3 to 8.8
    nats, and six steps on they were behind still, 6.2 to 4.1. The network's start is small by itself.
    """
    section = setting.section
    inner = model if not new_parts(model) else model.base_model
    if "past_key_values" not in inspect.signature(inner.forward).parameters:
        what = "takes no keys and values from outside."
        raise ProblemError(unknown_architecture(model, "prefix_tuning", what))
    if setting.checkpointing:
        raise ProblemError(
            Problem(
                code="method.checkpointing",
                what="Prefix tuning cannot recompute activations: its keys and values come in as a cache.",
                where="RUN.toml, key 'gradient_checkpointing' in [training].",
                fix="Set training.gradient_checkpointing = false; a smaller micro_batch_size saves memory too.",
            )
        )
    options = {} if section.encoder_hidden_size == "auto" else {"encoder_hidden_size": section.encoder_hidden_size}
    config = PrefixTuningConfig(
        prefix_projection=section.prefix_projection,
        init_weights=None if section.prefix_projection else "zero",
        **_common(model, setting),
        **options,
    )
    return PromptTuned(wrapped(model, config, setting), section.virtual_tokens)


def attach_prompt(model: PreTrainedModel, setting: Setting) -> PromptTuned:
    """Embeddings before the input."""
    section = setting.section
    text = {}
    if section.prompt_init == "text":
        text = {"prompt_tuning_init_text": section.prompt_text, "tokenizer_name_or_path": setting.tokenizer}
    config = PromptTuningConfig(prompt_tuning_init=_STARTS[section.prompt_init], **_common(model, setting), **text)
    return PromptTuned(wrapped(model, config, setting), section.virtual_tokens)


def attach_p_tuning(model: PreTrainedModel, setting: Setting) -> PromptTuned:
    """Embeddings before the input that a small network makes of trained ones."""
    section = setting.section
    width = section.encoder_hidden_size
    config = PromptEncoderConfig(
        encoder_reparameterization_type=section.encoder.upper(),
        encoder_hidden_size=model.config.hidden_size if width == "auto" else width,
        **_common(model, setting),
    )
    return PromptTuned(wrapped(model, config, setting), section.virtual_tokens)


def _common(model: PreTrainedModel, setting: Setting) -> dict[str, Any]:
    new, shape = new_parts(model), model.config
    return {
        "task_type": task_type(new),
        "num_virtual_tokens": setting.section.virtual_tokens,
        "modules_to_save": heads(new),
        "token_dim": shape.hidden_size,
        "num_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
    }


def virtual_tokens(model: Any) -> int:
    """The places that the adapter on `model` takes from the context."""
    config = model.active_peft_config if isinstance(model, PeftModel) else None
    return config.num_virtual_tokens if config is not None and config.is_prompt_learning else 0


def prepended(model: Any) -> int:
    """How many positions the scores of `model` have before those of the text."""
    if not isinstance(model, PeftModel) or model._adapters_disabled:
        return 0
    config = model.active_peft_config
    return config.num_virtual_tokens if config.peft_type in (PeftType.PROMPT_TUNING, PeftType.P_TUNING) else 0
