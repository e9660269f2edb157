"""The window: rail, runs, shortcuts, closing, faults; and that a fresh process never loads torch."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import run_samples as made
from PySide6.QtCore import QObject, Qt
from PySide6.QtWidgets import QDialog, QPlainTextEdit
from run_samples import FakeSource
from samples import QuietSession, settle

from tunedesk.core.events import Event, Stop, write_line
from tunedesk.core.paths import data_dir
from tunedesk.core.problems import Problem
from tunedesk.core.runs import RunFolder, create_run
from tunedesk.core.settings import load_settings
from tunedesk.core.spec import RunSpec
from tunedesk.core.state import RunState, reduce_all
from tunedesk.gui.app import Hooks, Notifier
from tunedesk.gui.runs_list import RunsReader
from tunedesk.gui.widgets import Button, StepItem, Toast
from tunedesk.gui.window import MainWindow


@pytest.fixture
def window(session: QuietSession, qtbot) -> Iterator[MainWindow]:
    made_window = MainWindow(session)
    qtbot.addWidget(made_window, before_close_func=lambda shown: setattr(shown, "_may_close", True))
    made_window.show()
    yield made_window
    made_window.session.close()
    made_window.chat.shut_down()
    made_window.exporter.shut_down()


def lines(window: MainWindow) -> dict[str, str]:
    return {item.key: item.line for item in window.rail.steps()}


def step(window: MainWindow, key: str) -> StepItem:
    return next(item for item in window.rail.steps() if item.key == key)


def record(name: str, events: list[Event]) -> RunFolder:
    """A run of the past on the disk."""
    run = create_run(RunSpec(name=name))
    run.events_file.write_text("".join(write_line(event) for event in events))
    return run


def dialog(window: MainWindow, name: str) -> QDialog:
    found = window.findChild(QDialog, name)
    assert found is not None
    return found


def live(window: MainWindow, events: list[Event]) -> FakeSource:
    """A run that this window trains."""
    source = FakeSource(events)
    window.session._watch(RunFolder(Path("/runs/live")), source, RunState())
    return source


# The rail.


def test_that_the_rail_says_why_each_step_waits(window: MainWindow) -> None:
    assert lines(window) == {
        "model": "Choose a model",
        "data": "Choose a file",
        "method": "Choose how to train",
        "fit": "Checked before training",
        "train": "Not started",
        "try": "After training",
        "export": "After training",
    }


def test_that_the_rail_says_what_was_chosen(window: MainWindow) -> None:
    settle(window.session)
    window.session.project_changed.emit()
    said = lines(window)
    assert said["model"] == "SmolLM2-135M-Instruct"
    assert said["data"] == "349 conversations"
    assert said["method"] == "LoRA, rank 16"
    assert said["fit"].endswith("of 25.9 GiB")
    assert [item.status for item in window.rail.steps()][:5] == ["settled"] * 4 + ["open"]


def test_that_the_rail_follows_a_run(window: MainWindow, qtbot) -> None:
    settle(window.session)
    source = live(window, made.running(75))
    qtbot.waitUntil(lambda: step(window, "train").progress == pytest.approx(75 / 120))
    assert lines(window)["train"].startswith("62%, ")
    source.events.extend(made.stamped([made.adapter(72), made.Finished(outcome="completed")]))
    qtbot.waitUntil(lambda: step(window, "train").status == "settled")
    assert lines(window)["train"].startswith("Best loss 1.")
    assert lines(window)["try"] == "Compare the answers"


def test_that_a_failed_run_is_named_in_the_rail(window: MainWindow, qtbot) -> None:
    live(window, made.failed(Problem(code="x", what="No.")))
    qtbot.waitUntil(lambda: step(window, "train").status == "failed")
    assert lines(window)["train"] == "Broke off at step 50"


@pytest.mark.parametrize("number", range(1, 8))
def test_that_control_and_a_number_shows_a_step(window: MainWindow, qtbot, number: int) -> None:
    window.activateWindow()
    qtbot.keyClick(window, Qt.Key(Qt.Key.Key_0.value + number), Qt.KeyboardModifier.ControlModifier)
    assert window.current == ("model", "data", "method", "fit", "train", "try", "export")[number - 1]


def test_that_the_device_is_shown_at_the_foot(window: MainWindow) -> None:
    settle(window.session)
    window.session.hardware_changed.emit()
    assert window.findChild(QObject, "deviceName").text() == "AMD Ryzen 7 7840U"
    assert window.findChild(QObject, "deviceLine").text() == "25.9 of 32.0 GiB free"


# Runs.


def test_that_runs_are_listed_with_their_best_loss(window: MainWindow, qtbot) -> None:
    record("First", made.completed())
    record("Second", made.stopped())
    record("Third", made.failed(Problem(code="x", what="No.")))
    record("Fourth", made.running())  # its process is gone
    window.read_runs()
    qtbot.waitUntil(lambda: len(window._items) == 4)
    found = {item.name: (item.status, item.value) for item in window._items}
    best = {name: reduce_all(events).best for name, events in (("c", made.completed()), ("s", made.stopped()))}
    assert found["First"] == ("done", f"{best['c'].loss:.3f}")
    assert found["Second"] == ("stopped", f"{best['s'].loss:.3f}")
    assert found["Third"] == ("failed", "failed")
    assert found["Fourth"] == ("failed", "failed")


def test_that_an_unchanged_record_is_not_read_again(own_places: Path, monkeypatch) -> None:
    run = record("First", made.completed())
    reader = RunsReader()
    assert [item.status for item in reader.read()] == ["done"]
    with monkeypatch.context() as patch:
        patch.setattr("tunedesk.gui.runs_list.summarise", lambda _: pytest.fail("read again"))
        assert [item.name for item in reader.read()] == ["First"]
    run.events_file.write_text("".join(write_line(event) for event in made.stopped()))
    assert [item.status for item in reader.read()] == ["stopped"]


def test_that_a_long_record_is_summed_up_fast(own_places: Path) -> None:
    import time

    run = record("Long", made.opening())
    line = write_line(made.step(1, 100_000))
    with run.events_file.open("a") as file:
        file.write(write_line(made.began(100_000)))
        file.write(line * 100_000)
    began = time.perf_counter()
    assert RunsReader().read()[0].name == "Long"
    assert time.perf_counter() - began < 1.0


def test_that_a_run_of_the_past_is_reopened_with_its_charts(window: MainWindow, qtbot) -> None:
    settle(window.session)
    run = record("First", made.completed())
    window.open_run(run.id)
    qtbot.waitUntil(lambda: window.session.run is not None)
    assert window.current == "train"
    page = window.page("train")
    assert len(page.run.loss.chart.train_points()) == 120
    assert page.header.subtitle.text().startswith("First. LoRA on ")
    assert window.page("train").footer.next_button.text() == "Next: Try"


def test_that_a_record_that_cannot_be_read_is_a_problem_in_words(window: MainWindow, qtbot) -> None:
    run = record("Broken", [])
    run.events_file.write_text("not an event\n")
    window.open_run(run.id)
    qtbot.waitUntil(lambda: window.findChild(QDialog, "problemsDialog") is not None)
    assert "record of this run cannot be read" in dialog(window, "problemsDialog").findChild(QObject, "words").text()


def test_that_a_new_run_keeps_the_choices(window: MainWindow, qtbot) -> None:
    settle(window.session)
    live(window, made.running())
    qtbot.waitUntil(lambda: window.session.training)
    qtbot.mouseClick(window.findChild(QObject, "newRun"), Qt.MouseButton.LeftButton)
    assert window.session.run is None
    assert window.session.project.model is not None
    assert window.current == "model"


# Telling.


def test_that_the_end_of_a_run_is_told_on_another_page(window: MainWindow, qtbot) -> None:
    settle(window.session)
    window.go("method")
    live(window, made.completed())
    qtbot.waitUntil(lambda: window.findChild(Toast) is not None)
    toast = window.findChild(Toast)
    assert toast.words.text().startswith("Training is done. Best held-out loss 1.")
    qtbot.mouseClick(toast.findChild(Button, "action"), Qt.MouseButton.LeftButton)
    assert window.current == "train"


def test_that_the_choices_are_remembered(window: MainWindow) -> None:
    settle(window.session)
    window.session.project_changed.emit()
    assert load_settings().model_source == "starter:chat"
    assert load_settings().data_source == "starter:support"


# Closing.


def test_that_closing_keeps_the_size(window: MainWindow) -> None:
    window.resize(1100, 720)
    window.close()
    assert (load_settings().window_width, load_settings().window_height) == (1100, 720)


@pytest.mark.parametrize(("choice", "sent"), [("keep", []), ("stop", [Stop])])
def test_that_closing_while_training_asks(window: MainWindow, qtbot, choice: str, sent: list[type]) -> None:
    source = live(window, made.running())
    qtbot.waitUntil(lambda: window.session.project.run.status == "running")
    window.close()
    assert window.isVisible()
    asked = dialog(window, "closingDialog")
    assert asked.findChild(Button, "keep").isDefault()
    qtbot.mouseClick(asked.findChild(Button, choice), Qt.MouseButton.LeftButton)
    assert not window.isVisible()
    assert [type(command) for command in source.sent] == sent
    assert source.detached
    assert not source.killed


def test_that_cancel_keeps_the_window_and_the_run(window: MainWindow, qtbot) -> None:
    source = live(window, made.running())
    qtbot.waitUntil(lambda: window.session.project.run.status == "running")
    window.close()
    qtbot.mouseClick(dialog(window, "closingDialog").findChild(Button, "cancel"), Qt.MouseButton.LeftButton)
    assert window.isVisible()
    assert not source.detached


def test_that_closing_without_a_run_does_not_ask(window: MainWindow) -> None:
    window.close()
    assert not window.isVisible()


# Dialogs and faults.


def test_that_settings_take_effect_and_are_kept(window: MainWindow, qtbot) -> None:
    from tunedesk.gui.theme import Theme

    window.show_settings()
    settings = dialog(window, "settingsDialog")
    qtbot.mouseClick(settings.findChild(QObject, "segment_dark"), Qt.MouseButton.LeftButton)
    assert Theme.of().tokens.name == "dark"
    assert load_settings().theme == "dark"
    Theme.of().set_mode("light")
    settings.close()


def test_that_about_names_the_version(window: MainWindow) -> None:
    from tunedesk import __version__

    window.show_about()
    about = dialog(window, "aboutDialog")
    assert ("Version", __version__) in about.findChild(QObject, "facts").rows()
    about.close()


def test_that_a_fault_is_told_calmly_and_written_down(window: MainWindow, qtbot, capsys) -> None:
    with Hooks(Notifier(window)):
        try:
            raise RuntimeError("a widget broke")
        except RuntimeError as error:
            sys.excepthook(RuntimeError, error, error.__traceback__)
    qtbot.waitUntil(lambda: window.findChild(QDialog, "messageDialog") is not None)
    told = dialog(window, "messageDialog")
    details = told.findChild(QPlainTextEdit, "details").toPlainText()
    assert "RuntimeError: a widget broke" in details
    logs = list((data_dir() / "crashes").glob("*.log"))
    assert len(logs) == 1
    assert "RuntimeError: a widget broke" in logs[0].read_text()
    told.close()


def test_that_a_fault_in_another_thread_is_told_too(window: MainWindow, qtbot, capsys) -> None:
    def fail() -> None:
        raise ValueError("in a thread")

    with Hooks(Notifier(window)):
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    qtbot.waitUntil(lambda: window.findChild(QDialog, "messageDialog") is not None)
    dialog(window, "messageDialog").close()


def test_that_problems_of_no_page_are_shown(window: MainWindow) -> None:
    window.session.failed.emit((Problem(code="disk.full", what="The disk is full.", fix="Free some space."),))
    shown = dialog(window, "problemsDialog")
    assert "The disk is full." in shown.findChild(QObject, "words").text()
    shown.close()


# Everything is reachable and named.


def test_that_every_control_has_a_name_and_words_for_a_screen_reader(window: MainWindow) -> None:
    from PySide6.QtWidgets import QAbstractButton, QAbstractSlider, QAbstractSpinBox, QLineEdit, QScrollBar

    settle(window.session)
    window.session.project = replace(window.session.project, run=reduce_all(made.completed()))
    for key in ("train", "try", "export"):
        window.go(key)
        page = window.page(key)
        for kind in (QAbstractButton, QAbstractSlider, QAbstractSpinBox, QLineEdit, QPlainTextEdit):
            for control in page.findChildren(kind):
                if isinstance(control, QScrollBar) or control.objectName().startswith("qt_"):
                    continue
                assert control.objectName(), f"{key}: {control} has no name"
                spoken = control.accessibleName() or (control.text() if isinstance(control, QAbstractButton) else "")
                assert spoken, f"{key}: {control.objectName()}"


# A fresh process.

FRESH = """
import sys
from tunedesk.gui.app import main

def ready(window):
    def shown():
        for key in ("model", "data", "method", "fit", "train", "try", "export"):
            window.go(key)
        window.close()
    window.painted.disconnect()
    window.painted.connect(shown)

code = main([], ready=ready)
import locale
assert locale.localeconv()["decimal_point"] == "."
print("heavy:", sorted({"torch", "transformers", "peft", "datasets", "bitsandbytes"} & sys.modules.keys()))
sys.exit(code)
"""


def test_that_a_fresh_window_never_loads_torch_and_its_kin(own_places: Path) -> None:
    app = Path(__file__).resolve().parents[2] / "app"
    environment = {**os.environ, "PYTHONPATH": str(app), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-c", FRESH], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "heavy: []" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals as on POSIX")
def test_that_control_c_ends_the_app(own_places: Path) -> None:
    import signal

    app = Path(__file__).resolve().parents[2] / "app"
    code = "import sys\nfrom tunedesk.gui.app import main\n" + (
        "def ready(w):\n    w.painted.disconnect()\n    w.painted.connect(lambda: print('up', flush=True))\n"
        "sys.exit(main([], ready=ready))"
    )
    environment = {**os.environ, "PYTHONPATH": str(app)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
