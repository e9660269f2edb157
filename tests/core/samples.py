"""Ready-made descriptions for tests of pure code: figures of real models, rounded."""

from __future__ import annotations

from tunedesk.core.describe import DataInfo, LinearShape, ModelInfo, TokenStats
from tunedesk.core.hardware import GIB, Device


def model(
    *,
    name: str = "SmolLM2-135M-Instruct",
    hidden: int = 576,
    feed: int = 1536,
    layers: int = 30,
    heads: int = 9,
    kv: int = 3,
    vocabulary: int = 49152,
    tied: bool = True,
    **changes: object,
) -> ModelInfo:
    """A LLaMA-shaped model; the parameter count follows from its dimensions."""
    head = hidden // heads
    linears = (
        LinearShape(name="q_proj", in_features=hidden, out_features=hidden, count=layers),
        LinearShape(name="k_proj", in_features=hidden, out_features=head * kv, count=layers),
        LinearShape(name="v_proj", in_features=hidden, out_features=head * kv, count=layers),
        LinearShape(name="o_proj", in_features=hidden, out_features=hidden, count=layers),
        LinearShape(name="gate_proj", in_features=hidden, out_features=feed, count=layers),
        LinearShape(name="up_proj", in_features=hidden, out_features=feed, count=layers),
        LinearShape(name="down_proj", in_features=feed, out_features=hidden, count=layers),
    )
    linear = sum(item.in_features * item.out_features * item.count for item in linears)
    parameters = linear + vocabulary * hidden * (1 if tied else 2) + hidden * (2 * layers + 1)
    fields: dict[str, object] = {
        "source": "starter:chat",
        "path": "/models/smol",
        "name": name,
        "family": "llama",
        "architecture": "LlamaForCausalLM",
        "kind": "decoder",
        "parameters": parameters,
        "weight_bytes": parameters * 2,
        "dtype": "bfloat16",
        "context_length": 8192,
        "vocabulary": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": feed,
        "layers": layers,
        "attention_heads": heads,
        "key_value_heads": kv,
        "tied_embeddings": tied,
        "linears": linears,
        "licence": "apache-2.0",
        "has_chat_template": True,
        "tasks": ("chat", "completion"),
        "origin": "starter",
        **changes,
    }
    return ModelInfo.model_validate(fields)


def llama_8b() -> ModelInfo:
    """Llama 3.1 8B."""
    return model(
        name="Llama-3.1-8B",
        hidden=4096,
        feed=14336,
        layers=32,
        heads=32,
        kv=8,
        vocabulary=128256,
        tied=False,
        context_length=131072,
    )


def data(*, rows: int = 349, longest: int = 300, **changes: object) -> DataInfo:
    """Short conversations; a tenth is held out."""
    held_out = rows // 10
    tokens = TokenStats(
        tokens=rows * 150,
        trained_tokens=rows * 75,
        median=140,
        p90=220,
        longest=longest,
        bin_width=32,
        histogram=(0, 10, 50, 100, 90, 60, 30, 9),
        max_length=2048,
        cut_rows=0,
        mean_trained=75.0,
    )
    fields: dict[str, object] = {
        "source": "starter:support",
        "path": "/data/support.jsonl",
        "name": "support.jsonl",
        "file_format": "jsonl",
        "bytes": 170_384,
        "rows": rows,
        "layout": "messages",
        "task": "chat",
        "columns": {"messages": "messages"},
        "all_columns": ("messages",),
        "train_rows": rows - held_out,
        "eval_rows": held_out,
        "tokens": tokens,
        "findings": (),
        "sha256": "0" * 64,
        **changes,
    }
    return DataInfo.model_validate(fields)


def device(free_gib: float, total_gib: float | None = None, kind: str = "cuda") -> Device:
    """A card, or a processor, with so much free memory."""
    return Device.model_validate(
        {
            "kind": kind,
            "name": "Test card",
            "total_bytes": int((total_gib or free_gib) * GIB),
            "free_bytes": int(free_gib * GIB),
            "fast_bf16": True,
        }
    )
