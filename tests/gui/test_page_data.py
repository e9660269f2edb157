"""The Data page in all its states."""

from __future__ import annotations

from dataclasses import replace

import pytest
import samples
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog
from samples import settle

from tunedesk.core.describe import Finding
from tunedesk.core.events import InspectData
from tunedesk.core.problems import Problem
from tunedesk.gui.pages._data_findings import raised_length
from tunedesk.gui.pages._data_mapping import columns_in, guess_columns
from tunedesk.gui.pages._data_seen import kind_counts
from tunedesk.gui.pages.data import DataPage


@pytest.fixture
def page(qtbot, session):
    made = DataPage(session)
    qtbot.addWidget(made)
    made.resize(1048, 800)
    made.show()
    return made


def show_nothing(session):
    settle(session, examples=())
    session.project = replace(session.project, data=None)
    session.project_changed.emit()


def fail(session, problem):
    settle(session, examples=())
    session.project = replace(session.project, data=None, data_problems=(problem,))
    session.project_changed.emit()


def columns_problem():
    return Problem(
        code="data.columns",
        what="No column holds what this task learns from.",
        where="tickets.csv",
        found="Columns there: 'id', 'question', 'reply'.",
        fix="Needed for conversations: 'messages'.",
    )


def jobs(session):
    return [job for key, job in session.started if key == "data"]


def test_that_without_data_there_are_two_ways_to_get_some(page, session, qtbot):
    show_nothing(session)
    assert page.empty.isVisible()
    assert not page.columns.isVisible()
    assert not page.chip.isVisible()
    assert not page.footer.next_button.isEnabled()
    qtbot.mouseClick(page.use_starter, Qt.MouseButton.LeftButton)
    assert jobs(session)[-1].source == "starter:support"


def test_that_open_file_takes_what_the_native_dialog_gives(page, session, qtbot, monkeypatch, tmp_path):
    show_nothing(session)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "a.csv"), ""))
    qtbot.mouseClick(page.open, Qt.MouseButton.LeftButton)
    job = jobs(session)[-1]
    assert isinstance(job, InspectData)
    assert job.source == str(tmp_path / "a.csv")
    assert job.model == "starter:chat"


def test_that_the_summary_counts_rows_and_tokens(page, session):
    settle(session)
    text = "349 conversations, 58,310 tokens, 55% of them trained. 35 are held out."
    assert page.header.subtitle.text() == text
    assert page.chip.name.text() == "support.jsonl"
    assert page.chip.size_label.text() == "170 kB"
    assert page.length_note.text() == "Median 152, longest 371"
    assert page.histogram.cut() == 384
    assert page.footer.next_button.isEnabled()


def test_that_the_format_is_told_in_plain_words(page, session):
    settle(session)
    shown = dict(page.format_card.facts.rows())
    assert shown["Format"] == "JSON Lines"
    assert shown["A row holds"] == "A list of messages, each with a role"
    assert shown["Columns"] == "messages"
    assert shown["Rows"] == "314 to learn from, 35 held out"


def test_that_the_tokens_of_a_row_are_shown_by_kind(page, session):
    settle(session)
    turns = page.seen.view.turns()
    assert [turn.role for turn in turns] == ["System", "User", "Assistant", "User", "Assistant"]
    assert {span.kind for span in turns[2].spans} == {"template", "trained"}
    assert "Ahoy" in page.seen.view.plain_text()


def test_that_the_row_box_steps_through_the_examples(page, session, qtbot):
    settle(session)
    assert page.seen.row_of.text() == "of the first 20"
    page.seen.row_box.setFocus()
    qtbot.keyClick(page.seen.row_box, Qt.Key.Key_Up)
    assert page.seen.row_box.value() == 2
    assert "HF-20402" in page.seen.view.plain_text()


def test_that_all_rows_are_counted_when_all_are_there(page, session):
    settle(session, data=samples.support_data(rows=20), examples=samples.rendered_rows(20))
    assert page.seen.row_of.text() == "of 20"


def test_that_reading_hides_the_template(page, session):
    settle(session)
    page.seen.mode.chosen.emit("reading")
    page.seen.mode.set_current("reading")
    page.seen.mode.chosen.emit("reading")
    assert "<|im_start|>" not in page.seen.view.plain_text()
    assert "Skerry" in page.seen.view.plain_text()


def test_that_without_a_model_plain_turns_are_shown(page, session):
    settle(session, data=samples.support_data(tokens=None), examples=(samples.plain_row(),))
    session.project = replace(session.project, model=None)
    session.project_changed.emit()
    assert "Where is my order?" in page.seen.view.plain_text()
    assert page.seen.note.text() == "Choose a model to see the tokens that it makes of this."
    assert page.length_note.text() == "Known once a model is chosen"
    assert not page.histogram.isVisible()
    assert not page.seen.legend.isVisible()


def test_that_while_the_data_is_read_the_labels_stay(page, session):
    settle(session)
    session.choose_data("/home/ana/support-2025.jsonl")
    assert page.columns.isVisible()
    assert page.chip.name.text() == "support-2025.jsonl"
    assert set(dict(page.format_card.facts.rows()).values()) == {"–"}
    assert page.findings.list.items()[0].status == "running"
    assert page.seen.view_stack.currentIndex() == 1
    assert not page.footer.next_button.isEnabled()


def test_that_unclear_columns_can_be_named(page, session, qtbot):
    fail(session, columns_problem())
    assert page.problems.problems()[0].headline == "No column holds what this task learns from."
    assert page.mapping.isVisible()
    assert not page.mapping.fields["text"].isVisible()
    assert page.mapping.boxes["prompt"].currentText() == "question"
    assert page.mapping.boxes["completion"].currentText() == "reply"
    qtbot.mouseClick(page.mapping.use, Qt.MouseButton.LeftButton)
    assert jobs(session)[-1].columns == {"prompt": "question", "completion": "reply"}


