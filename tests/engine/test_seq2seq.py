"""One text from another, with T5 and its kin: what is read, what is learned and said, and that others can load it."""

from __future__ import annotations

import json
import shutil
from array import array
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from rouge_score.rouge_scorer import RougeScorer
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig, T5Config, T5ForConditionalGeneration

from tests.engine.conftest import Recorder
from tests.engine.jobs import do
from tests.engine.models import pieces, tiny_seq2seq
from tests.engine.test_methods import step_once
from tunedesk.core.counts import trainable_parameters
from tunedesk.core.describe import ModelInfo
from tunedesk.core.events import (
    Ask,
    Asked,
    Chat,
    ChatAnswer,
    ChatDelta,
    ChatReady,
    Checked,
    CheckpointSaved,
    Close,
    DataDescribed,
    Evaluated,
    Event,
    Export,
    Exported,
    Finished,
    ForgettingChecked,
    InspectData,
    MakePlan,
    Message,
    ModelDescribed,
    PlanMade,
    Sampling,
    Side,
    StepDone,
    Train,
)
from tunedesk.core.plan import Resolved
from tunedesk.core.problems import ProblemError
from tunedesk.core.runs import RunFolder, create_run
from tunedesk.core.spec import RunSpec
from tunedesk.core.two_stacks import activations
from tunedesk.engine import checkpoints, loading
from tunedesk.engine.__main__ import run_job
from tunedesk.engine.generate import TextStream
from tunedesk.engine.learner import Learner, evaluate
from tunedesk.engine.methods import loader
from tunedesk.engine.objectives.seq2seq import AnswerTally, Seq2Seq
from tunedesk.engine.rouge import longest_common, rouge_l, same_words, words
from tunedesk.engine.rows import Row, read_dataset
from tunedesk.engine.seq2seq_rows import Seq2SeqRenderer, Seq2SeqRow
from tunedesk.engine.sources import resolve
from tunedesk.engine.token_cache import cached
from tunedesk.engine.train import _load

CPU, HERE = torch.device("cpu"), Path("rows.jsonl")
SAID = ("my order is late", "where is it", "send it back", "a box came today", "by Thursday", "we are open")
VARIANTS: dict[str, tuple[dict[str, Any], float]] = {
    "lora": ({"name": "lora", "rank": 4}, 1e-2),
    "dora": ({"name": "lora", "rank": 4, "dora": True}, 1e-2),
    "pissa": ({"name": "lora", "rank": 4, "init": "pissa"}, 1e-2),
    "lora_attention": ({"name": "lora", "rank": 4, "target_modules": "attention"}, 1e-2),
    "qlora": ({"name": "qlora", "rank": 4}, 1e-2),
    "adalora": ({"name": "adalora", "rank": 4}, 2e-2),
    "ia3": ({"name": "ia3"}, 3e-2),
    "prefix": ({"name": "prefix_tuning", "virtual_tokens": 6}, 1e-1),
    "prefix_projected": ({"name": "prefix_tuning", "virtual_tokens": 6, "prefix_projection": True}, 1e-2),
    "prompt": ({"name": "prompt_tuning", "virtual_tokens": 6}, 1e-1),
    "p_mlp": ({"name": "p_tuning", "virtual_tokens": 6}, 1e-2),
    "p_lstm": ({"name": "p_tuning", "virtual_tokens": 6, "encoder": "lstm", "encoder_hidden_size": 16}, 3e-2),
    "houlsby": ({"name": "houlsby", "bottleneck": 8}, 1e-2),
    "compacter": ({"name": "compacter", "bottleneck": 8}, 2e-2),
    "bitfit": ({"name": "bitfit"}, 2e-2),
    "last_layer": ({"name": "last_layer"}, 1e-2),
    "full": ({"name": "full"}, 3e-3),
}
CELLS = [
    *(("t5", variant) for variant in VARIANTS if variant != "bitfit"),
    *(("bart", variant) for variant in ("lora", "ia3", "prefix", "prompt", "houlsby", "bitfit", "last_layer", "full")),
    *((family, variant) for family in ("mt5", "umt5") for variant in ("lora", "ia3", "prefix", "houlsby")),
    ("flan", "last_layer"),
]


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelInfo]:
    """Family to a tiny random model of it."""
    home = tmp_path_factory.mktemp("zoo")
    return cache(lambda family: resolve(str(tiny_seq2seq(home / family, family)), None, None))


def sentences() -> list[Row]:
    """Sources of several lengths whose words come in the other order."""
    texts = [
        (("turn it around " * (n % 3 + 1)) + text, " ".join(reversed(text.split()))) for n, text in enumerate(SAID)
    ]
    return [Row(n, prompt=source, text=target) for n, (source, target) in enumerate(texts, start=1)]


