"""Training through the engine's own entry, on tiny models: the numbers, the files, and what happens when cut short."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.engine.conftest import Recorder
from tunedesk.core.events import (
    AdapterSaved,
    CheckpointSaved,
    Evaluated,
    Event,
    Finished,
    Notice,
    SaveNow,
    StepDone,
    Train,
    TrainingBegan,
)
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.core.runs import RunFolder, create_run
from tunedesk.core.spec import RunSpec
from tunedesk.core.state import reduce_all
from tunedesk.engine import batches, checkpoints
from tunedesk.engine.__main__ import run_job
from tunedesk.engine.batches import Steps, TokenLoss, batch_loss, collate, micro_batches
from tunedesk.engine.render import Renderer, TokenRow
from tunedesk.engine.rows import read_dataset
from tunedesk.engine.train import learning_rate


def make_spec(
    model: Path, data: Path, method: dict | None = None, source: dict | None = None, **training: object
) -> RunSpec:
    values = {"max_steps": 6, "micro_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 1e-2,
              "precision": "fp32", "device": "cpu", "seed": 3, **training}  # fmt: skip
    tree = {
        "model": {"source": str(model)},
        "data": {"train": str(data), "validation_fraction": 0.2, **(source or {})},
        "method": {"rank": 4, **(method or {})},
        "training": values,
    }
    return RunSpec.model_validate_json(json.dumps(tree))


def go(spec: RunSpec, out: Path, channel: Recorder | None = None) -> tuple[RunFolder, Recorder]:
    run = create_run(spec, out)
    channel = channel or Recorder()
    run_job(Train(run=str(run.path)), channel)
    return run, channel


def resume(run: RunFolder, channel: Recorder | None = None) -> Recorder:
    channel = channel or Recorder()
    run_job(Train(run=str(run.path), resume=True), channel)
    return channel


def outcome(channel: Recorder) -> str:
    (end,) = channel.of(Finished)
    assert channel.events[-1] == end
    return end.outcome


def problem(channel: Recorder) -> Problem:
    assert outcome(channel) == "failed"
    return channel.of(Finished)[0].problems[0]


def losses(channel: Recorder) -> list[float]:
    return [event.loss for event in channel.of(StepDone)]


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(run.adapter / "adapter_model.safetensors")


def token_rows(data: Path, tokenizer: PreTrainedTokenizerFast) -> list[TokenRow]:
    return Renderer(tokenizer, "chat", "m").render(read_dataset(str(data)).rows, data)


# A whole run.


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "mistral", "gemma2"])
def test_that_each_family_learns_and_its_adapter_loads_elsewhere(
    tiny_models: dict[str, Path], conversations: Path, tmp_path: Path, family: str
) -> None:
    run, channel = go(make_spec(tiny_models[family], conversations, max_steps=10, epochs=3.0), tmp_path / "run")
    assert outcome(channel) == "completed"
    began = channel.of(TrainingBegan)[0]
    base, *checks = channel.of(Evaluated)
    assert base.step == 0
    assert checks[-1].loss < base.loss
    assert began.train_rows + began.eval_rows == 40
    assert began.trainable_parameters == sum(tensor.numel() for tensor in weights(run).values())
    best = min(checks, key=lambda item: item.loss)
    assert channel.of(AdapterSaved)[0].step == best.step
    tuned = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_models[family], dtype=torch.float32), run.adapter
    )
    report = json.loads(run.report_file.read_text())
    assert report["outcome"] == "completed"
    assert report["best_loss"] == best.loss
    assert report["base_loss"] == base.loss
    tokenizer = PreTrainedTokenizerFast.from_pretrained(run.adapter)
    assert tokenizer.chat_template
    held = token_rows(conversations, tokenizer)
    from tunedesk.engine.rows import split_rows

    numbers = {row.number for row in split_rows(read_dataset(str(conversations)).rows, 0.2, 3)[1]}
    total, count = 0.0, 0
    with torch.no_grad():
        for row in (row for row in held if row.number in numbers):
            ids = torch.tensor([list(row.ids)])
            labels = torch.tensor([[token if mark else -100 for token, mark in zip(row.ids, row.trained, strict=True)]])
            total += float(tuned(input_ids=ids, labels=labels).loss) * row.trained_count
            count += row.trained_count
    assert total / count == pytest.approx(best.loss, rel=1e-4)


def test_that_the_record_is_whole_and_folds_into_a_state(tiny_llama: Path, conversations: Path, tmp_path: Path) -> None:
    run, channel = go(make_spec(tiny_llama, conversations), tmp_path / "run")
    state = run.state()
    assert state == reduce_all(channel.events)
    assert state.status == "completed"
    assert [event.seq for event in channel.events] == list(range(1, len(channel.events) + 1))
    about = json.loads(run.environment_file.read_text())
    assert about["data"]["sha256"]
    assert set(about["model"]["files"]) == {"model.safetensors"}
    assert about["resolved"]["micro_batch_size"] == 4
    steps = channel.of(StepDone)
    assert all(step.tokens > step.trained_tokens > 0 and step.memory_bytes > 0 for step in steps)
    assert not [place for place in run.checkpoints.iterdir() if place.name.startswith(".")]


# The numbers.


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_that_loss_and_gradient_equal_plain_transformers_and_peft(
    tiny_models: dict[str, Path], conversations: Path, tokenizer: PreTrainedTokenizerFast, family: str
) -> None:
    rows = token_rows(conversations, tokenizer)[:6]
    model = _plain(tiny_models[family])
    count = sum(row.trained_count for row in rows)
    loss = sum(batch_loss(model, batch) for batch in micro_batches(rows, 4, 0)) / count
    loss.backward()
    mine = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.zero_grad()
    total = 0.0
    for row in rows:  # one by one, no padding, transformers' own loss
        labels = torch.tensor([[token if mark else -100 for token, mark in zip(row.ids, row.trained, strict=True)]])
        part = model(input_ids=torch.tensor([list(row.ids)]), labels=labels).loss * row.trained_count / count
        part.backward()
        total += part.item()
    assert loss.item() == pytest.approx(total, rel=1e-5)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(mine[name], parameter.grad, rtol=1e-3, atol=1e-6)


def _plain(folder: Path) -> torch.nn.Module:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))


def test_that_chunked_loss_equals_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_CHUNK", 3)
    scores = torch.randn(8, 11, requires_grad=True)
    targets = torch.randint(0, 11, (8,))
    (TokenLoss.apply(scores, targets) * 0.5).backward()
    mine, scores.grad = scores.grad.clone(), None
    (torch.nn.functional.cross_entropy(scores, targets, reduction="sum") * 0.5).backward()
    torch.testing.assert_close(mine, scores.grad)


def test_that_accumulation_keeps_the_curve(tiny_llama: Path, conversations: Path, tmp_path: Path) -> None:
    curves = []
    for micro, accumulation in ((1, 8), (2, 4), (8, 1)):
        spec = make_spec(
            tiny_llama, conversations, micro_batch_size=micro, gradient_accumulation_steps=accumulation, max_steps=10
        )
        curves.append(losses(go(spec, tmp_path / f"run{micro}")[1]))
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    assert curves[0] == pytest.approx(curves[2], abs=1e-4)


@pytest.mark.parametrize("grouped", [False, True])
def test_that_every_row_is_seen_once_an_epoch_and_the_last_step_is_kept(grouped: bool) -> None:
    from array import array

    rows = [TokenRow(number, array("i", [1, 2]), b"\0\1") for number in range(10)]
    for epoch in range(2):
        steps = [Steps(rows, 4, 5, grouped).rows(1 + epoch * 3 + step) for step in range(3)]
        assert [len(part) for part in steps] == [4, 4, 2]
        assert sorted(row.number for part in steps for row in part) == list(range(10))
    assert Steps(rows, 4, 5, grouped).rows(1) != Steps(rows, 4, 5, grouped).rows(4)


def test_that_padding_predicts_nothing() -> None:
    from array import array

    batch = collate([TokenRow(1, array("i", [5, 6, 7]), b"\0\1\1"), TokenRow(2, array("i", [8, 9]), b"\0\1")], 0)
    assert batch.input_ids[:, :3].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch.predicts[:, :3].tolist() == [[True, True, False], [True, False, False]]
    assert not batch.predicts[:, 3:].any()
    assert not batch.attention_mask[:, 3:].any()
    assert batch.targets.tolist() == [6, 7, 9]
    assert batch.tokens == 5


def test_that_the_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(step, 1.0, 10, 2, "cosine") for step in range(1, 11)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)
    assert rates[-1] > 0
    assert learning_rate(10, 1.0, 10, 2, "constant") == 1.0
    assert learning_rate(6, 1.0, 10, 0, "linear") == 0.5


def test_that_a_seed_repeats_a_run_to_the_bit(tiny_llama: Path, conversations: Path, tmp_path: Path) -> None:
    runs = [go(make_spec(tiny_llama, conversations, {"dropout": 0.1}, seed=seed), tmp_path / str(place))
            for place, seed in enumerate((3, 3, 4))]  # fmt: skip
    assert losses(runs[0][1]) == losses(runs[1][1])
    assert losses(runs[0][1]) != losses(runs[2][1])
    assert all(
        torch.equal(a, b) for a, b in zip(weights(runs[0][0]).values(), weights(runs[1][0]).values(), strict=True)
    )


# Cut short.


def stop_after(step: int) -> Recorder:
    def watch(channel: Recorder, event: Event) -> None:
        if isinstance(event, StepDone) and event.step == step:
            channel.ask_stop()

    return Recorder(watch)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_that_a_resumed_run_ends_with_the_same_weights(
    tiny_llama: Path, conversations: Path, tmp_path: Path, checkpointing: bool
) -> None:
    spec = make_spec(tiny_llama, conversations, {"dropout": 0.1}, {"validation_fraction": 0.0}, max_steps=9,
                     save_steps=2, gradient_checkpointing=checkpointing)  # fmt: skip
    whole, one = go(spec, tmp_path / "whole")
    run, first = go(spec, tmp_path / "cut", stop_after(5))
    assert outcome(first) == "stopped"
    assert checkpoints.whole_checkpoints(run)[-1][0] == 5
    assert first.of(AdapterSaved)[0].step == 5
    second = resume(run)
    assert outcome(second) == "completed"
    assert second.of(TrainingBegan)[0].first_step == 6
    assert losses(first)[:5] + losses(second) == losses(one)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(run)[name]), name
    record = run.events_file.read_bytes()
    assert problem(resume(run)).code == "run.complete"
    assert run.events_file.read_bytes() == record


def test_that_a_killed_run_goes_on_from_its_last_whole_checkpoint(
    tiny_llama: Path, conversations: Path, tmp_path: Path
) -> None:
    class KilledError(Exception):
        pass

    def kill(channel: Recorder, event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 6:
            raise KilledError

    spec = make_spec(tiny_llama, conversations, max_steps=8, save_steps=2, eval_steps=4, keep_checkpoints=3)
    whole, _ = go(spec, tmp_path / "whole")
    run, _ = go(spec, tmp_path / "cut", Recorder(kill))
    assert [step for step, _ in checkpoints.whole_checkpoints(run)] == [2, 4]
    torn = run.checkpoints / "step-5"
    torn.mkdir()
    (torn / "adapter_model.safetensors").write_bytes(b"half")
    channel = resume(run)
    assert channel.of(TrainingBegan)[0].first_step == 5
    assert all(torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(run).values(), strict=True))
    assert [point.step for point in run.state().steps] == list(range(1, 9))
    assert [point.step for point in run.state().evaluations] == [0, 4, 8]


def test_that_resuming_without_a_checkpoint_starts_anew_and_changed_data_is_refused(
    tiny_llama: Path, conversations: Path, tmp_path: Path
) -> None:
    run, first = go(
        make_spec(tiny_llama, conversations, save_steps=100, eval_steps=100), tmp_path / "run", stop_after(1)
    )
    assert outcome(first) == "stopped"
    for _, place in checkpoints.whole_checkpoints(run):
        (place / "trainer.json").unlink()
    assert outcome(resume(run)) == "completed"
    run, first = go(make_spec(tiny_llama, conversations), tmp_path / "run2", stop_after(1))
    conversations.write_text(conversations.read_text() * 2)
    assert problem(resume(run)).code == "data.changed"


def test_that_a_run_that_began_is_not_started_over(tiny_llama: Path, conversations: Path, tmp_path: Path) -> None:
    run, _ = go(make_spec(tiny_llama, conversations), tmp_path / "run", stop_after(2))
    channel = Recorder()
    run_job(Train(run=str(run.path)), channel)
    assert problem(channel).code == "run.started"


def test_that_stopping_keeps_the_best_adapter_and_says_so(
    tiny_llama: Path, conversations: Path, tmp_path: Path
) -> None:
    run, channel = go(make_spec(tiny_llama, conversations, eval_steps=2), tmp_path / "run", stop_after(3))
    assert outcome(channel) == "stopped"
    assert channel.of(AdapterSaved)[0].step == 2
    assert "step 2, the best so far" in channel.of(Notice)[-1].text
    assert json.loads(run.report_file.read_text())["outcome"] == "stopped"


def test_that_a_stop_before_the_first_step_keeps_nothing(tiny_llama: Path, conversations: Path, tmp_path: Path) -> None:
    channel = Recorder()
    channel.ask_stop()
    run, channel = go(make_spec(tiny_llama, conversations), tmp_path / "run", channel)
    assert outcome(channel) == "stopped"
    assert not run.adapter.exists()


def test_that_save_now_writes_a_checkpoint(tiny_llama: Path, conversations: Path, tmp_path: Path) -> None:
    def ask(channel: Recorder, event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            channel._queue.put(SaveNow())

    spec = make_spec(tiny_llama, conversations, source={"validation_fraction": 0.0}, save_steps=100)
    _, channel = go(spec, tmp_path / "run", Recorder(ask))
    assert [event.step for event in channel.of(CheckpointSaved)] == [3, 6]


def test_that_old_checkpoints_go_and_the_best_stays(tiny_llama: Path, conversations: Path, tmp_path: Path) -> None:
    spec = make_spec(tiny_llama, conversations, max_steps=8, save_steps=1, eval_steps=8, keep_checkpoints=2)
    run, _ = go(spec, tmp_path / "run")
    assert [step for step, _ in checkpoints.whole_checkpoints(run)] == [7, 8]


# What goes wrong.


def test_that_a_loss_that_is_not_a_number_ends_the_run_and_keeps_the_weights(
    tiny_llama: Path, conversations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunedesk.engine.objectives import next_token as module

    real, calls = module.batch_loss, []

    def bad(model: torch.nn.Module, batch: object) -> torch.Tensor:
        if model.training:
            calls.append(1)
        loss = real(model, batch)  # type: ignore[arg-type]
        return loss * math.nan if len(calls) > 8 else loss

    monkeypatch.setattr(module, "batch_loss", bad)
    spec = make_spec(tiny_llama, conversations, save_steps=2, eval_steps=100, engine="reference")
    run, channel = go(spec, tmp_path / "run")
    found = problem(channel)
    assert found.code == "train.not_a_number"
    assert "since step 5. Weights are safe at step 4." in found.what
    assert "learning_rate = 1e-3" in found.fix
    assert math.isnan(channel.of(StepDone)[-1].loss)
    assert math.isnan(run.state().steps[-1].loss)
    assert checkpoints.whole_checkpoints(run)[-1][0] == 4
    assert json.loads(run.report_file.read_text())["outcome"] == "failed"


def test_that_a_full_disk_is_a_problem_and_leaves_no_torn_checkpoint(
    tiny_llama: Path, conversations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    monkeypatch.setattr("tunedesk.engine.train.write_environment", lambda *_: None)
    run, channel = go_without_sync(make_spec(tiny_llama, conversations), tmp_path / "run", monkeypatch)
    found = problem(channel)
    assert found.code == "disk.full"
    assert "checkpoint at step" in found.what
    assert not checkpoints.whole_checkpoints(run)
    assert not list(run.checkpoints.glob(".*"))


def go_without_sync(spec: RunSpec, out: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunFolder, Recorder]:
    """`go` where the run's own files are written before the disk is full."""
    out.mkdir()
    (out / "run.toml").write_text(spec.to_toml())
    run, channel = RunFolder(out), Recorder()
    run_job(Train(run=str(out)), channel)
    return run, channel


