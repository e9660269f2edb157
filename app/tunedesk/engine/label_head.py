"""What the outputs of a classifier mean: the labels that they stand for, or the number that one of them is."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from tunedesk.core.describe import ProblemType
from tunedesk.core.problems import Problem, ProblemError

LABELS_FILE = "labels.json"
"""Beside a classifier's adapter: what its outputs are called, and the scale of a number."""

_IN_TRANSFORMERS: dict[ProblemType, str] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
_NUMBER = "number"
"""What the one output of a regression is called."""


@dataclass(frozen=True)
class LabelHead:
    """The outputs of a classifier: one for each of `labels`, in their order, or of a regression a single one.

    That one is the number less `mean`, over `std`: the mean and standard deviation of the rows that were trained on, in
    the data's own units. Losses are then alike whatever the units, and a rate that suits labels suits numbers. `pair`
    says that a second text belongs to each.
    """

    problem_type: ProblemType = "single_label"
    labels: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    pair: bool = False

    @property
    def outputs(self) -> int:
        """How many numbers the head gives for a text."""
        return len(self.labels) if self.problem_type != "regression" else 1

    @property
    def names(self) -> dict[int, str]:
        """What each output is called, as transformers' ``id2label``."""
        return dict(enumerate(self.labels if self.problem_type != "regression" else (_NUMBER,)))

    def options(self) -> dict[str, Any]:
        """What a configuration of transformers is given for this head."""
        return {
            "num_labels": self.outputs,
            "id2label": self.names,
            "label2id": {name: place for place, name in self.names.items()},
            "problem_type": _IN_TRANSFORMERS[self.problem_type],
        }

    def content(self) -> bytes:
        """The content of `LABELS_FILE`: transformers' two maps, the kind of problem, and the scale of a number."""
        options = self.options()
        maps = {
            "problem_type": self.problem_type,
            "id2label": {str(place): name for place, name in self.names.items()},
            "label2id": options["label2id"],
        }
        scale = {"number": {"mean": self.mean, "std": self.std}} if self.problem_type == "regression" else {}
        more = {"pair": True} if self.pair else {}
        return (json.dumps({**maps, **scale, **more}, indent=2, ensure_ascii=False) + "\n").encode()

    def number(self, output: float) -> float:
        """The number that an `output` of the head stands for, in the data's own units."""
        return output * self.std + self.mean


def number_head(values: Sequence[float], pair: bool = False) -> LabelHead:
    """The head of a regression that is trained on `values`; where all are equal, the unit is 1."""
    mean = math.fsum(values) / len(values)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return LabelHead("regression", mean=mean, std=std or 1.0, pair=pair)


def read_head(folder: Path) -> LabelHead | None:
    """The head of the classifier whose adapter is in `folder`; None of what is no classifier. Raises `ProblemError`.

    A file without a kind of problem, as transformers' own maps are, gives one label to each text.
    """
    try:
        tree = json.loads((folder / LABELS_FILE).read_text(encoding="utf-8"))
        kind: ProblemType = tree.get("problem_type", "single_label")
        if kind not in get_args(ProblemType):
            raise ValueError(f"There is no problem_type '{kind}'.")
        pair = bool(tree.get("pair", False))
        if kind == "regression":
            scale = tree.get("number", {"mean": 0.0, "std": 1.0})
            return LabelHead(kind, (), float(scale["mean"]), float(scale["std"]), pair)
        return LabelHead(kind, tuple(str(label) for label in tree["id2label"].values()), pair=pair)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ProblemError(
            Problem(
                code="model.not_loaded",
                what="The names of the labels cannot be read.",
                where=str(folder / LABELS_FILE),
                found=lines[0][:300],
                fix="The file is damaged: put it back as it was saved, or train again.",
            )
        ) from error
