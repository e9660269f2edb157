"""Which code does which job. Each job's module, and torch with it, is imported only when that job runs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tunedesk.core.events import Chat, Export, InspectData, InspectModel, Job, MakePlan, Train
from tunedesk.core.runs import open_run
from tunedesk.engine.channel import Channel

Outcome = Literal["completed", "stopped"]


def prepare(job: Job, channel: Channel) -> None:
    """Open the run's record before `Started`, so that it holds every event of a training job."""
    if isinstance(job, Train):
        run = open_run(Path(job.run))
        run.stop_request.unlink(missing_ok=True)
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
            from tunedesk.engine.train import train

            return train(job, channel)
        case Chat():
            from tunedesk.engine.chat import chat

            return chat(job, channel)
        case Export():
            from tunedesk.engine.export import export

            return export(job, channel)
