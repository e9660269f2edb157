"""Several adapters on one base: the chooser of the Try page and the library behind it, on real folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import adapter_samples as lib
import label_samples as labels
import pytest
import run_samples as made
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractButton, QAbstractSpinBox, QApplication, QLineEdit, QSlider
from run_samples import FakeSource
from samples import QuietSession, settle, smollm
from test_screenshots import cut_labels

from tunedesk.core.adapters import Adapter, list_adapters
from tunedesk.core.events import (
    AdapterAdded,
    AdapterUsed,
    Ask,
    Asked,
    ChatAnswer,
    ChatReady,
    Checked,
    CombineAdapters,
    Event,
    Export,
    Exported,
    Finished,
    ImportAdapter,
    Message,
    Sampling,
    Side,
    Stage,
    UseAdapter,
)
from tunedesk.core.paths import runs_dir
from tunedesk.core.problems import Problem
from tunedesk.core.runs import RunFolder
from tunedesk.core.state import reduce_all
from tunedesk.gui.adapter_words import when
from tunedesk.gui.chatting import ChatSession
from tunedesk.gui.dialogs.adapters import COMBINE, EXPORT, IMPORT, LIST, AdaptersDialog
from tunedesk.gui.pages.try_ import LABEL, TALK, TryPage
from tunedesk.gui.widgets import Button, Label

LEFT = Qt.MouseButton.LeftButton
MISFIT = Problem(code="adapter.misfit", what="The adapter does not fit this model.", fix="Choose another.")


class Bench:
    """A Try page over a real library; the engines are played by the test."""

    def __init__(self, session: QuietSession, monkeypatch: pytest.MonkeyPatch) -> None:
        self.session = session
        self.sources: list[FakeSource] = []
        for module in ("chatting", "adapter_library", "exporting"):
            monkeypatch.setattr(f"tunedesk.gui.{module}.EngineProcess", self._engine)
        self.chat = ChatSession()
        self.page = TryPage(session, self.chat)
        self.page.resize(1048, 800)
        self.own: Adapter | None = None

    def _engine(self, job: object, log: Path) -> FakeSource:  # noqa: ARG002
        source = FakeSource()
        source.job = job  # type: ignore[attr-defined]
        self.sources.append(source)
        return source

    @property
    def job(self) -> object:
        return self.sources[-1].job  # type: ignore[attr-defined]

    def say(self, *events: Event) -> None:
        self.sources[-1].events.extend(made.stamped(events))

    def sent(self, kind: type) -> list:
        return [command for command in self.sources[0].sent if isinstance(command, kind)]

    def show_run(self, name: str = "Support") -> Adapter:
        """Show a finished run that lies on the disk."""
        self.own = lib.in_run(name)
        spec = self.session.project.spec.model_copy(update={"name": name})
        self.session.run = RunFolder(self.own.path.parent)
        self.session.project = replace(self.session.project, spec=spec, run=reduce_all(made.completed()))
        return self.own

    def open_popup(self, qtbot) -> None:
        qtbot.mouseClick(self.page.picker.button, LEFT)

    def rows(self) -> list[str]:
        return [row.text() for row in self.page.picker.popup.rows()]

    def pick(self, qtbot, name: str) -> None:
        self.open_popup(qtbot)
        row = next(row for row in self.page.picker.popup.rows() if row.text() == name)
        qtbot.mouseClick(row, LEFT)

    def use(self, qtbot, adapter: Adapter, sides: tuple[Side, ...] = ("base", "tuned"), **facts: object) -> None:
        """Choose an adapter, and let the engine take it."""
        self.pick(qtbot, adapter.name)
        self.say(AdapterUsed(path=str(adapter.path), sides=sides, **facts))  # type: ignore[arg-type]
        qtbot.waitUntil(lambda: self.chat.coming is None)

    def ask(self, qtbot, question: str, **answers: str) -> None:
        self.page.composer.setPlainText(question)
        self.page.send()
        self.answer(qtbot, **answers)

    def answer(self, qtbot, **answers: str) -> None:
        number = self.sent(Ask)[-1].id
        told = [answered(number, side, text) for side, text in answers.items()]
        self.say(*told, Asked(id=number))
        qtbot.waitUntil(lambda: self.chat.can_ask)

    def what(self) -> str:
        return self.page.heads["tuned"].what.text()


def answered(number: int, side: str, text: str) -> ChatAnswer:
    return ChatAnswer(id=number, side=side, text=text, token_ids=(1, 2), seconds=0.5, ended="stop_token")  # type: ignore[arg-type]


@pytest.fixture
def bench(session: QuietSession, qtbot, monkeypatch) -> Iterator[Bench]:
    settle(session)
    bench = Bench(session, monkeypatch)
    qtbot.addWidget(bench.page)
    yield bench
    bench.page.hide()
    bench.chat.shut_down()
    bench.page.library.shut_down()


@pytest.fixture
def pirate(own_places: Path) -> Adapter:
    return lib.in_library("Pirate", created=lib.NOON + 60)


@pytest.fixture
def ready(bench: Bench, pirate: Adapter, qtbot) -> Bench:
    """A run's base is loaded with its own adapter, and another lies in the library."""
    own = bench.show_run()
    bench.page.show()
    bench.say(made.chat_ready().model_copy(update={"adapter": str(own.path)}))
    qtbot.waitUntil(lambda: bench.chat.can_ask and bench.page.library.loaded)
    return bench


