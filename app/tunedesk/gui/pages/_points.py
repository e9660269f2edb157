"""Points for a chart: all of them, and no more than a screen can tell apart."""

from __future__ import annotations

import math

Point = tuple[float, float]

MOST = 3000
"""A chart is about 600 pixels wide; up to here every point is drawn as it is."""


class GrowingPoints:
    """A growing line. `every` holds all points; `shown` is `every`, or means over equal stretches once that is long.

    Adding a point takes constant time on average. A stretch with a value that is no number is no number itself, so
    that a gap stays a gap; the newest point is always shown as it is.
    """

    def __init__(self) -> None:
        self.every: list[Point] = []
        self._means: list[Point] = []
        self._size = 1
        self._x = self._y = 0.0
        self._count = 0

    def add(self, x: float, y: float) -> None:
        """Add a point at the end."""
        self.every.append((x, y))
        self._x += x
        self._y += y
        self._count += 1
        if self._count == self._size:
            self._means.append((self._x / self._count, self._y / self._count))
            self._x, self._y, self._count = 0.0, 0.0, 0
            if len(self._means) > MOST:
                self._halve()

    def _halve(self) -> None:
        pairs = zip(self._means[::2], self._means[1::2], strict=False)
        rest = self._means[-1] if len(self._means) % 2 else None
        self._means = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in pairs]
        if rest is not None:
            self._x, self._y, self._count = rest[0] * self._size, rest[1] * self._size, self._size
        self._size *= 2

    @property
    def shown(self) -> list[Point]:
        """The points to draw."""
        if self._size == 1:
            return self.every
        return [*self._means, self.every[-1]]

    def recent_mean(self, count: int) -> float | None:
        """The mean of the last `count` values that are numbers; None without any."""
        values = [y for _, y in self.every[-count:] if math.isfinite(y)]
        return sum(values) / len(values) if values else None
