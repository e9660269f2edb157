"""What works together: method, task and model, decided from `ModelInfo` alone, before anything is loaded.

Only what truly cannot work is refused; each rule was tried with transformers 5.23 and peft 0.21 on tiny random models
of some fifty families. What works and is a poor idea is a caution.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from tunedesk.core.counts import decoder_layers, trainable_parameters
from tunedesk.core.describe import ModelInfo, TaskKind
from tunedesk.core.families import FAMILIES
from tunedesk.core.methods import CATALOGUE, method
from tunedesk.core.problems import Problem
from tunedesk.core.spec import MethodName, MethodSection

TASKS: tuple[TaskKind, ...] = get_args(TaskKind)

TASK_WORDS: dict[TaskKind, str] = {
    "chat": "answer in conversations",
    "completion": "go on with a text",
    "classification": "give labels",
    "seq2seq": "turn one text into another",
    "preference": "prefer better answers",
}

_SHORT = {
    "model.wrong_kind": "other task",
    "model.untried": "untried",
    "model.no_template": "no template",
    "model.no_classifier": "no classifier",
    "method.no_biases": "no biases",
    "method.no_past": "takes no prefix",
    "method.no_attention": "no attention",
}

SEQ2SEQ_FAMILIES = ("T5", "mT5", "UMT5", "BART")
"""Families of encoder-decoders that were tried. Others want language codes, speech, or have layers of their own."""

SMALL = 1_000_000_000
"""Weights below which prompt tuning lags far behind (Lester et al. 2021, figure 1: level near 10 billion)."""


@dataclass(frozen=True)
class Match:
    """Whether a method works with a model and a task: `problem` says why not, `cautions` what to think of.

    `trained` counts the weights it trains with its default settings; `share` is that of the model's, at most 1.
    """

    model: str
    method: MethodName
    task: TaskKind
    problem: Problem | None
    cautions: tuple[str, ...]
    trained: int
    share: float


def unfit(name: MethodName, model: ModelInfo, task: TaskKind) -> Problem | None:
    """Why the method `name` cannot train `model` for `task`; None when it can, as far as the description tells."""
    return unfit_task(model, task) or unfit_method(name, model)


def matches(model: ModelInfo, task: TaskKind, labels: int = 2) -> tuple[Match, ...]:
    """Every method with `model` and `task`, in the order of the guide. `labels` counts where a text gets one."""
    return tuple(_match(item.name, model, task, labels) for item in CATALOGUE)


def matrix(models: Mapping[str, ModelInfo] = FAMILIES) -> dict[str, tuple[Match, ...]]:
    """Every method with every task, for each of `models` by its name."""
    return {name: tuple(item for task in TASKS for item in matches(model, task)) for name, model in models.items()}


def tasks_of(model: ModelInfo) -> tuple[TaskKind, ...]:
    """The tasks that some method can train `model` for."""
    return tuple(task for task in TASKS if unfit_task(model, task) is None)


def short(problem: Problem | None) -> str:
    """``yes``, or the reason in two or three words."""
    return "yes" if problem is None else _SHORT[problem.code]


def _match(name: MethodName, model: ModelInfo, task: TaskKind, labels: int) -> Match:
    count = labels if task == "classification" else 0
    trained = trainable_parameters(name, MethodSection(name=name), model, count)
    problem = unfit(name, model, task)
    cautions = () if problem else tuple(_cautions(name, model, task))
    return Match(model.name, name, task, problem, cautions, trained, min(1.0, trained / max(1, model.parameters)))


def unfit_task(model: ModelInfo, task: TaskKind) -> Problem | None:
    """Why no method can train `model` for `task`; None when some can."""
    suits: dict[str, tuple[TaskKind, ...]] = {
        "encoder": ("classification",),
        "decoder": ("chat", "completion", "classification", "preference"),
        "seq2seq": ("seq2seq",),
        "other": (),
    }
    if task not in suits[model.kind]:
        return _wrong_kind(model, task, suits[model.kind])
    if model.kind == "seq2seq" and (unknown := _untried(model)):
        return Problem(
            code="model.untried",
            what=f"{model.name} is a kind of seq2seq model that TuneDesk has not been tried with.",
            found=unknown,
            fix="Choose a T5 such as google/flan-t5-base, or for many languages google/mt5-base.",
        )
    if task == "chat" and not model.has_chat_template:
        return Problem(
            code="model.no_template",
            what=f"{model.name} has no chat template.",
            found="It is a base model: it goes on with text but does not know turns of a conversation.",
            fix="Choose its instruct or chat version, or set the task to completion.",
        )
    if task == "classification" and model.classifies is False:
        return Problem(
            code="model.no_classifier",
            what=f"{model.name} cannot be given a head for labels.",
            found=f"transformers has no classifier of the family {model.family}.",
            fix="Choose an encoder, or let the model write the label as its answer.",
        )
    return None


def _wrong_kind(model: ModelInfo, task: TaskKind, suits: tuple[TaskKind, ...]) -> Problem:
    kinds = {
        "encoder": "An encoder reads text and writes none.",
        "decoder": "A decoder has no second text to start from; what it reads is part of what it writes.",
        "seq2seq": "A seq2seq model reads one text and writes another; labels are words that it writes.",
        "other": "It is neither a model that reads text nor one that writes it.",
    }
    fixes: dict[TaskKind, str] = {
        "chat": "Choose a model that writes, such as starter:chat.",
        "completion": "Choose a model that writes, such as starter:chat.",
        "classification": "Choose an encoder, such as starter:encoder.",
        "preference": "Choose a model that writes, such as starter:chat.",
        "seq2seq": "Choose a T5, or set the task to chat and let the answer be the second text.",
    }
    can = " or ".join(TASK_WORDS[item] for item in suits)
    return Problem(
        code="model.wrong_kind",
        what=f"{model.name} cannot be trained to {TASK_WORDS[task]}.",
        found=f"{kinds[model.kind]}{f' It can {can}.' if can else ''}",
        fix=fixes[task],
    )


def _untried(model: ModelInfo) -> str:
    """What is strange about a seq2seq model; empty for one like those that were tried."""
    if model.family not in SEQ2SEQ_FAMILIES:
        return f"Its family is {model.family}; tried are {', '.join(SEQ2SEQ_FAMILIES)}."
    if decoder_layers(model) > model.layers:  # transformers 5.23 makes room for as many as the encoder has
        return f"Its decoder has {decoder_layers(model)} layers, more than the {model.layers} of its encoder."
    return ""


def unfit_method(name: MethodName, model: ModelInfo) -> Problem | None:
    """Why the method `name` cannot train `model`, whatever the task; None when it can."""
    if name in ("ia3", "houlsby", "compacter", "prefix_tuning") and model.layer_kinds == ("recurrent",):
        return Problem(
            code="method.no_attention",
            what=f"{method(name).title} needs attention layers, and {model.name} has none.",
            found=f"Its layers are recurrent, as in all models of the family {model.family}.",
            fix="Choose prompt tuning, or LoRA on its input projections.",
        )
    if name == "prefix_tuning" and model.takes_past is False:
        return _no_past(model)
    if name == "bitfit" and model.biases == 0:
        return Problem(
            code="method.no_biases",
            what=f"BitFit trains biases alone, and {model.name} has none.",
            found=f"None of its {model.parameters:,} weights is a bias.",
            fix="Choose IA³, which is as small, or LoRA.",
        )
    return None


def _no_past(model: ModelInfo) -> Problem:
    """Prefixes come in as keys and values from before; caches of these models hold something else, or there is none."""
    if model.kind == "encoder":
        found = f"In transformers, attention of the family {model.family} takes no keys and values from outside."
    elif "latent_attention" in model.layer_kinds:
        found = "It keeps keys and values squeezed together, and a prefix cannot be squeezed the same way."
    else:
        others = [kind for kind in model.layer_kinds if not kind.endswith("attention") or kind == "linear_attention"]
        found = f"Some of its layers keep a running state, not keys and values: {', '.join(others)}."
    return Problem(
        code="method.no_past",
        what=f"{model.name} takes no prefix.",
        found=found,
        fix="Choose prompt tuning, which goes in as text does, or LoRA.",
    )


def _cautions(name: MethodName, model: ModelInfo, task: TaskKind) -> Iterable[str]:
    """What to think of before training, where it works."""
    item = method(name)
    if name in ("prompt_tuning", "p_tuning") and model.parameters < SMALL:
        yield "Weak on a model this small: it comes level with full fine-tuning near 10 billion weights."
    if name == "prefix_tuning" and model.kind == "seq2seq":
        yield "The prefix stands before the answer alone, not before the text that is read, unlike in the paper."
    window = model.sliding_window
    if item.virtual and window and window < (model.context_length or window + 1):
        everywhere = model.layer_kinds == ("sliding_attention",)
        layers = "Its layers look" if everywhere else "Some of its layers look"
        yield f"{layers} back {window:,} tokens only: text further on loses sight of the virtual tokens there."
    if name == "bitfit" and model.biases is not None and 0 < model.biases < model.parameters / 5000:
        yield f"Only {model.biases:,} of its weights are biases: little room to learn."
    if name == "last_layer" and task != "classification":
        yield "It trains the whole matrix that scores the vocabulary, and what lies below cannot adapt."