# The chooser.


def test_that_the_shown_run_comes_first_and_other_bases_not_at_all(ready: Bench, qtbot) -> None:
    lib.in_library("Newest", created=lib.NOON + 600)
    lib.in_library("Elsewhere", base="/models/Qwen3-4B")
    ready.page.library.read()
    qtbot.waitUntil(lambda: len(ready.page.library.adapters) == 3)
    ready.open_popup(qtbot)
    assert ready.rows() == ["Support", "Newest", "Pirate"]
    first, second, _ = ready.page.picker.popup.rows()
    assert first.isChecked()
    assert not second.isChecked()
    assert first.note == "LoRA, the run that is shown"
    assert second.note == "LoRA, imported, 5 Mar"


def test_that_a_choice_goes_to_the_loaded_engine_and_is_shown_once_it_holds(ready: Bench, pirate, qtbot) -> None:
    assert ready.what() == "Support, step 120"
    ready.pick(qtbot, "Pirate")
    assert ready.sent(UseAdapter) == [UseAdapter(path=str(pirate.path))]
    assert ready.what() == "Changing to Pirate"
    assert ready.page.picker.button.busy
    assert not ready.page.picker.button.isEnabled()
    ready.page.composer.setPlainText("Hello")
    assert not ready.page.send_button.isEnabled()
    ready.say(AdapterUsed(path=str(pirate.path), sides=("base", "tuned")))
    qtbot.waitUntil(lambda: ready.chat.can_ask)
    assert ready.what() == "Pirate, LoRA"
    assert ready.page.heads["tuned"].loss.text() == ""
    assert ready.page.send_button.isEnabled()
    ready.use(qtbot, ready.own)
    assert ready.what() == "Support, step 120"
    assert ready.page.heads["tuned"].loss.text().startswith("Held-out loss 1.1")
    assert len(ready.sources) == 1


def test_that_a_refused_adapter_is_explained_and_the_one_before_stays(ready: Bench, qtbot) -> None:
    ready.pick(qtbot, "Pirate")
    ready.say(AdapterUsed(path=str(ready.own.path), sides=("base", "tuned"), problems=(MISFIT,)))
    qtbot.waitUntil(lambda: ready.chat.can_ask)
    assert ready.what() == "Support, step 120"
    assert ready.page.problems.problems()[0].headline == MISFIT.what
    ready.pick(qtbot, "Pirate")
    assert ready.page.problems.problems() == []


