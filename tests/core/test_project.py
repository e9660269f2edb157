"""The choices of a project: which task suits a model, and which data suits a task."""

import pytest
from pydantic import ValidationError

from tests.core.samples import data, model
from tunedesk.core.describe import LabelCount
from tunedesk.core.matching import TASKS
from tunedesk.core.project import (
    STARTER_DATA,
    Project,
    blockers,
    step_status,
    suited_task,
    switch_for,
    unfit_data,
    with_task,
)
from tunedesk.core.spec import RunSpec, parse_spec

ENCODER = model(name="all-MiniLM-L6-v2", kind="encoder", tasks=("classification",))
WRITER = model(tasks=("chat", "completion", "classification", "preference"))
T5 = model(name="t5-small", family="T5", kind="seq2seq", has_chat_template=False, tasks=("seq2seq",))
LABELLED = data(
    name="mood.csv",
    layout="labelled",
    task="classification",
    all_columns=("text", "mood"),
    labels=(LabelCount(name="calm", rows=4), LabelCount(name="cross", rows=5)),
)


def asked(task: str, data: str = "mine.csv", **choices: object) -> RunSpec:
    return with_task(parse_spec(f'[data]\ntrain = "{data}"'), task, **choices)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["chat", "completion", "classification", "seq2seq", "preference"])
def test_that_a_model_gets_a_task_that_its_kind_can_do(task) -> None:
    assert suited_task(ENCODER, asked(task)) == "classification"
    assert suited_task(T5, asked(task)) == "seq2seq"
    writes = suited_task(WRITER, asked(task))
    assert writes == ("chat" if task == "seq2seq" else task)


def test_that_labels_of_starter_data_go_with_the_encoder_unless_they_were_chosen() -> None:
    followed = with_task(RunSpec(), "classification")
    assert followed.data.train == "starter:finance"
    assert suited_task(WRITER, followed) == "chat"
    assert suited_task(WRITER, followed, chosen=True) == "classification"
    assert suited_task(model(tasks=("completion",)), followed) == "completion"


def test_that_a_base_model_does_not_change_chat_by_itself() -> None:
    assert suited_task(model(tasks=("completion",)), RunSpec()) == "chat"


def test_that_a_model_without_any_task_changes_nothing() -> None:
    assert suited_task(model(kind="other", tasks=()), asked("classification")) == "classification"


def test_that_choices_stay_within_their_task() -> None:
    rated = asked("preference", preference_loss="kto", beta=0.2)
    assert (rated.task.preference_loss, rated.task.beta) == ("kto", 0.2)
    assert with_task(rated, "preference", preference_loss="orpo").task.beta == 0.2
    assert with_task(rated, "chat").task == RunSpec().task
    assert parse_spec(rated.to_toml()) == rated
    with pytest.raises(ValidationError):
        with_task(rated, "preference", preference_loss="ppo")


@pytest.mark.parametrize(
    ("task", "choices", "columns"),
    [
        ("seq2seq", {}, {"prompt": "q", "completion": "a"}),
        ("completion", {}, {"prompt": "q", "completion": "a"}),
        ("preference", {"preference_loss": "kto"}, {"prompt": "q", "completion": "a"}),
        ("preference", {}, {}),
        ("classification", {}, {}),
    ],
)
def test_that_columns_stay_where_the_new_task_knows_them(task, choices, columns) -> None:
    own = parse_spec('[data]\ntrain = "mine.csv"\ncolumns = { prompt = "q", completion = "a" }')
    after = with_task(own, task, **choices).data
    assert (after.train, after.columns) == ("mine.csv", columns)


def test_that_starter_data_follows_the_task_there_and_back() -> None:
    labels = with_task(RunSpec(), "classification")
    assert (labels.task.kind, labels.data.train) == ("classification", "starter:finance")
    assert with_task(labels, "chat") == RunSpec()


def test_that_own_data_stays_and_its_columns_of_another_kind_go() -> None:
    own = parse_spec('[data]\ntrain = "mine.csv"\ncolumns = { prompt = "q", completion = "a" }')
    assert with_task(own, "completion").data == own.data
    labels = with_task(own, "classification").data
    assert (labels.train, labels.columns) == ("mine.csv", {})


def test_that_starter_data_with_stated_columns_was_chosen() -> None:
    spec = parse_spec('[data]\ntrain = "starter:finance"\ncolumns = { prompt = "text", completion = "label" }')
    assert with_task(spec, "chat") == spec


def test_that_every_task_has_starter_data() -> None:
    assert set(STARTER_DATA) == set(TASKS)


def test_that_labelled_rows_are_explained_with_what_the_model_can_do() -> None:
    found = unfit_data(LABELLED, "chat", WRITER)
    assert found is not None
    assert found.code == "data.labelled"
    assert found.what.startswith("mood.csv holds texts with 2 labels")
    assert found.found.endswith("Columns there: 'text', 'mood'.")
    assert found.fix == "Let the model learn to give labels, or choose another file."
    assert switch_for(found.code, WRITER) == "classification"
    alone = unfit_data(LABELLED, "seq2seq", T5)
    assert alone is not None
    assert alone.fix == "Choose a model that gives labels, or another file."
    assert switch_for(alone.code, T5) is None


def test_that_conversations_teach_a_decoder_to_answer_and_a_seq2seq_model_nothing_else() -> None:
    found = unfit_data(data(), "classification", ENCODER)
    assert found is not None
    assert found.code == "data.conversations"
    assert "Columns there" not in found.found
    assert switch_for(found.code, WRITER) == "chat"
    assert switch_for(found.code, T5) == "seq2seq"
    assert switch_for(found.code, ENCODER) is None


def test_that_better_and_worse_answers_lead_to_preferring() -> None:
    pairs = data(layout="preference", task="preference", all_columns=("prompt", "chosen", "rejected"))
    found = unfit_data(pairs, "chat", WRITER)
    assert found is not None
    assert (found.code, switch_for(found.code, WRITER)) == ("data.preferences", "preference")
    assert unfit_data(pairs, "preference", WRITER) is None


def test_that_columns_decide_about_plain_texts_and_fit_data_is_no_problem() -> None:
    assert unfit_data(data(layout="text", task="completion"), "classification") is None
    assert unfit_data(LABELLED, "classification") is None


def test_that_an_encoder_with_labelled_data_is_ready_to_train() -> None:
    project = Project(spec=with_task(RunSpec(), "classification"), model=ENCODER, data=LABELLED)
    assert blockers(project) == ()
    assert step_status(project, "model") == "settled"
