"""What a check tells beside the loss: the names, meanings and words of every measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One measure by its `key` in `Evaluated.metrics`; `form` is the format of its value, `meaning` one sentence.

    `better` says which way is good: ``up`` or ``down``.
    """

    key: str
    title: str
    form: str
    better: str
    meaning: str

    def words(self, value: float) -> str:
        """The value as people read it: ``92.1%``, ``0.918``."""
        return self.form.format(value)


MEASURES: tuple[Measure, ...] = (
    Measure("accuracy", "Accuracy", "{:.1%}", "up", "The share of texts that got exactly the right label or labels."),
    Measure("macro_f1", "Macro-F1", "{:.3f}", "up", "The mean of every label's F1: rare labels count as much."),
    Measure("micro_f1", "Micro-F1", "{:.3f}", "up", "F1 over all labels of all texts together: frequent labels count."),
    Measure("pearson", "Correlation", "{:.3f}", "up", "How well given numbers follow the right ones; 1 is perfect."),
    Measure("rmse", "RMSE", "{:.3g}", "down", "The usual error of a number, in the data's units; large errors weigh."),
    Measure("mae", "Mean error", "{:.3g}", "down", "The mean distance from the right number, in the data's own units."),
    Measure("exact_match", "Exact match", "{:.1%}", "up", "The share of answers that are word by word the right text."),
    Measure("rouge_l", "ROUGE-L", "{:.3f}", "up", "How much of the right text comes in the same order, 0 to 1."),
    Measure("preference_accuracy", "Preferred", "{:.1%}", "up", "The share of pairs whose better answer is favoured."),
    Measure(
        "reward_margin",
        "Reward margin",
        "{:.3f}",
        "up",
        "How far the better answer is favoured; above 0 is right, and more is surer.",
    ),
    Measure("perplexity", "Perplexity", "{:.4g}", "down", "Among how many equally likely tokens the model wavers."),
)
"""Every measure, the most telling of a task first."""


def measures_in(metrics: Mapping[str, float]) -> list[tuple[Measure, float]]:
    """Those of `metrics` with their values, the most telling first."""
    return [(item, metrics[item.key]) for item in MEASURES if item.key in metrics]


def metric_words(metrics: Mapping[str, float]) -> str:
    """``accuracy 92.1%, macro-F1 0.918``: what is known of a check beside its loss; perplexity is the loss again."""
    return ", ".join(
        f"{item.title if item.title.isupper() else item.title[:1].lower() + item.title[1:]} {item.words(value)}"
        for item, value in measures_in(metrics)
        if item.key != "perplexity"
    )
