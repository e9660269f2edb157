"""The wire format: strict, whole, and able to carry numbers that are none."""

import math

import pytest
from pydantic import ValidationError

from tunedesk.core import events as e
from tunedesk.core.problems import Problem


def step(**changes: object) -> e.StepDone:
    fields = {
        "step": 3,
        "epoch": 0.5,
        "loss": 1.25,
        "learning_rate": 1e-4,
        "gradient_norm": 0.5,
        "tokens": 900,
        "trained_tokens": 400,
        "seconds": 1.5,
        "memory_bytes": 10,
    }
    return e.StepDone.model_validate({**fields, **changes})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, 2.5])
def test_that_any_loss_survives_the_trip(value: float) -> None:
    back = e.read_event(e.write_line(step(loss=value)))
    assert isinstance(back, e.StepDone)
    assert back.loss == value or (math.isnan(back.loss) and math.isnan(value))


def test_that_an_event_is_one_line_with_kind_seq_and_time() -> None:
    line = e.write_line(step(seq=7, time=12.5))
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert '"kind":"step"' in line
    assert '"seq":7' in line
    assert '"time":12.5' in line


def test_that_text_with_line_feeds_stays_on_one_line() -> None:
    event = e.ChatDelta(id=1, side="tuned", text="one\ntwo\u2028three")
    line = e.write_line(event)
    assert line.count("\n") == 1
    assert e.read_event(line) == event


@pytest.mark.parametrize(
    "line",
    [
        '{"kind":"step"}',
        '{"kind":"unheard_of","seq":1,"time":0}',
        '{"kind":"notice","seq":1,"time":0,"text":"x","colour":"red"}',
        '{"kind":"stage","seq":"1","time":0,"text":"x"}',
        '{"kind":"stage","seq":1,"time":0,"text":5}',
        '{"kind":"step","step":1,"epoch":0,"loss":"lots","learning_rate":1,"gradient_norm":1,"tokens":1,'
        '"trained_tokens":1,"seconds":1,"memory_bytes":1}',
        "not json",
    ],
)
def test_that_what_is_not_in_the_protocol_is_refused(line: str) -> None:
    with pytest.raises(ValidationError):
        e.read_event(line)


def test_that_jobs_and_commands_read_back() -> None:
    job = e.Train(run="/runs/1", resume=True)
    assert e.read_job(e.write_line(job)) == job
    ask = e.Ask(id=4, conversations={"base": (e.Message(role="user", content="Hi"),)}, sampling=e.Sampling(seed=3))
    assert e.read_command(e.write_line(ask)) == ask


def test_that_finished_carries_every_problem() -> None:
    problems = (Problem(code="a", what="One."), Problem(code="b", what="Two.", fix="Mend it."))
    back = e.read_event(e.write_line(e.Finished(outcome="failed", problems=problems)))
    assert isinstance(back, e.Finished)
    assert back.problems == problems


def test_that_a_torn_last_line_is_left_out(tmp_path) -> None:
    path = tmp_path / "events.jsonl"
    whole = e.write_line(e.Stage(seq=1, text="Loading"))
    path.write_text(whole + whole[:20], encoding="utf-8")
    assert e.read_events_file(path) == [e.Stage(seq=1, text="Loading")]
