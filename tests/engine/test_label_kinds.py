"""One label, several or a number, by encoders and decoders: what is learned, where a decoder is read, what is saved."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    ElectraConfig,
    PreTrainedTokenizerFast,
)

from tests.engine.models import tiny_encoder, wordpiece
from tests.engine.test_methods import VARIANTS, by_name, configs, refused, save, train
from tunedesk.core.describe import ModelInfo, ProblemType
from tunedesk.core.plan import Resolved
from tunedesk.core.spec import RunSpec
from tunedesk.engine import loading
from tunedesk.engine.batches import label_batches
from tunedesk.engine.fast.model import FastModel
from tunedesk.engine.label_head import LabelHead, number_head, read_head
from tunedesk.engine.label_rows import LabelRow
from tunedesk.engine.learner import Learner, evaluate
from tunedesk.engine.methods import attach_saved
from tunedesk.engine.pooling import pooled_scores
from tunedesk.engine.render import TokenRow
from tunedesk.engine.sources import resolve
from tunedesk.engine.train import _load

CPU = torch.device("cpu")
KINDS: tuple[ProblemType, ...] = ("single_label", "multi_label", "regression")
FAMILIES = ("bert", "distilbert", "gpt2", "llama", "qwen2", "gemma", "mistral")
RATES = {"prompt": 2e-2, "full": 3e-3}
PAD = 0


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Callable[[str], ModelInfo]:
    """Family to a tiny random model of it; the decoders' files name no padding token."""
    home = tmp_path_factory.mktemp("zoo")

    @cache
    def model(family: str) -> ModelInfo:
        folder = home / family
        if family in ("bert", "distilbert"):
            tiny_encoder(folder, family)
        else:
            torch.manual_seed(1)
            config = configs()[family]
            config.pad_token_id = None
            made = AutoModelForCausalLM.from_config(config)
            with torch.no_grad():
                for parameter in made.parameters():
                    if parameter.dim() > 1:
                        parameter.normal_(0, 0.15)
            made.save_pretrained(folder)
            PreTrainedTokenizerFast.from_pretrained(tokenizer_folder).save_pretrained(folder)
        return resolve(str(folder), None, None)

    return model


def head_of(kind: ProblemType) -> LabelHead:
    return number_head([row.value for row in rows()]) if kind == "regression" else LabelHead(kind, ("a", "b", "c"))


def rows() -> list[LabelRow]:
    """Twelve texts of several lengths whose labels one token decides; half of them end in the token that pads."""
    found = []
    for n in range(12):
        ids = [2, *[40 + (7 * n + k) % 60 for k in range(n % 5)], 30 + n % 3, PAD if n % 2 else 3]
        several = array("i", [[0], [0, 2], []][n % 3])
        found.append(LabelRow(n, array("i", ids), b"\1", n % 3, bytes(len(ids)), 1, several, 1000.0 + 250 * (n % 3)))
    return found


def learner_for(info: ModelInfo, variant: str, kind: ProblemType, rate: float = 1e-2, **training: object) -> Learner:
    section = VARIANTS[variant]
    tree = {"task": {"kind": "classification"}, "method": section, "training": {"seed": 3, **training}}
    spec = RunSpec.model_validate(tree)
    resolved = Resolved(
        learning_rate=rate, alpha=2.0 * spec.method.rank, micro_batch_size=4, gradient_accumulation_steps=1,
        max_length=48, gradient_checkpointing=False, precision="fp32", device="cpu", total_steps=12,
        steps_per_epoch=12, eval_steps=12, save_steps=12,
    )  # fmt: skip
    return _load(spec, info, resolved, CPU, PAD, head_of(kind), ())


@torch.no_grad()
def alone(model: Any, row: TokenRow) -> Tensor:
    """What transformers gives for one text by itself, by its own pooling."""
    out: Tensor = model(input_ids=torch.tensor([list(row.ids)])).logits[0]
    return out


@torch.no_grad()
def together(model: Any) -> dict[int, Tensor]:
    """What the engine makes of all texts in padded batches, by row."""
    found = {}
    ordered = sorted(rows(), key=lambda row: len(row.ids))
    for start in range(0, len(ordered), 6):
        part = ordered[start : start + 6]
        (batch,) = label_batches(part, 6, PAD)
        scores = pooled_scores(model, batch.inputs())
        found |= {row.number: scores[place] for place, row in enumerate(part)}
    return found


def without_padding_token(model: Any) -> Any:
    """`model` as transformers pools it when no token pads: at the last token of each text."""
    model.config.get_text_config().pad_token_id = None
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["lora", "houlsby", "prompt", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_that_every_kind_of_label_is_learned_and_is_the_same_after_loading(
    zoo: Callable[[str], ModelInfo], tmp_path: Path, family: str, variant: str, kind: ProblemType
) -> None:
    info, rate = zoo(family), RATES.get(variant, 1e-2)
    learner = learner_for(info, variant, kind, rate, engine="reference")
    before = by_name(learner.model)
    losses = train(learner, list(rows()), rate, range(1, 13))
    assert sum(losses[-3:]) / 3 < 0.9 * losses[0], losses
    learning = {name for name, item in learner.model.named_parameters() if item.requires_grad}
    after = by_name(learner.model)
    assert not [name for name in after if torch.equal(after[name], before[name]) == (name in learning)]

    save(learner, tmp_path)
    assert read_head(tmp_path) == head_of(kind)
    ours = together(learner.model.eval())
    fresh = loading.load_base(info, "fp32", CPU, head=read_head(tmp_path))
    again = together(attach_saved(fresh, tmp_path))
    assert all(torch.equal(again[number], scores) for number, scores in ours.items())

    if variant in ("lora", "prompt"):  # what others see who know peft and transformers alone
        plain = AutoModelForSequenceClassification.from_pretrained(info.path, num_labels=head_of(kind).outputs)
        tuned = without_padding_token(PeftModel.from_pretrained(plain, tmp_path))
        for row in rows():
            torch.testing.assert_close(ours[row.number], alone(tuned, row), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in ("qlora", "prompt_text")])
