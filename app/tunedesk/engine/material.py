"""What a run learns from: rows read, parted into training and held-out, turned into tokens, and looked over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from transformers import PreTrainedTokenizerBase

from tunedesk.core.describe import DataInfo, Finding, LabelCount, ModelInfo, TaskKind, TokenStats
from tunedesk.core.plan import DEFAULT_LENGTH, EFFECTIVE_BATCH
from tunedesk.core.problems import Problem, ProblemError, raise_if_any
from tunedesk.core.spec import DataSection
from tunedesk.engine.label_rows import LabelRenderer
from tunedesk.engine.render import Renderer, TokenRow, all_cut, cut_rows, token_stats
from tunedesk.engine.rows import Dataset, Row, Tick, name_rows, read_dataset, split_rows
from tunedesk.engine.token_cache import cached, key_of

Rendering = Renderer | LabelRenderer

_SHORT_ANSWER = 4
_FEW_OF_A_LABEL = 8
_SHOWN = 5


@dataclass(frozen=True)
class Material:
    """The rows of a run. `validation` is the second file, when there is one."""

    data: Dataset
    validation: Dataset | None
    train: list[Row]
    held: list[Row]

    @property
    def task(self) -> TaskKind:
        return self.data.task


@dataclass(frozen=True)
class Tokens:
    """The rows of a run in tokens, not cut."""

    train: list[TokenRow]
    held: list[TokenRow]


def gather(data: DataSection, task: Literal["auto"] | TaskKind, seed: int, tick: Tick | None = None) -> Material:
    """Read and check the file or files of `data`. Raises `ProblemError` with the faults of both."""
    problems: list[ProblemError] = []
    read: list[Dataset] = []
    for source in (data.train, data.validation):
        if source is None:
            continue
        try:
            read.append(read_dataset(source, data.columns, task, tick))
        except ProblemError as error:
            problems.append(error)
    if problems:
        raise ProblemError([problem for error in problems for problem in error.problems])
    if data.validation is not None:
        raise_if_any(_strange_labels(*read))
        return Material(read[0], read[1], read[0].rows, read[1].rows)
    train, held = split_rows(read[0].rows, data.validation_fraction, seed)
    return Material(read[0], None, train, held)


def _strange_labels(data: Dataset, validation: Dataset) -> list[Problem]:
    """Labels of the validation rows that no training row has: the model could never say them."""
    strange = [label for label in validation.labels if label not in data.labels]
    if not strange:
        return []
    rows = [row.number for row in validation.rows if row.label in strange]
    return [
        Problem(
            code="data.strange_label",
            what="The validation file has labels that the training file lacks.",
            where=f"{validation.path.name}, {name_rows(rows, validation.unit)}.",
            found=f"{', '.join(repr(label) for label in strange[:_SHOWN])}; "
            f"trained are {', '.join(repr(label) for label in data.labels[:_SHOWN])}.",
            fix="Use the same labels in both files.",
        )
    ]


def renderer_of(material: Material, tokenizer: PreTrainedTokenizerBase, model: ModelInfo) -> Rendering:
    """What shows the rows to `model`. Raises `ProblemError` when its tokenizer cannot do the task."""
    if material.task == "classification":
        return LabelRenderer(tokenizer, material.data.labels, model.name)
    return Renderer(tokenizer, material.task, model.name)


def tokenise(
    material: Material, renderer: Rendering, tick: Tick | None = None, model: ModelInfo | None = None
) -> Tokens:
    """Both sides in tokens, kept for the next time where the `model` whose tokenizer it is, is given.

    Raises `ProblemError` for rows that the chat template cannot take, with those of both files.
    """
    problems: list[Problem] = []
    files: list[list[TokenRow]] = []
    for data in (material.data, material.validation):
        if data is None:
            continue
        make = partial(renderer.render, data.rows, data.path, data.unit, tick)
        try:
            if model is None or model.path is None:
                files.append(make())
            else:
                files.append(cached(key_of(data.rows, Path(model.path), material.task, material.data.labels), make))
        except ProblemError as error:
            problems += error.problems
    raise_if_any(problems)
    if material.validation is not None:
        return Tokens(*files)
    rows = {row.number: row for row in files[0]}
    return Tokens([rows[row.number] for row in material.train], [rows[row.number] for row in material.held])


def length_limit(asked: int | Literal["auto"] | None, info: ModelInfo) -> int:
    """The longest row in tokens, before the plan is made: as asked, or what suits the model."""
    if isinstance(asked, int):
        return min(asked, info.context_length) if info.context_length else asked
    return min(info.context_length or DEFAULT_LENGTH, DEFAULT_LENGTH)


def describe(material: Material, tokens: Tokens | None, max_length: int) -> DataInfo:
    """The data in words and numbers; row counts are of rows that teach something at `max_length`.

    Raises `ProblemError` when `max_length` leaves nothing to learn in any row.
    """
    data = material.data
    train_rows, eval_rows = len(material.train), len(material.held)
    stats: TokenStats | None = None
    if tokens is not None:
        kept, _ = cut_rows(tokens.train, max_length)
        if not kept:
            raise ProblemError(all_cut(tokens.train, max_length, data.unit))
        train_rows, eval_rows = len(kept), len(cut_rows(tokens.held, max_length)[0])
        stats = token_stats([*tokens.train, *tokens.held], max_length)
    return DataInfo(
        source=data.source,
        path=str(data.path),
        name=data.path.name,
        file_format=data.file_format,
        bytes=data.size,
        rows=len(data.rows),
        layout=data.layout,
        task=data.task,
        columns=data.columns,
        all_columns=data.all_columns,
        train_rows=train_rows,
        eval_rows=eval_rows,
        tokens=stats,
        findings=tuple(findings(material, tokens, max_length)),
        sha256=data.sha256,
        labels=_label_counts(data),
    )


def _label_counts(data: Dataset) -> tuple[LabelCount, ...]:
    rows = Counter(row.label for row in data.rows)
    return tuple(LabelCount(name=name, rows=rows[name]) for name in data.labels)


def findings(material: Material, tokens: Tokens | None, max_length: int) -> list[Finding]:
    """What is odd about the data and yet no reason to stop."""
    found = [_encoding(material.data), _few(material), *_twice(material)]
    found += _about_labels(material) if material.data.labels else [_short(material.data.rows)]
    if tokens is not None:
        found += _cut(tokens, max_length)
    return [item for item in found if item is not None]


def _encoding(data: Dataset) -> Finding | None:
    if data.encoding != "cp1252":
        return None
    return Finding(
        code="data.encoding",
        level="warn",
        text="The file is not UTF-8; it was read as Windows-1252.",
        detail="If letters with accents look wrong in the preview, save the file as UTF-8.",
        count=len(data.rows),
    )


def _few(material: Material) -> Finding | None:
    count = len(material.train)
    if count >= EFFECTIVE_BATCH:
        return None
    return Finding(
        code="data.few_rows",
        level="warn",
        text=f"Only {_rows(count)} to train on: fewer than one step usually sees ({EFFECTIVE_BATCH}).",
        detail="The model will mostly learn them by heart.",
        count=count,
    )


def _twice(material: Material) -> list[Finding | None]:
    seen: Counter[str] = Counter(row.key() for row in material.data.rows)
    later: set[str] = set()
    copies = []
    for row in material.data.rows:
        key = row.key()
        if seen[key] > 1:
            if key in later:
                copies.append(row.number)
            later.add(key)
    result: list[Finding | None] = []
    if copies:
        result.append(
            Finding(
                code="data.duplicates",
                level="warn" if len(copies) * 20 > len(material.data.rows) else "info",
                text=f"{_rows(len(copies))} {_are(len(copies), 'a copy', 'copies')} of another.",
                detail="Copies stay on one side of the split, and weigh more in training.",
                count=len(copies),
                rows=tuple(copies[:_SHOWN]),
            )
        )
    if material.validation is not None:
        shared = [row.number for row in material.validation.rows if row.key() in seen]
        if shared:
            result.append(
                Finding(
                    code="data.leak",
                    level="warn",
                    text=f"{_rows(len(shared))} of the validation file {_are(len(shared), 'is', 'are', '')} "
                    "trained on too.",
                    detail="Held-out loss will look better than it is.",
                    count=len(shared),
                    rows=tuple(shared[:_SHOWN]),
                )
            )
    return result


def _about_labels(material: Material) -> list[Finding | None]:
    """Labels that are rare, and texts with two different ones."""
    rows = material.data.rows
    trained, counts = Counter(row.label for row in material.train), Counter(row.label for row in rows)
    rare = [label for label in material.data.labels if trained[label] < _FEW_OF_A_LABEL]
    result: list[Finding | None] = []
    if rare:
        some = ", ".join(f"'{label}' ({trained[label]:,})" for label in rare[:_SHOWN])
        result.append(
            Finding(
                code="data.rare_labels",
                level="warn",
                text=f"{_are(len(rare), '1 label has', f'{len(rare):,} labels have', '')} fewer than {_FEW_OF_A_LABEL} "
                f"rows to train on: {some}.",
                detail="The model will hardly learn to give them. More rows of these help most.",
                count=len(rare),
            )
        )
    label, most = counts.most_common(1)[0]
    if most * len(counts) > 3 * len(rows) or most * 10 > 9 * len(rows):
        result.append(
            Finding(
                code="data.imbalance",
                level="info",
                text=f"{most / len(rows):.0%} of the rows are '{label}'.",
                detail="Always giving this label is right as often: compare accuracy with that, or read macro-F1.",
                count=most,
            )
        )
    first: dict[str, str] = {}
    apart = [row.number for row in rows if first.setdefault(row.key(), row.label) != row.label]
    if apart:
        result.append(
            Finding(
                code="data.contradiction",
                level="warn",
                text=f"{_rows(len(apart))} {_are(len(apart), 'has', 'have', '')} another row's text and another label.",
                detail="They teach against each other. Decide for one label.",
                count=len(apart),
                rows=tuple(apart[:_SHOWN]),
            )
        )
    return result


def _short(rows: Sequence[Row]) -> Finding | None:
    short = [row.number for row in rows if len(_answer(row).strip()) < _SHORT_ANSWER]
    if not short:
        return None
    return Finding(
        code="data.short_answers",
        level="info",
        text=f"{_rows(len(short))} {_are(len(short), 'has an answer', 'have answers', '')} of under "
        f"{_SHORT_ANSWER} characters.",
        count=len(short),
        rows=tuple(short[:_SHOWN]),
    )


def _answer(row: Row) -> str:
    if not row.turns:
        return row.text
    return max((turn.content for turn in row.turns if turn.role == "assistant"), key=len)


def _cut(tokens: Tokens, max_length: int) -> list[Finding | None]:
    rows = [*tokens.train, *tokens.held]
    cut = [row.number for row in rows if len(row.ids) > max_length]
    empty = cut_rows(rows, max_length)[1]
    result: list[Finding | None] = []
    if cut:
        result.append(
            Finding(
                code="data.cut",
                level="warn" if len(cut) * 100 > len(rows) else "info",
                text=f"{_rows(len(cut))} {_are(len(cut), 'is', 'are', '')} longer than {max_length:,} tokens "
                f"and {_are(len(cut), 'loses its end', 'lose their end', '')}.",
                detail=f"The longest has {max(len(row.ids) for row in rows):,} tokens.",
                count=len(cut),
                rows=tuple(sorted(cut)[:_SHOWN]),
            )
        )
    if empty:
        result.append(
            Finding(
                code="data.unusable",
                level="warn",
                text=f"{_rows(len(empty))} {_are(len(empty), 'has', 'have', '')} nothing left to learn "
                f"within {max_length:,} tokens, and {_are(len(empty), 'is', 'are', '')} left out.",
                detail="The answer begins after the cut. A greater max_length keeps it.",
                count=len(empty),
                rows=tuple(sorted(empty)[:_SHOWN]),
            )
        )
    return result


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _are(count: int, one: str, many: str, verb: str | None = None) -> str:
    if verb is None:
        return f"is {one}" if count == 1 else f"are {many}"
    return one if count == 1 else many