def test_that_one_column_cannot_be_both(page, session, qtbot):
    fail(session, columns_problem())
    page.mapping.boxes["completion"].setCurrentText("question")
    qtbot.mouseClick(page.mapping.use, Qt.MouseButton.LeftButton)
    assert page.mapping.fields["completion"].error() == "Choose different columns"
    assert not jobs(session)


def test_that_a_problem_of_another_kind_asks_for_no_columns(page, session, qtbot):
    fail(session, Problem(code="data.empty", what="The file has no rows.", fix="Choose another file."))
    assert not page.mapping.isVisible()
    qtbot.mouseClick(page.problems.findChild(object, "action_again"), Qt.MouseButton.LeftButton)
    assert jobs(session)


def test_that_findings_are_listed_and_lead_to_their_row(page, session, qtbot):
    found = Finding(
        code="data.no_answer", level="warn", text="1 has no answer", detail="It ends early.", count=1, rows=(7,)
    )
    settle(session, data=samples.support_data(findings=(found,)))
    [item] = page.findings.list.items()
    assert (item.status, item.title, item.actions) == ("warn", "1 has no answer", (("show", "Show"),))
    assert item.text == "It ends early. Row 7."
    qtbot.mouseClick(page.findings.findChild(object, "action_show"), Qt.MouseButton.LeftButton)
    assert page.seen.row_box.value() == 7


def test_that_cut_rows_can_be_kept_whole(page, session, qtbot):
    found = Finding(code="data.too_long", level="warn", text="37 are longer than 256 tokens", count=37)
    stats = samples.token_stats(max_length=256, cut_rows=37)
    settle(session, data=samples.support_data(findings=(found,), tokens=stats))
    qtbot.mouseClick(page.findings.findChild(object, "action_raise"), Qt.MouseButton.LeftButton)
    assert session.project.spec.training.max_length == 384
    assert jobs(session)[-1].max_length == 384


def test_that_sound_data_says_so(page, session):
    settle(session)
    assert [item.status for item in page.findings.list.items()] == ["ok"]


def test_that_moving_the_cut_reads_the_data_again_once_it_rests(page, session, qtbot):
    settle(session)
    page.histogram.setFocus()
    qtbot.keyClick(page.histogram, Qt.Key.Key_Left)
    qtbot.keyClick(page.histogram, Qt.Key.Key_Left)
    assert not jobs(session)
    session.hardware_changed.emit()
    assert page.histogram.cut() == 320
    qtbot.waitUntil(lambda: bool(jobs(session)), timeout=3000)
    assert session.project.spec.training.max_length == 320
    assert len(jobs(session)) == 1


def test_that_the_task_can_be_changed(page, session, qtbot):
    settle(session)
    assert "only what the assistant says" in page.task_card.note.text()
    page.task_card.tasks.chosen.emit("completion")
    assert session.project.spec.task.kind == "completion"
    assert jobs(session)[-1].task == "completion"
    assert "every token is trained" in page.task_card.note.text()


def test_that_next_and_back_lead_along_the_path(page, session, qtbot):
    settle(session)
    with qtbot.waitSignal(page.go) as went:
        qtbot.mouseClick(page.footer.next_button, Qt.MouseButton.LeftButton)
    assert went.args == ["method"]
    with qtbot.waitSignal(page.go) as went:
        qtbot.mouseClick(page.footer.back_button, Qt.MouseButton.LeftButton)
    assert went.args == ["model"]


def test_that_column_names_are_read_from_a_problem():
    problem = columns_problem().model_copy(update={"found": "'x' is none. Columns there: 'id', 'a b' and 3 more."})
    assert columns_in(problem) == ("id", "a b")
    assert guess_columns("chat", ("id", "Agent reply", "said")) == {"system": -1, "prompt": 2, "completion": 1}
    assert guess_columns("completion", ("id",)) == {"prompt": -1, "text": 0}


def test_that_counts_add_up_to_the_row():
    row = samples.rendered_row()
    counts = kind_counts(row)
    assert sum(counts.values()) == row.tokens
    assert counts["trained"] == row.trained_tokens


def test_that_the_raised_length_cuts_nothing():
    assert raised_length(samples.long_data()) == 2944


def test_that_a_finding_names_its_first_rows(page, session):
    settle(session, data=samples.long_data())
    assert (
        page.findings.list.items()[0].text == "They end with the user and are left out. Rows 137, 290, 291 and 3 more."
    )
    assert page.findings.list.items()[2].text == "The model answers without instructions."


def test_that_the_length_is_not_raised_beyond_what_the_model_reads(page, session):
    settle(session, model=samples.smollm(context_length=2048), data=samples.long_data())
    assert page.findings.raised(samples.long_data()) == 2048


def test_that_the_advice_for_a_run_file_is_left_out(page, session):
    fail(session, columns_problem())
    assert page.problems.problems()[0].text.endswith("Say below which column is what, or choose another file.")


def test_that_a_file_of_the_other_kind_can_be_read_as_such(page, session, qtbot):
    session.choose_task("completion")
    fail(session, Problem(code="data.task", what="These rows are conversations."))
    qtbot.mouseClick(page.problems.findChild(object, "action_task_chat"), Qt.MouseButton.LeftButton)
    assert session.project.spec.task.kind == "chat"
    assert jobs(session)[-1].task == "chat"
