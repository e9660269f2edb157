"""The job that answers questions: one loaded base, with and without a run's adapter."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tunedesk.core.describe import ModelInfo
from tunedesk.core.events import (
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
)
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.core.runs import RunFolder, open_run
from tunedesk.engine import inference
from tunedesk.engine.channel import Channel
from tunedesk.engine.classify import classify
from tunedesk.engine.generate import Answer, encode_prompt, generate_answer, stop_tokens
from tunedesk.engine.sources import resolve


@dataclass(frozen=True)
class Voices:
    """A loaded model that answers as itself (``base``) and, with a run's adapter, as ``tuned``.

    `plain` says that conversations are handed over as one text, without a chat template. A classifier has `labels`, and
    only its tuned side.
    """

    model: Any
    tokenizer: Any
    info: ModelInfo
    sides: tuple[Side, ...]
    plain: bool
    stop: tuple[int, ...]
    device: str
    precision: str
    labels: tuple[str, ...] = ()

    @contextlib.contextmanager
    def speaking(self, side: Side) -> Iterator[Any]:
        """The model as `side`; the adapter is switched off for ``base``."""
        if side == "base" and "tuned" in self.sides:
            with self.model.disable_adapter():
                yield self.model
        else:
            yield self.model


def chat(job: Chat, channel: Channel) -> Literal["completed", "stopped"]:
    """Load, emit `ChatReady`, then answer each `Ask` until `Close`, `Stop` or the end of the input.

    `Close` and the end of the input take effect after the questions that came before them. Raises `ProblemError` when
    there is nothing to load; a question that cannot be answered ends in `Asked` with its problems instead.
    """
    voices = load_voices(job, channel)
    from tunedesk.engine.loading import weight_bytes

    channel.emit(
        ChatReady(
            sides=voices.sides,
            device=voices.device,
            precision=voices.precision,
            model=voices.info.name,
            weight_bytes=weight_bytes(voices.model),
            context_length=voices.info.context_length,
            has_chat_template=not voices.plain,
            labels=voices.labels,
        )
    )
    waiting: deque[Command] = deque()
    while not channel.stop_asked:
        command = waiting.popleft() if waiting else channel.take(timeout=None)
        match command:
            case Ask():
                _answer_all(command, voices, channel, waiting)
            case Stop():
                break
            case None | Close():
                return "completed"
            case _:
                pass  # a StopAnswer that came after its answer had ended
    return "stopped"


def load_voices(job: Chat, channel: Channel) -> Voices:
    """Load what `job` names. Raises `ProblemError`."""
    run = open_run(job.run) if job.run else None
    spec = run.spec() if run else None
    source = job.model or (spec.model.source if spec else None)
    if source is None:
        raise ProblemError(
            Problem(code="chat.nothing", what="There is nothing to talk to.", fix="Name a run or a model.")
        )
    adapter = inference.find_adapter(run) if run else None
    info = resolve(source, spec.model.revision if spec and not job.model else None, channel)
    channel.emit(ModelDescribed(info=info))
    labels = inference.read_labels(adapter.path) if adapter else ()
    if (info.kind != "decoder" and not labels) or info.path is None:
        raise ProblemError(_cannot_write_text(info))
    channel.emit(Stage(text="Loading the model"))
    from tunedesk.engine import loading  # only now: what is wrong so far is told before torch is imported

    place = inference.pick_device(spec.training.device if spec else "auto")
    device = loading.torch_device(place)
    storage = inference.choose_format(info, device)
    if storage != "stored":
        channel.emit(Notice(level="warn", text=_SQUEEZED[storage]))
    tokenizer = loading.load_tokenizer(info)
    model = inference.load_base(info, device, storage, labels)
    precision = inference.precision_name(model)
    plain = not info.has_chat_template or (spec is not None and spec.task.kind == "completion")
    stop = () if labels else stop_tokens(tokenizer, model, plain)
    if run and adapter:
        channel.emit(Stage(text="Attaching the adapter"))
        model = inference.attach_adapter(model, adapter.path)
        info = inference.room_beside(info, model)
        _say_which(run, adapter, channel)
    _silence_generation_config(model)
    sides: tuple[Side, ...] = ("base", "tuned") if adapter else ("base",)
    sides = ("tuned",) if labels else sides
    return Voices(model, tokenizer, info, sides, plain, stop, place.name, precision, labels)


_SQUEEZED = {
    "bf16": "The 32-bit weights do not fit in the free memory; they are loaded with 16 bits.",
    "nf4": "The weights do not fit in the free memory; they are loaded with 4 bits, so answers may differ a little.",
}


def _silence_generation_config(model: Any) -> None:
    """Drop the sampling settings that came with the model: an answer uses those of its `Ask` alone."""
    from transformers import GenerationConfig

    for item in (model, getattr(model, "base_model", model), getattr(model, "get_base_model", lambda: model)()):
        if hasattr(item, "generation_config"):
            item.generation_config = GenerationConfig()


def _say_which(run: RunFolder, adapter: inference.FoundAdapter, channel: Channel) -> None:
    if adapter.step is not None:
        text = f"The run did not finish. The tuned side is its checkpoint of step {adapter.step}."
        channel.emit(Notice(level="warn", text=text, step=adapter.step))
    elif run.alive():
        channel.emit(Notice(text="The run is still training. The tuned side is the adapter that it saved last."))


def _cannot_write_text(info: ModelInfo) -> Problem:
    reads = {"encoder": "It reads text but writes none (an encoder).", "seq2seq": "It turns one text into another."}
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
            )
        )
    channel.emit(Asked(id=ask.id, problems=tuple(problems)))


def _answer(ask: Ask, side: Side, voices: Voices, channel: Channel, stop_asked: Any) -> Answer:
    if side not in voices.sides and voices.labels:
        raise ProblemError(
            Problem(
                code="chat.no_labels",
                what="The untouched model knows no labels: there is nothing to compare with.",
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
    if voices.labels:
        text = messages[-1].content if messages else ""
        return classify(voices.model, voices.tokenizer, text, voices.labels, voices.info.context_length)
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
