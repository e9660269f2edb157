"""The five tasks along the whole path: what can be chosen, what a check measured, what is tried and saved."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import label_samples as labels
import pytest
import run_samples as made
import samples
import task_samples as tasks
from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QApplication, QWidget
from run_samples import FakeSource
from samples import QuietSession, settle
from test_screenshots import SIZES, cut_labels, end, sample_window
from test_screenshots import show_run as show_state

from tunedesk.core.events import Asked, InspectData, ModelDescribed
from tunedesk.core.events import Finished as Done
from tunedesk.core.measures import MEASURES
from tunedesk.core.problems import Problem
from tunedesk.core.project import unfit_data
from tunedesk.gui.chatting import ChatSession
from tunedesk.gui.exporting import ExportSession
from tunedesk.gui.pages._settings import SettingsDialog
from tunedesk.gui.pages._train_forgetting import ForgettingGauge
from tunedesk.gui.pages._train_loss import write_losses
from tunedesk.gui.pages.data import DataPage
from tunedesk.gui.pages.export import ExportPage
from tunedesk.gui.pages.model import ModelPage
from tunedesk.gui.pages.train import TrainPage
from tunedesk.gui.pages.try_ import TryPage
from tunedesk.gui.rail_lines import RailLines
from tunedesk.gui.widgets import Button, Label
from tunedesk.gui.widgets.chart_math import ticks
from tunedesk.gui.widgets.confusion import ConfusionMatrix


def shown(page: QWidget, qtbot, width: int = 1048) -> QWidget:
    qtbot.addWidget(page)
    page.resize(width, 800)
    page.show()
    return page


def text(page: QWidget, name: str) -> str:
    found = page.findChild(Label, name)
    return found.text() if found else page.findChild(QWidget, name).text()


def jobs(session: QuietSession) -> list[InspectData]:
    return [job for key, job in session.started if key == "data"]  # type: ignore[misc]


def fail(session: QuietSession, problem: Problem) -> None:
    session.examples = ()
    session._update(data=None, data_problems=(problem,))


# What should it learn?


@pytest.fixture
def page(session: QuietSession, qtbot) -> DataPage:
    settle(session)
    return shown(DataPage(session), qtbot)  # type: ignore[return-value]


def segment(page: DataPage, key: str) -> QWidget:
    return page.task_card.findChild(QWidget, f"segment_{key}")


def test_that_a_decoder_can_be_told_what_to_learn(page: DataPage, session: QuietSession, qtbot) -> None:
    can = {key: segment(page, key).isEnabled() for key in page.task_card.tasks.shown()}
    assert can == {"chat": True, "completion": True, "classification": True, "seq2seq": False, "preference": True}
    assert "A decoder has no second text" in segment(page, "seq2seq").toolTip()
    assert segment(page, "seq2seq").accessibleDescription() == segment(page, "seq2seq").toolTip()
    assert not page.task_card.choices.isVisible()
    qtbot.mouseClick(segment(page, "preference"), Qt.MouseButton.LeftButton)
    assert jobs(session)[-1] == InspectData(source="starter:preferences", model="starter:chat", task="preference")
    assert session.project.data is None
    assert page.task_card.choices.isVisible()
    assert page.task_card.note.text().startswith("DPO: of two answers")


def test_that_an_encoder_gives_labels_and_says_why_nothing_else(page: DataPage, session: QuietSession) -> None:
    labels.settle_labels(session)
    can = [key for key in page.task_card.tasks.shown() if segment(page, key).isEnabled()]
    assert can == ["classification"]
    assert "An encoder reads text and writes none." in segment(page, "chat").toolTip()


def test_that_where_it_is_narrow_what_cannot_be_learned_is_left_out(session: QuietSession, qtbot) -> None:
    tasks.settle_named(session, "pairs")
    card = shown(DataPage(session), qtbot, width=640).task_card  # type: ignore[attr-defined]
    QApplication.processEvents()
    assert card.tasks.shown() == ["seq2seq"]
    assert card.tasks.geometry().right() < card.width()


@pytest.mark.parametrize(("key", "sentence"), [("multi_label", "any number of labels"), ("regression", "a number")])
def test_that_what_a_text_gets_is_a_choice(
    page: DataPage, session: QuietSession, qtbot, key: str, sentence: str
) -> None:
    qtbot.mouseClick(segment(page, "classification"), Qt.MouseButton.LeftButton)
    assert page.task_card.note.text() == "The data tells whether a text gets one label, several or a number."
    qtbot.mouseClick(segment(page, key), Qt.MouseButton.LeftButton)
    assert jobs(session)[-1].problem_type == key
    assert session.project.spec.task.problem_type == key
    assert sentence in page.task_card.note.text()


@pytest.mark.parametrize(("loss", "sentence"), [("kto", "rated good or bad"), ("orpo", "shuns the worse")])
def test_that_how_answers_are_compared_is_a_choice(
    page: DataPage, session: QuietSession, qtbot, loss: str, sentence: str
) -> None:
    session.choose_task("preference")
    settle(session, data=tasks.preferences_data())
    qtbot.mouseClick(segment(page, loss), Qt.MouseButton.LeftButton)
    assert jobs(session)[-1].preference_loss == loss
    assert sentence in page.task_card.note.text()
    kept = session.project.data is not None
    assert kept == (loss == "orpo"), "DPO and ORPO read the same rows, KTO reads others"


def test_that_chosen_labels_stay_when_a_decoder_is_described_again(session: QuietSession) -> None:
    settle(session)
    session.choose_task("classification")
    session._on_model_events([ModelDescribed(info=samples.smollm()), Done(outcome="completed")])
    assert session.project.spec.task.kind == "classification"


def test_that_own_labelled_data_stays_when_a_decoder_follows_an_encoder(session: QuietSession) -> None:
    labels.settle_labels(session)
    session.choose_data("/home/ana/mood.csv")
    session.choose_model("starter:chat")
    session._on_model_events([ModelDescribed(info=samples.smollm()), Done(outcome="completed")])
    assert (session.project.spec.task.kind, jobs(session)[-1].source) == ("classification", "/home/ana/mood.csv")


@pytest.mark.parametrize(
    ("data", "task", "words"),
    [
        (labels.finance_data(), "classification", "Learn to give labels"),
        (tasks.preferences_data(), "preference", "Learn to prefer better answers"),
    ],
)
def test_that_a_file_of_another_task_offers_the_switch(
    page: DataPage, session: QuietSession, qtbot, data, task, words
) -> None:
    session.choose_data("/home/ana/mine.jsonl")
    fail(session, unfit_data(data, "chat", session.project.model))
    button = page.problems.findChild(Button, f"action_task_{task}")
    assert button.text() == words
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert (jobs(session)[-1].source, jobs(session)[-1].task) == ("/home/ana/mine.jsonl", task)


MAPPINGS = [
    ("chat", {}, ["Instructions", "The question", "The answer"]),
    ("seq2seq", {}, ["Text", "Result"]),
    ("preference", {}, ["The question", "Better answer", "Worse answer"]),
    ("preference", {"preference_loss": "kto"}, ["The question", "The answer", "Rating"]),
]


@pytest.mark.parametrize(("task", "choices", "asked"), MAPPINGS)
def test_that_the_columns_asked_for_are_those_of_the_task(
    page: DataPage, session: QuietSession, task, choices, asked
) -> None:
    session.choose_task(task, **choices)
    fail(session, Problem(code="data.columns", what="No.", found="Columns there: 'a', 'b', 'c'."))
    assert [field.label.text() for field in page.mapping.fields.values() if field.isVisible()] == asked


def test_that_better_and_worse_are_found_by_name_and_the_question_may_be_missing(
    page: DataPage, session, qtbot
) -> None:
    session.choose_task("preference")
    session.choose_data("/home/ana/p.csv")
    fail(session, Problem(code="data.columns", what="No.", found="Columns there: 'loser', 'winner'."))
    qtbot.mouseClick(page.mapping.use, Qt.MouseButton.LeftButton)
    assert jobs(session)[-1].columns == {"chosen": "winner", "rejected": "loser"}


def test_that_a_text_with_its_beginning_is_sent_as_a_pair(page: DataPage, session: QuietSession, qtbot) -> None:
    session.choose_task("completion")
    session.choose_data("/home/ana/p.csv")
    fail(session, Problem(code="data.columns", what="No.", found="Columns there: 'prompt', 'body'."))
    qtbot.mouseClick(page.mapping.use, Qt.MouseButton.LeftButton)
    assert jobs(session)[-1].columns == {"prompt": "prompt", "completion": "body"}


FACTS = [
    ("topics", "A text and its labels", ["Text", "Label"], "351 texts, 9,099 tokens, 4 labels. 36 are held out."),
    (
        "stars",
        "A text and its number",
        ["Text", "Number"],
        "351 texts, 9,099 tokens, numbers from 1 to 5. 36 are held out.",
    ),
    ("pairs", "A text and what becomes of it", ["Text", "Result"], "349 pairs of texts, 58,310 tokens, 55% of them"),
    ("preferences", "Two answers, the better and the worse", ["Prompt", "Better", "Worse"], "349 pairs of answers,"),
]


@pytest.mark.parametrize(("name", "holds", "roles", "summary"), FACTS)
def test_that_rows_are_shown_in_the_words_of_the_task(page: DataPage, session, name, holds, roles, summary) -> None:
    tasks.settle_named(session, name)
    assert dict(page.format_card.facts.rows())["A row holds"] == holds
    assert [turn.role for turn in page.seen.view.turns()] == roles
    assert page.header.subtitle.text().startswith(summary)


def test_that_kto_learns_from_pairs_as_well_as_from_ratings(page: DataPage, session: QuietSession) -> None:
    tasks.settle_task(
        session,
        "preference",
        samples.smollm(),
        tasks.preferences_data(),
        tasks.preference_row(),
        preference_loss="kto",
    )
    assert page.header.subtitle.text().startswith("349 pairs of answers")
    rated = tasks.preferences_data(
        layout="rated", columns={"prompt": "prompt", "completion": "answer", "label": "good"}
    )
    good = tasks.row_of(("prompt", "Is it mended?", "context"), ("chosen", "Yes, since Monday.", "trained"))
    settle(session, data=rated, examples=(good,))
    assert page.header.subtitle.text().startswith("349 rated answers")
    assert [turn.role for turn in page.seen.view.turns()] == ["Prompt", "Good"]
    assert page.seen.note.text() == "The model learns whether the blue answer is good. The others are only read."
    assert dict(page.format_card.facts.rows())["Columns"] == "prompt, answer (completion) and good (rating)"


# Model.


def test_that_it_is_said_what_to_fetch_for_turning_texts(session: QuietSession, qtbot) -> None:
    tasks.settle_named(session, "pairs")
    page = shown(ModelPage(session), qtbot)
    assert any("google/flan-t5-small" in label.text() for label in page.findChildren(Label))
    assert text(page, "taskNote") == "It reads one text and writes another, so the data is pairs of texts."
    qtbot.mouseClick(page.sources.card("starter"), Qt.MouseButton.LeftButton)  # type: ignore[attr-defined]
    assert session.started[-1][1].source == "starter:chat"


# Train.


@pytest.fixture
def train(session: QuietSession, qtbot) -> Iterator[TrainPage]:
    settle(session)
    page = shown(TrainPage(session), qtbot)
    yield page  # type: ignore[misc]
    page.hide()


TABLES = {
    "topics": {"Exact": "61%", "Macro-F1": "0.740", "Micro-F1": "0.812"},
    "stars": {"Correlation": "0.913", "RMSE": "0.42", "Mean error": "0.31"},
    "pairs": {"Exact match": "12%", "ROUGE-L": "0.412"},
    "preferences": {"Preferred": "87%", "Margin": "1.231"},
}


@pytest.mark.parametrize("name", TABLES)
def test_that_every_measure_stands_with_its_meaning(train: TrainPage, session: QuietSession, name: str) -> None:
    tasks.settle_named(session, name)
    tasks.show_run(session, tasks.running(name))
    card = train.run.checks
    heads = {card._title_of(column)[0]: column for column in card._columns}
    best = {title: card._cells["best"][column] for title, column in heads.items()}
    assert {title: best[title].text() for title in TABLES[name]} == TABLES[name]
    assert all(cell.toolTip() for cell in best.values())
    choices = train.run.loss.choices()
    measured = tasks.METRICS[name][0]
    assert list(choices) == ["loss", *[item.key for item in MEASURES if item.key in measured]]


VERDICTS = {
    "topics": ("Gives 22 of 36 held-out texts exactly their labels; 1 before training.", "ok"),
    "stars": ("Correlation with the right numbers is 0.913, 0.040 before training.", "ok"),
    "pairs": ("ROUGE-L of held-out texts is 0.412, 0.121 before training.", "ok"),
    "preferences": ("Prefers the better held-out answer 87% of the time, 50% before training.", "ok"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_that_the_end_is_told_by_the_measure_of_the_task(train: TrainPage, session: QuietSession, name: str) -> None:
    tasks.settle_named(session, name)
    tasks.show_run(session, tasks.completed(name))
    assert (text(train, "verdict"), train.run.progress.sign._tone) == VERDICTS[name]


def test_that_a_preference_that_grew_no_better_is_no_success(train: TrainPage, session: QuietSession) -> None:
    before = tasks.check(0, {"preference_accuracy": 0.5, "reward_margin": 0.0}, best=False)
    after = tasks.check(12, {"preference_accuracy": 0.5, "reward_margin": math.nan})
    events = [*made.opening(), made.began(12), before, after, made.adapter(12), Done(outcome="completed")]
    tasks.show_run(session, made.stamped(events))
    assert train.run.progress.sign._tone == "warn"
    assert train.run.checks._cells["latest"]["reward_margin"].text() == "not a number"


def test_that_perplexity_is_told_with_the_loss_of_text(train: TrainPage, session: QuietSession) -> None:
    events = [
        event.model_copy(update={"metrics": {"perplexity": math.exp(event.loss)}})
        if event.kind == "evaluated"
        else event
        for event in made.completed()
    ]
    tasks.show_run(session, events)
    assert not train.run.checks.isVisible()
    assert train.run.speed.isVisible()
    best = session.project.run.best
    assert f"among {math.exp(best.loss):.1f} tokens, 11.0 before." in text(train, "verdictDetail")
    train.run.loss.choose("perplexity")
    assert train.run.loss.chart.eval_points()[-1][1] == pytest.approx(
        math.exp(session.project.run.evaluations[-1].loss)
    )
    assert train.run.loss.chart.train_points() == []
    assert "equally likely tokens" in train.run.loss.legend.toolTip()
    train.run.loss.choose("loss")
    assert len(train.run.loss.chart.train_points()) == 120


def test_that_the_chart_knows_which_way_is_better(train: TrainPage, session: QuietSession) -> None:
    tasks.settle_named(session, "stars")
    tasks.show_run(session, tasks.running("stars"))
    train.run.loss.choose("pearson")
    assert train.run.loss.chart.best() == (36, 0.913)
    assert text(train, "evalLoss") == "0.900, best 0.913"
    assert not train.run.loss.views.isVisible()
    train.run.loss.choose("rmse")
    assert train.run.loss.chart.best() == (36, 0.42)


def test_that_a_choice_that_another_run_does_not_have_goes_back_to_the_loss(
    train: TrainPage, session: QuietSession
) -> None:
    tasks.show_run(session, tasks.running("labels"))
    train.run.loss.choose("confusion")
    tasks.show_run(session, made.completed(), Path("/runs/other"))
    assert train.run.loss.what == "loss"
    assert train.run.loss.stack.currentIndex() == 0
    assert train.run.loss.title_label.isVisible()


def test_that_mixed_up_labels_are_shown_of_what_is_kept(train: TrainPage, session: QuietSession) -> None:
    tasks.settle_named(session, "labels")
    tasks.show_run(session, tasks.completed("labels"))
    train.run.loss.choose("confusion")
    assert train.run.loss.matrix.counts() == tasks.CONFUSION
    assert train.run.loss.hover.text() == "Step 36. Right labels down, given labels across"
    assert train.run.loss.matrix.summary() == (
        "33 of 36 got the right label. Mixed up most: 2 of 12 with the label negative were taken for neutral."
    )


def test_that_measures_go_into_the_table_of_numbers(tmp_path: Path) -> None:
    checks = [tasks.check(0, {"accuracy": 0.25}), tasks.check(2, {"accuracy": 0.5, "macro_f1": 0.4})]
    write_losses(tmp_path / "a.csv", [(1, 2.0), (2, 1.5)], [(0, 3.0), (2, 1.0)], checks)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["held_out_loss"], row["accuracy"], row["macro_f1"]) for row in rows] == [
        ("0", "3.0", "0.25", ""),
        ("1", "", "", ""),
        ("2", "1.0", "0.5", "0.4"),
    ]


# The matrix by itself.


@pytest.fixture
def matrix(qtbot) -> ConfusionMatrix:
    made_matrix = ConfusionMatrix()
    qtbot.addWidget(made_matrix)
    made_matrix.resize(600, 300)
    made_matrix.set_matrix(labels.LABELS, tasks.CONFUSION)
    made_matrix.show()
    return made_matrix


def test_that_cells_are_told_in_words_when_pointed_at_or_walked_to(matrix: ConfusionMatrix, qtbot) -> None:
    grid = matrix._grid()
    spot = QPoint(round(grid.left() + grid.width() / 2), round(grid.top() + 10))
    qtbot.mouseMove(matrix, spot)
    assert matrix.accessibleDescription() == "2 of 12 with the label negative were taken for neutral."
    for key in (Qt.Key.Key_Left, Qt.Key.Key_Left, Qt.Key.Key_Down, Qt.Key.Key_Down):
        qtbot.keyClick(matrix, key)
    assert matrix.accessibleDescription() == "0 of 12 with the label positive were taken for negative."
    qtbot.keyClick(matrix, Qt.Key.Key_Right)
    qtbot.keyClick(matrix, Qt.Key.Key_Right)
    assert matrix.accessibleDescription() == "12 of 12 with the label positive got it."


def test_that_the_diagonal_stands_out(matrix: ConfusionMatrix) -> None:
    grid, picture = matrix._grid(), matrix.grab().toImage()
    step = grid.width() / 3

    def colour(down: int, across: int) -> tuple[int, int, int]:
        at = picture.pixelColor(
            round(grid.left() + across * step + 8), round(grid.top() + down * grid.height() / 3 + 8)
        )
        return at.red(), at.green(), at.blue()

    right, wrong, empty = colour(0, 0), colour(0, 1), colour(2, 0)
    assert right[2] > right[0] + 40, "right is blue"
    assert wrong[0] > wrong[2] + 10, "wrong is orange"
    assert abs(empty[0] - empty[2]) < 8, "nothing has no colour"


def test_that_forty_labels_find_room(matrix: ConfusionMatrix) -> None:
    names = [label.name for label in labels.many_labels()]
    matrix.set_matrix(names, tasks.confusion_of(40))
    matrix.make_room(roomy=True)
    assert matrix.minimumHeight() >= 40 * 12
    matrix.resize(640, matrix.minimumHeight())
    grid = matrix._grid()
    assert grid.right() < matrix.width()
    assert grid.bottom() < matrix.height()
    assert matrix._at(grid.center()) == (20, 20)
    matrix.make_room(roomy=False)
    assert matrix.minimumHeight() == 200


# Forgetting.


def test_that_what_was_forgotten_is_told_beside_the_end(train: TrainPage, session: QuietSession) -> None:
    tasks.show_run(session, tasks.completed("labels"))
    gauge = train.findChild(ForgettingGauge, "forgetting")
    assert not gauge.isVisible()
    QApplication.processEvents()
    height = train.run.progress.height()
    tasks.show_run(session, tasks.completed("labels", tasks.forgot(3.214, 3.391)), Path("/runs/2"))
    QApplication.processEvents()
    assert gauge.isVisible()
    assert train.run.progress.height() == height, "nothing moves"
    assert text(gauge, "forgettingSaid") == "Some was forgotten: general text is 19% harder for it than before."
    assert gauge.bar.accessibleName() == "loss 3.214 before, 3.391 now"
    assert "4,096 tokens" in gauge.toolTip()
    assert "19% harder" in train.run.progress.accessibleDescription()


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (tasks.forgot(0.0, 0.06, "drift"), "changed by 6%"),
        (tasks.forgot(3.2, math.nan), "loss 3.200 before, not a number now"),
        (tasks.forgot(3.2, 3.1), "loss 3.200 before, 3.100 now"),
    ],
)
def test_that_other_findings_are_told_too(qtbot, check, said: str) -> None:
    gauge = ForgettingGauge()
    qtbot.addWidget(gauge)
    gauge.show_check(check)
    assert gauge.bar.accessibleName() == said
    assert not gauge.grab().isNull()


def test_that_the_check_can_be_switched_off_and_beta_set(session: QuietSession, qtbot) -> None:
    tasks.settle_named(session, "preferences")
    dialog = SettingsDialog(session)
    qtbot.addWidget(dialog)
    dialog.fields["beta"].control.setText("200")
    dialog._take()
    assert dialog.fields["beta"].error()
    dialog.fields["beta"].control.setText("0.3")
    switch = dialog.fields["forgetting"].control
    switch.setCurrentIndex(switch.findData(False))
    dialog._take()
    spec = session.project.spec
    assert (spec.task.beta, spec.training.forgetting, spec.task.kind) == (0.3, False, "preference")
    again = SettingsDialog(session)
    qtbot.addWidget(again)
    assert again.fields["beta"].control.text() == "0.3"


def test_that_beta_is_asked_for_preferences_alone(session: QuietSession, qtbot) -> None:
    settle(session)
    dialog = SettingsDialog(session)
    qtbot.addWidget(dialog)
    assert "beta" not in dialog.fields


# The rail.


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("topics", ("351 texts, 4 labels", "22 of 36 right", "Label a text")),
        ("stars", ("351 texts, numbers", "Correlation 0.91", "Measure a text")),
        ("pairs", ("349 pairs of texts", "ROUGE-L 0.412", "Compare the results")),
        ("preferences", ("349 pairs of answers", "87% preferred", "Compare the answers")),
    ],
)
def test_that_the_rail_speaks_the_words_of_the_task(session: QuietSession, name: str, lines: tuple[str, ...]) -> None:
    tasks.settle_named(session, name)
    tasks.show_run(session, tasks.completed(name))
    found = {item.key: item.line for item in RailLines(session).steps()}
    assert (found["data"], found["train"], found["try"]) == lines


# Try.


class Bench:
    """A Try page whose engine is played by the test."""

    def __init__(self, session: QuietSession, monkeypatch: pytest.MonkeyPatch, qtbot) -> None:
        self.source, self.session, self.qtbot = FakeSource(), session, qtbot
        monkeypatch.setattr("tunedesk.gui.chatting.EngineProcess", lambda *_: self.source)
        self.chat = ChatSession()
        self.page = TryPage(session, self.chat)
        shown(self.page, qtbot)

    def load(self, name: str) -> None:
        tasks.settle_named(self.session, name)
        tasks.show_run(self.session, tasks.completed(name))
        self.source.events.extend(made.stamped([tasks.ready(name)]))
        self.qtbot.waitUntil(lambda: self.chat.can_ask)

    def label(self, said: str, answer: object) -> None:
        self.qtbot.keyClicks(self.page.labelling.field, said)
        self.qtbot.keyClick(self.page.labelling.field, Qt.Key.Key_Return)
        self.source.events.extend(made.stamped([answer, Asked(id=answer.id)]))  # type: ignore[attr-defined,list-item]
        self.qtbot.waitUntil(lambda: self.chat.can_ask)


@pytest.fixture
def bench(session: QuietSession, monkeypatch, qtbot) -> Iterator[Bench]:
    bench = Bench(session, monkeypatch, qtbot)
    yield bench
    bench.page.hide()
    bench.chat.shut_down()


def test_that_several_labels_are_marked(bench: Bench) -> None:
    bench.load("topics")
    panel = bench.page.labelling
    shares = (("billing", 0.97), ("delivery", 0.81), ("returns", 0.12), ("praise", 0.01))
    bench.label("My parcel is late and I was charged twice.", tasks.topics_answer(1, *shares))
    assert text(panel, "likeliest") == "billing, delivery"
    assert [(bar.name, bar.marked, bar.quiet) for bar in panel.result.list.shown()] == [
        ("billing", True, False),
        ("delivery", True, False),
        ("returns", False, True),
        ("praise", False, True),
    ]
    assert panel.result.list.accessibleName().startswith("billing 97%, given, delivery 81%, given, returns 12%")
    assert panel.result.truth.text() == "The data says so too."
    bench.label("Hello.", tasks.topics_answer(2, ("billing", 0.2), ("praise", 0.1)))
    assert text(panel, "likeliest") == "None of the labels"
    assert bench.session.project.tried


def test_that_a_number_lies_on_the_scale_of_the_data(bench: Bench) -> None:
    bench.load("stars")
    panel = bench.page.labelling
    assert panel.isVisible()
    assert panel.button.text() == "Read it"
    bench.label("Bright, quiet, and it came in two days.", tasks.stars_answer(1, 4.21))
    assert text(panel, "likeliest") == "4.21"
    assert panel.result.scale.isVisible()
    assert not panel.result.list.isVisible()
    assert panel.result.scale.accessibleName() == "4.21. From 1 to 5"
    assert panel.result.truth.text() == "The data says 4.5."
    assert text(bench.page.heads["tuned"], "loss") == "Held-out data: correlation 0.91"


def test_that_each_text_to_turn_stands_alone(bench: Bench, qtbot) -> None:
    bench.load("pairs")
    page = bench.page
    assert not page.bar.prompt_button.isVisible()
    assert page.suggestions.title.text() == "Try one of these"
    assert page.suggestions.buttons[0].text().startswith("The harbour board met")
    page.bar.instructions.text.setPlainText("Be brief.")
    for number, said in enumerate(("One", "Two"), start=1):
        qtbot.keyClicks(page.composer, said)
        qtbot.keyClick(page.composer, Qt.Key.Key_Return)
        answers = [
            labels.labelled(number, ("x", 1.0)).model_copy(
                update={"side": side, "labels": (), "text": f"{said}, turned"}
            )
            for side in ("base", "tuned")
        ]
        bench.source.events.extend(made.stamped([*answers, Asked(id=number)]))
        qtbot.waitUntil(lambda: bench.chat.can_ask)
    sent = [command for command in bench.source.sent if command.kind == "ask"]
    for ask, said in zip(sent, ("One", "Two"), strict=True):
        assert {side: [m.content for m in asked] for side, asked in ask.conversations.items()} == {
            "base": [said],
            "tuned": [said],
        }


def test_that_preferences_are_tried_as_a_conversation(bench: Bench) -> None:
    bench.load("preferences")
    assert bench.page.composer_row.isVisible()
    assert bench.page.suggestions.buttons[0].text() == "Can I return a lamp that I have used?"
    assert text(bench.page.heads["base"], "loss") == "Held-out data: 50% preferred"


# Export.


@pytest.mark.parametrize(
    ("name", "word"),
    [("pairs", "writes word for word"), ("stars", "gives the numbers"), ("topics", "gives the labels")],
)
def test_that_an_export_is_compared_in_the_words_of_the_task(
    session: QuietSession, qtbot, name: str, word: str
) -> None:
    tasks.settle_named(session, name)
    tasks.show_run(session, tasks.completed(name))
    page = shown(ExportPage(session, ExportSession()), qtbot)
    items = page.checks.items()  # type: ignore[attr-defined]
    assert items[3].title == "Tokenizer"
    assert word in items[6].text
    assert "chat" not in " ".join(page.contents.texts())  # type: ignore[attr-defined]


# Nothing is cut off.


@pytest.mark.parametrize("size", SIZES)
def test_that_no_label_of_any_task_is_cut_off(qapp, size: tuple[int, int]) -> None:
    found = []
    for name in ("topics", "pairs", "preferences"):
        window = sample_window(size)
        tasks.settle_named(window.session, name)
        for key, events in (("data", None), ("train", tasks.completed(name, tasks.forgot())), ("try", None)):
            if events:
                tasks.show_run(window.session, events)
            elif key == "data":
                show_state(window, None)
            window.go(key)
            for _ in range(4):
                QApplication.processEvents()
            found += [(name, key, *cut_labels(window.page(key)))] if cut_labels(window.page(key)) else []
        end(window)
    assert found == []


def test_that_steps_are_counted_in_whole_numbers() -> None:
    for last in (3, 5, 8, 25, 63):
        for about in (3.0, 8.0, 11.5):
            found = ticks(0, last, about, least=1)
            assert all(value == round(value) for value in found)
            assert len(found) == len(set(found)) >= 2
    assert ticks(0, 5, 11.5, least=1) == [0, 1, 2, 3, 4, 5]
