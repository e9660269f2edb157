"""Several labels and numbers, from a file to an exported adapter: read, looked over, learned, answered and saved."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from transformers import PreTrainedTokenizerFast

from tests.engine.conftest import Recorder
from tests.engine.jobs import do
from tests.engine.models import tiny_encoder, tiny_model
from tests.engine.test_classify import go, make_spec, outcome, write
from tunedesk.core.describe import DataInfo
from tunedesk.core.events import (
    Ask,
    Asked,
    Chat,
    ChatAnswer,
    ChatReady,
    Checked,
    Close,
    DataDescribed,
    Evaluated,
    Export,
    Exported,
    InspectData,
    Message,
    StepDone,
    Train,
)
from tunedesk.core.problems import ProblemError
from tunedesk.core.project import COLUMNS_THERE
from tunedesk.core.runs import create_run
from tunedesk.core.spec import DataSection, RunSpec
from tunedesk.engine.__main__ import run_job
from tunedesk.engine.material import describe, gather, head_for
from tunedesk.engine.metrics import number_metrics, several_metrics
from tunedesk.engine.rows import read_dataset

WORDS = {"rose": "up", "fell": "down", "held": "flat"}


def texts() -> list[tuple[str, list[str], float]]:
    """Texts with two marks each: which labels apply, and what the number is."""
    found = []
    for n in range(96):
        first, second = list(WORDS)[n % 3], ["", " fell", " held"][n // 3 % 3]
        labels = sorted({WORDS[word] for word in f"{first}{second}".split() if word != "held"})
        found.append((f"{'the bank and ' * (n % 4)}shares {first}{second}", labels, 1000 + 100.5 * len(labels)))
    return found


def several(path: Path) -> Path:
    write(path, [{"text": text, "labels": labels} for text, labels, _ in texts()])
    return path


def numbers(path: Path) -> Path:
    write(path, [{"text": text, "score": number} for text, _, number in texts()])
    return path


# What is read.


@pytest.mark.parametrize(
    ("labels", "kind", "found"),
    [
        ([["x", "y"], ["y"], []], "multi_label", [("x", "y"), ("y",), ()]),
        ([[2, 1], [True], [3.0]], "multi_label", [("1", "2"), ("true",), ("3",)]),
        ([0.5, 2, -1e-3], "regression", [0.5, 2.0, -0.001]),
        ([1, 2, 1], "single_label", [("1",), ("2",), ("1",)]),
        ([1.0, 2.0, 1.0], "single_label", [("1",), ("2",), ("1",)]),
        (["0.5", "1.5", "1.5"], "single_label", [("0.5",), ("1.5",), ("1.5",)]),
    ],
)
def test_that_labels_say_what_kind_they_are(tmp_path: Path, labels: list[Any], kind: str, found: list[Any]) -> None:
    rows = [{"text": f"t{n}", "label": label} for n, label in enumerate(labels)]
    data = read_dataset(write(tmp_path / "rows.jsonl", rows))
    assert data.problem_type == kind
    assert [row.value if kind == "regression" else row.labels for row in data.rows] == found
    assert data.span == ((-0.001, 2.0) if kind == "regression" else None)


def test_that_tables_of_text_say_it_too(tmp_path: Path) -> None:
    for cells, kind in (
        (['"[""a"", ""b""]"', "\"['b']\"", "[]"], "multi_label"),
        (["4.5", "3", ".25"], "regression"),
        (["4", "3", "1"], "single_label"),
    ):
        path = tmp_path / "rows.csv"
        path.write_text("text,label\n" + "".join(f"t{n},{cell}\n" for n, cell in enumerate(cells)))
        data = read_dataset(str(path))
        assert data.problem_type == kind
    assert read_dataset(str(path), problem_type="regression").span == (1.0, 4.0)


def test_that_a_stated_kind_parts_texts_and_reads_whole_numbers(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": cell} for n, cell in enumerate(["red, blue", "blue;green|red", "green", 7, []])]
    data = read_dataset(write(tmp_path / "a.jsonl", rows), problem_type="multi_label")
    assert [row.labels for row in data.rows] == [("blue", "red"), ("blue", "green", "red"), ("green",), ("7",), ()]
    rows = [{"text": f"t{n}", "label": cell} for n, cell in enumerate([3, " -2e1 ", "+.5", 4.25])]
    data = read_dataset(write(tmp_path / "b.jsonl", rows), problem_type="regression")
    assert [row.value for row in data.rows] == [3.0, -20.0, 0.5, 4.25]


@pytest.mark.parametrize(
    ("labels", "kind", "code", "where", "found"),
    [
        ([["a"], ["b"], None], "auto", "data.no_labels", "line 3", "empty"),
        ([["a"], ["b"], [["c"]]], "auto", "data.labels_type", "line 3", '[["c"]]'),
        ([["a"], ["b"], "c, d"], "auto", "data.labels_type", "line 3", "c, d"),
        ([0.5, 1.5, 2.5], "multi_label", "data.labels_type", "lines 1, 2 and 3", "1.5"),
        ([["a"], ["b", None], ["c", 0.5]], "auto", "data.labels_type", "lines 2 and 3", "0.5"),
        ([["a"], ["b", " b"]], "auto", "data.label_twice", "line 2", "b"),
        ([["a", "b"], ["b", "a"]], "auto", "data.one_label", "column 'label'", "'a', 'b'"),
        ([0.5, 1, "much"], "auto", "data.number_type", "line 3", "much"),
        ([0.5, True, 2], "regression", "data.number_type", "line 2", "true"),
        ([0.5, "1,5", "0x1", "1_0"], "regression", "data.number_type", "lines 2, 3 and 4", "1,5"),
        ([0.5, 1, math.nan, -math.inf], "auto", "data.number_size", "lines 3 and 4", "NaN"),
        ([0.5, 10**400, "1e31"], "regression", "data.number_size", "lines 2 and 3", "1e31"),
        ([0.5, None, ""], "regression", "data.no_number", "lines 2 and 3", "empty"),
        ([7.5, 7.5, "7.50"], "regression", "data.one_number", "column 'label'", "7.5"),
        ([["a"], ["\ud800"]], "auto", "data.broken_text", "line 2", ""),
    ],
)  # fmt: skip
def test_that_rows_that_teach_nothing_are_named(
    tmp_path: Path, labels: list[Any], kind: Any, code: str, where: str, found: str
) -> None:
    rows = [{"text": f"t{n}", "label": label} for n, label in enumerate(labels)]
    with pytest.raises(ProblemError) as caught:
        read_dataset(write(tmp_path / "rows.jsonl", rows), task="classification", problem_type=kind)
    (problem,) = caught.value.problems
    assert problem.code == code
    assert where in problem.where
    assert found in problem.found
    assert problem.fix


def test_that_many_whole_numbers_are_perhaps_measured(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": n, "other": "x"} for n in range(60)]
    with pytest.raises(ProblemError) as caught:
        read_dataset(write(tmp_path / "rows.jsonl", rows))
    (problem,) = caught.value.problems
    assert problem.code == "data.many_labels"
    assert 'problem_type = "regression"' in problem.fix
    assert problem.found.endswith(f"{COLUMNS_THERE} 'text', 'label', 'other'.")
    assert read_dataset(str(tmp_path / "rows.jsonl"), problem_type="regression").span == (0.0, 59.0)


def test_that_the_validation_file_is_read_as_the_training_file_is(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", [{"text": f"a{n}", "label": n + 0.5} for n in range(4)])
    whole = write(tmp_path / "b.jsonl", [{"text": f"b{n}", "label": n} for n in range(3)])
    material = gather(DataSection(train=train, validation=whole), "classification", 0)
    assert [row.value for row in material.held] == [0.0, 1.0, 2.0]
    head = head_for(material)
    assert head is not None
    assert (head.mean, head.std) == (2.0, pytest.approx(math.sqrt(1.25)))
    lists = write(tmp_path / "c.jsonl", [{"text": f"c{n}", "label": ["x", "y"][: n % 3]} for n in range(6)])
    other = write(tmp_path / "d.jsonl", [{"text": "d0", "label": ["x"]}, {"text": "d1", "label": ["z", "x"]}])
    with pytest.raises(ProblemError) as caught:
        gather(DataSection(train=lists, validation=other), "classification", 0)
    assert caught.value.problems[0].code == "data.strange_label"
    assert "line 2" in caught.value.problems[0].where


# What is said of it.


def described(path: str) -> DataInfo:
    return describe(gather(DataSection(train=path, validation_fraction=0.2), "classification", 0), None, 64)


def test_that_odd_labels_and_numbers_are_told(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"t{n}", "label": ["often"]} for n in range(60)]
    rows += [{"text": "u1", "label": ["often", "seldom"]}, {"text": "u2", "label": []}, {"text": "t1", "label": []}]
    info = described(write(tmp_path / "a.jsonl", rows))
    codes = {item.code: item for item in info.findings}
    assert {"data.rare_labels", "data.imbalance", "data.unlabelled", "data.contradiction"} <= set(codes)
    assert codes["data.unlabelled"].rows == (62, 63)
    assert [(item.name, item.rows) for item in info.labels] == [("often", 61), ("seldom", 1)]
    assert (info.problem_type, info.span) == ("multi_label", None)

    rows = [{"text": f"t{n}", "label": n % 5 + 0.5} for n in range(60)]
    rows += [{"text": "u", "label": 1e6}, {"text": "t0", "label": 3}]
    info = described(write(tmp_path / "b.jsonl", rows))
    codes = {item.code: item for item in info.findings}
    assert codes["data.far_numbers"].rows == (61,)
    assert codes["data.contradiction"].rows == (62,)
    assert (info.problem_type, info.span, info.labels) == ("regression", (0.5, 1e6), ())


def test_that_a_look_at_the_data_shows_what_each_row_teaches(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", "llama")
    for path, shown in ((several(tmp_path / "a.jsonl"), ["up", "down", "none"]),
                        (numbers(tmp_path / "b.jsonl"), ["1100", "1100", "1000"])):  # fmt: skip
        columns = {"label": "score"} if shown[0] == "1100" else {}
        for source in (None, str(model)):
            job = InspectData(source=str(path), model=source, task="classification", columns=columns)
            (event,) = [event for event in do(job) if isinstance(event, DataDescribed)]
            said = [row.turns[-1].spans[0].text for row in event.examples[:3]]
            assert said == shown
            assert "".join(span.text for span in event.examples[1].turns[0].spans) == texts()[1][0]


# How good it is.


def test_that_measures_are_those_of_the_textbook() -> None:
    right = [[True, False, False], [True, True, False], [False, False, False], [False, True, False]]
    given = [[True, False, False], [True, False, False], [False, True, False], [False, True, False]]
    found = several_metrics(right, given)
    assert found["accuracy"] == 0.5
    assert found["micro_f1"] == pytest.approx(2 * 3 / (4 + 4))
    assert found["macro_f1"] == pytest.approx((2 * 2 / (2 + 2) + 2 * 1 / (2 + 2)) / 2)  # nobody has the third label
    assert several_metrics([[False]], [[False]]) == {"accuracy": 1.0, "macro_f1": 0.0}
    found = number_metrics([1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 2.0, 5.0])
    assert found["rmse"] == pytest.approx(math.sqrt(3 / 4))
    assert found["mae"] == pytest.approx(3 / 4)
    # Deviations -1.5, -0.5, 0.5, 1.5 and -0.75, -0.75, -0.75, 2.25: 4.5 over the root of 5 times 6.75.
    assert found["pearson"] == pytest.approx(4.5 / math.sqrt(5 * 6.75))
    assert set(number_metrics([1.0, 1.0], [2.0, 3.0])) == {"rmse", "mae"}


# Whole runs.


def spec_for(model: Path, data: Path, method: dict[str, Any] | None = None, **training: object) -> RunSpec:
    spec = make_spec(model, data, method, **{"learning_rate": 5e-3, **training})
    columns = {} if data.name.startswith("several") else {"label": "score"}
    return spec.model_copy(update={"data": spec.data.model_copy(update={"columns": columns})})


@pytest.mark.parametrize("family", ["llama", "distilbert"])
def test_that_several_labels_are_learned_answered_and_exported(tmp_path: Path, family: str) -> None:
    make = tiny_model if family == "llama" else tiny_encoder
    run, channel = go(spec_for(make(tmp_path / "model", family), several(tmp_path / "several.jsonl")), tmp_path / "run")
    assert outcome(channel) == "completed", channel.events[-1]
    base, *checks = channel.of(Evaluated)
    best = min(checks, key=lambda item: item.loss)
    assert best.loss < 0.6 * base.loss
    assert best.metrics["accuracy"] > base.metrics["accuracy"]
    assert {"accuracy", "micro_f1", "macro_f1"} == set(best.metrics)
    assert not best.confusion

    answers, ready = asked(run.path, ["shares rose fell", "the bank and shares held"])
    assert (ready.labels, ready.problem_type) == (("down", "up"), "multi_label")
    for answer in answers:
        likely = [item.name for item in answer.labels if item.share > 0.5]
        assert answer.text == (", ".join(likely) or "none")
        assert sum(item.share for item in answer.labels) != pytest.approx(1.0)
    likely = answers[0].text.split(", ")
    assert exported(run.path, tmp_path / "out")["printed"] == str([name for name in ready.labels if name in likely])


@pytest.mark.parametrize("family", ["qwen2", "bert"])
def test_that_numbers_are_learned_answered_and_exported_in_their_own_units(tmp_path: Path, family: str) -> None:
    make = tiny_model if family == "qwen2" else tiny_encoder
    spec = spec_for(make(tmp_path / "model", family), numbers(tmp_path / "numbers.jsonl"))
    run, channel = go(spec, tmp_path / "run")
    assert outcome(channel) == "completed", channel.events[-1]
    base, *checks = channel.of(Evaluated)
    best = min(checks, key=lambda item: item.loss)
    assert best.loss < 0.5 * base.loss
    maps = json.loads((run.adapter / "labels.json").read_text())
    assert best.metrics["rmse"] == pytest.approx(math.sqrt(best.loss) * maps["number"]["std"], rel=1e-3)
    assert best.metrics["mae"] <= best.metrics["rmse"]
    assert best.metrics["pearson"] > 0.5

    (answer,), ready = asked(run.path, ["shares rose fell"])
    assert (ready.labels, ready.problem_type, answer.labels) == ((), "regression", ())
    assert answer.number == pytest.approx(1201, abs=100)
    assert answer.text == f"{answer.number:.0f}"
    assert float(exported(run.path, tmp_path / "out")["printed"]) == pytest.approx(answer.number, rel=1e-4)


def asked(run: Path, said: list[str]) -> tuple[list[ChatAnswer], ChatReady]:
    asks = [Ask(id=n, conversations={"tuned": (Message(role="user", content=text),)}) for n, text in enumerate(said, 1)]
    events = do(Chat(run=str(run)), [*asks, Close()])
    (ready,) = [event for event in events if isinstance(event, ChatReady)]
    assert not [event for event in events if isinstance(event, Asked) and event.problems]
    return [event for event in events if isinstance(event, ChatAnswer)], ready


def exported(run: Path, to: Path) -> dict[str, Any]:
    """The names that the code in the exported card leaves behind, and what it ``printed`` of "shares rose fell"."""
    events = do(Export(run=str(run), to=str(to)))
    assert isinstance(events[-2], Exported), events[-1]
    assert all(event.passed for event in events if isinstance(event, Checked))
    card = (to / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    code = card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(to))
    scope: dict[str, Any] = {"print": lambda said: scope.update(printed=str(said))}
    exec(code.replace("A text.", "shares rose fell"), scope)  # what the card tells people to do
    return scope


@pytest.mark.parametrize("method", ["full", "houlsby", "lora", "prefix_tuning"])
def test_that_a_16_bit_decoder_gives_numbers_with_every_way_of_saving(tmp_path: Path, method: str) -> None:
    model = tiny_model(tmp_path / "model", "qwen2", dtype=torch.bfloat16)
    rate = {"full": 5e-4, "prefix_tuning": 1e-2}.get(method, 5e-3)
    spec = spec_for(model, numbers(tmp_path / "numbers.jsonl"), {"name": method}, max_steps=8, learning_rate=rate)
    training = spec.training.model_copy(update={"precision": "bf16"})
    run, channel = go(spec.model_copy(update={"training": training}), tmp_path / "run")
    assert outcome(channel) == "completed", channel.events[-1]
    (answer,), _ = asked(run.path, ["shares rose fell"])
    assert answer.number is not None
    assert 0 < answer.number < 3000
    events = do(Export(run=str(run.path), to=str(tmp_path / "out")))
    assert isinstance(events[-2], Exported), events[-1]


def test_that_a_resumed_decoder_ends_with_the_same_weights(tmp_path: Path) -> None:
    data = numbers(tmp_path / "numbers.jsonl")
    spec = spec_for(tiny_model(tmp_path / "model", "llama"), data, max_steps=12, save_steps=4)
    whole, _ = go(spec, tmp_path / "whole")
    run = create_run(spec, tmp_path / "cut")
    channel = Recorder(lambda channel, event: channel.ask_stop() if _is_step(event, 7) else None)
    run_job(Train(run=str(run.path)), channel)
    assert outcome(channel) == "stopped"
    again = Recorder()
    run_job(Train(run=str(run.path), resume=True), again)
    assert outcome(again) == "completed"
    for name in ("adapter_model.safetensors", "labels.json"):
        assert (run.adapter / name).read_bytes() == (whole.adapter / name).read_bytes()


def _is_step(event: object, step: int) -> bool:
    return isinstance(event, StepDone) and event.step == step


# Two texts.


@pytest.mark.parametrize("family", ["llama", "distilbert", "roberta", "bert"])
def test_that_pairs_are_learned_and_asked_for(tmp_path: Path, family: str) -> None:
    make = tiny_model if family == "llama" else tiny_encoder
    model = make(tmp_path / "model", family)
    sides = [("shares rose", "shares fell"), ("shares fell", "shares fell"), ("shares held", "shares rose")]
    rows = [{"text": a, "text_pair": b, "label": a == b} for a, b in sides * 8]
    write(tmp_path / "pairs.jsonl", rows)
    run, channel = go(make_spec(model, tmp_path / "pairs.jsonl", max_steps=6), tmp_path / "run")
    assert outcome(channel) == "completed", channel.events[-1]

    def ask(number: int, *said: str) -> Ask:
        return Ask(id=number, conversations={"tuned": tuple(Message(role="user", content=text) for text in said)})

    asks = [
        ask(1, "ignored", "shares fell", "shares rose"),
        ask(2, "shares fell\n\nshares rose"),
        ask(3, "shares fell"),
    ]
    events = do(Chat(run=str(run.path)), [*asks, Close()])
    first, second = [event for event in events if isinstance(event, ChatAnswer)]
    assert first.labels == second.labels
    codes = [item.code for event in events if isinstance(event, Asked) for item in event.problems]
    assert codes == ["chat.no_pair"]

    tuned = AutoPeftModelForSequenceClassification.from_pretrained(str(run.adapter), num_labels=2).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(run.adapter)
    parts = ("shares fell\nshares rose",) if family == "llama" else ("shares fell", "shares rose")
    inputs = tokenizer(*parts, return_tensors="pt", return_token_type_ids=family == "bert")
    with torch.no_grad():
        shares = tuned(**inputs).logits[0].softmax(-1).tolist()
    given = {item.name: item.share for item in first.labels}
    assert [given["false"], given["true"]] == pytest.approx(shares, abs=1e-5)
