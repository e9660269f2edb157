"""What every method is to the rest of the engine: how it is attached, what it saves, what it does at each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunedesk.core.problems import Problem
from tunedesk.core.spec import MethodSection
from tunedesk.engine.loading import new_parts

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Setting:
    """What a method is attached with: its section of the run file and what the run settled.

    `alpha` is the scale of the LoRA family, `total_steps` the updates of the whole run, `tokenizer` the folder of the
    model's tokenizer, None where there is none. With `compares` the task will ask for the model as it was before.
    """

    section: MethodSection
    alpha: float
    checkpointing: bool
    seed: int
    total_steps: int = 1
    tokenizer: str | None = None
    compares: bool = False


class Tuned(ABC):
    """A model with a method on it, while it is trained.

    `model` is what computes, a PeftModel or an `OwnModel`. `lean` says that the fast loop knows the method;
    `virtual_tokens` are the places it takes from the context.
    """

    lean = False
    virtual_tokens = 0
    model: Any
    _before: list[Tensor]

    @abstractmethod
    def weights(self) -> Weights:
        """What was learned, as the adapter's file holds it: it loads onto an untouched base."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The adapter's `adapter_config.json`: everything needed to rebuild it."""

    def rest(self) -> dict[str, Any]:
        """What a resumed run needs beside `weights`: tensors, numbers and strings in dicts and lists."""
        return {}

    @abstractmethod
    def restore(self, weights: Weights, rest: dict[str, Any]) -> None:
        """Put what `weights` and `rest` gave back in place."""

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """What is trained, by how many times the run's learning rate it learns."""
        return [(trainable(self.model), 1.0)]

    def penalty(self) -> Tensor | None:
        """What is added to the mean loss of each step, a scalar with gradient."""
        return None

    def after_step(self, step: int) -> None:  # noqa: B027 (few methods do anything)
        """Do what the method does after the update of `step` (from 1), the gradients still there."""

    def untouched(self) -> AbstractContextManager[Any]:
        """Within it a model that was not trained yet gives what it gave before the method was on it."""
        return nullcontext()

    def remember(self) -> None:
        """Keep what is trained as it is now, before the first step, for `reference`."""
        self._before = [parameter.detach().clone() for parameter in trainable(self.model)]

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within it the model gives what it gave before any training, to the bit. `remember` came first.

        What was trained is exchanged for what it was, which costs its size once more and nothing else: an adapter
        that has not learned changes nothing, and the rest is computed as it is with what was learned.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for place, parameter in enumerate(trainable(self.model)):
            parameter.data, self._before[place] = self._before[place], parameter.data


class OwnModel(nn.Module):
    """A base with a method that peft does not have; it offers what the engine uses of a PeftModel.

    Whatever it has not is looked up in the base.
    """

    def __init__(self, base: PreTrainedModel, method_config: dict[str, Any]) -> None:
        super().__init__()
        self.base_model = base
        self.method_config = method_config

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_model"), name)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the base gives, with the method at work in it."""
        return self.base_model(*inputs, **options)

    def generate(self, *inputs: Any, **options: Any) -> Any:
        """As transformers' `generate`."""
        return self.base_model.generate(*inputs, **options)

    def get_base_model(self) -> PreTrainedModel:
        """The model underneath."""
        return self.base_model

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Within it the base answers as if nothing had been trained; a classifier's head stays."""
        self.switch(on=False)
        try:
            yield
        finally:
            self.switch(on=True)

    def switch(self, on: bool) -> None:
        """Let the method work or rest."""
        raise NotImplementedError

    def state(self) -> Weights:
        """What was learned, by the names that the file has."""
        raise NotImplementedError

    def put(self, weights: Weights) -> None:
        """Put `weights`, which have the names of `state`, in place. Raises `KeyError` and `ValueError`."""
        mine = self.state()
        if mine.keys() != weights.keys():
            raise KeyError(f"{len(mine.keys() ^ weights.keys())} weights are in the file or in the model alone")
        with torch.no_grad():
            for name, tensor in mine.items():
                if tensor.shape != weights[name].shape:
                    raise ValueError(f"{name} has the shape {tuple(weights[name].shape)}, not {tuple(tensor.shape)}")
                tensor.copy_(weights[name])

    def merge(self) -> PreTrainedModel | None:
        """The base with what was learned in its own weights, or None where that cannot be."""
        return None


class OwnTuned(Tuned):
    """An `OwnModel` in training."""

    def __init__(self, model: OwnModel) -> None:
        self.model = model

    def weights(self) -> Weights:
        return dict(self.model.state())

    def config(self) -> dict[str, Any]:
        return {**self.model.method_config, "inference_mode": True}

    def restore(self, weights: Weights, rest: dict[str, Any]) -> None:
        del rest
        self.model.put(weights)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that learn, in a fixed order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def in_fp32(parameters: Sequence[nn.Parameter]) -> None:
    """Hold `parameters` in fp32 and let them learn: steps are smaller than what 16 bits can tell apart."""
    for parameter in parameters:
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)


def checkpoint_activations(model: PreTrainedModel, wanted: bool) -> None:
    """Recompute activations on the way back instead of keeping them."""
    if wanted:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def task_type(model: PreTrainedModel) -> str:
    """What peft calls the task of `model`: of one with new parts to give labels, else to write."""
    if new_parts(model):
        return "SEQ_CLS"
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def unknown_architecture(model: PreTrainedModel, method: str, what: str) -> Problem:
    """The problem of a model that has not `what` the method works on."""
    return Problem(
        code="method.architecture",
        what=f"The method {method} does not know this kind of model.",
        where="RUN.toml, key 'name' in [method].",
        found=f"{type(model).__name__} {what}",
        fix='Choose another method; name = "lora" works on every model with linear layers.',
    )
