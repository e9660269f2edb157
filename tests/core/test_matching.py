"""What works together, in words; and that nothing is refused that works."""

from __future__ import annotations

from typing import get_args

import pytest

from tests.core.samples import model
from tunedesk.core.describe import ModelInfo, TaskKind
from tunedesk.core.families import FAMILIES
from tunedesk.core.matching import TASKS, matches, matrix, short, tasks_of, unfit
from tunedesk.core.spec import MethodName

NAMES = get_args(MethodName)


def mamba() -> ModelInfo:
    return model(layer_kinds=("recurrent",), takes_past=False, classifies=False, biases=512, family="Mamba")


@pytest.mark.parametrize("family", ["LLaMA", "Gemma", "Mistral", "T5"])
def test_that_bitfit_is_refused_where_there_is_no_bias(family: str) -> None:
    info = FAMILIES[family]
    problem = unfit("bitfit", info, tasks_of(info)[0])
    assert problem is not None
    assert problem.code == "method.no_biases"
    assert info.name in problem.what
    assert "IA³" in problem.fix


@pytest.mark.parametrize("family", ["BERT", "DistilBERT", "GPT-2", "Qwen"])
def test_that_bitfit_works_where_there_are_biases(family: str) -> None:
    info = FAMILIES[family]
    assert unfit("bitfit", info, tasks_of(info)[0]) is None


def test_that_few_biases_are_a_caution_and_no_refusal() -> None:
    found = {item.method: item for item in matches(FAMILIES["Qwen"], "chat")}
    assert "27,648" in found["bitfit"].cautions[0]


def test_that_a_prefix_needs_attention_that_takes_one() -> None:
    problem = unfit("prefix_tuning", FAMILIES["DistilBERT"], "classification")
    assert problem is not None
    assert problem.code == "method.no_past"
    assert unfit("prefix_tuning", FAMILIES["BERT"], "classification") is None
    assert unfit("prefix_tuning", FAMILIES["Gemma"], "chat") is None


@pytest.mark.parametrize(
    ("kinds", "word"),
    [(("conv", "full_attention"), "conv"), (("latent_attention",), "squeezed"), (("linear_attention",), "running")],
)
def test_that_the_reason_names_the_layers_that_hold_no_keys(kinds: tuple[str, ...], word: str) -> None:
    problem = unfit("prefix_tuning", model(layer_kinds=kinds, takes_past=False), "chat")
    assert problem is not None
    assert word in problem.found


@pytest.mark.parametrize("strange", [{"family": "Whisper"}, {"layers": 4}])
def test_that_a_seq2seq_model_of_another_kind_is_refused(strange: dict[str, object]) -> None:
    info = FAMILIES["T5"].model_copy(update=strange)
    problem = unfit("lora", info, "seq2seq")
    assert problem is not None
    assert (problem.code, short(problem), tasks_of(info)) == ("model.untried", "untried", ())


def test_that_a_network_without_attention_leaves_prompts_and_lora() -> None:
    works = {name for name in NAMES if unfit(name, mamba(), "chat") is None}
    assert works == {"lora", "qlora", "adalora", "prompt_tuning", "p_tuning", "bitfit", "last_layer", "full"}


def test_that_a_window_is_a_caution_for_virtual_tokens() -> None:
    found = {item.method: item for item in matches(FAMILIES["Gemma"], "chat")}
    assert any("4,096" in caution for caution in found["prefix_tuning"].cautions)
    assert not found["lora"].cautions


@pytest.mark.parametrize(
    ("family", "tasks"),
    [
        ("BERT", ("classification",)),
        ("GPT-2", ("completion", "classification", "preference")),
        ("LLaMA", ("chat", "completion", "classification", "preference")),
        ("T5", ("seq2seq",)),
    ],
)
def test_that_each_kind_of_model_has_its_tasks(family: str, tasks: tuple[TaskKind, ...]) -> None:
    assert tasks_of(FAMILIES[family]) == tasks


def test_that_a_chat_without_a_template_says_what_to_choose() -> None:
    problem = unfit("lora", FAMILIES["GPT-2"], "chat")
    assert problem is not None
    assert problem.code == "model.no_template"
    assert "completion" in problem.fix


def test_that_labels_need_a_classifier_of_the_family() -> None:
    problem = unfit("lora", mamba(), "classification")
    assert problem is not None
    assert problem.code == "model.no_classifier"


def test_that_what_an_old_description_does_not_say_is_not_held_against_it() -> None:
    old = model()
    assert old.biases is None
    assert all(unfit(name, old, "chat") is None for name in NAMES)
    assert ModelInfo.model_validate_json(old.model_dump_json(exclude_defaults=True)) == old


def test_that_prompt_tuning_is_called_weak_on_small_models_alone() -> None:
    small, large = ({item.method: item for item in matches(FAMILIES[name], "chat")} for name in ("Qwen", "Mistral"))
    assert "small" in small["prompt_tuning"].cautions[0]
    assert not large["prompt_tuning"].cautions


def test_that_shares_are_of_the_model_and_never_above_one() -> None:
    for item in matches(FAMILIES["DistilBERT"], "classification", labels=3):
        assert 0 < item.share <= 1
    assert matches(FAMILIES["GPT-2"], "completion")[0].share == pytest.approx(0.01896, abs=1e-5)


def test_that_the_matrix_holds_every_method_task_and_family_with_a_short_reason() -> None:
    table = matrix()
    assert list(table) == ["BERT", "DistilBERT", "GPT-2", "LLaMA", "Qwen", "Gemma", "Mistral", "T5"]
    for cells in table.values():
        assert {(item.method, item.task) for item in cells} == {(name, task) for name in NAMES for task in TASKS}
        assert all(short(item.problem) for item in cells)
