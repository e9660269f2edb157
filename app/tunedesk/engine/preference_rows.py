"""Rows of preferences as the model sees them: a better and a worse answer, each after what both answer."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tunedesk.core.describe import RenderedRow, RenderedTurn, Span
from tunedesk.core.problems import raise_if_any
from tunedesk.engine.render import Renderer, TokenRow, check_offsets
from tunedesk.engine.rows import Faults, Row, Tick, Turn, seam


@dataclass(frozen=True, slots=True)
class PreferenceRow(TokenRow):
    """Two texts in tokens, one after the other, each the prompt and an answer: the first `split` are the better one.

    An answer that is rated alone stands alone: of a good one `split` is all, of a bad one 0.
    """

    split: int = 0

    @property
    def length(self) -> int:
        """Tokens of the longer text."""
        return max(self.split, len(self.ids) - self.split)

    @property
    def is_pair(self) -> bool:
        """Whether there are two answers to the same prompt."""
        return 0 < self.split < len(self.ids)

    def texts(self) -> list[TokenRow]:
        """The texts that there are, the better one first."""
        ends = [(start, end) for start, end in ((0, self.split), (self.split, len(self.ids))) if end > start]
        return [TokenRow(self.number, self.ids[start:end], self.trained[start:end]) for start, end in ends]

    def cut(self, max_length: int) -> PreferenceRow:
        """Each text with its first `max_length` tokens; nothing is trained where that leaves no difference to learn."""
        if self.length <= max_length:
            return self
        texts = [text.cut(max_length) for text in self.texts()]
        teaches = all(any(text.trained) for text in texts) and (len(texts) < 2 or texts[0].ids != texts[1].ids)
        row = _joined(self.number, texts, min(self.split, max_length))
        return row if teaches else replace(row, trained=bytes(len(row.ids)))

    @property
    def needed(self) -> int:
        """The shortest `max_length` that leaves something to learn."""
        first = max(text.trained.find(1) for text in self.texts())
        if not self.is_pair:
            return first + 1
        better, worse = (text.ids for text in self.texts())
        apart = next((at for at, pair in enumerate(zip(better, worse, strict=False)) if pair[0] != pair[1]), None)
        return 1 + max(first, min(len(better), len(worse)) if apart is None else apart)


def _joined(number: int, texts: Sequence[TokenRow], split: int) -> PreferenceRow:
    ids = array("i", [token for text in texts for token in text.ids])
    return PreferenceRow(number, ids, b"".join(text.trained for text in texts), split)


class PreferenceRenderer:
    """Turns preferences into tokens for one tokenizer: as conversations where it has a chat template, whose last answer
    alone is trained, and as prompt and answer one after the other where it has none.

    Raises `ProblemError` when the tokenizer does not say which characters a token stands for.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model_name: str) -> None:
        self._name = model_name
        self._talks = bool(tokenizer.chat_template)
        check_offsets(tokenizer, model_name)
        self._renderer = Renderer(tokenizer, "chat" if self._talks else "completion", model_name)

    def render(self, rows: Sequence[Row], path: Path, unit: Any = "line", tick: Tick | None = None) -> list[TokenRow]:
        """Every row in tokens, not cut. `path` and `unit` only serve to name rows in problems.

        Raises `ProblemError` for rows that the template refuses, and conversations where there is none.
        """
        self._check(rows, path, unit)
        texts = [text for row in rows for text in self._texts(row)]

        def half(done: int, total: int | None) -> None:
            if tick and total:
                tick(done * len(rows) // total, len(rows))

        rendered = iter(self._renderer.render(texts, path, unit, half))
        return [self._in_tokens(row, [_last_alone(next(rendered)) for _ in self._texts(row)]) for row in rows]

    def _in_tokens(self, row: Row, texts: Sequence[TokenRow]) -> TokenRow:
        return _joined(row.number, texts, len(texts[0].ids) if row.chosen else 0)

    def _texts(self, row: Row) -> list[Row]:
        """Each answer with all that comes before it, as a row of its own."""
        return [self._text(row, answer) for answer in (row.chosen, row.rejected) if answer]

    def _text(self, row: Row, answer: Sequence[Turn]) -> Row:
        if self._talks:
            return Row(row.number, (*row.turns, *answer))
        prompt, text = "".join(turn.content for turn in row.turns), answer[-1].content
        return Row(row.number, prompt=seam(prompt, text) if prompt else "", text=text)

    def _check(self, rows: Sequence[Row], path: Path, unit: Any) -> None:
        """Conversations need a template."""
        faults = Faults(unit, path)
        for row in rows if not self._talks else ():
            if len(row.turns) > 1 or len(row.chosen) > 1 or len(row.rejected) > 1:
                faults.add(
                    "template.missing",
                    row.number,
                    f"{self._name} has no chat template, and one row is a conversation.",
                    f"{self._name} has no chat template, and {{n}} rows are conversations.",
                    "Choose an instruct model, or rows of one prompt and its answers.",
                )
        raise_if_any(faults.problems())

    def show(self, row: Row, max_length: int) -> RenderedRow:
        """The prompt, and each answer, as spans of one token each; joined they are what the model gets."""
        turns: list[RenderedTurn] = []
        tokens = 0
        sides = [(role, answer) for role, answer in (("chosen", row.chosen), ("rejected", row.rejected)) if answer]
        for role, answer in sides:
            shown = self._renderer.show(self._text(row, answer), max_length)
            own = len(answer) if self._talks else 1
            before = _spans(shown.turns[:-own])
            if before and not turns:
                turns.append(RenderedTurn(role="prompt", spans=_untaught(before)))
            last = shown.turns[-1].spans
            turns.append(RenderedTurn(role=role, spans=(*_untaught(_spans(shown.turns[-own:-1])), *last)))
            tokens += shown.tokens
        trained = sum(span.kind == "trained" for turn in turns for span in turn.spans)
        return RenderedRow(row=row.number, turns=tuple(turns), tokens=tokens, trained_tokens=trained)


def _last_alone(row: TokenRow) -> TokenRow:
    """`row` with nothing but its last answer trained."""
    start = row.trained.rfind(b"\x00\x01") + 1
    return replace(row, trained=bytes(start) + row.trained[start:])


def _spans(turns: Iterable[RenderedTurn]) -> list[Span]:
    return [span for turn in turns for span in turn.spans]


def _untaught(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Earlier answers are read and not taught."""
    return tuple(span.model_copy(update={"kind": "context"}) if span.kind == "trained" else span for span in spans)


def show_answers(row: Row) -> tuple[RenderedTurn, ...]:
    """The row without a model: the prompt, or the turns before the answers, and these."""
    alone = len(row.turns) == 1
    said = [
        RenderedTurn(role="prompt" if alone else turn.role, spans=(Span(text=turn.content, kind="context"),))
        for turn in row.turns
    ]
    for role, answer in (("chosen", row.chosen), ("rejected", row.rejected)):
        spans = [
            Span(text=turn.content, kind="trained" if place == len(answer) else "context")
            for place, turn in enumerate(answer, start=1)
        ]
        said += [RenderedTurn(role=role, spans=tuple(spans))] if spans else []
    return tuple(said)
