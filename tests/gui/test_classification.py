"""A model that gives labels, along the whole path: what is chosen by itself, what is said, what is on screen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import label_samples as labels
import pytest
import run_samples as made
import samples
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractButton, QWidget
from run_samples import FakeSource
from samples import QuietSession, settle

from tunedesk.core.events import (
    Ask,
    Asked,
    DataDescribed,
    Evaluated,
    Event,
    Finished,
    InspectData,
    InspectModel,
    Message,
    ModelDescribed,
    write_line,
)
from tunedesk.core.problems import Problem
from tunedesk.core.project import unfit_data, with_task
from tunedesk.core.runs import create_run
from tunedesk.core.settings import Settings
from tunedesk.core.spec import RunSpec
from tunedesk.gui.chatting import ChatSession
from tunedesk.gui.exporting import ExportSession
from tunedesk.gui.pages.data import DataPage
from tunedesk.gui.pages.export import ExportPage
from tunedesk.gui.pages.fit import FitPage
from tunedesk.gui.pages.method import MethodPage
from tunedesk.gui.pages.model import ModelPage
from tunedesk.gui.pages.train import TrainPage
from tunedesk.gui.pages.try_ import TryPage
from tunedesk.gui.runs_list import summarise
from tunedesk.gui.session import Session
from tunedesk.gui.widgets import Button, Label
from tunedesk.gui.window import MainWindow

CACHE = os.environ.get("TUNEDESK_CACHE")
DONE = Finished(outcome="completed")


def shown(page: QWidget, qtbot) -> QWidget:
    qtbot.addWidget(page)
    page.resize(1048, 800)
    page.show()
    return page


def text(page: QWidget, name: str) -> str:
    return page.findChild(Label, name).text()


def describe_model(session: QuietSession, info: object) -> None:
    """As if the engine had described the model."""
    session._on_model_events([ModelDescribed(info=info), DONE])


def fail_data(session: QuietSession, problem: Problem) -> None:
    session.examples = ()
    session.project = replace(session.project, data=None, data_problems=(problem,))
    session.project_changed.emit()


# What follows what.


def test_that_an_encoder_brings_its_task_and_its_starter_data(session: QuietSession) -> None:
    session.choose_model("starter:encoder")
    describe_model(session, labels.encoder())
    assert session.project.spec.task.kind == "classification"
    assert session.started[-1] == (
        "data",
        InspectData(source="starter:finance", model="starter:encoder", task="classification"),
    )
    session.choose_model("starter:chat")
    describe_model(session, samples.smollm())
    assert session.project.spec.task.kind == "chat"
    assert session.started[-1] == ("data", InspectData(source="starter:support", model="starter:chat", task="chat"))


def test_that_own_data_stays_when_another_kind_of_model_is_chosen(session: QuietSession) -> None:
    session.choose_data("/home/ana/mine.csv", {"prompt": "q", "completion": "a"})
    session.choose_model("starter:encoder")
    describe_model(session, labels.encoder())
    assert session.started[-1][1].source == "/home/ana/mine.csv"
    assert session.started[-1][1].columns == {}


def test_that_what_the_old_task_knew_of_the_data_is_gone(session: QuietSession) -> None:
    settle(session)
    session.choose_model("starter:encoder")
    describe_model(session, labels.encoder())
    assert session.project.data is None
    assert session.examples == ()
    assert session.data_activity is not None


def test_that_unfit_data_is_looked_at_again_before_anything_is_told(session: QuietSession) -> None:
    labels.settle_labels(session)
    session.choose_data("/home/ana/support.jsonl")
    columns = Problem(code="data.columns", what="No column holds what this task learns from.")
    session._on_data_events([Finished(outcome="failed", problems=(columns,))])
    assert session.project.data_problems == ()
    assert session.data_activity is not None
    assert session.started[-1] == ("data", InspectData(source="/home/ana/support.jsonl", task="auto", examples=0))
    session._on_second_look([DataDescribed(info=samples.support_data()), DONE])
    [problem] = session.project.data_problems
    assert problem.code == "data.conversations"
    assert session.project.data is None
    assert session.data_activity is None


def test_that_a_file_that_fits_nothing_keeps_its_first_problem(session: QuietSession) -> None:
    labels.settle_labels(session)
    columns = Problem(code="data.columns", what="No column holds what this task learns from.")
    failed = Finished(outcome="failed", problems=(columns,))
    session._on_data_events([failed])
    session._on_second_look([failed])
    assert session.project.data_problems == (columns,)


def test_that_columns_that_were_named_are_not_looked_at_again(session: QuietSession) -> None:
    labels.settle_labels(session)
    session.choose_data("/home/ana/mine.csv", {"text": "a", "label": "b"})
    columns = Problem(code="data.columns", what="There is no column 'b'.")
    session._on_data_events([Finished(outcome="failed", problems=(columns,))])
    assert session.project.data_problems == (columns,)


# Model.


def test_that_both_starters_are_offered_beside_each_other(session: QuietSession, qtbot) -> None:
    page = shown(ModelPage(session), qtbot)
    qtbot.mouseClick(page.findChild(QWidget, "starter_encoder"), Qt.MouseButton.LeftButton)
    assert session.started == [("model", InspectModel(source="starter:encoder"))]
    describe_model(session, labels.encoder())
    assert page.starters.group.current() == "starter:encoder"
    assert "So the task is now classification" in text(page, "taskNote")
    facts = dict(page.facts.rows())
    assert facts["Can be tuned for"] == "Labels for texts"
    assert facts["Chat template"] == "Not needed, it answers with a label"
    assert page.footer.next_button.isEnabled()
    assert not page.problems.problems()


def test_that_arrow_keys_move_between_the_starters(session: QuietSession, qtbot) -> None:
    settle(session)
    page = shown(ModelPage(session), qtbot)
    card = page.findChild(QWidget, "starter_chat")
    card.setFocus()
    qtbot.keyClick(card, Qt.Key.Key_Right)
    assert session.started == [("model", InspectModel(source="starter:encoder"))]


def test_that_the_starters_make_room_for_another_way(session: QuietSession, qtbot) -> None:
    labels.settle_labels(session)
    page = shown(ModelPage(session), qtbot)
    qtbot.mouseClick(page.sources.card("folder"), Qt.MouseButton.LeftButton)
    assert not page.starters.isVisible()
    assert page.source_card.isVisible()
    qtbot.mouseClick(page.sources.card("starter"), Qt.MouseButton.LeftButton)
    assert page.starters.isVisible()
    assert session.started == []  # a starter is in use already


def test_that_an_empty_page_offers_the_encoder_too(session: QuietSession, qtbot) -> None:
    page = shown(ModelPage(session), qtbot)
    qtbot.mouseClick(page.findChild(Button, "emptyEncoder"), Qt.MouseButton.LeftButton)
    assert session.started == [("model", InspectModel(source="starter:encoder"))]


# Data.


@pytest.fixture
def data_page(session: QuietSession, qtbot) -> DataPage:
    labels.settle_labels(session)
    return shown(DataPage(session), qtbot)  # type: ignore[return-value]


def test_that_labels_are_counted_in_words_and_bars(data_page: DataPage) -> None:
    assert data_page.header.subtitle.text() == "351 texts, 9,099 tokens, 3 labels. 36 are held out."
    assert data_page.labels.isVisible()
    bars = [(bar.name, bar.figure) for bar in data_page.labels.list.shown()]
    assert bars == [("negative", "118"), ("positive", "117"), ("neutral", "116")]
    assert data_page.labels.list.accessibleName() == "negative 118, positive 117, neutral 116"
    assert dict(data_page.format_card.facts.rows())["A row holds"] == "A text and its label"
    assert data_page.task_card.tasks.current() == "classification"
    assert data_page.findings.list.items()[0].title == "Format, labels and held-out rows are sound"


def test_that_the_text_is_read_and_the_label_learned(data_page: DataPage) -> None:
    assert [turn.role for turn in data_page.seen.view.turns()] == ["Text", "Label"]
    assert data_page.seen.note.text() == "The model reads the tokens and learns to tell the label."
    assert data_page.seen.legend.accessibleName() == "Label to learn, Tokens read 15"
    assert data_page.seen.row_word.text() == "Text"


def test_that_of_many_labels_a_few_are_shown_until_all_are_asked_for(
    data_page: DataPage, session: QuietSession, qtbot
) -> None:
    labels.settle_labels(session, labels.finance_data(labels=labels.many_labels()))
    bars = data_page.labels.list
    assert len(bars.shown()) == 6
    assert bars.more.text() == "and 34 more"
    bars.more.setFocus()
    qtbot.keyClick(bars.more, Qt.Key.Key_Space)
    assert len(bars.shown()) == 40
    qtbot.mouseClick(bars.more, Qt.MouseButton.LeftButton)
    assert len(bars.shown()) == 6


def test_that_chat_data_has_no_labels_on_screen(data_page: DataPage, session: QuietSession) -> None:
    session.project = replace(session.project, spec=RunSpec())
    settle(session)
    assert not data_page.labels.isVisible()
    assert data_page.task_card.tasks.current() == "chat"
    assert data_page.seen.legend.accessibleName().startswith("Trained ")


def test_that_the_starter_data_of_the_task_is_offered(data_page: DataPage, session: QuietSession, qtbot) -> None:
    fail_data(session, Problem(code="data.empty", what="The file has no rows."))
    assert "negative, neutral or positive" in data_page.empty.accessibleName() + _words(data_page.empty)
    qtbot.mouseClick(data_page.use_starter, Qt.MouseButton.LeftButton)
    assert session.started[-1][1].source == "starter:finance"


def _words(widget: QWidget) -> str:
    return " ".join(label.text() for label in widget.findChildren(Label))


def test_that_text_pair_and_label_can_be_named(data_page: DataPage, session: QuietSession, qtbot) -> None:
    there = "Columns there: 'id', 'claim', 'hypothesis', 'verdict'."
    fail_data(session, Problem(code="data.columns", what="No column holds what this task learns from.", found=there))
    mapping = data_page.mapping
    assert [role for role, field in mapping.fields.items() if field.isVisible()] == ["text", "text_pair", "label"]
    assert mapping.boxes["text"].currentText() == "claim"
    assert mapping.boxes["text_pair"].currentText() == "hypothesis"
    mapping.boxes["label"].setCurrentText("verdict")
    qtbot.mouseClick(mapping.use, Qt.MouseButton.LeftButton)
    assert session.started[-1][1].columns == {"text": "claim", "text_pair": "hypothesis", "label": "verdict"}


def test_that_a_second_text_is_not_needed(data_page: DataPage, session: QuietSession, qtbot) -> None:
    fail_data(session, Problem(code="data.columns", what="No.", found="Columns there: 'words', 'group'."))
    assert data_page.mapping.boxes["text_pair"].currentText() == "None"
    qtbot.mouseClick(data_page.mapping.use, Qt.MouseButton.LeftButton)
    assert session.started[-1][1].columns == {"text": "words", "label": "group"}


def test_that_text_and_label_must_differ(data_page: DataPage, session: QuietSession, qtbot) -> None:
    fail_data(session, Problem(code="data.columns", what="No.", found="Columns there: 'words', 'group'."))
    data_page.mapping.boxes["label"].setCurrentText("words")
    qtbot.mouseClick(data_page.mapping.use, Qt.MouseButton.LeftButton)
    assert data_page.mapping.fields["label"].error() == "Choose different columns"


def test_that_conversations_lead_an_encoder_to_a_model_that_writes(
    data_page: DataPage, session: QuietSession, qtbot
) -> None:
    fail_data(session, unfit_data(samples.support_data(), "classification"))
    assert not data_page.mapping.isVisible()
    qtbot.mouseClick(data_page.problems.findChild(Button, "action_writer"), Qt.MouseButton.LeftButton)
    assert session.started[-1] == ("model", InspectModel(source="starter:chat"))


def test_that_labelled_rows_let_a_model_that_writes_give_labels(session: QuietSession, qtbot) -> None:
    settle(session)
    session.choose_data("/home/ana/finance.jsonl")
    page = shown(DataPage(session), qtbot)
    fail_data(session, unfit_data(labels.finance_data(), "chat", session.project.model))
    item = page.problems.problems()[0]
    assert item.headline.startswith("finance.jsonl holds texts with 3 labels")
    assert item.text.endswith("Or say below which column is what.")
    assert "Columns there" not in item.text
    assert page.mapping.boxes["completion"].currentText() == "label"
    qtbot.mouseClick(page.problems.findChild(Button, "action_task_classification"), Qt.MouseButton.LeftButton)
    job = InspectData(source="/home/ana/finance.jsonl", model="starter:chat", task="classification")
    assert session.started[-1] == ("data", job)


# Method and Fit.


def test_that_method_and_fit_speak_of_texts_and_the_new_layer(session: QuietSession, qtbot) -> None:
    labels.settle_labels(session)
    method, fit = shown(MethodPage(session), qtbot), shown(FitPage(session), qtbot)
    assert "the new output layer among them" in method.footer.hint.text()
    assert fit.settled.headline.text().endswith("texts at a time, with a new output layer for 3 labels")
    assert fit.settled.lines.texts()[1].endswith("it is checked on 36 held-out texts and saved.")
    assert fit.settled.fields["micro_batch_size"].label.text() == "Texts at a time"
    for page in (method, fit):
        said = _words(page).lower()
        assert "conversation" not in said
        assert "chat" not in said


# Train.


@pytest.fixture
def train_page(session: QuietSession, qtbot) -> Iterator[TrainPage]:
    labels.settle_labels(session)
    page = shown(TrainPage(session), qtbot)
    yield page  # type: ignore[misc]
    page.hide()


def test_that_the_ready_page_names_the_labels(train_page: TrainPage) -> None:
    facts = dict(train_page.ready.facts.rows())
    assert facts["Labels"] == "negative, neutral and positive"
    assert "and a new output layer" in facts["Method"]
    assert train_page.footer.next_button.isEnabled()


def test_that_checks_are_counted_beside_the_loss(train_page: TrainPage) -> None:
    labels.show_run(train_page.session, labels.running())
    card = train_page.run.checks
    assert card.isVisible()
    assert not train_page.run.speed.isVisible()
    assert card.title.text() == "Of 36 held-out texts"
    table = {row: [text(card, f"{row}_{column}") for column in ("right", "accuracy", "f1", "loss")] for row in ROWS}
    assert table == {
        "latest": ["31", "86%", "0.860", "0.344"],
        "best": ["33", "92%", "0.914", "0.301"],
        "base": ["13", "36%", "0.310", "1.098"],
    }


ROWS = ("latest", "best", "base")


def test_that_before_the_first_check_only_the_untouched_model_is_counted(train_page: TrainPage) -> None:
    labels.show_run(train_page.session, labels.running()[:5])
    card = train_page.run.checks
    assert [text(card, f"{row}_right") for row in ROWS] == ["–", "–", "13"]


def test_that_the_verdict_counts_what_is_right(train_page: TrainPage) -> None:
    labels.show_run(train_page.session, labels.completed())
    assert text(train_page, "verdict") == "Gets 33 of 36 held-out texts right; 13 before training."
    assert "The best, step 36, is kept; held-out loss 0.301, 1.098 before." in text(train_page, "verdictDetail")


def test_that_a_classifier_that_learned_nothing_is_no_success(train_page: TrainPage) -> None:
    checks = [labels.checked(0, 13, 0.3, 1.098, best=False), labels.checked(12, 12, 0.25, 1.09)]
    begin = made.began(12, eval_rows=36)
    labels.show_run(train_page.session, made.stamped([*made.opening(), begin, *checks, made.adapter(12), DONE]))
    assert text(train_page, "verdict") == "Gets 12 of 36 held-out texts right, and 13 before training."
    assert train_page.run.progress.sign._tone == "warn"


def test_that_a_run_that_writes_keeps_its_charts(train_page: TrainPage) -> None:
    labels.show_run(train_page.session, labels.running())
    labels.show_run(train_page.session, made.completed(), Path("/runs/chat"))
    assert not train_page.run.checks.isVisible()
    assert train_page.run.speed.isVisible()
    assert text(train_page, "verdict").startswith("Held-out loss fell")


# Try.


class Bench:
    """A Try page whose engine is played by the test."""

    def __init__(self, session: QuietSession, monkeypatch: pytest.MonkeyPatch, qtbot) -> None:
        self.source = FakeSource()
        monkeypatch.setattr("tunedesk.gui.chatting.EngineProcess", lambda *_: self.source)
        self.session, self.qtbot = session, qtbot
        self.chat = ChatSession()
        self.page = TryPage(session, self.chat)
        shown(self.page, qtbot)

    def say(self, *events: Event) -> None:
        self.source.events.extend(made.stamped(events))

    def asked(self) -> list[Ask]:
        return [command for command in self.source.sent if isinstance(command, Ask)]

    def load(self, *names: str) -> None:
        labels.show_run(self.session, labels.completed())
        self.say(labels.labels_ready(names or labels.LABELS))
        self.qtbot.waitUntil(lambda: self.chat.can_ask)

    def answer(self, number: int, *shares: tuple[str, float]) -> None:
        self.say(labels.labelled(number, *shares), Asked(id=number))
        self.qtbot.waitUntil(lambda: self.chat.can_ask)

    def example(self, number: int) -> Button:
        return self.page.findChild(Button, f"example_{number}")


@pytest.fixture
def bench(session: QuietSession, monkeypatch, qtbot) -> Iterator[Bench]:
    labels.settle_labels(session)
    bench = Bench(session, monkeypatch, qtbot)
    yield bench
    bench.page.hide()
    bench.chat.shut_down()


CLEAR = (("negative", 0.91), ("neutral", 0.08), ("positive", 0.002))


def test_that_without_a_run_it_says_what_will_be_here(bench: Bench) -> None:
    assert bench.page.empty.title.text() == "Nothing is tuned yet"
    assert not bench.page.base_button.isVisible()
    assert not bench.page.modes.isVisible()


def test_that_while_training_it_waits(bench: Bench) -> None:
    labels.show_run(bench.session, labels.running())
    assert bench.page.empty.title.text() == "The run is still training"
    assert not bench.source.started


def test_that_a_classifier_has_a_field_and_its_labels_and_no_chat(bench: Bench) -> None:
    bench.load()
    page = bench.page
    assert page.labelling.isVisible()
    assert page.labelling.field.hasFocus()
    for widget in (page.composer_row, page.modes, page.heads["base"], page.suggestions):
        assert not widget.isVisible()
    assert text(page.heads["tuned"], "loss") == "Gets 33 of 36 held-out texts right"
    bars = page.labelling.result.list.bars()
    assert [(bar.name, bar.figure) for bar in bars] == [(name, "–") for name in labels.LABELS]


def test_that_a_text_gets_its_labels_the_likeliest_first(bench: Bench, qtbot) -> None:
    bench.load()
    panel = bench.page.labelling
    assert not panel.button.isEnabled()
    qtbot.keyClicks(panel.field, "The mill is closing.")
    qtbot.keyClick(panel.field, Qt.Key.Key_Return)
    assert bench.asked()[0].conversations == {"tuned": (Message(role="user", content="The mill is closing."),)}
    assert panel.field.toPlainText() == ""
    bench.answer(1, *CLEAR)
    assert text(panel, "likeliest") == "negative"
    bars = [(bar.name, bar.figure, bar.quiet) for bar in panel.result.list.shown()]
    assert bars == [("negative", "91%", False), ("neutral", "8%", True), ("positive", "<1%", True)]
    assert text(panel, "took") == "took 12 ms"
    assert not panel.result.truth.isVisible()
    assert bench.session.project.tried


def test_that_each_text_is_sent_alone(bench: Bench, qtbot) -> None:
    bench.load()
    panel = bench.page.labelling
    for number, said in enumerate(("One", "Two"), start=1):
        qtbot.keyClicks(panel.field, said)
        qtbot.mouseClick(panel.button, Qt.MouseButton.LeftButton)
        bench.answer(number, *CLEAR)
    assert [ask.conversations["tuned"][-1].content for ask in bench.asked()] == ["One", "Two"]
    assert all(len(ask.conversations["tuned"]) == 1 for ask in bench.asked())


def test_that_examples_come_from_the_data_each_label_in_turn_with_what_the_data_says(bench: Bench, qtbot) -> None:
    bench.load()
    panel = bench.page.labelling
    offered = [bench.example(number).text() for number in range(4)]
    assert offered == [labels.TEXTS[0][0], labels.TEXTS[1][0], labels.TEXTS[2][0], labels.TEXTS[3][0]]
    qtbot.mouseClick(bench.example(0), Qt.MouseButton.LeftButton)
    bench.answer(1, *CLEAR)
    assert panel.result.truth.text() == "The data says so too."
    qtbot.mouseClick(bench.example(2), Qt.MouseButton.LeftButton)
    bench.answer(2, *CLEAR)
    assert panel.result.truth.text() == "The data says positive."


def test_that_what_was_tried_stays_below_and_can_be_shown_again(bench: Bench, qtbot) -> None:
    bench.load()
    panel = bench.page.labelling
    assert not panel.tried.isVisible()
    for number in (1, 2):
        qtbot.mouseClick(bench.example(number), Qt.MouseButton.LeftButton)
        bench.answer(number, *CLEAR)

    def tried() -> list[QAbstractButton]:
        return [row for row in panel.findChildren(QAbstractButton, "tried") if row.isVisible()]

    qtbot.waitUntil(lambda: len(tried()) == 2)
    rows = tried()
    assert [row.text() for row in rows] == [labels.TEXTS[2][0], labels.TEXTS[1][0]]
    assert rows[0].accessibleName() == f"{labels.TEXTS[2][0]}: negative, 91%"
    rows[1].setFocus()
    qtbot.keyClick(rows[1], Qt.Key.Key_Space)
    assert text(panel, "said") == labels.TEXTS[1][0]
    qtbot.mouseClick(bench.page.new_button, Qt.MouseButton.LeftButton)
    assert not panel.tried.isVisible()
    assert text(panel, "likeliest") == "–"


def test_that_of_many_labels_ten_are_shown(bench: Bench, qtbot) -> None:
    names = [label.name for label in labels.many_labels()]
    bench.load(*names)
    qtbot.keyClicks(bench.page.labelling.field, "Hello")
    qtbot.keyClick(bench.page.labelling.field, Qt.Key.Key_Return)
    bench.answer(1, *[(name, 1 / 40) for name in names])
    bars = bench.page.labelling.result.list
    assert len(bars.shown()) == 10
    assert bars.more.text() == "and 30 more"


def test_that_pairs_are_said_to_be_more_than_can_be_tried(bench: Bench) -> None:
    data = labels.finance_data(columns={"text": "claim", "text_pair": "premise", "label": "label"})
    bench.session.project = replace(bench.session.project, data=data)
    bench.load()
    assert bench.page.footer.hint.text().startswith("It learned from pairs of texts")
    assert not bench.page.labelling.examples.isVisible()


def test_that_a_classifier_that_cannot_be_loaded_is_explained(bench: Bench, qtbot) -> None:
    labels.show_run(bench.session, labels.completed())
    gone = Problem(code="engine.killed", what="The training process was ended from outside.")
    bench.say(Finished(outcome="failed", problems=(gone,)))
    qtbot.waitUntil(lambda: bench.chat.status == "failed")
    assert bench.page.problems.problems()[0].headline == gone.what
    assert not bench.page.labelling.isVisible()


def test_that_every_control_has_a_name(bench: Bench) -> None:
    bench.load()
    for button in bench.page.labelling.findChildren(QAbstractButton):
        assert button.objectName()
        assert button.accessibleName() or button.text()
    assert bench.page.labelling.field.accessibleName() == "A text to label"


# Export, the rail and the list of runs.


def test_that_the_names_of_the_labels_go_with_the_adapter(session: QuietSession, qtbot, tmp_path: Path) -> None:
    labels.settle_labels(session)
    session.change_settings(export_folder=str(tmp_path))
    labels.show_run(session, labels.completed())
    page = shown(ExportPage(session, ExportSession()), qtbot)
    assert "labels.json" in page.adapter_card.accessibleName()
    assert any("labels.json" in line for line in page.contents.texts())
    assert "chat" not in " ".join(page.contents.texts()).lower()
    assert [item.title for item in page.checks.items()][3] == "Tokenizer"


@pytest.fixture
def window(session: QuietSession, qtbot) -> Iterator[MainWindow]:
    made_window = MainWindow(session)
    qtbot.addWidget(made_window, before_close_func=lambda shown: setattr(shown, "_may_close", True))
    made_window.show()
    yield made_window
    made_window.session.close()
    made_window.chat.shut_down()
    made_window.exporter.shut_down()


def test_that_the_rail_speaks_of_labels(window: MainWindow) -> None:
    labels.settle_labels(window.session)
    labels.show_run(window.session, labels.completed())
    lines = {item.key: item.line for item in window.rail.steps()}
    assert lines["data"] == "351 texts, 3 labels"
    assert lines["train"] == "33 of 36 right"
    assert lines["try"] == "Label a text"


def record(name: str, events: list[Event]) -> Path:
    run = create_run(with_task(RunSpec(name=name), "classification"))
    run.events_file.write_text("".join(write_line(event) for event in events))
    return run.path


def test_that_a_run_of_the_past_is_listed_and_reopened_with_what_it_gets_right(window: MainWindow, qtbot) -> None:
    path = record("Mood", labels.completed())
    window.read_runs()
    qtbot.waitUntil(lambda: len(window._items) == 1)
    assert (window._items[0].status, window._items[0].value) == ("done", "92% right")
    window.open_run(path.name)
    qtbot.waitUntil(lambda: window.session.run is not None)
    assert window.session.project.spec.task.kind == "classification"
    assert ("data", window.session.started[-1][1]) == window.session.started[-1]
    assert window.session.started[-1][1].task == "classification"
    assert text(window.page("train"), "verdict").startswith("Gets 33 of 36")


def test_that_a_record_from_before_there_were_labels_still_opens(own_places: Path) -> None:
    run = create_run(RunSpec(name="Old"))
    lines = [write_line(event).replace(',"metrics":{}', "") for event in made.completed()]
    run.events_file.write_text("".join(lines))
    assert "metrics" not in run.events_file.read_text()
    assert summarise(run).metrics == {}
    assert run.state().best.metrics == {}


def test_that_the_encoder_is_there_again_after_a_restart(session: QuietSession, qtbot) -> None:
    settings = Settings(model_source="starter:encoder", data_source="starter:finance")
    session.settings = settings
    window = MainWindow(session)
    qtbot.addWidget(window)
    window.start_work()
    assert session.started == [("model", InspectModel(source="starter:encoder"))]
    describe_model(session, labels.encoder())
    assert session.started[-1][1].source == "starter:finance"
    assert session.project.spec.task.kind == "classification"
    window.chat.shut_down()
    window.exporter.shut_down()


# With the real engine.


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_that_a_newcomer_reaches_a_classifier(qapp, qtbot, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.e2e.conftest import Person

    if CACHE:
        monkeypatch.setenv("TUNEDESK_CACHE", CACHE)
    else:
        monkeypatch.delenv("TUNEDESK_CACHE")
    window = MainWindow(Session(Settings()))
    qtbot.addWidget(window, before_close_func=lambda shown: setattr(shown, "_may_close", True))
    window.painted.connect(window.start_work)
    window.show()
    person, project = Person(window, qtbot), lambda: window.session.project

    person.wait(lambda: project().model is not None and project().data is not None, 120)
    qtbot.mouseClick(person.see("starter_encoder"), Qt.MouseButton.LeftButton)
    person.wait(lambda: project().model is not None and project().model.kind == "encoder", 120)
    person.wait(lambda: project().data is not None and len(project().data.labels) == 3, 120)
    for step in ("data", "method", "fit", "train"):
        person.next()
        assert window.current == step
    person.next()
    person.wait(lambda: project().run is not None and project().run.ended, 400)
    run = project().run
    assert run.status == "completed", run.problems
    checks = [event for event in run.evaluations if isinstance(event, Evaluated)]
    assert all(set(check.metrics) == {"accuracy", "macro_f1"} for check in checks)
    assert person.see("verdict").text().startswith("Gets ")  # type: ignore[attr-defined]
    assert person.see("checksCard").isVisible()

    person.next()
    assert window.current == "try"
    person.wait(lambda: window.chat.can_ask, 120)
    person.click("example_0")
    person.wait(lambda: window.chat.can_ask and window.chat.turns[-1].answers["tuned"].ended, 60)
    bars = window.page("try").labelling.result.list.shown()
    assert {bar.name for bar in bars} == {"negative", "neutral", "positive"}
    assert sum(bar.share for bar in bars) == pytest.approx(1.0, abs=1e-3)
    assert bars[0].share == max(bar.share for bar in bars)
    person.type_into("textToLabel", "The mill closed.", enter=True)
    person.wait(lambda: len(window.chat.turns) == 2 and window.chat.can_ask, 60)
    assert person.see("likeliest").text() in {"negative", "neutral", "positive"}  # type: ignore[attr-defined]
    assert person.see("triedCard").isVisible()
    window._may_close = True
    window.close()