def in_tokens(rows: list[Row] | None = None) -> list[Any]:
    return Seq2SeqRenderer(pieces(), "m").render(rows or sentences(), HERE)


def learner_for(
    info: ModelInfo, section: dict[str, Any], rate: float = 1e-2, micro: int = 3, precision: str = "fp32"
) -> Learner:
    training = {"learning_rate": rate, "seed": 3}
    spec = RunSpec.model_validate({"task": {"kind": "seq2seq"}, "method": section, "training": training})
    resolved = Resolved(
        learning_rate=rate, alpha=8.0, micro_batch_size=micro, gradient_accumulation_steps=1, max_length=64,
        gradient_checkpointing=False, precision=precision, device="cpu", total_steps=8, steps_per_epoch=8, eval_steps=8,
        save_steps=8,
    )  # fmt: skip
    return _load(spec, info, resolved, CPU, 0, None, [])


def train(learner: Learner, rate: float, steps: int = 8) -> list[float]:
    return [step_once(learner, in_tokens(), step, rate) for step in range(1, steps + 1)]


def greedy(start: int, count: int = 8) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=count, min_new_tokens=count, do_sample=False, decoder_start_token_id=start, eos_token_id=1,
        pad_token_id=0,
    )  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


# What is read.


@pytest.mark.parametrize(
    ("row", "source", "target"),
    [
        ({"prompt": "A b.", "completion": "B a."}, "A b.", "B a."),
        ({"source": "A b.", "target": "B a."}, "A b.", "B a."),
        ({"document": "A b.", "summary": "B."}, "A b.", "B."),
        ({"dialogue": "A: b.", "summary": "B."}, "A: b.", "B."),
        ({"instruction": "Turn.", "input": "A b.", "output": "B a."}, "Turn.\n\nA b.", "B a."),
        ({"system": "Be kind.", "prompt": "A b.", "completion": "B a."}, "Be kind.\nA b.", "B a."),
        ({"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"},
                       {"role": "user", "content": "C"}, {"role": "assistant", "content": "D"},
                       {"role": "user", "content": "E"}]}, "A\nB\nC", "D"),
    ],
)  # fmt: skip
def test_that_two_texts_are_recognised(tmp_path: Path, row: dict[str, Any], source: str, target: str) -> None:
    data = read_dataset(write(tmp_path / "rows.jsonl", [row]), task="seq2seq")
    assert data.task == "seq2seq"
    assert [(item.prompt, item.text) for item in data.rows] == [(source, target)]


@pytest.mark.parametrize(
    ("row", "code", "words_in_it"),
    [
        ({"text": "A b."}, "data.columns", "'prompt' and 'completion'"),
        ({"text": "A b.", "label": "x"}, "data.columns", "columns = { prompt"),
        ({"messages": [{"role": "assistant", "content": "B"}]}, "data.no_source", "their only answer"),
        ({"prompt": "A", "completion": " "}, "data.empty_text", "empty"),
    ],
)
def test_that_rows_without_two_texts_are_refused(
    tmp_path: Path, row: dict[str, Any], code: str, words_in_it: str
) -> None:
    with pytest.raises(ProblemError) as caught:
        read_dataset(write(tmp_path / "rows.jsonl", [row, row]), task="seq2seq")
    assert [problem.code for problem in caught.value.problems] == [code]
    assert words_in_it in str(caught.value.problems[0])


@pytest.mark.parametrize("family", ["t5", "flan", "mt5", "umt5", "bart"])
def test_that_a_description_is_true_to_the_loaded_model(zoo: Callable[[str], ModelInfo], family: str) -> None:
    info = zoo(family)
    model = AutoModelForSeq2SeqLM.from_pretrained(info.path)
    assert info.parameters == sum(item.numel() for item in model.parameters())
    assert info.tied_embeddings == (model.get_output_embeddings().weight is model.get_input_embeddings().weight)
    assert info.tasks == ("seq2seq",)
    biases = [item.numel() for name, item in model.named_parameters() if name.endswith("bias") and item.dim() == 1]
    assert info.biases == sum(biases)


