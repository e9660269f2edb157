"""From token rows to tensors: which rows a step sees, padded micro-batches, and the loss of their trained tokens."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from transformers import modeling_utils

from tunedesk.engine.fast.packing import Pack, groups, pack
from tunedesk.engine.label_head import LabelHead
from tunedesk.engine.label_rows import LabelRow
from tunedesk.engine.methods import OwnModel, prepended
from tunedesk.engine.render import TokenRow

_CHUNK = 512
"""Trained tokens whose scores over the vocabulary are held in fp32 at once."""

_POOL = 50
"""Steps whose rows are sorted together: enough for like lengths, few enough for chance."""

LABEL_ROUND = 8
"""What the lengths of classification rows are rounded up to: these are short, and 32 would be mostly padding."""

ROUND = 32
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


class Steps:
    """Which rows each optimiser step sees: every row once an epoch, in an order that the seed decides, on any machine.

    With `grouped`, rows of like length come together: the shuffled rows are sorted within pools of 50 steps, or four
    pools of few rows, and the steps shuffled, as transformers' length-grouped sampler does.
    """

    def __init__(self, rows: Sequence[TokenRow], per_step: int, seed: int, grouped: bool = False) -> None:
        self._rows = rows
        self._per_step = per_step
        self._seed = seed
        self._grouped = grouped
        self._epoch: int | None = None
        self._order: list[int] = []

    def rows(self, step: int) -> list[TokenRow]:
        """The rows of `step` (from 1). The last step of an epoch may have fewer than `per_step`."""
        per_epoch = -(-len(self._rows) // self._per_step)
        epoch, place = divmod(step - 1, per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._ordered(epoch)
        return [self._rows[index] for index in self._order[place * self._per_step : (place + 1) * self._per_step]]

    def _ordered(self, epoch: int) -> list[int]:
        chance = random.Random(f"{self._seed}/{epoch}")
        order = list(range(len(self._rows)))
        chance.shuffle(order)
        if not self._grouped:
            return order
        size = self._per_step
        pool = max(1, min(_POOL, len(order) // (4 * size))) * size
        pools = [order[start : start + pool] for start in range(0, len(order), pool)]
        alike = [index for part in pools for index in sorted(part, key=lambda index: -len(self._rows[index].ids))]
        steps = [alike[start : start + size] for start in range(0, len(alike), size)]
        short = [steps.pop()] if len(steps[-1]) < size else []
        chance.shuffle(steps)
        return [index for step in [*steps, *short] for index in step]


def micro_batches(rows: Sequence[TokenRow], size: int, pad_id: int) -> list[Batch]:
    """`rows` in batches of at most `size`, like lengths together so that little is padded."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    return [collate(ordered[start : start + size], pad_id) for start in range(0, len(ordered), size)]


def collate(rows: Sequence[TokenRow], pad_id: int) -> Batch:
    """One batch of `rows`, on the CPU."""
    length = max(len(row.ids) for row in rows)
    if len(rows) > 1:
        length = -(-length // ROUND) * ROUND
    ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    trained = torch.zeros((len(rows), length), dtype=torch.bool)
    for place, row in enumerate(rows):
        count = len(row.ids)
        ids[place, :count] = torch.frombuffer(row.ids, dtype=torch.int32)
        mask[place, :count] = 1
        trained[place, :count] = torch.frombuffer(bytearray(row.trained), dtype=torch.bool)
    trained[:, 0] = False
    predicts = torch.zeros_like(trained)
    predicts[:, :-1] = trained[:, 1:]
    return Batch(ids, mask, predicts, ids[trained], int(mask.sum()))


@dataclass(frozen=True)
class LabelBatch:
    """Texts padded at the right to one length T, as (rows, T) tensors, and what is right of each.

    `labels` are the numbers of their labels, int64 (rows,); of several, 1.0 where a label applies, (rows, labels); of
    measured numbers, these less the mean and over the standard deviation, (rows,).
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    token_type_ids: torch.Tensor | None
    labels: torch.Tensor
    tokens: int

    @property
    def trained(self) -> int:
        return len(self.labels)

    def inputs(self) -> dict[str, torch.Tensor]:
        """What the model's forward takes."""
        types = {} if self.token_type_ids is None else {"token_type_ids": self.token_type_ids}
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask, **types}

    def to(self, device: torch.device) -> LabelBatch:
        """The batch on `device`."""
        types = None if self.token_type_ids is None else self.token_type_ids.to(device)
        return LabelBatch(
            self.input_ids.to(device), self.attention_mask.to(device), types, self.labels.to(device), self.tokens
        )


_ONE_LABEL = LabelHead()


def label_batches(rows: Sequence[TokenRow], size: int, pad_id: int, head: LabelHead = _ONE_LABEL) -> list[LabelBatch]:
    """Classification rows in batches of at most `size`, like lengths together, on the CPU."""
    ordered = sorted((row for row in rows if isinstance(row, LabelRow)), key=lambda row: len(row.ids))
    return [_collate_labels(ordered[start : start + size], pad_id, head) for start in range(0, len(ordered), size)]


