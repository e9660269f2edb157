"""Classification rows as the model sees them: the text in the tokenizer's own frame, and the label to be said of it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tunedesk.core.describe import RenderedRow, RenderedTurn, Span, SpanKind
from tunedesk.engine.render import TokenRow, check_offsets
from tunedesk.engine.rows import Row, Tick

_BATCH = 256
_TAUGHT = b"\x01"
"""A row teaches one thing, its label."""


@dataclass(frozen=True, slots=True)
class LabelRow(TokenRow):
    """A text in tokens and the number of its label. `types` are the token types (0 the text, 1 its pair).

    The last `tail` tokens close the text ([SEP]); a cut keeps them.
    """

    label: int = 0
    types: bytes = b""
    tail: int = 0

    def cut(self, max_length: int) -> LabelRow:
        """The first tokens and the closing ones, `max_length` together."""
        if len(self.ids) <= max_length:
            return self
        head, end = max_length - self.tail, len(self.ids) - self.tail
        return replace(self, ids=self.ids[:head] + self.ids[end:], types=self.types[:head] + self.types[end:])


class LabelRenderer:
    """Turns classification rows into tokens for one tokenizer. `labels` are in the order of the model's outputs."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], model_name: str) -> None:
        self._tokenizer = tokenizer
        self._labels = {label: place for place, label in enumerate(labels)}
        check_offsets(tokenizer, model_name)

    def render(self, rows: Sequence[Row], path: Path, unit: Any = "line", tick: Tick | None = None) -> list[TokenRow]:
        """Every row in tokens, not cut."""
        del path, unit  # nothing can go wrong with a text that is a text
        result: list[TokenRow] = []
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            result += [row for row, _ in self._tokenise(part)]
            if tick:
                tick(min(start + _BATCH, len(rows)), len(rows))
        return result

    def _tokenise(self, rows: Sequence[Row]) -> list[tuple[LabelRow, list[tuple[int, int]]]]:
        """Rows in tokens, with the characters that each token stands for; a pair's go on where the text ends."""
        pairs = [row.pair for row in rows] if any(row.pair for row in rows) else None
        out = self._tokenizer(
            [row.text for row in rows],
            pairs,
            add_special_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_token_type_ids=True,
            verbose=False,
        )
        found = []
        for place, row in enumerate(rows):
            ids, special = out["input_ids"][place], out["special_tokens_mask"][place]
            types = out["token_type_ids"][place] if "token_type_ids" in out else [0] * len(ids)
            parts = out.sequence_ids(place)
            tail = next((count for count, mark in enumerate(reversed(special)) if not mark), 0)
            shift = [len(row.text) if part == 1 else 0 for part in parts]
            offsets = [(a + by, b + by) for (a, b), by in zip(out["offset_mapping"][place], shift, strict=True)]
            label = self._labels.get(row.label, 0)
            found.append(
                (LabelRow(row.number, array("i", ids), _TAUGHT, label, bytes(types), tail), offsets),
            )
        return found

    def show(self, row: Row, max_length: int) -> RenderedRow:
        """The row as spans of one token each, and its label, which is what is trained."""
        tokens, offsets = self._tokenise([row])[0]
        text, names = row.text + row.pair, self._tokenizer.convert_ids_to_tokens(list(tokens.ids))
        kept = max_length - tokens.tail if len(tokens.ids) > max_length else len(tokens.ids)
        spans: list[Span] = []
        done = 0
        for place, (start, end) in enumerate(offsets):
            closing = place >= len(tokens.ids) - tokens.tail
            if start == end:
                kind: SpanKind = "template" if closing or place < kept else "cut"
                spans.append(Span(text=f"{text[done:] if closing else ''}{names[place]}", kind=kind))
                done = len(text) if closing else done
                continue
            spans.append(Span(text=text[done:end], kind="context" if place < kept else "cut"))
            done = end
        turns = (
            RenderedTurn(role="text", spans=tuple(spans)),
            RenderedTurn(role="label", spans=(Span(text=row.label, kind="trained"),)),
        )
        return RenderedRow(row=row.number, turns=turns, tokens=len(tokens.ids), trained_tokens=1)
