"""The Fit page in all its states."""

from __future__ import annotations

from dataclasses import replace

import pytest
import samples
from PySide6.QtCore import Qt
from samples import settle

from tunedesk.core.hardware import GIB, short_cpu_name
from tunedesk.gui import words
from tunedesk.gui.pages._card_dialog import CardDialog, size_fault
from tunedesk.gui.pages._plans import estimate_with, frugal, shrinkable
from tunedesk.gui.pages.fit import FitPage


@pytest.fixture
def page(qtbot, session):
    made = FitPage(session)
    qtbot.addWidget(made)
    made.resize(1048, 800)
    made.show()
    return made


def big(session, free=9.0):
    settle(session, model=samples.qwen(), data=samples.long_data(), hardware=samples.gpu_hardware(free))


def verdict(page):
    [item] = page.problems.problems()
    return item


def test_that_without_a_model_the_page_leads_to_it(page, session, qtbot):
    assert page.empty.isVisible()
    assert not page.memory.isVisible()
    assert not page.footer.next_button.isEnabled()
    with qtbot.waitSignal(page.go) as went:
        qtbot.mouseClick(page.empty_button, Qt.MouseButton.LeftButton)
    assert went.args == ["model"]


def test_that_while_the_model_is_read_bars_stand_for_it(page, session):
    session.choose_model("org/name")
    assert page.loading.isVisible()
    assert not page.empty.isVisible()


def test_that_what_fits_is_told_with_what_is_left(page, session):
    settle(session)
    item = verdict(page)
    assert item.severity == "ok"
    assert item.headline == "Fits: needs about 2.0 GiB, and 25.9 GiB is free."
    assert item.text == "At least 23.5 GiB to spare."
    assert item.aside == "First estimate from the model's dimensions"
    assert page.settled.isVisible()
    assert not page.changes.isVisible()
    assert page.footer.next_button.isEnabled()
    assert [row.label for row in page.bar.rows()] == ["This run"]


def test_that_the_parts_of_the_bar_add_up_to_the_total(page, session):
    big(session)
    plan = session.project.plan
    asked, suggested = page.bar.rows()
    assert asked.total == pytest.approx(plan.asked.peak_bytes / GIB)
    assert suggested.total == pytest.approx(plan.suggested.peak_bytes / GIB)
    assert not asked.ok
    assert suggested.ok


def test_that_too_much_is_told_with_what_can_shrink(page, session):
    big(session)
    item = verdict(page)
    assert item.severity == "warn"
    assert item.headline == "Needs about 19.6 GiB, and 9.0 GiB is free."
    assert item.text == "Activations (10.6 GiB) and model weights (7.5 GiB) can shrink."
    assert page.changes.isVisible()
    assert page.changes.title.text() == "Suggested: 2 changes"
    assert not page.footer.next_button.isEnabled()
    assert page.footer.hint.text() == "Settle the memory first"


def test_that_the_changes_add_up_to_the_total_shown(session):
    big(session)
    plan = session.project.plan
    saved = sum(change.saved_bytes for change in plan.changes)
    assert saved == plan.asked.peak_bytes - plan.suggested.peak_bytes


def test_that_make_it_fit_settles_the_page_and_undo_takes_it_back(page, session, qtbot):
    big(session)
    before = session.project.spec
    qtbot.mouseClick(page.changes.make_fit, Qt.MouseButton.LeftButton)
    assert session.project.spec.method.name == "qlora"
    assert session.project.plan.fits
    item = verdict(page)
    assert item.severity == "ok"
    assert "Was 19.6 GiB before." in item.text
    assert page.footer.next_button.isEnabled()
    qtbot.mouseClick(page.problems.findChild(object, "action_undo"), Qt.MouseButton.LeftButton)
    assert session.project.spec == before
    assert verdict(page).severity == "warn"


def test_that_undo_is_gone_once_another_model_is_chosen(page, session, qtbot):
    big(session)
    qtbot.mouseClick(page.changes.make_fit, Qt.MouseButton.LeftButton)
    settle(session, hardware=samples.gpu_hardware())
    assert verdict(page).actions == ()


