"""How many weights each method trains on a model, by the formulas of the papers. Pure arithmetic on `ModelInfo`."""

from __future__ import annotations

import math

from tunedesk.core.describe import LinearShape, ModelInfo
from tunedesk.core.spec import MethodName, MethodSection

ATTENTION_NAMES = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "qkv_proj",
    "query_key_value",
    "c_attn",
    "query",
    "key",
    "value",
    "q_lin",
    "k_lin",
    "v_lin",
    "q",
    "k",
    "v",
    "o",
)
KEY_NAMES = ("k_proj", "key", "k_lin", "k", "key_proj")
VALUE_NAMES = ("v_proj", "value", "v_lin", "v", "value_proj")
FUSED_NAMES = ("c_attn", "qkv_proj", "query_key_value", "Wqkv")
"""Layers that give queries, keys and values at once."""

_ATTENTION_OUTPUTS = ("o_proj", "out_proj", "out_lin", "o")
"""Layers that end attention: of the shape of those that end a feed-forward where all heads are as wide as that."""

WIDE_HEADS = ("DistilBERT", "RoBERTa", "MPNet", "Xlm Roberta", "Camembert", "Electra")
"""Families whose classifiers have a dense layer of the hidden size before the last one."""

_ADALORA_START = 1.5
"""Rank at first over rank at the end (Zhang et al. 2023, section 4)."""

_LSTM_LAYERS = 2
"""Layers of the LSTM that P-tuning's virtual tokens come from (Liu et al. 2021; peft's default)."""


def trainable_parameters(name: MethodName, section: MethodSection, model: ModelInfo, labels: int = 0) -> int:
    """Weights that the method `name` trains on `model` with the settings of `section`, the largest number at once.

    With `labels` the model is a classifier, and every method trains its new head too. A model that does not say how
    many biases it has counts as having none.
    """
    return _inside(name, section, model, labels) + head_parameters(model, labels)


def _inside(name: MethodName, section: MethodSection, model: ModelInfo, labels: int) -> int:
    match name:
        case "lora" | "qlora":
            return lora_parameters(model, section.rank, section.target_modules, dora=section.dora)
        case "adalora":
            return _adalora(model, section)
        case "ia3":
            return _ia3(model)
        case "prefix_tuning":
            return _prefix(model, section)
        case "prompt_tuning":
            return _prompt(model, section)
        case "p_tuning":
            return _prompt(model, section) + _prompt_encoder(model, section)
        case "houlsby":
            return _houlsby(model, section.waist(model.hidden_size))
        case "compacter":
            return _compacter(model, section.waist(model.hidden_size), section.hypercomplex)
        case "bitfit":
            return model.biases or 0
        case "last_layer":
            return 0 if labels else model.vocabulary * (model.embedding_size or model.hidden_size)
        case "full":
            replaced = model.kind == "decoder" and labels > 0 and not model.tied_embeddings
            return model.parameters - (model.vocabulary * model.hidden_size if replaced else 0)


def head_parameters(model: ModelInfo, labels: int) -> int:
    """Weights of a classifier's new head: one layer, after one of the hidden size in some families of encoders.

    The head of a decoder has no bias (transformers' `score`).
    """
    if labels == 0:
        return 0
    if model.kind == "decoder":
        return model.hidden_size * labels
    wide = model.hidden_size * (model.hidden_size + 1) if model.family in WIDE_HEADS else 0
    return (model.hidden_size + 1) * labels + wide


def trained_linears(model: ModelInfo, targets: str | tuple[str, ...]) -> list[tuple[int, int, int]]:
    """(in_features, out_features, count) of the linear layers that get an adapter."""
    chosen = [item for item in model.linears if _is_target(item.name, targets)]
    return [(item.in_features, item.out_features, item.count) for item in chosen]


def _is_target(name: str, targets: str | tuple[str, ...]) -> bool:
    if targets == "all-linear":
        return True
    return name in (ATTENTION_NAMES if targets == "attention" else targets)


def lora_parameters(model: ModelInfo, rank: int, targets: str | tuple[str, ...], *, dora: bool = False) -> int:
    """rank x (in + out) per matrix (Hu et al. 2021); DoRA learns a length for each output too (Liu et al. 2024)."""
    return sum((rank * (i + o) + (o if dora else 0)) * count for i, o, count in trained_linears(model, targets))


