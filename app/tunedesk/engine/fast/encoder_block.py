"""A whole encoder layer of the BERT kind as one function: forward, and by hand backward.

BERT, RoBERTa and DistilBERT share it: attention over all of a text, residual, layer norm, GELU feed-forward, residual,
layer norm (Devlin et al. 2019). Texts are padded to one length L and sorted by length, so that little of it is padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunedesk.engine.fast import kernels
from tunedesk.engine.fast.lean_linear import Group, Scratch, lean

_ONLY_INPUT = [True, False, False]
"""Of a layer norm's three gradients: weight and bias are frozen."""


@dataclass(frozen=True)
class Parts:
    """One layer's modules and numbers, whatever the family calls them. Dropout is a share from 0 to 1."""

    query: nn.Module
    key: nn.Module
    value: nn.Module
    out: nn.Module
    up: nn.Module
    down: nn.Module
    norms: tuple[nn.LayerNorm, nn.LayerNorm]
    heads: int
    activation: Any
    attention_dropout: float
    out_dropout: float
    down_dropout: float


def parts_of(layer: Any) -> Parts | None:
    """The parts of a layer of BERT, RoBERTa or DistilBERT; None for any other."""
    name = type(layer).__name__
    if name in ("BertLayer", "RobertaLayer") and not layer.is_decoder:
        own, out, down = layer.attention.self, layer.attention.output, layer.output
        return Parts(
            own.query, own.key, own.value, out.dense, layer.intermediate.dense, down.dense,
            (out.LayerNorm, down.LayerNorm), own.num_attention_heads, layer.intermediate.intermediate_act_fn,
            own.dropout.p, out.dropout.p, down.dropout.p,
        )  # fmt: skip
    if name == "TransformerBlock" and hasattr(layer, "sa_layer_norm"):
        own, feed = layer.attention, layer.ffn
        return Parts(
            own.q_lin, own.k_lin, own.v_lin, own.out_lin, feed.lin1, feed.lin2,
            (layer.sa_layer_norm, layer.output_layer_norm), own.n_heads, feed.activation,
            own.dropout.p, 0.0, feed.dropout.p,
        )  # fmt: skip
    return None


def fits(layer: nn.Module) -> bool:
    """Whether `EncoderBlock` computes what `layer` does."""
    parts = parts_of(layer)
    return (
        parts is not None
        and all(lean(item) for item in (parts.query, parts.key, parts.value, parts.out, parts.up, parts.down))
        and (isinstance(parts.activation, nn.GELU) or type(parts.activation).__name__ == "GELUActivation")
        and getattr(parts.activation, "approximate", "none") == "none"
    )


@dataclass(frozen=True)
class Texts:
    """`rows` texts of `length` tokens; `unseen` (B, 1, L) is 0 where there is a token, and very low for padding."""

    rows: int
    length: int
    unseen: Tensor | None


