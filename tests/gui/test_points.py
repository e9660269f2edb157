"""Points of a chart that only ever grows."""

from __future__ import annotations

import math
import time

import pytest

from tunedesk.gui.pages._points import MOST, GrowingPoints


def filled(count: int) -> GrowingPoints:
    points = GrowingPoints()
    for x in range(count):
        points.add(x, 2.0 * x)
    return points


def test_that_a_short_line_is_shown_as_it_is() -> None:
    points = filled(MOST)
    assert points.shown == [(x, 2.0 * x) for x in range(MOST)]
    assert points.shown is points.every


@pytest.mark.parametrize("count", [MOST + 1, MOST + 2, 3 * MOST + 5, 100_000])
def test_that_a_long_line_keeps_its_shape(count: int) -> None:
    points = filled(count)
    shown = points.shown
    assert len(points.every) == count
    assert MOST // 2 <= len(shown) <= MOST + 1
    assert shown[-1] == points.every[-1]
    assert all(y == pytest.approx(2 * x) for x, y in shown)
    assert [x for x, _ in shown] == sorted(x for x, _ in shown)


def test_that_a_gap_stays_a_gap() -> None:
    points = GrowingPoints()
    for x in range(2 * MOST):
        points.add(x, math.nan if x == 777 else 1.0)
    gaps = [x for x, y in points.shown if math.isnan(y)]
    assert len(gaps) == 1
    assert gaps[0] == pytest.approx(777, abs=2)


def test_that_the_mean_skips_what_is_no_number() -> None:
    points = GrowingPoints()
    assert points.recent_mean(3) is None
    for y in (9.0, 1.0, math.nan, 3.0):
        points.add(0, y)
    assert points.recent_mean(3) == 2.0


def test_that_adding_is_fast() -> None:
    began = time.perf_counter()
    filled(100_000)
    assert time.perf_counter() - began < 1.0
