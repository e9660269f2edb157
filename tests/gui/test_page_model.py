"""The Model page in all its states."""

from __future__ import annotations

from dataclasses import replace

import pytest
import samples
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QApplication, QFileDialog
from samples import settle

from tunedesk.core.events import InspectModel, Progress
from tunedesk.gui.pages.model import ModelPage, hub_id, model_title, source_kind


@pytest.fixture
def page(qtbot, session):
    made = ModelPage(session)
    qtbot.addWidget(made)
    made.resize(1048, 800)
    made.show()
    return made


def facts(page):
    return dict(page.facts.rows())


def fail(session, problem, source="meta-llama/Llama-3.2-1B"):
    session.choose_model(source)
    session.model_activity = None
    session.project = replace(session.project, model=None, model_problems=(problem,))
    session.project_changed.emit()


def test_that_without_a_model_the_page_offers_the_starter(page, session, qtbot):
    assert page.empty.isVisible()
    assert not page.card.isVisible()
    assert not page.footer.next_button.isEnabled()
    qtbot.mouseClick(page.findChild(object, "emptyStarter"), Qt.MouseButton.LeftButton)
    assert session.started == [("model", InspectModel(source="starter:chat"))]
    assert page.sources.current() == "starter"


def test_that_the_facts_of_a_described_model_are_shown(page, session):
    settle(session)
    assert page.card.title.text() == "SmolLM2-135M-Instruct"
    shown = facts(page)
    assert shown["Family"] == "Llama, 30 layers"
    assert shown["Size"] == "134.5 million weights, 269 MB on disk (bf16)"
    assert shown["Context length"] == "8,192 tokens"
    assert shown["Licence"] == "apache-2.0"
    assert shown["Chat template"].startswith("Yes")
    can = "Conversations, going on with a text, labels for texts and preferring better answers"
    assert shown["Can be tuned for"] == can
    assert page.footer.next_button.isEnabled()
    assert not page.problems.problems()
    assert not page.progress_row.isVisible()


def test_that_while_a_model_is_fetched_its_progress_is_shown_and_the_labels_stay(page, session):
    session.choose_model("Qwen/Qwen3-4B")
    session.model_activity = "Fetching model.safetensors"
    session.model_progress = Progress(done=41_200_000, total=98_400_000, unit="bytes")
    session.activity_changed.emit()
    assert page.progress_row.isVisible()
    assert page.stage.text() == "Fetching model.safetensors"
    assert page.amount.text() == "41.2 of 98.4 MB"
    assert page.bar.value() == pytest.approx(0.4187, abs=1e-3)
    assert set(facts(page).values()) == {"–"}
    assert not page.fetch.isEnabled()
    assert not page.footer.next_button.isEnabled()


def test_that_the_facts_do_not_move_when_progress_ends(page, session, qtbot):
    session.choose_model("starter:chat")
    before = page.facts.geometry()
    settle(session)
    qtbot.wait(1)
    assert page.facts.geometry().topLeft() == before.topLeft()


def test_that_cancel_ends_the_download(page, session, qtbot):
    session.choose_model("Qwen/Qwen3-4B")
    qtbot.mouseClick(page.cancel, Qt.MouseButton.LeftButton)
    assert session.model_activity is None
    assert page.empty.isVisible()
    assert not page.footer.next_button.isEnabled()


def test_that_a_gated_model_offers_its_page_and_the_way_back(page, session, qtbot):
    settle(session)
    fail(session, samples.problem("hub.gated"))
    [item] = page.problems.problems()
    assert item.headline == "meta-llama/Llama-3.2-1B is gated."
    assert [key for key, _ in item.actions] == ["page", "again", "back"]
    assert not page.footer.next_button.isEnabled()
    qtbot.mouseClick(page.problems.findChild(object, "action_back"), Qt.MouseButton.LeftButton)
    assert session.started[-1] == ("model", InspectModel(source="starter:chat"))


def test_that_trying_again_asks_for_the_same_revision(page, session, qtbot):
    session.choose_model("org/name", "v2")
    session.model_activity = None
    session.project = replace(session.project, model_problems=(samples.problem("hub.offline"),))
    session.project_changed.emit()
    qtbot.mouseClick(page.problems.findChild(object, "action_again"), Qt.MouseButton.LeftButton)
    assert session.started[-1] == ("model", InspectModel(source="org/name", revision="v2"))


def test_that_a_base_model_can_be_trained_on_plain_text(page, session, qtbot):
    settle(session, model=samples.base_model())
    assert page.problems.problems()[0].headline == "SmolLM2-135M has no chat template."
    qtbot.mouseClick(page.problems.findChild(object, "action_completion"), Qt.MouseButton.LeftButton)
    assert session.project.spec.task.kind == "completion"
    assert not page.problems.problems()
    assert page.footer.next_button.isEnabled()