def test_that_when_nothing_is_enough_another_model_is_offered(page, session, qtbot):
    big(session, free=2.0)
    item = verdict(page)
    assert item.severity == "bad"
    assert page.changes.title.text() == "Closest: 3 changes, still too much"
    assert not page.changes.make_fit.isVisible()
    with qtbot.waitSignal(page.go) as went:
        qtbot.mouseClick(page.problems.findChild(object, "action_model"), Qt.MouseButton.LeftButton)
    assert went.args == ["model"]


def test_that_other_ways_can_be_used(page, session, qtbot):
    settle(session)
    alternative = session.project.plan.alternatives[0]
    qtbot.mouseClick(page.findChild(object, "use_0"), Qt.MouseButton.LeftButton)
    assert session.project.spec.method.name == alternative.settings["method.name"]
    assert "Undo" in [text for _, text in verdict(page).actions]


def test_that_the_strip_of_an_alternative_shows_its_own_memory(session):
    settle(session)
    project = session.project
    for alternative in project.plan.alternatives:
        found = estimate_with(project.spec, project.plan, project.model, project.data, alternative.settings)
        assert found.peak_bytes == alternative.peak_bytes


def test_that_what_will_happen_is_told_in_words(page, session):
    settle(session)
    assert page.settled.headline.text() == "4 conversations at a time, gathered 2 times"
    lines = page.settled.lines.texts()
    assert lines[0] == "120 steps, each after 8 conversations: 3 passes over the data."
    assert lines[1] == "Every 12 steps it is checked on 35 held-out conversations and saved."
    assert lines[2] == "Learning rate up to 1e-3, then down along a cosine."


def test_that_gathering_is_told_when_there_is_any(page, session):
    settle(session)
    session.set_training(micro_batch_size=2)
    assert page.settled.headline.text() == "2 conversations at a time, gathered 4 times"


def test_that_a_limit_of_steps_is_told(page, session):
    settle(session)
    session.set_training(max_steps=20)
    assert page.settled.lines.texts()[0] == "20 steps at most, each after 8 conversations."


def test_that_fields_show_auto_and_take_values(page, session):
    settle(session)
    assert page.settled.micro.text() == "auto, 4"
    page.settled.micro.setValue(2)
    assert session.project.spec.training.micro_batch_size == 2
    page.settled.micro.setValue(0)
    assert session.project.spec.training.micro_batch_size == "auto"
    page.settled.epochs.setValue(2)
    assert session.project.spec.training.epochs == 2


def test_that_recomputing_can_be_turned_on(page, session, qtbot):
    settle(session)
    assert page.settled.recompute.currentText() == "auto, off"
    page.settled.recompute.setFocus()
    qtbot.keyClick(page.settled.recompute, Qt.Key.Key_End)
    assert session.project.spec.training.gradient_checkpointing is True
    assert session.project.plan.resolved.gradient_checkpointing


def test_that_a_value_out_of_range_is_explained_at_the_field(page, session):
    settle(session)
    page.settled.length.setValue(4)
    assert page.settled.fields["max_length"].error()
    assert session.project.spec.training.max_length == "auto"


def test_that_no_gpu_is_said_plainly_with_what_it_means(page, session):
    settle(session)
    assert page.facts["gpu"].text() == "None to train on"
    assert page.no_gpu.isVisible()
    assert page.no_gpu.text().startswith("No NVIDIA driver is installed. Training runs on the processor.")
    assert page.facts["memory"].text() == "25.9 of 32.0 GiB free"
    assert page.facts["disk"].text() == "214 GB free"


def test_that_a_gpu_is_named_with_its_memory(page, session):
    settle(session, hardware=samples.gpu_hardware())
    assert page.facts["gpu"].text() == "GeForce RTX 3060, 11.2 of 12.0 GiB free"
    assert not page.no_gpu.isVisible()


