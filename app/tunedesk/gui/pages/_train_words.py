"""What the Train page says about a run: pure functions of its state, apart from the words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from PySide6.QtCore import QCoreApplication

from tunedesk.core.events import Evaluated, TrainingBegan
from tunedesk.core.measures import MEASURES, Measure, measures_in
from tunedesk.core.state import LogLine as StateLine
from tunedesk.core.state import RunState
from tunedesk.gui import task_words, words
from tunedesk.gui.widgets import LogLine

PLAN_POINTS = 120


def tr(text: str) -> str:
    """`text` in the user's language."""
    return QCoreApplication.translate("Train", text)


@dataclass(frozen=True)
class Verdict:
    """The end of a run in one sentence and one more."""

    tone: Literal["ok", "warn", "info"]
    headline: str
    text: str


def verdict(state: RunState) -> Verdict:
    """How a run ended that did not fail."""
    stopped = state.status == "stopped"
    base, best = state.base_loss, state.best
    if best is None or base is None or not math.isfinite(base):
        headline = tr("Stopped on request.") if stopped else tr("Training is done.")
        return Verdict("info" if stopped else "ok", headline, _how_long(state))
    if "accuracy" in best.metrics:
        return _label_verdict(state, best, base)
    if telling := most_telling(best.metrics):
        return _measured_verdict(state, best, telling)
    if best.step == 0 or best.loss >= base:
        headline = tr("Held-out loss did not fall: {0} before, {1} at best.")
        return Verdict("warn", headline.format(words.loss(base), words.loss(best.loss)), _how_long(state))
    fall = words.share((base - best.loss) / base)
    headline = tr("Held-out loss fell from {0} to {1}, {2} lower.").format(
        words.loss(base), words.loss(best.loss), fall
    )
    kept = tr("The best, step {0}, is kept.").format(words.count(best.step))
    return Verdict("ok", headline, f"{_how_long(state)} {kept}{_perplexity(state, best)}")


def _perplexity(state: RunState, best: Evaluated) -> str:
    """What the perplexity came to, where it was measured."""
    before = next((check.metrics.get("perplexity") for check in state.evaluations if check.step == 0), None)
    now = best.metrics.get("perplexity")
    if before is None or now is None or not (math.isfinite(before) and math.isfinite(now)):
        return ""
    return " " + tr("It wavers among {0} tokens, {1} before.").format(_few(now), _few(before))


def _few(perplexity: float) -> str:
    return words.number(perplexity, 1 if perplexity < 100 else 0)


_TELLING = ("preference_accuracy", "rouge_l", "pearson")
"""The measure of each task that is told first."""


def most_telling(metrics: Mapping[str, float]) -> Measure | None:
    """The measure that tells most of a run that gives no labels."""
    return next((item for key in _TELLING for item in MEASURES if item.key == key and key in metrics), None)


def _measured_verdict(state: RunState, best: Evaluated, telling: Measure) -> Verdict:
    """How a run ended whose task has a measure of its own: its value, and what it was."""
    now = best.metrics[telling.key]
    before = next((check.metrics.get(telling.key) for check in state.evaluations if check.step == 0), None)
    headline = _headlines()[telling.key].format(_said(telling, now))
    if before is not None and math.isfinite(before):
        headline = tr("{0}, {1} before training.").format(headline, _said(telling, before))
    else:
        headline = f"{headline}."
    better = best.step > 0 and (before is None or not math.isfinite(before) or now > before)
    told = [found for found in measures_in(best.metrics) if found[0].key not in (telling.key, "perplexity")]
    others = [
        f"{_inside(tr(item.title)) if place else tr(item.title)} {task_words.measured(item, value)}"
        for place, (item, value) in enumerate(told)
    ]
    kept = tr("The best, step {0}, is kept.").format(words.count(best.step))
    rest = f" {words.listed(others)}." if others else ""
    return Verdict("ok" if better else "warn", headline, f"{_how_long(state)} {kept}{rest}")


def _inside(title: str) -> str:
    """A title amid a sentence: ``mean error``; what is spelled in capitals stays, ``RMSE``."""
    return title[:1].lower() + title[1:] if title[1:2].islower() else title


def _said(measure: Measure, value: float) -> str:
    return words.share(value) if measure.form.endswith("%}") else task_words.measured(measure, value)


