"""The objective of seq2seq: the target text of a source text, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from tunedesk.engine.batches import LABEL_ROUND, ROUND, TokenLoss
from tunedesk.engine.methods import writer
from tunedesk.engine.objectives.base import Measures, Objective, Precision, Tally, arithmetic
from tunedesk.engine.render import TokenRow
from tunedesk.engine.rouge import rouge_l, same_words
from tunedesk.engine.seq2seq_rows import Seq2SeqRow

ASKED = 64
"""Rows of a check whose targets the model is asked for."""

ANSWER_TOKENS = 64
"""Tokens that it writes for each, at most. Of a longer target as many are compared."""

_SHORT = 64
"""Lengths up to this are padded to multiples of 8, longer ones to multiples of 32."""


@dataclass(frozen=True)
class Seq2SeqBatch:
    """Rows padded at the right: sources as (rows, S), what the decoder reads as (rows, T) tensors.

    `taught` is true where a token is to be predicted; `targets` are those tokens, row by row. `asked` are the places
    of the rows whose targets are asked for when it is a check.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    decoder_input_ids: torch.Tensor
    taught: torch.Tensor
    targets: torch.Tensor
    tokens: int
    asked: tuple[int, ...]

    @property
    def trained(self) -> int:
        return self.targets.numel()

    def to(self, device: torch.device) -> Seq2SeqBatch:
        """The batch on `device`."""
        return Seq2SeqBatch(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.decoder_input_ids.to(device),
            self.taught.to(device),
            self.targets.to(device),
            self.tokens,
            self.asked,
        )


@dataclass
class AnswerTally(Tally):
    """What was written for the rows that were asked, and what was right."""

    written: list[str] = field(default_factory=list)
    right: list[str] = field(default_factory=list)

    def measures(self, loss: float) -> Measures:
        del loss
        pairs = list(zip(self.written, self.right, strict=True))
        if not pairs:
            return Measures()
        exact, near = sum(same_words(*pair) for pair in pairs), sum(rouge_l(*pair) for pair in pairs)
        return Measures({"exact_match": exact / len(pairs), "rouge_l": near / len(pairs)})


@dataclass
class Seq2Seq(Objective):
    """Cross entropy of the target's tokens, in padded batches of like lengths.

    At a check the targets of `asked` rows at most, evenly from short to long ones, are written by the model itself,
    always the likeliest token, up to `answer_tokens`.
    """

    model: Any
    device: torch.device
    precision: Precision
    pad_id: int
    micro_batch_size: int
    tokenizer: PreTrainedTokenizerBase
    asked: int = ASKED
    answer_tokens: int = ANSWER_TOKENS
    grouped: bool = True

    def batches(self, rows: Sequence[TokenRow]) -> Sequence[Seq2SeqBatch]:
        pairs = sorted((row for row in rows if isinstance(row, Seq2SeqRow)), key=lambda row: (row.source, len(row.ids)))
        size, every = self.micro_batch_size, -(-len(pairs) // max(1, self.asked))
        asked = set(range(0, len(pairs), every)) if self.asked and pairs else set()
        return [
            self._batch(
                pairs[start : start + size],
                tuple(place - start for place in range(start, start + size) if place in asked),
            )
            for start in range(0, len(pairs), size)
        ]

    def _batch(self, rows: Sequence[Seq2SeqRow], asked: tuple[int, ...]) -> Seq2SeqBatch:
        """One batch of `rows`, on the CPU, of which those at the places `asked` are asked."""
        sources, targets = [row.source_ids for row in rows], [row.target_ids for row in rows]
        ids, mask = self._padded(sources)
        wanted, taught = self._padded(targets)
        read = torch.full_like(wanted, self.pad_id)
        read[:, 1:] = wanted[:, :-1]
        read[:, 0] = self.start
        tokens = int(mask.sum() + taught.sum())
        return Seq2SeqBatch(ids, mask, read, taught.bool(), wanted[taught.bool()], tokens, asked)

    def _padded(self, rows: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids (rows, longest) and the mask of what is no padding."""
        length = max(len(row) for row in rows)
        if len(rows) > 1:
            step = LABEL_ROUND if length <= _SHORT else ROUND
            length = -(-length // step) * step
        ids = torch.full((len(rows), length), self.pad_id, dtype=torch.long)
        mask = torch.zeros((len(rows), length), dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.frombuffer(row, dtype=torch.int32)
            mask[place, : len(row)] = 1
        return ids, mask

    @property
    def start(self) -> int:
        """The token that every answer begins after."""
        return int(self.model.config.decoder_start_token_id)

    def loss(self, batch: Seq2SeqBatch, tally: Tally | None = None) -> torch.Tensor:
        here = batch.to(self.device)
        with arithmetic(self.device, self.precision):
            out = self.model(
                input_ids=here.input_ids,
                attention_mask=here.attention_mask,
                decoder_input_ids=here.decoder_input_ids,
                use_cache=False,
            )
            loss: torch.Tensor = TokenLoss.apply(out.logits[here.taught], here.targets)  # type: ignore[no-untyped-call]
            if isinstance(tally, AnswerTally) and batch.asked:
                self._ask(here, tally)
        return loss

    def _ask(self, batch: Seq2SeqBatch, tally: AnswerTally) -> None:
        """Let the model write the targets of the batch's rows that are asked."""
        asked = list(batch.asked)
        written = writer(self.model).generate(
            input_ids=batch.input_ids[asked],
            attention_mask=batch.attention_mask[asked],
            generation_config=GenerationConfig(
                max_new_tokens=self.answer_tokens,
                do_sample=False,
                num_beams=1,
                use_cache=True,
                decoder_start_token_id=self.start,
                eos_token_id=self.tokenizer.eos_token_id,
                pad_token_id=self.pad_id,
            ),
        )
        right = torch.split(batch.targets, batch.taught.sum(-1).tolist())
        tally.written += self._text(written.tolist())
        tally.right += self._text([right[place][: self.answer_tokens].tolist() for place in asked])

    def _text(self, ids: list[list[int]]) -> list[str]:
        return list(self.tokenizer.batch_decode(ids, skip_special_tokens=True))

    def tally(self) -> AnswerTally:
        return AnswerTally()