def _adalora(model: ModelInfo, section: MethodSection) -> int:
    """rank x (in + out + 1) per matrix, as P L Q, at the rank of the start (Zhang et al. 2023)."""
    rank = math.ceil(_ADALORA_START * section.rank)
    return sum(rank * (i + o + 1) * count for i, o, count in trained_linears(model, section.target_modules))


def _ia3(model: ModelInfo) -> int:
    """One factor for each key, value and inner activation: d_k + d_v + d_ff a layer (Liu et al. 2022).

    Where one matrix gives queries, keys and values, all its outputs are scaled.
    """
    scaled = _named(model, KEY_NAMES) + _named(model, VALUE_NAMES) or _named(model, FUSED_NAMES)
    inner = sum(item.in_features * item.count for item in feed_forward_outputs(model))
    return sum(item.out_features * item.count for item in scaled) + inner


def _prefix(model: ModelInfo, section: MethodSection) -> int:
    """A key and a value for each virtual token in each layer (Li and Liang 2021); a seq2seq model's decoder alone.

    peft 0.21 reaches all layers of that by an odd number of them only: with an even one there is one to spare.
    By way of the small network (section 4.3): an embedding and two layers, the last as wide as all keys and values.
    """
    width = key_width(model)
    every_layer = (decoder_layers(model) | 1 if model.kind == "seq2seq" else model.layers) * 2 * width
    if not section.prefix_projection:
        return section.virtual_tokens * every_layer
    inner = width if section.encoder_hidden_size == "auto" else section.encoder_hidden_size
    return section.virtual_tokens * width + (width + 1) * inner + (inner + 1) * every_layer


def _prompt(model: ModelInfo, section: MethodSection) -> int:
    """tokens x embedding (Lester et al. 2021); in a seq2seq model before the text that is read."""
    return section.virtual_tokens * (model.embedding_size or model.hidden_size)


def _prompt_encoder(model: ModelInfo, section: MethodSection) -> int:
    """The network of P-tuning while training (Liu et al. 2021, as in peft): three layers, or a two-way LSTM and two."""
    width = model.embedding_size or model.hidden_size
    inner = model.hidden_size if section.encoder_hidden_size == "auto" else section.encoder_hidden_size
    if section.encoder == "mlp":
        return (width + 1) * inner + (inner + 1) * inner + (inner + 1) * width
    inputs = [width, *[2 * inner] * (_LSTM_LAYERS - 1)]
    lstm = sum(2 * 4 * inner * (size + inner + 2) for size in inputs)
    return lstm + (2 * inner + 1) * 2 * inner + (2 * inner + 1) * width


def _houlsby(model: ModelInfo, waist: int) -> int:
    """Two adapters a block, each 2 d m + d + m (Houlsby et al. 2019, section 2.1)."""
    return 2 * blocks(model) * (2 * model.hidden_size * waist + model.hidden_size + waist)


def _compacter(model: ModelInfo, waist: int, pieces: int) -> int:
    """Two adapters a block, each 2 (d + m) and biases d + m, and n³ shared ones (Karimi Mahabadi et al. 2021)."""
    return 2 * blocks(model) * 3 * (model.hidden_size + waist) + pieces**3


def blocks(model: ModelInfo) -> int:
    """Blocks of attention and feed-forward; layers that share their weights are one (ALBERT)."""
    outputs = sum(item.count for item in feed_forward_outputs(model))
    return outputs or model.layers * (2 if model.kind == "seq2seq" else 1)


def decoder_layers(model: ModelInfo) -> int:
    """Layers of a seq2seq model's decoder, each with two matrices of keys; as many as the encoder's if unknown."""
    keys = sum(item.count for item in _named(model, KEY_NAMES))
    return (keys - model.layers) // 2 if keys > model.layers else model.layers


def feed_forward_outputs(model: ModelInfo) -> tuple[LinearShape, ...]:
    """The linear layers that end a feed-forward network, known by their shape."""
    inner, outer = model.intermediate_size, model.hidden_size
    return tuple(
        item
        for item in model.linears
        if (item.in_features, item.out_features) == (inner, outer) and item.name not in _ATTENTION_OUTPUTS
    )


def key_width(model: ModelInfo) -> int:
    """Width of all key heads of a layer together."""
    keys = _named(model, KEY_NAMES)
    if keys:
        return keys[0].out_features
    return model.hidden_size * model.key_value_heads // max(1, model.attention_heads)


def _named(model: ModelInfo, names: tuple[str, ...]) -> tuple[LinearShape, ...]:
    return tuple(item for item in model.linears if item.name in names)
