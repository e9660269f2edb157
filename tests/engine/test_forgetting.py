"""The check for forgetting against plain transformers and peft, in whole runs."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from tests.engine.conftest import Recorder
from tests.engine.models import tiny_encoder
from tests.engine.test_methods_runs import sentences, spec_for
from tests.engine.test_train import go, outcome, stop_after
from tunedesk.core.events import ForgettingChecked
from tunedesk.core.paths import general_text
from tunedesk.core.state import reduce_all
from tunedesk.engine.forgetting import LENGTH, PASSAGES, passages

__all__ = ["sentences"]


def forgotten(channel: Recorder) -> ForgettingChecked | None:
    return next(iter(channel.of(ForgettingChecked)), None)


def plain_loss(model: Any, tokenizer: Any, length: int) -> float:
    """Nats a token over the passages, one at a time, as transformers itself computes its loss."""
    total, count = 0.0, 0
    for text in passages():
        ids = tokenizer(text, truncation=True, max_length=length, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return total / count


def test_that_general_text_is_large_and_the_passages_lie_all_over_it() -> None:
    text = general_text().read_text(encoding="utf-8")
    assert len(text.encode()) >= 200_000
    places = [text.index(passage) / len(text) for passage in passages()]
    assert len(set(passages())) == PASSAGES
    assert places == sorted(places)
    assert max(b - a for a, b in pairwise([*places, 1.0])) < 1.5 / PASSAGES


@pytest.mark.parametrize("method", ["lora", "prompt_tuning", "houlsby", "full"])
def test_that_before_and_after_are_what_transformers_gives(
    tmp_path: Path, tiny_llama: Path, conversations: Path, method: str
) -> None:
    spec = spec_for(tiny_llama, conversations, method) if method != "lora" else lora_spec(tiny_llama, conversations)
    run, channel = go(spec, tmp_path / "run")
    found = forgotten(channel)
    assert found is not None
    assert found.measure == "loss"
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    assert found.before == pytest.approx(plain_loss(base, tokenizer, LENGTH), abs=1e-4)
    assert found.after != pytest.approx(found.before, abs=1e-4)
    if method == "lora":
        tuned = PeftModel.from_pretrained(base, str(run.adapter)).eval()
        assert found.after == pytest.approx(plain_loss(tuned, tokenizer, LENGTH), abs=1e-4)
    report = json.loads(run.report_file.read_text(encoding="utf-8"))
    assert report["forgetting"]["after"] == found.after
    assert reduce_all(channel.events).forgetting == found


def lora_spec(model: Path, data: Path, **training: Any) -> Any:
    spec = spec_for(model, data, "ia3", **training)
    values = {**spec.model_dump(mode="json"), "method": {"name": "lora", "rank": 4}}
    values["training"]["learning_rate"] = 2e-2
    return type(spec).model_validate_json(json.dumps(values))


def test_that_the_weights_that_are_kept_are_the_ones_looked_at(
    tmp_path: Path, tiny_llama: Path, conversations: Path
) -> None:
    spec = lora_spec(tiny_llama, conversations, max_steps=30, eval_steps=2, lr_scheduler="constant")
    values = spec.model_dump(mode="json")
    values["training"]["learning_rate"] = 0.3  # so high that the best step is not the last
    run, channel = go(type(spec).model_validate_json(json.dumps(values)), tmp_path / "run")
    found = forgotten(channel)
    assert found is not None
    assert found.step < 30
    base = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    tuned = PeftModel.from_pretrained(base, str(run.adapter)).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    assert found.after == pytest.approx(plain_loss(tuned, tokenizer, LENGTH), abs=1e-4)


def test_that_a_classifier_is_told_how_far_its_picture_of_text_moved(tmp_path: Path, sentences: Path) -> None:
    encoder = tiny_encoder(tmp_path / "bert", pooled=False)
    spec = spec_for(encoder, sentences, "full", "classification")
    run, channel = go(spec, tmp_path / "run")
    found = forgotten(channel)
    assert found is not None
    assert (found.measure, found.before) == ("drift", 0.0)
    from safetensors.torch import load_file

    tokenizer, base = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    tuned = AutoModel.from_pretrained(encoder).eval()
    learned = load_file(run.adapter / "adapter_model.safetensors")
    inner = {name.removeprefix("bert."): value for name, value in learned.items() if name.startswith("bert.")}
    assert not tuned.load_state_dict(inner, strict=False).unexpected_keys
    likeness = []
    for text in passages():
        out = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            one, other = (model(input_ids=out).last_hidden_state[0].mean(0) for model in (base, tuned))
        likeness.append(float(torch.cosine_similarity(one, other, dim=0)))
    assert found.after == pytest.approx(1 - sum(likeness) / len(likeness), abs=1e-4)
    assert found.after > 1e-4


def test_that_the_check_can_be_left_out_and_a_stopped_run_ends_at_once(
    tmp_path: Path, tiny_llama: Path, conversations: Path
) -> None:
    run, channel = go(lora_spec(tiny_llama, conversations, forgetting=False), tmp_path / "off")
    assert forgotten(channel) is None
    assert json.loads(run.report_file.read_text(encoding="utf-8"))["forgetting"] is None
    _, channel = go(lora_spec(tiny_llama, conversations), tmp_path / "stopped", stop_after(3))
    assert outcome(channel) == "stopped"
    assert forgotten(channel) is None