def _collate_labels(rows: Sequence[LabelRow], pad_id: int, head: LabelHead) -> LabelBatch:
    length = -(-max(len(row.ids) for row in rows) // LABEL_ROUND) * LABEL_ROUND
    ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
    mask, types = (torch.zeros((len(rows), length), dtype=torch.long) for _ in range(2))
    for place, row in enumerate(rows):
        count = len(row.ids)
        ids[place, :count] = torch.frombuffer(row.ids, dtype=torch.int32)
        mask[place, :count] = 1
        types[place, :count] = torch.frombuffer(bytearray(row.types), dtype=torch.uint8)
    pairs = any(any(row.types) for row in rows)
    return LabelBatch(ids, mask, types if pairs else None, right_answers(rows, head), int(mask.sum()))


@dataclass(frozen=True)
class LabelPack:
    """Texts joined end to end in a `pack` that predicts at the last token of each, and what is right of them.

    `labels` are as in `LabelBatch`, in the order of the texts.
    """

    pack: Pack
    labels: torch.Tensor

    @property
    def tokens(self) -> int:
        return self.pack.tokens

    @property
    def trained(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> LabelPack:
        """The pack on `device`."""
        return LabelPack(self.pack.to(device), self.labels.to(device))

    def everywhere(self) -> LabelPack:
        """The pack predicting at every token, for a look at what comes to the head."""
        return replace(self, pack=replace(self.pack, predicts=torch.arange(self.tokens)))


def label_packs(rows: Sequence[TokenRow], budget: int, head: LabelHead) -> list[LabelPack]:
    """Classification rows in packs of about `budget` tokens, on the CPU."""
    return [_joined([row for row in part if isinstance(row, LabelRow)], head) for part in groups(rows, budget)]


def _joined(rows: Sequence[LabelRow], head: LabelHead) -> LabelPack:
    joined = pack([TokenRow(row.number, row.ids, bytes(len(row.ids))) for row in rows])
    last = joined.starts[1 : len(rows) + 1].long() - 1
    return LabelPack(replace(joined, predicts=last), right_answers(rows, head))


def right_answers(rows: Sequence[LabelRow], head: LabelHead) -> torch.Tensor:
    """What `head` should give for `rows`, as `LabelBatch.labels` says."""
    match head.problem_type:
        case "single_label":
            return torch.tensor([row.label for row in rows])
        case "multi_label":
            applies = torch.zeros(len(rows), head.outputs)
            for place, row in enumerate(rows):
                applies[place, list(row.several)] = 1.0
            return applies
        case "regression":
            return torch.tensor([(row.value - head.mean) / head.std for row in rows], dtype=torch.float32)


def batch_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The sum of the cross entropies of the batch's trained tokens, in nats, as an fp32 scalar with gradient."""
    loss: torch.Tensor = TokenLoss.apply(_scores(model, batch), batch.targets)  # type: ignore[no-untyped-call]
    return loss


def token_losses(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The cross entropy of each of the batch's trained tokens, in nats, fp32 (trained,) with gradient."""
    losses: torch.Tensor = TokenLosses.apply(_scores(model, batch), batch.targets)  # type: ignore[no-untyped-call]
    return losses


def _scores(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The scores over the vocabulary where a trained token is next, (trained, V)."""
    predicts = batch.predicts
    if before := prepended(model):  # the scores of virtual tokens come first
        predicts = torch.nn.functional.pad(predicts, (before, 0))
    options: dict[str, Any] = {"logits_to_keep": predicts} if scores_where_asked(model) else {}
    # Without padding no mask is needed, which lets the attention take its fast causal path.
    mask = None if batch.tokens == batch.input_ids.numel() else batch.attention_mask
    out = model(input_ids=batch.input_ids, attention_mask=mask, use_cache=False, **options)
    scores: torch.Tensor = out.logits if options else out.logits[predicts]
    return scores


def scores_where_asked(model: torch.nn.Module) -> bool:
    """Whether the model can compute scores at the positions of a boolean mask alone."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel | OwnModel) else model
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
        ctx.gradient = torch.empty_like(scores) if scores.requires_grad else None
        for losses in _by_chunks(scores, targets, ctx.gradient):
            total += losses.sum()
        return total

    @staticmethod
    def backward(ctx: Any, outer: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        return (None if gradient is None else gradient.mul_(outer.item())), None


class TokenLosses(torch.autograd.Function):
    """The cross entropy of each token by itself, fp32 (tokens,); otherwise as `TokenLoss`."""

    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        ctx.gradient = torch.empty_like(scores) if scores.requires_grad else None
        parts = [losses[:, 0] for losses in _by_chunks(scores, targets, ctx.gradient)]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float32, device=scores.device)

    @staticmethod
    def backward(ctx: Any, outer: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        return (None if gradient is None else gradient.mul_(outer[:, None])), None


def _by_chunks(scores: torch.Tensor, targets: torch.Tensor, gradient: torch.Tensor | None) -> Iterator[torch.Tensor]:
    """The cross entropies (n, 1) of `_CHUNK` tokens at a time; their gradients go into `gradient`."""
    for start in range(0, len(targets), _CHUNK):
        part = scores[start : start + _CHUNK].float()
        wanted = targets[start : start + _CHUNK, None]
        log_sum = part.logsumexp(-1, keepdim=True)
        yield log_sum - part.gather(-1, wanted)
        if gradient is not None:
            shares = part.sub(log_sum).exp_()  # not in place: fp32 scores are `part` itself
            shares.scatter_add_(-1, wanted, torch.full_like(log_sum, -1.0))
            gradient[start : start + _CHUNK] = shares