def test_that_what_old_files_hold_twice_is_counted_once(zoo: Callable[[str], ModelInfo], tmp_path: Path) -> None:
    shutil.copytree(str(zoo("t5").path), tmp_path / "old")
    weights = load_file(tmp_path / "old" / "model.safetensors")
    for stack in ("encoder", "decoder"):
        weights[f"{stack}.embed_tokens.weight"] = weights["shared.weight"].clone()
    weights["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.zeros(32, 4)
    save_file(weights, tmp_path / "old" / "model.safetensors", {"format": "pt"})
    assert resolve(str(tmp_path / "old"), None, None).parameters == zoo("t5").parameters


# What the model sees.


def test_that_source_and_target_stand_in_the_tokenizers_own_frame() -> None:
    tokenizer, rows = pieces(), sentences()
    for row, tokens in zip(rows, in_tokens(), strict=True):
        assert list(tokens.source_ids) == tokenizer(row.prompt)["input_ids"]
        assert list(tokens.target_ids) == tokenizer(text_target=row.text)["input_ids"]
        assert tokens.target_ids[-1] == tokenizer.eos_token_id
        assert tokens.trained_count == len(tokens.target_ids)


def test_that_each_side_is_cut_apart() -> None:
    (row,) = in_tokens([Row(1, prompt="where is my order " * 9, text="it is on its way to you " * 9)])
    cut = row.cut(10)
    assert list(cut.source_ids) == [*row.source_ids[:9], 1]
    assert list(cut.target_ids) == list(row.target_ids[:10])
    assert cut.trained == bytes(10) + b"\1" * 10
    assert row.cut(len(row.ids)) is row
    short = in_tokens([Row(1, prompt="where is my order " * 9, text="here")])[0].cut(10)
    assert (short.source, short.target_ids[-1]) == (10, 1)


def test_that_the_shown_row_is_both_texts() -> None:
    row = Row(3, prompt="Where  is my\norder?", text="It is on its way.")
    shown = Seq2SeqRenderer(pieces(), "m").show(row, 64)
    source, target = shown.turns
    assert (source.role, target.role) == ("source", "target")
    assert "".join(span.text for span in source.spans) == f"{row.prompt}</s>"
    assert "".join(span.text for span in target.spans) == f"{row.text}</s>"
    assert {span.kind for span in target.spans} == {"trained"}
    assert [span.kind for span in source.spans][-1] == "template"
    cut = Seq2SeqRenderer(pieces(), "m").show(row, 4)
    assert [sum(span.kind != "cut" for span in turn.spans) for turn in cut.turns] == [4, 4]
    assert cut.trained_tokens == 4


def test_that_tokens_are_kept_on_disk() -> None:
    rows = in_tokens()
    cached("ab12", lambda: rows)
    again = cached("ab12", lambda: pytest.fail("made again"))
    assert again == rows
    assert isinstance(again[0], Seq2SeqRow)


# How near an answer comes.


def test_that_rouge_is_that_of_the_well_known_package_on_english_text() -> None:
    scorer = RougeScorer(["rougeL"])
    texts = [
        "The parcel left our house on Monday, and it's free of charge.",
        "On Monday the parcel left; it is free.",
        "Don't send 3.14 parcels (or 2,000) back!",
        "police killed the gunman",
        "police kill the gunman",
        "the gunman kill police",
        "",
    ]
    for right in texts[:-1]:
        for written in texts:
            assert rouge_l(written, right) == pytest.approx(scorer.score(right, written)["rougeL"].fmeasure)


@pytest.mark.parametrize(
    ("written", "right", "score"),
    [
        ("police kill the gunman", "police killed the gunman", 3 / 4),  # Lin 2004, section 3.1
        ("the gunman kill police", "police killed the gunman", 2 / 4),
        ("посылка уже в пути", "посылка в пути", 2 * 3 / 7),
        ("荷物は家", "荷物は駅", 3 / 4),  # no spaces: each character is a word
        ("पार्सल रास्ते में है", "पार्सल रास्ते में है", 1.0),
        ("Grüße aus KÖLN", "grüße aus köln!", 1.0),
        ("👍", "👍", 1.0),  # no words at all
        ("", "👍", 0.0),
    ],
)
def test_that_every_script_has_words(written: str, right: str, score: float) -> None:
    assert rouge_l(written, right) == pytest.approx(score)


def test_that_marks_stay_with_their_letters_and_spaces_make_no_difference() -> None:
    assert words("पार्सल, कैफ़े e\u0301té 東京Tower") == ["पार्सल", "कैफ़े".lower(), "été", "東", "京", "tower"]
    assert longest_common("abcde", "axcye") == 3
    assert same_words("a  b\n", "a b")
    assert not same_words("a b", "a B")


# What is learned.


@pytest.mark.parametrize("family", ["t5", "flan", "bart"])
def test_that_the_loss_and_its_gradient_are_those_of_plain_transformers(
    zoo: Callable[[str], ModelInfo], family: str
) -> None:
    info, rows = zoo(family), in_tokens()
    learner = learner_for(info, {"name": "full"})
    batches = learner.objective.batches(rows)
    assert any((batch.attention_mask == 0).any() for batch in batches)
    mine = sum(learner.objective.loss(batch) for batch in batches)
    mine.backward()  # type: ignore[union-attr]
    plain = AutoModelForSeq2SeqLM.from_pretrained(info.path)
    total = torch.zeros(())
    for row in rows:  # one by one, no padding
        ids, labels = (torch.tensor([list(part)]) for part in (row.source_ids, row.target_ids))
        total = total + plain(input_ids=ids, labels=labels).loss * len(row.target_ids)
    total.backward()
    assert float(mine) == pytest.approx(float(total), rel=1e-5)
    wide = max(len(row.source_ids) for row in rows), max(len(row.target_ids) for row in rows)
    padded = plain(
        input_ids=torch.tensor([[*row.source_ids, *[0] * (wide[0] - row.source)] for row in rows]),
        attention_mask=torch.tensor([[1] * row.source + [0] * (wide[0] - row.source) for row in rows]),
        labels=torch.tensor([[*row.target_ids, *[-100] * (wide[1] - len(row.target_ids))] for row in rows]),
    ).loss * sum(row.trained_count for row in rows)
    assert float(mine) == pytest.approx(float(padded), rel=1e-5)
    theirs = {f"base_model.{name}": item.grad for name, item in plain.named_parameters()}
    for name, parameter in learner.model.named_parameters():
        if theirs[name] is not None:
            spread = float(theirs[name].abs().max())
            torch.testing.assert_close(parameter.grad, theirs[name], rtol=1e-3, atol=1e-5 * (1 + spread))


def reloaded(info: ModelInfo, variant: str, folder: Path) -> Any:
    """What somebody without TuneDesk makes of the folder: by plain peft, or by the documented function."""
    section = VARIANTS[variant][0]
    if section["name"] == "qlora":
        base: Any = loading.load_base(info, "fp32", CPU, quantised=True)
    else:
        base = AutoModelForSeq2SeqLM.from_pretrained(info.path)
    function = loader(section["name"])
    if function is None:
        return PeftModel.from_pretrained(base, str(folder)).eval()
    scope: dict[str, Any] = {}
    exec(function[0], scope)
    return scope[function[1]](base, str(folder)).eval()


@pytest.mark.parametrize(("family", "variant"), CELLS)
def test_that_a_method_learns_counts_as_told_and_is_the_same_elsewhere(
    zoo: Callable[[str], ModelInfo], tmp_path: Path, family: str, variant: str
) -> None:
    info, (section, rate) = zoo(family), VARIANTS[variant]
    learner = learner_for(info, section, rate)
    method = RunSpec.model_validate({"method": section}).method
    assert sum(item.numel() for item in learner.parameters) == trainable_parameters(method.name, method, info)
    before = {name: item.detach().clone() for name, item in learner.model.named_parameters()}
    losses = train(learner, rate, steps=15 if variant == "p_lstm" else 8)
    assert losses[-1] < 0.97 * losses[0], losses
    for name, item in learner.model.named_parameters():
        changed = not torch.equal(item, before[name])
        assert changed == item.requires_grad or "lora_E" in name, name

    for name, data in checkpoints.adapter_files(learner.tuned).items():
        (tmp_path / name).write_bytes(data)
    task = json.loads((tmp_path / "adapter_config.json").read_text())["task_type"]
    assert task == "SEQ_2_SEQ_LM"
    other, mine = reloaded(info, variant, tmp_path), learner.model.eval()
    row = in_tokens()[2]
    ids = torch.tensor([list(row.source_ids)])
    inputs, start = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, mine.config.decoder_start_token_id
    said = [model.generate(**inputs, generation_config=greedy(start)) for model in (mine, other)]
    assert torch.equal(said[0], said[1])
    decoded = torch.full_like(ids[:, :1], start)
    with torch.no_grad():
        for _ in range(8):  # token by token, without a cache
            following = other(**inputs, decoder_input_ids=decoded).logits[:, -1]
            following[:, 1] = -torch.inf
            decoded = torch.cat([decoded, following.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(said[1], decoded)


def test_that_bitfit_and_what_is_untried_are_refused_in_advance(
    zoo: Callable[[str], ModelInfo], tmp_path: Path
) -> None:
    with pytest.raises(ProblemError) as caught:
        loading.check_task(zoo("t5"), "seq2seq", "bitfit")
    assert caught.value.problems[0].code == "method.no_biases"
    for strange in ({"family": "Whisper"}, {"layers": 1}):
        with pytest.raises(ProblemError) as caught:
            loading.check_task(zoo("t5").model_copy(update=strange), "seq2seq", "lora")
        assert caught.value.problems[0].code == "model.untried"
    with pytest.raises(ProblemError) as caught:
        loading.check_task(zoo("t5"), "chat", "lora")
    assert "turn one text into another" in caught.value.problems[0].found


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_that_each_layer_of_the_decoder_has_a_prefix_of_its_own(zoo: Callable[[str], ModelInfo], family: str) -> None:
    learner = learner_for(zoo(family), VARIANTS["prefix"][0])
    (prefix,) = learner.parameters
    torch.nn.init.normal_(prefix)
    learner.objective.loss(learner.objective.batches(in_tokens())[0]).backward()
    assert prefix.grad is not None
    config = learner.model.active_peft_config
    layers = prefix.grad.unflatten(-1, (config.num_layers, -1)).abs().sum((0, 2))
    assert int((layers > 0).sum()) == 2  # its decoder's, of three that peft wants
    handed = learner.model.get_prompt(1).self_attention_cache.layers
    assert not torch.equal(handed[0].keys, handed[1].keys)


def naive_t5(base: Any, weights: dict[str, Tensor], source: Tensor, read: Tensor) -> Tensor:
    """A T5 written out, with an adapter after each block's own attention and feed-forward, before the addition."""
    p, c = dict(base.named_parameters()), base.config
    number = 0

    def norm(name: str, x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + c.layer_norm_epsilon).rsqrt() * p[f"{name}.weight"]

    def adapted(x: Tensor) -> Tensor:
        nonlocal number
        mine = {
            part: weights[f"adapters.{number}.{part}"] for part in ("down.weight", "down.bias", "up.weight", "up.bias")
        }
        number += 1
        inner = x @ mine["down.weight"].T + mine["down.bias"]
        inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        return x + inner @ mine["up.weight"].T + mine["up.bias"]

    def attention(name: str, x: Tensor, y: Tensor, bias: Tensor | float) -> Tensor:
        q, k, v = (
            (item @ p[f"{name}.{part}.weight"].T).unflatten(-1, (c.num_heads, -1)).transpose(1, 2)
            for part, item in (("q", x), ("k", y), ("v", y))
        )
        seen = ((q @ k.transpose(-1, -2) + bias).softmax(-1) @ v).transpose(1, 2).flatten(2)
        return seen @ p[f"{name}.o.weight"].T

    def stack(name: str, ids: Tensor, layers: int, memory: Tensor | None) -> Tensor:
        x, size = base.shared(ids), ids.shape[1]
        bias = getattr(base, name).block[0].layer[0].SelfAttention.compute_bias(size, size)
        if memory is not None:
            bias = bias + torch.full((size, size), -torch.inf).triu(1)
        for layer in range(layers):
            block, last = f"{name}.block.{layer}.layer", 1 if memory is None else 2
            y = norm(f"{block}.0.layer_norm", x)
            x = x + adapted(attention(f"{block}.0.SelfAttention", y, y, bias))
            if memory is not None:
                x = x + attention(f"{block}.1.EncDecAttention", norm(f"{block}.1.layer_norm", x), memory, 0.0)
            inner = (norm(f"{block}.{last}.layer_norm", x) @ p[f"{block}.{last}.DenseReluDense.wi.weight"].T).relu()
            x = x + adapted(inner @ p[f"{block}.{last}.DenseReluDense.wo.weight"].T)
        return norm(f"{name}.final_layer_norm", x)

    memory = stack("encoder", source, c.num_layers, None)
    out = stack("decoder", read, c.num_decoder_layers, memory) * c.d_model**-0.5
    return out @ base.shared.weight.T


def test_that_adapters_in_a_t5_equal_the_equations(zoo: Callable[[str], ModelInfo]) -> None:
    learner = learner_for(zoo("t5"), VARIANTS["houlsby"][0])
    train(learner, 1e-2, steps=3)
    ids, read = torch.tensor([[5, 9, 30, 41, 1]]), torch.tensor([[0, 7, 12]])
    model = learner.model.eval()
    with torch.no_grad():
        mine = model(input_ids=ids, decoder_input_ids=read).logits
        naive = naive_t5(AutoModelForSeq2SeqLM.from_pretrained(zoo("t5").path), dict(model.state()), ids, read)
    torch.testing.assert_close(mine, naive, rtol=1e-4, atol=1e-4)


# What a check tells.


@pytest.mark.parametrize("variant", ["lora", "prefix", "prompt", "houlsby"])
@pytest.mark.parametrize("touched", [True, False])
def test_that_a_check_asks_for_the_targets_as_plain_generation_gives_them(
    zoo: Callable[[str], ModelInfo], variant: str, touched: bool
) -> None:
    info, (section, rate) = zoo("flan"), VARIANTS[variant]
    learner = learner_for(info, section, rate)
    if touched:
        train(learner, rate, steps=5)
    tally, objective = AnswerTally(), learner.objective
    plain = learner.model.eval() if touched else AutoModelForSeq2SeqLM.from_pretrained(info.path).eval()
    tokenizer = pieces()
    if touched:
        check = evaluate(learner, objective.batches(in_tokens()))
        with torch.no_grad():
            [objective.loss(batch, tally) for batch in objective.batches(in_tokens())]
    else:
        with learner.tuned.untouched(), torch.no_grad():
            check = evaluate(learner, objective.batches(in_tokens()))
            [objective.loss(batch, tally) for batch in objective.batches(in_tokens())]
    right = [row.text for row in sentences()]
    assert sorted(tally.right) == sorted(right)
    sources = {row.text: row.prompt for row in sentences()}
    for written, target in zip(tally.written, tally.right, strict=True):
        inputs = tokenizer(sources[target], return_tensors="pt")
        said = plain.generate(**inputs, max_new_tokens=64, do_sample=False)
        assert written == tokenizer.decode(said[0], skip_special_tokens=True)
    assert check.measures.values == {
        "exact_match": sum(map(same_words, tally.written, tally.right)) / len(right),
        "rouge_l": pytest.approx(sum(map(rouge_l, tally.written, tally.right)) / len(right)),
    }


def test_that_a_check_asks_few_rows_the_same_each_time_and_from_short_to_long(
    zoo: Callable[[str], ModelInfo],
) -> None:
    objective = learner_for(zoo("t5"), VARIANTS["lora"][0], micro=8).objective
    assert isinstance(objective, Seq2Seq)
    rows = [
        Seq2SeqRow(n, array("i", [5] * (1 + n % 90) + [1, 6, 1]), bytes(2 + n % 90) + b"\1\1", 2 + n % 90, 1)
        for n in range(300)
    ]
    first, again = (
        [(int(batch.attention_mask[place].sum())) for batch in objective.batches(rows) for place in batch.asked]
        for _ in range(2)
    )
    assert first == again == sorted(first)
    assert 32 < len(first) <= 64
    assert first[-1] - first[0] > 80
    assert [batch.asked for batch in objective.batches(rows[:3])] == [(0, 1, 2)]


# Whole runs.


def spec_for(model: str, data: Path, method: dict[str, Any] | None = None, **training: Any) -> RunSpec:
    values = {"max_steps": 12, "micro_batch_size": 8, "gradient_accumulation_steps": 1, "learning_rate": 1e-2,
              "precision": "fp32", "device": "cpu", "eval_steps": 12, **training}  # fmt: skip
    tree = {
        "model": {"source": model},
        "task": {"kind": "seq2seq"},
        "data": {"train": str(data), "validation_fraction": 0.2},
        "method": {"rank": 4, **(method or {})},
        "training": values,
    }
    return RunSpec.model_validate_json(json.dumps(tree))


def go(spec: RunSpec, out: Path, channel: Recorder | None = None) -> tuple[RunFolder, Recorder]:
    run, channel = create_run(spec, out), channel or Recorder()
    run_job(Train(run=str(run.path)), channel)
    return run, channel


def outcome(channel: Recorder) -> str:
    end: Finished = channel.events[-1]  # type: ignore[assignment]
    return end.outcome


def write_pairs(path: Path) -> Path:
    """Forty sources and targets, where the one says the other."""
    write(path, [{"source": f"turn around {n} {SAID[n % 6]}", "target": f"{SAID[n % 6]} {n % 4}"} for n in range(40)])
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs.jsonl")


@pytest.fixture(scope="session")
def tuned(zoo: Callable[[str], ModelInfo], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunFolder]:
    """Method to a finished run with it."""
    home = tmp_path_factory.mktemp("runs")
    sections: dict[str, dict[str, Any]] = {"houlsby": {"bottleneck": 8}, "lora": {}, "last_layer": {}}

    @cache
    def make(name: str) -> RunFolder:
        section = sections.get(name, {"virtual_tokens": 4})
        spec = spec_for(zoo("flan").source, write_pairs(home / "pairs.jsonl"), {"name": name, **section})
        run, channel = go(spec, home / name)
        assert outcome(channel) == "completed", channel.events[-1]
        return run

    return make


def test_that_a_run_learns_tells_how_near_it_comes_and_what_was_forgotten(
    zoo: Callable[[str], ModelInfo], tmp_path: Path, pairs: Path
) -> None:
    spec = spec_for(zoo("flan").source, pairs, max_steps=24, eval_steps=12, forgetting=True)
    run, channel = go(spec, tmp_path / "run")
    assert outcome(channel) == "completed", channel.events[-1]
    assert channel.of(ModelDescribed)[0].info.tasks == ("seq2seq",)
    base, *checks = channel.of(Evaluated)
    best = min(checks, key=lambda item: item.loss)
    assert best.loss < 0.5 * base.loss
    assert set(best.metrics) == {"exact_match", "rouge_l"}
    assert best.metrics["rouge_l"] > base.metrics["rouge_l"]
    assert json.loads(run.report_file.read_text())["metrics"] == best.metrics
    forgotten = channel.of(ForgettingChecked)[0]
    assert forgotten.measure == "loss"
    assert forgotten.after != forgotten.before

    described = channel.of(DataDescribed)[0].info
    tokenizer = AutoTokenizer.from_pretrained(run.adapter)
    model = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(zoo("flan").path), run.adapter).eval()
    rows = read_dataset(str(pairs), task="seq2seq").rows
    held = [row for row in rows if row not in rows[: described.train_rows]][:1]
    assert described.eval_rows > 0
    assert held
    inputs = tokenizer(held[0].prompt, return_tensors="pt")
    assert tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0], skip_special_tokens=True)


