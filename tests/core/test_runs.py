"""Run folders: made once, never written over, readable after a crash."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.core.test_state import START, began
from tunedesk.core.events import Started, write_line
from tunedesk.core.problems import ProblemError
from tunedesk.core.runs import create_run, list_runs, open_run, write_atomic
from tunedesk.core.spec import RunSpec

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEDESK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_that_a_run_keeps_what_was_asked_for() -> None:
    spec = RunSpec(name="Support replies v2")
    run = create_run(spec, now=NOW)
    assert run.id == "20260102-030405-support-replies-v2"
    assert open_run(run.id).spec() == spec
    assert open_run(run.path).path == run.path


def test_that_two_runs_of_one_second_get_two_folders() -> None:
    paths = {create_run(RunSpec(), now=NOW).path for _ in range(3)}
    assert len(paths) == 3
    assert len(list_runs()) == 3


def test_that_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ProblemError, match="not empty"):
        create_run(RunSpec(), tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_that_a_place_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProblemError, match="Nothing can be written"):
        create_run(RunSpec(), tmp_path / "file" / "run")


def test_that_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="no such folder"):
        open_run("nowhere")
    with pytest.raises(ProblemError, match=r"no run\.toml"):
        open_run(tmp_path)


def test_that_a_run_whose_process_is_gone_reads_as_interrupted() -> None:
    run = create_run(RunSpec())
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    started = Started(job="train", pid=int(gone.stdout), version="0")
    run.events_file.write_text("".join(map(write_line, [started, START[1], began()])))
    state = run.state()
    assert state.status == "failed"
    assert state.problems[0].code == "run.interrupted"
    assert not run.alive()


def test_that_another_program_with_the_same_pid_is_not_the_engine() -> None:
    run = create_run(RunSpec())
    run.events_file.write_text(write_line(Started(job="train", pid=os.getpid(), version="0")))
    assert not run.alive()


def test_that_a_damaged_record_is_a_problem() -> None:
    run = create_run(RunSpec())
    run.events_file.write_text('{"kind":"what"}\n')
    with pytest.raises(ProblemError, match="cannot be read"):
        run.state()


def test_that_a_failed_atomic_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    write_atomic(path, "old")

    def no_space(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
