"""The objective of preferences: of two answers favour the better, or favour good ones and shun bad ones.

What counts is by how much more likely an answer has become than it was before training, the log-ratio r = log p(answer)
- log p_before(answer), in nats; p_before comes from the same weights with what was learned left out, computed anew for
every batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tunedesk.engine.batches import Batch, collate, token_losses
from tunedesk.engine.fast.model import FastModel
from tunedesk.engine.fast.packing import Pack, groups, pack
from tunedesk.engine.methods import Tuned
from tunedesk.engine.objectives.base import Measures, Objective, Precision, Tally, arithmetic
from tunedesk.engine.preference_rows import PreferenceRow
from tunedesk.engine.render import TokenRow

LossName = Literal["dpo", "kto", "orpo"]

_LEAST = 1e-6
"""Mean negative log-likelihood of a token below which odds are not told apart: fp32 has none for certainty."""


@dataclass(frozen=True)
class Answers:
    """Texts that end with an answer, to be computed together; `counts` are the tokens of each one's answer."""

    texts: Batch | Pack
    counts: tuple[int, ...]

    def to(self, device: torch.device) -> Answers:
        """The same on `device`."""
        return Answers(self.texts.to(device), self.counts)


@dataclass(frozen=True)
class PreferenceBatch:
    """Answers, of pairs the better before the worse; `good` (answers,) is true of the better.

    `strange` are other prompts' answers to the same prompts, for KTO alone. What is counted are the `trained` pairs,
    or single answers.
    """

    answers: Answers
    good: Tensor
    strange: Answers | None
    paired: bool
    trained: int

    @property
    def tokens(self) -> int:
        return self.answers.texts.tokens + (self.strange.texts.tokens if self.strange else 0)

    def to(self, device: torch.device) -> PreferenceBatch:
        """The batch on `device`."""
        strange = self.strange and self.strange.to(device)
        return PreferenceBatch(self.answers.to(device), self.good.to(device), strange, self.paired, self.trained)


@dataclass
class PreferenceTally(Tally):
    """By how much the better answer of each pair is favoured, or how much good and bad answers are, in nats."""

    margins: list[float] = field(default_factory=list)
    good: list[float] = field(default_factory=list)
    bad: list[float] = field(default_factory=list)

    def measures(self, loss: float) -> Measures:
        """`preference_accuracy` counts pairs in which neither is favoured, as before training, as half."""
        del loss
        if self.margins:
            right = sum(1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in self.margins)
            return Measures(
                {"preference_accuracy": right / len(self.margins), "reward_margin": _mean(self.margins)},
            )
        return Measures({"reward_margin": _mean(self.good) - _mean(self.bad)} if self.good and self.bad else {})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@dataclass
