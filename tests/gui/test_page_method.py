"""The Method page and the dialog with all settings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import samples
from PySide6.QtCore import Qt
from samples import settle

from tunedesk.core.methods import offered
from tunedesk.core.spec import TrainingSection
from tunedesk.gui import words
from tunedesk.gui.pages._settings import SettingsDialog, choices_of, faults, parse, typed
from tunedesk.gui.pages.method import MethodPage


@pytest.fixture
def page(qtbot, session):
    made = MethodPage(session)
    qtbot.addWidget(made)
    made.resize(1048, 800)
    made.show()
    return made


@pytest.fixture
def dialog(qtbot, session):
    settle(session)
    made = SettingsDialog(session)
    qtbot.addWidget(made)
    made.show()
    return made


def big(session):
    settle(session, model=samples.qwen(), data=samples.long_data(), hardware=samples.gpu_hardware(9.0))


def control(page, key):
    return page.detail.fields.fields[key].control


def type_into(qtbot, field, text):
    field.control.clear()
    qtbot.keyClicks(field.control, text)
    qtbot.keyClick(field.control, Qt.Key.Key_Return)


def test_that_there_is_a_card_for_each_method_that_exists(page):
    assert [card.key for card in page.methods.cards()] == [item.name for item in offered()]


def test_that_without_a_model_figures_are_dashes(page, session):
    assert page.cards["lora"].item.trained == "– trained"
    assert page.cards["lora"].item.memory == "– GiB"
    assert page.detail.why.text() == "Advice"
    assert not page.footer.next_button.isEnabled()


def test_that_figures_and_advice_come_from_the_planner(page, session):
    settle(session)
    plan = session.project.plan
    item = page.cards["lora"].item
    assert item.trained == "3.63% trained"
    assert item.memory == words.gib(plan.asked.peak_bytes)
    assert item.badge == "Recommended"
    assert page.cards["qlora"].item.badge == ""
    assert page.detail.why.text() == "Why LoRA"
    assert page.detail.reasons.texts() == ["The model fits in 16 bits, and LoRA is the best tried method for it."]
    assert page.note.text() == "Memory with the settings that the app suggests; 25.9 GiB free on AMD Ryzen 7 7840U."
    assert page.footer.next_button.isEnabled()


def test_that_what_does_not_fit_stays_visible_in_red(page, session):
    big(session)
    lora, qlora = page.cards["lora"].item, page.cards["qlora"].item
    assert (lora.fits, lora.badge, lora.badge_kind) == (False, "Too big", "bad")
    assert (qlora.fits, qlora.badge) == (True, "Recommended")
    assert page.cards["lora"].isEnabled()
    assert page.detail.why.text() == "Why QLoRA"


def test_that_a_click_chooses_a_method_and_shows_what_it_is_good_at(page, session, qtbot):
    settle(session)
    qtbot.mouseClick(page.cards["qlora"], Qt.MouseButton.LeftButton)
    assert session.project.spec.method.name == "qlora"
    assert session.project.plan.method == "qlora"
    assert page.detail.name.text() == "QLoRA"
    assert "Large models on one small card" in page.detail.good.texts()
    assert "arXiv:2305.14314" in page.detail.source.text()


def test_that_arrow_keys_choose_a_method(page, session, qtbot):
    settle(session)
    page.cards["lora"].setFocus()
    qtbot.keyClick(page.cards["lora"], Qt.Key.Key_Right)
    assert session.project.spec.method.name == "qlora"


def test_that_the_rank_changes_the_figures_at_once(page, session, qtbot):
    settle(session)
    control(page, "rank").chosen.emit("32")
    assert session.project.spec.method.rank == 32
    assert page.cards["lora"].item.trained == "7.26% trained"
    assert control(page, "alpha").text() == "auto, 64"
    assert "Doubling it adds" in page.detail.fields.fields["rank"].help_line.text()


def test_that_a_rank_of_a_run_file_is_offered_too(page, session):
    settle(session)
    session.set_method(rank=24)
    assert control(page, "rank").current() == "24"


def test_that_alpha_is_auto_until_it_is_typed_and_again_at_zero(page, session):
    settle(session)
    assert control(page, "alpha").text() == "auto, 32"
    control(page, "alpha").setValue(48)
    assert session.project.spec.method.alpha == 48
    control(page, "alpha").setValue(0)
    assert session.project.spec.method.alpha == "auto"


def test_that_attention_only_says_what_it_saves(page, session, qtbot):
    settle(session)
    assert (
        page.detail.fields.fields["target_modules"]
        .help_line.text()
        .startswith("210 of 210 layers. Attention only saves")
    )
    control(page, "target_modules").setFocus()
    qtbot.keyClick(control(page, "target_modules"), Qt.Key.Key_Down)
    assert session.project.spec.method.target_modules == "attention"
    assert (
        page.detail.fields.fields["target_modules"]
        .help_line.text()
        .startswith("120 of 210 layers. All linear layers learn best")
    )


def test_that_named_layers_are_shown_as_they_are(page, session):
    settle(session)
    session.set_method(target_modules=("q_proj", "v_proj"))
    assert control(page, "target_modules").currentText() == "q_proj, v_proj"
    session.set_method(target_modules="all-linear")
    assert control(page, "target_modules").count() == 2


def test_that_dropout_is_taken_over(page, session):
    settle(session)
    control(page, "dropout").setValue(0.05)
    assert session.project.spec.method.dropout == pytest.approx(0.05)


def test_that_the_footer_counts_the_trained_weights(page, session):
    settle(session)
    assert (
        page.footer.hint.text()
        == "4.88 million of 134.5 million weights are trained. The adapter will be about 19.5 MB."
    )


def test_that_news_of_the_hardware_rebuilds_nothing(page, session):
    settle(session)
    before = page.cards["lora"].item
    session.hardware_changed.emit()
    assert page.cards["lora"].item is before


def test_that_more_settings_opens_the_dialog(page, session, qtbot):
    settle(session)
    qtbot.mouseClick(page.detail.more, Qt.MouseButton.LeftButton)
    found = page.detail.findChild(SettingsDialog)
    assert found.isVisible()
    found.reject()


def test_that_the_dialog_has_every_field_of_training(dialog):
    assert set(dialog.fields) == set(TrainingSection.model_fields)
    assert all(field.label.text() for field in dialog.fields.values())
    assert all(field.control.accessibleName() for field in dialog.fields.values())


def test_that_auto_says_which_value_it_is(dialog):
    assert dialog.fields["learning_rate"].control.placeholderText() == "auto (1e-3)"
    assert dialog.fields["precision"].control.currentText() == "auto (bf16)"
    assert dialog.fields["max_steps"].control.placeholderText() == "no limit"


def test_that_values_go_to_the_session(dialog, session, qtbot):
    type_into(qtbot, dialog.fields["learning_rate"], "2e-4")
    type_into(qtbot, dialog.fields["max_steps"], "1,200")
    control = dialog.fields["gradient_checkpointing"].control
    control.setCurrentIndex(control.findData(True))
    qtbot.mouseClick(dialog.use, Qt.MouseButton.LeftButton)
    training = session.project.spec.training
    assert training.learning_rate == pytest.approx(2e-4)
    assert training.max_steps == 1200
    assert training.gradient_checkpointing is True
    assert not dialog.isVisible()


def test_that_an_unchanged_dialog_changes_nothing(dialog, session, qtbot):
    before = session.project.spec
    qtbot.mouseClick(dialog.use, Qt.MouseButton.LeftButton)
    assert session.project.spec == before


def test_that_a_wrong_value_is_explained_at_its_field(dialog, session, qtbot):
    type_into(qtbot, dialog.fields["epochs"], "many")
    assert dialog.fields["epochs"].error()
    qtbot.mouseClick(dialog.use, Qt.MouseButton.LeftButton)
    assert dialog.isVisible()
    assert dialog.hint.text() == "Some values cannot be used yet"
    assert session.project.spec.training.epochs == 3.0
    type_into(qtbot, dialog.fields["epochs"], "2")
    assert dialog.fields["epochs"].error() == ""


def test_that_reset_goes_back_to_the_defaults(dialog, session, qtbot):
    type_into(qtbot, dialog.fields["seed"], "7")
    qtbot.mouseClick(dialog.reset, Qt.MouseButton.LeftButton)
    assert dialog.values() == TrainingSection().model_dump()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("learning_rate", "", "auto"),
        ("learning_rate", "2e-4", 2e-4),
        ("max_steps", "", None),
        ("seed", "", ""),
        ("epochs", "3", 3),
        ("epochs", "x", "x"),
    ],
)
def test_that_typed_text_becomes_a_value(name, text, value):
    assert parse(text, TrainingSection.model_fields[name].annotation) == value


def test_that_what_is_typed_reads_back_as_the_value():
    assert typed(6.6e-5) == "6.6e-5"
    assert typed("auto") == typed(None) == ""
    assert typed(3.0) == "3"


def test_that_choices_begin_with_auto():
    fields = TrainingSection.model_fields
    assert choices_of(fields["precision"].annotation) == ("auto", "bf16", "fp16", "fp32")
    assert choices_of(fields["gradient_checkpointing"].annotation) == ("auto", True, False)
    assert choices_of(fields["learning_rate"].annotation) == ()


def test_that_faults_name_their_fields():
    values = {**TrainingSection().model_dump(), "seed": -1, "learning_rate": 5.0}
    assert set(faults(values)) == {"seed", "learning_rate"}
    assert faults(TrainingSection().model_dump()) == {}


def test_that_a_plan_that_vanishes_leaves_dashes(page, session):
    settle(session)
    session.project = replace(session.project, plan=None, model=None)
    session.project_changed.emit()
    assert page.cards["lora"].item.memory == "– GiB"
