"""How much of general text a model forgets: read before any training, and again with the weights that are kept."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tunedesk.core.describe import ModelInfo, TaskKind
from tunedesk.core.events import ForgettingChecked, Stage
from tunedesk.core.paths import general_text
from tunedesk.engine.batches import LabelPack
from tunedesk.engine.channel import Channel, Stopped
from tunedesk.engine.label_rows import LabelRow
from tunedesk.engine.learner import Learner, evaluate
from tunedesk.engine.loading import new_parts
from tunedesk.engine.objectives import Label
from tunedesk.engine.render import TokenRow
from tunedesk.engine.seq2seq_rows import Seq2SeqRow

PASSAGES, LENGTH = 16, 256
"""Passages from all over the text, and the tokens of each. The same 4,096 tokens before and after tell a change of
about 0.01 nats from chance."""

_CHARACTERS = 8 * LENGTH
"""Of a passage: more than its tokens need in any usual vocabulary."""


class GeneralText:
    """General text in tokens, and what the untouched model made of it. `learner` must be fresh.

    Where the model predicts text that is its loss; of a classifier, what comes to its head. Raises `Stopped`.
    """

    def __init__(
        self, learner: Learner, tokenizer: PreTrainedTokenizerBase, info: ModelInfo, task: TaskKind, channel: Channel
    ) -> None:
        channel.emit(Stage(text="Reading general text, to see later what was forgotten"))
        length = min(LENGTH, info.context_length or LENGTH)
        self._rows = _rows(tokenizer, length, task)
        with learner.tuned.untouched():
            self._before = self._look(learner, channel)

    def check(self, learner: Learner, step: int, channel: Channel | None = None) -> ForgettingChecked:
        """The same again with the weights that `learner` has now, those of `step`. Raises `Stopped`."""
        after = self._look(learner, channel)
        tokens = sum(len(row.ids) for row in self._rows)
        if isinstance(after, float) and isinstance(self._before, float):
            return ForgettingChecked(measure="loss", before=self._before, after=after, tokens=tokens, step=step)
        likeness = torch.nn.functional.cosine_similarity(torch.as_tensor(self._before), torch.as_tensor(after), dim=-1)
        drift = 1.0 - float(likeness.mean())
        return ForgettingChecked(measure="drift", before=0.0, after=drift, tokens=tokens, step=step)

    def _look(self, learner: Learner, channel: Channel | None) -> float | Tensor:
        if learner.reader is None:
            return _pictures(learner, self._rows, channel)
        batches = learner.reader.batches(self._rows)
        return evaluate(learner, batches, channel, learner.reader).loss


def passages(count: int = PASSAGES) -> list[str]:
    """`count` passages of general text, evenly from all over it, each from the start of a paragraph on."""
    text = general_text().read_text(encoding="utf-8")
    near = [place * len(text) // count for place in range(count)]
    starts = [text.rfind("\n\n", 0, place) + 2 if place else 0 for place in near]
    return [text[start : start + _CHARACTERS] for start in starts]


def _rows(tokenizer: PreTrainedTokenizerBase, length: int, task: TaskKind) -> Sequence[TokenRow]:
    if task == "classification":
        found = [tokenizer(text, truncation=True, max_length=length)["input_ids"] for text in passages()]
        return [LabelRow(at, array("i", ids), b"\x01", types=bytes(len(ids))) for at, ids in enumerate(found, start=1)]
    ids = [tokenizer(text, truncation=True, max_length=length)["input_ids"] for text in passages()]
    if task == "seq2seq":  # the second half of a passage is to be written from the first
        return [_in_halves(at, row) for at, row in enumerate(ids, start=1) if len(row) > 1]
    return [
        TokenRow(at, array("i", row), b"\x00" + b"\x01" * (len(row) - 1))
        for at, row in enumerate(ids, start=1)
        if len(row) > 1
    ]


def _in_halves(number: int, ids: list[int]) -> Seq2SeqRow:
    half = len(ids) // 2
    return Seq2SeqRow(number, array("i", ids), bytes(half) + b"\x01" * (len(ids) - half), source=half)


@torch.no_grad()
def _pictures(learner: Learner, rows: Sequence[TokenRow], channel: Channel | None) -> Tensor:
    """What comes to the head of a classifier for each row, its mean over the tokens, (rows, H) in fp32 on the CPU."""
    assert isinstance(learner.objective, Label)
    learner.model.eval()
    found = []
    for row in rows:
        if channel is not None and channel.stop_asked:
            raise Stopped
        batch = learner.objective.batches([row])[0]
        places = batch.everywhere() if isinstance(batch, LabelPack) else batch
        with _before_head(learner.model.get_base_model()) as seen:
            learner.objective.scores(places)
        length = len(row.ids) if isinstance(batch, LabelPack) else batch.input_ids.shape[1]
        found.append(_mean(seen[0].float().cpu().flatten(0, -2), len(row.ids), length))
    return torch.stack(found)


def _mean(hidden: Tensor, places: int, length: int) -> Tensor:
    """The mean of a row's `places` tokens in (T, H), where virtual tokens stand before and padding behind.

    Where the row is one thing already, (1, H), it is that.
    """
    return hidden[-length:][:places].mean(0)


@contextmanager
def _before_head(base: Any) -> Iterator[list[Tensor]]:
    """Within it, whatever comes to the pooler and the new parts of the classifier `base` is put down, the first first.

    What a pooler makes of it says little of the text: it is trained for the labels, even where the files have it.
    """
    seen: list[Tensor] = []

    def note(_: Any, inputs: tuple[Any, ...]) -> None:
        seen.extend(item.detach() for item in inputs[:1])

    pooler = getattr(base.base_model, "pooler", None)
    heads = [*([pooler] if pooler is not None else []), *(base.get_submodule(part) for part in new_parts(base))]
    hooks = [module.register_forward_pre_hook(note) for module in heads]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