class Preference(Objective):
    """DPO, KTO or ORPO, in packs with `fast`, in padded micro-batches without. Both answers of a pair go together.

    DPO (Rafailov et al. 2023, equation 7): a pair's loss is -log sigmoid(beta (r_better - r_worse)).

    KTO (Ethayarajh et al. 2024, equation 7): an answer's loss is 1 - sigmoid(beta (r - k)), of a bad one
    1 - sigmoid(beta (k - r)), times the weight of its kind. k >= 0 says how far the model is from what it was: the mean
    log-ratio of answers to other prompts, those of the row before in the same step. It is taken over a micro-batch, as
    TRL takes it, so other than with DPO and ORPO the micro-batch changes the result: a larger one knows k better.
    Where a step has a single row, k is 0. Pairs count as a good and a bad answer. `weights` are those of good and of
    bad answers, see `balance`.

    ORPO (Hong et al. 2024, equations 6 and 7): a pair's loss is the mean negative log-likelihood of the better
    answer's tokens, less beta log sigmoid of the log odds ratio, where an answer's odds are p / (1 - p) of its mean
    token. It asks for no model as it was. (TRL counts the prompt's tokens into the likelihood, the paper does not.)

    Measured are beta (r_better - r_worse), without pairs the difference of the mean beta r, with ORPO the log odds
    ratio.
    """

    tuned: Tuned
    fast: FastModel | None
    name: LossName
    beta: float
    device: torch.device
    precision: Precision
    pad_id: int
    micro_batch_size: int
    pack_tokens: int
    max_length: int
    weights: tuple[float, float] = (1.0, 1.0)
    grouped: bool = False

    def batches(self, rows: Sequence[TokenRow]) -> Sequence[PreferenceBatch]:
        pairs = [row for row in rows if isinstance(row, PreferenceRow)]
        strange = self._strange(pairs) if self.name == "kto" else {}
        return [self._batch(part, [strange[id(row)] for row in part] if strange else []) for part in self._parts(pairs)]

    def _parts(self, rows: Sequence[PreferenceRow]) -> Sequence[Sequence[PreferenceRow]]:
        if self.fast is not None:
            return groups(rows, self.pack_tokens)
        ordered, size = sorted(rows, key=lambda row: row.length), self.micro_batch_size
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]

    def _strange(self, rows: Sequence[PreferenceRow]) -> dict[int, list[TokenRow]]:
        """For each row, by its `id`, its prompts with the answers of the row before it; empty for a single row."""
        if len(rows) < 2:
            return {}
        found = {}
        for row, other in zip(rows, [rows[-1], *rows[:-1]], strict=True):
            answers = other.texts()
            found[id(row)] = [
                _swapped(text, answers[min(place, len(answers) - 1)]).cut(self.max_length)
                for place, text in enumerate(row.texts())
            ]
        return found

    def _batch(self, rows: Sequence[PreferenceRow], strange: Sequence[Sequence[TokenRow]]) -> PreferenceBatch:
        texts = [(text, place == 0 and row.split > 0) for row in rows for place, text in enumerate(row.texts())]
        paired = all(row.is_pair for row in rows)
        return PreferenceBatch(
            answers=self._answers([text for text, _ in texts]),
            good=torch.tensor([good for _, good in texts]),
            strange=self._answers([text for part in strange for text in part]) if strange else None,
            paired=paired,
            trained=len(texts) if self.name == "kto" else len(rows),
        )

    def _answers(self, texts: Sequence[TokenRow]) -> Answers:
        together = pack(texts) if self.fast is not None else collate(texts, self.pad_id)
        return Answers(together, tuple(sum(text.trained[1:]) for text in texts))

    def loss(self, batch: PreferenceBatch, tally: Tally | None = None) -> Tensor:
        here = batch.to(self.device)
        match self.name:
            case "dpo":
                margins = self._apart(self.beta * self._ratios(here.answers))
                loss = -logsigmoid(margins).sum()
            case "kto":
                far = self._distance(here.strange)
                rewards = self.beta * self._ratios(here.answers)
                shifted = torch.where(here.good, rewards - self.beta * far, self.beta * far - rewards)
                good, bad = self.weights
                loss = ((1 - shifted.sigmoid()) * torch.where(here.good, good, bad)).sum()
                margins = self._apart(rewards) if here.paired else rewards
            case "orpo":
                means = self._likelihoods(here.answers) / torch.tensor(here.answers.counts, device=self.device)
                margins = self._apart(_log_odds(means))
                loss = (-means[0::2] - self.beta * logsigmoid(margins)).sum()
        if isinstance(tally, PreferenceTally):
            _note(tally, margins.detach(), here)
        return loss

    @staticmethod
    def _apart(values: Tensor) -> Tensor:
        """What the better answer of each pair has more of."""
        return values[0::2] - values[1::2]

    def _ratios(self, answers: Answers) -> Tensor:
        """By how much more likely each answer is than it was before training, as log-ratios (answers,)."""
        with self._untouched():
            before = self._likelihoods(answers)
        return self._likelihoods(answers) - before

    @torch.no_grad()
    def _distance(self, strange: Answers | None) -> Tensor:
        """How far the model is from what it was, k in nats: never below 0."""
        if strange is None:
            return torch.zeros((), device=self.device)
        return self._ratios(strange).mean().clamp(min=0)

    def _likelihoods(self, answers: Answers) -> Tensor:
        """The log-likelihood of each answer, in nats, fp32 (answers,) with gradient."""
        texts = answers.texts
        if self.fast is not None and isinstance(texts, Pack):
            losses = self.fast.token_losses(texts)
        else:
            assert isinstance(texts, Batch)
            with arithmetic(self.device, self.precision):
                losses = token_losses(self.tuned.model, texts)
        return -torch.stack([part.sum() for part in torch.split(losses, list(answers.counts))])

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        """Within it nothing learns, and the model is what it was before training, without dropout."""
        model: Any = self.tuned.model
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), self.tuned.reference():
                yield
        finally:
            model.train(training)

    def tally(self) -> PreferenceTally:
        return PreferenceTally()


def _note(tally: PreferenceTally, values: Tensor, batch: PreferenceBatch) -> None:
    if batch.paired:
        tally.margins += values.tolist()
        return
    for value, good in zip(values.tolist(), batch.good.tolist(), strict=True):
        (tally.good if good else tally.bad).append(value)


def _log_odds(means: Tensor) -> Tensor:
    """log(p / (1 - p)) of log p, which is below 0."""
    sure = means.clamp(max=-_LEAST)
    return sure - torch.log(-torch.expm1(sure))


def _swapped(text: TokenRow, other: TokenRow) -> TokenRow:
    """The prompt of `text` with the answer of `other`."""
    prompt, answer = text.ids[: text.trained.find(1)], other.ids[other.trained.find(1) :]
    taught = other.trained[other.trained.find(1) :]
    return TokenRow(text.number, prompt + answer, bytes(len(prompt)) + taught)


def balance(rows: Sequence[TokenRow]) -> tuple[float, float]:
    """The weights of good and of bad answers that make both kinds weigh the same in all, the commoner one's being 1.

    Ethayarajh et al. 2024 (equation 8) advise 1 to 4/3 for the weight of all good ones over that of all bad ones.
    """
    pairs = [row for row in rows if isinstance(row, PreferenceRow)]
    good = sum(row.split > 0 for row in pairs)
    bad = sum(row.split < len(row.ids) for row in pairs)
    if not good or not bad:
        return 1.0, 1.0
    return max(1.0, bad / good), max(1.0, good / bad)