def test_that_the_list_is_opened_walked_and_chosen_from_by_keyboard(ready: Bench, pirate, qtbot) -> None:
    ready.page.picker.button.setFocus()
    qtbot.keyClick(ready.page.picker.button, Qt.Key.Key_Space)
    popup = ready.page.picker.popup
    support, other = popup.rows()
    assert popup.isVisible()
    assert popup.focusWidget() is support
    qtbot.keyClick(support, Qt.Key.Key_Down)
    assert popup.focusWidget() is other
    qtbot.keyClick(other, Qt.Key.Key_Down)
    assert popup.focusWidget() is popup.manage
    qtbot.keyClick(other, Qt.Key.Key_Return)
    assert not popup.isVisible()
    assert ready.sent(UseAdapter)[0].path == str(pirate.path)


def test_that_each_answer_keeps_the_name_of_who_gave_it(ready: Bench, pirate, qtbot) -> None:
    ready.ask(qtbot, "One", base="B1", tuned="T1")
    ready.use(qtbot, pirate)
    ready.ask(qtbot, "Two", base="B2", tuned="P2")
    cards = [turn.cards["tuned"] for turn in ready.page._turns]
    assert [card.voice.text() for card in cards] == ["Support", "Pirate"]
    assert all(card.voice.isVisible() for card in cards)
    assert ready.page._turns[0].cards["base"].voice.text() == "Original"
    ready.ask(qtbot, "Three", base="B3", tuned="P3")
    talks = ready.sent(Ask)[-1].conversations
    assert [message.content for message in talks["tuned"]] == ["Two", "P2", "Three"]
    assert [message.content for message in talks["base"]] == ["One", "B1", "Two", "B2", "Three"]


def test_that_names_stand_over_answers_only_where_there_is_a_choice(bench: Bench, qtbot) -> None:
    own = bench.show_run()
    bench.page.show()
    bench.say(made.chat_ready().model_copy(update={"adapter": str(own.path)}))
    qtbot.waitUntil(lambda: bench.chat.can_ask and bench.page.library.loaded)
    bench.ask(qtbot, "One", base="B1", tuned="T1")
    assert not bench.page._turns[0].cards["tuned"].voice.isVisible()


def test_that_the_last_question_is_asked_again_of_the_adapter_alone(ready: Bench, pirate, qtbot) -> None:
    ready.ask(qtbot, "One", base="B1", tuned="T1")
    ready.ask(qtbot, "Two", base="B2", tuned="T2")
    assert [turn.question.again.isVisible() for turn in ready.page._turns] == [False, True]
    ready.use(qtbot, pirate)
    qtbot.mouseClick(ready.page._turns[1].question.again, LEFT)
    assert ready.sent(Ask)[-1].conversations == {"tuned": (Message(role="user", content="Two"),)}
    ready.answer(qtbot, tuned="P2")
    assert ready.page._turns[2].cards["base"].words.text().count("B2") == 1
    ready.use(qtbot, ready.own)
    ready.ask(qtbot, "Three", base="B3", tuned="T3")
    talks = ready.sent(Ask)[-1].conversations
    assert [message.content for message in talks["tuned"]] == ["One", "T1", "Two", "T2", "Three"]
    assert [message.content for message in talks["base"]] == ["One", "B1", "Two", "B2", "Three"]


def test_that_with_another_seed_the_original_is_asked_again_too(ready: Bench, qtbot) -> None:
    ready.ask(qtbot, "One", base="B1", tuned="T1")
    ready.page.bar.seed.setValue(9)
    qtbot.mouseClick(ready.page._turns[0].question.again, LEFT)
    assert set(ready.sent(Ask)[-1].conversations) == {"base", "tuned"}
    failed = Asked(id=ready.sent(Ask)[-1].id, problems=(Problem(code="chat.long", what="Too long."),))
    ready.say(failed)
    qtbot.waitUntil(lambda: ready.chat.can_ask)
    assert len(ready.page._turns) == 1


def test_that_an_adapter_is_tried_without_any_run(bench: Bench, pirate, qtbot) -> None:
    bench.page.show()
    button = bench.page.findChild(Button, "tryAdapter")
    qtbot.waitUntil(button.isVisible)
    qtbot.mouseClick(button, LEFT)
    assert bench.rows() == ["Pirate"]
    qtbot.mouseClick(bench.page.picker.popup.rows()[0], LEFT)
    assert (bench.job.run, bench.job.model, bench.job.adapter) == (None, "starter:chat", str(pirate.path))  # type: ignore[attr-defined]
    bench.say(made.chat_ready().model_copy(update={"adapter": str(pirate.path)}))
    qtbot.waitUntil(lambda: bench.chat.can_ask)
    assert bench.what() == "Pirate, LoRA"
    bench.ask(qtbot, "One", base="B1", tuned="P1")
    assert not bench.session.project.tried


