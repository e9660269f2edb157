from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.engine.jobs import do
from tests.engine.models import tiny_adapter, tiny_model, tiny_run, tiny_tokenizer
from tunedesk.core.events import (
    Ask,
    Asked,
    Chat,
    ChatAnswer,
    ChatDelta,
    ChatReady,
    Close,
    Event,
    Finished,
    Message,
    Notice,
    Sampling,
    Started,
    Stop,
    StopAnswer,
)
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.core.runs import RunFolder
from tunedesk.engine import inference, loading
from tunedesk.engine.generate import TextStream, closing_token, plain_text
from tunedesk.engine.sources import resolve

GREEDY = Sampling(temperature=0, max_new_tokens=24)
QUESTION = (Message(role="user", content="Where is my order?"),)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("chat")
    return tiny_run(root / "run", tiny_model(root / "model"))


def ask(number: int = 1, sampling: Sampling = GREEDY, messages: tuple[Message, ...] = QUESTION, *sides: str) -> Ask:
    return Ask(id=number, conversations=dict.fromkeys(sides or ("base", "tuned"), messages), sampling=sampling)


def answers(events: list[Event]) -> list[ChatAnswer]:
    return [event for event in events if isinstance(event, ChatAnswer)]


def asked(events: list[Event]) -> list[Asked]:
    return [event for event in events if isinstance(event, Asked)]


def plainly(run: RunFolder, tuned: bool, question: str, most: int) -> tuple[int, ...]:
    """What transformers and peft alone answer, greedily."""
    folder = run.spec().model.source
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    if tuned:
        model = PeftModel.from_pretrained(model, str(run.adapter))
    turns = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**prompt, do_sample=False, max_new_tokens=most)
    return tuple(output[0, prompt["input_ids"].shape[1] :].tolist())


def test_that_greedy_answers_are_those_of_plain_transformers_and_peft(run: RunFolder) -> None:
    events = do(Chat(run=str(run.path)), [ask()])
    base, tuned = answers(events)
    assert base.token_ids == plainly(run, False, QUESTION[0].content, 24)
    assert tuned.token_ids == plainly(run, True, QUESTION[0].content, 24)
    assert base.token_ids != tuned.token_ids


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_that_greedy_answers_are_plain_in_other_families_and_dtypes(
    tmp_path: Path, family: str, dtype: torch.dtype
) -> None:
    run = tiny_run(tmp_path / "run", tiny_model(tmp_path / "model", family, dtype=dtype))
    base, tuned = answers(do(Chat(run=str(run.path)), [ask()]))
    assert base.token_ids == plainly(run, False, QUESTION[0].content, 24)
    assert tuned.token_ids == plainly(run, True, QUESTION[0].content, 24)


def test_that_a_chat_is_framed_and_its_pieces_make_up_the_answer(run: RunFolder) -> None:
    events = do(Chat(run=str(run.path)), [ask()])
    assert isinstance(events[0], Started)
    assert events[-1] == Finished(seq=len(events), time=events[-1].time, outcome="completed")
    ready = next(event for event in events if isinstance(event, ChatReady))
    assert ready.sides == ("base", "tuned")
    assert (ready.precision, ready.context_length, ready.has_chat_template) == ("fp32", 256, True)
    assert ready.weight_bytes > 100_000
    for answer in answers(events):
        pieces = [event.text for event in events if isinstance(event, ChatDelta) and event.side == answer.side]
        assert "".join(pieces) == answer.text
        assert "" not in pieces


def test_that_the_same_seed_gives_the_same_answer_and_another_seed_another(run: RunFolder) -> None:
    warm = [Sampling(temperature=1.0, max_new_tokens=16, seed=seed) for seed in (1, 1, 2)]
    events = do(Chat(run=str(run.path)), [ask(n, item, QUESTION, "tuned") for n, item in enumerate(warm)])
    first, second, third = (answer.token_ids for answer in answers(events))
    assert first == second != third


