"""The engine's last word: a `Finished` that says what went wrong, even when nothing can be written any more."""

from __future__ import annotations

import errno
import traceback

import pytest

from tests.engine.jobs import do
from tunedesk.core.events import Finished, InspectData
from tunedesk.engine import jobs


def test_that_a_full_disk_is_told_when_the_log_is_on_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(jobs, "perform", full)
    monkeypatch.setattr(traceback, "print_exc", full)
    last = do(InspectData(source="starter:support"))[-1]
    assert isinstance(last, Finished)
    assert [problem.code for problem in last.problems] == ["disk.full"]