def test_that_padding_changes_nothing_whatever_token_pads(
    zoo: Callable[[str], ModelInfo], family: str, variant: str
) -> None:
    if refused(family, variant):
        pytest.skip("this model has nothing that the method trains")
    learner = learner_for(zoo(family), variant, "single_label", 2e-2, engine="reference")
    train(learner, list(rows()), 2e-2, range(1, 3))
    model = without_padding_token(learner.model)
    expected = {row.number: alone(model, row) for row in rows()}
    model.config.get_text_config().pad_token_id = PAD  # which is what every second text ends in
    found = together(model)
    for number, scores in found.items():
        torch.testing.assert_close(scores, expected[number], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma", "mistral", "distilbert"])
def test_that_the_fast_path_takes_the_steps_of_plain_peft(zoo: Callable[[str], ModelInfo], family: str) -> None:
    curves = []
    for engine in ("fast", "reference"):
        learner = learner_for(zoo(family), "lora", "multi_label", engine=engine)
        fast = getattr(learner.objective, "fast", None)
        assert isinstance(fast, FastModel) == (engine == "fast" and family != "distilbert")
        curves.append(train(learner, list(rows()), 1e-2, range(1, 7)))
    assert curves[0] == pytest.approx(curves[1], abs=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_that_the_loss_and_measures_of_a_check_are_those_of_transformers(
    zoo: Callable[[str], ModelInfo], kind: ProblemType
) -> None:
    learner, head = learner_for(zoo("llama"), "lora", kind, engine="reference"), head_of(kind)
    check = evaluate(learner, learner.objective.batches(list(rows())))
    model = without_padding_token(learner.model)
    losses = []
    for row in rows():
        scores = alone(model, row)
        if kind == "single_label":
            losses.append(cross_entropy(scores, torch.tensor(row.label)))
        elif kind == "multi_label":
            right = torch.tensor([float(place in row.several) for place in range(3)])
            losses.append(binary_cross_entropy_with_logits(scores, right))
        else:
            losses.append((scores[0] - (row.value - head.mean) / head.std) ** 2)
    assert check.loss == pytest.approx(float(sum(losses) / len(losses)), rel=1e-4)
    if kind == "regression":
        errors = torch.tensor([float(alone(model, row)[0]) * head.std + head.mean - row.value for row in rows()])
        assert check.measures.values["rmse"] == pytest.approx(float(errors.square().mean().sqrt()), rel=1e-4)
        assert check.measures.values["mae"] == pytest.approx(float(errors.abs().mean()), rel=1e-4)


def test_that_the_head_of_a_packed_decoder_is_whole_and_learns(zoo: Callable[[str], ModelInfo]) -> None:
    learner = learner_for(zoo("llama"), "qlora", "single_label")
    base = learner.model.get_base_model()
    assert type(base.model.layers[0].self_attn.q_proj.base_layer).__name__ == "Linear4bit"
    assert type(base.score.modules_to_save["default"]) is torch.nn.Linear
    losses = train(learner, list(rows()), 1e-2, range(1, 13))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("variant", ["prompt", "p_mlp", "p_lstm"])
@pytest.mark.parametrize("family", ["albert", "electra"])
def test_that_virtual_tokens_are_as_wide_as_embeddings(tmp_path: Path, family: str, variant: str) -> None:
    shape = {"vocab_size": 500, "embedding_size": 16, "hidden_size": 32, "intermediate_size": 64,
             "num_hidden_layers": 2, "num_attention_heads": 4}  # fmt: skip
    config = AlbertConfig(**shape) if family == "albert" else ElectraConfig(**shape)
    AutoModel.from_config(config).save_pretrained(tmp_path / "model")
    wordpiece().save_pretrained(tmp_path / "model")
    info = resolve(str(tmp_path / "model"), None, None)
    learner = learner_for(info, variant, "single_label")
    train(learner, list(rows()), 1e-2, range(1, 3))
    (tmp_path / "adapter").mkdir()
    save(learner, tmp_path / "adapter")
    prompt = load_file(tmp_path / "adapter" / "adapter_model.safetensors")["prompt_embeddings"]
    assert prompt.shape == (6, 16)
    again = attach_saved(loading.load_base(info, "fp32", CPU, head=head_of("single_label")), tmp_path / "adapter")
    for number, scores in together(learner.model.eval()).items():
        torch.testing.assert_close(together(again)[number], scores, rtol=1e-4, atol=1e-5)


def test_that_maps_of_older_adapters_mean_one_label(tmp_path: Path) -> None:
    maps = {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    (tmp_path / "labels.json").write_text(json.dumps(maps))
    assert read_head(tmp_path) == LabelHead("single_label", ("no", "yes"))
    assert read_head(tmp_path / "elsewhere") is None