class KilledError(BaseException):
    """Stands for a process that is gone from one moment to the next."""


def test_that_a_killed_run_ends_with_the_same_weights(tmp_path: Path, pairs: Path) -> None:
    model = tiny_seq2seq(tmp_path / "model", "flan", dropout=0.1)
    spec = spec_for(str(model), pairs, max_steps=8, save_steps=2, eval_steps=4)
    whole, one = go(spec, tmp_path / "whole")

    def kill(channel: Recorder, event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            raise KilledError

    with pytest.raises(KilledError):
        go(spec, tmp_path / "cut", Recorder(kill))
    run, again = RunFolder(tmp_path / "cut"), Recorder()
    run_job(Train(run=str(run.path), resume=True), again)
    assert outcome(again) == "completed", again.events[-1]
    assert [event.loss for event in again.of(StepDone)] == [event.loss for event in one.of(StepDone)][2:]
    assert [event.metrics for event in again.of(Evaluated)] == [event.metrics for event in one.of(Evaluated)][1:]
    name = "adapter_model.safetensors"
    assert (run.adapter / name).read_bytes() == (whole.adapter / name).read_bytes()


@pytest.mark.parametrize("method", [{"name": "qlora"}, {"name": "prefix_tuning", "virtual_tokens": 4}])
def test_that_a_run_learns_in_bf16(
    zoo: Callable[[str], ModelInfo], tmp_path: Path, pairs: Path, method: dict[str, Any]
) -> None:
    _, channel = go(spec_for(zoo("t5").source, pairs, method, precision="bf16"), tmp_path / "run")
    assert outcome(channel) == "completed", channel.events[-1]
    assert channel.of(Evaluated)[-1].loss < channel.of(Evaluated)[0].loss


@pytest.mark.parametrize(
    ("gated", "wide", "rows", "source", "target"),
    [(False, 4, 2, 96, 32), (True, 4, 2, 96, 32), (True, 2, 2, 96, 32), (False, 4, 1, 320, 64)],
)
def test_that_the_plan_knows_what_a_step_of_a_t5_keeps(
    tmp_path: Path, gated: bool, wide: int, rows: int, source: int, target: int
) -> None:
    size = {"d_model": 128, "d_kv": 32, "num_heads": 4, "d_ff": 320, "num_layers": 3, "num_decoder_layers": 3}
    shape = {"feed_forward_proj": "gated-gelu"} if gated else {}
    T5ForConditionalGeneration(T5Config(vocab_size=400, decoder_start_token_id=0, **size, **shape)).save_pretrained(
        tmp_path
    )
    pieces().save_pretrained(tmp_path)
    info = resolve(str(tmp_path), None, None)
    learner = learner_for(info, {"name": "lora", "rank": 8}, precision="bf16" if wide == 2 else "fp32")
    ids = array("i", [5] * (source + target))
    batch = learner.objective.batches(
        [Seq2SeqRow(n, ids, bytes(source) + b"\1" * target, source, 1) for n in range(rows)]
    )[0]
    own = {item.untyped_storage().data_ptr() for item in learner.model.parameters()}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    learner.model.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        learner.objective.loss(batch)
    measured = sum(item.untyped_storage().nbytes() for place, item in kept.items() if place not in own)
    told = activations(info, rows, (source, target), wide, checkpointing=False)
    assert told == pytest.approx(measured, rel=0.25)


def test_that_activations_may_be_recomputed(zoo: Callable[[str], ModelInfo], tmp_path: Path, pairs: Path) -> None:
    curves = [
        [
            event.loss
            for event in go(
                spec_for(zoo("t5").source, pairs, max_steps=4, gradient_checkpointing=again), tmp_path / str(again)
            )[1].of(StepDone)
        ]
        for again in (False, True)
    ]
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)


