"""Preferences: data, tokens, DPO, KTO and ORPO against TRL, the model as it was, and whole runs."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from tests.engine.conftest import Recorder, make_tokenizer
from tests.engine.jobs import do
from tests.engine.test_train import go, losses, outcome, problem, resume, weights
from tunedesk.core.events import (
    Ask,
    Chat,
    ChatAnswer,
    ChatReady,
    DataDescribed,
    Evaluated,
    Event,
    Export,
    Exported,
    InspectData,
    Message,
    Sampling,
    StepDone,
)
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.core.spec import MethodSection, RunSpec
from tunedesk.engine import checkpoints
from tunedesk.engine.fast.model import make_fast
from tunedesk.engine.methods import Setting, Tuned, attach
from tunedesk.engine.objectives.preference import Preference, balance
from tunedesk.engine.preference_rows import PreferenceRenderer, PreferenceRow
from tunedesk.engine.render import Renderer, TokenRow
from tunedesk.engine.rows import Dataset as Rows
from tunedesk.engine.rows import Row, Turn, read_dataset, split_rows

CPU = torch.device("cpu")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PAIRS = [
    ("How do I send a lamp back?", "Ahoy. Put it into its box; the label is on our page.", "I am sorry. I am sorry."),
    ("Where is my order?", "Ahoy. It left on Monday.", "An order is a command that somebody gives to somebody."),
    ("Is it dimmable?", "Ahoy. It is not.", "Yes! It can be dimmed to any colour that you like, and more."),
    ("Can you mend it?", "Ahoy. On Tuesdays and Thursdays, and free for twelve years.", "No."),
]


@pytest.fixture
def talker(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def pairs() -> list[Row]:
    return [
        Row(number, (Turn("user", asked),), chosen=(Turn("assistant", good),), rejected=(Turn("assistant", bad),))
        for number, (asked, good, bad) in enumerate(PAIRS, start=1)
    ]


def in_tokens(rows: list[Row], tokenizer: PreTrainedTokenizerFast) -> list[TokenRow]:
    return PreferenceRenderer(tokenizer, "tiny").render(rows, Path("pairs.jsonl"))


def tuned_model(folder: Path, name: str = "lora", moved: bool = True, **options: Any) -> Tuned:
    """The model in fp32 with a method on it, which has `moved` away from where it began."""
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    section = MethodSection(name=name, rank=4, **options)
    tuned = attach(base, Setting(section, alpha=8.0, checkpointing=False, seed=0, total_steps=20, compares=True))
    if moved:
        move(tuned.model)
    return tuned


@torch.no_grad()
def move(model: Any) -> None:
    chance = torch.Generator().manual_seed(6)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=chance) * 0.05)


def objective(tuned: Tuned, name: str, fast: bool = False, **options: Any) -> Preference:
    packed = make_fast(tuned.model) if fast else None
    assert bool(packed) == fast
    common = {"device": CPU, "precision": "fp32", "pad_id": 0, "micro_batch_size": 8, "pack_tokens": 4096}
    return Preference(tuned=tuned, fast=packed, name=name, beta=0.3, max_length=512, **{**common, **options})


def learn(goal: Preference, rows: list[TokenRow]) -> tuple[float, dict[str, torch.Tensor]]:
    """The mean loss of `rows`, computed as the training loop does, and its gradients by name."""
    batches = goal.batches(rows)
    count = sum(batch.trained for batch in batches)
    total = 0.0
    for batch in batches:
        loss = goal.loss(batch)
        total += loss.item()
        torch.autograd.backward(loss / count)
    return total / count, gradients(goal.tuned.model)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: item.grad for name, item in model.named_parameters() if item.grad is not None}


def settings(kind: type, folder: Path, **options: Any) -> Any:
    return kind(
        output_dir=str(folder), beta=0.3, report_to=[], use_cpu=True, bf16=False, max_length=512,
        per_device_train_batch_size=8, gradient_checkpointing=False, dataloader_pin_memory=False, **options,
    )  # fmt: skip


def from_trl(trainer: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """TRL keeps a copy of the adapter that it was given to compare with, so it moves only now."""
    move(trainer.model)
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), gradients(trainer.model)


def assert_same(mine: tuple[float, dict[str, torch.Tensor]], theirs: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert mine[0] == pytest.approx(theirs[0], rel=1e-4, abs=1e-6)
    assert mine[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(mine[1][name], gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize("fast", [True, False])
def test_that_dpo_gives_the_loss_and_gradients_of_trl(
    fast: bool, tiny_llama: Path, talker: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    data = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": asked}],
                "chosen": [{"role": "assistant", "content": good}],
                "rejected": [{"role": "assistant", "content": bad}],
            }
            for asked, good, bad in PAIRS
        ]
    )
    theirs = tuned_model(tiny_llama, moved=False).model
    trainer = DPOTrainer(theirs, args=settings(DPOConfig, tmp_path), train_dataset=data, processing_class=talker)
    batch = next(iter(trainer.get_train_dataloader()))
    goal = objective(tuned_model(tiny_llama), "dpo", fast)

    assert_same(learn(goal, in_tokens(pairs(), talker)), from_trl(trainer, batch))


@pytest.mark.parametrize("fast", [True, False])
def test_that_kto_gives_the_loss_and_gradients_of_trl(
    fast: bool, tiny_llama: Path, talker: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    ratings = [True, False, False, True]
    rated = [
        (asked, good if rating else bad, rating) for (asked, good, bad), rating in zip(PAIRS, ratings, strict=True)
    ]
    data = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": asked}],
                "completion": [{"role": "assistant", "content": answer}],
                "label": rating,
            }
            for asked, answer, rating in rated
        ]
    )
    rows = [
        Row(number, (Turn("user", asked),), **{"chosen" if rating else "rejected": (Turn("assistant", answer),)})
        for number, (asked, answer, rating) in enumerate(rated, start=1)
    ]
    theirs = tuned_model(tiny_llama, moved=False).model
    options = {"desirable_weight": 1.0, "undesirable_weight": 1.5}
    trainer = KTOTrainer(
        theirs, args=settings(KTOConfig, tmp_path, **options), train_dataset=data, processing_class=talker
    )
    batch = next(iter(trainer.get_train_dataloader()))
    goal = objective(tuned_model(tiny_llama), "kto", fast, weights=(1.0, 1.5))

    assert_same(learn(goal, in_tokens(rows, talker)), from_trl(trainer, batch))
    assert trainer._metrics["train"]["kl"][0] > 0


def bare_pairs() -> list[PreferenceRow]:
    """Pairs after a prompt of one token, whose better answers have one length: so TRL's ORPO, which counts prompts in
    and takes the mean over all tokens of a batch, learns the same."""
    chance = torch.Generator().manual_seed(0)
    rows = []
    for number, worse in enumerate((5, 9, 3), start=1):
        drawn = torch.randint(10, 500, (2 + 7 + worse,), generator=chance).tolist()
        ids = array("i", [drawn[0], *drawn[1:8], drawn[0], *drawn[8:]])
        trained = bytes([0, *[1] * 7, 0, *[1] * (len(ids) - 9)])
        rows.append(PreferenceRow(number, ids, trained, split=8))
    return rows


def for_orpo_trainer(rows: list[PreferenceRow]) -> dict[str, torch.Tensor]:
    batch: dict[str, torch.Tensor] = {}
    for side, name in enumerate(("chosen", "rejected")):
        texts = [torch.tensor(row.texts()[side].ids) for row in rows]
        padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        there = torch.nn.utils.rnn.pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
        labels = padded.masked_fill(there == 0, -100)
        labels[:, 0] = -100
        batch |= {f"{name}_input_ids": padded, f"{name}_attention_mask": there, f"{name}_labels": labels}
    return batch


@pytest.mark.parametrize("fast", [True, False])
def test_that_orpo_gives_the_loss_and_gradients_of_trl(
    fast: bool, tiny_llama: Path, talker: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    rows = bare_pairs()
    theirs = tuned_model(tiny_llama, moved=False).model
    data = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    trainer = ORPOTrainer(theirs, args=settings(ORPOConfig, tmp_path), train_dataset=data, processing_class=talker)
    goal = objective(tuned_model(tiny_llama), "orpo", fast)

    assert_same(learn(goal, rows), from_trl(trainer, for_orpo_trainer(rows)))
    tally = goal.tally()
    goal.loss(goal.batches(rows)[0], tally)
    found = trainer.get_batch_loss_metrics(trainer.model, for_orpo_trainer(rows))[1]
    assert tally.measures(0.0).values["reward_margin"] == pytest.approx(found["log_odds_chosen"], rel=1e-4)
    assert tally.measures(0.0).values["preference_accuracy"] == pytest.approx(found["rewards/accuracies"])


def test_that_other_answers_come_from_the_row_before_and_a_single_row_has_none(
    tiny_llama: Path, talker: PreTrainedTokenizerFast
) -> None:
    rows = in_tokens(pairs(), talker)
    goal = objective(tuned_model(tiny_llama), "kto", micro_batch_size=2)
    first, second = goal.batches(rows)
    assert (first.trained, second.trained) == (4, 4)  # answers, not pairs
    assert first.strange is not None
    read = [talker.decode(ids[mask.bool()]) for ids, mask in
            zip(first.strange.texts.input_ids, first.strange.texts.attention_mask, strict=True)]  # fmt: skip
    asked = [
        next(text for text in read if question in text)
        for question, *_ in PAIRS
        if any(question in text for text in read)
    ]
    assert len(asked) == 2
    assert all(
        not (question in text and answer in text) for text in read for question, *said in PAIRS for answer in said
    )
    assert goal.batches(rows[:1])[0].strange is None


def test_that_rarer_ratings_weigh_more_so_that_both_weigh_the_same(talker: PreTrainedTokenizerFast) -> None:
    answer = (Turn("assistant", "Yes."),)
    rows = [Row(n, (Turn("user", "Well?"),), **{"chosen" if n < 2 else "rejected": answer}) for n in range(8)]
    assert balance(in_tokens(rows, talker)) == (3.0, 1.0)
    assert balance(in_tokens(pairs(), talker)) == (1.0, 1.0)


# The model as it was.

METHODS: dict[str, dict[str, Any]] = {
    "lora": {},
    "lora pissa": {"init": "pissa"},
    "lora dora": {"dora": True},
    "adalora": {},
    "ia3": {},
    "prefix_tuning": {"virtual_tokens": 4},
    "prompt_tuning": {"virtual_tokens": 4},
    "p_tuning": {"virtual_tokens": 4},
    "houlsby": {"bottleneck": 8},
    "compacter": {"bottleneck": 8},
    "last_layer": {},
    "full": {},
}


@pytest.mark.parametrize("method", METHODS)
def test_that_the_model_before_training_can_be_asked_while_it_learns(method: str, tiny_llama: Path) -> None:
    ids = torch.arange(20, 52)[None]
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)(ids).logits
        tuned = tuned_model(tiny_llama, method.split()[0], **METHODS[method])
        learned = tuned.model(input_ids=ids).logits[:, -32:]
        held = {name: item.clone() for name, item in tuned.weights().items()}
        with tuned.reference():
            before = tuned.model(input_ids=ids).logits
        assert torch.equal(tuned.model(input_ids=ids).logits[:, -32:], learned)
    assert (learned - plain).abs().max() > 1e-3
    torch.testing.assert_close(before, plain, rtol=1e-4, atol=1e-5)
    if "pissa" not in method and "dora" not in method:  # these take the weights apart and put them together again
        assert torch.equal(before, plain)
    assert all(torch.equal(held[name], item) for name, item in tuned.weights().items())


# Data.


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def read(path: Path, loss: str = "dpo", task: Any = "preference", columns: dict[str, str] | None = None) -> Rows:
    return read_dataset(str(path), columns, task, preference_loss=loss)


def refused(path: Path, **options: Any) -> list[Problem]:
    with pytest.raises(ProblemError) as caught:
        read(path, **options)
    return caught.value.problems


FORMS: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "Well?", "chosen": "Yes.", "rejected": "No."},
    "other names": {"Question": "Well?", "preferred": "Yes.", "dispreferred": "No."},
    "messages": {
        "prompt": [said("user", "Well?")],
        "chosen": [said("assistant", "Yes.")],
        "rejected": [said("assistant", "No.")],
    },
    "whole conversations": {
        "chosen": [said("user", "Well?"), said("assistant", "Yes.")],
        "rejected": [said("user", "Well?"), said("assistant", "No.")],
    },
    "the prompt twice": {
        "prompt": "Well?",
        "chosen": [said("user", "Well?"), said("assistant", "Yes.")],
        "rejected": json.dumps([said("user", "Well?"), said("assistant", "No.")]),
    },
    "speakers in the text": {
        "chosen": "\n\nHuman: Well?\n\nAssistant: Yes.",
        "rejected": "\n\nHuman: Well?\n\nAssistant: No.",
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_that_pairs_are_read_in_every_usual_form(form: str, tmp_path: Path) -> None:
    data = read(write(tmp_path / "pairs.jsonl", [FORMS[form]] * 2), task="auto")
    assert (data.task, data.layout) == ("preference", "preference")
    wanted = Row(1, (Turn("user", "Well?"),), chosen=(Turn("assistant", "Yes."),), rejected=(Turn("assistant", "No."),))
    assert data.rows[0] == wanted


def test_that_what_follows_a_common_beginning_belongs_to_each_answer(tmp_path: Path) -> None:
    start = [said("system", "Be brief."), said("user", "Well?"), said("assistant", "Well what?")]
    row = {
        "chosen": [*start, said("user", "This."), said("assistant", "Yes.")],
        "rejected": [*start, said("user", "That."), said("assistant", "No.")],
    }
    (found,) = read(write(tmp_path / "pairs.jsonl", [row])).rows
    assert [turn.content for turn in found.turns] == ["Be brief.", "Well?", "Well what?"]
    assert [turn.content for turn in found.rejected] == ["That.", "No."]


def test_that_ratings_are_read_and_refused_where_pairs_are_needed(tmp_path: Path) -> None:
    ratings = [True, 0, "good", "down", "1", "bad"]
    rows = [{"prompt": f"Well {n}?", "response": "Yes.", "thumbs": rating} for n, rating in enumerate(ratings)]
    path = write(tmp_path / "rated.jsonl", rows)
    data = read(path, "kto")
    assert data.layout == "rated"
    assert data.columns == {"prompt": "prompt", "completion": "response", "label": "thumbs"}
    assert [bool(row.chosen) for row in data.rows] == [True, False, True, False, True, False]
    for loss in ("dpo", "orpo"):
        (found,) = refused(path, loss=loss)
        assert found.code == "data.rated"
        assert found.found == "Columns there: 'prompt', 'response', 'thumbs'."
        assert 'preference_loss = "kto"' in found.fix
    same = write(tmp_path / "same.jsonl", [{**row, "thumbs": "up"} for row in rows])
    assert [item.code for item in refused(same, loss="kto")] == ["data.one_rating"]
    assert read(write(tmp_path / "pairs.jsonl", [FORMS["texts"]]), "kto").layout == "preference"


def test_that_unknown_columns_are_named_and_the_likeliest_proposed(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", [{"user_input": "Well?", "winner": "Yes.", "losing_answer": "No."}])
    (found,) = refused(path)
    assert found.code == "data.columns"
    assert found.found == "Columns there: 'user_input', 'winner', 'losing_answer'."
    assert '{ prompt = "user_input", chosen = "winner", rejected = "losing_answer" }' in found.fix
    columns = {"prompt": "user_input", "chosen": "winner", "rejected": "losing_answer"}
    assert read(path, columns=columns).rows[0].rejected == (Turn("assistant", "No."),)


def test_that_all_faults_are_told_with_their_lines(tmp_path: Path) -> None:
    good = FORMS["texts"]
    path = write(
        tmp_path / "pairs.jsonl",
        [
            good,
            {**good, "rejected": "Yes."},
            {**good, "chosen": " "},
            {**good, "chosen": {"no": "text"}},
            {**good, "rejected": [said("user", "And?")]},
            {**good, "rejected": "Yes."},
        ],
    )
    found = {item.code: item for item in refused(path)}
    assert found.keys() == {"data.same_answers", "data.empty_text", "data.type", "data.no_answer"}
    assert found["data.same_answers"].where == "pairs.jsonl, lines 2 and 6."
    assert found["data.no_answer"].where == "pairs.jsonl, line 5."
    rated = [{"prompt": "Well?", "completion": "Yes.", "label": label} for label in (True, "perhaps", 0, 7)]
    (odd,) = refused(write(tmp_path / "rated.jsonl", rated), loss="kto")
    assert (odd.code, odd.where) == ("data.rating", "rated.jsonl, lines 2 and 4.")


def test_that_answers_to_one_question_stay_on_one_side(tmp_path: Path) -> None:
    rows = [{"prompt": f"Well {n % 10}?", "chosen": f"Yes {n}.", "rejected": "No."} for n in range(60)]
    train, held = split_rows(read(write(tmp_path / "pairs.jsonl", rows)).rows, 0.3, 0)
    assert held
    assert not {row.turns for row in train} & {row.turns for row in held}


def test_that_each_answer_is_written_as_a_conversation_whose_last_answer_is_taught(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    before = (Turn("user", "Well?"), Turn("assistant", "Well what?"), Turn("user", "This."))
    row = Row(7, before, chosen=(Turn("assistant", "Yes, this."),), rejected=(Turn("assistant", "No."),))
    (found,) = in_tokens([row], tokenizer)
    assert isinstance(found, PreferenceRow)
    better, worse = found.texts()
    whole = Renderer(tokenizer, "chat", "tiny")
    for text, answer in ((better, row.chosen), (worse, row.rejected)):
        (wanted,) = whole.render([Row(7, (*before, *answer))], Path("x"))
        assert text.ids == wanted.ids
        taught = [token for token, mark in zip(text.ids, text.trained, strict=True) if mark]
        assert tokenizer.decode(taught) == f"{answer[0].content}<|im_end|>"
    assert found.length == max(len(better.ids), len(worse.ids))
    short = found.cut(found.needed)
    assert any(short.trained)
    assert not any(found.cut(found.needed - 1).trained)
    assert all(len(text.ids) <= found.needed for text in short.texts())
    shown = PreferenceRenderer(tokenizer, "tiny").show(row, 512)
    assert [turn.role for turn in shown.turns] == ["prompt", "chosen", "rejected"]
    prompt, good, bad = ("".join(span.text for span in turn.spans) for turn in shown.turns)
    assert [prompt + good, prompt + bad] == [tokenizer.decode(better.ids), tokenizer.decode(worse.ids)]
    assert not any(span.kind == "trained" for span in shown.turns[0].spans)
    assert shown.trained_tokens == found.trained_count


def test_that_a_model_without_a_template_gets_prompt_answer_and_end(tmp_path: Path) -> None:
    plain = make_tokenizer(template=None)
    (found,) = in_tokens(pairs()[:1], plain)
    asked, good, bad = PAIRS[0]
    assert [plain.decode(text.ids) for text in found.texts()] == [f"{asked}\n{said}<|im_end|>" for said in (good, bad)]
    talk = Row(3, (Turn("system", "Be brief."), Turn("user", "Well?")), chosen=(Turn("assistant", "Yes."),))
    with pytest.raises(ProblemError) as caught:
        in_tokens([talk], plain)
    assert caught.value.problems[0].where == "pairs.jsonl, line 3."


def test_that_a_file_of_pairs_is_described_with_and_without_a_model(tiny_llama: Path, tmp_path: Path) -> None:
    rows = [{"prompt": asked, "chosen": good, "rejected": bad} for asked, good, bad in PAIRS]
    twisted = {"prompt": PAIRS[0][0], "chosen": PAIRS[0][2], "rejected": PAIRS[0][1]}
    path = write(tmp_path / "pairs.jsonl", [*rows, twisted])
    for model in (str(tiny_llama), None):
        events = do(InspectData(source=str(path), task="preference", model=model))
        (found,) = [event for event in events if isinstance(event, DataDescribed)]
        assert (found.info.layout, found.info.rows) == ("preference", 5)
        assert [turn.role for turn in found.examples[0].turns] == ["prompt", "chosen", "rejected"]
        (odd,) = [item for item in found.info.findings if item.code == "data.contradiction"]
        assert odd.rows == (1, 5)
        assert (found.info.tokens is not None) == (model is not None)


# Runs.


def spec_of(model: Path, data: Path, loss: str, method: dict[str, Any] | None = None, **training: Any) -> RunSpec:
    values = {"max_steps": 8, "micro_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 5e-3,
              "precision": "fp32", "device": "cpu", "seed": 3, "forgetting": False, **training}  # fmt: skip
    tree = {
        "model": {"source": str(model)},
        "task": {"kind": "preference", "preference_loss": loss},
        "data": {"train": str(data), "validation_fraction": 0.2},
        "method": method or {"rank": 4},
        "training": values,
    }
    return RunSpec.model_validate_json(json.dumps(tree))


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """40 pairs of the starter data, short."""
    rows = read_dataset("starter:preferences").rows[:40]
    return write(
        tmp_path / "answers.jsonl",
        [
            {
                "prompt": row.turns[0].content[:60],
                "chosen": row.chosen[0].content[:60],
                "rejected": row.rejected[0].content[:60],
            }
            for row in rows
        ],
    )


@pytest.fixture
def ratings(answers: Path, tmp_path: Path) -> Path:
    """The same, every answer by itself."""
    rows = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    return write(
        tmp_path / "ratings.jsonl",
        [
            {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
            for row in rows
            for side in ("chosen", "rejected")
        ],
    )


RUNS: list[tuple[str, str, dict[str, Any], float]] = [
    ("dpo", "llama", {"rank": 4}, 2e-2),
    ("dpo", "llama", {"name": "prefix_tuning", "virtual_tokens": 4}, 0.3),
    ("dpo", "gpt2", {"name": "full"}, 1e-3),
    ("kto", "qwen2", {"rank": 4, "dropout": 0.1}, 1e-2),
    ("orpo", "gemma2", {"rank": 4, "dora": True}, 2e-2),
    ("orpo", "gpt2", {"name": "houlsby", "bottleneck": 8}, 2e-2),
]


@pytest.mark.parametrize(("loss", "family", "method", "rate"), RUNS)
def test_that_a_run_comes_to_favour_better_answers(
    loss: str, family: str, method: dict[str, Any], rate: float,
    tiny_models: dict[str, Path], answers: Path, ratings: Path, tmp_path: Path,
) -> None:  # fmt: skip
    spec = spec_of(tiny_models[family], ratings if loss == "kto" else answers, loss, method, learning_rate=rate)
    run, channel = go(spec, tmp_path / "run")
    assert outcome(channel) == "completed"
    first, *later = channel.of(Evaluated)
    assert first.step == 0
    assert later[-1].metrics["reward_margin"] > first.metrics["reward_margin"] + 0.02
    if loss == "dpo":
        assert first.metrics == {"preference_accuracy": 0.5, "reward_margin": 0.0}
        assert first.loss == pytest.approx(0.693147, abs=1e-6)
        assert later[-1].metrics["preference_accuracy"] > 0.6
    assert later[-1].loss < first.loss
    assert weights(run)


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_that_a_killed_run_ends_with_the_same_weights(
    loss: str, tiny_llama: Path, answers: Path, tmp_path: Path
) -> None:
    class KilledError(Exception):
        pass

    def kill(channel: Recorder, event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 6:
            raise KilledError

    method = {"rank": 4, "init": "pissa"} if loss == "kto" else {"rank": 4}
    spec = spec_of(tiny_llama, answers, loss, method, save_steps=2, precision="bf16", learning_rate=1e-3)
    whole, one = go(spec, tmp_path / "whole")
    run, first = go(spec, tmp_path / "cut", Recorder(kill))
    kept = checkpoints.whole_checkpoints(run)[-1][0]
    assert kept in (4, 5)
    second = resume(run)
    assert losses(first)[:kept] + losses(second) == losses(one)
    assert all(torch.equal(tensor, weights(run)[name]) for name, tensor in weights(whole).items())


def test_that_a_run_of_ratings_is_refused_before_anything_is_loaded(
    tiny_llama: Path, ratings: Path, tmp_path: Path
) -> None:
    _, channel = go(spec_of(tiny_llama, ratings, "dpo"), tmp_path / "run")
    assert problem(channel).code == "data.rated"


def test_that_a_tuned_model_can_be_asked_and_taken_away(tiny_llama: Path, answers: Path, tmp_path: Path) -> None:
    run, channel = go(spec_of(tiny_llama, answers, "dpo"), tmp_path / "run")
    assert outcome(channel) == "completed"
    talk = (Message(role="user", content="Where is my order?"),)
    ask = Ask(id=1, conversations={"base": talk, "tuned": talk}, sampling=Sampling(temperature=0, max_new_tokens=6))
    events = do(Chat(run=str(run.path)), [ask])
    (ready,) = [event for event in events if isinstance(event, ChatReady)]
    assert ready.has_chat_template
    assert {event.side for event in events if isinstance(event, ChatAnswer)} == {"base", "tuned"}
    events = do(Export(run=str(run.path), kind="adapter", to=str(tmp_path / "out")))
    assert any(isinstance(event, Exported) for event in events)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "to prefer better answers (DPO, beta 0.1)" in card
    assert "Loss in nats per pair" in card
    assert "reward margin" in card.lower()


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["dpo", "kto", "orpo"])
def test_that_the_starter_model_comes_to_favour_the_better_starter_answers(loss: str, tmp_path: Path) -> None:
    rows = read_dataset("starter:preferences").path.read_text(encoding="utf-8").splitlines()[:32]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    tree = {
        "model": {"source": "starter:chat"},
        "task": {"kind": "preference", "preference_loss": loss},
        "data": {"train": str(path), "validation_fraction": 0.2},
        "training": {
            "max_steps": 4,
            "micro_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "forgetting": False,
            "eval_steps": 4,
            "device": "cpu",
        },
    }
    _, channel = go(RunSpec.model_validate_json(json.dumps(tree)), tmp_path / "run")
    assert outcome(channel) == "completed"
    first, last = channel.of(Evaluated)
    assert last.metrics["reward_margin"] > first.metrics["reward_margin"] + 0.02
    assert last.loss < first.loss
