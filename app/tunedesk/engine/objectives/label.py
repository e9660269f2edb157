"""The objective of classification: the label of a text, its labels, or its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from tunedesk.engine.batches import LabelBatch, LabelPack, label_batches, label_packs
from tunedesk.engine.fast.encoder import LeanClassifier
from tunedesk.engine.fast.model import FastModel
from tunedesk.engine.label_head import LabelHead
from tunedesk.engine.metrics import confusion, label_metrics, number_metrics, several_metrics
from tunedesk.engine.objectives.base import Measures, Objective, Precision, Tally, arithmetic
from tunedesk.engine.pooling import pooled_scores
from tunedesk.engine.render import TokenRow


@dataclass
class LabelTally(Tally):
    """The right and the given label of every row, by number."""

    labels: int
    right: list[int] = field(default_factory=list)
    given: list[int] = field(default_factory=list)

    def add(self, scores: Tensor, right: Tensor) -> None:
        """Take the answers to a batch: `scores` (rows, outputs), and what `LabelBatch.labels` says is right."""
        self.right.extend(right.tolist())
        self.given.extend(scores.argmax(-1).tolist())

    def measures(self, loss: float) -> Measures:
        del loss
        values = label_metrics(self.right, self.given, self.labels)
        return Measures(values, confusion(self.right, self.given, self.labels))


@dataclass
class SeveralTally(Tally):
    """For every row, which labels are right and which were given: those that are likelier than not."""

    right: list[list[bool]] = field(default_factory=list)
    given: list[list[bool]] = field(default_factory=list)

    def add(self, scores: Tensor, right: Tensor) -> None:
        """As of `LabelTally`."""
        self.right.extend((right > 0).tolist())
        self.given.extend((scores > 0).tolist())

    def measures(self, loss: float) -> Measures:
        del loss
        return Measures(several_metrics(self.right, self.given))


@dataclass
class NumberTally(Tally):
    """The right and the given number of every row, in the data's own units."""

    head: LabelHead
    right: list[float] = field(default_factory=list)
    given: list[float] = field(default_factory=list)

    def add(self, scores: Tensor, right: Tensor) -> None:
        """As of `LabelTally`."""
        self.right.extend(self.head.number(value) for value in right.tolist())
        self.given.extend(self.head.number(value) for value in scores[:, 0].tolist())

    def measures(self, loss: float) -> Measures:
        del loss
        return Measures(number_metrics(self.right, self.given))


def answer_loss(scores: Tensor, right: Tensor, head: LabelHead) -> Tensor:
    """The sum over rows of the loss of `scores` (rows, outputs), an fp32 scalar; `right` as in `LabelBatch.labels`.

    Of one label it is the cross entropy; of several the mean over the labels of each one's binary cross entropy, so
    that losses compare whatever the number of labels; of a number the squared error in standard deviations. Averaged
    over rows, all three are the losses of transformers.
    """
    match head.problem_type:
        case "single_label":
            return cross_entropy(scores, right, reduction="sum")
        case "multi_label":
            return binary_cross_entropy_with_logits(scores, right, reduction="none").mean(-1).sum()
        case "regression":
            return (scores[:, 0] - right).square().sum()


@dataclass
class Label(Objective):
    """What `head` says of each row: in padded batches of like lengths, or of decoders on the fast path in packs."""

    model: Any
    fast: LeanClassifier | FastModel | None
    device: torch.device
    precision: Precision
    pad_id: int
    micro_batch_size: int
    pack_tokens: int
    head: LabelHead
    grouped: bool = True

    def batches(self, rows: Sequence[TokenRow]) -> Sequence[LabelBatch | LabelPack]:
        if isinstance(self.fast, FastModel):
            return label_packs(rows, self.pack_tokens, self.head)
        return label_batches(rows, self.micro_batch_size, self.pad_id, self.head)

    def loss(self, batch: LabelBatch | LabelPack, tally: Tally | None = None) -> Tensor:
        scores = self.scores(batch)
        if isinstance(tally, LabelTally | SeveralTally | NumberTally):
            tally.add(scores, batch.labels)
        return answer_loss(scores, batch.labels.to(self.device), self.head)

    def scores(self, batch: LabelBatch | LabelPack) -> Tensor:
        """What the head gives for the texts of `batch`, fp32 (texts, outputs) with gradient."""
        here = batch.to(self.device)
        if isinstance(self.fast, FastModel):
            assert isinstance(here, LabelPack)
            return self.fast.scores(here.pack)
        assert isinstance(here, LabelBatch)
        if self.fast is not None:
            return self.fast.scores(here.inputs()).float()
        with arithmetic(self.device, self.precision):
            return pooled_scores(self.model, here.inputs()).float()

    def tally(self) -> LabelTally | SeveralTally | NumberTally:
        match self.head.problem_type:
            case "single_label":
                return LabelTally(self.head.outputs)
            case "multi_label":
                return SeveralTally()
            case "regression":
                return NumberTally(self.head)
