"""The objective of classification: the label of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tunedesk.engine.batches import LabelBatch, label_batches
from tunedesk.engine.fast.encoder import LeanClassifier
from tunedesk.engine.metrics import confusion, label_metrics
from tunedesk.engine.objectives.base import Measures, Objective, Precision, Tally, arithmetic
from tunedesk.engine.render import TokenRow


@dataclass
class LabelTally(Tally):
    """The right and the given label of every row, by number."""

    labels: int
    right: list[int] = field(default_factory=list)
    given: list[int] = field(default_factory=list)

    def measures(self, loss: float) -> Measures:
        del loss
        values = label_metrics(self.right, self.given, self.labels)
        return Measures(values, confusion(self.right, self.given, self.labels))


@dataclass
class Label(Objective):
    """Cross entropy of the label of each row, in padded batches of like lengths."""

    model: Any
    fast: LeanClassifier | None
    device: torch.device
    precision: Precision
    pad_id: int
    micro_batch_size: int
    labels: int
    grouped: bool = True

    def batches(self, rows: Sequence[TokenRow]) -> Sequence[LabelBatch]:
        return label_batches(rows, self.micro_batch_size, self.pad_id)

    def loss(self, batch: LabelBatch, tally: Tally | None = None) -> torch.Tensor:
        here = batch.to(self.device)
        if self.fast is not None:
            scores = self.fast.scores(here.inputs()).float()
        else:
            with arithmetic(self.device, self.precision):
                scores = self.model(**here.inputs()).logits.float()
        if isinstance(tally, LabelTally):
            tally.right.extend(batch.labels.tolist())
            tally.given.extend(scores.argmax(-1).tolist())
        return torch.nn.functional.cross_entropy(scores, here.labels, reduction="sum")

    def tally(self) -> LabelTally:
        return LabelTally(self.labels)
