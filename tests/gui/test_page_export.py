"""The Export page: what is saved where, and the checks as they pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import run_samples as made
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from run_samples import FakeSource
from samples import QuietSession, settle

from tunedesk.core.events import Checked, Event, Export, Finished, Stop
from tunedesk.core.problems import Problem
from tunedesk.core.runs import RunFolder
from tunedesk.core.state import reduce_all
from tunedesk.gui.exporting import ExportSession
from tunedesk.gui.pages.export import ExportPage
from tunedesk.gui.widgets import Button, Label


class Bench:
    """A page with an export whose engine is played by the test."""

    def __init__(self, session: QuietSession, monkeypatch: pytest.MonkeyPatch) -> None:
        self.session = session
        self.jobs: list[Export] = []
        monkeypatch.setattr("tunedesk.gui.exporting.EngineProcess", self._engine)
        self.exporter = ExportSession()
        self.page = ExportPage(session, self.exporter)
        self.page.resize(1048, 800)

    def _engine(self, job: Export, log: Path) -> FakeSource:  # noqa: ARG002
        self.jobs.append(job)
        self.source = FakeSource()
        return self.source

    def say(self, *events: Event) -> None:
        self.source.events.extend(made.stamped(events))

    def label(self, name: str, parent: object = None) -> str:
        return (parent or self.page).findChild(Label, name).text()  # type: ignore[attr-defined]

    def press_save(self, qtbot) -> None:
        qtbot.mouseClick(self.page.footer.next_button, Qt.MouseButton.LeftButton)


@pytest.fixture
def empty(session: QuietSession, qtbot, monkeypatch) -> Iterator[Bench]:
    settle(session)
    bench = Bench(session, monkeypatch)
    qtbot.addWidget(bench.page)
    yield bench
    bench.page.hide()
    bench.exporter.shut_down()


@pytest.fixture
def bench(empty: Bench, tmp_path: Path) -> Bench:
    """The run has ended."""
    session = empty.session
    session.change_settings(export_folder=str(tmp_path / "out"))
    session.run = RunFolder(tmp_path / "run")
    session.project = replace(session.project, run=reduce_all(made.completed()))
    empty.page.show()
    return empty


def test_that_without_a_result_it_leads_to_train(empty: Bench, qtbot) -> None:
    empty.page.show()
    assert empty.page.empty.title.text() == "Nothing to save yet"
    assert not empty.page.footer.next_button.isEnabled()
    with qtbot.waitSignal(empty.page.go) as heard:
        qtbot.mouseClick(empty.page.findChild(Button, "goTrain"), Qt.MouseButton.LeftButton)
    assert heard.args == ["train"]


def test_that_place_and_size_are_proposed(bench: Bench, tmp_path: Path) -> None:
    assert bench.page.place.text() == str(tmp_path / "out" / "support-lora-adapter")
    assert "free" in bench.label("room")
    assert bench.page.footer.next_button.text() == "Save adapter"
    assert {item.status for item in bench.page.checks.items()} == {"waiting"}


def test_that_checks_appear_as_they_pass_and_end_in_a_verdict(bench: Bench, qtbot, tmp_path: Path) -> None:
    bench.press_save(qtbot)
    assert bench.jobs == [Export(run=str(tmp_path / "run"), to=bench.page.place.text())]
    events = made.export_checks()
    bench.say(*events[:5])
    qtbot.waitUntil(lambda: bench.page.checks.items()[2].status == "ok")
    assert [item.status for item in bench.page.checks.items()][:5] == ["ok", "ok", "ok", "running", "waiting"]
    assert bench.page.checks.items()[2].text == "All 420 tensors are equal to the run's."
    assert not bench.page.footer.next_button.isEnabled()
    assert not bench.page.place.isEnabled()
    bench.say(*events[5:], Finished(outcome="completed"))
    qtbot.waitUntil(lambda: bench.exporter.status == "done")
    assert bench.label("verdict") == "This adapter is what you trained"
    assert bench.page.badge.text() == "Checked"
    assert bench.label("sha256") == "9f2c 81d0 … 9f2c 81d0"
    assert bench.page.footer.next_button.text() == "Show in folder"
    assert bench.session.project.exported == "/home/ana/Documents/TuneDesk/support-lora-adapter"
    bench.page.report_button.click()
    report = QGuiApplication.clipboard().text()
    assert "✓ Same weights: All 420 tensors are equal to the run's." in report
    assert "SHA-256 9f2c81d0" in report


def test_that_checked_is_not_said_before_the_end(bench: Bench, qtbot) -> None:
    bench.press_save(qtbot)
    bench.say(*made.export_checks())
    qtbot.waitUntil(lambda: bench.exporter.exported is not None)
    assert bench.page.badge.text() == "Checking"
    assert bench.session.project.exported is None


def test_that_a_failed_check_stays_in_the_list_with_a_cross(bench: Bench, qtbot) -> None:
    bench.press_save(qtbot)
    why = Problem(code="export.check_failed", what="The export did not pass its check and was thrown away.")
    bad = Checked(name="Same weights", passed=False, detail="2 of 420 tensors differ.")
    bench.say(*made.export_checks()[:4], bad, Finished(outcome="failed", problems=(why,)))
    qtbot.waitUntil(lambda: bench.exporter.status == "failed")
    item = bench.page.checks.items()[2]
    assert (item.status, item.text) == ("bad", "2 of 420 tensors differ.")
    assert bench.page.problems.problems()[0].headline == why.what
    assert bench.label("verdict") == "The adapter was not saved"


def test_that_an_older_export_is_replaced_only_when_asked(bench: Bench, qtbot) -> None:
    target = Path(bench.page.place.text())
    target.mkdir(parents=True)
    (target / "adapter_config.json").write_text("{}")
    bench.press_save(qtbot)
    taken = Problem(code="export.not_empty", what="The folder is not empty.")
    bench.say(Finished(outcome="failed", problems=(taken,)))
    qtbot.waitUntil(lambda: bench.exporter.status == "failed")
    assert [job.replace for job in bench.jobs] == [False]
    qtbot.mouseClick(bench.page.problems.findChild(Button, "action_replace"), Qt.MouseButton.LeftButton)
    assert [job.replace for job in bench.jobs] == [False, True]
    assert bench.page.problems.problems() == []


def test_that_a_foreign_folder_is_never_offered_for_replacement(bench: Bench, qtbot) -> None:
    bench.press_save(qtbot)
    bench.say(Finished(outcome="failed", problems=(Problem(code="export.not_empty", what="Not empty."),)))
    qtbot.waitUntil(lambda: bench.exporter.status == "failed")
    assert dict(bench.page.problems.problems()[0].actions) == {"choose": "Choose another folder"}


@pytest.mark.parametrize(
    ("code", "actions"),
    [
        ("disk.unwritable", {"choose": "Choose another folder"}),
        ("disk.full", {"retry": "Try again", "choose": "Choose another folder"}),
        ("engine.killed", {"retry": "Try again"}),
    ],
)
def test_that_each_problem_offers_what_helps(bench: Bench, qtbot, code: str, actions: dict[str, str]) -> None:
    bench.press_save(qtbot)
    bench.say(Finished(outcome="failed", problems=(Problem(code=code, what="It did not work."),)))
    qtbot.waitUntil(lambda: bench.exporter.status == "failed")
    assert dict(bench.page.problems.problems()[0].actions) == actions


def test_that_an_export_can_be_cancelled(bench: Bench, qtbot) -> None:
    bench.press_save(qtbot)
    qtbot.mouseClick(bench.page.cancel_button, Qt.MouseButton.LeftButton)
    assert isinstance(bench.source.sent[0], Stop)
    bench.say(Finished(outcome="stopped"))
    qtbot.waitUntil(lambda: bench.exporter.status == "idle")
    assert bench.page.footer.next_button.text() == "Save adapter"


def test_that_an_own_place_is_kept(bench: Bench) -> None:
    bench.page.place.setText("/elsewhere/mine")
    bench.page.refresh()
    assert bench.page.place.text() == "/elsewhere/mine"
