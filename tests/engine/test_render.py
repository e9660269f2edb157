"""What is trained: masks against an oracle written here, spans against the text, and what cannot be rendered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.engine.conftest import CHATML, make_tokenizer
from tunedesk.core.problems import ProblemError
from tunedesk.core.spec import DataSection
from tunedesk.engine.material import gather, tokenise
from tunedesk.engine.render import Renderer, all_cut, cut_rows, token_stats
from tunedesk.engine.rows import Row, Turn

HERE = Path("talk.jsonl")

DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}" + CHATML
)
TRIMMED = CHATML.replace("message['content']", "message['content'] | trim")
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}{% endgeneration %}"
    "{{ '<|im_end|>\n' }}{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED_WITH_CLOSE = MARKED.replace("{{ message['content'] }}{% endgeneration %}{{ '<|im_end|>\n' }}",
    "{{ message['content'] + '<|im_end|>\n' }}{% endgeneration %}")  # fmt: skip
LAST_TURN_THINKS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
REWRITES = CHATML.replace("message['content']", "message['content'] | upper")
REFUSES_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHATML
OPEN_ENDED = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)

TALKS = [
    [("user", "Where is my Skerry?"), ("assistant", "On its way. Fair winds, Marlow")],
    [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Ahoy"),
        ("user", "Café ☕ 🚢?"),
        ("assistant", "Oui 🚢🚢, là-bas"),
    ],
    [("system", ""), ("user", "a"), ("assistant", "a"), ("user", "a"), ("assistant", "a"), ("user", "thanks")],
    [("user", " padded \n"), ("assistant", " two\n\nlines "), ("user", "ok"), ("assistant", "\nnew line first")],
    [("assistant", "I speak first"), ("user", "Really?"), ("assistant", "Yes")],
]


def row(talk: list[tuple[str, str]], number: int = 1) -> Row:
    return Row(number, tuple(Turn(role, content) for role, content in talk))


def oracle(tokenizer: PreTrainedTokenizerFast, talk: list[tuple[str, str]]) -> list[str]:
    """The trained text of ChatML, written by hand: each answer and its closing token."""
    return [content + "<|im_end|>" for role, content in talk if role == "assistant"]


def trained_texts(tokenizer: PreTrainedTokenizerFast, ids: list[int], marks: bytes) -> list[str]:
    runs: list[list[int]] = []
    before = 0
    for token, mark in zip(ids, marks, strict=True):
        if mark and not before:
            runs.append([])
        if mark:
            runs[-1].append(token)
        before = mark
    return [tokenizer.decode(run) for run in runs]


@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM, MARKED, MARKED_WITH_CLOSE])
@pytest.mark.parametrize("talk", TALKS)
def test_that_answers_and_closing_tokens_are_trained_and_nothing_else(
    template: str, talk: list[tuple[str, str]]
) -> None:
    tokenizer = make_tokenizer(template)
    tokens = Renderer(tokenizer, "chat", "m").render([row(talk)], HERE)[0]
    assert trained_texts(tokenizer, list(tokens.ids), tokens.trained) == oracle(tokenizer, talk)
    messages = [{"role": role, "content": content} for role, content in talk]
    assert list(tokens.ids) == tokenizer.apply_chat_template(messages)["input_ids"]


def test_that_a_template_that_trims_is_followed() -> None:
    tokenizer = make_tokenizer(TRIMMED)
    talk = TALKS[3]
    tokens = Renderer(tokenizer, "chat", "m").render([row(talk)], HERE)[0]
    want = [content.strip() + "<|im_end|>" for role, content in talk if role == "assistant"]
    assert trained_texts(tokenizer, list(tokens.ids), tokens.trained) == want


def test_that_a_template_that_changes_earlier_turns_is_placed_by_its_texts() -> None:
    tokenizer = make_tokenizer(LAST_TURN_THINKS)
    talk = TALKS[1]
    tokens = Renderer(tokenizer, "chat", "m").render([row(talk)], HERE)[0]
    assert trained_texts(tokenizer, list(tokens.ids), tokens.trained) == oracle(tokenizer, talk)


def test_that_an_open_last_answer_is_closed_with_the_end_token() -> None:
    tokenizer = make_tokenizer(OPEN_ENDED)
    tokens = Renderer(tokenizer, "chat", "m").render([row(TALKS[0])], HERE)[0]
    assert tokens.ids[-1] == tokenizer.eos_token_id
    said = trained_texts(tokenizer, list(tokens.ids), tokens.trained)
    assert [text.lstrip() for text in said] == ["On its way. Fair winds, Marlow<|im_end|>"]


def test_that_rows_which_a_template_rewrites_or_refuses_are_named() -> None:
    rows = [row(talk, number) for number, talk in enumerate(TALKS, start=11)]
    with pytest.raises(ProblemError) as caught:
        Renderer(make_tokenizer(REWRITES), "chat", "m").render(rows, HERE)
    assert caught.value.problems[0].code == "template.unstable"
    assert "lines 11, 12, 13, 14 and 1 more" in caught.value.problems[0].where
    with pytest.raises(ProblemError) as caught:
        Renderer(make_tokenizer(REFUSES_SYSTEM), "chat", "m").render(rows, HERE)
    assert caught.value.problems[0].code == "template.refuses"
    assert "lines 12 and 13" in caught.value.problems[0].where
    assert "no system here" in caught.value.problems[0].found
    with pytest.raises(ProblemError) as caught:
        Renderer(make_tokenizer("{% for message in %}"), "chat", "m").render(rows, HERE)
    assert caught.value.problems[0].code == "template.broken"


def test_that_a_chat_needs_a_template() -> None:
    with pytest.raises(ProblemError) as caught:
        Renderer(make_tokenizer(None), "chat", "gpt-tiny")
    assert caught.value.problems[0].code == "template.missing"
    assert "completion" in caught.value.problems[0].fix


def test_that_a_text_is_trained_whole_with_its_end() -> None:
    tokenizer = make_tokenizer()
    renderer = Renderer(tokenizer, "completion", "m")
    tokens = renderer.render([Row(1, text="The lamp is lit.")], HERE)[0]
    assert tokenizer.decode(tokens.ids) == "The lamp is lit.<|im_end|>"
    assert list(tokens.trained) == [0] + [1] * (len(tokens.ids) - 1)
    tokens = renderer.render([Row(1, prompt="Colour: ", text="tide blue")], HERE)[0]
    assert trained_texts(tokenizer, list(tokens.ids), tokens.trained)[0].strip() == "tide blue<|im_end|>"


def test_that_a_leading_token_comes_once() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    renderer = Renderer(tokenizer, "completion", "m")
    for text in ("Lit.", "<|endoftext|>Lit."):
        tokens = renderer.render([Row(1, text=text)], HERE)[0]
        assert tokenizer.decode(tokens.ids) == "<|endoftext|>Lit.<|im_end|>"
        assert tokens.trained[0] == 0
        assert "".join(s.text for t in renderer.show(Row(1, text=text), 99).turns for s in t.spans) == (
            "<|endoftext|>Lit.<|im_end|>"
        )


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM, OPEN_ENDED])
def test_that_what_is_shown_is_what_is_trained(template: str, talk: list[tuple[str, str]]) -> None:
    renderer = Renderer(make_tokenizer(template), "chat", "m")
    tokens = renderer.render([row(talk)], HERE)[0]
    shown = renderer.show(row(talk), 512)
    spans = [span for turn in shown.turns for span in turn.spans]
    assert "".join(span.text for span in spans) == renderer.write(row(talk)).text
    assert [span.kind == "trained" for span in spans] == [bool(mark) for mark in tokens.trained]
    assert shown.tokens == len(tokens.ids)
    assert shown.trained_tokens == tokens.trained_count
    assert [turn.role for turn in shown.turns][-1] == talk[-1][0]
    cut = renderer.show(row(talk), 6)
    assert [span.kind for turn in cut.turns for span in turn.spans][6:] == ["cut"] * (len(spans) - 6)


def test_that_user_words_are_context_and_markers_are_template() -> None:
    shown = Renderer(make_tokenizer(), "chat", "m").show(row(TALKS[0]), 512)
    kinds = {
        kind: "".join(s.text for t in shown.turns for s in t.spans if s.kind == kind)
        for kind in ("context", "template")
    }
    assert kinds["context"] == "Where is my Skerry?"
    assert kinds["template"].startswith("<|im_start|>user\n<|im_end|>")


def test_that_cutting_counts_and_explains() -> None:
    renderer = Renderer(make_tokenizer(), "chat", "m")
    rows = renderer.render([row(talk, number) for number, talk in enumerate(TALKS[:3], start=1)], HERE)
    kept, empty = cut_rows(rows, 5)
    assert not kept
    assert empty == [1, 2, 3]
    problem = all_cut(rows, 5, "line")
    shortest = min(item.needed for item in rows)
    assert "max_length (5)" in problem.what
    assert f"at least {shortest}" in problem.fix
    assert cut_rows(rows, shortest)[0]
    stats = token_stats(rows, 20)
    assert stats.longest == max(len(item.ids) for item in rows)
    assert sum(stats.histogram) == 3
    assert stats.cut_rows == sum(len(item.ids) > 20 for item in rows)


def test_that_refused_rows_are_named_whether_held_out_or_not(tmp_path: Path) -> None:
    talk = {"messages": [{"role": r, "content": f"{r} says"} for r in ("system", "user", "assistant")]}
    lines = [json.dumps({**talk, "id": number}).replace("user says", f"user says {number}") for number in range(10)]
    (tmp_path / "talk.jsonl").write_text("\n".join(lines))
    material = gather(DataSection(train=str(tmp_path / "talk.jsonl"), validation_fraction=0.3), "chat", 0)
    assert material.held
    with pytest.raises(ProblemError) as caught:
        tokenise(material, Renderer(make_tokenizer(REFUSES_SYSTEM), "chat", "m"))
    (problem,) = caught.value.problems
    assert "10 conversations" in problem.what
    assert "lines 1, 2, 3, 4 and 6 more" in problem.where
