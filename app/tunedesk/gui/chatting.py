"""A conversation with the base model and the tuned one: owns the chat engine, keeps the turns."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Literal

from PySide6.QtCore import QObject, Signal

from tunedesk.core.client import EngineProcess
from tunedesk.core.events import (
    AdapterUsed,
    Ask,
    Asked,
    Chat,
    ChatAnswer,
    ChatDelta,
    ChatReady,
    Event,
    Finished,
    LabelShare,
    Message,
    Progress,
    Sampling,
    Side,
    Stage,
    StopAnswer,
    UseAdapter,
)
from tunedesk.core.paths import cache_dir
from tunedesk.core.problems import Problem
from tunedesk.gui.worker import EngineWorker, EventSource, WorkerThread

Status = Literal["idle", "loading", "ready", "answering", "failed"]

_ANSWERING = ("sides", "context_length", "has_chat_template", "labels", "problem_type")
"""What `AdapterUsed` tells in the words of `ChatReady`."""

_chains = itertools.count(1)


@dataclass(frozen=True)
class Voice:
    """The adapter of the tuned side: its folder and what people call it.

    `path` is None for the run's own until the engine has named its folder.
    """

    path: str | None
    name: str


@dataclass
class Answer:
    """One side's answer; `tokens` and `seconds` are known once it is whole (`ended`).

    A classifier's `text` is the likeliest label, `labels` are all of them; or it gave a `number`. `voice` is the
    adapter that gave it.
    """

    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    ended: Literal["", "stop_token", "length", "stopped"] = ""
    labels: tuple[LabelShare, ...] = ()
    number: float | None = None
    voice: Voice | None = None


@dataclass
class Turn:
    """A question and the answers of the sides that were asked. A question that is asked again keeps its `chain`."""

    question: str
    answers: dict[Side, Answer] = field(default_factory=dict)
    system: str = ""
    sampling: Sampling | None = None
    chain: int = field(default_factory=_chains.__next__)


class ChatSession(QObject):
    """One loaded base, with or without an adapter; each side, and each adapter, sees only its own earlier answers."""

    status_changed = Signal()
    turns_changed = Signal()
    """A turn was added, or all were removed."""
    answer_changed = Signal(str)
    """The last turn's answer of this side has grown or is whole."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.status: Status = "idle"
        self.stage = ""
        self.progress: Progress | None = None
        self.ready: ChatReady | None = None
        self.problems: tuple[Problem, ...] = ()
        self.turns: list[Turn] = []
        self.target: tuple[str | None, str | None] = (None, None)
        self.alone = False
        """Whether each text is sent without those before it, as to a model that turns one text into another."""
        self.voice: Voice | None = None
        """The adapter on the tuned side, or the one that is loaded with the model."""
        self.coming: Voice | None = None
        """The adapter that will take its place in a moment."""
        self.own: str | None = None
        """The folder of the run's own adapter, once it was loaded."""
        self._id = 0
        self._shut = False
        self._thread: WorkerThread | None = None
        self._leaving: set[WorkerThread] = set()

    def open(self, run: str | None, model: str | None, voice: Voice | None = None) -> None:
        """Load a run's base with its adapter, or a model alone, or either with the adapter of `voice`.

        What is loaded already stays, and only the adapter changes.
        """
        if self._shut:
            return
        if self.target == (run, model) and self.status not in ("idle", "failed"):
            if voice is not None and voice.path is not None:
                self.use(voice)
            return
        self._leave()
        other, self.target = self.target != (run, model), (run, model)
        self.own = None if other else self.own
        self.voice = voice
        path = voice.path if voice and voice.path != self.own else None
        self._watch(EngineProcess(Chat(run=run, model=model, adapter=path), cache_dir() / "logs" / "chat.log"))
        if other:
            self._forget_turns()

    def use(self, voice: Voice | None) -> None:
        """Put another adapter on the loaded base; None leaves the base alone. `coming` until the engine has done it."""
        loaded = self.status in ("ready", "answering") and self.coming is None
        if not loaded or self._thread is None or _path(voice) == _path(self.voice):
            return
        self.problems = ()
        self.coming = voice or Voice(None, "")
        self._thread.worker.send(UseAdapter(path=voice.path if voice else None))
        self.status_changed.emit()

    def _watch(self, source: EventSource) -> None:
        self.problems, self.ready, self.coming = (), None, None
        self._set("loading", self.tr("Starting"))
        worker = EngineWorker(source)
        worker.events.connect(self._on_events)
        thread = WorkerThread(worker, self)
        thread.done.connect(self._on_done)
        self._thread = thread
        thread.start()

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the loaded model gives; none of a model that writes."""
        return self.ready.labels if self.ready else ()

    @property
    def gives_labels(self) -> bool:
        """Whether the loaded model gives labels or numbers and writes nothing."""
        return self.ready is not None and (bool(self.ready.labels) or self.ready.problem_type is not None)

    @property
    def can_ask(self) -> bool:
        """Whether a question may be asked now."""
        return self.status == "ready" and self.coming is None

    def ask(self, question: str, sides: tuple[Side, ...], system: str, sampling: Sampling) -> None:
        """Put a question to each of `sides`."""
        if self.can_ask:
            self._put(Turn(question, {}, system, sampling), sides, sampling)

    def ask_again(self, sides: tuple[Side, ...], system: str, sampling: Sampling) -> None:
        """Put the last question again, as if for the first time; what the original said of it is kept if it holds."""
        if not self.can_ask or not self.turns:
            return
        last = self.turns[-1]
        turn = Turn(last.question, {}, system, sampling, last.chain)
        said = last.answers.get("base")
        same = (last.system, last.sampling) == (system, sampling)
        if said and said.ended in ("stop_token", "length") and same and sides == ("base", "tuned"):
            turn.answers["base"] = said
        self._put(turn, tuple(side for side in sides if side not in turn.answers), sampling)

    def _put(self, turn: Turn, sides: tuple[Side, ...], sampling: Sampling) -> None:
        if self._thread is None:
            return
        conversations = {side: self.conversation(side, turn.question, turn.system, but=turn.chain) for side in sides}
        turn.answers |= {side: Answer(voice=self.voice if side == "tuned" else None) for side in sides}
        self.turns.append(turn)
        self._id += 1
        self._thread.worker.send(Ask(id=self._id, conversations=conversations, sampling=sampling))
        self.turns_changed.emit()
        self._set("answering")

    def conversation(self, side: Side, question: str, system: str, but: int = 0) -> tuple[Message, ...]:
        """What `side` is sent: the instructions, what it was asked and said before, and the question.

        Of a question that was asked several times only the last answer counts; the chain `but` is left out. A
        classifier is sent the text alone, and so is a model that turns one text into another.
        """
        if self.gives_labels or self.alone:
            return (Message(role="user", content=question),)
        said: dict[int, tuple[str, str]] = {}
        for turn in self.turns:
            answer = turn.answers.get(side)
            if answer and answer.text and turn.chain != but and (side == "base" or self._is_own(answer)):
                said[turn.chain] = (turn.question, answer.text)
        messages = [Message(role="system", content=system)] if system.strip() else []
        for asked, answered in said.values():
            messages += [Message(role="user", content=asked), Message(role="assistant", content=answered)]
        return (*messages, Message(role="user", content=question))

    def _is_own(self, answer: Answer) -> bool:
        """Whether the adapter of the moment gave this answer."""
        return _path(answer.voice) == _path(self.voice)

    def stop(self) -> None:
        """Cut the answer short; sides that have not begun stay without one."""
        if self.status == "answering" and self._thread:
            self._thread.worker.send(StopAnswer())

    def new_chat(self) -> None:
        """Forget the conversation; the model stays loaded."""
        self.stop()
        self._forget_turns()

    def _forget_turns(self) -> None:
        self.turns.clear()
        self.turns_changed.emit()

    def close(self) -> None:
        """End the engine and free its memory. Never waits."""
        self._leave()
        self.voice = self.coming = None
        if self.status != "idle":
            self._set("idle")

    def _leave(self) -> None:
        thread, self._thread = self._thread, None
        if thread:
            self._leaving.add(thread)
            thread.worker.kill()
            thread.worker.let_go()

    def shut_down(self) -> None:
        """`close` for good, and wait for the threads. The page, still on screen, may ask for the model: in vain."""
        self._shut = True
        self.close()
        for thread in list(self._leaving):
            thread.close()

    def _set(self, status: Status, stage: str = "") -> None:
        self.status, self.stage, self.progress = status, stage, None
        self.status_changed.emit()

    def _on_done(self) -> None:
        thread = self.sender()
        if isinstance(thread, WorkerThread):
            self._leaving.discard(thread)
            if thread is self._thread:
                self._thread = None
            thread.deleteLater()

    def _on_events(self, events: list[Event]) -> None:
        if self._thread is None or self.sender() is not self._thread.worker:
            return
        grown: dict[str, None] = {}
        for event in events:
            match event:
                case ChatDelta(side=side) | ChatAnswer(side=side):
                    if self._take(event):
                        grown[side] = None
                case _:
                    self._take_other(event)
        for name in grown:
            self.answer_changed.emit(name)

    def _take(self, event: ChatDelta | ChatAnswer) -> bool:
        """Add to the last turn's answer; words for a conversation that is gone are dropped."""
        answer = self.turns[-1].answers.get(event.side) if self.turns and event.id == self._id else None
        if answer is None:
            return False
        if isinstance(event, ChatDelta):
            answer.text += event.text
        else:
            answer.text, answer.ended = event.text, event.ended
            answer.tokens, answer.seconds, answer.labels = len(event.token_ids), event.seconds, event.labels
            answer.number = event.number
        return True

    def _take_other(self, event: Event) -> None:
        match event:
            case Stage(text=text):
                if self.status == "loading":
                    self._set("loading", text)
            case Progress():
                self.progress = event
                self.status_changed.emit()
            case ChatReady():
                self._take_ready(event)
            case AdapterUsed():
                self._take_adapter(event)
            case Asked(problems=problems):
                self.problems = problems
                self._drop_silent_turn(bool(problems))
                self._set("ready")
            case Finished(problems=problems):
                self.problems, self.coming = problems, None
                self._set("failed" if problems else "idle")

    def _drop_silent_turn(self, failed: bool) -> None:
        """A question that could not be answered at all leaves the conversation."""
        if not failed or not self.turns:
            return
        kept = [id(answer) for turn in self.turns[:-1] for answer in turn.answers.values()]
        if not any(answer.text for answer in self.turns[-1].answers.values() if id(answer) not in kept):
            self.turns.pop()
            self.turns_changed.emit()

    def _take_ready(self, ready: ChatReady) -> None:
        self.ready = ready
        if self.target[0] and (self.voice is None or self.voice.path is None):
            self.own = ready.adapter
        if ready.adapter is not None:
            self.voice = Voice(ready.adapter, self.voice.name if self.voice else "")
        self._set("ready")

    def _take_adapter(self, used: AdapterUsed) -> None:
        """Take what answers now; another kind of answers begins another conversation."""
        coming, self.coming = self.coming, None
        self.problems = used.problems
        if self.ready is not None:
            before = self.ready
            facts = {name: getattr(used, name) for name in _ANSWERING}
            self.ready = before.model_copy(update={**facts, "adapter": used.path})
            if (bool(before.labels), before.problem_type) != (bool(used.labels), used.problem_type):
                self._forget_turns()
        if used.path != _path(self.voice):
            self.voice = replace(coming, path=used.path) if coming and used.path and not used.problems else None
        self.status_changed.emit()


def _path(voice: Voice | None) -> str | None:
    return voice.path if voice else None
