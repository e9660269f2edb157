"""Situations as people bring them, with the answer and the reason that an expert would give."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.core.samples import model
from tunedesk.core.families import FAMILIES
from tunedesk.core.recommend import Advice, Situation, Verdict, advise, room

GB = 10**9


@dataclass(frozen=True)
class Case:
    """What a person says; the situation that it is; the verdict, the methods in order, a word of the reason."""

    words: str
    situation: Situation
    verdict: Verdict
    methods: tuple[str, ...]
    reason: str
    instead: str = ""
    family: str | None = None


CASES = (
    # The six times when these methods are the wrong tool.
    Case(
        "Our fraud classifier must get the last half per cent right; money is no object.",
        Situation("classification", 80_000, "ample", "little", 340_000_000, last_point=True),
        "full",
        ("full",),
        "last point of quality",
    ),
    Case(
        "Sentiment of 2,000 reviews with MiniLM.",
        Situation("classification", 2000, "ample", "some", 22_713_216),
        "full",
        ("full", "bitfit"),
        "saves next to nothing",
    ),
    Case(
        "I want to give the model a second output that reads tables, and new layers for it.",
        Situation("completion", 50_000, "ample", "some", 1 * GB, new_parts=True),
        "full",
        ("full",),
        "start from nothing",
    ),
    Case(
        "With two examples in the prompt it sorts our mail just as we like.",
        Situation("chat", 5000, "fits", "some", 8 * GB, prompting="enough"),
        "none",
        (),
        "A prompt does it already",
        "Keep the prompt",
    ),
    Case(
        "Turn a general model into one that writes nothing but Fortran; we have 300,000 files.",
        Situation("completion", 300_000, "ample", "little", 3 * GB, shift="far"),
        "full",
        ("full",),
        "learned in every layer",
    ),
    Case(
        "My model is a state-space network from a paper.",
        Situation("completion", 3000, "fits", "some", 1 * GB, known=False),
        "cannot",
        (),
        "attention layers",
        "choose a transformer",
    ),
    # No training.
    Case(
        "It should know our price list, which changes every year and in part every week.",
        Situation("chat", 900, "fits", "some", 8 * GB, changing=True),
        "none",
        (),
        "out of date",
        "retrieval",
    ),
    Case(
        "Here are 40 examples of our tone of voice; I have not tried to prompt it.",
        Situation("chat", 40, "ample", "some", 3 * GB, manner=True),
        "none",
        (),
        "40 rows can be learned by heart",
        "in the prompt",
    ),
    Case(
        "Twelve labelled complaints.",
        Situation("classification", 12, "ample", "some", 110_000_000),
        "none",
        (),
        "12 rows",
        "hundred",
    ),
    Case(
        "Notes of 400 patients in a language that the model has hardly seen.",
        Situation("chat", 400, "fits", "some", 8 * GB, shift="far"),
        "none",
        (),
        "far too few",
        "knows the language",
    ),
    # Training all of it, though it does not fit.
    Case(
        "Two million medical notes in a new language, one 24 GB card, a model of 8 billion weights.",
        Situation("completion", 2_000_000, room(8 * GB, 24 * GB), "little", 8 * GB, shift="far"),
        "full",
        ("full",),
        "does not fit here",
        "smaller model",
    ),
    # Too little memory for anything.
    Case(
        "One 4 GB card and a model of 7 billion weights.",
        Situation("chat", 1500, room(7 * GB, 4 * GB), "some", 7 * GB),
        "cannot",
        (),
        "4 bits",
        "half the size",
    ),
    # The parameter-efficient methods.
    Case(
        "A customer-service bot from 2,000 conversations, 8 billion weights, a 24 GB card.",
        Situation("chat", 2000, room(8 * GB, 24 * GB), "some", 8 * GB),
        "peft",
        ("lora", "adalora"),
        "enough for a small part",
    ),
    Case(
        "The same on a 12 GB card.",
        Situation("chat", 2000, room(8 * GB, 12 * GB), "some", 8 * GB),
        "peft",
        ("qlora", "ia3"),
        "4 bits",
    ),
    Case(
        "Thirty customers, each with its own 500 answers, one model of 8 billion weights on the server.",
        Situation("chat", 500, "fits", "some", 8 * GB, tasks=30),
        "peft",
        ("lora", "prompt_tuning", "ia3"),
        "30 tasks share one model",
    ),
    Case(
        "Finance texts by topic, by tone and by urgency: three label sets, one BERT.",
        Situation("classification", 6000, "ample", "some", tasks=3),
        "peft",
        ("houlsby", "lora", "bitfit"),
        "3 tasks share one model",
        family="BERT",
    ),
    Case(
        "Forty departments, each with its own labels, one BERT.",
        Situation("classification", 3000, "ample", "some", tasks=40),
        "peft",
        ("houlsby", "compacter", "lora"),
        "40 tasks",
        family="BERT",
    ),
    Case(
        "A personal assistant with a steady, dry manner, from 300 answers.",
        Situation("chat", 300, "fits", "some", 1_700_000_000, manner=True, prompting="weak"),
        "peft",
        ("prefix_tuning", "lora", "ia3"),
        "300 rows",
    ),
    Case(
        "The same manner, but the result has to run in another program as one plain model.",
        Situation("chat", 300, "fits", "some", 1_700_000_000, manner=True, one_file=True),
        "peft",
        ("lora", "ia3"),
        "has to merge",
    ),
    Case(
        "Forty examples of our tone; a long prompt was tried and slips back after a while.",
        Situation("chat", 40, "fits", "some", 3 * GB, manner=True, prompting="weak"),
        "peft",
        ("prefix_tuning", "ia3", "lora"),
        "few epochs",
    ),
    Case(
        "Sixty labelled tickets and a BERT.",
        Situation("classification", 60, "ample", "some"),
        "peft",
        ("bitfit", "ia3", "lora"),
        "60 rows are few",
        family="BERT",
    ),
    Case(
        "It must write our reports and lose nothing of its general knowledge.",
        Situation("chat", 1200, "ample", "much", 1 * GB, last_point=True),
        "peft",
        ("lora", "adalora"),
        "frozen weights",
    ),
    Case(
        "Half a million question and answer pairs, and a server with memory to spare.",
        Situation("chat", 500_000, "ample", "some", 1 * GB),
        "peft",
        ("lora", "full", "adalora"),
        "plenty",
    ),
    Case(
        "Headlines for articles, with T5.",
        Situation("seq2seq", 5000, "ample", "some"),
        "peft",
        ("lora", "adalora"),
        "enough",
        family="T5",
    ),
)


def ask(case: Case) -> Advice:
    return advise(case.situation, FAMILIES[case.family] if case.family else None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.words[:50])
def test_that_the_advice_is_an_experts(case: Case) -> None:
    advice = ask(case)
    assert advice.verdict == case.verdict
    assert tuple(choice.method for choice in advice.ranked) == case.methods
    assert case.reason in " ".join(advice.reasons)
    assert case.instead in advice.instead


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.words[:50])
def test_that_every_advice_has_reasons_in_whole_sentences(case: Case) -> None:
    advice = ask(case)
    words = [*advice.reasons, *(choice.why for choice in advice.ranked), *filter(None, [advice.instead])]
    assert advice.reasons
    assert all((text[0].isupper() or text[0].isdigit()) and text.endswith((".", ")")) for text in words)
    assert len(advice.ranked) <= 3


def test_that_only_methods_that_work_on_the_model_are_named() -> None:
    situation = Situation("chat", 300, "fits", manner=True)
    hybrid = model(layer_kinds=("conv", "full_attention"), takes_past=False)
    assert [choice.method for choice in advise(situation, hybrid).ranked] == ["lora", "ia3"]


def test_that_a_model_for_another_task_is_said_to_be_one() -> None:
    advice = advise(Situation("chat", 2000, "ample"), FAMILIES["BERT"])
    assert advice.verdict == "cannot"
    assert "answer in conversations" in advice.reasons[0]


def test_that_a_network_without_attention_is_not_recommended_for_these_methods() -> None:
    advice = advise(Situation("completion", 2000, "ample"), model(layer_kinds=("recurrent",), takes_past=False))
    assert advice.verdict == "cannot"


@pytest.mark.parametrize(
    ("parameters", "memory", "words"),
    [
        (7 * GB, 160 * GB, "ample"),
        (7 * GB, 24 * GB, "fits"),
        (7 * GB, 8 * GB, "tight"),
        (7 * GB, 4 * GB, "short"),
        (135_000_000, 6 * GB, "ample"),
    ],
)
def test_that_room_is_told_by_bytes_a_weight(parameters: int, memory: int, words: str) -> None:
    assert room(parameters, memory) == words
