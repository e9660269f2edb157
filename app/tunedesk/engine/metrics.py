"""How good answers are, in the measures that suit the task."""

from __future__ import annotations

import math
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
    return {"accuracy": sum(hits) / max(1, len(right)), "macro_f1": _macro_f1(hits, rows, answers)}


def _macro_f1(hits: Sequence[int], rows: Sequence[int], answers: Sequence[int]) -> float:
    """The mean of the labels' F1, from how often each was right, was to be given, and was given."""
    scores = [2 * hit / (row + answer) for hit, row, answer in zip(hits, rows, answers, strict=True) if row + answer]
    return sum(scores) / max(1, len(scores))


def several_metrics(right: Sequence[Sequence[bool]], given: Sequence[Sequence[bool]]) -> dict[str, float]:
    """Of rows with any number of labels, each row a flag for each label; all 0 to 1.

    `accuracy` is the share of rows with exactly the right labels, `micro_f1` the F1 of all labels of all rows together,
    `macro_f1` the mean of the labels' F1, as in `label_metrics`. Where no label is right and none given, `micro_f1` is
    left out.
    """
    rows = [sum(column) for column in zip(*right, strict=True)]
    answers = [sum(column) for column in zip(*given, strict=True)]
    hits = [
        sum(wanted and answer for wanted, answer in zip(*pair, strict=True))
        for pair in zip(zip(*right, strict=True), zip(*given, strict=True), strict=True)
    ]
    exact = sum(list(wanted) == list(answer) for wanted, answer in zip(right, given, strict=True))
    found = {"accuracy": exact / max(1, len(right)), "macro_f1": _macro_f1(hits, rows, answers)}
    together = sum(rows) + sum(answers)
    return {**found, "micro_f1": 2 * sum(hits) / together} if together else found


def number_metrics(right: Sequence[float], given: Sequence[float]) -> dict[str, float]:
    """`rmse` and `mae`, the errors in the unit of the numbers, and `pearson`, the correlation, -1 to 1.

    Where all right or all given numbers are the same there is no correlation.
    """
    count = max(1, len(right))
    errors = [answer - wanted for wanted, answer in zip(right, given, strict=True)]
    found = {
        "rmse": math.sqrt(math.fsum(error * error for error in errors) / count),
        "mae": math.fsum(map(abs, errors)) / count,
    }
    correlation = _pearson(right, given)
    return found if correlation is None else {"pearson": correlation, **found}


def _pearson(left: Sequence[float], right: Sequence[float]) -> float | None:
    if not left:
        return None
    a, b = ([value - math.fsum(side) / len(side) for value in side] for side in (left, right))
    spread = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(y * y for y in b))
    if spread == 0 or not math.isfinite(spread):
        return None
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / spread


def confusion(right: Sequence[int], given: Sequence[int], labels: int) -> tuple[tuple[int, ...], ...]:
    """How often each right label (rows) was answered with each label (columns); empty beyond `MOST_CONFUSED` labels."""
    if labels > MOST_CONFUSED:
        return ()
    table = [[0] * labels for _ in range(labels)]
    for wanted, answer in zip(right, given, strict=True):
        table[wanted][answer] += 1
    return tuple(tuple(row) for row in table)
