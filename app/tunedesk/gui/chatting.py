"""A conversation with the base model and the tuned one: owns the chat engine, keeps the turns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from PySide6.QtCore import QObject, Signal

from tunedesk.core.client import EngineProcess
from tunedesk.core.events import (
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
)
from tunedesk.core.paths import cache_dir
from tunedesk.core.problems import Problem
from tunedesk.gui.worker import EngineWorker, EventSource, WorkerThread

Status = Literal["idle", "loading", "ready", "answering", "failed"]


@dataclass
class Answer:
    """One side's answer; `tokens` and `seconds` are known once it is whole (`ended`).

    A classifier's `text` is the likeliest label, `labels` are all of them.
    """

    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    ended: Literal["", "stop_token", "length", "stopped"] = ""
    labels: tuple[LabelShare, ...] = ()


@dataclass
class Turn:
    """A question and the answers of the sides that were asked."""

    question: str
    answers: dict[Side, Answer] = field(default_factory=dict)


class ChatSession(QObject):
    """One loaded base, with or without an adapter; each side sees only its own earlier answers."""

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
        self._id = 0
        self._shut = False
        self._thread: WorkerThread | None = None
        self._leaving: set[WorkerThread] = set()

    def open(self, run: str | None, model: str | None) -> None:
        """Load a run's base with its adapter, or a model alone; without effect when it is loaded already."""
        if self._shut or (self.target == (run, model) and self.status not in ("idle", "failed")):
            return
        self._leave()
        other, self.target = self.target != (run, model), (run, model)
        source = EngineProcess(Chat(run=run, model=model), cache_dir() / "logs" / "chat.log")
        self._watch(source)
        if other:
            self.turns.clear()
            self.turns_changed.emit()

    def _watch(self, source: EventSource) -> None:
        self.problems, self.ready = (), None
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
    def can_ask(self) -> bool:
        """Whether a question may be asked now."""
        return self.status == "ready"

    def ask(self, question: str, sides: tuple[Side, ...], system: str, sampling: Sampling) -> None:
        """Put a question to each of `sides`."""
        if not self.can_ask or self._thread is None:
            return
        conversations = {side: self.conversation(side, question, system) for side in sides}
        self.turns.append(Turn(question, {side: Answer() for side in sides}))
        self._id += 1
        self._thread.worker.send(Ask(id=self._id, conversations=conversations, sampling=sampling))
        self.turns_changed.emit()
        self._set("answering")

    def conversation(self, side: Side, question: str, system: str) -> tuple[Message, ...]:
        """What `side` is sent: the instructions, what it was asked and said before, and the question.

        A classifier is sent the text alone.
        """
        if self.labels:
            return (Message(role="user", content=question),)
        messages = [Message(role="system", content=system)] if system.strip() else []
        for turn in self.turns:
            answer = turn.answers.get(side)
            if answer and answer.text:
                messages.append(Message(role="user", content=turn.question))
                messages.append(Message(role="assistant", content=answer.text))
        return (*messages, Message(role="user", content=question))

    def stop(self) -> None:
        """Cut the answer short; sides that have not begun stay without one."""
        if self.status == "answering" and self._thread:
            self._thread.worker.send(StopAnswer())

    def new_chat(self) -> None:
        """Forget the conversation; the model stays loaded."""
        self.stop()
        self.turns.clear()
        self.turns_changed.emit()

    def close(self) -> None:
        """End the engine and free its memory. Never waits."""
        self._leave()
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
                self.ready = event
                self._set("ready")
            case Asked(problems=problems):
                self.problems = problems
                self._drop_silent_turn(bool(problems))
                self._set("ready")
            case Finished(problems=problems):
                self.problems = problems
                self._set("failed" if problems else "idle")

    def _drop_silent_turn(self, failed: bool) -> None:
        """A question that could not be answered at all leaves the conversation."""
        if failed and self.turns and not any(answer.text for answer in self.turns[-1].answers.values()):
            self.turns.pop()
            self.turns_changed.emit()
