"""Rows of two texts as an encoder-decoder sees them: the source that is read, and the target that is to be written.

Both stand in the tokenizer's own frame, as transformers' own examples have them; a T5 closes each with ``</s>``.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tunedesk.core.describe import RenderedRow, RenderedTurn, Span, SpanKind
from tunedesk.engine.render import Range, TokenRow, check_offsets
from tunedesk.engine.rows import Row, Tick

_BATCH = 256

Tokenised = tuple[list[int], list[Range], int]
"""A text in tokens, the characters that each stands for, and how many close it."""


@dataclass(frozen=True, slots=True)
class Seq2SeqRow(TokenRow):
    """Source and target in tokens, one after the other; the first `source` tokens are the source.

    The last `tail` tokens of the source close it; a cut keeps them.
    """

    source: int = 0
    tail: int = 0

    @property
    def source_ids(self) -> array[int]:
        return self.ids[: self.source]

    @property
    def target_ids(self) -> array[int]:
        return self.ids[self.source :]

    def cut(self, max_length: int) -> Seq2SeqRow:
        """Source and target with at most `max_length` tokens each.

        A target that is cut has no closing token: nothing teaches the model to stop in the middle.
        """
        target = self.target_ids
        if self.source <= max_length and len(target) <= max_length:
            return self
        source = self.source_ids
        if len(source) > max_length:
            source = source[: max_length - self.tail] + source[len(source) - self.tail :]
        target = target[:max_length]
        trained = bytes(len(source)) + self.trained[self.source : self.source + len(target)]
        return replace(self, ids=source + target, trained=trained, source=len(source))

    @property
    def needed(self) -> int:
        """Every length leaves a token to learn: the target is cut apart from the source."""
        return 1


class Seq2SeqRenderer:
    """Turns rows of two texts into tokens for one tokenizer. Raises `ProblemError` when it tells no characters."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model_name: str) -> None:
        self._tokenizer = tokenizer
        check_offsets(tokenizer, model_name)

    def render(self, rows: Sequence[Row], path: Path, unit: Any = "line", tick: Tick | None = None) -> list[TokenRow]:
        """Every row in tokens, not cut."""
        del path, unit  # nothing can go wrong with a text that is a text
        result: list[TokenRow] = []
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            sources = self._tokenise([row.prompt for row in part])
            targets = self._targets([row.text for row in part])
            result += [_joined(*item) for item in zip(part, sources, targets, strict=True)]
            if tick:
                tick(min(start + _BATCH, len(rows)), len(rows))
        return result

    def _tokenise(self, texts: Sequence[str], target: bool = False) -> list[Tokenised]:
        key = "text_target" if target else "text"
        out = self._tokenizer(
            **{key: list(texts)}, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
        )
        found: list[Tokenised] = []
        for place in range(len(texts)):
            special = out["special_tokens_mask"][place]
            tail = next((count for count, mark in enumerate(reversed(special)) if not mark), 0)
            found.append((out["input_ids"][place], out["offset_mapping"][place], tail))
        return found

    def _targets(self, texts: Sequence[str]) -> list[Tokenised]:
        """The texts as targets; where the tokenizer does not close them, the token that ends an answer is added."""
        eos = self._tokenizer.eos_token_id
        found = self._tokenise(texts, target=True)
        if not isinstance(eos, int):
            return found
        return [
            item if item[0] and item[0][-1] == eos else ([*item[0], eos], [*item[1], (0, 0)], item[2] + 1)
            for item in found
        ]

    def show(self, row: Row, max_length: int) -> RenderedRow:
        """Source and target as spans of one token each; the target is what is trained."""
        (source,), (target,) = self._tokenise([row.prompt]), self._targets([row.text])
        tokens = _joined(row, source, target)
        turns = (
            RenderedTurn(role="source", spans=self._spans(row.prompt, source, "context", max_length, keeps_end=True)),
            RenderedTurn(role="target", spans=self._spans(row.text, target, "trained", max_length, keeps_end=False)),
        )
        kept = tokens.cut(max_length).trained_count
        return RenderedRow(row=row.number, turns=turns, tokens=len(tokens.ids), trained_tokens=kept)

    def _spans(
        self, text: str, tokens: Tokenised, kind: SpanKind, max_length: int, keeps_end: bool
    ) -> tuple[Span, ...]:
        """The tokens of a text with all of its characters; those of the frame by their names."""
        ids, offsets, tail = tokens
        names = self._tokenizer.convert_ids_to_tokens(list(ids))
        kept = len(ids) if len(ids) <= max_length else max_length - (tail if keeps_end else 0)
        spans: list[Span] = []
        done = 0
        for place, (start, end) in enumerate(offsets):
            closing = place >= len(ids) - tail
            inside: SpanKind = kind if place < kept or (closing and keeps_end) else "cut"
            if closing or (start == end and not done):
                rest, done = (text[done:], len(text)) if closing else ("", done)
                inside = "template" if inside == "context" else inside
                spans.append(Span(text=f"{rest}{names[place]}", kind=inside))
                continue
            stop = max(done, end)
            spans.append(Span(text=text[done:stop], kind=inside))
            done = stop
        return tuple(spans)


def _joined(row: Row, source: Tokenised, target: Tokenised) -> Seq2SeqRow:
    ids = array("i", [*source[0], *target[0]])
    trained = bytes(len(source[0])) + b"\1" * len(target[0])
    return Seq2SeqRow(row.number, ids, trained, len(source[0]), source[2])
