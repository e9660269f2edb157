"""The Train page: a list of events goes in, and what is on screen is asserted; buttons send the right commands."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import run_samples as made
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLineEdit
from run_samples import FakeSource
from samples import QuietSession, base_model, gpu_hardware, long_data, qwen, settle

from tunedesk.core.client import RunFollower, death_problem
from tunedesk.core.events import SaveNow, Stop, Train, write_line
from tunedesk.core.problems import Problem
from tunedesk.core.runs import RunFolder
from tunedesk.core.state import RunState, reduce_all
from tunedesk.gui.pages.train import TrainPage
from tunedesk.gui.widgets import Button, Label


@pytest.fixture
def page(session: QuietSession, qtbot) -> Iterator[TrainPage]:
    settle(session)
    shown = TrainPage(session)
    shown.resize(1048, 800)
    qtbot.addWidget(shown)
    shown.show()
    yield shown
    shown.hide()


def show(page: TrainPage, events: list, name: str = "run") -> None:
    """Let the session show a run with these events."""
    session = page.session
    session.run = RunFolder(Path("/runs") / name)
    session.project = replace(session.project, run=reduce_all(events))
    session.run_changed.emit()
    session.state_changed.emit()


def text(page: TrainPage, name: str) -> str:
    return page.findChild(Label, name).text()


def button(page: TrainPage, name: str) -> Button:
    return page.findChild(Button, name)


def test_that_the_ready_page_says_what_will_happen(page: TrainPage) -> None:
    facts = dict(page.ready.facts.rows())
    assert facts["Model"] == "SmolLM2-135M-Instruct"
    assert facts["Data"] == "support.jsonl: 314 rows to learn from, 35 held out to check progress"
    assert facts["Steps"] == "120 steps, 3 passes over the data"
    assert "is free" in facts["Memory"]
    assert page.footer.next_button.text() == "Start training"
    assert page.footer.next_button.isEnabled()
    assert not button(page, "stop").isVisible()
    assert page.problems.problems() == []


def test_that_a_blocker_disables_start_and_leads_to_its_page(page: TrainPage, qtbot) -> None:
    page.session.project = replace(page.session.project, model=base_model())
    page.refresh()
    assert not page.footer.next_button.isEnabled()
    assert page.problems.problems()[0].headline == "SmolLM2-135M has no chat template."
    with qtbot.waitSignal(page.go) as heard:
        qtbot.mouseClick(page.problems.findChild(Button, "action_model"), Qt.MouseButton.LeftButton)
    assert heard.args == ["model"]


def test_that_missing_data_is_said_once_its_inspection_is_over(page: TrainPage) -> None:
    page.session.project = replace(page.session.project, data=None)
    page.session.data_activity = "Reading the data"
    page.refresh()
    assert page.problems.problems() == []
    assert not page.footer.next_button.isEnabled()
    assert page.header.subtitle.text() == "Reading the data. Start is ready in a moment."
    page.session.data_activity = None
    page.refresh()
    assert page.problems.problems()[0].actions == (("data", "Go to Data"),)


def test_that_a_run_that_does_not_fit_is_warned_of_but_may_start(page: TrainPage) -> None:
    settle(page.session, qwen(), long_data(), gpu_hardware(4.0))
    page.refresh()
    item = page.problems.problems()[0]
    assert item.severity == "warn"
    assert item.actions == (("fit", "Settle the memory"),)
    assert page.footer.next_button.isEnabled()


def test_that_start_makes_a_run_with_the_name_and_starts_the_engine(page: TrainPage, qtbot, monkeypatch) -> None:
    sources: list[FakeSource] = []

    def engine(job: Train, log: Path, events: Path) -> FakeSource:
        source = FakeSource(made.opening())
        source.job = job  # type: ignore[attr-defined]
        sources.append(source)
        return source

    monkeypatch.setattr("tunedesk.gui.session.EngineProcess", engine)
    name = page.findChild(QLineEdit, "runName")
    name.selectAll()
    qtbot.keyClicks(name, "Marlow speaks")
    qtbot.mouseClick(page.footer.next_button, Qt.MouseButton.LeftButton)
    run = page.session.run
    assert run is not None
    assert run.spec().name == "Marlow speaks"
    assert sources[0].job.run == str(run.path)  # type: ignore[attr-defined]
    qtbot.waitUntil(lambda: text(page, "step") == "Loading the model")
    assert text(page, "trainLoss") == "–"
    assert button(page, "stop").isVisible()


def test_that_a_taken_name_is_not_suggested_again(page: TrainPage, qtbot) -> None:
    page.session.background.run(lambda: ("Support LoRA", "Support LoRA 2"), page.ready._take_names)
    qtbot.waitUntil(lambda: page.ready.name.text() == "Support LoRA 3")


def test_that_a_running_run_shows_its_numbers(page: TrainPage) -> None:
    events = made.running(75)
    show(page, events)
    state = reduce_all(events)
    assert text(page, "step") == "Step 75"
    assert text(page, "total") == "of 120"
    assert text(page, "epoch") == "Epoch 2 of 3"
    assert text(page, "soFar") == "8 min so far"
    assert text(page, "left").endswith("left")
    assert text(page, "doneAt").startswith(", done about ")
    assert page.run.progress.bar.value() == pytest.approx(75 / 120)
    assert text(page, "trainLoss") == f"{state.steps[-1].loss:.3f}"
    assert text(page, "evalLoss") == f"{state.evaluations[-1].loss:.3f}"
    assert text(page, "memoryPeak") == f"Peak {state.peak_memory / made.GIB:.2f} GiB"
    assert not page.footer.next_button.isEnabled()
    assert page.run.log.list.lines()[0].right == "Step 72"
    assert page.run.log.list.lines()[1].glyph == "star"


def test_that_the_charts_hold_exactly_the_points_of_the_events(page: TrainPage) -> None:
    events = made.running(75)
    for end in (3, 20, len(events)):  # as they would come in: some, more, all
        show(page, events[:end])
    steps = [event for event in events if event.kind == "step"]
    checks = [event for event in events if event.kind == "evaluated"]
    assert page.run.loss.chart.train_points() == [(event.step, event.loss) for event in steps]
    assert page.run.loss.chart.eval_points() == [(event.step, event.loss) for event in checks]
    assert page.run.rate.chart.points() == [(event.step, event.learning_rate) for event in steps]
    assert page.run.speed.chart.points() == [(event.step, event.tokens / event.seconds) for event in steps]


def test_that_another_run_replaces_all_points(page: TrainPage) -> None:
    show(page, made.running(75), "one")
    show(page, made.running(10), "two")
    assert len(page.run.loss.chart.train_points()) == 10
    assert len(page.run.log.list.lines()) == 0


def test_that_a_resumed_run_drops_the_points_it_does_again(page: TrainPage) -> None:
    events = [*made.running(50), made.began(first=49), *made.steps(49, 55)]
    show(page, made.running(50))
    show(page, made.stamped(events))
    assert [point[0] for point in page.run.loss.chart.train_points()] == list(range(1, 56))


def test_that_a_completed_run_shows_its_verdict_and_leads_to_try(page: TrainPage) -> None:
    events = made.completed()
    show(page, events)
    state = reduce_all(events)
    assert state.best is not None
    assert state.base_loss is not None
    fall = 100 * (state.base_loss - state.best.loss) / state.base_loss
    said = f"Held-out loss fell from {state.base_loss:.3f} to {state.best.loss:.3f}, {fall:.0f}% lower."
    assert text(page, "verdict") == said
    assert text(page, "verdictDetail") == "120 steps in 13 min. The best, step 120, is kept."
    assert page.footer.next_button.isEnabled()
    assert page.footer.next_button.kind() == "primary"
    assert page.footer.next_button.text() == "Next: Try"
    assert not button(page, "stop").isVisible()


def test_that_a_loss_that_did_not_fall_is_no_success(page: TrainPage) -> None:
    worse = made.evaluated(12).model_copy(update={"loss": 3.0, "best": False})
    base = made.evaluated(0)
    events = [*made.opening(), made.began(12), base, *made.steps(1, 12, 12, every=99), worse, made.adapter(12)]
    show(page, made.stamped([*events, made.Finished(outcome="completed")]))
    assert text(page, "verdict") == f"Held-out loss did not fall: {base.loss:.3f} before, {base.loss:.3f} at best."


def test_that_a_stopped_run_says_so_and_keeps_the_best(page: TrainPage) -> None:
    show(page, made.stopped(50))
    assert text(page, "verdictDetail").startswith("Stopped on request after 50 of 120 steps in")
    assert "The best, step 48, is kept." in text(page, "verdictDetail")
    assert page.footer.next_button.isEnabled()


def test_that_a_failed_run_shows_the_problem_in_place_of_progress(page: TrainPage) -> None:
    problem = Problem(code="memory.full", what="The memory is full.", fix="Choose a smaller batch.")
    show(page, made.failed(problem))
    item = page.problems.problems()[0]
    assert item.headline == "The memory is full."
    assert dict(item.actions) == {
        "resume": "Resume from step 48",
        "try": "Try the adapter of step 48",
        "log": "Open log",
    }
    assert item.aside == "Step 50 of 120"
    assert not page.run.progress.isVisible()
    assert len(page.run.loss.chart.train_points()) == 50


def test_that_a_run_that_failed_early_offers_to_start_anew(page: TrainPage) -> None:
    events = [*made.opening(), made.Finished(outcome="failed", problems=(Problem(code="x", what="No."),))]
    show(page, made.stamped(events))
    assert dict(page.problems.problems()[0].actions) == {"again": "Start anew", "log": "Open log"}
    assert not page.footer.next_button.isEnabled()


def test_that_a_killed_engine_is_explained_and_can_be_resumed(page: TrainPage, qtbot, monkeypatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(page.session, "resume_run", lambda: asked.append(True))
    show(page, made.failed(death_problem(-9, "", "engine.log")))
    assert page.problems.problems()[0].headline == "The training process was ended from outside."
    qtbot.mouseClick(page.problems.findChild(Button, "action_resume"), Qt.MouseButton.LeftButton)
    assert asked == [True]


def test_that_a_loss_that_is_no_number_is_said_in_words_and_leaves_a_gap(page: TrainPage) -> None:
    show(page, made.nan_run())
    assert page.problems.problems()[0].headline == "The loss is not a number since step 51."
    assert text(page, "trainLoss") == "not a number"
    step, loss = page.run.loss.chart.train_points()[-1]
    assert step == 51
    assert math.isnan(loss)


def test_that_stop_and_save_send_their_commands_and_answer_at_once(page: TrainPage, qtbot) -> None:
    source = FakeSource(made.running(75))
    page.session._watch(RunFolder(Path("/runs/live")), source, RunState())
    qtbot.waitUntil(lambda: text(page, "step") == "Step 75")
    qtbot.mouseClick(button(page, "saveNow"), Qt.MouseButton.LeftButton)
    assert button(page, "saveNow").text() == "Saving after this step"
    source.events.extend(made.stamped([made.CheckpointSaved(step=75, path="c", bytes=1)]))
    qtbot.waitUntil(lambda: button(page, "saveNow").text() == "Save now")
    qtbot.mouseClick(button(page, "stop"), Qt.MouseButton.LeftButton)
    assert button(page, "stop").text() == "Stopping after this step"
    assert not button(page, "stop").isEnabled()
    assert page.footer.hint.text().startswith("Stopping after this step")
    assert [type(command) for command in source.sent] == [SaveNow, Stop]
    source.events.extend(made.stamped([made.adapter(72), made.Finished(outcome="stopped")]))
    qtbot.waitUntil(lambda: not button(page, "stop").isVisible())
    assert text(page, "verdict").startswith("Held-out loss fell")


def test_that_a_flood_of_events_repaints_at_about_ten_hertz(page: TrainPage, qtbot) -> None:
    total = 2000
    source = FakeSource([*made.opening(), made.began(total), *made.steps(1, 600, total)], interval=0.002)
    seen: list[RunState] = []
    page.session.state_changed.connect(lambda: seen.append(page.session.project.run))
    page.session._watch(RunFolder(Path("/runs/flood")), source, RunState())
    with qtbot.waitSignal(page.session.state_changed):
        pass
    seen.clear()
    qtbot.wait(1000)
    assert 5 <= len(seen) <= 13
    source.detach()


def test_that_a_hidden_page_does_no_work(page: TrainPage) -> None:
    show(page, made.running(10))
    page.hide()
    show(page, made.running(75))
    assert len(page.run.loss.chart.train_points()) == 10
    page.show()
    assert len(page.run.loss.chart.train_points()) == 75


def test_that_the_view_of_the_loss_is_remembered(page: TrainPage, qtbot) -> None:
    show(page, made.running(75))
    qtbot.mouseClick(page.run.loss.views.findChild(object, "segment_log"), Qt.MouseButton.LeftButton)
    assert page.session.settings.loss_view == "log"
    assert page.run.loss.chart.mode() == "log"


def test_that_the_loss_is_saved_as_a_table_and_a_picture(page: TrainPage, tmp_path, monkeypatch) -> None:
    show(page, made.running(75))
    for kind in ("csv", "png"):
        target = tmp_path / f"loss.{kind}"
        where = (str(target), "")
        monkeypatch.setattr("tunedesk.gui.pages._train_loss.QFileDialog.getSaveFileName", lambda *_, where=where: where)
        page.run.loss.save(kind)
        assert target.stat().st_size > 0
    assert len((tmp_path / "loss.csv").read_text().splitlines()) == 77  # a head, step 0 and 75 steps


def test_that_the_full_log_shows_what_the_engine_printed_and_follows_it(page: TrainPage, tmp_path) -> None:
    page.session.run = RunFolder(tmp_path)
    (tmp_path / "engine.log").write_text("Loading weights\n")
    page.session.project = replace(page.session.project, run=reduce_all(made.running(5)))
    page.show_log()
    dialog = page.window().findChild(object, "logDialog")
    assert dialog.text.toPlainText() == "Loading weights\n"
    with (tmp_path / "engine.log").open("a") as file:
        file.write("Traceback\n")
    dialog.read()
    assert dialog.text.toPlainText() == "Loading weights\nTraceback\n"
    dialog.close()


def test_that_a_run_of_another_window_can_be_stopped_but_not_saved(
    page: TrainPage, tmp_path, qtbot, monkeypatch
) -> None:
    monkeypatch.setattr("tunedesk.core.client.RunFollower._alive", lambda _: True)
    run = RunFolder(tmp_path)
    run.events_file.write_text("".join(write_line(event) for event in made.running(20)))
    page.session._watch(run, RunFollower(run), RunState())
    qtbot.waitUntil(lambda: len(page.run.loss.chart.train_points()) == 20)
    assert page.session.following
    assert not button(page, "saveNow").isEnabled()
    qtbot.mouseClick(button(page, "stop"), Qt.MouseButton.LeftButton)
    assert run.stop_request.exists()
