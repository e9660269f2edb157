"""Which method, if any: from four plain answers and a few facts to a ranked advice with its reasons.

Six times the answer is not a parameter-efficient method: the last point of quality on one task that matters, a model so
small that training all of it costs the same, a change of architecture, a task that needs no training, a far shift of
language or domain, and a model that the methods do not work on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tunedesk.core.describe import ModelInfo, TaskKind
from tunedesk.core.matching import unfit, unfit_task
from tunedesk.core.methods import method
from tunedesk.core.spec import MethodName

Memory = Literal["ample", "fits", "tight", "short"]
Weight = Literal["little", "some", "much"]
Shift = Literal["near", "far"]
Prompting = Literal["untried", "enough", "weak"]
Verdict = Literal["peft", "full", "none", "cannot"]

HANDFUL = 20
"""Examples below which training is not worth trying: fewer than the 20 to 70 that Liu et al. 2022 train IA³ on."""

FEW_ANSWERS = 50
"""Written answers below which examples in the prompt come first; the planner calls fewer than this few."""

FEW = 100
"""Rows below which the smallest methods are safest against learning by heart."""

SOME = 1000
"""Rows that are small data for a classifier; there BitFit is level with full fine-tuning (Ben Zaken et al. 2022)."""

PLENTY = 100_000
"""Rows up to which LoRA keeps up with full fine-tuning (Biderman et al. 2024)."""

SMALL = 100_000_000
"""Weights below which training all of them takes less than 2 GB beside the text (16 bytes each): DistilBERT, MiniLM."""

LARGE = 3_000_000_000
"""Weights from which virtual tokens before the input are worth a try (Lester et al. 2021, figure 1)."""

MANY = 10
"""Tasks on one model from which the size of each file counts."""

_FULL_BYTES, _LORA_BYTES, _QLORA_BYTES = 18.0, 2.3, 0.75
"""Memory per weight, text included, roughly: LLaMA-Factory's table says 18, 2 and 0.5 without a length; Unsloth's 5 GB
for QLoRA on 7 billion is 0.71, and LitGPT measured 21 GB for LoRA on 7 billion with long rows."""


@dataclass(frozen=True)
class Situation:
    """What a person knows before choosing.

    The four answers: `task`; `rows` of training data; `memory` beside the model (``ample`` for training every weight,
    ``fits`` for its weights in 16 bits, ``tight`` for 4 bits alone, ``short`` for less); `keep`, how much the model's
    old skills matter.

    The facts: `parameters` of the model; `shift`, how far the data is from what it knows; `tasks` that share one model;
    `one_file`, when a single plain model must come out; `manner`, when a tone or persona is wanted rather than skill;
    `changing`, when the data holds facts that soon change; `prompting`, what it has given so far; `last_point`, when
    the last point of quality on one task is worth any price; `new_parts`, when the network itself is to change; `known`
    is false for a network that is no transformer of a common family.
    """

    task: TaskKind
    rows: int
    memory: Memory
    keep: Weight = "some"
    parameters: int | None = None
    shift: Shift = "near"
    tasks: int = 1
    one_file: bool = False
    manner: bool = False
    changing: bool = False
    prompting: Prompting = "untried"
    last_point: bool = False
    new_parts: bool = False
    known: bool = True


@dataclass(frozen=True)
class Choice:
    """A method and why it stands where it stands."""

    method: MethodName
    why: str


@dataclass(frozen=True)
class Advice:
    """The answer: `peft` with one to three methods, `full`, `none` (do not train), or `cannot` (not with this model).

    `reasons` lead to the verdict; `instead` says what else to do, or what to do should the advice not be possible.
    """

    verdict: Verdict
    ranked: tuple[Choice, ...]
    reasons: tuple[str, ...]
    instead: str = ""


def room(parameters: int, memory: int) -> Memory:
    """What `memory` bytes are for a model of `parameters` weights, roughly; the planner knows it better."""
    each = memory / max(1, parameters)
    if each >= _FULL_BYTES:
        return "ample"
    if each >= _LORA_BYTES:
        return "fits"
    return "tight" if each >= _QLORA_BYTES else "short"


def advise(situation: Situation, model: ModelInfo | None = None) -> Advice:
    """The advice for `situation`; with `model` only methods that work on it are named."""
    no_training = _no_training(situation)
    if no_training:
        return no_training
    blocked = _blocked(situation, model)
    if blocked:
        return blocked
    return _whole(situation, model) or _efficient(situation, model)


# Not training at all.


def _no_training(it: Situation) -> Advice | None:
    """Prompting or looking things up does it; Ovadia et al. 2023 find looking up ahead of training for facts."""
    if it.changing:
        return Advice(
            "none",
            (),
            (
                "Facts that change are out of date as soon as a run ends, and training teaches them poorly.",
                "A model learns manners and skills from examples better than single facts.",
            ),
            "Put the facts of the day into the prompt, or let a search fetch them (retrieval).",
        )
    if it.prompting == "enough":
        return Advice(
            "none",
            (),
            ("A prompt does it already; training would cost time and skills, and gain little.",),
            "Keep the prompt. Train when it gets too long to pay for, or when answers are not steady enough.",
        )
    if it.rows < HANDFUL or (it.rows < FEW_ANSWERS and it.task != "classification" and it.prompting != "weak"):
        return Advice(
            "none",
            (),
            (f"{_rows(it.rows)} can be learned by heart in minutes, and little else is learned from them.",),
            "Show five to ten of them in the prompt. Collect a hundred or more before training.",
        )
    return None


# With one model.


def _blocked(it: Situation, model: ModelInfo | None) -> Advice | None:
    """What the model itself cannot do, whatever the method."""
    if model is not None:
        problem = unfit_task(model, it.task)
        if problem:
            return Advice("cannot", (), (problem.what, problem.found), problem.fix)
    if it.known and (model is None or model.layer_kinds != ("recurrent",)):
        return None
    reasons = (
        "Most of these methods sit on the attention layers of a transformer, and this model has none that they know.",
        "What remains, such as LoRA on single projections, is little tried on such models.",
    )
    return Advice("cannot", (), reasons, "Train all of it where memory allows, or choose a transformer.")


# Training all of it.


def _whole(it: Situation, model: ModelInfo | None) -> Advice | None:
    size = model.parameters if model else it.parameters
    if it.memory == "short" and not it.new_parts:
        return None
    if it.new_parts:
        return _full(it, "New parts of a network start from nothing, and frozen ones around them cannot adapt.")
    if it.shift == "far":
        return _far(it)
    if size is not None and size < SMALL and it.memory == "ample" and it.tasks == 1 and it.keep != "much":
        return Advice(
            "full",
            _named((("full", "All weights of a model this small train in the time and memory of a part."),), it, model)
            + _named(_light(it), it, model)[:1],
            (
                f"With {size / 1e6:,.0f} million weights, training a part saves next to nothing.",
                "With one task there is no gain from small files either.",
            ),
            "Train a part after all when several tasks are to share the model.",
        )
    if it.last_point and it.memory == "ample" and it.keep != "much" and it.tasks == 1:
        return _full(it, "The last point of quality on one task is where training every weight is still ahead.")
    return None


def _full(it: Situation, reason: str) -> Advice:
    reasons = [reason]
    if it.keep == "much":
        reasons.append("Old skills suffer most this way: mix in data of the old kind, and measure them.")
    if it.memory != "ample":
        reasons.append("It does not fit here: every weight takes about 16 bytes while it trains.")
    instead = (
        "LoRA at a high rank on all layers comes close at a fraction of the memory."
        if it.memory == "ample"
        else "Choose a smaller model, or a computer with more memory. LoRA at a high rank on all layers comes closest."
    )
    return Advice("full", (Choice("full", reason),), tuple(reasons), instead)


def _far(it: Situation) -> Advice:
    """LoRA learns less than full fine-tuning in new domains (Biderman et al. 2024: code and mathematics)."""
    reason = "A new language or domain has to be learned in every layer; a small part cannot hold it."
    if it.rows < SOME:
        few = f"{_rows(it.rows)} are far too few for that."
        return Advice("none", (), (reason, few), "Start from a model that knows the language or domain already.")
    advice = _full(it, reason)
    return Advice("full", advice.ranked, advice.reasons, f"{advice.instead} Best, start from a model that knows it.")


# Training a part.


def _efficient(it: Situation, model: ModelInfo | None) -> Advice:
    if it.memory == "short":
        return Advice(
            "cannot",
            (),
            ("Not even weights of 4 bits leave room for the text that goes through them.",),
            "Choose a model of half the size or less; QLoRA takes roughly three quarters of a byte a weight.",
        )
    wanted = _reading(it) if it.task == "classification" and not _writes(model) else _writing(it, model)
    ranked = _named(wanted, it, model)[:3]
    if not ranked:
        return Advice("cannot", (), ("None of the methods works on this model.",), "Choose another model.")
    return Advice("peft", ranked, tuple(_reasons(it)), _instead(it))


def _writes(model: ModelInfo | None) -> bool:
    return model is not None and model.kind != "encoder"


def _named(wanted: Iterable[tuple[MethodName, str]], it: Situation, model: ModelInfo | None) -> tuple[Choice, ...]:
    """`wanted`, each method once, without those that cannot be used here."""
    found: dict[MethodName, str] = {}
    for name, why in wanted:
        item = method(name)
        if it.one_file and not item.merges:
            continue
        if it.memory == "tight" and (name == "lora" or not item.four_bit):
            continue
        if model is not None and unfit(name, model, it.task):
            continue
        found.setdefault(name, why)
    return tuple(Choice(name, why) for name, why in found.items())


def _light(it: Situation) -> Iterable[tuple[MethodName, str]]:
    """The smallest methods first."""
    if it.task == "classification":
        yield "bitfit", "It adds nothing to the model and has little room to learn by heart."
    yield "ia3", "A few thousand factors leave little room to learn by heart."
    yield "lora", "At a rank of 4 or 8 it is small as well, and the best tried."


def _reading(it: Situation) -> Iterable[tuple[MethodName, str]]:
    """For encoders that give labels."""
    if it.memory == "tight":
        yield "qlora", "Only 4-bit weights leave room to train here."
    if it.tasks > 1:
        yield "houlsby", "The classic way to serve several tasks from one encoder, near full fine-tuning in quality."
    if it.tasks >= MANY:
        yield "compacter", f"With {it.tasks:,} tasks the size of each file counts, and these are the smallest."
    if it.rows < SOME:
        yield from _light(it)
    yield "lora", "It merges into the model, so answers stay as fast as before."
    yield "houlsby", "It comes near full fine-tuning on labels; answers get a little slower."
    yield "bitfit", "It trains a thousandth of the weights and adds none."
    yield "ia3", "It is smaller still than LoRA."


def _writing(it: Situation, model: ModelInfo | None) -> Iterable[tuple[MethodName, str]]:
    """For models that write."""
    size = (model.parameters if model else it.parameters) or 0
    tight = it.memory == "tight"
    usual: tuple[MethodName, str] = (
        ("qlora", "Only 4-bit weights leave room to train here.")
        if tight
        else ("lora", "The model fits in 16 bits, and LoRA is the best tried method for it.")
    )
    if it.manner and it.keep != "much" and it.rows < 10 * SOME:
        yield "prefix_tuning", "A manner is what a prefix holds well, and without it the model is as it was."
    if it.rows < FEW:
        yield "ia3", "A few thousand factors leave little room to learn by heart."
    yield usual
    if it.rows >= PLENTY and it.memory == "ample":
        yield "full", f"With {_rows(it.rows)} training every weight may gain on LoRA."
    if it.tasks >= MANY and size >= LARGE:
        yield "prompt_tuning", f"{it.tasks:,} tasks can be in one batch on one model, each a few vectors."
    if it.tasks > 1 or it.rows < SOME:
        yield "ia3", "The smallest file that merges; it learns less."
    if not tight and it.rows >= SOME:
        yield "adalora", "It spends a small rank where it helps most; a little slower."
    if tight:
        yield "ia3", "It trains on 4-bit weights too, and is smaller; it learns less."


def _reasons(it: Situation) -> Iterable[str]:
    memory = {
        "ample": "There is memory for any method, so quality and the size of the files decide.",
        "fits": "The weights fit in 16 bits, but not what training all of them needs: a part can be trained.",
        "tight": "Only weights of 4 bits leave room to train.",
        "short": "",
    }
    yield memory[it.memory]
    if it.rows < FEW:
        yield f"{_rows(it.rows)} are few: small methods, few epochs, and a look at held-out rows."
    elif it.rows < PLENTY:
        yield f"{_rows(it.rows)} are enough for a small part, and too few to gain from training all weights."
    else:
        yield f"{_rows(it.rows)} are plenty; a higher rank can take in more of them."
    if it.tasks > 1:
        yield f"{it.tasks:,} tasks share one model: each is a small file, swapped in when it is needed."
    if it.keep == "much":
        yield "Old skills must stay: frozen weights, a low learning rate and few epochs lose least."
    if it.one_file:
        yield "One plain model must come out, so the method has to merge into the weights."
    if it.last_point:
        yield "For the very last point training every weight would be ahead, but not under these conditions."


def _instead(it: Situation) -> str:
    if it.prompting == "untried" and it.rows < SOME:
        return "Try a good prompt with a few examples first; it may do."
    if it.last_point:
        return "Compare with full fine-tuning on a larger computer before you settle."
    return ""


def _rows(count: int) -> str:
    return f"{count:,} rows" if count != 1 else "1 row"
