"""The job that answers questions: one loaded base, and one adapter at a time on it."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any, Literal

from tunedesk.core.adapters import same_base
from tunedesk.core.describe import ModelInfo
from tunedesk.core.events import (
    AdapterUsed,
    Ask,
    Asked,
    Chat,
    ChatAnswer,
    ChatDelta,
    ChatReady,
    Close,
    Command,
    Message,
    ModelDescribed,
    Notice,
    Side,
    Stage,
    Stop,
    StopAnswer,
    UseAdapter,
)
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.core.runs import RunFolder, open_run
from tunedesk.engine import inference
from tunedesk.engine.channel import Channel
from tunedesk.engine.classify import classify
from tunedesk.engine.generate import Answer, encode_prompt, encode_source, generate_answer
from tunedesk.engine.label_head import read_head
from tunedesk.engine.saved import origin_of
from tunedesk.engine.sources import resolve
from tunedesk.engine.switchboard import Switchboard, Voices


def chat(job: Chat, channel: Channel) -> Literal["completed", "stopped"]:
    """Load, emit `ChatReady`, then answer each `Ask` until `Close`, `Stop` or the end of the input.

    `Close` and the end of the input take effect after the questions that came before them. Raises `ProblemError` when
    there is nothing to load; a question that cannot be answered ends in `Asked` with its problems instead.
    """
    board = open_board(job, channel)
    channel.emit(_ready(board.voices))
    waiting: deque[Command] = deque()
    while not channel.stop_asked:
        command = waiting.popleft() if waiting else channel.take(timeout=None)
        match command:
            case Ask():
                _answer_all(command, board.voices, channel, waiting)
            case UseAdapter():
                channel.emit(_switch(command, board))
            case Stop():
                break
            case None | Close():
                return "completed"
            case _:
                pass  # a StopAnswer that came after its answer had ended
    return "stopped"


def open_board(job: Chat, channel: Channel) -> Switchboard:
    """Load what `job` names, and put its adapter to use. Raises `ProblemError`."""
    run = open_run(job.run) if job.run else None
    found = inference.find_adapter(run) if run and not job.adapter else None
    stated = Path(job.adapter).expanduser().absolute() if job.adapter else None
    folder = stated or (found.path if found else None)
    origin = origin_of(folder) if folder else None
    source = job.model or (run.spec().model.source if run else None) or (origin.base if origin else None)
    if source is None:
        raise ProblemError(
            Problem(code="chat.nothing", what="There is nothing to talk to.", fix="Name a run or a model.")
        )
    revision = origin.revision if origin and origin.base and same_base(source, origin.base) else None
    info = resolve(source, revision, channel)
    channel.emit(ModelDescribed(info=info))
    head = read_head(folder) if folder else None
    if (info.kind not in ("decoder", "seq2seq") and not head) or info.path is None:
        raise ProblemError(_cannot_write_text(info))
    channel.emit(Stage(text="Loading the model"))
    from tunedesk.engine import loading  # only now: what is wrong so far is told before torch is imported

    place = inference.pick_device(origin.run.spec().training.device if origin and origin.run else "auto")
    storage = inference.choose_format(info, loading.torch_device(place))
    if storage != "stored":
        channel.emit(Notice(level="warn", text=_SQUEEZED[storage]))
    board = Switchboard(info, place, storage, channel, head)
    if folder:
        channel.emit(Stage(text="Attaching the adapter"))
    board.use(folder)
    if run and found:
        _say_which(run, found, channel)
    return board


def _ready(voices: Voices) -> ChatReady:
    from tunedesk.engine.loading import weight_bytes

    return ChatReady(
        device=voices.device,
        precision=voices.precision,
        model=voices.info.name,
        weight_bytes=weight_bytes(voices.model),
        adapter=str(voices.adapter) if voices.adapter else None,
        **_saying(voices),
    )


def _switch(command: UseAdapter, board: Switchboard) -> AdapterUsed:
    """Put another adapter to use; what answers afterwards, or why nothing changed."""
    problems: tuple[Problem, ...] = ()
    try:
        board.use(Path(command.path).expanduser().absolute() if command.path is not None else None)
    except ProblemError as error:
        problems = error.problems
    voices = board.voices
    return AdapterUsed(path=str(voices.adapter) if voices.adapter else None, problems=problems, **_saying(voices))


def _saying(voices: Voices) -> dict[str, Any]:
    """What `ChatReady` and `AdapterUsed` both say."""
    return {
        "sides": voices.sides,
        "context_length": voices.info.context_length,
        "has_chat_template": not voices.plain,
        "labels": voices.head.labels if voices.head else (),
        "problem_type": voices.head.problem_type if voices.head else None,
    }


_SQUEEZED = {
    "bf16": "The 32-bit weights do not fit in the free memory; they are loaded with 16 bits.",
    "nf4": "The weights do not fit in the free memory; they are loaded with 4 bits, so answers may differ a little.",
}


def _say_which(run: RunFolder, adapter: inference.FoundAdapter, channel: Channel) -> None:
    if adapter.step is not None:
        text = f"The run did not finish. The tuned side is its checkpoint of step {adapter.step}."
        channel.emit(Notice(level="warn", text=text, step=adapter.step))
    elif run.alive():
        channel.emit(Notice(text="The run is still training. The tuned side is the adapter that it saved last."))


def _cannot_write_text(info: ModelInfo) -> Problem:
    reads = {"encoder": "It reads text but writes none (an encoder)."}
    return Problem(
        code="chat.not_a_decoder",
        what=f"{info.name} cannot hold a conversation.",
        found=reads.get(info.kind, f"Its architecture is {info.architecture or 'unknown'}."),
        fix="Choose a model that writes text, such as starter:chat.",
    )


def _answer_all(ask: Ask, voices: Voices, channel: Channel, waiting: deque[Command]) -> None:
    """Answer every conversation of `ask`; once cut short, the sides that are left get an empty answer."""
    cut = False

    def stop_asked() -> bool:
        nonlocal cut
        while (command := channel.take()) is not None:
            if isinstance(command, StopAnswer):
                cut = True
            else:
                waiting.append(command)
        cut = cut or channel.stop_asked
        return cut

    problems: list[Problem] = []
    for side in sorted(ask.conversations):
        if cut or stop_asked():
            answer = Answer("", (), 0.0, "stopped")
        else:
            try:
                answer = _answer(ask, side, voices, channel, stop_asked)
            except ProblemError as error:
                problems += [item for item in error.problems if item not in problems]
                continue
        channel.emit(
            ChatAnswer(
                id=ask.id,
                side=side,
                text=answer.text,
                token_ids=answer.token_ids,
                seconds=answer.seconds,
                ended=answer.ended,
                labels=answer.labels,
                number=answer.number,
            )
        )
    channel.emit(Asked(id=ask.id, problems=tuple(problems)))


def _answer(ask: Ask, side: Side, voices: Voices, channel: Channel, stop_asked: Any) -> Answer:
    if side not in voices.sides and voices.head:
        raise ProblemError(
            Problem(
                code="chat.no_labels",
                what="The untouched model knows no labels or numbers: there is nothing to compare with.",
                fix="Ask the tuned side.",
            )
        )
    if side not in voices.sides:
        raise ProblemError(
            Problem(
                code="chat.no_adapter",
                what="There is no tuned side: only a model was loaded, no run.",
                fix="Open a run to hear its adapter.",
            )
        )
    messages: tuple[Message, ...] = ask.conversations[side]
    if voices.head:
        texts = [message.content for message in messages if message.role == "user"]
        return classify(voices.model, voices.tokenizer, texts, voices.head, voices.info)
    if voices.info.kind == "seq2seq":
        prompt = encode_source(voices.tokenizer, messages)
    else:
        prompt = encode_prompt(voices.tokenizer, messages, voices.plain)
    with voices.speaking(side) as model:
        return generate_answer(
            model,
            voices.tokenizer,
            prompt,
            ask.sampling,
            voices.stop,
            voices.info.context_length,
            say=lambda text: channel.emit(ChatDelta(id=ask.id, side=side, text=text)),
            stop_asked=stop_asked,
        )
