"""The engine process, for real: it begins with Started, ends with one Finished, and may be killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tunedesk.core import events as e
from tunedesk.core.client import EngineProcess, RunFollower, death_problem, last_lines
from tunedesk.core.runs import RunFolder


def run(job: e.Job, log: Path) -> list[e.Event]:
    process = EngineProcess(job, log)
    process.start()
    return list(process.events())


def test_that_a_job_begins_with_started_and_ends_with_one_finished(tmp_path: Path) -> None:
    events = run(e.InspectModel(source=str(tmp_path / "nothing")), tmp_path / "log")
    assert isinstance(events[0], e.Started)
    assert [type(event) for event in events].count(e.Finished) == 1
    last = events[-1]
    assert isinstance(last, e.Finished)
    assert last.outcome == "failed"
    assert last.problems[0].code == "model.missing"
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_that_a_killed_engine_is_reported_once_and_recorded(tmp_path: Path) -> None:
    record = tmp_path / "events.jsonl"
    record.write_text("")
    process = EngineProcess(e.Chat(model=str(tmp_path)), tmp_path / "log", record)
    process.start()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    events = list(process.events())
    last = events[-1]
    assert isinstance(last, e.Finished)
    assert last.problems[0].code == "engine.killed"
    assert process.next_event(0.1) is None
    assert e.read_events_file(record) == [last]


def test_that_commands_to_a_dead_engine_are_harmless(tmp_path: Path) -> None:
    process = EngineProcess(e.InspectModel(source=str(tmp_path)), tmp_path / "log")
    process.start()
    list(process.events())
    process.wait(10)
    process.send(e.Stop())


def test_that_what_libraries_print_never_reaches_the_events(tmp_path: Path) -> None:
    code = (
        "import os; from tunedesk.engine.channel import open_channel; from tunedesk.core.events import Stage\n"
        "channel = open_channel(); print('noise'); os.system('echo more noise'); os.write(1, b'raw noise\\n')\n"
        "channel.emit(Stage(text='Loading'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    event = e.read_event(line)
    assert isinstance(event, e.Stage)
    assert "raw noise" in done.stderr


def test_that_a_closed_window_does_not_end_the_job(tmp_path: Path) -> None:
    code = (
        "import sys, os; from pathlib import Path; from tunedesk.engine.channel import open_channel\n"
        "from tunedesk.core.events import Stage\n"
        f"channel = open_channel(); channel.record_to(Path({str(tmp_path / 'events.jsonl')!r}), Path('stop'))\n"
        "channel.listen()\n"
        "channel.emit(Stage(text='one')); assert channel.take(None) is None\n"
        "channel.emit(Stage(text='two')); channel.emit(Stage(text='three'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdin.close()
    assert process.wait(20) == 0
    texts = [event.text for event in e.read_events_file(tmp_path / "events.jsonl") if isinstance(event, e.Stage)]
    assert texts == ["one", "two", "three"]


def test_that_a_torn_record_is_mended_before_it_grows(tmp_path: Path) -> None:
    record = tmp_path / "events.jsonl"
    record.write_text(e.write_line(e.Stage(seq=4, text="whole")) + '{"kind":"sta')
    code = (
        "from pathlib import Path; from tunedesk.engine.channel import open_channel\n"
        "from tunedesk.core.events import Stage\n"
        f"channel = open_channel(); channel.record_to(Path({str(record)!r}), Path('stop'))\n"
        "channel.emit(Stage(text='next'))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    assert [event.seq for event in e.read_events_file(record)] == [4, 5]


def test_that_a_death_is_told_in_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\n\ntwo\nthree\nfour\n")
    assert last_lines(log) == "two / three / four"
    assert "SIGSEGV" in death_problem(-11, "", "").found
    assert "exit status 3" in death_problem(3, "bad thing", "").found
    assert death_problem(-9, "", "").code == "engine.killed"
    assert last_lines(tmp_path / "gone") == ""


def test_that_a_run_that_is_missing_still_begins_and_ends(tmp_path: Path) -> None:
    events = run(e.Train(run=str(tmp_path / "nothing")), tmp_path / "log")
    assert [event.kind for event in events] == ["started", "finished"]
    last = events[-1]
    assert isinstance(last, e.Finished)
    assert last.problems[0].code == "run.missing"


def follow(folder: Path) -> list[e.Event]:
    follower = RunFollower(RunFolder(folder))
    follower.start()
    events: list[e.Event] = []
    while not follower.finished:
        event = follower.next_event(0.1)
        if event is not None:
            events.append(event)
    follower.detach()
    return events


def record(folder: Path, *events: e.Event) -> None:
    with (folder / "events.jsonl").open("a") as file:
        file.writelines(map(e.write_line, events))


def test_that_a_followed_run_ends_with_its_own_finished(tmp_path: Path) -> None:
    start = e.Started(job="train", pid=2**22 + 1, version="0")
    record(tmp_path, start, e.Stage(text="x"), e.Finished(outcome="failed"))
    record(tmp_path, start, e.Stage(text="y"), e.Finished(outcome="completed"))
    kinds = [event.kind for event in follow(tmp_path)]
    assert kinds == ["started", "stage", "finished"] * 2


def test_that_a_followed_run_whose_process_is_gone_ends_as_interrupted(tmp_path: Path) -> None:
    record(tmp_path, e.Started(job="train", pid=2**22 + 1, version="0"), e.Stage(text="x"))
    last = follow(tmp_path)[-1]
    assert isinstance(last, e.Finished)
    assert last.problems[0].code == "run.interrupted"