def test_that_an_adapter_joins_the_original_that_is_loaded_alone(bench: Bench, pirate, qtbot) -> None:
    bench.page.show()
    qtbot.waitUntil(lambda: bench.page.library.loaded)
    qtbot.mouseClick(bench.page.findChild(Button, "tryBase"), LEFT)
    bench.say(made.chat_ready(tuned=False))
    qtbot.waitUntil(lambda: bench.chat.can_ask)
    assert bench.what() == "Choose an adapter"
    bench.use(qtbot, pirate)
    assert bench.page.sides == ("base", "tuned")
    assert bench.sent(UseAdapter) == [UseAdapter(path=str(pirate.path))]


def test_that_another_kind_of_answers_begins_anew(ready: Bench, pirate, qtbot) -> None:
    ready.ask(qtbot, "One", base="B1", tuned="T1")
    ready.use(qtbot, pirate, sides=("tuned",), labels=labels.LABELS)
    assert ready.page.stack.currentIndex() == LABEL
    assert ready.chat.turns == []
    assert ready.page.picker.button.isVisible()
    ready.use(qtbot, ready.own)
    assert ready.page.stack.currentIndex() == TALK


def test_that_labels_keep_the_name_of_the_adapter_that_gave_them(ready: Bench, pirate, qtbot) -> None:
    facts = {"sides": ("tuned",), "labels": labels.LABELS}
    ready.use(qtbot, pirate, **facts)
    panel = ready.page.labelling
    panel.field.setPlainText("The yard is for sale.")
    panel.send()
    ready.say(labels.labelled(1, ("negative", 0.9), ("neutral", 0.1)), Asked(id=1))
    qtbot.waitUntil(lambda: ready.chat.can_ask)
    assert panel.result.voice.text() == "Pirate"
    assert panel.result.voice.isVisible()
    ready.use(qtbot, ready.own, **facts)
    qtbot.mouseClick(panel.result.again, LEFT)
    assert ready.sent(Ask)[-1].conversations["tuned"][0].content == "The yard is for sale."
    ready.say(labels.labelled(2, ("neutral", 0.8), ("negative", 0.2)), Asked(id=2))
    qtbot.waitUntil(lambda: ready.chat.can_ask)
    assert panel.result.voice.text() == "Support"
    tried = [panel._tried.itemAt(place).widget().voice for place in range(panel._tried.count())]
    assert tried == ["Support", "Pirate"]


def test_that_without_adapters_one_sentence_says_where_they_come_from(bench: Bench, qtbot) -> None:
    bench.page.show()
    qtbot.waitUntil(lambda: bench.page.library.loaded)
    assert not bench.page.findChild(Button, "tryAdapter").isVisible()
    bench.page.picker.open_at(bench.page.adapters_button)
    assert bench.rows() == []
    assert bench.page.picker.popup.sentence.text().startswith("None so far. A finished run adds its own")
    assert bench.page.picker.popup.focusWidget() is bench.page.picker.popup.manage


def test_that_dates_say_as_much_as_is_needed() -> None:
    from datetime import datetime

    now = datetime(2026, 3, 5, 18, 0)
    assert when(lib.NOON, now) == "12:00"
    assert when(datetime(2026, 1, 24).timestamp(), now) == "24 Jan"
    assert when(datetime(2025, 11, 4).timestamp(), now) == "4 Nov 2025"


# The library.


@pytest.fixture
def dialog(ready: Bench, qtbot) -> AdaptersDialog:
    """The library, opened from the chooser; it holds a run's LoRA, an imported one and an IA³."""
    lib.in_library("Quiet", method="ia3", created=lib.NOON - 60)
    ready.open_popup(qtbot)
    qtbot.mouseClick(ready.page.picker.popup.manage, LEFT)
    found = ready.page.window().findChild(AdaptersDialog)
    qtbot.waitUntil(lambda: len(found.table.shown()) == 3)
    return found


