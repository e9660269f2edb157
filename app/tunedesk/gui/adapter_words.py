"""What is said of an adapter: its method, what it learned, where it comes from and when it was made."""

from __future__ import annotations

from datetime import datetime
from typing import get_args

from PySide6.QtCore import QCoreApplication

from tunedesk.core.adapters import Adapter
from tunedesk.core.describe import TaskKind
from tunedesk.core.methods import method
from tunedesk.core.spec import MethodName
from tunedesk.gui import words

_LORAS = ("lora", "qlora")
"""The methods whose changes to a weight are a product of two matrices, which can be added up."""


def tr(text: str) -> str:
    """`text` in the user's language."""
    return QCoreApplication.translate("Adapters", text)


def method_title(adapter: Adapter) -> str:
    """``LoRA``; a dash where an adapter from elsewhere does not tell."""
    return method(adapter.method).title if adapter.method in get_args(MethodName) else words.DASH  # type: ignore[arg-type]


def learned(adapter: Adapter) -> str:
    """What it was trained to do, in a word or two."""
    texts: dict[TaskKind, str] = {
        "chat": tr("Conversations"),
        "completion": tr("Writing on"),
        "classification": tr("Labels"),
        "seq2seq": tr("Text to text"),
        "preference": tr("Preferences"),
    }
    return texts[adapter.task] if adapter.task else words.DASH


def origin(adapter: Adapter) -> str:
    """Where it comes from."""
    texts = {"run": tr("A run here"), "imported": tr("Imported"), "combined": tr("Combined")}
    return texts[adapter.origin]


def when(seconds: float, now: datetime | None = None) -> str:
    """A moment since the epoch: ``16:42`` today, ``24 Nov`` this year, ``24 Nov 2025`` before."""
    moment, now = datetime.fromtimestamp(seconds), now or datetime.now()
    if moment.date() == now.date():
        return words.clock(seconds)
    day = f"{moment.day} {moment:%b}"
    return day if moment.year == now.year else f"{day} {moment.year}"


def in_short(adapter: Adapter) -> str:
    """Method, origin and moment in one line: ``LoRA, a run here, 24 Nov``."""
    known = [word for word in (method_title(adapter), origin(adapter)) if word != words.DASH]
    return ", ".join([known[0], *(word[:1].lower() + word[1:] for word in known[1:]), when(adapter.created)])


def why_not_combined(adapter: Adapter) -> str:
    """Why an adapter cannot be added to others, or an empty text."""
    if adapter.task == "classification":
        return tr("It has an output layer of its own, which cannot be added up.")
    if adapter.method in _LORAS:
        return ""
    if adapter.method is None:
        return tr("It does not tell its method, and only LoRA can be added up.")
    return tr("Only LoRA can be added up; this is {0}.").format(method_title(adapter))
