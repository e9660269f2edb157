"""Help me choose: the questions, the answer, and the choice it makes."""

from __future__ import annotations

import pytest
import samples
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QWidget
from samples import settle

from tunedesk.core import methods
from tunedesk.core.methods import CATALOGUE
from tunedesk.gui.dialogs.advisor import AdvisorDialog
from tunedesk.gui.pages.method import MethodPage

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def everything(monkeypatch):
    monkeypatch.setattr(methods, "TRAINABLE", tuple(item.name for item in CATALOGUE))


@pytest.fixture
def page(qtbot, session, everything):
    settle(session)
    made = MethodPage(session)
    qtbot.addWidget(made)
    made.resize(1048, 800)
    made.show()
    return made


@pytest.fixture
def dialog(page, qtbot):
    qtbot.mouseClick(page.help_choose, LEFT)
    found = page.window().findChild(AdvisorDialog)
    assert found.isVisible()
    return found


def ranked(dialog):
    boxes = [dialog.ranked.itemAt(place).widget() for place in range(dialog.ranked.count())]
    return [box.objectName().removeprefix("choice_") for box in boxes if isinstance(box, QWidget)]


def tick(dialog, qtbot, key):
    qtbot.mouseClick(dialog.facts[key], LEFT, pos=dialog.facts[key].rect().center())
    if not dialog.facts[key].isChecked():
        qtbot.keyClick(dialog.facts[key], Qt.Key.Key_Space)


def test_that_the_project_answers_what_it_knows(dialog):
    assert dialog.task.currentData() == "chat"
    assert dialog.rows.value() == 314
    assert dialog.memory.currentData() == "ample"
    assert dialog.keep.currentData() == "some"
    assert dialog.memory_field.help_line.text().startswith("25.9 GiB free on AMD Ryzen 7 7840U; SmolLM2-135M")


def test_that_the_advice_is_ranked_and_gives_reasons(dialog):
    assert dialog.verdict.text() == "Train a small part of the model"
    assert ranked(dialog)[0] == "lora"
    assert dialog.reasons.texts()
    assert dialog.use.text() == "Use LoRA"


def test_that_a_persona_leads_to_a_prefix_and_a_button_takes_it(dialog, page, session, qtbot):
    tick(dialog, qtbot, "manner")
    assert ranked(dialog)[0] == "prefix_tuning"
    qtbot.mouseClick(dialog.use, LEFT)
    assert session.project.spec.method.name == "prefix_tuning"
    assert not dialog.isVisible()
    assert page.cards["prefix_tuning"].item.badge == "Recommended"
    assert page.detail.why.text() == "Why Prefix tuning"


@pytest.mark.parametrize(
    ("fact", "verdict"),
    [
        ("changing", "Do not fine-tune"),
        ("enough", "Do not fine-tune"),
        ("new_parts", "Full fine-tuning"),
        ("last_point", "Full fine-tuning"),
    ],
)
def test_that_it_says_plainly_when_a_part_is_not_the_answer(dialog, qtbot, fact, verdict):
    tick(dialog, qtbot, fact)
    assert dialog.verdict.text() == verdict
    assert dialog.instead.texts()
    assert dialog.use.isVisible() == (verdict == "Full fine-tuning")


def test_that_the_page_says_so_too(dialog, page, qtbot):
    tick(dialog, qtbot, "changing")
    qtbot.keyClick(dialog, Qt.Key.Key_Escape)
    assert page.detail.why.text() == "Do not fine-tune"
    assert all(card.item.badge != "Recommended" for card in page.cards.values())


def test_that_a_prompt_is_either_enough_or_not(dialog, qtbot):
    tick(dialog, qtbot, "enough")
    tick(dialog, qtbot, "weak")
    assert not dialog.facts["enough"].isChecked()
    assert dialog.answers()["prompting"] == "weak"


def test_that_few_rows_are_too_few(dialog):
    dialog.rows.setValue(12)
    assert dialog.verdict.text() == "Do not fine-tune"


def test_that_too_little_memory_is_said(dialog):
    dialog.memory.setCurrentIndex(dialog.memory.findData("short"))
    dialog.memory.activated.emit(0)
    assert dialog.verdict.text() == "These methods do not work here"
    assert not dialog.use.isVisible()


def test_that_answers_are_kept(dialog, page, session, qtbot):
    tick(dialog, qtbot, "one_file")
    dialog.tasks.setValue(3)
    dialog.accept()
    page.open_advisor()
    again = page.window().findChildren(AdvisorDialog)[-1]
    assert again.facts["one_file"].isChecked()
    assert again.tasks.value() == 3


def test_that_tight_memory_is_told_by_the_planner(session, page):
    settle(session, model=samples.qwen(), data=samples.long_data(), hardware=samples.gpu_hardware(9.0))
    made = AdvisorDialog(session, parent=page)
    assert made.memory.currentData() == "tight"
    assert ranked(made)[0] == "qlora"


def test_that_what_cannot_be_trained_yet_is_named_and_not_taken(qtbot, session, monkeypatch):
    monkeypatch.setattr(methods, "TRAINABLE", ("lora", "qlora"))
    settle(session)
    session.answers = {"manner": True}
    made = AdvisorDialog(session)
    qtbot.addWidget(made)
    assert ranked(made)[0] == "prefix_tuning"
    assert made.use.text() == "Use LoRA"


def test_that_it_answers_without_a_model(qtbot, session):
    made = AdvisorDialog(session)
    qtbot.addWidget(made)
    made.rows.setValue(5000)
    assert made.memory_field.help_line.text() == "Without a model and data this is yours to say."
    assert made.verdict.text()


def test_that_every_control_can_be_reached_and_is_named(dialog):
    for control in (dialog.task, dialog.rows, dialog.tasks, dialog.memory, dialog.keep, *dialog.facts.values()):
        assert control.objectName()
        assert control.accessibleName() or control.text()
        assert control.focusPolicy() & Qt.FocusPolicy.TabFocus