def names(dialog: AdaptersDialog) -> list[str]:
    return [adapter.name for adapter in dialog.table.shown()]


def select(dialog: AdaptersDialog, name: str) -> Adapter:
    adapter = next(item for item in dialog.table.shown() if item.name == name)
    dialog.table.select(adapter)
    return adapter


def press(dialog: AdaptersDialog, name: str, qtbot) -> None:
    qtbot.mouseClick(dialog.findChild(Button, name), LEFT)


def test_that_the_table_tells_what_is_known(dialog: AdaptersDialog) -> None:
    model = dialog.table.model()
    cells = [[model.index(row, column).data() for column in range(6)] for row in range(3)]
    assert [row[:3] + row[4:] for row in cells] == [
        ["Pirate", "Conversations", "LoRA", "Imported", "5 Mar"],
        ["Support", "Conversations", "LoRA", "A run here", "5 Mar"],
        ["Quiet", "Conversations", "IA³", "Imported", "5 Mar"],
    ]
    assert all(row[3].endswith(" B") for row in cells)
    assert not dialog.search.isVisible()


def test_that_a_name_is_edited_in_its_row(ready: Bench, dialog: AdaptersDialog, qtbot) -> None:
    select(dialog, "Support")
    press(dialog, "rename", qtbot)
    field = dialog.table.findChild(QLineEdit, "newName")
    field.selectAll()
    qtbot.keyClicks(field, "Support v2")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: "Support v2" in names(dialog))
    assert dialog.table.adapter().name == "Support v2"
    assert RunFolder(ready.own.path.parent).spec().name == "Support v2"


def test_that_a_taken_name_is_refused_in_words(dialog: AdaptersDialog, qtbot) -> None:
    select(dialog, "Quiet")
    qtbot.keyClick(dialog.table, Qt.Key.Key_F2)
    field = dialog.table.findChild(QLineEdit, "newName")
    field.setText("pirate")
    qtbot.keyClick(field, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: dialog.problems.problems() != [])
    assert dialog.problems.problems()[0].headline == "There is an adapter called 'pirate' already."
    assert "Quiet" in names(dialog)


def test_that_deleting_asks_and_says_what_stays(ready: Bench, dialog: AdaptersDialog, qtbot) -> None:
    select(dialog, "Support")
    press(dialog, "delete", qtbot)
    question = dialog.problems.problems()[0]
    assert question.headline == "Delete Support?"
    assert "Its checkpoints, its record and its report stay." in question.text
    press(dialog, "action_keep", qtbot)
    assert dialog.problems.problems() == []
    assert ready.own.path.is_dir()
    press(dialog, "delete", qtbot)
    press(dialog, "action_delete", qtbot)
    qtbot.waitUntil(lambda: names(dialog) == ["Pirate", "Quiet"])
    assert not ready.own.path.exists()
    assert (ready.own.path.parent / "run.toml").is_file()
    assert dialog.problems.problems()[0].headline == "Support is deleted."
    assert ready.sent(UseAdapter) == [UseAdapter(path=None)]


def test_that_a_chosen_row_is_tried(ready: Bench, dialog: AdaptersDialog, pirate, qtbot) -> None:
    select(dialog, "Pirate")
    qtbot.keyClick(dialog.table, Qt.Key.Key_Return)
    assert not dialog.isVisible()
    assert ready.sent(UseAdapter) == [UseAdapter(path=str(pirate.path))]


def test_that_many_are_searched(dialog: AdaptersDialog, qtbot) -> None:
    for number in range(6):
        lib.in_library(f"Try {number}", method="ia3" if number % 2 else "lora")
    dialog._library.read()
    qtbot.waitUntil(lambda: dialog.search.isVisible())
    qtbot.keyClicks(dialog.search, "pira")
    assert names(dialog) == ["Pirate"]
    dialog.search.setText("ia³")
    assert len(names(dialog)) == 4
    dialog.search.setText("nothing like it")
    assert names(dialog) == []
    assert not dialog.act_button.isEnabled()
    assert not dialog.delete_button.isEnabled()