def test_that_the_processor_can_be_planned_for_instead(page, session, qtbot):
    settle(session, hardware=samples.gpu_hardware())
    page.device.setFocus()
    qtbot.keyClick(page.device, Qt.Key.Key_Down)
    assert session.device_choice == "cpu"
    assert session.project.plan.device.kind == "cpu"


def test_that_another_card_can_be_planned_for(page, session, qtbot):
    big(session)
    page.device.setFocus()
    qtbot.keyClick(page.device, Qt.Key.Key_End)
    dialog = page.findChild(CardDialog)
    assert dialog.isVisible()
    qtbot.keyClicks(dialog.name, "RTX 4090:24GiB")
    qtbot.mouseClick(dialog.use, Qt.MouseButton.LeftButton)
    assert session.device_choice == "RTX 4090:24GiB"
    assert session.project.plan.device.name == "RTX 4090"
    assert session.project.plan.fits
    assert "RTX 4090, 24 GiB" in page.device.currentText()


def test_that_a_card_without_memory_is_explained(page, qtbot):
    dialog = CardDialog(page)
    qtbot.addWidget(dialog)
    dialog.show()
    qtbot.keyClicks(dialog.name, "RTX 4090")
    qtbot.mouseClick(dialog.use, Qt.MouseButton.LeftButton)
    assert dialog.isVisible()
    assert "colon" in dialog.name_field.error()
    assert "not a memory size" in size_fault("RTX:lots")
    assert size_fault("RTX:12GiB") == ""


def test_that_measure_again_reads_the_memory_and_plans_anew(page, session, qtbot, monkeypatch):
    settle(session)
    monkeypatch.setattr(
        "tunedesk.gui.session.read_hardware", lambda *_: samples.cpu_hardware(memory_free=int(3.0 * GIB))
    )
    qtbot.mouseClick(page.again, Qt.MouseButton.LeftButton)
    assert session.project.plan.device.free_bytes == int(3.0 * GIB)
    assert "3.0 GiB is free" in verdict(page).headline


def test_that_all_settings_opens_the_dialog(page, session, qtbot):
    settle(session)
    qtbot.mouseClick(page.all_settings, Qt.MouseButton.LeftButton)
    found = page.findChild(object, "settingsDialog")
    assert found.isVisible()
    found.reject()


def test_that_a_tight_fit_is_called_tight(page, session):
    settle(session)
    plan = session.project.plan
    device = plan.device.model_copy(update={"free_bytes": plan.asked.high_bytes + GIB // 10})
    session.project = replace(session.project, plan=plan.model_copy(update={"device": device}))
    session.project_changed.emit()
    assert "tight" in verdict(page).text


def test_that_the_frugal_estimate_of_a_method_keeps_that_method(session):
    big(session)
    project = session.project
    need, fits = frugal(project.spec, project.plan, project.model, project.data)
    assert not fits
    assert need.parts["weights"] == project.plan.asked.parts["weights"]
    assert words.gib(need.peak_bytes) == "9.6 GiB"


def test_that_packed_weights_are_not_said_to_shrink(session):
    big(session)
    session.set_method(name="qlora")
    assert "weights" not in dict(shrinkable(session.project.plan))


def test_that_a_processor_is_named_without_marks():
    assert short_cpu_name("Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz") == "Intel Xeon Platinum 8259CL"
    assert short_cpu_name("Apple M3") == "Apple M3"


def test_that_news_of_the_hardware_does_not_disturb_typing(page, session, qtbot):
    settle(session)
    page.settled.micro.setFocus()
    page.settled.micro.selectAll()
    qtbot.keyClicks(page.settled.micro, "4")
    session.hardware_changed.emit()
    assert page.settled.micro.text() == "4"
    qtbot.keyClick(page.settled.micro, Qt.Key.Key_Return)
    assert session.project.spec.training.micro_batch_size == 4
    session.hardware_changed.emit()
    assert page.settled.micro.text() == "4"
