"""Whole runs with every method: trained, stopped and resumed, asked, through the engine's own entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.engine.conftest import Recorder
from tests.engine.jobs import do
from tests.engine.models import tiny_encoder
from tests.engine.test_train import go, losses, outcome, problem, resume, stop_after
from tunedesk.core.events import (
    Ask,
    Chat,
    ChatAnswer,
    ChatReady,
    Close,
    DataDescribed,
    Evaluated,
    Export,
    Exported,
    Message,
    Sampling,
    TrainingBegan,
)
from tunedesk.core.spec import RunSpec

VIRTUAL = {"virtual_tokens": 6}
DECODER: dict[str, tuple[dict[str, Any], float]] = {
    "adalora": ({"rank": 4}, 1e-2),
    "ia3": ({}, 3e-2),
    "prefix_tuning": ({**VIRTUAL, "prefix_projection": True}, 1e-2),
    "prompt_tuning": ({**VIRTUAL, "prompt_init": "text", "prompt_text": "Answer kindly."}, 3e-2),
    "p_tuning": ({**VIRTUAL, "encoder": "lstm", "encoder_hidden_size": 16}, 1e-2),
    "houlsby": ({"bottleneck": 8}, 1e-2),
    "compacter": ({"bottleneck": 8}, 1e-2),
    "bitfit": ({}, 1e-2),
    "last_layer": ({}, 1e-2),
    "full": ({}, 2e-3),
}


def spec_for(model: Path, data: Path, name: str, task: str = "chat", **training: Any) -> RunSpec:
    section, rate = DECODER[name]
    values = {"max_steps": 8, "micro_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": rate,
              "precision": "fp32", "device": "cpu", "seed": 3, **training}  # fmt: skip
    tree = {
        "model": {"source": str(model)},
        "task": {"kind": task},
        "data": {"train": str(data), "validation_fraction": 0.2},
        "method": {"name": name, **section},
        "training": values,
    }
    return RunSpec.model_validate_json(json.dumps(tree))


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    """Sentences of several lengths; a word in each says which of three labels it has."""
    path, said = tmp_path / "sentences.jsonl", {"up": "rose", "down": "fell", "flat": "held"}
    rows = [
        {"text": f"the shares {word} {'and the bank ' * (n % 4)}{n}", "label": label}
        for n in range(20)
        for label, word in said.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ask(number: int, *sides: str) -> Ask:
    talk = (Message(role="user", content="Where is my order?"),)
    return Ask(id=number, conversations=dict.fromkeys(sides, talk), sampling=Sampling(temperature=0, max_new_tokens=6))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", DECODER)
def test_that_a_decoder_is_tuned_and_answers_on_both_sides(
    tiny_models: dict[str, Path], conversations: Path, tmp_path: Path, name: str
) -> None:
    model = tiny_models["gpt2"]
    run, channel = go(spec_for(model, conversations, name), tmp_path / "run")
    assert outcome(channel) == "completed", channel.events[-1]
    base, *checks = channel.of(Evaluated)
    assert checks[-1].loss < base.loss
    began = channel.of(TrainingBegan)[0]
    parameters = sum(item.numel() for item in load_file(model / "model.safetensors").values())
    assert began.total_parameters == parameters
    stored = load_file(run.adapter / "adapter_model.safetensors")
    if name not in ("adalora", "prefix_tuning", "p_tuning"):  # saved in another form than trained in
        assert began.trainable_parameters == sum(item.numel() for item in stored.values())
    assert all(torch.isfinite(item).all() for item in stored.values())

    events = do(Chat(run=str(run.path)), [ask(1, "base", "tuned"), Close()])
    assert next(event for event in events if isinstance(event, ChatReady)).sides == ("base", "tuned")
    answers = {event.side: event.text for event in events if isinstance(event, ChatAnswer)}
    alone = do(Chat(model=str(model)), [ask(1, "base"), Close()])
    assert answers["base"] == next(event.text for event in alone if isinstance(event, ChatAnswer))
    assert "tuned" in answers


def test_that_the_untouched_model_has_one_loss_whatever_the_method(
    tiny_models: dict[str, Path], conversations: Path, tmp_path: Path
) -> None:
    found = []
    for name in ("prefix_tuning", "prompt_tuning", "houlsby", "full"):
        spec = spec_for(tiny_models["llama"], conversations, name, max_steps=1)
        found.append(go(spec, tmp_path / name)[1].of(Evaluated)[0].loss)
    assert found == pytest.approx([found[0]] * len(found), rel=1e-6)


@pytest.mark.parametrize("name", DECODER)
def test_that_an_encoder_is_tuned_and_labels(tmp_path: Path, sentences: Path, name: str) -> None:
    model = tiny_encoder(tmp_path / "model", "bert")
    spec = spec_for(model, sentences, name, "classification", max_steps=24, micro_batch_size=8)
    run, channel = go(spec, tmp_path / "run")
    assert outcome(channel) == "completed", channel.events[-1]
    base, *checks = channel.of(Evaluated)
    assert min(check.loss for check in checks) < base.loss
    events = do(Chat(run=str(run.path)), [ask(1, "tuned"), Close()])
    (answer,) = [event for event in events if isinstance(event, ChatAnswer)]
    assert {share.name for share in answer.labels} == {"up", "down", "flat"}


@pytest.mark.parametrize("name", ["adalora", "p_tuning", "compacter", "full"])
def test_that_a_stopped_run_ends_with_the_same_file(
    tiny_models: dict[str, Path], conversations: Path, tmp_path: Path, name: str
) -> None:
    spec = spec_for(tiny_models["qwen2"], conversations, name, save_steps=2)
    whole, one = go(spec, tmp_path / "whole")
    run, first = go(spec, tmp_path / "cut", stop_after(5))
    assert outcome(first) == "stopped"
    second = resume(run)
    assert outcome(second) == "completed"
    assert losses(first)[:5] + losses(second) == losses(one)
    name = "adapter_model.safetensors"
    assert (run.adapter / name).read_bytes() == (whole.adapter / name).read_bytes()


def test_that_a_checkpoint_of_another_method_is_not_gone_on_with(
    tiny_models: dict[str, Path], conversations: Path, tmp_path: Path
) -> None:
    run, _ = go(spec_for(tiny_models["llama"], conversations, "houlsby"), tmp_path / "run", stop_after(3))
    (run.path / "run.toml").write_text(spec_for(tiny_models["llama"], conversations, "ia3").to_toml())
    assert problem(resume(run)).code == "run.other_method"


def test_that_rows_are_cut_to_leave_room_for_virtual_tokens(tmp_path: Path, sentences: Path) -> None:
    model = tiny_encoder(tmp_path / "model", "bert", context=24)
    long = tmp_path / "long.jsonl"
    rows = [json.loads(line) for line in sentences.read_text(encoding="utf-8").splitlines()]
    long.write_text("".join(json.dumps({**row, "text": row["text"] * 9}) + "\n" for row in rows), encoding="utf-8")
    _, channel = go(spec_for(model, long, "prompt_tuning", "classification", max_steps=2), tmp_path / "run")
    assert outcome(channel) == "completed", channel.events[-1]
    described = channel.of(DataDescribed)[0].info
    assert described.tokens is not None
    assert described.tokens.max_length == 16


def test_that_prefix_tuning_says_that_it_cannot_recompute(
    tiny_models: dict[str, Path], conversations: Path, tmp_path: Path
) -> None:
    spec = spec_for(tiny_models["llama"], conversations, "prefix_tuning", gradient_checkpointing=True)
    assert problem(go(spec, tmp_path / "run", Recorder())[1]).code == "method.checkpointing"


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
@pytest.mark.parametrize("name", [name for name in DECODER if name not in ("adalora", "prompt_tuning")])
def test_that_an_export_is_checked_and_its_card_says_how_to_load_it(
    tiny_models: dict[str, Path], conversations: Path, sentences: Path, tmp_path: Path, name: str, kind: str
) -> None:
    if kind == "gpt2":
        spec = spec_for(tiny_models["gpt2"], conversations, name)
    else:
        spec = spec_for(tiny_encoder(tmp_path / "m"), sentences, name, "classification", max_steps=4)
    run, channel = go(spec, tmp_path / "run")
    assert outcome(channel) == "completed", channel.events[-1]
    to = tmp_path / "out"
    events = do(Export(run=str(run.path), to=str(to)))
    assert isinstance(events[-2], Exported), events[-1]
    code = (to / "README.md").read_text().split("```python\n")[1].split("```")[0]
    scope: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(to)), scope)  # what the card tells people to do
    assert scope["model"] is not None