def test_that_an_adapter_is_imported_with_its_progress(ready: Bench, dialog: AdaptersDialog, tmp_path, qtbot) -> None:
    press(dialog, "import", qtbot)
    assert dialog.stack.currentIndex() == IMPORT
    assert not dialog.act_button.isEnabled()
    assert dialog.act_button.toolTip() == "Name the folder first."
    dialog.import_form.folder.setText(str(tmp_path / "hers"))
    assert dialog.import_form.name.placeholderText() == "hers"
    qtbot.keyClicks(dialog.import_form.name, "Hers")
    press(dialog, "act", qtbot)
    assert ready.job == ImportAdapter(source=str(tmp_path / "hers"), model="starter:chat", name="Hers")
    ready.say(Stage(text="Loading it once"))
    qtbot.waitUntil(lambda: dialog.import_form.work.stage.text() == "Loading it once")
    assert dialog.act_button.is_busy()
    assert not dialog.import_form.folder.isEnabled()
    assert dialog.back_button.text() == "Cancel"
    hers = lib.in_library("Hers")
    ready.say(AdapterAdded(path=str(hers.path), name="Hers", bytes=hers.bytes), Finished(outcome="completed"))
    qtbot.waitUntil(lambda: dialog.stack.currentIndex() == LIST)
    assert dialog.table.adapter() == hers
    assert dialog.problems.problems()[0].headline == "Hers is in the library."


def test_that_a_failed_import_says_why_and_offers_another_folder(
    ready: Bench, dialog: AdaptersDialog, tmp_path, monkeypatch, qtbot
) -> None:
    press(dialog, "import", qtbot)
    dialog.import_form.folder.setText("/nowhere")
    press(dialog, "act", qtbot)
    second = Problem(code="adapter.other", what="It was made for Qwen3-4B.")
    ready.say(Finished(outcome="failed", problems=(MISFIT, second)))
    qtbot.waitUntil(lambda: len(dialog.problems.problems()) == 2)
    assert dialog.stack.currentIndex() == IMPORT
    asked = "tunedesk.gui.dialogs._adapter_forms.QFileDialog.getExistingDirectory"
    monkeypatch.setattr(asked, lambda *_: str(tmp_path))
    press(dialog.problems, "action_choose", qtbot)  # type: ignore[arg-type]
    assert dialog.import_form.folder.text() == str(tmp_path)
    press(dialog, "back", qtbot)
    assert dialog.stack.currentIndex() == LIST
    assert dialog.problems.problems() == []


def test_that_loras_are_added_up_by_weight_and_others_say_why_not(ready: Bench, dialog: AdaptersDialog, qtbot) -> None:
    select(dialog, "Pirate")
    press(dialog, "combine", qtbot)
    assert dialog.stack.currentIndex() == COMBINE
    pirate, support, quiet = dialog.combine_form.rows
    assert not quiet.box.isEnabled()
    assert quiet.box.accessibleDescription() == "Only LoRA can be added up; this is IA³."
    assert pirate.taken
    assert dialog.act_button.toolTip() == "Tick two or more."
    qtbot.mouseClick(support.findChild(Label, "name"), LEFT)
    assert [row.number.value() for row in (pirate, support)] == [0.5, 0.5]
    assert dialog.combine_form.name.text() == "Pirate + Support"
    pirate.slider.setFocus()
    qtbot.keyClick(pirate.slider, Qt.Key.Key_Right)
    support.number.setValue(0.2)
    assert dialog.combine_form.sum.text() == "0.55 × Pirate + 0.20 × Support"
    dialog.combine_form.name.setText("Both")
    press(dialog, "act", qtbot)
    paths = (str(pirate.adapter.path), str(support.adapter.path))
    assert ready.job == CombineAdapters(adapters=paths, weights=(0.55, 0.2), name="Both")
    ready.say(Finished(outcome="failed", problems=(MISFIT,)))
    qtbot.waitUntil(lambda: dialog.problems.problems() != [])
    assert dialog.act_button.isEnabled()
    assert dialog.combine_form.name.text() == "Both"


