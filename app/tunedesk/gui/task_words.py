"""What a row of data is called and what a model learns, task by task."""

from __future__ import annotations

import math
from typing import Literal

from PySide6.QtCore import QCoreApplication

from tunedesk.core.describe import DataInfo, TaskKind
from tunedesk.core.matching import TASK_WORDS
from tunedesk.core.measures import Measure
from tunedesk.core.spec import TaskSection
from tunedesk.gui import words

RowKind = TaskKind | Literal["rated"]


def tr(text: str) -> str:
    """`text` in the user's language."""
    return QCoreApplication.translate("Task", text)


def title(task: TaskKind) -> str:
    """``Answer in conversations``: the task as it stands alone."""
    text = tr(TASK_WORDS[task])
    return text[:1].upper() + text[1:]


def row_name(kind: RowKind) -> str:
    """``Conversation`` or ``Text``, as it begins a line."""
    names = {"chat": tr("Conversation"), "seq2seq": tr("Pair"), "preference": tr("Pair"), "rated": tr("Answer")}
    return names.get(kind, tr("Text"))


def row_names(kind: RowKind) -> str:
    """``conversations`` or ``texts``, as it stands in a sentence."""
    return _names(kind)[1]


def rows(count: int, kind: RowKind) -> str:
    """``349 conversations``, ``1 text``."""
    return words.several(count, *_names(kind))


def _names(kind: RowKind) -> tuple[str, str]:
    names = {
        "chat": (tr("conversation"), tr("conversations")),
        "seq2seq": (tr("pair of texts"), tr("pairs of texts")),
        "preference": (tr("pair of answers"), tr("pairs of answers")),
        "rated": (tr("rated answer"), tr("rated answers")),
    }
    return names.get(kind, (tr("text"), tr("texts")))


def right_of(accuracy: float, rows: int) -> str:
    """How many answers are right: ``33 of 36``; as a share, ``92%``, where the number of rows is not known."""
    if rows <= 0:
        return words.share(accuracy)
    return tr("{0} of {1}").format(words.count(round(accuracy * rows)), words.count(rows))


def role_name(role: str, kind: RowKind, *, number: bool = False) -> str:
    """Who speaks in a turn of a row, or what it is: ``Assistant``, ``Better``. A label may be a `number`."""
    if role == "label" and number:
        return tr("Number")
    names = {
        "source": tr("Text"),
        "target": tr("Result"),
        "chosen": tr("Good") if kind == "rated" else tr("Better"),
        "rejected": tr("Bad") if kind == "rated" else tr("Worse"),
    }
    return names.get(role, role.capitalize())


def about(task: TaskSection, data: DataInfo | None) -> str:
    """What will be learned, in a sentence or two."""
    if task.kind == "classification":
        return _about_labels(task, data)
    if task.kind == "preference":
        return {
            "dpo": tr("DPO: of two answers it learns to prefer the better, held close to what it was."),
            "kto": tr("KTO: it learns from answers that were rated good or bad one by one, not in pairs."),
            "orpo": tr("ORPO: it learns the better answer and shuns the worse at once; quicker, and less held back."),
        }[task.preference_loss]
    return {
        "chat": tr("It learns to answer: only what the assistant says is trained."),
        "completion": tr("It learns to go on with a text: every token is trained."),
        "seq2seq": tr("It reads one text and learns to write the other: a summary, a translation, a title."),
    }[task.kind]


def _about_labels(task: TaskSection, data: DataInfo | None) -> str:
    each = {
        "single_label": tr("Each text gets exactly one label."),
        "multi_label": tr("Each text gets any number of labels, or none."),
        "regression": tr("Each text gets a number, such as a rating."),
    }
    if task.problem_type != "auto":
        return each[task.problem_type]
    if data is None or data.problem_type is None:
        return tr("The data tells whether a text gets one label, several or a number.")
    found = {
        "single_label": tr("The data has one label for each text."),
        "multi_label": tr("The data has several labels for a text."),
        "regression": tr("The data has a number for each text."),
    }
    return found[data.problem_type]


def span(data: DataInfo) -> str:
    """The numbers of a regression: ``1 to 5``; empty where there are none."""
    if data.span is None:
        return ""
    low, high = data.span
    return tr("{0} to {1}").format(signed(words.decimal(low)), signed(words.decimal(high)))


def measured(measure: Measure, value: float) -> str:
    """A measure's value as people read it."""
    return signed(measure.words(value)) if math.isfinite(value) else words.number(value)


def signed(text: str) -> str:
    """`text` with the minus of numbers in words."""
    return words.MINUS + text[1:] if text.startswith("-") else text
