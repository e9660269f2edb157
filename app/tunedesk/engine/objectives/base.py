"""What every task is to the training loop: rows become batches, a batch a loss, and a check is summed up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from tunedesk.engine import loading
from tunedesk.engine.render import TokenRow

Precision = Literal["bf16", "fp16", "fp32"]


@dataclass(frozen=True)
class Measures:
    """What is worth knowing beside the loss: `values` by name, and of classifiers the table of `confusion`.

    `confusion` has a row for each right label and a column for each given one.
    """

    values: dict[str, float] = field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] = ()


class Tally:
    """What the answers of a check come to. This one takes none; tasks that look at answers have their own."""

    def measures(self, loss: float) -> Measures:
        """The sum of it, once every batch was seen; `loss` is the mean loss of the check."""
        del loss
        return Measures()


class Objective(ABC):
    """What a task makes of rows: batches, and the sum of the losses of what they teach."""

    grouped: bool = False
    """Whether a step's rows should be of like length, because they are padded to the longest."""

    @abstractmethod
    def batches(self, rows: Sequence[TokenRow]) -> Sequence[Any]:
        """`rows` in the batches that are computed one after the other, on the CPU. Each has `tokens` and `trained`."""

    @abstractmethod
    def loss(self, batch: Any, tally: Tally | None = None) -> torch.Tensor:
        """The sum of the losses of what `batch` teaches, an fp32 scalar with gradient; `tally` gets the answers."""

    def tally(self) -> Tally:
        """An empty tally of this task, for one check."""
        return Tally()


def arithmetic(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Where products are computed in the run's precision."""
    return torch.autocast(device.type, dtype=loading.DTYPES[precision], enabled=precision != "fp32")
