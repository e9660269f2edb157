"""Numbers and problems in words, one way of writing each. Pure functions; no locale but English digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from tunedesk.core.hardware import GIB
from tunedesk.core.plan import Estimate
from tunedesk.core.problems import Problem
from tunedesk.gui.widgets import ProblemItem, Severity

MINUS: Final = "\u2212"
DASH: Final = "\u2013"
"""Stands for a value that is not known yet."""

_FILE_UNITS: Final = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_LARGE: Final = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))


def number(value: float, places: int = 0) -> str:
    """Thousands with a comma, the sign as U+2212, `places` decimals."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    text = f"{abs(value):,.{places}f}"
    negative = value < 0 and any(digit in "123456789" for digit in text)
    return MINUS + text if negative else text


def count(value: int) -> str:
    """``4,812``."""
    return number(value)


def several(value: int, one: str, many: str) -> str:
    """``1 row``, ``4,812 rows``."""
    return f"{count(value)} {one if value == 1 else many}"


def large(value: float) -> str:
    """``134.5 million``, ``4.02 billion``; below a million all digits."""
    for size, name in _LARGE:
        if value >= size * 0.9995:
            return f"{_significant(value / size, 3 if value / size < 100 else 4)} {name}"
    return number(value)


def gib(value: float, places: int = 1) -> str:
    """Bytes of memory: ``11.2 GiB``."""
    return f"{gib_number(value, places)} GiB"


def gib_number(value: float, places: int = 1) -> str:
    """Bytes of memory without the unit: ``11.2``."""
    return number(value / GIB, places)


def gib_change(value: float, places: int = 1) -> str:
    """A change of memory with its sign: ``−6.4 GiB``, ``+0.5 GiB``."""
    text = gib(value, places)
    return f"+{text}" if value > 0 and any(digit in "123456789" for digit in text) else text


def band(estimate: Estimate) -> str:
    """A peak with its error band: ``10.1 GiB ± 0.3``."""
    half = (estimate.high_bytes - estimate.low_bytes) / 2
    return f"{gib(estimate.peak_bytes)} ± {gib_number(half)}"


def file_size(value: float) -> str:
    """Bytes on a disk, in thousands: ``170 kB``, ``98.4 MB``, ``2.89 GB``."""
    for size, unit in _FILE_UNITS:
        if value >= size * 0.9995:
            return f"{_significant(value / size, 3)} {unit}"
    return f"{number(value)} B"


def of_size(done: float, total: float) -> str:
    """How far a transfer is, in one unit: ``41.2 of 98.4 MB``."""
    for size, unit in _FILE_UNITS:
        if total >= size:
            return f"{number(done / size, 1)} of {number(total / size, 1)} {unit}"
    return f"{number(done)} of {number(total)} B"


def loss(value: float) -> str:
    """Three decimals: ``1.142``; a NaN is said in words."""
    return number(value, 3)


def rate(value: float) -> str:
    """A learning rate as it is typed: ``6.6e-5``, ``2e-4``."""
    if value == 0 or not math.isfinite(value):
        return number(value)
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def decimal(value: float) -> str:
    """A plain setting as it is typed: ``0.05``, ``3``."""
    return f"{value:g}"


def share(value: float) -> str:
    """A share of one as a percentage, three significant digits at most: ``0.82%``, ``38%``."""
    percent = value * 100
    if not math.isfinite(percent):
        return number(percent)
    if percent == 0 or percent >= 10:
        return f"{number(percent)}%"
    return f"{_significant(percent, 1 if percent < 0.1 else 2 if percent < 1 else 3).rstrip('0').rstrip('.')}%"


def percent(value: float) -> str:
    """A share of one in whole percent: ``71%``, ``<1%``, ``>99%``."""
    if 0 < value < 0.005:
        return "<1%"
    if 0.995 <= value < 1:
        return ">99%"
    return f"{number(value * 100)}%"


def duration(seconds: float) -> str:
    """``48 s``, ``32 min``, ``1 h 26 min``."""
    if not math.isfinite(seconds):
        return "not known"
    if round(seconds) < 60:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{count(hours)} h {rest} min" if rest else f"{count(hours)} h"


def tokens_per_second(value: float) -> str:
    """``1,042 tokens/s``."""
    return f"{number(round(value)) if math.isfinite(value) else number(value)} tokens/s"


def clock(seconds: float) -> str:
    """The time of day of a moment since the epoch: ``16:42``."""
    return datetime.fromtimestamp(seconds).strftime("%H:%M")


def log_time(seconds: float) -> str:
    """The time of day with seconds: ``16:08:44``."""
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")


def listed(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def problem_item(
    problem: Problem, actions: tuple[tuple[str, str], ...] = (), *, severity: Severity = "bad", aside: str = ""
) -> ProblemItem:
    """A problem as a row of the bar: what is wrong first, then where, what is there now and what to do."""
    rest = [part for part in (problem.where, problem.found, problem.fix) if part]
    return ProblemItem(severity, problem.what, " ".join(_sentence(part) for part in rest), actions, aside)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", ":", "…", "'", ")")) else f"{text}."


def _significant(value: float, digits: int) -> str:
    """`digits` significant digits, never in scientific form, never fewer than the whole part."""
    if value == 0:
        return "0"
    whole = int(f"{value:.{digits - 1}e}".split("e")[1]) + 1
    return number(value, max(0, digits - whole))
