"""The catalogue: complete, sourced, in step with RUN.toml; its rates; and the counts by the papers' formulas."""

from __future__ import annotations

from typing import get_args

import pytest

from tests.core.samples import llama_8b, model
from tunedesk.core.counts import trainable_parameters
from tunedesk.core.families import FAMILIES
from tunedesk.core.methods import CATALOGUE, GROUPS, METHODS, TRAINABLE, default_learning_rate, method, offered
from tunedesk.core.spec import MethodName, MethodSection, fields_of

NAMES = get_args(MethodName)


def count(name: MethodName, model_name: str = "BERT", labels: int = 0, **settings: object) -> int:
    section = MethodSection.model_validate({"name": name, **settings})
    return trainable_parameters(name, section, FAMILIES[model_name], labels)


def test_that_every_method_is_declared_once_and_in_a_group() -> None:
    assert sorted(item.name for item in CATALOGUE) == sorted(NAMES)
    assert {item.group for item in CATALOGUE} == set(GROUPS)


def test_that_only_methods_that_the_engine_trains_are_offered() -> None:
    assert tuple(item.name for item in offered()) == TRAINABLE
    assert offered() == METHODS


@pytest.mark.parametrize("name", NAMES)
def test_that_each_method_says_what_it_is_good_and_poor_at_and_where_from(name: str) -> None:
    item = method(name)
    assert item.good
    assert item.poor
    assert "arXiv:" in item.source
    assert any(digit.isdigit() for digit in item.rates) or "LoRA" in item.rates
    assert item.summary.endswith(".")
    assert not item.suits.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_that_the_settings_of_a_method_are_those_of_its_run_file(name: MethodName) -> None:
    item = method(name)
    assert {field.key for field in item.fields} == set(fields_of(name))
    assert item.four_bit == ("quantised" in fields_of(name))
    assert all(field.help.endswith(".") for field in item.fields)


def test_that_virtual_tokens_never_merge() -> None:
    assert {item.name for item in CATALOGUE if item.virtual} == {"prefix_tuning", "prompt_tuning", "p_tuning"}
    assert not any(item.merges for item in CATALOGUE if item.virtual)


@pytest.mark.parametrize(
    ("name", "parameters", "rate"),
    [
        ("lora", 135_000_000, 1e-3),
        ("qlora", 8_000_000_000, 2e-4),
        ("qlora", 65_000_000_000, 1e-4),
        ("full", 110_000_000, 5e-5),
        ("full", 7_000_000_000, 2e-5),
        ("full", 13_000_000_000, 1e-5),
        ("ia3", 3_000_000_000, 3e-3),
        ("houlsby", 330_000_000, 3e-4),
        ("compacter", 220_000_000, 3e-3),
        ("bitfit", 110_000_000, 1e-3),
        ("prompt_tuning", 560_000_000, 3e-2),
    ],
)
def test_that_learning_rates_are_those_of_the_papers(name: MethodName, parameters: int, rate: float) -> None:
    assert default_learning_rate(name, parameters) == rate


def test_that_classifiers_learn_more_slowly_with_lora() -> None:
    assert default_learning_rate("lora", 22_000_000, "classification") == 5e-4
    assert default_learning_rate("lora", 70_000_000_000, "classification") == 1e-4
    assert default_learning_rate("full", 22_000_000, "classification") == default_learning_rate("full", 22_000_000)


@pytest.mark.parametrize("name", NAMES)
def test_that_larger_models_take_no_larger_steps(name: MethodName) -> None:
    rates = [default_learning_rate(name, size) for size in (0, 10**8, 10**9, 10**10, 10**11)]
    assert rates == sorted(rates, reverse=True)


def test_that_bitfit_trains_a_thousandth_of_bert_as_its_paper_says() -> None:
    # Ben Zaken et al. 2022: less than 0.1% of the weights.
    assert count("bitfit") == 102_912
    assert count("bitfit") / FAMILIES["BERT"].parameters < 0.001


def test_that_houlsby_counts_two_adapters_a_layer() -> None:
    # 2 d m + d + m each (Houlsby et al. 2019, section 2.1).
    assert count("houlsby", bottleneck=64) == 12 * 2 * (2 * 768 * 64 + 768 + 64)


