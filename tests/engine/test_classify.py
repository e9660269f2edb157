"""Classification: what is read, what the model sees, what it learns, and that others can load it."""

from __future__ import annotations

import json
import shutil
from array import array
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from tests.engine.conftest import Recorder
from tests.engine.jobs import do
from tests.engine.models import tiny_encoder, wordpiece
from tunedesk.core.events import (
    AdapterSaved,
    Ask,
    Asked,
    Chat,
    ChatAnswer,
    ChatReady,
    Checked,
    CheckpointSaved,
    Close,
    DataDescribed,
    Evaluated,
    Export,
    Exported,
    Finished,
    Message,
    Side,
    StepDone,
    Train,
    TrainingBegan,
)
from tunedesk.core.problems import ProblemError
from tunedesk.core.runs import RunFolder, create_run
from tunedesk.core.spec import DataSection, RunSpec
from tunedesk.engine.__main__ import run_job
from tunedesk.engine.batches import Steps, label_batches
from tunedesk.engine.label_rows import LabelRenderer, LabelRow
from tunedesk.engine.material import findings, gather
from tunedesk.engine.metrics import label_metrics
from tunedesk.engine.rows import Row, read_dataset

FAMILIES = ("bert", "distilbert", "roberta")
HERE = Path("rows.jsonl")


def make_spec(model: Path, data: Path, method: dict[str, Any] | None = None, **training: object) -> RunSpec:
    values = {"max_steps": 40, "micro_batch_size": 8, "gradient_accumulation_steps": 1, "learning_rate": 2e-3,
              "precision": "fp32", "device": "cpu", "eval_steps": 10, "forgetting": False, **training}  # fmt: skip
    tree = {
        "model": {"source": str(model)},
        "task": {"kind": "classification"},
        "data": {"train": str(data), "validation_fraction": 0.2},
        "method": {"rank": 4, **(method or {})},
        "training": values,
    }
    return RunSpec.model_validate_json(json.dumps(tree))


def go(spec: RunSpec, out: Path) -> tuple[RunFolder, Recorder]:
    run, channel = create_run(spec, out), Recorder()
    run_job(Train(run=str(run.path)), channel)
    return run, channel


def outcome(channel: Recorder) -> str:
    end: Finished = channel.events[-1]  # type: ignore[assignment]
    return end.outcome


def losses(channel: Recorder) -> list[float]:
    return [event.loss for event in channel.of(StepDone)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    """Sentences of several lengths; a word in each says which of three labels it has."""
    path, said = tmp_path / "sentences.jsonl", {"up": "rose", "down": "fell", "flat": "held"}
    rows = [
        {"text": f"the shares {word} {'and the bank ' * (n % 4)}{n}", "label": label}
        for n in range(40)
        for label, word in said.items()
    ]
    write(path, rows)
    return path


# What is read.


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        ([{"text": "a b", "label": "x"}, {"text": "c", "label": "y"}], ("x", "y")),
        ([{"sentence": "a", "sentiment": 10}, {"sentence": "c", "sentiment": 9}], ("9", "10")),
        ([{"premise": "a", "hypothesis": "b", "label": True}, {"premise": "c", "hypothesis": "d", "label": False}],
         ("false", "true")),
        ([{"review": "a", "stars": 5, "label": 1.0}, {"review": "c", "stars": 1, "label": 0.0}], ("0", "1")),
    ],
)  # fmt: skip
def test_that_labelled_rows_are_recognised(tmp_path: Path, rows: list[dict[str, Any]], labels: tuple[str, ...]) -> None:
    data = read_dataset(write(tmp_path / "rows.jsonl", rows))
    assert (data.layout, data.task, data.labels) == ("labelled", "classification", labels)
    assert bool(data.rows[0].pair) == ("hypothesis" in rows[0])


def test_that_columns_may_be_stated(tmp_path: Path) -> None:
    rows = [{"was": "gut", "art": "A"}, {"was": "schlecht", "art": "B"}]
    data = read_dataset(write(tmp_path / "rows.jsonl", rows), {"text": "was", "label": "art"}, "classification")
    assert [(row.text, *row.labels) for row in data.rows] == [("gut", "A"), ("schlecht", "B")]


def test_that_a_text_column_beside_a_label_can_still_be_gone_on_with() -> None:
    assert read_dataset("starter:finance", task="completion").task == "completion"


