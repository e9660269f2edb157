"""Adapters that follow each other on one base: each answers as it does alone, and the base stays what it was."""

from __future__ import annotations

import gc
import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.engine.adapters import COLOURS, METHODS, MOODS, of, saved, say, tell
from tests.engine.conftest import Recorder
from tests.engine.jobs import do
from tests.engine.models import tiny_encoder, tiny_model, tiny_run, tiny_seq2seq
from tunedesk.core.events import (
    AdapterUsed,
    Chat,
    ChatAnswer,
    ChatReady,
    Finished,
    Message,
    Notice,
    Sampling,
    Train,
    UseAdapter,
)
from tunedesk.core.problems import ProblemError
from tunedesk.core.runs import create_run
from tunedesk.core.spec import parse_spec
from tunedesk.engine import inference
from tunedesk.engine.generate import encode_prompt, generate_answer
from tunedesk.engine.sources import resolve
from tunedesk.engine.switchboard import Switchboard

QUESTION = "Where is my order?"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("switching") / "model")


@pytest.fixture(scope="module")
def adapters(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each method for text, one of each for labels, and one with other labels."""
    root = tmp_path_factory.mktemp("adapters")
    text = {name: saved(model, root / name, name, seed=number) for number, name in enumerate(METHODS)}
    labels = {f"{name} labels": saved(model, root / f"{name}-labels", name, COLOURS, seed=9) for name in METHODS}
    return {**text, **labels, "moods": saved(model, root / "moods", "lora", MOODS)}


def board(model: Path, storage: inference.Format = "stored", head: Any = None) -> Switchboard:
    return Switchboard(resolve(str(model)), inference.pick_device("cpu"), storage, Recorder(), head)


def scores(switchboard: Switchboard, side: str = "tuned") -> torch.Tensor:
    """What the model makes of a text, with or without its adapter."""
    voices = switchboard.voices
    ids = torch.tensor([voices.tokenizer(QUESTION)["input_ids"]])
    with torch.inference_mode(), voices.speaking(side):  # type: ignore[arg-type]
        found: torch.Tensor = voices.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.clone()
    return found


def anatomy(model: Any) -> dict[str, Any]:
    """Everything in a model: its modules, where their weights lie and what they are, hooks and configuration."""
    modules = {
        name: (type(module), len(module._forward_hooks), len(module._forward_pre_hooks))
        for name, module in model.named_modules()
    }
    weights = {name: (item.data_ptr(), item.dtype, item.requires_grad) for name, item in model.named_parameters()}
    return {"modules": modules, "weights": weights, "config": model.config.to_dict(), "own": sorted(vars(model))}


def alone(model: Path, adapter: Path) -> torch.Tensor:
    switchboard = board(model)
    switchboard.use(adapter)
    return scores(switchboard)


def test_that_every_method_and_task_answers_after_any_other_as_it_does_alone(
    model: Path, adapters: dict[str, Path]
) -> None:
    expected = {name: alone(model, path) for name, path in adapters.items()}
    switchboard = board(model)
    switchboard.use(None)
    untouched, before = scores(switchboard), anatomy(switchboard.voices.model)
    weights = {name: item.clone() for name, item in switchboard.voices.model.state_dict().items()}
    order = list(adapters) * 2
    random.Random(0).shuffle(order)
    for name in order:
        voices = switchboard.use(adapters[name])
        assert torch.equal(scores(switchboard), expected[name]), name
        if "base" in voices.sides:
            assert torch.equal(scores(switchboard, "base"), untouched), name
    switchboard.use(None)
    assert torch.equal(scores(switchboard), untouched)
    assert anatomy(switchboard.voices.model) == before
    after = switchboard.voices.model.state_dict()
    assert all(torch.equal(item, after[name]) for name, item in weights.items())
    shapes = {tuple(item.shape) for item in expected.values()}
    assert {shape[-1] for shape in shapes} == {2, 3, 400}
    assert not any(torch.equal(expected[name], untouched) for name in METHODS)


@pytest.mark.parametrize("name", ["lora", "dora", "ia3", "adalora"])
def test_that_a_classifier_on_a_shared_body_is_that_of_plain_transformers_and_peft(
    model: Path, adapters: dict[str, Path], name: str
) -> None:
    switchboard = board(model)
    switchboard.use(adapters["houlsby"])
    switchboard.use(adapters[f"{name} labels"])
    plain = AutoModelForSequenceClassification.from_pretrained(str(model), num_labels=3, pad_token_id=0)
    tuned = PeftModel.from_pretrained(plain, str(adapters[f"{name} labels"])).eval()
    ids = torch.tensor([AutoTokenizer.from_pretrained(str(model))(QUESTION)["input_ids"]])
    with torch.inference_mode():
        wanted = tuned(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert torch.equal(scores(switchboard), wanted)


def test_that_one_encoder_carries_several_sets_of_labels(tmp_path: Path) -> None:
    model = tiny_encoder(tmp_path / "model", pooled=False)
    colours, moods = saved(model, tmp_path / "colours", "lora", COLOURS), saved(model, tmp_path / "moods", "ia3", MOODS)
    expected = [
        (path, scores(_used(board(model, head=head), path))) for path, head in ((colours, COLOURS), (moods, MOODS))
    ]
    switchboard = board(model, head=COLOURS)
    for path, wanted in expected * 3:
        assert torch.equal(scores(_used(switchboard, path)), wanted)
    with pytest.raises(ProblemError, match="knows no labels"):
        switchboard.use(None)
    assert switchboard.voices.head == MOODS
    shutil.rmtree(moods)
    _narrower_head(colours)
    with pytest.raises(ProblemError, match="not made for"):
        switchboard.use(colours)
    assert torch.equal(scores(switchboard), expected[1][1])
    events = do(Chat(model=str(model), adapter=str(colours)))
    assert [problem.code for problem in of(events, Finished)[0].problems] == ["adapter.other_model"]


def _narrower_head(folder: Path) -> None:
    (folder / "labels.json").write_bytes(MOODS.content())


def _used(switchboard: Switchboard, path: Path) -> Switchboard:
    switchboard.use(path)
    return switchboard


def test_that_a_model_of_two_stacks_switches_too(tmp_path: Path) -> None:
    model = tiny_seq2seq(tmp_path / "model")
    paths = [saved(model, tmp_path / name, name) for name in ("lora", "prefix", "houlsby", "prompt", "full")]

    def scored(switchboard: Switchboard) -> torch.Tensor:
        ids = torch.tensor([switchboard.voices.tokenizer(QUESTION)["input_ids"]])
        with torch.inference_mode():
            found: torch.Tensor = switchboard.voices.model(input_ids=ids, decoder_input_ids=ids[:, :4]).logits.clone()
        return found

    expected = [scored(_used(board(model), path)) for path in paths]
    switchboard = board(model)
    switchboard.use(None)
    untouched = scored(switchboard)
    for path, wanted in list(zip(paths, expected, strict=True)) * 2:
        assert torch.equal(scored(_used(switchboard, path)), wanted)
    switchboard.use(None)
    assert torch.equal(scored(switchboard), untouched)


@pytest.mark.parametrize(("first", "second"), [("lora", "lora labels"), ("houlsby", "prefix"), ("full", "moods")])
def test_that_a_hundred_switches_change_no_answer_and_leave_no_memory(
    model: Path, adapters: dict[str, Path], first: str, second: str
) -> None:
    wanted = [alone(model, adapters[name]) for name in (first, second)]
    switchboard = board(model)
    process, resident = psutil.Process(), {}
    for number in range(1, 101):
        switchboard.use(adapters[(first, second)[number % 2]])
        assert torch.equal(scores(switchboard), wanted[number % 2])
        if number in (20, 100):
            gc.collect()
            resident[number] = process.memory_info().rss
    assert resident[100] - resident[20] < 2 << 20


def test_that_a_base_of_4_bits_is_left_as_it_was(model: Path, adapters: dict[str, Path]) -> None:
    names = ("lora", "ia3 labels", "prefix", "houlsby", "moods")
    expected = {name: scores(_used(board(model, "nf4"), adapters[name])) for name in names}
    switchboard = board(model, "nf4")
    switchboard.use(None)
    untouched = scores(switchboard)
    for name in names * 2:
        assert torch.equal(scores(_used(switchboard, adapters[name])), expected[name]), name
    with pytest.raises(ProblemError):
        switchboard.use(adapters["full"])
    assert torch.equal(scores(switchboard), expected["moods"])
    switchboard.use(None)
    assert torch.equal(scores(switchboard), untouched)


def test_that_a_chat_switches_between_questions_and_says_what_answers(model: Path, adapters: dict[str, Path]) -> None:
    def answers(job: Chat, *commands: Any) -> list[ChatAnswer]:
        return of(do(job, [*commands]), ChatAnswer)

    text, labels, base = adapters["lora"], adapters["moods"], str(model)
    alone_text = answers(Chat(model=base, adapter=str(text)), say(1, QUESTION, "base", "tuned"))
    alone_labels = answers(Chat(model=base, adapter=str(labels)), say(1, QUESTION))
    events = do(
        Chat(model=base, adapter=str(text)),
        [say(1, QUESTION), UseAdapter(path=str(labels)), say(2, QUESTION), UseAdapter(path=None),
         say(3, QUESTION, "base"), UseAdapter(path=str(text)), say(4, QUESTION)],
    )  # fmt: skip
    ready = of(events, ChatReady)[0]
    assert (ready.adapter, ready.sides, ready.labels) == (str(text), ("base", "tuned"), ())
    classifier, nothing, again = of(events, AdapterUsed)
    assert (classifier.path, classifier.sides, classifier.labels) == (str(labels), ("tuned",), ("good", "bad"))
    assert (classifier.problem_type, nothing.path, nothing.sides) == ("single_label", None, ("base",))
    assert (again.path, again.sides, again.problem_type) == (str(text), ("base", "tuned"), None)
    first, label, untouched, last = of(events, ChatAnswer)
    assert first.token_ids == last.token_ids == alone_text[1].token_ids
    assert untouched.token_ids == alone_text[0].token_ids
    assert label.labels == alone_labels[0].labels


def test_that_virtual_tokens_and_the_task_of_an_adapter_are_told(model: Path, adapters: dict[str, Path]) -> None:
    plain = tell(Path(shutil.copytree(adapters["lora"], adapters["lora"].parent / "plain")), model, "completion")
    commands = [UseAdapter(path=str(adapters["prefix"])), UseAdapter(path=str(plain)), say(1, "Where is")]
    events = do(Chat(model=str(model)), [*commands])
    prefix, completion = of(events, AdapterUsed)
    assert (prefix.context_length, prefix.has_chat_template) == (250, True)
    assert (completion.context_length, completion.has_chat_template) == (256, False)
    tokenizer = AutoTokenizer.from_pretrained(str(model))
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(str(model)), str(plain))
    prompt = tokenizer("Where is", return_tensors="pt")
    output = tuned.generate(**prompt, do_sample=False, max_new_tokens=12)
    assert of(events, ChatAnswer)[0].token_ids == tuple(output[0, prompt["input_ids"].shape[1] :].tolist())


def _without_config(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def _cut(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])


def _narrower(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({name: tensor[..., :-1].contiguous() for name, tensor in load_file(file).items()}, file)


def _other_kind(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "LOHA"}))


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (shutil.rmtree, "adapter.missing"),
        (_without_config, "adapter.no_config"),
        (_cut, "adapter.weights"),
        (_narrower, "adapter.other_model"),
        (_other_kind, "adapter.kind"),
    ],
)
def test_that_a_bad_adapter_is_a_problem_and_what_was_there_stays_at_work(
    model: Path, adapters: dict[str, Path], tmp_path: Path, spoil: Callable[[Path], None], code: str
) -> None:
    bad = Path(shutil.copytree(adapters["lora"], tmp_path / "bad"))
    spoil(bad)
    good = str(adapters["dora"])
    events = do(Chat(model=str(model), adapter=good), [say(1, QUESTION), UseAdapter(path=str(bad)), say(2, QUESTION)])
    (used,) = of(events, AdapterUsed)
    assert (used.path, used.sides) == (good, ("base", "tuned"))
    assert [problem.code for problem in used.problems] == [code]
    first, second = of(events, ChatAnswer)
    assert first.token_ids == second.token_ids
    assert of(events, Finished)[0].outcome == "completed"


def test_that_an_attachment_that_breaks_off_in_the_middle_leaves_no_trace(
    model: Path, adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    switchboard = board(model)
    switchboard.use(None)
    before = anatomy(switchboard.voices.model)
    switchboard.use(adapters["ia3"])
    wanted = scores(switchboard)

    def break_off(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr("peft.peft_model.set_peft_model_state_dict", break_off)
        with pytest.raises(ProblemError) as caught:
            switchboard.use(adapters["dora"])
    assert "memory.full" in [problem.code for problem in caught.value.problems]
    switchboard.use(adapters["ia3"])
    assert torch.equal(scores(switchboard), wanted)
    switchboard.use(None)
    assert anatomy(switchboard.voices.model) == before


def test_that_an_adapter_of_another_model_of_this_shape_is_remarked_on(model: Path, tmp_path: Path) -> None:
    other = tiny_run(tmp_path / "run", tiny_model(tmp_path / "other", seed=5))
    events = do(Chat(model=str(model), adapter=str(other.adapter)))
    assert any("was made for" in notice.text for notice in of(events, Notice))
    assert of(events, ChatReady)[0].adapter == str(other.adapter)


def _trained(folder: Path, task: str, data: str) -> Path:
    """The adapter of a LoRA that was trained for a few steps on the starter model."""
    text = (
        f"[task]\nkind = '{task}'\n[data]\ntrain = 'starter:{data}'\n[training]\nmax_steps = 3\n"
        "max_length = 64\nlearning_rate = 0.005\nmicro_batch_size = 4\ngradient_accumulation_steps = 1\n"
        "device = 'cpu'\nforgetting = false\n"
    )
    run = create_run(parse_spec(text), folder)
    assert of(do(Train(run=str(run.path))), Finished)[0].outcome == "completed"
    return run.adapter


@pytest.mark.slow
def test_that_the_starter_model_switches_a_hundred_times_between_two_tasks(tmp_path: Path) -> None:
    paths = [_trained(tmp_path / "chat", "chat", "support"), _trained(tmp_path / "labels", "classification", "finance")]
    boards = [_used(_starter(), path) for path in paths]
    expected, seen = [_said(item) for item in boards], [scores(item) for item in boards]
    del boards
    switchboard, process = _starter(), psutil.Process()
    switchboard.use(None)
    untouched = scores(switchboard)
    resident, seconds = {}, []
    for number in range(1, 101):
        start = time.perf_counter()
        switchboard.use(paths[number % 2])
        seconds.append(time.perf_counter() - start)
        assert torch.equal(scores(switchboard), seen[number % 2])
        if number % 10 < 2:
            assert _said(switchboard) == expected[number % 2]
        if number in (20, 100):
            gc.collect()
            resident[number] = process.memory_info().rss
    print(f"switch: median {sorted(seconds)[50]:.3f} s; grown by {resident[100] - resident[20]:,} bytes")
    assert resident[100] - resident[20] < 2 << 20
    switchboard.use(None)
    assert torch.equal(scores(switchboard), untouched)


def _starter() -> Switchboard:
    return Switchboard(resolve("starter:chat"), inference.pick_device("cpu"), "stored", Recorder(), None)


def _said(switchboard: Switchboard) -> list[float]:
    """The tokens of a greedy answer, or the scores of the labels."""
    voices = switchboard.voices
    if voices.head:
        return list(scores(switchboard).flatten().tolist())
    prompt = encode_prompt(voices.tokenizer, [Message(role="user", content=QUESTION)], voices.plain)
    greedy = Sampling(temperature=0, max_new_tokens=8)
    answer = generate_answer(
        voices.model, voices.tokenizer, prompt, greedy, voices.stop, None, say=lambda _: None, stop_asked=lambda: False
    )
    return list(answer.token_ids)
