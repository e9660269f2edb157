"""How good answers are, in the measures that suit the task."""

from __future__ import annotations

from collections.abc import Sequence

MOST_CONFUSED = 40
"""Labels up to which a table of confusion can be read, and written down at each check."""


def label_metrics(right: Sequence[int], given: Sequence[int], labels: int) -> dict[str, float]:
    """`accuracy`, the share of rows with the right label, and `macro_f1`, the mean of the labels' F1; 0 to 1.

    A label that no row has and no answer names is left out of the mean.
    """
    hits, rows, answers = ([0] * labels for _ in range(3))
    for wanted, answer in zip(right, given, strict=True):
        rows[wanted] += 1
        answers[answer] += 1
        hits[wanted] += wanted == answer
    scores = [2 * hit / (row + answer) for hit, row, answer in zip(hits, rows, answers, strict=True) if row + answer]
    return {"accuracy": sum(hits) / max(1, len(right)), "macro_f1": sum(scores) / max(1, len(scores))}


def confusion(right: Sequence[int], given: Sequence[int], labels: int) -> tuple[tuple[int, ...], ...]:
    """How often each right label (rows) was answered with each label (columns); empty beyond `MOST_CONFUSED` labels."""
    if labels > MOST_CONFUSED:
        return ()
    table = [[0] * labels for _ in range(labels)]
    for wanted, answer in zip(right, given, strict=True):
        table[wanted][answer] += 1
    return tuple(tuple(row) for row in table)
