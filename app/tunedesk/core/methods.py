"""The methods, each declared once: words, fields, defaults and their sources.

The command line, the Method page, the planner and the model card all read from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MethodName = Literal["lora", "qlora"]


@dataclass(frozen=True)
class MethodField:
    """A setting of a method and what it does to memory, time and quality."""

    key: str
    label: str
    help: str
    choices: tuple[int, ...] = ()


@dataclass(frozen=True)
class Method:
    """What a person should know of a method before choosing it. `drawing` names its schematic."""

    name: MethodName
    title: str
    summary: str
    suits: str
    good: tuple[str, ...]
    poor: tuple[str, ...]
    drawing: str
    source: str
    quantised: bool


RANK = MethodField(
    "rank",
    "Rank",
    "Room to learn. A higher rank learns more detail; the adapter and its optimiser grow in step, time hardly.",
    (4, 8, 16, 32, 64),
)
ALPHA = MethodField(
    "alpha",
    "Strength (alpha)",
    "How loud the adapter is. Twice the rank suits most runs. No effect on memory or time.",
)
DROPOUT = MethodField(
    "dropout",
    "Dropout",
    "Switches off a share of the adapter at random in each step. A little (0.05) helps against memorising small data.",
)
TARGETS = MethodField(
    "target_modules",
    "Where",
    "Which layers get an adapter. All linear layers learn best; attention only is smaller and a little faster.",
)
LORA_FIELDS = (RANK, ALPHA, DROPOUT, TARGETS)

METHODS: tuple[Method, ...] = (
    Method(
        name="lora",
        title="LoRA",
        summary="Adds two thin matrices beside each frozen one.",
        suits="most tasks",
        good=(
            "Merges into the model without a trace",
            "One small file per task",
            "Keeps what the model knew",
        ),
        poor=("A model that does not fit in memory at 16 bits", "Teaching a wholly new language or domain"),
        drawing="lora",
        source="Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685",
        quantised=False,
    ),
    Method(
        name="qlora",
        title="QLoRA",
        summary="LoRA over weights held in 4 bits.",
        suits="a large model, little memory",
        good=("About a quarter of the memory for weights", "Large models on one small card"),
        poor=("Slower than LoRA when the model fits anyway", "Answers may be slightly weaker"),
        drawing="qlora",
        source="Dettmers et al. 2023, QLoRA: Efficient Finetuning of Quantized LLMs, arXiv:2305.14314",
        quantised=True,
    ),
)


def method(name: str) -> Method:
    """The method called `name`; raises `KeyError`."""
    return {item.name: item for item in METHODS}[name]  # type: ignore[index]


def default_learning_rate(parameters: int) -> float:
    """Peak learning rate of LoRA and QLoRA for a model of `parameters` weights.

    2e-4 for 7B to 13B and 1e-4 above is the setting of Dettmers et al. 2023 (table 9). Smaller models take larger
    steps: the best LoRA rate lies near ten times that of full fine-tuning (Schulman et al. 2025, LoRA Without
    Regret), which grows as models shrink.
    """
    if parameters >= 30e9:
        return 1e-4
    if parameters >= 3e9:
        return 2e-4
    if parameters >= 0.5e9:
        return 5e-4
    return 1e-3
