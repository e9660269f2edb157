"""Preparing ahead: in order, one step ahead and no further, errors at their step, and no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tunedesk.engine.ahead import Ahead

WAIT = 10.0
"""Seconds after which a test that hangs fails."""


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert threads() == []


class Prepare:
    """Prepares `-step`, and tells which steps it began. Fails at the steps in `broken`."""

    def __init__(self, *broken: int) -> None:
        self.broken = broken
        self.begun: list[int] = []
        self.where: set[int] = set()
        self.waiting = threading.Condition()

    def __call__(self, step: int) -> int:
        with self.waiting:
            self.begun.append(step)
            self.where.add(threading.get_ident())
            self.waiting.notify_all()
        if step in self.broken:
            raise RuntimeError(f"step {step}")
        return -step

    def has_begun(self, step: int) -> bool:
        with self.waiting:
            return self.waiting.wait_for(lambda: step in self.begun, WAIT)


def test_that_steps_come_in_their_order_from_one_other_thread() -> None:
    prepare = Prepare()
    with Ahead(prepare, 3, 50) as ahead:
        assert [ahead.take(step) for step in range(3, 51)] == [-step for step in range(3, 51)]
    assert prepare.begun == list(range(3, 51))
    assert len(prepare.where) == 1
    assert threading.get_ident() not in prepare.where


def test_that_the_next_step_is_prepared_while_this_one_is_computed_and_no_other() -> None:
    prepare = Prepare()
    with Ahead(prepare, 1, 9) as ahead:
        assert prepare.has_begun(1)  # before anything is asked for
        for step in (1, 2, 3):
            ahead.take(step)
            assert prepare.has_begun(step + 1)
    assert prepare.begun == [1, 2, 3, 4]


def test_that_an_error_comes_at_its_step_and_not_before() -> None:
    prepare = Prepare(3)
    with Ahead(prepare, 1, 9) as ahead:
        assert [ahead.take(1), ahead.take(2)] == [-1, -2]
        assert prepare.has_begun(3)
        for _ in range(2):  # it stays that step's
            with pytest.raises(RuntimeError, match="step 3"):
                ahead.take(3)
    assert prepare.begun == [1, 2, 3]


def test_that_an_error_that_nobody_came_for_is_not_raised() -> None:
    prepare = Prepare(2)
    with Ahead(prepare, 1, 9) as ahead:
        ahead.take(1)
        assert prepare.has_begun(2)


def test_that_an_error_of_the_consumer_ends_the_thread() -> None:
    def consume() -> None:
        with Ahead(Prepare(), 1, 9) as ahead:
            ahead.take(1)
            raise KeyError

    with pytest.raises(KeyError):
        consume()
    assert threads() == []


def test_that_closing_waits_for_what_is_being_prepared_and_can_be_done_twice() -> None:
    going, done = threading.Event(), []

    def prepare(step: int) -> None:
        assert going.wait(WAIT)
        done.append(step)

    ahead = Ahead(prepare, 1, 9)
    threading.Timer(0.05, going.set).start()
    ahead.close()
    ahead.close()
    assert done == [1]
    assert threads() == []
    with pytest.raises(ValueError, match="not the next"):
        ahead.take(1)


def test_that_no_steps_need_no_thread() -> None:
    with Ahead(Prepare(), 5, 4) as ahead:
        assert threads() == []
        with pytest.raises(ValueError, match="not the next"):
            ahead.take(5)


@pytest.mark.parametrize("step", [1, 3, 10])
def test_that_only_the_next_step_can_be_taken(step: int) -> None:
    with Ahead(Prepare(), 1, 9) as ahead:
        ahead.take(1)
        with pytest.raises(ValueError, match=f"Step {step} is not the next"):
            ahead.take(step)
        assert ahead.take(2) == -2
