"""The whole path in the real window, by clicks and keys, with the real engine."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from PySide6.QtWidgets import QLabel, QLineEdit

from tests.e2e.conftest import OpenWindow, Person
from tunedesk.core.events import Evaluated, Finished, Started, StepDone, read_events_file
from tunedesk.core.state import RunState

pytestmark = pytest.mark.slow


def state(person: Person) -> RunState:
    return person.window.session.project.run or RunState()


def text(person: Person, name: str) -> str:
    label = person.see(name, QLabel)
    assert isinstance(label, QLabel)
    return label.text()


def problems(person: Person) -> str:
    """What the page's problem bar says."""
    page = person.window.stack.currentWidget()
    return page.problems.accessibleName() if page.problems.isVisible() else ""  # type: ignore[attr-defined]


def set_in_all_settings(person: Person, **values: str) -> None:
    person.click("allSettings")
    for name, value in values.items():
        person.type_into(name, value)
    person.click("use")


def walk_to_train(person: Person, **settings: str) -> None:
    """Next, Next, Next, Next, from the Model page."""
    person.next()
    person.wait(lambda: person.window.current == "data" and person.can_go_on())
    person.next()
    person.next()
    assert person.window.current == "fit"
    if settings:
        set_in_all_settings(person, **settings)
    person.next()
    assert person.window.current == "train"


@pytest.mark.timeout(600)
def test_that_a_newcomer_reaches_a_checked_adapter(open_window: OpenWindow, tmp_path: Path) -> None:
    person = open_window()
    person.next()
    assert person.window.current == "data"
    person.next()
    assert person.window.current == "method"
    person.next()
    assert person.window.current == "fit"
    set_in_all_settings(person, max_steps="20", eval_steps="20")
    person.next()
    assert person.window.current == "train"
    person.next()
    person.wait(lambda: state(person).status == "running", 120)
    person.wait(lambda: state(person).ended, 400)

    assert state(person).status == "completed", state(person).problems
    run = person.window.session.run
    assert run is not None
    events = read_events_file(run.events_file)
    assert isinstance(events[0], Started)
    assert [type(event) for event in events].count(Finished) == 1
    steps = [(event.step, event.loss) for event in events if isinstance(event, StepDone)]
    checks = [(event.step, event.loss) for event in events if isinstance(event, Evaluated)]
    assert len(steps) == 20
    chart = person.see("lossChart")
    person.wait(lambda: chart.train_points() == steps and chart.eval_points() == checks, 5)
    assert checks[-1][1] < checks[0][1]

    person.next()
    assert person.window.current == "try"
    chat = person.window.chat
    person.wait(lambda: chat.can_ask, 120)
    person.type_into("composer", "My lamp arrived broken.", enter=True)
    person.wait(lambda: chat.status == "answering", 5)
    person.wait(lambda: chat.can_ask, 120)
    base, tuned = (text_of_answer(person, side) for side in ("base", "tuned"))
    assert base
    assert tuned
    assert base != tuned

    person.next()
    assert person.window.current == "export"
    target = tmp_path / "adapter"
    field = person.see("place", QLineEdit)
    assert isinstance(field, QLineEdit)
    person.type_into("place", str(target))
    person.next()
    person.wait(lambda: (target / "adapter_model.safetensors").exists(), 120)
    person.wait(lambda: person.window.session.project.exported, 20)
    assert json.loads((target / "adapter_config.json").read_text())["peft_type"] == "LORA"
    assert "Harbour" not in (target / "README.md").read_text()  # the card tells of the data, it does not quote it


def text_of_answer(person: Person, side: str) -> str:
    label = person.see(f"answer_{side}").findChild(QLabel, "words")
    assert isinstance(label, QLabel)
    return label.text()


def test_that_stop_keeps_what_was_learned(open_window: OpenWindow, tiny_model: Path, small_data: Path) -> None:
    person = open_window(model_source=str(tiny_model), data_source=str(small_data))
    walk_to_train(person, max_steps="4000", save_steps="10", eval_steps="10")
    person.next()
    person.wait(lambda: state(person).step >= 15, 120)
    person.click("stop")
    assert "Stopping after this step" in person.see("stop").text()  # type: ignore[attr-defined]
    person.wait(lambda: state(person).ended, 60)
    assert state(person).status == "stopped"
    assert "topped" in text(person, "verdict") + text(person, "verdictDetail")
    run = person.window.session.run
    assert run is not None
    assert (run.adapter / "adapter_model.safetensors").exists()
    assert person.can_go_on()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_that_a_killed_engine_is_told_and_can_be_resumed(
    open_window: OpenWindow, tiny_model: Path, small_data: Path
) -> None:
    person = open_window(model_source=str(tiny_model), data_source=str(small_data))
    walk_to_train(person, max_steps="400", save_steps="10", eval_steps="50")
    person.next()
    person.wait(lambda: state(person).checkpoint is not None and state(person).step >= 12, 120)
    run = person.window.session.run
    assert run is not None
    pid = run.process_id()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    person.wait(lambda: state(person).ended, 30)
    assert state(person).status == "failed"
    assert "ended from outside" in problems(person)
    saved = state(person).checkpoint
    assert saved is not None

    person.click("action_resume")
    person.wait(lambda: state(person).status == "running", 120)
    person.wait(lambda: state(person).ended, 200)
    assert state(person).status == "completed", state(person).problems
    steps = [item.step for item in state(person).steps]
    assert steps == list(range(1, 401))
    events = read_events_file(run.events_file)
    assert [event.outcome for event in events if isinstance(event, Finished)] == ["failed", "completed"]


def test_that_a_bad_file_stops_the_path_and_says_why(open_window: OpenWindow, tiny_model: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": [{"role": "user", "content": "Hi"}]}\n')
    person = open_window(model_source=str(tiny_model), data_source=str(bad))
    person.wait(lambda: person.window.session.project.data_problems, 60)
    person.window.rail.step_chosen.emit("data")
    person.wait(lambda: "line 1" in problems(person).lower(), 5)
    assert not person.can_go_on()
