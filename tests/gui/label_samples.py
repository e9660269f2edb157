"""Ready-made descriptions and events of a classifier for the tests of the window; nothing is read or loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import run_samples as made
from samples import QuietSession, settle, support_data, token_stats

from tunedesk.core.describe import DataInfo, LabelCount, LinearShape, ModelInfo, RenderedRow, RenderedTurn, Span
from tunedesk.core.events import ChatAnswer, ChatReady, Evaluated, Event, Finished, LabelShare
from tunedesk.core.project import with_task
from tunedesk.core.runs import RunFolder
from tunedesk.core.state import reduce_all

TEXTS = (
    ("The company paid out nothing this year, and the board gave no reason.", "negative"),
    ("Payment terms with suppliers are generally thirty to sixty days.", "neutral"),
    ("Orders for the new pump are twice what was planned.", "positive"),
    ("A date for the hearing has been set for 8 October.", "neutral"),
    ("The loan was called in, and the yard is for sale.", "negative"),
)
LABELS = ("negative", "neutral", "positive")


def encoder(**changes: object) -> ModelInfo:
    """The starter encoder."""
    shapes = {"query": (384, 384), "key": (384, 384), "value": (384, 384), "dense": (384, 384)}
    linears = tuple(LinearShape(name=n, in_features=i, out_features=o, count=6) for n, (i, o) in shapes.items())
    wide = (
        LinearShape(name="intermediate.dense", in_features=384, out_features=1536, count=6),
        LinearShape(name="output.dense", in_features=1536, out_features=384, count=6),
    )
    info = ModelInfo(
        source="starter:encoder",
        path="/home/ana/.cache/tunedesk/starter/encoder/model",
        name="all-MiniLM-L6-v2",
        family="BERT",
        architecture="BertModel",
        kind="encoder",
        parameters=22_713_216,
        weight_bytes=90_868_376,
        dtype="fp32",
        context_length=512,
        vocabulary=30_522,
        hidden_size=384,
        intermediate_size=1536,
        layers=6,
        attention_heads=12,
        key_value_heads=12,
        tied_embeddings=True,
        linears=(*linears, *wide),
        licence="apache-2.0",
        has_chat_template=False,
        tasks=("classification",),
        origin="starter",
    )
    return info.model_copy(update=changes)


def finance_data(**changes: object) -> DataInfo:
    """The starter data with three labels, as the starter encoder sees it."""
    stats = token_stats(
        tokens=9099,
        trained_tokens=351,
        median=26,
        p90=33,
        longest=44,
        bin_width=8,
        histogram=(0, 8, 112, 176, 49, 6),
        max_length=512,
        mean_trained=1.0,
    )
    rows = (118, 116, 117)
    info = support_data(
        source="starter:finance",
        path="/opt/tunedesk/resources/datasets/finance.jsonl",
        name="finance.jsonl",
        bytes=49_300,
        rows=351,
        layout="labelled",
        task="classification",
        columns={"text": "text", "label": "label"},
        all_columns=("text", "label"),
        train_rows=315,
        eval_rows=36,
        tokens=stats,
        labels=tuple(LabelCount(name=name, rows=count) for name, count in zip(LABELS, rows, strict=True)),
    )
    return info.model_copy(update=changes)


def many_labels(count: int = 40) -> tuple[LabelCount, ...]:
    """Many labels, one of them with a long name."""
    names = [f"intent_{number:02}" for number in range(1, count)]
    names.append("card_payment_was_declined_at_the_terminal_of_a_shop_abroad")
    return tuple(LabelCount(name=name, rows=3 + 7 * place % 41) for place, name in enumerate(names))


def label_row(number: int = 1, text: str = TEXTS[0][0], label: str = TEXTS[0][1]) -> RenderedRow:
    """A text in tokens, and its label."""
    pieces = [Span(text=f"{' ' if place else ''}{word}", kind="context") for place, word in enumerate(text.split())]
    spans = (Span(text="[CLS]", kind="template"), *pieces, Span(text="[SEP]", kind="template"))
    turns = (
        RenderedTurn(role="text", spans=spans),
        RenderedTurn(role="label", spans=(Span(text=label, kind="trained"),)),
    )
    return RenderedRow(row=number, turns=turns, tokens=len(spans), trained_tokens=1)


def label_rows() -> tuple[RenderedRow, ...]:
    """The first rows of the data."""
    return tuple(label_row(number, text, label) for number, (text, label) in enumerate(TEXTS, start=1))


def settle_labels(session: QuietSession, data: DataInfo | None = None, **model: object) -> None:
    """Put the session where the starter encoder and the starter data have just been described."""
    session.project = replace(session.project, spec=with_task(session.project.spec, "classification"))
    settle(session, encoder(**model), data or finance_data(), examples=label_rows())


def checked(number: int, right: int, f1: float, loss: float, *, best: bool = True) -> Evaluated:
    """A check on 36 held-out texts."""
    metrics = {"accuracy": right / 36, "macro_f1": f1}
    event = made.evaluated(number, best=best)
    return event.model_copy(update={"loss": loss, "metrics": metrics, "trained_tokens": 36})


def running(last: int = 60) -> list[Event]:
    """A classifier in its midst: 13 of 36 right before, 33 at step 36, 31 at step 48."""
    begin = made.began(eval_rows=36, train_rows=315, trainable_parameters=676_995, total_parameters=22_714_371)
    steps = [made.step(number) for number in range(1, last + 1)]
    events: list[Event] = [*made.opening(), begin, checked(0, 13, 0.31, 1.098, best=False)]
    events += [*steps[:24], checked(24, 28, 0.76, 0.612), *steps[24:36], checked(36, 33, 0.914, 0.301)]
    return made.stamped([*events, *steps[36:48], checked(48, 31, 0.86, 0.344, best=False), *steps[48:]])


def completed() -> list[Event]:
    """A classifier that has learned."""
    return made.stamped([*running(120), made.adapter(36), Finished(outcome="completed")])


def show_run(session: QuietSession, events: list[Event], path: Path = Path("/runs/labels")) -> None:
    """Let the session show a run with these events."""
    session.run = RunFolder(path)
    session.project = replace(session.project, run=reduce_all(events))
    session.run_changed.emit()
    session.state_changed.emit()
    session.project_changed.emit()


def labels_ready(labels: tuple[str, ...] = LABELS) -> ChatReady:
    """The classifier is loaded."""
    return ChatReady(
        sides=("tuned",),
        device="cpu",
        precision="fp32",
        model="all-MiniLM-L6-v2",
        weight_bytes=90_868_376,
        context_length=512,
        has_chat_template=False,
        labels=labels,
    )


def labelled(number: int, *shares: tuple[str, float]) -> ChatAnswer:
    """The classifier's answer to the text `number`."""
    found = tuple(LabelShare(name=name, share=share) for name, share in shares)
    return ChatAnswer(
        id=number, side="tuned", text=found[0].name, token_ids=(), seconds=0.012, ended="stop_token", labels=found
    )
