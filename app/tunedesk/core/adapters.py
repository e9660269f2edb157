"""The adapters that there are: those of finished runs and those in the library, each for one base model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunedesk.core.describe import TaskKind

Origin = Literal["run", "imported", "combined"]


@dataclass(frozen=True)
class Adapter:
    """One adapter. `id` is the name of its run or of its folder in the library, `name` what people call it.

    `base` is the source of the model it belongs to, as a run file has it. `method` and `task` are None where an
    imported adapter does not tell. `created` is in seconds since the epoch.
    """

    id: str
    name: str
    path: Path
    base: str
    method: str | None
    task: TaskKind | None
    origin: Origin
    bytes: int
    created: float