def test_that_one_lora_alone_cannot_be_combined(dialog: AdaptersDialog, ready: Bench, pirate, qtbot) -> None:
    assert dialog.combine_button.isEnabled()
    ready.page.library.delete(pirate)
    qtbot.waitUntil(lambda: len(names(dialog)) == 2)
    assert not dialog.combine_button.isEnabled()
    assert dialog.combine_button.toolTip().startswith("Needs two LoRA adapters")


def test_that_an_export_lists_its_checks(ready: Bench, dialog: AdaptersDialog, tmp_path, qtbot) -> None:
    pirate = select(dialog, "Pirate")
    press(dialog, "export", qtbot)
    assert dialog.stack.currentIndex() == EXPORT
    assert Path(dialog.export_form.place.text()).name == "pirate-adapter"
    dialog.export_form.place.setText(str(tmp_path / "out"))
    press(dialog, "act", qtbot)
    assert ready.job == Export(adapter=str(pirate.path), to=str(tmp_path / "out"))
    ready.say(Checked(name="Written", passed=True, detail="9 files."), Stage(text="Comparing answers"))
    shown = dialog.export_form.checks
    qtbot.waitUntil(lambda: [item.title for item in shown.items()] == ["Written", "Comparing answers"])
    ready.say(Exported(path=str(tmp_path / "out"), bytes=9, sha256="ab" * 32), Finished(outcome="completed"))
    qtbot.waitUntil(lambda: dialog.problems.problems() != [])
    assert dialog.problems.problems()[0].headline == "Saved and checked."
    assert dialog.problems.problems()[0].actions == (("folder", "Show in folder"),)


def test_that_a_run_s_adapter_is_exported_as_its_run_and_replaces_only_when_told(
    ready: Bench, dialog: AdaptersDialog, tmp_path, qtbot
) -> None:
    select(dialog, "Support")
    press(dialog, "export", qtbot)
    dialog.export_form.place.setText(str(tmp_path / "out"))
    press(dialog, "act", qtbot)
    run = str(ready.own.path.parent)
    assert ready.job == Export(run=run, to=str(tmp_path / "out"))
    there = Problem(code="export.not_empty", what="The folder is not empty.")
    ready.say(Finished(outcome="failed", problems=(there,)))
    qtbot.waitUntil(lambda: dialog.problems.problems() != [])
    press(dialog.problems, "action_replace", qtbot)  # type: ignore[arg-type]
    assert ready.job == Export(run=run, to=str(tmp_path / "out"), replace=True)


def test_that_closing_gives_up_what_is_under_way(ready: Bench, dialog: AdaptersDialog, qtbot) -> None:
    press(dialog, "import", qtbot)
    dialog.import_form.folder.setText("/nowhere")
    press(dialog, "act", qtbot)
    dialog.reject()
    assert [command.kind for command in ready.sources[-1].sent] == ["stop"]
    ready.say(Finished(outcome="stopped"))
    qtbot.waitUntil(lambda: ready.page.library.work == "")


def test_that_an_empty_library_leads_to_the_import(bench: Bench, qtbot) -> None:
    bench.page.show()
    qtbot.mouseClick(bench.page.adapters_button, LEFT)
    found = bench.page.window().findChild(AdaptersDialog)
    qtbot.waitUntil(found.empty.isVisible)
    assert found.empty.sentence.text().startswith("A finished run of SmolLM2-135M-Instruct adds its adapter here")
    assert found.focusWidget() is found.import_button
    assert not found.rename_button.isEnabled()
    assert not found.act_button.isEnabled()


def _open(dialog: AdaptersDialog, place: int) -> None:
    {LIST: lambda: None, IMPORT: lambda: dialog._go(IMPORT), COMBINE: dialog._combine, EXPORT: dialog._export}[place]()
    if place == COMBINE:
        dialog.combine_form.take(dialog._library.adapters)
    for _ in range(3):
        QApplication.processEvents()


