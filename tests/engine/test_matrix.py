"""Every method for every task on every family: it trains and is the same after loading, or is refused in advance."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from tests.engine.models import tiny_seq2seq
from tests.engine.test_methods import learner_from, train, zoo
from tunedesk.core.counts import trainable_parameters
from tunedesk.core.describe import ModelInfo, TaskKind
from tunedesk.core.families import FAMILIES
from tunedesk.core.matching import matrix, unfit
from tunedesk.core.problems import ProblemError
from tunedesk.core.spec import DataSection, MethodName, RunSpec
from tunedesk.engine import checkpoints, loading
from tunedesk.engine.forgetting import GeneralText
from tunedesk.engine.inference import attach_adapter
from tunedesk.engine.label_head import LabelHead
from tunedesk.engine.material import gather, head_for, renderer_of, tokenise
from tunedesk.engine.render import TokenRow
from tunedesk.engine.sources import resolve
from tunedesk.engine.train import room_for_text

from .conftest import Recorder

__all__ = ["zoo"]

TASKS: tuple[TaskKind, ...] = get_args(TaskKind)
METHODS: tuple[MethodName, ...] = get_args(MethodName)
FAMILY = {
    "BERT": "bert", "DistilBERT": "distilbert", "GPT-2": "gpt2", "LLaMA": "llama", "Qwen": "qwen2", "Gemma": "gemma2",
    "Mistral": "mistral",
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4}, "qlora": {"rank": 4}, "adalora": {"rank": 4}, "houlsby": {"bottleneck": 8},
    "compacter": {"bottleneck": 8}, "prefix_tuning": {"virtual_tokens": 6}, "prompt_tuning": {"virtual_tokens": 6},
    "p_tuning": {"virtual_tokens": 6},
}  # fmt: skip
RATES = {"ia3": 5e-2, "prompt_tuning": 1e-1, "prefix_tuning": 5e-2, "full": 3e-3, "bitfit": 2e-2, "adalora": 2e-2}
SWITCHED = ("p_tuning", "adalora")
"""Saved in another form than trained in: the last bits may differ."""


@pytest.fixture(scope="session")
def families(zoo: Callable[[str], ModelInfo], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelInfo]:
    """A tiny random model of each family; as with the real ones, GPT-2 knows no conversations."""
    home = tmp_path_factory.mktemp("families")

    @cache
    def model(name: str) -> ModelInfo:
        if name == "T5":
            return resolve(str(tiny_seq2seq(home / name)), None, None)
        info = zoo(FAMILY[name])
        return resolve(_without_template(Path(str(info.path)), home / name), None, None) if name == "GPT-2" else info

    return model


def _without_template(folder: Path, to: Path) -> str:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.chat_template = None
    (to / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(to)
    return str(to)


@dataclass(frozen=True)
class Lesson:
    """What a family learns for a task."""

    rows: list[TokenRow]
    head: LabelHead | None


@pytest.fixture(scope="session")
def lessons(
    families: Callable[[str], ModelInfo], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, TaskKind], Lesson]:
    home = tmp_path_factory.mktemp("lessons")

    @cache
    def lesson(family: str, task: TaskKind) -> Lesson:
        path = home / f"{task}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(task)), encoding="utf-8")
        section = DataSection(train=str(path), validation_fraction=0.0)
        material, info = gather(section, task, 0), families(family)
        tokens = tokenise(material, renderer_of(material, loading.load_tokenizer(info), info))
        return Lesson([row.cut(48) for row in tokens.train], head_for(material))

    return lesson


def rows_of(task: TaskKind) -> list[dict[str, Any]]:
    """Eight short rows that something can be learned from."""
    orders = [f"Where is order {number}?" for number in range(8)]
    match task:
        case "classification":
            words = ("rose", "fell", "held")
            return [{"text": f"the shares {words[n % 3]} {n}", "label": words[n % 3]} for n in range(9)]
        case "preference":
            return [{"prompt": text, "chosen": "It is on its way.", "rejected": "No idea at all."} for text in orders]
        case "completion":
            return [{"text": f"{text} It is on its way, and comes soon."} for text in orders]
        case _:
            return [{"prompt": text, "completion": "It is on its way."} for text in orders]


def section_of(name: MethodName) -> dict[str, Any]:
    return {"name": name, **OPTIONS.get(name, {})}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_that_a_cell_trains_or_is_refused_in_advance(
    families: Callable[[str], ModelInfo],
    lessons: Callable[[str, TaskKind], Lesson],
    tmp_path: Path,
    family: str,
    task: TaskKind,
    name: MethodName,
) -> None:
    info = families(family)
    problem = unfit(name, info, task)
    if problem is not None:
        assert problem.what
        assert problem.fix
        with pytest.raises(ProblemError) as refused:
            loading.check_task(info, task, name)
        assert refused.value.problems == (problem,)
        return
    spec = RunSpec.model_validate(
        {
            "task": {"kind": task},
            "method": section_of(name),
            "training": {"seed": 3, "engine": "reference"},
        }
    )
    lesson, rate = lessons(family, task), RATES.get(name, 1e-2)
    info = room_for_text(info, spec.method.places_taken)
    learner = learner_from(spec, info, rate, lesson.head, lesson.rows)
    labels = lesson.head.outputs if lesson.head else 0
    assert trainable_parameters(name, spec.method, info, labels) == sum(item.numel() for item in learner.parameters)
    general = GeneralText(learner, loading.load_tokenizer(info), info, task, Recorder())
    before = {key: item.detach().clone() for key, item in learner.model.named_parameters()}

    losses = train(learner, lesson.rows, rate, range(1, 9))
    assert all(math.isfinite(loss) for loss in losses)
    assert min(losses[-3:]) < 0.97 * losses[0], losses
    learning = {key for key, item in learner.model.named_parameters() if item.requires_grad}
    changed = {key for key, item in learner.model.named_parameters() if not torch.equal(item, before[key])}
    assert changed
    assert changed <= learning
    found = general.check(learner, 8)
    assert found.tokens > 500
    assert math.isfinite(found.before)
    assert math.isfinite(found.after)

    for file, content in checkpoints.adapter_files(learner.tuned).items():
        (tmp_path / file).write_bytes(content)
    base = loading.load_base(info, "fp32", torch.device("cpu"), spec.method.packed, head=lesson.head)
    again = attach_adapter(base, tmp_path)
    mine, theirs = answer(learner.model, info, lesson), answer(again, info, lesson)
    if name in SWITCHED:
        torch.testing.assert_close(mine[0], theirs[0], rtol=1e-4, atol=1e-4)
    else:
        assert torch.equal(mine[0], theirs[0])
    assert torch.equal(mine[1], theirs[1])


@torch.no_grad()
def answer(model: Any, info: ModelInfo, lesson: Lesson) -> tuple[Tensor, Tensor]:
    """Scores of the first row, and what is said of it: the likeliest label, or five tokens."""
    model.eval()
    ids = torch.tensor([list(lesson.rows[0].ids)])
    ids = ids[:, : max(4, ids.shape[1] - 4)]
    if lesson.head is not None:
        scores = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return scores, scores.argmax(-1)
    options = {"decoder_input_ids": ids[:, :1]} if info.kind == "seq2seq" else {}
    scores = model(input_ids=ids, attention_mask=torch.ones_like(ids), **options).logits
    used, model.config.use_cache = model.config.use_cache, True
    said = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False, pad_token_id=0
    )
    model.config.use_cache = used
    return scores, said


def test_that_the_printed_table_says_of_real_models_what_was_tried_here(
    families: Callable[[str], ModelInfo],
) -> None:
    for family, cells in matrix().items():
        for cell in cells:
            tried = unfit(cell.method, families(family), cell.task)
            assert (cell.problem and cell.problem.code) == (tried and tried.code), (family, cell.task, cell.method)
