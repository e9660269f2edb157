"""The fast engine in whole runs, against the reference loop, and the pieces that only a run uses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.engine.conftest import Recorder
from tests.engine.test_train import go, losses, make_spec, outcome, resume, weights
from tunedesk.core.events import Evaluated, Event, StepDone, TrainingBegan
from tunedesk.engine.fast import kernels, native
from tunedesk.engine.fast.flat_adamw import FlatAdamW
from tunedesk.engine.fast.token_loss import Head, TokenLoss


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "gemma2", "gpt2"])
def test_that_both_engines_draw_the_same_curve(
    tiny_models: dict[str, Path], conversations: Path, tmp_path: Path, family: str
) -> None:
    runs = {}
    for engine in ("fast", "reference"):
        spec = make_spec(tiny_models[family], conversations, max_steps=12, eval_steps=4, engine=engine)
        runs[engine] = go(spec, tmp_path / engine)[1]
        assert outcome(runs[engine]) == "completed"
    assert losses(runs["fast"]) == pytest.approx(losses(runs["reference"]), abs=1e-4)
    checks = [[event.loss for event in channel.of(Evaluated)] for channel in runs.values()]
    assert checks[0] == pytest.approx(checks[1], abs=1e-4)
    norms = [[event.gradient_norm for event in channel.of(StepDone)] for channel in runs.values()]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    began = [channel.of(TrainingBegan)[0] for channel in runs.values()]
    assert began[0].trainable_parameters == began[1].trainable_parameters
    assert began[0].total_parameters == began[1].total_parameters


def test_that_dropout_is_left_to_peft(tiny_llama: Path, conversations: Path, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        spec = make_spec(tiny_llama, conversations, method={"dropout": 0.3}, precision=precision)
        _, channel = go(spec, tmp_path / precision)
        assert outcome(channel) == "completed"
        assert losses(channel)[-1] < losses(channel)[0]


@pytest.mark.parametrize("name", ["lora", "qlora"])
def test_that_a_run_cut_short_ends_with_the_same_weights(
    tiny_llama: Path, conversations: Path, tmp_path: Path, name: str
) -> None:
    spec = make_spec(tiny_llama, conversations, method={"name": name}, save_steps=2, eval_steps=3, precision="bf16")
    whole, _ = go(spec, tmp_path / "whole")

    def stop(channel: Recorder, event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            channel.ask_stop()

    cut, channel = go(spec, tmp_path / "cut", Recorder(stop))
    assert outcome(channel) == "stopped"
    assert outcome(resume(cut)) == "completed"
    last = [load_file(run.checkpoints / "step-6" / "adapter_model.safetensors") for run in (whole, cut)]
    assert all(torch.equal(last[0][key], last[1][key]) for key in last[0])
    assert weights(whole).keys() == weights(cut).keys()


def test_that_checkpoints_go_from_one_engine_to_the_other(
    tiny_llama: Path, conversations: Path, tmp_path: Path
) -> None:
    def stop(channel: Recorder, event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            channel.ask_stop()

    ends = []
    for first, second in (("fast", "fast"), ("fast", "reference"), ("reference", "fast")):
        run, _ = go(make_spec(tiny_llama, conversations, engine=first), tmp_path / f"{first}-{second}", Recorder(stop))
        text = run.spec_file.read_text(encoding="utf-8")
        run.spec_file.write_text(text.replace(f'engine = "{first}"', f'engine = "{second}"'), encoding="utf-8")
        ends.append(losses(resume(run)))
    assert ends[0] == pytest.approx(ends[1], abs=1e-4)
    assert ends[0] == pytest.approx(ends[2], abs=1e-4)


@pytest.mark.slow
def test_that_accumulation_keeps_the_curve_on_the_command_line(
    tiny_llama: Path, conversations: Path, tmp_path: Path
) -> None:
    path = tmp_path / "RUN.toml"
    path.write_text(make_spec(tiny_llama, conversations, max_steps=30, eval_steps=30).to_toml(), encoding="utf-8")
    curves = []
    for micro, accumulation in ((1, 8), (2, 4), (8, 1)):
        command = [sys.executable, "-m", "tunedesk", "train", str(path), "--json", "--out", str(tmp_path / f"r{micro}")]
        command += ["--set", f"training.micro_batch_size={micro}"]
        command += ["--set", f"training.gradient_accumulation_steps={accumulation}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        events = [json.loads(line) for line in done.stdout.splitlines()]
        curves.append([event["loss"] for event in events if "gradient_norm" in event])
    assert len(curves[0]) == 30
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    assert curves[0] == pytest.approx(curves[2], abs=1e-4)


def test_that_the_flat_optimiser_is_adamw() -> None:
    torch.manual_seed(0)
    starts = [torch.randn(3, 5), torch.randn(7), torch.randn(2, 2)]
    mine, other = ([torch.nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    flat = FlatAdamW(mine, 1e-2, 0.1)
    plain = torch.optim.AdamW(other, lr=1e-2, weight_decay=0.1)
    for _ in range(5):
        flat.zero_grad()
        for a, b in zip(mine, other, strict=True):
            b.grad = torch.randn_like(b)
            assert a.grad is not None
            a.grad.add_(b.grad)
        assert flat.clip(1.0) == pytest.approx(float(torch.nn.utils.clip_grad_norm_(other, 1.0)))
        flat.step()
        plain.step()
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b)
    again = FlatAdamW([torch.nn.Parameter(start.clone()) for start in starts], 1e-2, 0.1)
    again.load_state_dict(plain.state_dict())
    for a, b in zip(again.param_groups[0]["params"], other, strict=True):
        torch.testing.assert_close(again.state[a]["exp_avg_sq"], plain.state[b]["exp_avg_sq"])
        assert float(again.state[a]["step"]) == 5


@pytest.mark.parametrize("native_code", [True, False])
@pytest.mark.parametrize(("scale", "cap"), [(1.0, 0.0), (0.25, 0.0), (1.0, 5.0)])
def test_that_the_chunked_loss_is_cross_entropy(
    monkeypatch: pytest.MonkeyPatch, native_code: bool, scale: float, cap: float
) -> None:
    if not native_code:
        monkeypatch.setattr(native, "library", lambda: None)
    torch.manual_seed(0)
    weight, targets = torch.randn(300, 24), torch.randint(0, 300, (601,))
    hidden = torch.randn(601, 24, requires_grad=True)
    (TokenLoss.apply(hidden, targets, Head(weight, None, scale, cap)) * 0.5).backward()
    mine, hidden.grad = hidden.grad, None
    scores = hidden @ weight.t() * scale
    scores = torch.tanh(scores / cap) * cap if cap else scores
    loss = torch.nn.functional.cross_entropy(scores, targets, reduction="sum")
    (loss * 0.5).backward()
    torch.testing.assert_close(mine, hidden.grad, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert float(TokenLoss.apply(hidden, targets, Head(weight, None, scale, cap))) == pytest.approx(float(loss))


def test_that_a_loss_that_is_not_a_number_is_seen() -> None:
    scores = torch.full((2, 40), torch.nan)
    assert kernels.cross_entropy(scores, torch.tensor([1, 2]), 1.0).isnan().all()
