"""Ready-made descriptions and events of the tasks beside chat; nothing is read or loaded."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import label_samples as labels
import run_samples as made
import samples
from samples import QuietSession, settle

from tunedesk.core.describe import DataInfo, LabelCount, ModelInfo, RenderedRow, RenderedTurn, Span, TaskKind
from tunedesk.core.events import (
    ChatAnswer,
    ChatReady,
    Evaluated,
    Event,
    Finished,
    ForgettingChecked,
    LabelShare,
)
from tunedesk.core.project import with_task
from tunedesk.core.runs import RunFolder
from tunedesk.core.state import reduce_all

TOPICS = ("billing", "delivery", "returns", "praise")


def t5(**changes: object) -> ModelInfo:
    """A small T5 from the Hub."""
    info = samples.smollm(
        source="google-t5/t5-small",
        path="/home/ana/.cache/huggingface/t5-small",
        name="t5-small",
        family="T5",
        architecture="T5ForConditionalGeneration",
        kind="seq2seq",
        parameters=60_506_624,
        weight_bytes=242_026_496,
        dtype="fp32",
        context_length=512,
        vocabulary=32_128,
        hidden_size=512,
        intermediate_size=2048,
        layers=6,
        has_chat_template=False,
        tasks=("seq2seq",),
        origin="hub",
    )
    return info.model_copy(update=changes)


def topics_data(**changes: object) -> DataInfo:
    """Texts with several labels each."""
    counts = tuple(LabelCount(name=name, rows=rows) for name, rows in zip(TOPICS, (141, 120, 77, 42), strict=True))
    own = {"source": "/home/ana/tickets.csv", "path": "/home/ana/tickets.csv", "name": "tickets.csv"}
    info = labels.finance_data(
        **own, labels=counts, problem_type="multi_label", columns={"text": "body", "label": "topics"}
    )
    return info.model_copy(update=changes)


def stars_data(**changes: object) -> DataInfo:
    """Texts with a number each."""
    own = {"source": "/home/ana/reviews.csv", "path": "/home/ana/reviews.csv", "name": "reviews.csv"}
    columns = {"text": "review", "label": "stars"}
    info = labels.finance_data(**own, labels=(), problem_type="regression", span=(1.0, 5.0), columns=columns)
    return info.model_copy(update=changes)


def pairs_data(**changes: object) -> DataInfo:
    """Texts and what becomes of them."""
    own = {"source": "/home/ana/titles.jsonl", "path": "/home/ana/titles.jsonl", "name": "titles.jsonl"}
    columns = {"prompt": "article", "completion": "title"}
    info = samples.support_data(**own, layout="prompt_completion", task="seq2seq", columns=columns)
    return info.model_copy(update={"all_columns": ("article", "title"), **changes})


def preferences_data(**changes: object) -> DataInfo:
    """Questions with a better and a worse answer."""
    columns = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
    own = {"source": "starter:preferences", "name": "preferences.jsonl", "columns": columns}
    info = samples.support_data(**own, layout="preference", task="preference", all_columns=tuple(columns))
    return info.model_copy(update=changes)


def _spans(text: str, kind: str) -> tuple[Span, ...]:
    return tuple(Span(text=f"{' ' if place else ''}{word}", kind=kind) for place, word in enumerate(text.split()))  # type: ignore[arg-type]


def row_of(*turns: tuple[str, str, str], number: int = 1) -> RenderedRow:
    """A row of (role, text, kind) turns, each word a token."""
    shown = tuple(RenderedTurn(role=role, spans=_spans(text, kind)) for role, text, kind in turns)
    spans = [span for turn in shown for span in turn.spans]
    return RenderedRow(
        row=number, turns=shown, tokens=len(spans), trained_tokens=sum(s.kind == "trained" for s in spans)
    )


def pair_row() -> RenderedRow:
    """A text and its title."""
    said = "The harbour board met on Monday and chose to keep the old light for another ten years, at half the price."
    return row_of(("source", said, "context"), ("target", "Old light stays for ten more years", "trained"))


def preference_row() -> RenderedRow:
    """A question with two answers."""
    return row_of(
        ("prompt", "Can I return a lamp that I have used?", "context"),
        ("chosen", "You can, for forty days. Put the card from the box in the parcel.", "trained"),
        ("rejected", "Maybe. It depends on many things, please read all of our terms first.", "trained"),
    )


def settle_task(
    session: QuietSession, task: TaskKind, model: ModelInfo, data: DataInfo, *rows: RenderedRow, **choices: object
) -> None:
    """Put the session where `model` and `data` have just been described for a task."""
    session.project = replace(session.project, spec=with_task(session.project.spec, task, **choices))
    settle(session, model, data, examples=rows)


def settle_named(session: QuietSession, name: str) -> None:
    """Put the session at one of `NAMED`."""
    match name:
        case "topics":
            rows = [labels.label_row(1, "My parcel is late and I was charged twice.", "billing, delivery")]
            settle_task(session, "classification", samples.smollm(), topics_data(), *rows)
        case "stars":
            rows = [labels.label_row(1, "Bright, quiet, and it came in two days.", "4.5")]
            settle_task(session, "classification", labels.encoder(), stars_data(), *rows)
        case "pairs":
            settle_task(session, "seq2seq", t5(), pairs_data(), pair_row())
        case "preferences":
            settle_task(session, "preference", samples.smollm(), preferences_data(), preference_row())
        case _:
            labels.settle_labels(session)


NAMED = ("labels", "topics", "stars", "pairs", "preferences")

METRICS: dict[str, tuple[dict[str, float], dict[str, float], dict[str, float]]] = {
    "labels": (
        {"accuracy": 13 / 36, "macro_f1": 0.31},
        {"accuracy": 33 / 36, "macro_f1": 0.914},
        {"accuracy": 31 / 36, "macro_f1": 0.86},
    ),
    "topics": (
        {"accuracy": 0.02, "macro_f1": 0.2, "micro_f1": 0.24},
        {"accuracy": 0.61, "macro_f1": 0.74, "micro_f1": 0.812},
        {"accuracy": 0.58, "macro_f1": 0.73, "micro_f1": 0.80},
    ),
    "stars": (
        {"pearson": 0.04, "rmse": 1.31, "mae": 1.12},
        {"pearson": 0.913, "rmse": 0.42, "mae": 0.31},
        {"pearson": 0.90, "rmse": 0.45, "mae": 0.33},
    ),
    "pairs": (
        {"exact_match": 0.0, "rouge_l": 0.121, "perplexity": 44.1},
        {"exact_match": 0.12, "rouge_l": 0.412, "perplexity": 6.2},
        {"exact_match": 0.11, "rouge_l": 0.409, "perplexity": 6.3},
    ),
    "preferences": (
        {"preference_accuracy": 0.5, "reward_margin": 0.0},
        {"preference_accuracy": 0.87, "reward_margin": 1.231},
        {"preference_accuracy": 0.85, "reward_margin": 1.306},
    ),
}
"""What each kind of run measured: before, at its best, and last."""


def confusion_of(names: int, seed: int = 0) -> tuple[tuple[int, ...], ...]:
    """Counts that are mostly right, some rows empty of mistakes."""
    noise = random.Random(seed)
    rows = []
    for place in range(names):
        row = [0] * names
        row[place] = noise.randint(6, 12)
        for _ in range(noise.randint(0, 3)):
            row[noise.randrange(names)] += 1
        rows.append(tuple(row))
    return tuple(rows)


CONFUSION = ((10, 2, 0), (1, 11, 0), (0, 0, 12))


def check(number: int, metrics: dict[str, float], *, best: bool = True, **changes: object) -> Evaluated:
    """A check with these measures."""
    return made.evaluated(number, best=best).model_copy(update={"metrics": metrics, **changes})


def running(name: str, last: int = 60) -> list[Event]:
    """A run of one of `NAMED` in its midst; the best at step 36."""
    before, best, latest = METRICS[name]
    matrix = {"confusion": CONFUSION} if name == "labels" else {}
    steps = [made.step(number) for number in range(1, last + 1)]
    events: list[Event] = [*made.opening(), made.began(eval_rows=36), check(0, before, best=False), *steps[:36]]
    events += [check(36, best, **matrix), *steps[36:48], check(48, latest, best=False, **matrix), *steps[48:]]
    return made.stamped(events)


def forgot(before: float = 3.214, after: float = 3.391, measure: str = "loss") -> ForgettingChecked:
    """What the check for forgetting found."""
    return ForgettingChecked(measure=measure, before=before, after=after, tokens=4096, step=36)  # type: ignore[arg-type]


def completed(name: str, found: ForgettingChecked | None = None) -> list[Event]:
    """A run of one of `NAMED` that has ended well."""
    checks = [found] if found else []
    return made.stamped([*running(name, 120), made.adapter(36), *checks, Finished(outcome="completed")])


def show_run(session: QuietSession, events: list[Event], path: Path = Path("/runs/now")) -> None:
    """Let the session show a run with these events."""
    session.run = RunFolder(path)
    session.project = replace(session.project, run=reduce_all(events))
    session.run_changed.emit()
    session.state_changed.emit()
    session.project_changed.emit()


def ready(name: str) -> ChatReady:
    """The model of one of `NAMED` is loaded."""
    match name:
        case "topics":
            return labels.labels_ready(TOPICS).model_copy(update={"problem_type": "multi_label"})
        case "stars":
            return labels.labels_ready(()).model_copy(update={"problem_type": "regression"})
        case "labels":
            return labels.labels_ready()
        case "pairs":
            return made.chat_ready().model_copy(update={"has_chat_template": False, "model": "t5-small"})
        case _:
            return made.chat_ready()


def topics_answer(number: int, *shares: tuple[str, float]) -> ChatAnswer:
    """Several labels at once: those that are likelier than not."""
    found = tuple(LabelShare(name=name, share=share) for name, share in shares)
    given = ", ".join(item.name for item in found if item.share > 0.5)
    return ChatAnswer(id=number, side="tuned", text=given, token_ids=(), seconds=0.02, ended="stop_token", labels=found)


def stars_answer(number: int, value: float) -> ChatAnswer:
    """A number."""
    return ChatAnswer(
        id=number, side="tuned", text=f"{value:g}", token_ids=(), seconds=0.02, ended="stop_token", number=value
    )