def test_that_the_models_own_sampling_settings_stay_out(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    config = {"do_sample": True, "temperature": 3.0, "top_k": 3, "repetition_penalty": 5.0, "eos_token_id": 2}
    before = answers(do(Chat(model=str(model)), [ask(1, GREEDY, QUESTION, "base")]))
    (model / "generation_config.json").write_text(json.dumps(config), encoding="utf-8")
    after = answers(do(Chat(model=str(model)), [ask(1, GREEDY, QUESTION, "base")]))
    assert before[0].token_ids == after[0].token_ids


def test_that_stop_answer_cuts_within_one_token_and_the_chat_goes_on(run: RunFolder) -> None:
    long = Sampling(temperature=1.0, max_new_tokens=200)
    deltas = itertools.count()

    def react(event: Event) -> list:
        if isinstance(event, ChatReady):
            return [ask(1, long)]
        if isinstance(event, ChatDelta) and event.id == 1 and next(deltas) == 2:
            return [StopAnswer()]
        if isinstance(event, Asked):
            return [ask(2)] if event.id == 1 else [Close()]
        return []

    events = do(Chat(run=str(run.path)), react=react)
    cut, skipped, *rest = answers(events)
    assert cut.ended == "stopped"
    assert len(cut.token_ids) < 20
    assert (skipped.side, skipped.text, skipped.ended) == ("tuned", "", "stopped")
    assert [answer.id for answer in rest] == [2, 2]
    assert all(answer.token_ids for answer in rest)
    assert events[-1].outcome == "completed"


def test_that_stop_ends_the_chat_in_the_middle_of_an_answer(run: RunFolder) -> None:
    sent = itertools.count()

    def react(event: Event) -> list:
        if isinstance(event, ChatReady):
            return [ask(1, Sampling(temperature=1.0, max_new_tokens=200))]
        return [Stop()] if isinstance(event, ChatDelta) and next(sent) == 0 else []

    events = do(Chat(run=str(run.path)), react=react)
    assert answers(events)[0].ended == "stopped"
    assert len(answers(events)[0].token_ids) < 20
    assert events[-1].outcome == "stopped"


def test_that_a_conversation_longer_than_the_context_is_a_problem_and_the_chat_goes_on(run: RunFolder) -> None:
    endless = (Message(role="user", content="漢字 " * 200),)
    events = do(Chat(run=str(run.path)), [ask(1, GREEDY, endless), ask(2)])
    first, second = asked(events)
    assert [problem.code for problem in first.problems] == ["chat.too_long"]
    assert not second.problems
    assert events[-1].outcome == "completed"


def test_that_an_answer_ends_where_the_context_does(run: RunFolder) -> None:
    nearly = (Message(role="user", content="漢" * 72),)
    (answer,) = answers(do(Chat(run=str(run.path)), [ask(1, Sampling(max_new_tokens=200), nearly, "base")]))
    assert answer.ended in ("length", "stop_token")
    assert len(answer.token_ids) < 60


def test_that_a_model_without_a_run_has_one_side(run: RunFolder) -> None:
    events = do(Chat(model=run.spec().model.source), [ask()])
    assert next(event for event in events if isinstance(event, ChatReady)).sides == ("base",)
    assert [answer.side for answer in answers(events)] == ["base"]
    assert [problem.code for problem in asked(events)[0].problems] == ["chat.no_adapter"]


def test_that_a_model_without_a_template_goes_on_with_the_text(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", template=None)
    events = do(Chat(model=str(model)), [ask(1, GREEDY, QUESTION, "base")])
    assert not next(event for event in events if isinstance(event, ChatReady)).has_chat_template
    tokenizer, plain = AutoTokenizer.from_pretrained(str(model)), AutoModelForCausalLM.from_pretrained(str(model))
    prompt = tokenizer(QUESTION[0].content, return_tensors="pt")
    output = plain.generate(**prompt, do_sample=False, max_new_tokens=24)
    assert answers(events)[0].token_ids == tuple(output[0, prompt["input_ids"].shape[1] :].tolist())


def test_that_a_run_that_broke_off_speaks_with_its_newest_whole_checkpoint(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    run = tiny_run(tmp_path / "run", model, adapter=False)
    tiny_adapter(model, run.checkpoints / "step-5")
    tiny_adapter(model, run.checkpoints / "step-10", seed=2)
    shutil.copytree(run.checkpoints / "step-10", run.checkpoints / "step-20")
    weights = run.checkpoints / "step-20" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    events = do(Chat(run=str(run.path)), [])
    assert [event.step for event in events if isinstance(event, Notice)] == [10]
    assert events[-1].outcome == "completed"


def test_that_a_run_without_any_adapter_is_a_problem(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", tiny_model(tmp_path / "model"), adapter=False)
    (problem,) = do(Chat(run=str(run.path)))[-1].problems
    assert problem.code == "run.no_adapter"


def test_that_an_encoder_cannot_chat(tmp_path: Path) -> None:
    (problem,) = do(Chat(model=str(tiny_model(tmp_path / "model", "bert", template=None))))[-1].problems
    assert problem.code == "chat.not_a_decoder"


def test_that_weights_that_are_no_numbers_are_a_problem(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    broken = AutoModelForCausalLM.from_pretrained(str(model))
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    broken.save_pretrained(str(model))
    events = do(Chat(model=str(model)), [ask(1, Sampling(), QUESTION, "base")])
    assert [problem.code for problem in asked(events)[0].problems] == ["chat.not_finite"]


def test_that_weights_that_do_not_fit_are_squeezed_and_it_is_said(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "_WORKSPACE", 0)
    found = []
    for free in (250_000, 120_000, 1000):
        monkeypatch.setattr(inference, "free_memory", lambda _, free=free: free)
        events = do(Chat(run=str(run.path)), [ask()])
        ready = [event.precision for event in events if isinstance(event, ChatReady)]
        notices = [event for event in events if isinstance(event, Notice)]
        assert len(notices) == len(ready)
        assert all(answer.token_ids for answer in answers(events))
        found.append((ready, [problem.code for problem in events[-1].problems]))
    assert found == [(["bf16"], []), (["nf4"], []), ([], ["memory.full"])]


def drop_one(weights: dict[str, torch.Tensor]) -> None:
    del weights["model.layers.1.mlp.up_proj.weight"]


def halve_one(weights: dict[str, torch.Tensor]) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    weights[name] = weights[name][:32].contiguous()


def training_says(model: Path) -> tuple[Problem, ...]:
    """The problems that end a training on `model`."""
    with pytest.raises(ProblemError) as error:
        loading.load_base(resolve(str(model)), "fp32", torch.device("cpu"))
    return error.value.problems


@pytest.mark.parametrize(
    ("storage", "change", "code"),
    [
        ("stored", drop_one, "model.incomplete"),
        ("stored", halve_one, "model.mismatch"),
        ("bf16", halve_one, "model.mismatch"),
        ("nf4", halve_one, "model.mismatch"),
        ("nf4", drop_one, "model.incomplete"),
    ],
)
def test_that_weights_are_never_made_up_and_it_is_said_as_in_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, torch.Tensor]], None],
    code: str,
    storage: str,
) -> None:
    model = tiny_model(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    change(weights)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr(inference, "choose_format", lambda *_: storage)
    events = do(Chat(model=str(model)), [ask(1, GREEDY, QUESTION, "base")])
    assert events[-1].problems == training_says(model)
    assert [problem.code for problem in events[-1].problems] == [code]
    assert not answers(events)


def test_that_a_tokenizer_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    (model / "tokenizer.json").write_text('{"model": {"type": "BPE"}}', encoding="utf-8")
    (problem,) = do(Chat(model=str(model)))[-1].problems
    assert problem.code == "model.tokenizer"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a computer without a CUDA device")
def test_that_a_run_of_a_gpu_answers_where_there_is_none(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", tiny_model(tmp_path / "model"))
    spec = run.spec_file.read_text(encoding="utf-8")
    run.spec_file.write_text(spec.replace('device = "cpu"', 'device = "cuda"'), encoding="utf-8")
    assert run.spec().training.device == "cuda"
    assert all(answer.token_ids for answer in answers(do(Chat(run=str(run.path)), [ask()])))


@pytest.mark.parametrize("text", ["Grüße, 漢字かな交じり文 😀🚀!", " leading and trailing \n\n", "e\u0301 👩‍👩‍👧"])
def test_that_a_stream_never_shows_half_a_character(text: str) -> None:
    tokenizer, pieces = tiny_tokenizer(), []
    stream = TextStream(tokenizer, pieces.append)
    for token in tokenizer(text)["input_ids"]:
        stream.add(token)
    stream.finish()
    assert "".join(pieces) == text == stream.text
    assert not any("\ufffd" in piece for piece in pieces)


def test_that_the_token_that_the_template_closes_with_ends_an_answer() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    assert closing_token(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    )
    assert closing_token(tokenizer) is None


def test_that_plain_text_goes_on_where_it_stopped() -> None:
    turns = [Message(role="user", content="Once"), Message(role="assistant", content=" upon"), QUESTION[0]]
    assert plain_text(turns) == "Once upon\nWhere is my order?"
