"""Ready-made events of runs, chats and exports for the tests of the window; nothing is read or loaded."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

from samples import plan

from tunedesk.core.events import (
    AdapterSaved,
    ChatReady,
    Checked,
    CheckpointSaved,
    Command,
    Evaluated,
    Event,
    Exported,
    Finished,
    Notice,
    PlanMade,
    Stage,
    Started,
    StepDone,
    TrainingBegan,
)
from tunedesk.core.plan import Plan
from tunedesk.core.problems import Problem

START = 1_764_000_000.0
SECONDS = 6.3
GIB = 1024**3


def stamped(events: Iterable[Event]) -> list[Event]:
    """The events numbered, each with the time it already has or that of the one before."""
    done: list[Event] = []
    now = START
    for seq, event in enumerate(events, start=1):
        now = event.time or now
        done.append(event.model_copy(update={"seq": seq, "time": now}))
    return done


def began(total: int = 120, per_epoch: int = 40, first: int = 1, **changes: object) -> TrainingBegan:
    """Training of the starter model begins."""
    event = TrainingBegan(
        time=START + 20,
        first_step=first,
        total_steps=total,
        steps_per_epoch=per_epoch,
        train_rows=314,
        eval_rows=35,
        trainable_parameters=4_884_480,
        total_parameters=139_399_488,
        weight_bytes=269_030_016,
        peak_learning_rate=1e-3,
        warmup_steps=max(1, total // 20),
        scheduler="cosine",
        device="cpu",
        precision="bf16",
    )
    return event.model_copy(update=changes)


def opening(made: Plan | None = None) -> list[Event]:
    """Everything before training begins."""
    return [
        Started(time=START, job="train", pid=1, version="0.1.0"),
        Stage(time=START + 1, text="Loading the model"),
        PlanMade(time=START + 2, plan=made or plan()),
    ]


def loss_at(step: int, total: int, base: float = 2.309, floor: float = 1.08) -> float:
    """A loss that falls as losses do."""
    return floor + (base - floor) * math.exp(-5 * step / total)


def step(number: int, total: int = 120, per_epoch: int = 40, **changes: object) -> StepDone:
    """One step."""
    noise = random.Random(number)
    warm = max(1, total // 20)
    rate = 1e-3 * min(1.0, number / warm) * (0.5 * (1 + math.cos(math.pi * max(0, number - warm) / total)))
    event = StepDone(
        time=START + 20 + number * SECONDS,
        step=number,
        epoch=number / per_epoch,
        loss=loss_at(number, total) * (1 + noise.gauss(0, 0.05)),
        learning_rate=rate,
        gradient_norm=0.8,
        tokens=3200,
        trained_tokens=1400,
        seconds=SECONDS * (1 + noise.random() * 0.1),
        memory_bytes=int((1.62 + 0.02 * noise.random()) * GIB),
    )
    return event.model_copy(update=changes)


def evaluated(number: int, total: int = 120, *, best: bool = True) -> Evaluated:
    """A check on the held-out rows."""
    return Evaluated(
        time=START + 20 + number * SECONDS,
        step=number,
        loss=loss_at(number, total) * 1.04,
        best=best,
        trained_tokens=3400,
        seconds=2.0,
    )


def steps(first: int, last: int, total: int = 120, every: int = 12) -> list[Event]:
    """Steps with their checks, sentences and checkpoints."""
    events: list[Event] = []
    for number in range(first, last + 1):
        moment = START + 20 + number * SECONDS
        events.append(step(number, total))
        if number % every == 0:
            check = evaluated(number, total)
            events.append(check)
            text = f"New best. Held-out loss went to {check.loss:.3f}. Kept as the best checkpoint."
            events.append(Notice(time=moment, level="good", text=text, step=number))
            events.append(
                CheckpointSaved(time=moment, path=f"checkpoints/step-{number}", bytes=58_000_000, step=number)
            )
            saved = "Saved a checkpoint (58.0 MB). A power cut would cost the steps since then, at most 12."
            events.append(Notice(time=moment, text=saved, step=number))
        if number % 40 == 1 and number > 1:
            words = f"Epoch {number // 40 + 1} begins. Every conversation has been seen once."
            events.append(Notice(time=moment, text=words, step=number))
    return events


def adapter(number: int) -> AdapterSaved:
    """The adapter is whole."""
    return AdapterSaved(path="adapter", bytes=19_600_000, step=number)


def running(last: int = 75, total: int = 120, made: Plan | None = None) -> list[Event]:
    """A run in its midst."""
    return stamped([*opening(made), began(total), evaluated(0, total), *steps(1, last, total)])


def completed(total: int = 120) -> list[Event]:
    """A run that has ended well."""
    return stamped([*running(total, total), adapter(total), Finished(outcome="completed")])


def stopped(at: int = 50, total: int = 120) -> list[Event]:
    """A run that was stopped on request."""
    return stamped([*running(at, total), adapter(48), Finished(outcome="stopped")])


def failed(problem: Problem, at: int = 50, total: int = 120) -> list[Event]:
    """A run that broke off."""
    return stamped([*running(at, total), Finished(outcome="failed", problems=(problem,))])


def nan_problem() -> Problem:
    """The loss is no number any more."""
    return Problem(
        code="train.nan",
        what="The loss is not a number since step 51.",
        found="Weights are safe at step 48. The learning rate, 1e-2, is ten times the usual.",
        fix="Resume from step 48 with a smaller learning rate.",
    )


def nan_run() -> list[Event]:
    """A run whose loss stopped being a number."""
    bad = step(51, loss=math.nan)
    return stamped([*running(50), bad, Finished(outcome="failed", problems=(nan_problem(),))])


def chat_ready(*, tuned: bool = True) -> ChatReady:
    """The model is loaded."""
    return ChatReady(
        sides=("base", "tuned") if tuned else ("base",),
        device="cpu",
        precision="bf16",
        model="SmolLM2-135M-Instruct",
        weight_bytes=269_030_016,
        context_length=8192,
    )


def export_checks() -> list[Event]:
    """An export that passes every check."""
    return [
        Stage(text="Writing the adapter"),
        Stage(text="Checking the adapter"),
        Checked(name="Written", passed=True, detail="9 files, 22.1 MB."),
        Checked(name="Same base", passed=True, detail="The base's files are those that the run was trained on."),
        Checked(name="Same weights", passed=True, detail="All 420 tensors are equal to the run's."),
        Checked(
            name="Tokenizer and chat template",
            passed=True,
            detail="49,152 tokens, a chat template; equal to the base's.",
        ),
        Checked(name="Licence and card", passed=True, detail="Licence apache-2.0, from the base."),
        Stage(text="Reopening it with transformers and peft"),
        Checked(name="Reopened by peft", passed=True, detail="4,884,480 weights, each in its place."),
        Stage(text="Comparing answers"),
        Checked(
            name="Same answers",
            passed=True,
            detail="2 greedy answers, 32 tokens: equal. Largest difference in scores: 0.",
        ),
        Exported(path="/home/ana/Documents/TuneDesk/support-lora-adapter", bytes=19_612_480, sha256="9f2c81d0" * 8),
    ]


class FakeSource:
    """Stands for an engine: hands out the events it was given and those that are added, and notes the commands."""

    def __init__(self, events: Iterable[Event] = (), interval: float = 0.0) -> None:
        self.events = list(events)
        self.sent: list[Command] = []
        self.killed = self.detached = self.started = False
        self.interval = interval
        self._finished = False

    def start(self) -> None:
        self.started = True

    def next_event(self, timeout: float | None = None) -> Event | None:
        import time

        if not self.events:
            time.sleep(min(0.01, timeout or 0.0))
            return None
        if self.interval:
            time.sleep(self.interval)
        event = self.events.pop(0)
        self._finished = isinstance(event, Finished)
        return event

    @property
    def finished(self) -> bool:
        return self._finished

    def send(self, command: Command) -> None:
        self.sent.append(command)

    def kill(self) -> None:
        self.killed = True

    def detach(self) -> None:
        self.detached = True
        self._finished = True
