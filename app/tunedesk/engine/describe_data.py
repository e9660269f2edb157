"""The job `InspectData`: what is in a file, and what a model would see of it. Loads no weights."""

from __future__ import annotations

from typing import Literal

from tunedesk.core.describe import DataInfo, ModelInfo, RenderedRow, RenderedTurn, Span
from tunedesk.core.events import DataDescribed, InspectData, Progress, Stage
from tunedesk.core.plan import DEFAULT_LENGTH
from tunedesk.core.spec import DataSection
from tunedesk.engine.channel import Channel, Stopped
from tunedesk.engine.material import Material, describe, gather, length_limit, renderer_of, tokenise
from tunedesk.engine.rows import Row, Tick


def inspect_data(job: InspectData, channel: Channel) -> Literal["completed", "stopped"]:
    """Emit `DataDescribed` with the first `job.examples` rows. Raises `ProblemError`, and `Stopped` on request."""
    channel.emit(Stage(text="Reading the rows"))
    section = DataSection(train=job.source, validation_fraction=job.validation_fraction, columns=job.columns)
    material = gather(section, job.task, job.seed, ticker(channel))
    if job.model is None:
        info = describe(material, None, job.max_length or DEFAULT_LENGTH)
        examples = [show_plain(row) for row in material.data.rows[: job.examples]]
    else:
        from tunedesk.engine.sources import resolve

        model = resolve(job.model, None, channel, fetch=False)
        info, examples = _with_model(job, material, model, channel)
    channel.emit(DataDescribed(info=info, examples=tuple(examples)))
    return "completed"


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


def show_plain(row: Row) -> RenderedRow:
    """The row without a model: one span for each turn."""
    if row.turns:
        turns = [
            RenderedTurn(
                role=turn.role,
                spans=(Span(text=turn.content, kind="trained" if turn.role == "assistant" else "context"),),
            )
            for turn in row.turns
        ]
    elif row.label:
        labelled: list[tuple[str, str, Literal["context", "trained"]]] = [
            ("text", row.text, "context"),
            ("pair", row.pair, "context"),
            ("label", row.label, "trained"),
        ]
        turns = [RenderedTurn(role=role, spans=(Span(text=text, kind=kind),)) for role, text, kind in labelled if text]
    else:
        parts: list[tuple[str, str, Literal["context", "trained"]]] = [("text", row.text, "trained")]
        if row.prompt:
            parts.insert(0, ("prompt", row.prompt, "context"))
        turns = [RenderedTurn(role=role, spans=(Span(text=text, kind=kind),)) for role, text, kind in parts]
    return RenderedRow(row=row.number, turns=tuple(turns), tokens=0, trained_tokens=0)