def test_that_rows_longer_than_max_length_end_in_a_problem(
    tiny_llama: Path, conversations: Path, tmp_path: Path
) -> None:
    _, channel = go(make_spec(tiny_llama, conversations, max_length=8), tmp_path / "run")
    found = problem(channel)
    assert found.code == "data.all_cut"
    assert "max_length (8)" in found.what
    assert "lines " in found.where


def test_that_an_encoder_is_refused(tiny_encoder: Path, conversations: Path, tmp_path: Path) -> None:
    _, channel = go(make_spec(tiny_encoder, conversations), tmp_path / "run")
    assert problem(channel).code == "model.wrong_kind"


def test_that_a_target_that_matches_nothing_lists_the_names(
    tiny_llama: Path, conversations: Path, tmp_path: Path
) -> None:
    _, channel = go(make_spec(tiny_llama, conversations, {"target_modules": ["q_prj", "v_proj"]}), tmp_path / "run")
    found = problem(channel)
    assert found.code == "method.target_modules"
    assert "q_proj" in found.found
    assert "Did you mean 'q_proj'?" in found.fix


@pytest.mark.parametrize("targets", ["attention", ["v_proj"]])
def test_that_targets_choose_the_layers(tiny_llama: Path, conversations: Path, tmp_path: Path, targets: object) -> None:
    run, channel = go(make_spec(tiny_llama, conversations, {"target_modules": targets}, max_steps=1), tmp_path / "run")
    assert outcome(channel) == "completed"
    names = {name.split(".")[-3] for name in weights(run)}
    assert names == ({"v_proj"} if targets == ["v_proj"] else {"q_proj", "k_proj", "v_proj", "o_proj"})


