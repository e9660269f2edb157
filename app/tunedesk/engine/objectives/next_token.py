"""The objective of chat and completion: the next token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tunedesk.engine.batches import Batch, batch_loss, micro_batches
from tunedesk.engine.fast.model import FastModel
from tunedesk.engine.fast.packing import Pack, packs
from tunedesk.engine.objectives.base import Measures, Objective, Precision, Tally, arithmetic
from tunedesk.engine.render import TokenRow

_LARGEST = 100.0
"""Mean losses above this have no perplexity that a number could hold or a person read."""


class TextTally(Tally):
    """`perplexity`: among how many equally likely tokens the model wavers, on average."""

    def measures(self, loss: float) -> Measures:
        return Measures({"perplexity": math.exp(loss)} if loss < _LARGEST else {})


@dataclass
class NextToken(Objective):
    """Cross entropy of the trained tokens: rows joined in packs with `fast`, padded micro-batches without."""

    model: Any
    fast: FastModel | None
    device: torch.device
    precision: Precision
    pad_id: int
    micro_batch_size: int
    pack_tokens: int
    grouped: bool = False

    def batches(self, rows: Sequence[TokenRow]) -> Sequence[Batch | Pack]:
        if self.fast is not None:
            return packs(rows, self.pack_tokens)
        return micro_batches(rows, self.micro_batch_size, self.pad_id)

    def loss(self, batch: Batch | Pack, tally: Tally | None = None) -> torch.Tensor:
        del tally
        here = batch.to(self.device)
        if self.fast is not None and isinstance(here, Pack):
            return self.fast.loss(here)
        assert isinstance(here, Batch)
        with arithmetic(self.device, self.precision):
            return batch_loss(self.model, here)

    def tally(self) -> TextTally:
        return TextTally()