def _headlines() -> dict[str, str]:
    return {
        "preference_accuracy": tr("Prefers the better held-out answer {0} of the time"),
        "rouge_l": tr("ROUGE-L of held-out texts is {0}"),
        "pearson": tr("Correlation with the right numbers is {0}"),
    }


def _label_verdict(state: RunState, best: Evaluated, base: float) -> Verdict:
    """How a classifier ended: what counts is how many texts it gets right."""
    rows = state.began.eval_rows if state.began else 0
    untouched = next((check.metrics.get("accuracy") for check in state.evaluations if check.step == 0), None)
    now = best.metrics["accuracy"]
    right = task_words.right_of(now, rows)
    kept = tr("The best, step {0}, is kept; held-out loss {1}, {2} before.")
    detail = f"{_how_long(state)} {kept.format(words.count(best.step), words.loss(best.loss), words.loss(base))}"
    plain = "micro_f1" not in best.metrics
    gets = tr("Gets {0} held-out texts right") if plain else tr("Gives {0} held-out texts exactly their labels")
    if untouched is None:
        return Verdict("ok", f"{gets.format(right)}.", detail)
    before = task_words.right_of(untouched, rows).partition(" ")[0]
    if best.step == 0 or now <= untouched:
        return Verdict("warn", tr("{0}, and {1} before training.").format(gets.format(right), before), detail)
    return Verdict("ok", tr("{0}; {1} before training.").format(gets.format(right), before), detail)


def _how_long(state: RunState) -> str:
    steps = words.several(state.step, tr("step"), tr("steps"))
    seconds = elapsed(state)
    if state.status == "stopped" and state.began:
        total = words.count(state.began.total_steps)
        return tr("Stopped on request after {0} of {1} steps in {2}.").format(
            words.count(state.step), total, words.duration(seconds)
        )
    return tr("{0} in {1}.").format(steps, words.duration(seconds))


def elapsed(state: RunState) -> float:
    """Seconds that this stretch of training has taken."""
    if state.training_since is None or state.last_time is None:
        return 0.0
    return max(0.0, state.last_time - state.training_since)


def epoch_words(state: RunState) -> str:
    """``Epoch 2 of 3``."""
    began = state.began
    if began is None:
        return tr("Epoch {0}").format(words.DASH)
    per_epoch = max(1, began.steps_per_epoch)
    total = max(1, math.ceil(began.total_steps / per_epoch))
    now = min(total, max(0, state.step - 1) // per_epoch + 1)
    return tr("Epoch {0} of {1}").format(words.count(now), words.count(total))


def epoch_steps(began: TrainingBegan | None) -> tuple[int, ...]:
    """The steps at which an epoch ends and another begins."""
    if began is None or began.steps_per_epoch <= 0:
        return ()
    ends = range(began.steps_per_epoch, began.total_steps, began.steps_per_epoch)
    return tuple(ends) if len(ends) <= 40 else ()


def planned_rates(began: TrainingBegan, first: int) -> list[tuple[int, float]]:
    """The learning rate from step `first` to the end, at no more than `PLAN_POINTS` places."""
    last = began.total_steps
    if first >= last:
        return []
    stride = max(1, (last - first) // PLAN_POINTS)
    steps = [*range(first, last, stride), last]
    return [(step, rate_at(began, step)) for step in steps]


def rate_at(began: TrainingBegan, step: int) -> float:
    """The planned learning rate of a step, the first being 1."""
    done = step - 1
    if done < began.warmup_steps:
        return began.peak_learning_rate * step / max(1, began.warmup_steps)
    share = (done - began.warmup_steps) / max(1, began.total_steps - began.warmup_steps)
    match began.scheduler:
        case "cosine":
            return began.peak_learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        case "linear":
            return began.peak_learning_rate * max(0.0, 1 - share)
        case _:
            return began.peak_learning_rate


def log_line(line: StateLine) -> LogLine:
    """A line of the plain-words log as the list shows it."""
    glyphs: dict[str, Literal["dot", "star", "warn", "bad"]] = {"good": "star", "warn": "warn", "bad": "bad"}
    right = tr("Step {0}").format(words.count(line.step)) if line.step is not None else ""
    return LogLine(words.log_time(line.time), line.text, glyphs.get(line.level, "dot"), right)