def test_that_a_chat_without_a_template_is_refused(tiny_llama: Path, conversations: Path, tmp_path: Path) -> None:
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(tiny_llama, bare)
    (bare / "chat_template.jinja").unlink()
    _, channel = go(make_spec(bare, conversations), tmp_path / "run")
    assert problem(channel).code == "model.no_template"


def test_that_completion_learns_from_text(tiny_llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "prose.txt"
    path.write_text("\n\n".join(f"Lamp number {place} is lit at dusk." for place in range(30)))
    spec = make_spec(tiny_llama, path).model_copy(
        update={"task": RunSpec.model_validate({"task": {"kind": "completion"}}).task}
    )
    _, channel = go(spec, tmp_path / "run")
    assert outcome(channel) == "completed"
    assert channel.of(Evaluated)[-1].loss < channel.of(Evaluated)[0].loss


def test_that_a_validation_file_is_used(tiny_llama: Path, conversations: Path, tmp_path: Path) -> None:
    other = tmp_path / "held.jsonl"
    other.write_text("".join(conversations.read_text().splitlines(keepends=True)[:3]))
    _, channel = go(
        make_spec(tiny_llama, conversations, source={"validation": str(other)}, max_steps=1), tmp_path / "run"
    )
    began = channel.of(TrainingBegan)[0]
    assert (began.train_rows, began.eval_rows) == (40, 3)
    assert any("validation file" in notice.text for notice in channel.of(Notice))


def test_that_job_faults_are_raised_as_problems(tmp_path: Path) -> None:
    from tunedesk.engine.train import train

    with pytest.raises(ProblemError):
        train(Train(run=str(tmp_path)), Recorder())
