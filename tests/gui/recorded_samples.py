"""What a real run left behind, for the pictures: the starter model on the starter data, on two processor cores.

`recorded/` holds its events, the machine, the first rows of the data as the model's tokenizer cuts them, a conversation
with the run's adapter and with the untouched model, and an export. Nothing in it is made up; paths are shortened.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tunedesk.core.describe import DataInfo, ModelInfo, RenderedRow, RenderedTurn, Span
from tunedesk.core.events import DataDescribed, Event, ModelDescribed
from tunedesk.core.hardware import Hardware
from tunedesk.gui.chatting import Answer, Turn

FOLDER = Path(__file__).parent / "recorded"
NAME = "Starter tour"
MIDST = 88
"""The step at which the picture of a run in its midst is taken."""
MOST_TOKENS = 160
"""What an answer of the conversation was limited to; its temperature was 0."""
_EVENTS: TypeAdapter[Any] = TypeAdapter(Event)


@cache
def events() -> tuple[Any, ...]:
    """All events of the run."""
    lines = (FOLDER / "run.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(_EVENTS.validate_json(line) for line in lines)


def _first(kind: type[Any]) -> Any:
    return next(event for event in events() if isinstance(event, kind))


def model() -> ModelInfo:
    """The starter model as the run described it."""
    info: ModelInfo = _first(ModelDescribed).info
    return info


def data() -> DataInfo:
    """The starter data as the run described it."""
    info: DataInfo = _first(DataDescribed).info
    return info


def machine() -> Hardware:
    """The computer on which it ran."""
    return Hardware.model_validate_json((FOLDER / "machine.json").read_text(encoding="utf-8"))


@cache
def rows() -> tuple[RenderedRow, ...]:
    """The first rows as tokens."""
    made = []
    for row, tokens, trained, turns in json.loads((FOLDER / "rows.json").read_text(encoding="utf-8")):
        made.append(RenderedRow(row=row, tokens=tokens, trained_tokens=trained, turns=tuple(_turn(*t) for t in turns)))
    return tuple(made)


def _turn(role: str, groups: list[tuple[Any, list[str]]]) -> RenderedTurn:
    return RenderedTurn(role=role, spans=tuple(Span(text=text, kind=kind) for kind, texts in groups for text in texts))


def running() -> list[Any]:
    """The run in its midst."""
    until = next(place for place, event in enumerate(events()) if getattr(event, "step", 0) > MIDST)
    return list(events()[:until])


def kept() -> list[Any]:
    """The run to its end."""
    return list(events())


def turns() -> list[Turn]:
    """The conversation with both sides."""
    made = []
    for turn in json.loads((FOLDER / "chat.json").read_text(encoding="utf-8")):
        answers = {side: Answer(**answer) for side, answer in turn["answers"].items()}
        made.append(Turn(turn["question"], answers))  # type: ignore[arg-type]
    return made


def export_events() -> list[Any]:
    """What the export of the adapter said, to its end."""
    lines = (FOLDER / "export.jsonl").read_text(encoding="utf-8").splitlines()
    return [_EVENTS.validate_json(line) for line in lines]


def export_seconds() -> float:
    """How long the export took."""
    done = export_events()
    seconds: float = done[-1].time - done[0].time
    return seconds
