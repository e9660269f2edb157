"""The arithmetic of the charts: smoothing, thinning to the pixel, and round axes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, floor, isfinite, log10

import numpy as np
from numpy.typing import NDArray

Points = Sequence[tuple[float, float]]
Array = NDArray[np.float64]


def columns(points: Points) -> tuple[Array, Array]:
    """Return steps and values as two arrays."""
    table = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def smoothed(values: Array, keep: float) -> Array:
    """Return the running mean that forgets; it starts without bias and skips what is not finite."""
    out = np.empty_like(values)
    mean = weight = 0.0
    for index, value in enumerate(values.tolist()):
        if not isfinite(value):
            out[index] = np.nan
            continue
        mean = keep * mean + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        out[index] = mean / weight
    return out


def keep_factor(count: int) -> float:
    """Return how much the smoothing keeps: about 2% of the run, between 5 and 100 steps."""
    window = min(100.0, max(5.0, count * 0.02))
    return 1 - 1 / window


def thinned(x: Array, y: Array, width: int) -> tuple[Array, Array]:
    """Return at most one point per pixel; a gap stays a gap."""
    if width < 2 or len(x) <= width:
        return x, y
    bounds = np.linspace(0, len(x), width + 1).astype(int)[:-1]
    counts = np.diff(np.append(bounds, len(x)))
    thin_x: Array = np.add.reduceat(x, bounds) / counts
    thin_y: Array = np.add.reduceat(y, bounds) / counts
    thin_x[-1], thin_y[-1] = x[-1], y[-1]
    return thin_x, thin_y


def round_step(span: float, about: float) -> float:
    """Return a round step (1, 2, 2.5 or 5 times a power of ten) that divides `span` into about that many."""
    rough = span / max(1.0, about)
    if not isfinite(rough) or rough <= 0:
        return 1.0
    power = 10.0 ** floor(log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)


def whole_range(low: float, high: float, about: float = 5) -> tuple[float, float]:
    """Widen a range to whole steps."""
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    step = round_step(high - low, about)
    return step * floor(low / step + 1e-9), step * ceil(high / step - 1e-9)


def round_top(value: float) -> float:
    """Return the next number above `value` whose half is round too."""
    if not isfinite(value) or value <= 0:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next(power * factor for factor in (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10) if power * factor >= value * 0.999)


def ticks(low: float, high: float, about: float, least: float = 0.0) -> list[float]:
    """Return the round values within a range, `least` apart or more: 1 for what is counted."""
    step = max(least, round_step(high - low, about))
    if least and step % least:
        step = round_step(high - low, (high - low) / (2 * step))  # 2.5 becomes 5
    first, last = ceil(low / step - 1e-6), floor(high / step + 1e-6)
    return [index * step for index in range(first, last + 1)]


def decimals_for(values: Sequence[float]) -> int:
    """Return how many decimals tell neighbouring ticks apart."""
    step = min((abs(b - a) for a, b in pairwise(values)), default=1.0)
    return next((places for places in range(7) if abs(round(step, places) - step) < step * 1e-3), 6)
