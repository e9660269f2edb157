"""The jobs that look and do not train: `InspectData` and `MakePlan`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engine.conftest import Recorder
from tunedesk.core.events import DataDescribed, Finished, InspectData, MakePlan, ModelDescribed, PlanMade
from tunedesk.core.spec import RunSpec
from tunedesk.engine.__main__ import run_job


def inspect(**job: object) -> tuple[DataDescribed, Recorder]:
    channel = Recorder()
    run_job(InspectData(**job), channel)
    assert channel.of(Finished)[0].outcome == "completed", channel.of(Finished)
    return channel.of(DataDescribed)[0], channel


def test_that_a_file_is_described_without_a_model(conversations: Path) -> None:
    event, _ = inspect(source=str(conversations), examples=3)
    assert (event.info.layout, event.info.task, event.info.rows) == ("messages", "chat", 40)
    assert event.info.train_rows + event.info.eval_rows == 40
    assert event.info.tokens is None
    assert [row.row for row in event.examples] == [1, 2, 3]
    assert [turn.spans[0].kind for turn in event.examples[0].turns] == ["context", "trained"]


def test_that_a_model_adds_tokens_and_spans(conversations: Path, tiny_llama: Path) -> None:
    event, _ = inspect(source=str(conversations), model=str(tiny_llama), max_length=40)
    stats = event.info.tokens
    assert stats is not None
    assert stats.max_length == 40
    assert sum(stats.histogram) == 40
    assert stats.longest >= stats.p90 >= stats.median
    assert stats.cut_rows == next(item.count for item in event.info.findings if item.code == "data.cut")
    row = event.examples[0]
    assert sum(len(turn.spans) for turn in row.turns) == row.tokens


def test_that_oddities_are_found(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_bytes("question,answer\nWo?,Köln\nWo?,Köln\nWer?,x\n".encode("cp1252"))
    found = {item.code: item for item in inspect(source=str(path))[0].info.findings}
    assert set(found) == {"data.encoding", "data.few_rows", "data.duplicates", "data.short_answers"}
    assert found["data.duplicates"].rows == (2,)
    assert found["data.short_answers"].rows == (3,)


def test_that_text_is_for_completion(tmp_path: Path, tiny_llama: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("One.\n\nTwo.\n")
    event, _ = inspect(source=str(path), model=str(tiny_llama))
    assert event.info.task == "completion"
    assert event.examples[0].turns[0].role == "text"


def test_that_a_bad_file_ends_in_its_problem(tmp_path: Path) -> None:
    channel = Recorder()
    assert run_job(InspectData(source=str(tmp_path / "no.jsonl")), channel) == 2
    assert channel.of(Finished)[0].problems[0].code == "data.missing"


def test_that_a_plan_describes_model_and_data(conversations: Path, tiny_llama: Path) -> None:
    spec = RunSpec.model_validate({"model": {"source": str(tiny_llama)}, "data": {"train": str(conversations)}})
    channel = Recorder()
    run_job(MakePlan(run_toml=spec.to_toml(), device="RTX 3060:12GiB"), channel)
    assert channel.of(Finished)[0].outcome == "completed"
    plan = channel.of(PlanMade)[0].plan
    assert plan.device.name == "RTX 3060"
    assert plan.fits
    assert channel.of(ModelDescribed)[0].info.path == str(tiny_llama)
    assert channel.of(DataDescribed)[0].info.tokens is not None


@pytest.mark.parametrize("device", ["tpu", "RTX:lots"])
def test_that_an_unknown_device_is_a_problem(device: str) -> None:
    channel = Recorder()
    run_job(MakePlan(run_toml="", device=device), channel)
    assert channel.of(Finished)[0].problems[0].code == "device.missing"


def test_that_the_plan_and_the_training_agree(conversations: Path, tiny_llama: Path, tmp_path: Path) -> None:
    from tests.engine.test_train import go

    tree = {"model": {"source": str(tiny_llama)}, "data": {"train": str(conversations)},
            "training": {"max_steps": 1, "device": "cpu"}}  # fmt: skip
    spec = RunSpec.model_validate_json(json.dumps(tree))
    channel = Recorder()
    run_job(MakePlan(run_toml=spec.to_toml()), channel)
    _, trained = go(spec, tmp_path / "run")
    assert trained.of(PlanMade)[0].plan.resolved == channel.of(PlanMade)[0].plan.resolved
