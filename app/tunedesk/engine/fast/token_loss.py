"""The loss of the trained tokens: scores over the vocabulary by chunks, their gradient formed in the same pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunedesk.core.plan import SCORED_TOKENS
from tunedesk.engine.fast import kernels, products

_ROUND = 64

PLAIN = {
    "cohere", "cohere2", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "granite", "llama", "mistral", "mixtral",
    "olmo", "olmo2", "olmo3", "phi", "phi3", "qwen2", "qwen3", "smollm3", "stablelm", "starcoder2",
}  # fmt: skip
"""Model types whose scores are a linear layer on the last hidden state, scaled or capped as `Head` says."""


@dataclass(frozen=True)
class Head:
    """scores = hidden W' + b, times `scale` (Cohere, Granite), softly capped at `cap` (Gemma 2) unless it is 0."""

    weight: Tensor
    bias: Tensor | None
    scale: float = 1.0
    cap: float = 0.0


def plain_head(model: Any) -> Head | None:
    """The head of `model` (a causal LM of transformers, not peft's), or None when it is not known to be this plain."""
    config, layer = model.config, model.get_output_embeddings()
    if config.model_type not in PLAIN or type(layer) is not nn.Linear or layer.weight.requires_grad:
        return None
    scale = {"granite": lambda: 1.0 / config.logits_scaling, "cohere": lambda: config.logit_scale,
             "cohere2": lambda: config.logit_scale}.get(config.model_type, lambda: 1.0)()  # fmt: skip
    cap = getattr(config, "final_logit_softcapping", None) or 0.0
    return Head(layer.weight.detach(), None if layer.bias is None else layer.bias.detach(), float(scale), float(cap))


class TokenLoss(torch.autograd.Function):
    """Summed cross entropy, in nats, fp32, of hidden (T, H) for targets (T,) under a frozen head (V, H)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        ctx.gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for losses in _by_chunks(hidden, targets, head, ctx.gradient):
            total += losses.sum()
        return total

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        return (None if gradient is None else gradient.mul_(outer.to(gradient.dtype))), None, None


class TokenLosses(torch.autograd.Function):
    """The cross entropy of each token by itself, in nats, fp32 (T,); otherwise as `TokenLoss`."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Head) -> Tensor:
        ctx.gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        parts = list(_by_chunks(hidden, targets, head, ctx.gradient))
        return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        return (None if gradient is None else gradient.mul_(outer[:, None])), None, None


def _by_chunks(hidden: Tensor, targets: Tensor, head: Head, gradient: Tensor | None) -> Iterator[Tensor]:
    """The cross entropies of `SCORED_TOKENS` tokens at a time; their gradients go into `gradient` (T, H)."""
    for start in range(0, len(targets), SCORED_TOKENS):
        part, goal = _filled(hidden[start : start + SCORED_TOKENS], targets[start : start + SCORED_TOKENS])
        count = min(SCORED_TOKENS, len(targets) - start)
        scores = products.across(part, head.weight, head.bias)
        losses = kernels.cross_entropy(scores, goal, 0.0 if gradient is None else 1.0, head.scale, head.cap)
        yield losses[:count]
        if gradient is not None:
            gradient[start : start + count] = products.back_long(scores, head.weight)[:count]


def _filled(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both filled up with zeros to a rounded number of rows, so that matrix shapes repeat."""
    missing = -len(targets) % _ROUND
    return functional.pad(hidden, (0, 0, 0, missing)), functional.pad(targets, (0, missing))


class RowNorm(torch.autograd.Function):
    """`kernels.norm` of x (T, H) with a frozen weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out = torch.empty_like(x)
        _, rstd = kernels.norm(x, None, weight, out, eps)
        ctx.save_for_backward(x, weight, rstd)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, weight, rstd = ctx.saved_tensors
        return kernels.norm_backward(grad.contiguous(), x, weight, rstd, torch.zeros_like(x)), None, None