def test_that_a_run_is_planned_and_its_rows_are_shown(zoo: Callable[[str], ModelInfo], pairs: Path) -> None:
    spec = spec_for(zoo("flan").source, pairs, precision="auto", max_length="auto")
    channel = Recorder()
    run_job(MakePlan(run_toml=spec.to_toml()), channel)
    assert outcome(channel) == "completed", channel.events[-1]
    plan = channel.of(PlanMade)[0].plan
    assert plan.fits
    assert plan.trainable_parameters == 14_720
    shown = Recorder()
    run_job(InspectData(source=str(pairs), model=zoo("flan").source, examples=2), shown)  # it can do nothing else
    described = shown.of(DataDescribed)[0]
    assert [turn.role for turn in described.examples[0].turns] == ["source", "target"]
    assert described.info.tokens is not None
    assert described.info.tokens.cut_rows == 0
    assert 0 < described.info.tokens.trained_tokens < described.info.tokens.tokens


# What is done with it.


def ask(number: int, text: str, *sides: Side) -> Ask:
    said = (Message(role="user", content=text),)
    return Ask(id=number, conversations=dict.fromkeys(sides, said), sampling=Sampling(temperature=0, max_new_tokens=12))


@pytest.mark.parametrize("name", ["lora", "prompt_tuning", "prefix_tuning", "houlsby"])
def test_that_both_sides_say_what_plain_generation_says(
    zoo: Callable[[str], ModelInfo], tuned: Callable[[str], RunFolder], name: str
) -> None:
    run = tuned(name)
    text = "turn around 3 where is it"
    events = do(Chat(run=str(run.path)), [ask(1, text, "base", "tuned"), ask(2, " ", "tuned"), Close()])
    assert events[-1].outcome == "completed", events[-1]  # type: ignore[union-attr]
    (ready,) = [event for event in events if isinstance(event, ChatReady)]
    assert (ready.sides, ready.has_chat_template) == (("base", "tuned"), False)
    base = AutoModelForSeq2SeqLM.from_pretrained(zoo("flan").path).eval()
    tokenizer = pieces()
    inputs = tokenizer(text, return_tensors="pt")
    answers = {event.side: event for event in events if isinstance(event, ChatAnswer)}
    for side in ("base", "tuned"):
        if side == "tuned":
            scope: dict[str, Any] = {}
            function = loader(run.spec().method.name)
            if function:
                exec(function[0], scope)
                base = scope[function[1]](base, str(run.adapter))
            else:
                base = PeftModel.from_pretrained(base, run.adapter)
        said = base.eval().generate(**inputs, max_new_tokens=12, do_sample=False)[0]
        assert answers[side].text == tokenizer.decode(said, skip_special_tokens=True)
        pieces_told = [event.text for event in events if isinstance(event, ChatDelta) and event.side == side]
        assert "".join(pieces_told) == answers[side].text
    assert [event.problems[0].code for event in events if isinstance(event, Asked) and event.problems] == ["chat.empty"]