def test_that_a_compacter_matrix_takes_k_plus_d_weights() -> None:
    # Karimi Mahabadi et al. 2021: k + d a matrix, n³ shared; biases beside.
    assert count("compacter", bottleneck=24, hypercomplex=4) == 12 * 2 * 3 * (768 + 24) + 4**3


def test_that_prefix_tuning_trains_a_key_and_a_value_in_each_layer() -> None:
    assert count("prefix_tuning", "GPT-2", virtual_tokens=10) == 10 * 2 * 12 * 768
    assert count("prefix_tuning", "LLaMA", virtual_tokens=10) == 10 * 2 * 16 * 512
    through = count("prefix_tuning", "GPT-2", virtual_tokens=10, prefix_projection=True, encoder_hidden_size=512)
    assert through == 10 * 768 + 769 * 512 + 513 * 2 * 12 * 768


def test_that_prompts_are_as_wide_as_the_embedding() -> None:
    assert count("prompt_tuning", "GPT-2", virtual_tokens=20) == 20 * 768
    mlp = count("p_tuning", "GPT-2", virtual_tokens=20, encoder_hidden_size=128)
    assert mlp == 20 * 768 + 769 * 128 + 129 * 128 + 129 * 768
    lstm = count("p_tuning", "GPT-2", virtual_tokens=20, encoder="lstm", encoder_hidden_size=128)
    assert lstm == 20 * 768 + 8 * 128 * (768 + 130) + 8 * 128 * (256 + 130) + 257 * 256 + 257 * 768


def test_that_ia3_scales_keys_values_and_inner_activations() -> None:
    assert count("ia3") == 12 * (768 + 768 + 3072)
    assert count("ia3", "GPT-2") == 12 * (2304 + 3072)
    assert count("ia3", "LLaMA") == 16 * (512 + 512 + 8192)
    assert count("ia3", "T5") == 36 * (768 + 768) + 24 * 2048


def test_that_virtual_tokens_of_a_t5_stand_before_what_is_read_or_in_its_decoder_alone() -> None:
    assert count("prompt_tuning", "T5", virtual_tokens=20) == 20 * 768
    # Twelve layers, and one to spare: peft reaches each only by an odd number.
    assert count("prefix_tuning", "T5", virtual_tokens=20) == 20 * 13 * 2 * 768


def test_that_both_stacks_of_a_t5_get_two_adapters_a_block() -> None:
    assert count("houlsby", "T5", bottleneck=64) == 24 * 2 * (2 * 768 * 64 + 768 + 64)


def test_that_a_t5_is_tuned_whole_at_a_higher_rate() -> None:
    assert default_learning_rate("full", 248_000_000, "seq2seq") == 1e-4


def test_that_adalora_starts_at_one_and_a_half_times_the_rank() -> None:
    linears = [(item.in_features + item.out_features + 1) * item.count for item in FAMILIES["GPT-2"].linears]
    assert count("adalora", "GPT-2", rank=8) == 12 * sum(linears)


def test_that_dora_adds_a_length_for_each_output() -> None:
    plain, apart = (trainable_parameters("lora", MethodSection(rank=8, dora=dora), model()) for dora in (False, True))
    assert apart - plain == sum(item.out_features * item.count for item in model().linears)


def test_that_the_last_layer_is_the_head_or_the_matrix_over_the_vocabulary() -> None:
    assert count("last_layer", labels=3) == 769 * 3
    assert count("last_layer", "DistilBERT", labels=3) == 769 * 3 + 769 * 768
    assert count("last_layer", "GPT-2") == 50_257 * 768


def test_that_full_trains_everything_and_every_method_trains_a_new_head() -> None:
    assert count("full", "GPT-2") == FAMILIES["GPT-2"].parameters
    assert all(count(name, labels=4) - count(name) == 769 * 4 for name in NAMES if name != "last_layer")


def test_that_grouped_keys_make_prefixes_smaller() -> None:
    section = MethodSection(name="prefix_tuning", virtual_tokens=20)
    assert trainable_parameters("prefix_tuning", section, llama_8b()) == 20 * 2 * 32 * 1024
