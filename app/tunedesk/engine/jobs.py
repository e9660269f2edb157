"""Which code does which job. Each job's module, and torch with it, is imported only when that job runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import psutil

from tunedesk.core.events import (
    Chat,
    CombineAdapters,
    Export,
    ImportAdapter,
    InspectData,
    InspectModel,
    Job,
    MakePlan,
    Train,
)
from tunedesk.core.runs import open_run
from tunedesk.engine.channel import Channel

Outcome = Literal["completed", "stopped"]


def prepare(job: Job, channel: Channel) -> None:
    """Open the run's record before `Started`, so that it holds every event of a training job."""
    if isinstance(job, Train):
        run = open_run(Path(job.run))
        run.stop_request.unlink(missing_ok=True)
        if not (job.resume and run.outcome() == "completed"):  # which is refused, and leaves no mark on the run
            channel.record_to(run.events_file, run.stop_request)


def perform(job: Job, channel: Channel) -> Outcome:
    """Do `job`. Raises `ProblemError`."""
    match job:
        case InspectModel():
            from tunedesk.engine.describe_model import inspect_model

            return inspect_model(job, channel)
        case InspectData():
            from tunedesk.engine.describe_data import inspect_data

            return inspect_data(job, channel)
        case MakePlan():
            from tunedesk.engine.planning import make_plan_job

            return make_plan_job(job, channel)
        case Train():
            _wait_awake()
            from tunedesk.engine.train import train

            return train(job, channel)
        case Chat():
            from tunedesk.engine.chat import chat

            return chat(job, channel)
        case Export():
            from tunedesk.engine.export import export

            return export(job, channel)
        case ImportAdapter():
            from tunedesk.engine.library import import_adapter

            return import_adapter(job, channel)
        case CombineAdapters():
            from tunedesk.engine.combine import combine_adapters

            return combine_adapters(job, channel)


_LOOK, _FREE = 0.2, 0.5
"""Seconds in which other work is looked for, and cores that it may keep busy without being in the way."""


def _wait_awake() -> None:
    """Let waiting threads look for work for a moment before they sleep; must come before torch is imported.

    A training step is some thousand parallel loops in close succession. Measured on 2 cores, a step of 1,050 tokens
    with sleep at once, a spin count of 1,000 and of 20,000: with free cores 1.5, 1.2 and 1.0 s; beside other work for
    every core 1.6, 1.7 and 3.9 s. So it depends on what else is running when the training begins.
    """
    busy_cores = psutil.cpu_percent(interval=_LOOK) / 100 * (psutil.cpu_count() or 1)  # not the load of minutes ago
    os.environ.setdefault("GOMP_SPINCOUNT", "20000" if busy_cores < _FREE else "1000")
