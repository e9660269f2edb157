"""The job that describes a model, fetching or unpacking it first where that is needed."""

from __future__ import annotations

from typing import Literal

from tunedesk.core.events import InspectModel, ModelDescribed
from tunedesk.engine.channel import Channel
from tunedesk.engine.sources import resolve


def inspect_model(job: InspectModel, channel: Channel) -> Literal["completed", "stopped"]:
    """Emit `ModelDescribed`. Raises `ProblemError`, and `Stopped` when a `Stop` ended the download."""
    info = resolve(job.source, job.revision, channel, job.fetch)
    channel.emit(ModelDescribed(info=info))
    return "completed"
