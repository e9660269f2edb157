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
        model = self.model
        before = model.forward, model._adapters_disabled
        model.forward, model._adapters_disabled = model.base_model.forward, True
        try:
            yield
        finally:
            model.forward, model._adapters_disabled = before

    def remember(self) -> None:
        """Nothing is needed: without the virtual tokens it is the model that it was."""

    @contextmanager
    def reference(self) -> Iterator[None]:
        with self.untouched():
            yield


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
    shape = decoder_shape(model) if model.config.is_encoder_decoder else {}
    config = PrefixTuningConfig(
        prefix_projection=section.prefix_projection,
        init_weights=None if section.prefix_projection else "zero",
        **{**_common(model, setting), **shape, **options},
    )
    return PromptTuned(wrapped(model, config, setting), section.virtual_tokens)


def attach_prompt(model: PreTrainedModel, setting: Setting) -> PromptTuned:
    """Embeddings before the input; of an encoder-decoder before the text that is read, as in Lester et al. 2021.

    peft by itself would keep as many again for the decoder, which it never uses.
    """
    section = setting.section
    text = {}
    if section.prompt_init == "text":
        text = {"prompt_tuning_init_text": section.prompt_text, "tokenizer_name_or_path": setting.tokenizer}
    common = {**_common(model, setting), "token_dim": _embedding_width(model)}
    config = PromptTuningConfig(prompt_tuning_init=_STARTS[section.prompt_init], **common, **text)
    return PromptTuned(wrapped(model, config, setting), section.virtual_tokens)


def attach_p_tuning(model: PreTrainedModel, setting: Setting) -> PromptTuned:
    """Embeddings before the input that a small network makes of trained ones."""
    section = setting.section
    width = section.encoder_hidden_size
    config = PromptEncoderConfig(
        encoder_reparameterization_type=section.encoder.upper(),
        encoder_hidden_size=model.config.hidden_size if width == "auto" else width,
        **{**_common(model, setting), "token_dim": _embedding_width(model)},
    )
    return PromptTuned(wrapped(model, config, setting), section.virtual_tokens)


def _embedding_width(model: PreTrainedModel) -> int:
    """How wide an embedding is: in ALBERT and small ELECTRA models narrower than the layers."""
    return int(model.get_input_embeddings().weight.shape[1])


def _common(model: PreTrainedModel, setting: Setting) -> dict[str, Any]:
    new, shape = new_parts(model), model.config
    return {
        "task_type": task_type(model),
        "num_virtual_tokens": setting.section.virtual_tokens,
        "modules_to_save": heads(new),
        "token_dim": shape.hidden_size,
        "num_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_transformer_submodules": 1,
    }


def decoder_layers(model: PreTrainedModel) -> int:
    """The layers of an encoder-decoder's decoder."""
    shape = model.config
    stated = getattr(shape, "num_decoder_layers", None) or getattr(shape, "decoder_layers", None)
    return int(stated or shape.num_hidden_layers)


def decoder_shape(model: PreTrainedModel) -> dict[str, Any]:
    """How keys and values of an encoder-decoder's decoder are shaped; T5's heads together may be wider than the model.

    peft 0.21 deals the pairs of keys and values out by twos, self-attention and cross-attention in turn, from all
    pairs twice over, and drops those for cross-attention: of an even number of layers each second pair is never used,
    and layers half the depth apart share theirs. An odd number reaches every layer with its own, so where layers are
    even in number there is one pair to spare.
    """
    shape = model.config
    heads = getattr(shape, "decoder_attention_heads", shape.num_attention_heads)
    width = getattr(shape, "d_kv", shape.hidden_size // heads) * heads
    return {
        "token_dim": width,
        "num_layers": decoder_layers(model) | 1,
        "num_attention_heads": heads,
        "num_transformer_submodules": 2,
    }


def virtual_tokens(model: Any) -> int:
    """The places that the adapter on `model` takes from the context."""
    config = model.active_peft_config if isinstance(model, PeftModel) else None
    return config.num_virtual_tokens if config is not None and config.is_prompt_learning else 0


def writer(model: Any) -> Any:
    """What generates as `model` does: the base, where a prompt is switched off that peft's `generate` would add."""
    return model.get_base_model() if isinstance(model, PeftModel) and model._adapters_disabled else model


def prepended(model: Any) -> int:
    """How many positions the scores of `model` have before those of the text."""
    if not isinstance(model, PeftModel) or model._adapters_disabled:
        return 0
    config = model.active_peft_config
    return config.num_virtual_tokens if config.peft_type in (PeftType.PROMPT_TUNING, PeftType.P_TUNING) else 0