@pytest.mark.parametrize("place", [LIST, IMPORT, COMBINE, EXPORT])
def test_that_everything_has_a_name_can_be_reached_and_is_read_whole(dialog: AdaptersDialog, place: int) -> None:
    _open(dialog, place)
    kinds = (QAbstractButton, QLineEdit, QAbstractSpinBox, QSlider)
    found = [item for kind in kinds for item in dialog.findChildren(kind) if item.isVisible()]
    controls = [item for item in found if item.objectName() != "qt_spinbox_lineedit"]
    assert len(controls) > 3
    for item in controls:
        assert item.objectName(), item
        assert item.accessibleName(), item.objectName()
        assert item.focusPolicy() & Qt.FocusPolicy.TabFocus or not item.isEnabled(), item.objectName()
    assert cut_labels(dialog) == []
    assert list_adapters("starter:chat")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_that_adapters_are_imported_combined_and_heard_on_one_loaded_base(
    session: QuietSession, qtbot, tmp_path: Path
) -> None:
    """The real engine: four voices on one base that is loaded once, each with an answer of its own."""
    from tests.engine.models import tiny_adapter, tiny_model, tiny_run

    model = tiny_model(tmp_path / "model")
    made_elsewhere = tiny_adapter(model, tmp_path / "elsewhere", seed=7)
    runs_dir().mkdir(parents=True)
    run = tiny_run(runs_dir() / "tiny", model)
    settle(session, smollm(source=str(model), path=str(model), name="Tiny"))
    session.run = run
    spec = session.project.spec.model_copy(update={"name": "A tiny run"})
    session.project = replace(session.project, spec=spec, run=reduce_all(made.completed()))
    session.change_settings(sampling=Sampling(temperature=0, max_new_tokens=12))
    chat = ChatSession()
    page = TryPage(session, chat)
    qtbot.addWidget(page)
    told: list[Event] = []
    try:
        page.show()
        assert chat._thread is not None
        chat._thread.worker.events.connect(told.extend, Qt.ConnectionType.DirectConnection)
        page.picker.manage()
        dialog = page.window().findChild(AdaptersDialog)
        qtbot.waitUntil(lambda: names(dialog) == ["A tiny run"])
        press(dialog, "import", qtbot)
        dialog.import_form.folder.setText(str(made_elsewhere))
        dialog.import_form.name.setText("Elsewhere")
        press(dialog, "act", qtbot)
        qtbot.waitUntil(lambda: dialog.stack.currentIndex() == LIST, timeout=90_000)
        assert dialog.table.adapter().name == "Elsewhere", dialog.problems.problems()
        press(dialog, "combine", qtbot)
        dialog.combine_form.take(page.library.adapters)
        dialog.combine_form.name.setText("Both")
        press(dialog, "act", qtbot)
        qtbot.waitUntil(lambda: dialog.stack.currentIndex() == LIST, timeout=90_000)
        assert dialog.table.adapter().name == "Both", dialog.problems.problems()
        dialog.reject()
        qtbot.waitUntil(lambda: chat.can_ask, timeout=90_000)
        page.composer.setPlainText("Where is my order?")
        page.send()
        for name in ("Elsewhere", "Both", "A tiny run"):
            qtbot.waitUntil(lambda: chat.can_ask, timeout=60_000)
            page.picker.pick(next(item for item in page.picker.adapters() if item.name == name))
            qtbot.waitUntil(lambda: chat.can_ask, timeout=60_000)
            assert chat.problems == ()
            qtbot.mouseClick(page._turns[-1].question.again, LEFT)
        qtbot.waitUntil(lambda: chat.can_ask, timeout=60_000)
        said = [turn.answers["tuned"].text for turn in chat.turns]
        assert [turn.answers["tuned"].voice.name for turn in chat.turns] == [
            "A tiny run",
            "Elsewhere",
            "Both",
            "A tiny run",
        ]
        assert said[0] == said[3]
        assert len({*said, chat.turns[0].answers["base"].text}) == 4
        assert sum(isinstance(event, ChatReady) for event in told) == 1
        assert sum(isinstance(event, AdapterUsed) for event in told) == 3
    finally:
        page.hide()
        chat.shut_down()
        page.library.shut_down()