def test_that_a_hub_name_is_fetched_with_its_version(page, session, qtbot):
    qtbot.mouseClick(page.sources.card("hub"), Qt.MouseButton.LeftButton)
    assert session.started == []
    qtbot.keyClicks(page.hub_name, "https://huggingface.co/Qwen/Qwen3-0.6B/")
    qtbot.keyClicks(page.hub_revision, "main")
    qtbot.mouseClick(page.fetch, Qt.MouseButton.LeftButton)
    assert session.started == [("model", InspectModel(source="Qwen/Qwen3-0.6B", revision="main"))]
    assert page.hub_name.text() == "Qwen/Qwen3-0.6B"


def test_that_a_name_without_an_organisation_is_explained_at_the_field(page, session, qtbot):
    qtbot.mouseClick(page.sources.card("hub"), Qt.MouseButton.LeftButton)
    qtbot.keyClicks(page.hub_name, "llama")
    qtbot.keyClick(page.hub_name, Qt.Key.Key_Return)
    assert "two parts" in page.hub_field.error()
    assert session.started == []
    qtbot.keyClicks(page.hub_name, "x")
    assert page.hub_field.error() == ""


def test_that_a_typed_name_survives_news_of_the_hardware(page, session, qtbot):
    settle(session)
    qtbot.mouseClick(page.sources.card("hub"), Qt.MouseButton.LeftButton)
    qtbot.keyClicks(page.hub_name, "org/na")
    session.hardware_changed.emit()
    assert page.hub_name.text() == "org/na"
    assert page.sources.current() == "hub"


def test_that_the_folder_button_opens_the_native_dialog(page, session, qtbot, monkeypatch, tmp_path):
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    qtbot.mouseClick(page.sources.card("folder"), Qt.MouseButton.LeftButton)
    qtbot.mouseClick(page.findChild(object, "folderButton"), Qt.MouseButton.LeftButton)
    assert session.started == [("model", InspectModel(source=str(tmp_path)))]
    assert page.folder_path.text() == str(tmp_path)


def test_that_a_cancelled_dialog_changes_nothing(page, session, qtbot, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: ("", ""))
    page.sources.card("gguf").click()
    page.findChild(object, "ggufButton").click()
    assert session.started == []


def test_that_a_dropped_gguf_file_becomes_the_model(page, session, tmp_path):
    file = tmp_path / "model.gguf"
    file.touch()
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(file))])
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    enter = QDragEnterEvent(QPointF(9, 9).toPoint(), Qt.DropAction.CopyAction, mime, buttons, keys)
    QApplication.sendEvent(page, enter)
    assert enter.isAccepted()
    QApplication.sendEvent(page, QDropEvent(QPointF(9, 9), Qt.DropAction.CopyAction, mime, buttons, keys))
    assert session.started == [("model", InspectModel(source=str(file)))]
    assert page.sources.current() == "gguf"


def test_that_models_used_before_can_be_chosen_again(page, session, qtbot):
    session.change_settings(recent_models=("starter:chat", "/models/Qwen3-4B"))
    button = page.findChild(object, "recent_1")
    assert button.text() == "Qwen3-4B"
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert session.started == [("model", InspectModel(source="/models/Qwen3-4B"))]


def test_that_next_leads_to_data(page, session, qtbot):
    settle(session)
    with qtbot.waitSignal(page.go) as went:
        qtbot.mouseClick(page.footer.next_button, Qt.MouseButton.LeftButton)
    assert went.args == ["data"]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("starter:chat", "starter"),
        ("org/name", "hub"),
        ("/models/x", "folder"),
        ("~/x", "folder"),
        ("C:\\m\\x", "folder"),
        ("/a/b.GGUF", "gguf"),
    ],
)
def test_that_a_source_tells_its_kind(source, kind):
    assert source_kind(source) == kind


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" org/name ", "org/name"),
        ("hf.co/org/name", "org/name"),
        ("https://huggingface.co/org/name/tree/main", "org/name"),
        ("name", ""),
        ("org/", ""),
        ("org/my name", ""),
    ],
)
def test_that_a_hub_id_is_found_in_what_was_typed(text, found):
    assert hub_id(text) == found


def test_that_the_starter_is_called_by_its_name():
    assert model_title("starter:chat") == "SmolLM2-135M-Instruct"
    assert model_title("/models/Qwen3-4B") == "Qwen3-4B"
