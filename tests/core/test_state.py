"""`reduce`: what the Train page knows after any list of events."""

from tests.core.test_events import step
from tunedesk.core import events as e
from tunedesk.core.problems import Problem
from tunedesk.core.series import Series
from tunedesk.core.state import RunState, reduce, reduce_all


def began(first: int = 1, total: int = 10) -> e.TrainingBegan:
    return e.TrainingBegan(
        time=100.0,
        first_step=first,
        total_steps=total,
        steps_per_epoch=5,
        train_rows=40,
        eval_rows=4,
        trainable_parameters=100,
        total_parameters=10_000,
        weight_bytes=20_000,
        peak_learning_rate=1e-3,
        warmup_steps=1,
        scheduler="cosine",
        device="cpu",
        precision="bf16",
    )


def evaluated(at: int, loss: float, *, best: bool) -> e.Evaluated:
    return e.Evaluated(step=at, loss=loss, best=best, trained_tokens=100, seconds=1.0)


START = (e.Started(job="train", pid=1, version="0", time=90.0), e.Stage(text="Loading the model", time=91.0))


def test_that_a_whole_run_folds_to_its_end() -> None:
    events = [*START, evaluated(0, 2.0, best=False), began()]
    events += [step(step=n, loss=2.0 - n / 10, memory_bytes=n) for n in range(1, 11)]
    events += [evaluated(10, 1.0, best=True), e.Finished(outcome="completed")]
    state = reduce_all(events)
    assert state.status == "completed"
    assert [item.step for item in state.steps] == list(range(1, 11))
    assert (state.base_loss, state.best.loss if state.best else None) == (2.0, 1.0)
    assert state.fraction == 1.0
    assert state.peak_memory == 10


def test_that_reduce_changes_no_earlier_state() -> None:
    one = reduce_all([*START, began(), step(step=1)])
    two = reduce(one, step(step=2))
    other = reduce(one, step(step=2, loss=9.0))
    assert [item.step for item in one.steps] == [1]
    assert two.steps[-1].loss == 1.25
    assert other.steps[-1].loss == 9.0


def test_that_a_resumed_run_drops_the_points_it_does_again() -> None:
    first = reduce_all([*START, evaluated(0, 2.0, best=False), began()])
    first = reduce_all([step(step=n) for n in range(1, 8)], first)
    first = reduce_all([evaluated(6, 1.5, best=True), e.Finished(outcome="failed")], first)
    again = reduce_all([START[0], began(first=6)], first)
    assert [item.step for item in again.steps] == [1, 2, 3, 4, 5]
    assert [item.step for item in again.evaluations] == [0]
    assert again.status == "running"
    assert again.problems == ()
    assert again.step == 5


def test_that_time_left_comes_from_recent_steps() -> None:
    state = reduce_all([*START, began()])
    assert state.seconds_left is None
    state = reduce_all([step(step=1, seconds=2.0), step(step=2, seconds=4.0)], state)
    assert state.seconds_left == 8 * 3.0


def test_that_problems_of_the_end_are_kept() -> None:
    problem = Problem(code="engine.killed", what="Ended from outside.")
    state = reduce_all([*START, began(), step(step=1), e.Finished(outcome="failed", problems=(problem,))])
    assert state.status == "failed"
    assert state.problems == (problem,)
    assert len(state.steps) == 1


def test_that_notices_become_log_lines() -> None:
    state = reduce(RunState(), e.Notice(text="Epoch 2 begins.", step=5, time=50.0))
    assert [(line.time, line.text, line.step) for line in state.log] == [(50.0, "Epoch 2 begins.", 5)]


def test_that_a_series_is_a_sequence_that_shares_its_start() -> None:
    short = Series([1, 2])
    long = short.plus(3)
    fork = short.plus(4)
    assert (list(short), list(long), list(fork)) == ([1, 2], [1, 2, 3], [1, 2, 4])
    assert (long[-1], long[0], long[1:], len(fork)) == (3, 1, [2, 3], 3)
    assert fork.plus(5)[:] == [1, 2, 4, 5]
