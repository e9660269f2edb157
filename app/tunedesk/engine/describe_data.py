"""The job `InspectData`: what is in a file, and what a model would see of it. Loads no weights."""

from __future__ import annotations

from typing import Literal

from tunedesk.core.describe import DataInfo, ModelInfo, RenderedRow, RenderedTurn, Span, TaskKind
from tunedesk.core.events import DataDescribed, InspectData, Progress, Stage
from tunedesk.core.plan import DEFAULT_LENGTH
from tunedesk.core.spec import DataSection
from tunedesk.engine.channel import Channel, Stopped
from tunedesk.engine.label_rows import said_of
from tunedesk.engine.material import Material, describe, gather, length_limit, renderer_of, tokenise
from tunedesk.engine.preference_rows import show_answers
from tunedesk.engine.rows import Row, Tick


def inspect_data(job: InspectData, channel: Channel) -> Literal["completed", "stopped"]:
    """Emit `DataDescribed` with the first `job.examples` rows. Raises `ProblemError`, and `Stopped` on request."""
    channel.emit(Stage(text="Reading the rows"))
    section = DataSection(train=job.source, validation_fraction=job.validation_fraction, columns=job.columns)
    task = _task_for(job)
    material = gather(section, task, job.seed, ticker(channel), job.problem_type, job.preference_loss)
    if job.model is None:
        info = describe(material, None, job.max_length or DEFAULT_LENGTH)
        labelled = material.task == "classification"
        examples = [show_plain(row, labelled) for row in material.data.rows[: job.examples]]
    else:
        from tunedesk.engine.sources import resolve

        model = resolve(job.model, None, channel, fetch=False)
        info, examples = _with_model(job, material, model, channel)
    channel.emit(DataDescribed(info=info, examples=tuple(examples)))
    return "completed"


def _task_for(job: InspectData) -> TaskKind | Literal["auto"]:
    """The task that was stated, or the only one that the model can do, or what the rows suggest."""
    if job.task != "auto" or job.model is None:
        return job.task
    from tunedesk.engine.sources import resolve

    tasks = resolve(job.model, None, None, fetch=False).tasks
    return "seq2seq" if tasks == ("seq2seq",) else "auto"


def _with_model(
    job: InspectData, material: Material, model: ModelInfo, channel: Channel
) -> tuple[DataInfo, list[RenderedRow]]:
    from tunedesk.engine.loading import check_task, load_tokenizer

    check_task(model, material.task)
    renderer = renderer_of(material, load_tokenizer(model), model)
    channel.emit(Stage(text="Turning the rows into tokens"))
    tokens = tokenise(material, renderer, ticker(channel), model)
    limit = length_limit(job.max_length, model)
    info = describe(material, tokens, limit)
    return info, [renderer.show(row, limit) for row in material.data.rows[: job.examples]]


def ticker(channel: Channel) -> Tick:
    """Reports progress in rows, and breaks off with `Stopped` when asked to."""

    def tick(done: int, total: int | None) -> None:
        if channel.stop_asked:
            raise Stopped
        channel.emit(Progress(done=done, total=total, unit="rows"))

    return tick


def show_plain(row: Row, labelled: bool = False) -> RenderedRow:
    """The row without a model: one span for each turn. A `labelled` one may have no label."""
    if row.chosen or row.rejected:
        turns = list(show_answers(row))
    elif row.turns:
        turns = [
            RenderedTurn(
                role=turn.role,
                spans=(Span(text=turn.content, kind="trained" if turn.role == "assistant" else "context"),),
            )
            for turn in row.turns
        ]
    elif labelled:
        parted: list[tuple[str, str, Literal["context", "trained"]]] = [
            ("text", row.text, "context"),
            ("pair", row.pair, "context"),
            ("label", said_of(row), "trained"),
        ]
        turns = [RenderedTurn(role=role, spans=(Span(text=text, kind=kind),)) for role, text, kind in parted if text]
    else:
        parts: list[tuple[str, str, Literal["context", "trained"]]] = [("text", row.text, "trained")]
        if row.prompt:
            parts.insert(0, ("prompt", row.prompt, "context"))
        turns = [RenderedTurn(role=role, spans=(Span(text=text, kind=kind),)) for role, text, kind in parts]
    return RenderedRow(row=row.number, turns=tuple(turns), tokens=0, trained_tokens=0)
