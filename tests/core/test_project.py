"""The choices of a project: which task suits a model, and which data suits a task."""

import pytest

from tests.core.samples import data, model
from tunedesk.core.describe import LabelCount
from tunedesk.core.project import STARTER_DATA, Project, blockers, step_status, suited_task, unfit_data, with_task
from tunedesk.core.spec import RunSpec, parse_spec

ENCODER = model(name="all-MiniLM-L6-v2", kind="encoder", tasks=("classification",))
LABELLED = data(
    name="mood.csv",
    layout="labelled",
    task="classification",
    all_columns=("text", "mood"),
    labels=(LabelCount(name="calm", rows=4), LabelCount(name="cross", rows=5)),
)


@pytest.mark.parametrize("asked", ["chat", "completion", "classification"])
def test_that_an_encoder_gives_labels_whatever_was_asked(asked) -> None:
    assert suited_task(ENCODER, asked) == "classification"


def test_that_a_decoder_goes_back_to_the_first_thing_it_can_do() -> None:
    assert suited_task(model(), "classification") == "chat"
    assert suited_task(model(tasks=("completion",)), "classification") == "completion"


def test_that_a_task_that_the_model_can_do_stays() -> None:
    assert suited_task(model(), "completion") == "completion"


def test_that_a_base_model_does_not_change_chat_by_itself() -> None:
    assert suited_task(model(tasks=("completion",)), "chat") == "chat"


def test_that_a_model_without_any_task_changes_nothing() -> None:
    assert suited_task(model(kind="other", tasks=()), "classification") == "classification"


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
    assert set(STARTER_DATA) == {"chat", "completion", "classification"}


def test_that_labelled_rows_are_explained_to_a_model_that_writes() -> None:
    found = unfit_data(LABELLED, "chat")
    assert found is not None
    assert found.code == "data.labelled"
    assert found.what.startswith("mood.csv holds texts with 2 labels")
    assert found.found.endswith("Columns there: 'text', 'mood'.")


def test_that_conversations_are_explained_to_an_encoder() -> None:
    found = unfit_data(data(), "classification")
    assert found is not None
    assert found.code == "data.conversations"
    assert "Columns there" not in found.found


def test_that_columns_decide_about_plain_texts_and_fit_data_is_no_problem() -> None:
    assert unfit_data(data(layout="text", task="completion"), "classification") is None
    assert unfit_data(LABELLED, "classification") is None


def test_that_an_encoder_with_labelled_data_is_ready_to_train() -> None:
    project = Project(spec=with_task(RunSpec(), "classification"), model=ENCODER, data=LABELLED)
    assert blockers(project) == ()
    assert step_status(project, "model") == "settled"
