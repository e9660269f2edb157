"""Do a job in this process, with the commands given up front or sent as events come."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

from tunedesk.core.events import Command, Event, Job, read_event, write_line
from tunedesk.engine.__main__ import run_job
from tunedesk.engine.channel import Channel


class _Out(io.RawIOBase):
    """Collects events, and hands each to `react`, whose commands go to the engine's input."""

    def __init__(self, react: Callable[[Event], list[Command]], pipe: int) -> None:
        self.events: list[Event] = []
        self._react = react
        self._pipe = pipe

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        event = read_event(bytes(data))
        self.events.append(event)
        for command in self._react(event):
            os.write(self._pipe, write_line(command).encode())
        return len(data)


def do(
    job: Job, commands: list[Command] | None = None, react: Callable[[Event], list[Command]] | None = None
) -> list[Event]:
    """All events of `job`. Without `react` the input ends after `commands`."""
    reading, writing = os.pipe()
    out = _Out(react or (lambda _: []), writing)
    with os.fdopen(reading, "rb") as stream:
        channel = Channel(out, stream)  # type: ignore[arg-type]
        for command in commands or []:
            os.write(writing, write_line(command).encode())
        if react is None:
            os.close(writing)
        channel.listen()
        run_job(job, channel)
        if react is not None:
            os.close(writing)
        channel.take(timeout=None)
    return out.events


def files_under(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
