"""A whole decoder layer of the LLaMA kind as one function: forward, and by hand backward.

Llama, Mistral and Qwen2 share it: RMS norm, attention with rotary positions and grouped keys, RMS norm, SwiGLU. What
lies between two matrix products is one pass over memory. Kept for the way back are the two residuals, q, k, v, the
attention's output and the two halves of the feed-forward; the activation is formed again, the norms need not be.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tunedesk.engine.fast import attention, kernels
from tunedesk.engine.fast.lean_linear import Group, Scratch, lean
from tunedesk.engine.fast.packing import Heads, Slots

KINDS = {"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer"}
"""Layers of transformers that compute just this."""


class Block:
    """The parts of one decoder layer."""

    def __init__(self, layer: Any, dtype: torch.dtype, scratch: Scratch) -> None:
        attention_part, feed = layer.self_attn, layer.mlp
        self.norms = (layer.input_layernorm, layer.post_attention_layernorm)
        self.qkv = Group([attention_part.q_proj, attention_part.k_proj, attention_part.v_proj], dtype, scratch)
        self.out = Group([attention_part.o_proj], dtype, scratch)
        self.gate_up = Group([feed.gate_proj, feed.up_proj], dtype, scratch)
        self.down = Group([feed.down_proj], dtype, scratch)
        width = attention_part.head_dim
        keys = _outputs(attention_part.k_proj) // width
        window = _window(attention_part)
        self.heads = Heads(self.out.inputs // width, keys, width, float(attention_part.scaling), window)
        self.groups = (self.qkv, self.out, self.gate_up, self.down)

    @property
    def learns(self) -> bool:
        return any(group.learns for group in self.groups)

    def norm_weight(self, which: int) -> Tensor:
        weight: Tensor = self.norms[which].weight
        return weight.detach()

    def norm(self, which: int, x: Tensor, add: Tensor | None, out: Tensor) -> tuple[Tensor, Tensor]:
        """`kernels.norm` with the weight of the first or second norm."""
        module: Any = self.norms[which]
        return kernels.norm(x, add, self.norm_weight(which), out, module.variance_epsilon)

    def norm_backward(self, which: int, grad: Tensor, x: Tensor, rstd: Tensor, add: Tensor) -> Tensor:
        return kernels.norm_backward(grad, x, self.norm_weight(which), rstd, add)

    def forward(self, h: Tensor, turn: attention.Turn, slots: Slots) -> tuple[Tensor, tuple[Tensor, ...]]:
        """h (M, H) to (the layer's output (M, H), what `backward` needs)."""
        count = h.shape[0]
        x = self.qkv.room(count)
        _, rstd_1 = self.norm(0, h, None, x[:, : self.qkv.inputs])
        inner_1, qkv = self.qkv.forward(x)
        o = self.out.room(count)
        attended = attention.forward(qkv, turn, slots, self.heads, o[:, : self.out.inputs])
        inner_2, y = self.out.forward(o)
        x = self.gate_up.room(count)
        middle, rstd_2 = self.norm(1, h, y, x[:, : self.gate_up.inputs])
        active = self.down.room(count)
        inner_3, both = self.gate_up.forward(x, active[:, : self.down.inputs])
        inner_4, z = self.down.forward(active)
        kept = (rstd_1, inner_1, o, inner_2, middle, rstd_2, inner_3, both, inner_4, *attended)
        return z.add_(middle), kept

    def backward(
        self, grad: Tensor, h: Tensor, kept: tuple[Tensor, ...], turn: attention.Turn, slots: Slots, wanted: bool
    ) -> Tensor | None:
        """The gradient of h, if `wanted`, from that of the output, both (M, H). Adapters get theirs on the way."""
        rstd_1, inner_1, o, inner_2, middle, rstd_2, inner_3, both, inner_4, *attended = kept
        d_both, d_inner, x = self.down.into_swiglu(grad, both)
        self.down.learn(grad, d_inner, x, inner_4)
        d_x, d_inner = self.gate_up.into(d_both)
        self.gate_up.learn(d_both, d_inner, middle, inner_3, (rstd_2, self.norm_weight(1)))
        d_middle = self.norm_backward(1, d_x, middle, rstd_2, grad)
        d_x, d_inner = self.out.into(d_middle)
        o = o[:, : self.out.inputs]
        self.out.learn(d_middle, d_inner, o, inner_2)
        d_qkv = attention.backward(d_x, o, tuple(attended), turn, slots, self.heads)
        d_x, d_inner = self.qkv.into(d_qkv, wanted)
        self.qkv.learn(d_qkv, d_inner, h, inner_1, (rstd_1, self.norm_weight(0)))
        return self.norm_backward(0, d_x, h, rstd_1, d_middle) if wanted else None


def fits(layer: nn.Module) -> bool:
    """Whether `Block` computes what `layer` does."""
    if type(layer).__name__ not in KINDS:
        return False
    parts: Any = layer
    attention_part, feed = parts.self_attn, parts.mlp
    linears = [getattr(attention_part, f"{name}_proj") for name in "qkvo"]
    linears += [feed.gate_proj, feed.up_proj, feed.down_proj]
    return (
        all(lean(linear) for linear in linears)
        and feed.config.hidden_act in ("silu", "swish")
        and not attention_part.attention_dropout
        and attention_part.head_dim % 2 == 0
    )


def _window(attention_part: Any) -> int:
    """The sliding window, 0 for none: Mistral reads it from the configuration, Qwen2 has one in each layer."""
    own = getattr(attention_part, "sliding_window", None)
    mistral = type(attention_part).__name__ == "MistralAttention"
    return int((getattr(attention_part.config, "sliding_window", None) if mistral else own) or 0)


def _outputs(layer: Any) -> int:
    return int(layer.out_features)


class BlockFunction(torch.autograd.Function):
    """`Block` for autograd. `anchor` asks for gradients: the first layer learns, though its input needs none."""

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        anchor: Tensor,  # noqa: ARG004 (see above)
        block: Block,
        turn: attention.Turn,
        slots: Slots,
        again: bool,
    ) -> Tensor:
        out, kept = block.forward(h, turn, slots)
        ctx.save_for_backward(h, *(() if again else kept))
        ctx.about = block, turn, slots
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        block, turn, slots = ctx.about
        h, *kept = ctx.saved_tensors
        if not kept:
            kept = block.forward(h, turn, slots)[1]
        to_h = block.backward(grad.contiguous(), h, tuple(kept), turn, slots, ctx.needs_input_grad[0])
        return to_h, None, None, None, None, None
