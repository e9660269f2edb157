"""What a row of data is called, task by task."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

from tunedesk.core.describe import TaskKind
from tunedesk.gui import words


def tr(text: str) -> str:
    """`text` in the user's language."""
    return QCoreApplication.translate("Task", text)


def row_name(task: TaskKind) -> str:
    """``Conversation`` or ``Text``, as it begins a line."""
    return tr("Conversation") if task == "chat" else tr("Text")


def row_names(task: TaskKind) -> str:
    """``conversations`` or ``texts``, as it stands in a sentence."""
    return tr("conversations") if task == "chat" else tr("texts")


def rows(count: int, task: TaskKind) -> str:
    """``349 conversations``, ``1 text``."""
    if task == "chat":
        return words.several(count, tr("conversation"), tr("conversations"))
    return words.several(count, tr("text"), tr("texts"))


def right_of(accuracy: float, rows: int) -> str:
    """How many answers are right: ``33 of 36``; as a share, ``92%``, where the number of rows is not known."""
    if rows <= 0:
        return words.share(accuracy)
    return tr("{0} of {1}").format(words.count(round(accuracy * rows)), words.count(rows))
