"""What the cells of a label column say: one label, any number of them, or a measured number."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tunedesk.core.describe import ProblemType
from tunedesk.core.problems import Problem

MOST_LABELS = 1000
"""More labels than this are no choice among a few."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_LARGEST = 1e30
"""Numbers beyond this have squares that 32 bits cannot hold."""

_SEPARATORS = re.compile(r"[,;|]")

_WORDS = {
    "data.no_label": (
        "One row has no label.",
        "{n} rows have no label.",
        "Fill it in, or delete these rows.",
    ),
    "data.no_labels": (
        "One row has no labels.",
        "{n} rows have no labels.",
        "Fill them in, or delete these rows. Where no label applies, say so with an empty list: [].",
    ),
    "data.no_number": (
        "One row has no number.",
        "{n} rows have no number.",
        "Fill it in, or delete these rows.",
    ),
    "data.label_type": (
        "One row has something other than one label.",
        "{n} rows have something other than one label.",
        'A label is a text or a whole number. For rows of several labels set [task] problem_type = "multi_label", for '
        'measured numbers "regression".',
    ),
    "data.labels_type": (
        "One row has something other than a list of labels.",
        "{n} rows have something other than a list of labels.",
        'Write a list of texts or whole numbers in each row. With [task] problem_type = "multi_label" texts are parted '
        'at commas, semicolons and bars; measured numbers need "regression".',
    ),
    "data.label_twice": (
        "One row names the same label twice.",
        "{n} rows name the same label twice.",
        "Name every label once.",
    ),
    "data.number_type": (
        "One row has something other than a number.",
        "{n} rows have something other than a number.",
        'Write numbers with a decimal point, such as 4.5; or set [task] problem_type = "single_label".',
    ),
    "data.number_size": (
        "One row has a number that cannot be computed with.",
        "{n} rows have numbers that cannot be computed with.",
        "Numbers must be finite, and no larger than 1e30.",
    ),
}
"""Of one faulty row, of several, and what to do."""


class BadCellError(Exception):
    """A cell that says nothing that can be learned: `code` names the fault, `value` is what is there."""

    def __init__(self, code: str, value: Any) -> None:
        super().__init__(code)
        self.code = code
        self.value = value

    @property
    def words(self) -> tuple[str, str, str]:
        """What is wrong with one such row, with ``{n}`` of them, and what to do."""
        return _WORDS[self.code]


def problem_type_of(values: Iterable[Any], texts: bool) -> ProblemType:
    """What most of the `values` of a column are; with `texts` numbers too are written as text, as csv files do.

    Lists are several labels each. Numbers some of which are not whole are measured; whole ones are names of classes.
    """
    filled = [value for value in values if not _is_blank(value)]
    if 2 * sum(isinstance(_as_list(value), list) for value in filled) > len(filled):
        return "multi_label"
    found = [_as_number(value) for value in filled if texts or not isinstance(value, str)]
    numbers = [number for number in found if number is not None]
    measured = any(math.isfinite(number) and not number.is_integer() for number in numbers)
    return "regression" if measured and 2 * len(numbers) > len(filled) else "single_label"


def read_cell(value: Any, kind: ProblemType, split: bool) -> tuple[tuple[str, ...], float | None]:
    """(labels, number) of a cell. With `split` a text of several labels is parted at `,`, `;` and `|`.

    Raises `BadCellError`.
    """
    if kind == "regression":
        return (), _number(value)
    if kind == "multi_label":
        return _several(value, split), None
    if _is_blank(value):
        raise BadCellError("data.no_label", None)
    name = _name(value)
    if name is None:
        raise BadCellError("data.label_type", value)
    return (name,), None


def _several(value: Any, split: bool) -> tuple[str, ...]:
    if _is_blank(value):
        raise BadCellError("data.no_labels", None)
    items = _as_list(value)
    if not isinstance(items, list):
        if not split:
            raise BadCellError("data.labels_type", value)
        items = [part for part in _SEPARATORS.split(value) if part.strip()] if isinstance(value, str) else [value]
    names = [None if _is_blank(item) else _name(item) for item in items]
    if any(name is None for name in names):
        raise BadCellError("data.labels_type", value)
    if len(set(names)) < len(names):
        raise BadCellError("data.label_twice", value)
    return tuple(sorted(name for name in names if name is not None))


def _name(value: Any) -> str | None:
    """The label that a value is, or None: texts, whole numbers, true and false."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool | int):
        return str(value).lower()
    return value.strip() if isinstance(value, str) else None


def _number(value: Any) -> float:
    if _is_blank(value):
        raise BadCellError("data.no_number", None)
    number = _as_number(value)
    if number is None:
        raise BadCellError("data.number_type", value)
    if not math.isfinite(number) or abs(number) > _LARGEST:
        raise BadCellError("data.number_size", value)
    return number


def _as_number(value: Any) -> float | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _as_list(value: Any) -> Any:
    """A list that is written as text, as JSON or as Python prints it; anything else unchanged."""
    if not isinstance(value, str) or value.strip()[:1] != "[":
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return value


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def check_labels(
    sets: Sequence[tuple[str, ...]], labels: Sequence[str], kind: ProblemType, where: str, there: str
) -> list[Problem]:
    """What is wrong with the labels of all rows together. `there` names the file's columns."""
    if sets and len(set(sets)) < 2:
        said = ", ".join(repr(label) for label in labels) or "nothing"
        several = kind == "multi_label"
        return [
            Problem(
                code="data.one_label",
                what=f"All rows have the same label{'s' if several else ''}, so there is nothing to tell apart.",
                where=where,
                found=f"Every row says {said}. {there}",
                fix='Add rows of other labels, or state another column: [data] columns = { label = "..." }.',
            )
        ]
    if len(labels) > MOST_LABELS or (len(labels) > 20 and 2 * len(labels) > len(sets)):
        some = ", ".join(repr(name if len(name) <= 40 else f"{name[:37]}...") for name in labels[:3])
        numbers = all(_NUMBER.fullmatch(name) for name in labels)
        measured = 'set [task] problem_type = "regression" to learn the number itself.'
        fix = 'State the column with the label: [data] columns = { label = "..." }'
        return [
            Problem(
                code="data.many_labels",
                what=f"There are {len(labels):,} different labels in {len(sets):,} rows: this column is no choice "
                "among a few.",
                where=where,
                found=f"For example {some}. {there}",
                fix=f"{fix}; or {measured}" if numbers else f"{fix}.",
            )
        ]
    return []


def check_numbers(numbers: Sequence[float], where: str, there: str) -> list[Problem]:
    """What is wrong with the numbers of all rows together. `there` names the file's columns."""
    if not numbers or min(numbers) < max(numbers):
        return []
    return [
        Problem(
            code="data.one_number",
            what="All rows have the same number, so there is nothing to learn.",
            where=where,
            found=f"Every row says {numbers[0]:g}. {there}",
            fix='State another column: [data] columns = { label = "..." }.',
        )
    ]