def test_that_no_space_is_lost_behind_a_token_that_says_nothing() -> None:
    tokenizer, told = pieces(), []
    ids = tokenizer("where is \u2603 my \u2603\u2603 order")["input_ids"]  # the snowmen are unknown
    assert ids.count(tokenizer.unk_token_id) >= 2
    stream = TextStream(tokenizer, told.append)
    for token in ids:
        stream.add(token)
    stream.finish()
    assert stream.text == "".join(told) == tokenizer.decode(ids, skip_special_tokens=True)


def test_that_a_model_alone_can_be_tried(zoo: Callable[[str], ModelInfo]) -> None:
    events = do(Chat(model=zoo("t5").source), [ask(1, "where is it", "base"), Close()])
    assert events[-1].outcome == "completed"  # type: ignore[union-attr]
    (answer,) = [event for event in events if isinstance(event, ChatAnswer)]
    assert len(answer.token_ids) > 0


def test_that_a_source_longer_than_the_model_reads_is_refused(zoo: Callable[[str], ModelInfo]) -> None:
    events = do(Chat(model=zoo("bart").source), [ask(1, "where is it " * 60, "base"), Close()])
    (asked,) = [event for event in events if isinstance(event, Asked)]
    assert asked.problems[0].code == "chat.too_long"


@pytest.mark.parametrize("name", ["lora", "prompt_tuning", "houlsby", "last_layer"])
def test_that_an_export_is_checked_and_its_card_works(
    tuned: Callable[[str], RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run, to = tuned(name), tmp_path / "out"
    events = do(Export(run=str(run.path), to=str(to)))
    assert isinstance(events[-2], Exported), events[-1]
    assert all(event.passed for event in events if isinstance(event, Checked))
    card = (to / "README.md").read_text()
    assert "pipeline_tag: text2text-generation" in card
    assert "ROUGE-L, held out" in card
    code = card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(to))
    capsys.readouterr()
    exec(code, {})  # what the card tells people to do
    assert capsys.readouterr().out.strip()


def test_that_an_unfinished_run_keeps_its_checkpoint(
    zoo: Callable[[str], ModelInfo], tmp_path: Path, pairs: Path
) -> None:
    channel = Recorder(lambda channel, event: channel.ask_stop() if isinstance(event, CheckpointSaved) else None)
    run, channel = go(spec_for(zoo("t5").source, pairs, save_steps=2), tmp_path / "run", channel)
    assert outcome(channel) == "stopped"
    assert load_file(run.adapter / "adapter_model.safetensors")
