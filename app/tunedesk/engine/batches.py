"""From token rows to tensors: which rows a step sees, padded micro-batches, and the loss of their trained tokens."""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import modeling_utils

from tunedesk.engine.render import TokenRow

_CHUNK = 512
"""Trained tokens whose scores over the vocabulary are held in fp32 at once."""

_ROUND = 32
"""Padded lengths are multiples: oneDNN keeps up to a megabyte for each new shape of a matrix product, for good."""


@dataclass(frozen=True)
class Batch:
    """Rows padded at the right to one length T, as (rows, T) tensors.

    `predicts` is true where the next token is a trained one; `targets` are those tokens, row by row.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    predicts: torch.Tensor
    targets: torch.Tensor
    tokens: int

    @property
    def trained(self) -> int:
        return self.targets.numel()

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`."""
        return Batch(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.predicts.to(device),
            self.targets.to(device),
            self.tokens,
        )


def epoch_order(rows: int, seed: int, epoch: int) -> list[int]:
    """The order of the rows in `epoch` (from 0); the same for the same three numbers, on any machine."""
    order = list(range(rows))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def step_rows(rows: Sequence[TokenRow], step: int, per_step: int, seed: int) -> list[TokenRow]:
    """The rows of the optimiser step `step` (from 1). The last step of an epoch may have fewer than `per_step`."""
    per_epoch = -(-len(rows) // per_step)
    epoch, place = divmod(step - 1, per_epoch)
    order = epoch_order(len(rows), seed, epoch)
    return [rows[index] for index in order[place * per_step : (place + 1) * per_step]]


def micro_batches(rows: Sequence[TokenRow], size: int, pad_id: int) -> list[Batch]:
    """`rows` in batches of at most `size`, like lengths together so that little is padded."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    return [collate(ordered[start : start + size], pad_id) for start in range(0, len(ordered), size)]


def collate(rows: Sequence[TokenRow], pad_id: int) -> Batch:
    """One batch of `rows`, on the CPU."""
    length = max(len(row.ids) for row in rows)
    if len(rows) > 1:
        length = -(-length // _ROUND) * _ROUND
    ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    trained = torch.zeros((len(rows), length), dtype=torch.bool)
    for place, row in enumerate(rows):
        count = len(row.ids)
        ids[place, :count] = torch.tensor(row.ids, dtype=torch.long)
        mask[place, :count] = 1
        trained[place, :count] = torch.tensor(list(row.trained), dtype=torch.bool)
    trained[:, 0] = False
    predicts = torch.zeros_like(trained)
    predicts[:, :-1] = trained[:, 1:]
    return Batch(ids, mask, predicts, ids[trained], int(mask.sum()))


def batch_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The sum of the cross entropies of the batch's trained tokens, in nats, as an fp32 scalar with gradient."""
    options: dict[str, Any] = {"logits_to_keep": batch.predicts} if scores_where_asked(model) else {}
    # Without padding no mask is needed, which lets the attention take its fast causal path.
    mask = None if batch.tokens == batch.input_ids.numel() else batch.attention_mask
    out = model(input_ids=batch.input_ids, attention_mask=mask, use_cache=False, **options)
    scores = out.logits if options else out.logits[batch.predicts]
    loss: torch.Tensor = TokenLoss.apply(scores, batch.targets)  # type: ignore[no-untyped-call]
    return loss


def scores_where_asked(model: torch.nn.Module) -> bool:
    """Whether the model can compute scores at the positions of a boolean mask alone."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return (
        hasattr(modeling_utils, "slice_logits_to_keep")
        and "logits_to_keep" in inspect.signature(base.forward).parameters
    )


class TokenLoss(torch.autograd.Function):
    """Summed cross entropy of (tokens, vocabulary) scores, in fp32 by chunks.

    The gradient is formed in the forward pass and kept in the scores' own number format, so that scores in fp32 never
    exist for more than `_CHUNK` tokens.
    """

    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=scores.device)
        gradient = torch.empty_like(scores) if scores.requires_grad else None
        for start in range(0, len(targets), _CHUNK):
            part = scores[start : start + _CHUNK].float()
            wanted = targets[start : start + _CHUNK, None]
            log_sum = part.logsumexp(-1, keepdim=True)
            total += (log_sum - part.gather(-1, wanted)).sum()
            if gradient is not None:
                shares = part.sub(log_sum).exp_()  # not in place: fp32 scores are `part` itself
                shares.scatter_add_(-1, wanted, torch.full_like(log_sum, -1.0))
                gradient[start : start + _CHUNK] = shares
        ctx.gradient = gradient
        return total

    @staticmethod
    def backward(ctx: Any, outer: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        return (None if gradient is None else gradient.mul_(outer.item())), None