class EncoderBlock:
    """The parts of one encoder layer. M = B L tokens, H wide, in heads of D."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype, scratch: Scratch) -> None:
        parts = parts_of(layer)
        assert parts is not None
        self.parts = parts
        self.qkv = Group([parts.query, parts.key, parts.value], dtype, scratch)
        self.out, self.up, self.down = (Group([part], dtype, scratch) for part in (parts.out, parts.up, parts.down))
        self.groups = (self.qkv, self.out, self.up, self.down)
        self.width = self.out.inputs // parts.heads

    @property
    def learns(self) -> bool:
        return any(group.learns for group in self.groups)

    def forward(self, h: Tensor, texts: Texts, seeds: tuple[int, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """h (M, H) to (the layer's output (M, H), what `backward` needs). `seeds` are its dropouts', in training."""
        count, parts = h.shape[0], self.parts
        x = self.qkv.room(count)
        x[:, : self.qkv.inputs] = h
        inner_1, joint = self.qkv.forward(x)
        o = self.out.room(count)
        attended = self._attend(joint, texts, seeds, o[:, : self.out.inputs])
        inner_2, y = self.out.forward(o)
        first = self._drop(y, parts.out_dropout, seeds, 1).add_(h)
        middle, mean_1, rstd_1 = _norm(first, parts.norms[0])
        x = self.up.room(count)
        x[:, : self.up.inputs] = middle
        inner_3, raised = self.up.forward(x)
        active = self.down.room(count)
        active[:, : self.down.inputs] = functional.gelu(raised)
        inner_4, z = self.down.forward(active)
        second = self._drop(z, parts.down_dropout, seeds, 2).add_(middle)
        result, mean_2, rstd_2 = _norm(second, parts.norms[1])
        return result, (
            inner_1, o, inner_2, first, mean_1, rstd_1, middle,
            inner_3, raised, active, inner_4, second, mean_2, rstd_2, *attended,
        )  # fmt: skip

    def backward(
        self, grad: Tensor, h: Tensor, kept: tuple[Tensor, ...], texts: Texts, seeds: tuple[int, ...], wanted: bool
    ) -> Tensor | None:
        """The gradient of h, if `wanted`, from that of the output, both (M, H). Adapters get theirs on the way."""
        (inner_1, o, inner_2, first, mean_1, rstd_1, middle, inner_3, raised, active, inner_4, second, mean_2, rstd_2,
         *attended) = kept  # fmt: skip
        parts = self.parts
        d_second = _norm_backward(grad, second, mean_2, rstd_2, parts.norms[1])
        d_z = self._drop(d_second, parts.down_dropout, seeds, 2)
        d_active, d_inner = self.down.into(d_z)
        self.down.learn(d_z, d_inner, active[:, : self.down.inputs], inner_4)
        d_raised = torch.ops.aten.gelu_backward(d_active, raised)
        d_x, d_inner = self.up.into(d_raised)
        self.up.learn(d_raised, d_inner, middle, inner_3)
        d_first = _norm_backward(d_second.add(d_x), first, mean_1, rstd_1, parts.norms[0])
        d_y = self._drop(d_first, parts.out_dropout, seeds, 1)
        d_o, d_inner = self.out.into(d_y)
        self.out.learn(d_y, d_inner, o[:, : self.out.inputs], inner_2)
        d_joint = self._attend_backward(d_o, tuple(attended), texts, seeds)
        d_x, d_inner = self.qkv.into(d_joint, wanted)
        self.qkv.learn(d_joint, d_inner, h, inner_1)
        return d_first.add(d_x) if wanted else None

    def _drop(self, x: Tensor, share: float, seeds: tuple[int, ...], which: int) -> Tensor:
        """A copy of x with dropout; the same of its gradient on the way back. Without any, x itself."""
        return kernels.dropout(x, share, seeds[which]) if seeds and share else x

    def _attend(self, joint: Tensor, texts: Texts, seeds: tuple[int, ...], out: Tensor) -> tuple[Tensor, Tensor]:
        """Rows q, k, v (M, 3 H) to `out` (M, H). Gives these by head (3, B heads, L, D), and the shares."""
        rows, length, heads = texts.rows, texts.length, self.parts.heads
        split = joint.view(rows, length, 3, heads, self.width).permute(2, 0, 3, 1, 4)
        split = split.reshape(3, rows * heads, length, self.width)
        query, key, value = split
        scores = torch.bmm(query, key.transpose(1, 2)).mul_(self.width**-0.5)
        if texts.unseen is not None:
            scores.view(rows, heads * length, length).add_(texts.unseen)
        shares = scores.softmax(-1)
        dropped = self._drop(shares, self.parts.attention_dropout, seeds, 0)
        mixed = torch.bmm(dropped, value).view(rows, heads, length, self.width)
        out.view(rows, length, heads, self.width).copy_(mixed.transpose(1, 2))
        return split, shares

    def _attend_backward(
        self, d_out: Tensor, attended: tuple[Tensor, ...], texts: Texts, seeds: tuple[int, ...]
    ) -> Tensor:
        split, shares = attended
        rows, length, heads = texts.rows, texts.length, self.parts.heads
        query, key, value = split
        d_mixed = d_out.view(rows, length, heads, self.width).transpose(1, 2).reshape(query.shape)
        dropped = self._drop(shares, self.parts.attention_dropout, seeds, 0)
        d_dropped = torch.bmm(d_mixed, value.transpose(1, 2))
        d_shares = self._drop(d_dropped, self.parts.attention_dropout, seeds, 0)
        d_scores = torch._softmax_backward_data(d_shares, shares, -1, shares.dtype).mul_(self.width**-0.5)
        d_split = torch.empty_like(split)
        torch.bmm(d_scores, key, out=d_split[0])
        torch.bmm(d_scores.transpose(1, 2), query, out=d_split[1])
        torch.bmm(dropped.transpose(1, 2), d_mixed, out=d_split[2])
        d_split = d_split.view(3, rows, heads, length, self.width).permute(1, 3, 0, 2, 4)
        return d_split.reshape(rows * length, -1)


def _norm(x: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor, Tensor]:
    out: tuple[Tensor, Tensor, Tensor] = torch.native_layer_norm(x, x.shape[1:], norm.weight, norm.bias, norm.eps)
    return out


def _norm_backward(grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, norm: nn.LayerNorm) -> Tensor:
    gradients = torch.ops.aten.native_layer_norm_backward(
        grad, x, x.shape[1:], mean, rstd, norm.weight, norm.bias, _ONLY_INPUT
    )
    result: Tensor = gradients[0]
    return result


class EncoderBlockFunction(torch.autograd.Function):
    """`EncoderBlock` for autograd. `anchor` asks for gradients: the first layer learns, though its input needs none."""

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        anchor: Tensor,  # noqa: ARG004 (see above)
        block: EncoderBlock,
        texts: Texts,
        seeds: tuple[int, ...],
    ) -> Tensor:
        out, kept = block.forward(h, texts, seeds)
        ctx.save_for_backward(h, *kept)
        ctx.about = block, texts, seeds
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        block, texts, seeds = ctx.about
        h, *kept = ctx.saved_tensors
        to_h = block.backward(grad.contiguous(), h, tuple(kept), texts, seeds, ctx.needs_input_grad[0])
        return to_h, None, None, None, None
