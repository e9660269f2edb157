"""Eight well-known models, one a family, as `describe_config` describes them: the columns of the table of families."""

from __future__ import annotations

from typing import Any, Literal

from tunedesk.core.describe import LinearShape, ModelInfo, TaskKind

Linear = tuple[str, int, int, int]


def _model(
    name: str,
    family: str,
    architecture: str,
    kind: Literal["decoder", "encoder", "seq2seq"],
    parameters: int,
    vocabulary: int,
    sizes: tuple[int, int, int, int, int],
    biases: int,
    linears: tuple[Linear, ...],
    **facts: Any,
) -> ModelInfo:
    """`sizes`: hidden, intermediate, layers, heads, key heads; a linear: name, in, out, count."""
    hidden, inner, layers, heads, key_heads = sizes
    template = bool(facts.get("has_chat_template", False))
    writes: tuple[TaskKind, ...] = ("completion", "classification", "preference")
    tasks: dict[str, tuple[TaskKind, ...]] = {
        "encoder": ("classification",),
        "decoder": ("chat", *writes) if template else writes,
        "seq2seq": ("seq2seq",),
    }
    fields: dict[str, Any] = {
        "weight_bytes": 2 * parameters,
        "dtype": "bfloat16",
        "context_length": None,
        "tied_embeddings": True,
        "licence": None,
        "has_chat_template": template,
        "origin": "hub",
        "layer_kinds": ("full_attention",),
        "takes_past": True,
        "classifies": True,
        **facts,
    }
    return ModelInfo(
        source=name,
        path=None,
        name=name,
        family=family,
        architecture=architecture,
        kind=kind,
        parameters=parameters,
        vocabulary=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        layers=layers,
        attention_heads=heads,
        key_value_heads=key_heads,
        tasks=tasks[kind],
        biases=biases,
        linears=tuple(LinearShape(name=n, in_features=i, out_features=o, count=c) for n, i, o, c in linears),
        **fields,
    )


def _gated(hidden: int, inner: int, layers: int, queries: int, keys: int) -> tuple[Linear, ...]:
    """The linear layers of LLaMA and its kin."""
    return (
        ("q_proj", hidden, queries, layers),
        ("k_proj", hidden, keys, layers),
        ("v_proj", hidden, keys, layers),
        ("o_proj", queries, hidden, layers),
        ("gate_proj", hidden, inner, layers),
        ("up_proj", hidden, inner, layers),
        ("down_proj", inner, hidden, layers),
    )


FAMILIES: dict[str, ModelInfo] = {
    "BERT": _model(
        "bert-base-uncased",
        "BERT",
        "BertModel",
        "encoder",
        109_482_240,
        30_522,
        (768, 3072, 12, 12, 12),
        102_912,
        (
            ("query", 768, 768, 12),
            ("key", 768, 768, 12),
            ("value", 768, 768, 12),
            ("dense", 768, 768, 13),
            ("dense", 768, 3072, 12),
            ("dense", 3072, 768, 12),
        ),
        context_length=512,
    ),
    "DistilBERT": _model(
        "distilbert-base-uncased",
        "DistilBERT",
        "DistilBertModel",
        "encoder",
        66_362_880,
        30_522,
        (768, 3072, 6, 12, 12),
        51_456,
        (
            ("q_lin", 768, 768, 6),
            ("k_lin", 768, 768, 6),
            ("v_lin", 768, 768, 6),
            ("out_lin", 768, 768, 6),
            ("lin1", 768, 3072, 6),
            ("lin2", 3072, 768, 6),
        ),
        context_length=512,
        takes_past=False,
    ),
    "GPT-2": _model(
        "gpt2",
        "GPT-2",
        "GPT2LMHeadModel",
        "decoder",
        124_439_808,
        50_257,
        (768, 3072, 12, 12, 12),
        102_144,
        (
            ("c_attn", 768, 2304, 12),
            ("c_proj", 768, 768, 12),
            ("c_fc", 768, 3072, 12),
            ("c_proj", 3072, 768, 12),
        ),
        context_length=1024,
    ),
    "LLaMA": _model(
        "Llama-3.2-1B-Instruct",
        "LLaMA",
        "LlamaForCausalLM",
        "decoder",
        1_235_814_400,
        128_256,
        (2048, 8192, 16, 32, 8),
        0,
        _gated(2048, 8192, 16, 2048, 512),
        context_length=131_072,
        has_chat_template=True,
    ),
    "Qwen": _model(
        "Qwen2.5-0.5B-Instruct",
        "Qwen2",
        "Qwen2ForCausalLM",
        "decoder",
        494_032_768,
        151_936,
        (896, 4864, 24, 14, 2),
        27_648,
        _gated(896, 4864, 24, 896, 128),
        context_length=32_768,
        has_chat_template=True,
    ),
    "Gemma": _model(
        "gemma-2-2b-it",
        "Gemma2",
        "Gemma2ForCausalLM",
        "decoder",
        2_614_341_888,
        256_000,
        (2304, 9216, 26, 8, 4),
        0,
        _gated(2304, 9216, 26, 2048, 1024),
        context_length=8192,
        has_chat_template=True,
        layer_kinds=("sliding_attention", "full_attention"),
        sliding_window=4096,
    ),
    "Mistral": _model(
        "Mistral-7B-Instruct-v0.3",
        "Mistral",
        "MistralForCausalLM",
        "decoder",
        7_248_023_552,
        32_768,
        (4096, 14336, 32, 32, 8),
        0,
        _gated(4096, 14336, 32, 4096, 1024),
        context_length=32_768,
        has_chat_template=True,
        tied_embeddings=False,
    ),
    "T5": _model(
        "flan-t5-base",
        "T5",
        "T5ForConditionalGeneration",
        "seq2seq",
        247_577_856,
        32_128,
        (768, 2048, 12, 12, 12),
        0,
        (
            ("q", 768, 768, 36),
            ("k", 768, 768, 36),
            ("v", 768, 768, 36),
            ("o", 768, 768, 36),
            ("wi_0", 768, 2048, 24),
            ("wi_1", 768, 2048, 24),
            ("wo", 2048, 768, 24),
        ),
        tied_embeddings=False,
    ),
}
"""By the family's short name, in the order of the table."""
