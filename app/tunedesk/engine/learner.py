"""What learns and how it is taught: the model with its adapter, its optimiser, and the loss of the run's task."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tunedesk.engine.channel import Channel, Stopped
from tunedesk.engine.fast.flat_adamw import FlatAdamW
from tunedesk.engine.memory import give_back
from tunedesk.engine.methods import Tuned
from tunedesk.engine.objectives import Measures, Objective


@dataclass
class Learner:
    """The model with its adapter, what teaches it, and what updates it.

    `reader` is how it reads plain text, None for a classifier, which predicts none. `base_parameters` and `base_bytes`
    are the weights of the base as it was loaded, and the bytes that hold them.
    """

    tuned: Tuned
    objective: Objective
    reader: Objective | None
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
    """A look at rows that are not trained on: mean loss of what they teach, how much that is, seconds, measures."""

    loss: float
    trained: int
    seconds: float
    measures: Measures

    @property
    def sound(self) -> bool:
        return math.isfinite(self.loss)


@torch.no_grad()
def evaluate(
    learner: Learner, batches: Sequence[Any], channel: Channel | None = None, objective: Objective | None = None
) -> Check:
    """Compute `batches` of `objective`, by default the learner's own, without learning. Raises `Stopped` between."""
    objective = objective or learner.objective
    start = time.monotonic()
    learner.model.eval()
    total, count = 0.0, 0
    tally = objective.tally()
    for batch in batches:
        if channel is not None and channel.stop_asked:
            raise Stopped
        total += objective.loss(batch, tally).item()
        count += batch.trained
    give_back()
    loss = total / count
    return Check(loss, count, time.monotonic() - start, tally.measures(loss))
