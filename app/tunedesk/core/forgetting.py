"""What the check for forgetting found, in words.

The borders are ours: 0.02 nats a token is about what a check of some thousand tokens can tell from nothing, 0.1 makes
each token of general text about 10 % less likely, 0.5 about 40 %.
"""

from __future__ import annotations

import math
from typing import Literal

Degree = Literal["none", "little", "some", "much"]

_BORDERS: dict[str, tuple[float, float, float]] = {"loss": (0.02, 0.1, 0.5), "drift": (0.02, 0.1, 0.3)}
_ADVICE = "A lower learning rate, fewer epochs or a smaller method forget less."


def verdict(measure: Literal["loss", "drift"], before: float, after: float) -> tuple[Degree, str]:
    """How much was forgotten, and a sentence or two about it; see `ForgettingChecked` for the numbers."""
    change = after - before
    if not math.isfinite(change):
        return "much", f"General text is beyond it now: the loss is not a number. {_ADVICE}"
    degree = _degree(change, _BORDERS[measure])
    if measure == "drift":
        words = {
            "none": "What it makes of general text is as good as unchanged.",
            "little": f"What it makes of general text has changed a little, by {change:.0%}.",
            "some": f"What it makes of general text has changed clearly, by {change:.0%}.",
            "much": f"What it makes of general text has changed greatly, by {change:.0%}. {_ADVICE}",
        }
        return degree, words[degree]
    if change < -_BORDERS["loss"][0]:
        return "none", f"Nothing was forgotten: general text has even become {1 - math.exp(change):.0%} easier for it."
    harder = _harder(math.exp(min(change, 20.0)))
    words = {
        "none": "Nothing was forgotten that this check can see: general text is as easy for it as before.",
        "little": f"A little was forgotten: general text is {harder}.",
        "some": f"Some was forgotten: general text is {harder}. {_ADVICE}",
        "much": f"Much was forgotten: general text is {harder}. {_ADVICE}",
    }
    return degree, words[degree]


def _harder(times: float) -> str:
    if times < 2:
        return f"{times - 1:.0%} harder for it than before"
    return f"{times:,.1f} times as hard for it as before" if times < 1000 else "beyond it now"


def _degree(change: float, borders: tuple[float, float, float]) -> Degree:
    little, some, much = borders
    if change < little:
        return "none"
    if change < some:
        return "little"
    return "some" if change < much else "much"
