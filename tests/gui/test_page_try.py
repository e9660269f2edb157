"""The Try page: questions go to the chat engine, answers come back side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import run_samples as made
from PySide6.QtCore import Qt
from run_samples import FakeSource
from samples import QuietSession, settle

from tunedesk.core.events import Ask, Asked, ChatAnswer, ChatDelta, Event, Finished, Message, Side, Stage, StopAnswer
from tunedesk.core.problems import Problem
from tunedesk.core.runs import RunFolder
from tunedesk.core.state import reduce_all
from tunedesk.gui.chatting import ChatSession
from tunedesk.gui.pages.try_ import TryPage
from tunedesk.gui.widgets import Button, Label


class Bench:
    """A page with a chat whose engine is played by the test."""

    def __init__(self, session: QuietSession, monkeypatch: pytest.MonkeyPatch) -> None:
        self.session = session
        self.sources: list[FakeSource] = []
        monkeypatch.setattr("tunedesk.gui.chatting.EngineProcess", self._engine)
        self.chat = ChatSession()
        self.page = TryPage(session, self.chat)
        self.page.resize(1048, 800)

    def _engine(self, job: object, log: Path) -> FakeSource:  # noqa: ARG002
        source = FakeSource()
        source.job = job  # type: ignore[attr-defined]
        self.sources.append(source)
        return source

    @property
    def source(self) -> FakeSource:
        return self.sources[-1]

    def say(self, *events: Event) -> None:
        self.source.events.extend(made.stamped(events))

    def label(self, name: str, within: object = None) -> str:
        return (within or self.page).findChild(Label, name).text()  # type: ignore[attr-defined]

    def button(self, name: str) -> Button:
        return self.page.findChild(Button, name)

    def asked(self) -> list[Ask]:
        return [command for command in self.source.sent if isinstance(command, Ask)]

    def end_run(self) -> None:
        self.session.run = RunFolder(Path("/runs/done"))
        self.session.project = replace(self.session.project, run=reduce_all(made.completed()))


def answer(number: int, side: Side, text: str, *, tokens: int = 5) -> ChatAnswer:
    ids = tuple(range(tokens))
    return ChatAnswer(id=number, side=side, text=text, token_ids=ids, seconds=0.5, ended="stop_token")


@pytest.fixture
def bench(session: QuietSession, qtbot, monkeypatch) -> Iterator[Bench]:
    settle(session)
    bench = Bench(session, monkeypatch)
    qtbot.addWidget(bench.page)
    yield bench
    bench.page.hide()
    bench.chat.shut_down()


@pytest.fixture
def ready(bench: Bench, qtbot) -> Bench:
    """Both sides are loaded."""
    bench.end_run()
    bench.page.show()
    bench.say(made.chat_ready())
    qtbot.waitUntil(lambda: bench.chat.can_ask)
    return bench


def test_that_without_a_run_it_explains_and_offers_the_original(bench: Bench, qtbot) -> None:
    bench.page.show()
    assert bench.sources == []
    assert bench.page.empty.title.text() == "Nothing is tuned yet"
    qtbot.mouseClick(bench.button("tryBase"), Qt.MouseButton.LeftButton)
    assert bench.source.job.model == "starter:chat"  # type: ignore[attr-defined]
    bench.say(made.chat_ready(tuned=False))
    qtbot.waitUntil(lambda: bench.chat.can_ask)
    assert bench.page.sides == ("base",)
    assert not bench.page.heads["tuned"].isVisible()
    assert bench.page.modes.current() == "base"


def test_that_a_run_in_training_is_not_disturbed(bench: Bench) -> None:
    bench.session.run = RunFolder(Path("/runs/live"))
    bench.session.project = replace(bench.session.project, run=reduce_all(made.running()))
    bench.page.show()
    assert bench.sources == []
    assert bench.page.empty.title.text() == "The run is still training"
    assert not bench.button("tryBase").isVisible()


def test_that_an_ended_run_is_loaded_with_its_stages(bench: Bench, qtbot) -> None:
    bench.end_run()
    bench.page.show()
    assert bench.source.job.run == "/runs/done"  # type: ignore[attr-defined]
    bench.say(Stage(text="Attaching the adapter"))
    qtbot.waitUntil(lambda: bench.label("stage") == "Attaching the adapter")
    assert not bench.button("send").isEnabled()
    assert bench.label("loss", bench.page.heads["tuned"]).startswith("Held-out loss 1.1")
    assert bench.label("what", bench.page.heads["tuned"]) == "Support LoRA, step 120"


def test_that_first_questions_come_from_the_data_and_are_asked_by_a_click(ready: Bench, qtbot) -> None:
    first = "My parcel HF-20401 says delivered, but there is nothing here. What now?"
    assert ready.button("suggestion_0").text() == first
    qtbot.mouseClick(ready.button("suggestion_0"), Qt.MouseButton.LeftButton)
    asked = ready.asked()[0]
    assert asked.conversations == {side: (Message(role="user", content=first),) for side in ("base", "tuned")}
    assert not ready.page.suggestions.isVisible()


def test_that_enter_sends_and_shift_enter_does_not(ready: Bench, qtbot) -> None:
    composer = ready.page.composer
    qtbot.keyClicks(composer, "Hello")
    qtbot.keyClick(composer, Qt.Key.Key_Return, Qt.KeyboardModifier.ShiftModifier)
    qtbot.keyClicks(composer, "Marlow")
    assert composer.toPlainText() == "Hello\nMarlow"
    qtbot.keyClick(composer, Qt.Key.Key_Return)
    assert composer.toPlainText() == ""
    assert ready.asked()[0].conversations["base"][-1].content == "Hello\nMarlow"


def test_that_answers_stream_and_end_with_their_numbers(ready: Bench, qtbot) -> None:
    ready.page.composer.setPlainText("Hello")
    ready.page.send()
    turn = ready.page._turns[0]
    ready.say(ChatDelta(id=1, side="base", text="I am "))
    qtbot.waitUntil(lambda: "I am" in turn.cards["base"].words.text())
    assert "|</span>" in turn.cards["base"].words.text()
    assert turn.cards["base"].count.text() == "Writing"
    assert turn.cards["tuned"].count.text() == "Waits for its turn"
    assert ready.button("stopAnswer").isVisible()
    ready.say(answer(1, "base", "I am here.", tokens=71), answer(1, "tuned", "Ahoy."), Asked(id=1))
    qtbot.waitUntil(lambda: ready.chat.can_ask)
    assert turn.cards["base"].count.text() == "71 tokens"
    assert turn.cards["base"].speed.text() == "142 tokens/s"
    assert "|</span>" not in turn.cards["tuned"].words.text()
    assert ready.session.project.tried


def test_that_each_side_sees_only_its_own_earlier_answers(ready: Bench, qtbot) -> None:
    ready.page.composer.setPlainText("One")
    ready.page.send()
    ready.say(answer(1, "base", "B1"), answer(1, "tuned", "T1"), Asked(id=1))
    qtbot.waitUntil(lambda: ready.chat.can_ask)
    qtbot.mouseClick(ready.page.modes.findChild(object, "segment_tuned"), Qt.MouseButton.LeftButton)
    ready.page.composer.setPlainText("Two")
    ready.page.send()
    assert list(ready.asked()[1].conversations) == ["tuned"]
    ready.say(answer(2, "tuned", "T2"), Asked(id=2))
    qtbot.waitUntil(lambda: ready.chat.can_ask)
    qtbot.mouseClick(ready.page.modes.findChild(object, "segment_both"), Qt.MouseButton.LeftButton)
    ready.page.composer.setPlainText("Three")
    ready.page.send()
    said = {side: [m.content for m in talk] for side, talk in ready.asked()[2].conversations.items()}
    assert said == {"base": ["One", "B1", "Three"], "tuned": ["One", "T1", "Two", "T2", "Three"]}
    assert ready.page._turns[1].cards["base"].count.text() == "Not asked"


def test_that_stop_is_sent_and_a_new_chat_forgets(ready: Bench, qtbot) -> None:
    ready.page.composer.setPlainText("One")
    ready.page.send()
    qtbot.mouseClick(ready.button("stopAnswer"), Qt.MouseButton.LeftButton)
    assert isinstance(ready.source.sent[-1], StopAnswer)
    ready.say(answer(1, "base", "B"), answer(1, "tuned", ""), Asked(id=1))
    qtbot.waitUntil(lambda: ready.chat.can_ask)
    qtbot.mouseClick(ready.button("newChat"), Qt.MouseButton.LeftButton)
    assert ready.page._turns == []
    assert ready.page.suggestions.isVisible()


def test_that_words_for_a_chat_that_is_gone_are_dropped(ready: Bench, qtbot) -> None:
    ready.page.composer.setPlainText("One")
    ready.page.send()
    ready.chat.new_chat()
    ready.say(ChatDelta(id=1, side="base", text="late"), Asked(id=1))
    qtbot.waitUntil(lambda: ready.chat.can_ask)
    assert ready.chat.turns == []


def test_that_sampling_and_instructions_are_sent_and_remembered(ready: Bench) -> None:
    page = ready.page
    page.bar.temperature.setValue(0)
    page.bar.at_most.setValue(40)
    page.bar.seed.setValue(7)
    page.bar.more.top_k.setValue(20)
    page.bar.instructions.text.setPlainText("Be brief.")
    assert page.bar.prompt_button.text() == "Instructions on"
    page.composer.setPlainText("One")
    page.send()
    asked = ready.asked()[0]
    assert asked.conversations["tuned"][0] == Message(role="system", content="Be brief.")
    assert (asked.sampling.temperature, asked.sampling.max_new_tokens, asked.sampling.seed) == (0, 40, 7)
    assert asked.sampling.top_k == 20
    assert ready.session.settings.sampling == asked.sampling
    assert ready.session.settings.system_prompt == "Be brief."


def test_that_a_question_that_cannot_be_answered_leaves_the_conversation(ready: Bench, qtbot) -> None:
    ready.page.composer.setPlainText("One")
    ready.page.send()
    ready.say(Asked(id=1, problems=(Problem(code="chat.long", what="The conversation is too long."),)))
    qtbot.waitUntil(lambda: ready.chat.can_ask)
    assert ready.page.problems.problems()[0].headline == "The conversation is too long."
    assert ready.page._turns == []


def test_that_closing_the_window_on_this_page_starts_no_other_engine(ready: Bench) -> None:
    ready.chat.shut_down()
    assert len(ready.sources) == 1
    assert ready.source.killed


def test_that_a_dead_engine_is_explained_and_can_be_started_again(ready: Bench, qtbot) -> None:
    gone = Problem(code="engine.killed", what="The training process was ended from outside.")
    ready.say(Finished(outcome="failed", problems=(gone,)))
    qtbot.waitUntil(lambda: ready.chat.status == "failed")
    assert ready.page.problems.problems()[0].headline == gone.what
    qtbot.mouseClick(ready.page.problems.findChild(Button, "action_retry"), Qt.MouseButton.LeftButton)
    assert len(ready.sources) == 2
    assert ready.chat.status == "loading"