@pytest.mark.parametrize(
    ("rows", "task", "code", "words"),
    [
        ([{"text": "a", "label": "x"}] * 3, "classification", "data.one_label", "same label"),
        (
            [{"text": f"t{n}", "label": f"l{n}"} for n in range(60)],
            "classification",
            "data.many_labels",
            "60 different",
        ),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": ""}, {"text": "c"}], "auto", "data.no_label", "2 rows"),
        ([{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": "x"}], "auto", "data.label_type", "one label"),
        ([{"text": "a", "label": 0.25}, {"text": "b", "label": "x"}], "auto", "data.label_type", "0.25"),
        ([{"text": " ", "label": "x"}, {"text": "b", "label": "y"}], "auto", "data.empty_text", "empty"),
        ([{"prompt": "a", "completion": "x"}] * 2, "classification", "data.columns", "'label'"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], "chat", "data.columns", "conversations"),
    ],
)
def test_that_rows_that_teach_no_label_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], task: Any, code: str, words: str
) -> None:
    with pytest.raises(ProblemError) as caught:
        read_dataset(write(tmp_path / "rows.jsonl", rows), task=task)
    assert [problem.code for problem in caught.value.problems] == [code]
    assert words in str(caught.value.problems[0])


def test_that_a_validation_file_brings_no_label_of_its_own(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    other = write(tmp_path / "b.jsonl", [{"text": "c", "label": "x"}, {"text": "d", "label": "z"}])
    with pytest.raises(ProblemError) as caught:
        gather(DataSection(train=train, validation=other), "classification", 0)
    (problem,) = caught.value.problems
    assert problem.code == "data.strange_label"
    assert "line 2" in problem.where
    assert "'z'" in problem.found


def test_that_rare_labels_and_contradictions_are_told(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": "often"} for n in range(95)]
    rows += [{"text": "t1", "label": "seldom"}, {"text": "u", "label": "seldom"}]
    material = gather(DataSection(train=write(tmp_path / "a.jsonl", rows)), "classification", 0)
    codes = {item.code: item for item in findings(material, None, 64)}
    assert {"data.rare_labels", "data.imbalance", "data.contradiction"} <= set(codes)
    assert codes["data.contradiction"].rows == (96,)


# What the model sees.


def test_that_a_row_is_framed_by_the_tokenizer_and_a_cut_keeps_the_frame() -> None:
    tokenizer = wordpiece()
    row = Row(1, text="Profits rose by a tenth in the second quarter.", labels=("b",))
    (tokens,) = LabelRenderer(tokenizer, ("a", "b"), "m").render([row], HERE)
    assert isinstance(tokens, LabelRow)
    assert list(tokens.ids) == tokenizer(row.text)["input_ids"]
    assert tokens.label == 1
    cut = tokens.cut(6)
    assert list(cut.ids) == [*tokens.ids[:5], tokenizer.sep_token_id]
    assert len(cut.types) == 6


def test_that_a_pair_is_told_apart_by_its_token_types() -> None:
    tokenizer = wordpiece()
    row = Row(1, text="Profits rose.", pair="They fell.", labels=("a",))
    (tokens,) = LabelRenderer(tokenizer, ("a", "b"), "m").render([row], HERE)
    assert isinstance(tokens, LabelRow)
    assert list(tokens.types) == tokenizer(row.text, row.pair, return_token_type_ids=True)["token_type_ids"]
    (batch,) = label_batches([tokens], 8, tokenizer.pad_token_id)
    assert batch.token_type_ids is not None


def test_that_the_shown_row_is_the_text_and_its_label() -> None:
    row = Row(3, text="Profits  rose by a tenth.", labels=("up",))
    shown = LabelRenderer(wordpiece(), ("down", "up"), "m").show(row, 64)
    text, label = shown.turns
    assert "".join(span.text for span in text.spans if span.kind == "context") == row.text
    assert [span.text for span in label.spans] == ["up"]
    assert [span.text for span in text.spans if span.kind == "template"] == ["[CLS]", "[SEP]"]


def test_that_steps_have_rows_of_like_length() -> None:
    rows = [LabelRow(n, array("i", [1] * (1 + n * 7 % 50)), b"\1", 0, bytes(1 + n * 7 % 50), 1) for n in range(640)]
    grouped, mixed = Steps(rows, 8, 0, grouped=True), Steps(rows, 8, 0)
    padding = [
        sum(max(len(row.ids) for row in part) - len(row.ids) for row in part)
        for steps in (grouped, mixed)
        for part in [steps.rows(step) for step in range(1, 81)]
    ]
    assert sum(padding[:80]) * 4 < sum(padding[80:])


# What is learned.


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_that_a_classifier_learns_and_loads_elsewhere(
    tmp_path: Path, sentences: Path, family: str, engine: str
) -> None:
    model = tiny_encoder(tmp_path / "model", family)
    run, channel = go(make_spec(model, sentences, engine=engine), tmp_path / "run")
    assert outcome(channel) == "completed", channel.events[-1]
    base, *checks = channel.of(Evaluated)
    best = min(checks, key=lambda item: item.loss)
    assert best.loss < base.loss
    assert channel.of(AdapterSaved)[0].step == best.step
    began = channel.of(TrainingBegan)[0]
    saved = load_file(run.adapter / "adapter_model.safetensors")
    assert began.trainable_parameters == sum(tensor.numel() for tensor in saved.values())

    maps = json.loads((run.adapter / "labels.json").read_text())
    assert maps["id2label"] == {"0": "down", "1": "flat", "2": "up"}
    plain = AutoModelForSequenceClassification.from_pretrained(model, num_labels=3)
    tuned = PeftModel.from_pretrained(plain, run.adapter).eval()
    held = gather(DataSection(train=str(sentences), validation_fraction=0.2), "classification", 0).held
    tokenizer = PreTrainedTokenizerFast.from_pretrained(run.adapter)
    length = channel.of(DataDescribed)[0].info.tokens.max_length
    right, total = 0, 0.0
    with torch.no_grad():
        for row in held:
            inputs = tokenizer(row.text, return_tensors="pt", truncation=True, max_length=length)
            inputs.pop("token_type_ids", None)
            scores = tuned(**inputs).logits[0]
            wanted = ["down", "flat", "up"].index(row.labels[0])
            total += float(torch.nn.functional.cross_entropy(scores, torch.tensor(wanted)))
            right += int(scores.argmax()) == wanted
    assert total / len(held) == pytest.approx(best.loss, rel=1e-4)
    assert best.metrics["accuracy"] == pytest.approx(right / len(held))
    assert json.loads(run.report_file.read_text())["metrics"] == best.metrics


def test_that_fast_and_reference_take_the_same_steps(tmp_path: Path, sentences: Path) -> None:
    model = tiny_encoder(tmp_path / "model")
    curves = [
        [
            event.loss
            for event in go(make_spec(model, sentences, max_steps=12, engine=engine), tmp_path / engine)[1].of(StepDone)
        ]
        for engine in ("fast", "reference")
    ]
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)


def test_that_accumulation_keeps_the_curve(tmp_path: Path, sentences: Path) -> None:
    model = tiny_encoder(tmp_path / "model")
    curves = []
    for micro, accumulation in ((1, 8), (2, 4), (8, 1)):
        sizes = {"micro_batch_size": micro, "gradient_accumulation_steps": accumulation, "max_steps": 12}
        curves.append(
            [event.loss for event in go(make_spec(model, sentences, **sizes), tmp_path / f"{micro}")[1].of(StepDone)]
        )
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    assert curves[0] == pytest.approx(curves[2], abs=1e-4)


def test_that_a_classifier_learns_on_packed_weights(tmp_path: Path, sentences: Path) -> None:
    model = tiny_encoder(tmp_path / "model")
    run, channel = go(make_spec(model, sentences, method={"name": "qlora"}), tmp_path / "run")
    assert outcome(channel) == "completed"
    assert min(event.loss for event in channel.of(Evaluated)) < channel.of(Evaluated)[0].loss
    assert not any("quant" in name for name in load_file(run.adapter / "adapter_model.safetensors"))


def test_that_a_pooler_that_the_files_lack_is_trained(tmp_path: Path, sentences: Path) -> None:
    model = tiny_encoder(tmp_path / "model", pooled=False)
    run, channel = go(make_spec(model, sentences, max_steps=4), tmp_path / "run")
    assert outcome(channel) == "completed", channel.events[-1]
    assert any("pooler" in name for name in load_file(run.adapter / "adapter_model.safetensors"))


def test_that_a_resumed_classifier_ends_with_the_same_weights(tmp_path: Path, sentences: Path) -> None:
    model = tiny_encoder(tmp_path / "model")
    spec = make_spec(model, sentences, max_steps=12, save_steps=4)
    whole, _ = go(spec, tmp_path / "whole")
    run, channel = (
        create_run(spec, tmp_path / "cut"),
        Recorder(
            lambda channel, event: channel.ask_stop() if isinstance(event, StepDone) and event.step == 7 else None
        ),
    )
    run_job(Train(run=str(run.path)), channel)
    assert outcome(channel) == "stopped"
    again = Recorder()
    run_job(Train(run=str(run.path), resume=True), again)
    assert outcome(again) == "completed"
    name = "adapter_model.safetensors"
    assert (run.adapter / name).read_bytes() == (whole.adapter / name).read_bytes()


def test_that_metrics_are_those_of_the_textbook() -> None:
    found = label_metrics([0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 0, 2], 4)
    assert found["accuracy"] == pytest.approx(4 / 6)
    f1 = [2 * 1 / (2 + 2), 2 * 2 / (2 + 3), 2 * 1 / (2 + 1)]
    assert found["macro_f1"] == pytest.approx(sum(f1) / 3)


# What is done with it.


@pytest.fixture
def classifier(tmp_path: Path, sentences: Path) -> RunFolder:
    run, channel = go(make_spec(tiny_encoder(tmp_path / "model"), sentences), tmp_path / "run")
    assert outcome(channel) == "completed"
    return run


def ask(number: int, text: str, side: Side = "tuned") -> Ask:
    return Ask(id=number, conversations={side: (Message(role="user", content=text),)})


def test_that_a_classifier_says_what_plain_peft_says(classifier: RunFolder) -> None:
    texts = ["the shares rose 3", "the shares fell and the bank 5"]
    commands = [*(ask(number, text) for number, text in enumerate(texts)), Close()]
    events = do(Chat(run=str(classifier.path)), commands)
    (ready,) = [event for event in events if isinstance(event, ChatReady)]
    assert (ready.sides, ready.labels) == (("tuned",), ("down", "flat", "up"))
    answers = [event for event in events if isinstance(event, ChatAnswer)]
    plain = AutoModelForSequenceClassification.from_pretrained(classifier.spec().model.source, num_labels=3)
    tuned = PeftModel.from_pretrained(plain, classifier.adapter).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(classifier.adapter)
    for text, answer in zip(texts, answers, strict=True):
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            shares = tuned(**inputs).logits[0].softmax(-1).tolist()
        assert {item.name: item.share for item in answer.labels} == pytest.approx(
            dict(zip(ready.labels, shares, strict=True)), abs=1e-5
        )
        assert answer.text == answer.labels[0].name
        assert [item.share for item in answer.labels] == sorted(shares, reverse=True)


def test_that_the_untouched_model_and_an_empty_text_have_no_label(classifier: RunFolder) -> None:
    events = do(Chat(run=str(classifier.path)), [ask(1, "a", "base"), ask(2, " "), Close()])
    codes = [event.problems[0].code for event in events if isinstance(event, Asked)]
    assert codes == ["chat.no_labels", "chat.empty"]


def test_that_a_classifier_is_exported_with_its_labels(classifier: RunFolder, tmp_path: Path) -> None:
    to = tmp_path / "out"
    events = do(Export(run=str(classifier.path), to=str(to)))
    assert isinstance(events[-2], Exported), events[-1]
    assert all(event.passed for event in events if isinstance(event, Checked))
    assert (to / "labels.json").read_bytes() == (classifier.adapter / "labels.json").read_bytes()
    card = (to / "README.md").read_text()
    assert "text-classification" in card
    code = card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(to))
    scope: dict[str, Any] = {}
    exec(code, scope)  # what the card tells people to do
    assert scope["model"].config.id2label == {0: "down", 1: "flat", 2: "up"}


def test_that_an_unfinished_classifier_can_be_tried(tmp_path: Path, sentences: Path) -> None:
    run = create_run(make_spec(tiny_encoder(tmp_path / "model"), sentences, save_steps=4), tmp_path / "run")
    channel = Recorder(lambda channel, event: channel.ask_stop() if isinstance(event, CheckpointSaved) else None)
    run_job(Train(run=str(run.path)), channel)
    shutil.rmtree(run.adapter)
    events = do(Chat(run=str(run.path)), [ask(1, "the shares rose"), Close()])
    assert [event.labels[0].name for event in events if isinstance(event, ChatAnswer)]
