"""Classification rows as the model sees them: the text in the tokenizer's own frame, and the label to be said of it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tunedesk.core.describe import RenderedRow, RenderedTurn, Span, SpanKind
from tunedesk.engine.render import TokenRow, check_offsets
from tunedesk.engine.rows import Row, Tick

_BATCH = 256
_TAUGHT = b"\x01"
"""A row teaches one thing, its label."""

_SEAM = "\n"
"""Between a text and its pair for models whose tokenizers set nothing between two texts."""

NOTHING = "none"
"""What is said of a text that has no label."""


@dataclass(frozen=True, slots=True)
class LabelRow(TokenRow):
    """A text in tokens and the number of its label. `types` are the token types (0 the text, 1 its pair).

    The last `tail` tokens close the text ([SEP]); a cut keeps them. Where a text may have any number of labels, the
    numbers of all of them are in `several`; where it has a measured number, that is `value`.
    """

    label: int = 0
    types: bytes = b""
    tail: int = 0
    several: array[int] = field(default_factory=lambda: array("i"))
    value: float = 0.0

    def cut(self, max_length: int) -> LabelRow:
        """The first tokens and the closing ones, `max_length` together."""
        if len(self.ids) <= max_length:
            return self
        head, end = max_length - self.tail, len(self.ids) - self.tail
        return replace(self, ids=self.ids[:head] + self.ids[end:], types=self.types[:head] + self.types[end:])


class LabelRenderer:
    """Turns classification rows into tokens for one tokenizer. `labels` are in the order of the model's outputs.

    With `one_text` a text and its pair are one text of two lines, as for models that write: their tokenizers know no
    frame for two.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], model_name: str, one_text: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._one_text = one_text
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
        pairs = [row.pair for row in rows] if any(row.pair for row in rows) and not self._one_text else None
        texts = [self._text(row) for row in rows]
        out = self._tokenizer(
            texts,
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
            plain = self._one_text or "token_type_ids" not in out
            types = [0] * len(ids) if plain else out["token_type_ids"][place]
            parts = out.sequence_ids(place)
            tail = next((count for count, mark in enumerate(reversed(special)) if not mark), 0)
            shift = [len(texts[place]) if part == 1 else 0 for part in parts]
            offsets = [(a + by, b + by) for (a, b), by in zip(out["offset_mapping"][place], shift, strict=True)]
            said = array("i", (self._labels[label] for label in row.labels if label in self._labels))
            tokens = LabelRow(
                row.number, array("i", ids), _TAUGHT, said[0] if said else 0, bytes(types), tail, said, row.value or 0.0
            )
            found.append((tokens, offsets))
        return found

    def _text(self, row: Row) -> str:
        """The first text that the tokenizer gets; with `one_text`, all that there is."""
        return f"{row.text}{_SEAM}{row.pair}" if self._one_text and row.pair else row.text

    def show(self, row: Row, max_length: int) -> RenderedRow:
        """The row as spans of one token each, and its label, which is what is trained."""
        tokens, offsets = self._tokenise([row])[0]
        text = self._text(row) + ("" if self._one_text else row.pair)
        names = self._tokenizer.convert_ids_to_tokens(list(tokens.ids))
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
            RenderedTurn(role="label", spans=(Span(text=said_of(row), kind="trained"),)),
        )
        return RenderedRow(row=row.number, turns=turns, tokens=len(tokens.ids), trained_tokens=1)


def said_of(row: Row) -> str:
    """What a row teaches, in words: its label, its labels, or its number."""
    return written(row.value) if row.value is not None else ", ".join(row.labels) or NOTHING


def written(number: float) -> str:
    """A number as people write it, to four digits or to the whole: ``4.5``, ``0.8333``, ``1234``."""
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.4g}"
