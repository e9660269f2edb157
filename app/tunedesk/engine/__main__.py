"""The engine process: one job from standard input, events on standard output, everything else on standard error."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from tunedesk import __version__
from tunedesk.core.events import Finished, Job, Started
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.core.runs import cannot_write
from tunedesk.engine.channel import Channel, Stopped, open_channel


def main() -> int:
    """Do the job on the first input line. Exit status 0 when it completed or stopped, 2 for problems, 1 otherwise."""
    channel = open_channel()
    be_a_good_neighbour()
    try:
        job = channel.read_job()
    except ValidationError as error:
        channel.emit(Started(job="unknown", pid=_pid(), version=__version__))
        channel.emit(Finished(outcome="failed", problems=(_internal("The job was not understood.", str(error)),)))
        return 1
    channel.listen()
    return run_job(job, channel)


def be_a_good_neighbour() -> None:
    """Let idle compute threads sleep instead of spin; must run before torch is imported.

    torch and bitsandbytes each bring a pool of OpenMP threads. Where they spin against each other, or against the
    window, 4-bit training on 2 busy cores takes ten times as long, and a chat answers at 2 instead of 18 tokens/s (one
    token is hundreds of short parallel loops). Alone, sleeping costs a chat a third; training decides for itself.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def run_job(job: Job, channel: Channel) -> int:
    """`Started`, the job's own events, then exactly one `Finished`, whatever happens in between."""
    from tunedesk.engine.jobs import perform, prepare

    ending, status = Finished(outcome="failed", problems=(_internal("The job broke off.", ""),)), 1
    try:
        try:
            prepare(job, channel)
        finally:
            channel.emit(Started(job=job.job, pid=_pid(), version=__version__))
        outcome = perform(job, channel)
        ending, status = Finished(outcome=outcome), 0
    except Stopped:
        ending, status = Finished(outcome="stopped"), 0
    except ProblemError as error:
        ending, status = Finished(outcome="failed", problems=error.problems), 2
    except OSError as error:
        _log_traceback()
        ending, status = Finished(outcome="failed", problems=(_disk(error),)), 2
    except MemoryError:
        _log_traceback()
        ending, status = Finished(outcome="failed", problems=(out_of_memory(""),)), 2
    except Exception as error:  # noqa: BLE001 (the one place that turns any failure into the last event)
        _log_traceback()
        ending, status = Finished(outcome="failed", problems=(_unexpected(error),)), 1
    finally:
        with suppress(OSError):  # the run's record is on a full disk; whoever listens has heard it
            channel.emit(ending)
    return status


def _log_traceback() -> None:
    with suppress(OSError):  # the log may be on the disk that is full
        traceback.print_exc()


def _unexpected(error: Exception) -> Problem:
    name = type(error).__name__
    if name == "OutOfMemoryError" or "can't allocate memory" in str(error) or "out of memory" in str(error).lower():
        return out_of_memory(str(error).splitlines()[0])
    return _internal("Something went wrong that TuneDesk did not foresee.", f"{name}: {error}")


def out_of_memory(detail: str) -> Problem:
    """The problem of a step that did not fit."""
    return Problem(
        code="memory.full",
        what="The memory is full.",
        found=detail,
        fix="Choose a smaller batch, shorter texts, gradient checkpointing or QLoRA. `tunedesk plan` says what fits.",
    )


def _disk(error: OSError) -> Problem:
    return cannot_write(Path(str(error.filename or "the run's folder")), error)


def _internal(what: str, found: str) -> Problem:
    return Problem(code="internal", what=what, found=found, fix="The log has the details; please report it with them.")


def _pid() -> int:
    return os.getpid()


if __name__ == "__main__":
    sys.exit(main())
