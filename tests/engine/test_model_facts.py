"""The facts about a model that decide which methods work on it, against what transformers and peft do with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import IA3Config, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
)

from tests.engine.models import tiny_encoder, tiny_model
from tunedesk.core.counts import trainable_parameters
from tunedesk.core.describe import ModelInfo
from tunedesk.core.spec import MethodSection
from tunedesk.engine.model_folder import describe_folder

DECODERS = ("llama", "qwen2", "gpt2")
ENCODERS = ("bert", "distilbert", "roberta")


def described(folder: Path) -> ModelInfo:
    return describe_folder(folder, str(folder), folder.name, "folder")


def made(family: str, folder: Path) -> Path:
    return tiny_model(folder, family) if family in DECODERS else tiny_encoder(folder, family)


def changed(folder: Path, **settings: object) -> ModelInfo:
    """The description of a tiny LLaMA whose config.json says otherwise."""
    path = tiny_model(folder) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return described(folder)


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_that_biases_are_those_that_the_loaded_model_has(family: str, tmp_path: Path) -> None:
    folder = made(family, tmp_path / "model")
    model = (AutoModelForCausalLM if family in DECODERS else AutoModel).from_pretrained(str(folder))
    biases = {name: item.numel() for name, item in model.named_parameters() if name.endswith(".bias")}
    if family == "roberta":
        del biases["pooler.dense.bias"]  # not in the file: AutoModel adds one
    assert described(folder).biases == sum(biases.values())


def test_that_biases_of_pretraining_heads_do_not_count(tmp_path: Path) -> None:
    folder = tiny_encoder(tmp_path / "model", pooled=False)
    config = BertConfig.from_pretrained(str(folder))
    plain = described(folder).biases
    BertForMaskedLM(config).save_pretrained(str(folder))
    assert described(folder).biases == plain


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_that_a_prefix_works_just_where_the_description_says_so(family: str, tmp_path: Path) -> None:
    folder = made(family, tmp_path / "model")
    info = described(folder)
    decoder = family in DECODERS
    model = (AutoModelForCausalLM if decoder else AutoModelForSequenceClassification).from_pretrained(str(folder))
    heads = info.key_value_heads
    config = PrefixTuningConfig(
        task_type="CAUSAL_LM" if decoder else "SEQ_CLS",
        num_virtual_tokens=4,
        num_layers=info.layers,
        num_attention_heads=heads,
        token_dim=heads * info.hidden_size // info.attention_heads,
    )
    inputs = {"input_ids": torch.randint(5, 90, (2, 6)), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    without = model.eval()(**inputs).logits
    tuned = get_peft_model(model, config).eval()
    if info.takes_past:
        assert not torch.allclose(without, tuned(**inputs).logits, atol=1e-4)
    else:
        with pytest.raises(ValueError, match="past key values"):
            tuned(**inputs)


@pytest.mark.parametrize("family", DECODERS)
def test_that_the_counts_are_those_of_peft(family: str, tmp_path: Path) -> None:
    folder = made(family, tmp_path / "model")
    info = described(folder)
    keys, inner = (["c_attn"], ["mlp.c_proj"]) if family == "gpt2" else (["k_proj", "v_proj"], ["down_proj"])
    for section, config in (
        (MethodSection(name="prefix_tuning", virtual_tokens=7), PrefixTuningConfig(num_virtual_tokens=7)),
        (MethodSection(name="prompt_tuning", virtual_tokens=7), PromptTuningConfig(num_virtual_tokens=7)),
        (MethodSection(name="ia3"), IA3Config(target_modules=[*keys, *inner], feedforward_modules=inner)),
    ):
        config.task_type = "CAUSAL_LM"
        tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(str(folder)), config)
        trained = sum(item.numel() for item in tuned.parameters() if item.requires_grad)
        assert trainable_parameters(section.name, section, info) == trained


@pytest.mark.parametrize(
    ("settings", "kinds", "takes_past", "window"),
    [
        ({}, ("full_attention",), True, None),
        ({"model_type": "mistral", "sliding_window": 4096}, ("sliding_attention",), True, 4096),
        ({"model_type": "mistral", "sliding_window": None}, ("full_attention",), True, None),
        ({"model_type": "qwen2", "sliding_window": 4096}, ("full_attention",), True, None),
        ({"model_type": "gemma2", "sliding_window": 4096}, ("sliding_attention", "full_attention"), True, 4096),
        ({"model_type": "lfm2", "layer_types": ["conv", "full_attention"]}, ("conv", "full_attention"), False, None),
        ({"model_type": "qwen3_next"}, ("full_attention", "recurrent"), False, None),
        ({"model_type": "deepseek_v3", "kv_lora_rank": 512}, ("latent_attention",), False, None),
        ({"model_type": "mamba"}, ("recurrent",), False, None),
    ],
)
def test_that_kinds_of_layers_are_read_from_the_configuration(
    settings: dict[str, object], kinds: tuple[str, ...], takes_past: bool, window: int | None, tmp_path: Path
) -> None:
    info = changed(tmp_path / "model", **settings)
    assert (info.layer_kinds, info.takes_past, info.sliding_window) == (kinds, takes_past, window)


@pytest.mark.parametrize(("model_type", "classifies"), [("llama", True), ("granite", False)])
def test_that_it_is_known_whether_a_family_has_a_classifier(model_type: str, classifies: bool, tmp_path: Path) -> None:
    assert changed(tmp_path / "model", model_type=model_type).classifies is classifies
