"""What learns and how it is taught: the model with its adapter, its optimiser, and the loss of the run's task."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from tunedesk.engine import loading
from tunedesk.engine.batches import Batch, LabelBatch, batch_loss, label_batches, micro_batches
from tunedesk.engine.channel import Channel, Stopped
from tunedesk.engine.fast.encoder import LeanClassifier
from tunedesk.engine.fast.flat_adamw import FlatAdamW
from tunedesk.engine.fast.model import FastModel
from tunedesk.engine.fast.packing import Pack, packs
from tunedesk.engine.memory import give_back
from tunedesk.engine.methods import Tuned
from tunedesk.engine.metrics import label_metrics
from tunedesk.engine.render import TokenRow

Precision = Literal["bf16", "fp16", "fp32"]


@dataclass(frozen=True)
class Verdicts:
    """What a check was told beside the loss: the right and the given label of every row, by number."""

    right: list[int] = field(default_factory=list)
    given: list[int] = field(default_factory=list)


class Objective(ABC):
    """What a task makes of rows: batches, and the sum of the losses of what they teach."""

    grouped: bool = False
    """Whether a step's rows should be of like length, because they are padded to the longest."""

    @abstractmethod
    def batches(self, rows: Sequence[TokenRow]) -> Sequence[Any]:
        """`rows` in the batches that are computed one after the other, on the CPU. Each has `tokens` and `trained`."""

    @abstractmethod
    def loss(self, batch: Any, verdicts: Verdicts | None = None) -> torch.Tensor:
        """The sum of the losses of what `batch` teaches, an fp32 scalar with gradient; `verdicts` get the answers."""

    def metrics(self, verdicts: Verdicts) -> dict[str, float]:  # noqa: ARG002 (few tasks have any)
        """What is worth knowing beside the loss, by name."""
        return {}


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

    def loss(self, batch: Batch | Pack, verdicts: Verdicts | None = None) -> torch.Tensor:
        del verdicts
        here = batch.to(self.device)
        if self.fast is not None and isinstance(here, Pack):
            return self.fast.loss(here)
        assert isinstance(here, Batch)
        with arithmetic(self.device, self.precision):
            return batch_loss(self.model, here)


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

    def loss(self, batch: LabelBatch, verdicts: Verdicts | None = None) -> torch.Tensor:
        here = batch.to(self.device)
        if self.fast is not None:
            scores = self.fast.scores(here.inputs()).float()
        else:
            with arithmetic(self.device, self.precision):
                scores = self.model(**here.inputs()).logits.float()
        if verdicts is not None:
            verdicts.right.extend(batch.labels.tolist())
            verdicts.given.extend(scores.argmax(-1).tolist())
        return torch.nn.functional.cross_entropy(scores, here.labels, reduction="sum")

    def metrics(self, verdicts: Verdicts) -> dict[str, float]:
        return label_metrics(verdicts.right, verdicts.given, self.labels)


def arithmetic(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Where products are computed in the run's precision."""
    return torch.autocast(device.type, dtype=loading.DTYPES[precision], enabled=precision != "fp32")


@dataclass
class Learner:
    """The model with its adapter, what teaches it, and what updates it.

    `base_parameters` and `base_bytes` are the weights of the base as it was loaded, and the bytes that hold them.
    """

    tuned: Tuned
    objective: Objective
    parameters: list[torch.nn.Parameter]
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    base_parameters: int
    base_bytes: int

    @property
    def model(self) -> Any:
        """What computes."""
        return self.tuned.model

    def clip(self, longest: float) -> float:
        """Shorten the gradient to `longest`; gives its length before that."""
        if isinstance(self.optimiser, FlatAdamW):
            return self.optimiser.clip(longest)
        return float(torch.nn.utils.clip_grad_norm_(self.parameters, longest))


@dataclass(frozen=True)
class Check:
    """A look at rows that are not trained on: mean loss of what they teach, how much that is, seconds, metrics."""

    loss: float
    trained: int
    seconds: float
    metrics: dict[str, float]

    @property
    def sound(self) -> bool:
        return math.isfinite(self.loss)


@torch.no_grad()
def evaluate(learner: Learner, batches: Sequence[Any], channel: Channel | None = None) -> Check:
    """Compute `batches` without learning from them. Raises `Stopped` between two."""
    start = time.monotonic()
    learner.model.eval()
    total, count = 0.0, 0
    verdicts = Verdicts()
    for batch in batches:
        if channel is not None and channel.stop_asked:
            raise Stopped
        total += learner.objective.loss(batch, verdicts).item()
        count += batch.trained
    give_back()
    return Check(total / count, count, time.monotonic() - start, learner.objective.metrics(verdicts))
