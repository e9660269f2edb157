"""What a run learns from: rows read, parted into training and held-out, turned into tokens, and looked over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from transformers import PreTrainedTokenizerBase

from tunedesk.core.describe import DataInfo, Finding, LabelCount, ModelInfo, ProblemType, TaskKind, TokenStats
from tunedesk.core.plan import DEFAULT_LENGTH, EFFECTIVE_BATCH
from tunedesk.core.problems import Problem, ProblemError, raise_if_any
from tunedesk.core.spec import DataSection
from tunedesk.engine.label_head import LabelHead, number_head
from tunedesk.engine.label_rows import LabelRenderer, written
from tunedesk.engine.preference_rows import PreferenceRenderer
from tunedesk.engine.render import Renderer, TokenRow, all_cut, cut_rows, token_stats
from tunedesk.engine.rows import Dataset, Row, Tick, name_rows, read_dataset, split_rows
from tunedesk.engine.seq2seq_rows import Seq2SeqRenderer
from tunedesk.engine.token_cache import cached, key_of

Rendering = Renderer | LabelRenderer | PreferenceRenderer | Seq2SeqRenderer

_SHORT_ANSWER = 4
_FEW_OF_A_LABEL = 8
_SHOWN = 5
_LONGER = 1.5
"""How many times as long better answers are as worse ones where length may be learned for worth: DPO is known to write
ever longer (Park et al. 2024, Disentangling Length from Quality)."""

_FAR = 5
"""Standard deviations from the mean beyond which a number is far from the others."""


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


def gather(
    data: DataSection,
    task: Literal["auto"] | TaskKind,
    seed: int,
    tick: Tick | None = None,
    problem_type: Literal["auto"] | ProblemType = "auto",
    preference_loss: str = "dpo",
) -> Material:
    """Read and check the file or files of `data`. Raises `ProblemError` with the faults of both.

    `problem_type` is what the labels of classification rows say; ``auto`` looks at those of the training file. What
    rows of preferences may be says `preference_loss`.
    """
    problems: list[ProblemError] = []
    read: list[Dataset] = []
    for source in (data.train, data.validation):
        if source is None:
            continue
        try:
            as_found = read[0].problem_type if read else None
            read.append(read_dataset(source, data.columns, task, tick, as_found or problem_type, preference_loss))
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
    rows = [row.number for row in validation.rows if not set(strange).isdisjoint(row.labels)]
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


def head_for(material: Material) -> LabelHead | None:
    """The head of a classifier that learns the training rows; None where the task is another."""
    if material.task != "classification":
        return None
    pair = any(row.pair for row in material.data.rows)
    kind = material.data.problem_type or "single_label"
    if kind == "regression":
        return number_head([row.value for row in material.train if row.value is not None], pair)
    return LabelHead(kind, material.data.labels, pair=pair)


def renderer_of(material: Material, tokenizer: PreTrainedTokenizerBase, model: ModelInfo) -> Rendering:
    """What shows the rows to `model`. Raises `ProblemError` when its tokenizer cannot do the task."""
    if material.task == "classification":
        return LabelRenderer(tokenizer, material.data.labels, model.name, one_text=model.kind == "decoder")
    if material.task == "seq2seq":
        return Seq2SeqRenderer(tokenizer, model.name)
    if material.task == "preference":
        return PreferenceRenderer(tokenizer, model.name)
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
        problem_type=data.problem_type,
        span=data.span,
    )


def _label_counts(data: Dataset) -> tuple[LabelCount, ...]:
    rows = Counter(label for row in data.rows for label in row.labels)
    return tuple(LabelCount(name=name, rows=rows[name]) for name in data.labels)


def findings(material: Material, tokens: Tokens | None, max_length: int) -> list[Finding]:
    """What is odd about the data and yet no reason to stop."""
    found = [_encoding(material.data), _few(material), *_twice(material)]
    if material.task == "preference":
        found += [_disagreement(material.data), _longer(material.data.rows), _uneven(material.data)]
    match material.data.problem_type:
        case None:
            found.append(_short(material.data.rows))
        case "regression":
            found += [_far_off(material), _contradiction(material.data)]
        case _:
            found += [*_about_labels(material), _contradiction(material.data)]
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
    """Labels that are rare or nearly everywhere, and rows without any."""
    rows, several = material.data.rows, material.data.problem_type == "multi_label"
    trained, counts = (Counter(label for row in part for label in row.labels) for part in (material.train, rows))
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
    if most * 10 > 9 * len(rows) or (not several and most * len(counts) > 3 * len(rows)):
        result.append(
            Finding(
                code="data.imbalance",
                level="info",
                text=f"{most / len(rows):.0%} of the rows {'have' if several else 'are'} '{label}'.",
                detail="Always giving this label is right as often: compare accuracy with that, or read macro-F1.",
                count=most,
            )
        )
    without = [row.number for row in rows if not row.labels]
    if without:
        result.append(
            Finding(
                code="data.unlabelled",
                level="info",
                text=f"{_rows(len(without))} {_are(len(without), 'has', 'have', '')} no label, on purpose: an empty "
                "list.",
                detail="They teach that no label applies.",
                count=len(without),
                rows=tuple(without[:_SHOWN]),
            )
        )
    return result


def _contradiction(data: Dataset) -> Finding | None:
    """Texts that are there twice, with another label or number."""
    first: dict[str, object] = {}
    apart = [
        row.number
        for row in data.rows
        if first.setdefault(row.key(), (row.labels, row.value)) != (row.labels, row.value)
    ]
    if not apart:
        return None
    thing = "number" if data.problem_type == "regression" else "label"
    return Finding(
        code="data.contradiction",
        level="warn",
        text=f"{_rows(len(apart))} {_are(len(apart), 'has', 'have', '')} another row's text and another {thing}.",
        detail=f"They teach against each other. Decide for one {thing}.",
        count=len(apart),
        rows=tuple(apart[:_SHOWN]),
    )


def _far_off(material: Material) -> Finding | None:
    """Numbers that lie so far from the others that their squared errors drown the rest."""
    rows = [(row.number, row.value) for row in material.data.rows if row.value is not None]
    scale = number_head([value for _, value in rows])
    far = [(number, value) for number, value in rows if abs(value - scale.mean) > _FAR * scale.std]
    if not far:
        return None
    return Finding(
        code="data.far_numbers",
        level="warn",
        text=f"{_rows(len(far))} {_are(len(far), 'has a number', 'have numbers', '')} far from all others: "
        f"{', '.join(written(value) for _, value in far[:_SHOWN])}.",
        detail=f"The mean is {written(scale.mean)}. Large errors weigh by their square: check these rows.",
        count=len(far),
        rows=tuple(number for number, _ in far[:_SHOWN]),
    )


def _disagreement(data: Dataset) -> Finding | None:
    """Answers that are better in one row and worse in another, to the same."""
    better = {(row.turns, row.chosen) for row in data.rows if row.chosen}
    worse = {(row.turns, row.rejected) for row in data.rows if row.rejected}
    both = better & worse
    apart = [row.number for row in data.rows if {(row.turns, row.chosen), (row.turns, row.rejected)} & both]
    if not apart:
        return None
    return Finding(
        code="data.contradiction",
        level="warn",
        text=f"{_rows(len(apart))} {_are(len(apart), 'has', 'have', '')} an answer that is good in one row and bad in "
        "another.",
        detail="They teach against each other. Decide for one of them.",
        count=len(apart),
        rows=tuple(apart[:_SHOWN]),
    )


def _longer(rows: Sequence[Row]) -> Finding | None:
    """Better answers that are much longer."""
    better = [len(row.chosen[-1].content) for row in rows if row.chosen]
    worse = [len(row.rejected[-1].content) for row in rows if row.rejected]
    times = (sum(better) / len(better)) / (sum(worse) / len(worse)) if better and worse else 1.0
    if times < _LONGER:
        return None
    return Finding(
        code="data.length",
        level="info",
        text=f"Better answers are {times:.1f} times as long as worse ones.",
        detail="The model may learn that long is good. Pairs of like length say more.",
        count=len(rows),
    )


def _uneven(data: Dataset) -> Finding | None:
    """Many more of one rating than of the other."""
    good = sum(bool(row.chosen) for row in data.rows)
    if data.layout != "rated" or 0.2 <= good / len(data.rows) <= 0.8:
        return None
    share = good / len(data.rows)
    return Finding(
        code="data.imbalance",
        level="info",
        text=f"{max(share, 1 - share):.0%} of the answers are {'good' if share > 0.5 else 'bad'}.",
        detail="Both sides are made to weigh the same; of the rarer one there is little to learn from.",
        count=max(good, len(data.rows) - good),
    )


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
    if row.chosen or row.rejected:
        return min((side[-1].content for side in (row.chosen, row.rejected) if side), key=len)
    if not row.turns:
        return row.text
    return max((turn.content for turn in row.turns if turn.role == "assistant"), key=len)


def _cut(tokens: Tokens, max_length: int) -> list[Finding | None]:
    rows = [*tokens.train, *tokens.held]
    cut = [row.number for row in rows if len(row.cut(max_length).ids) < len(row.ids)]
    empty = cut_rows(rows, max_length)[1]
    result: list[Finding | None] = []
    if cut:
        result.append(
            Finding(
                code="data.cut",
                level="warn" if len(cut) * 100 > len(rows) else "info",
                text=f"{_rows(len(cut))} {_are(len(cut), 'is', 'are', '')} longer than {max_length:,} tokens "
                f"and {_are(len(cut), 'loses its end', 'lose their end', '')}.",
                detail=f"The longest has {max(row.length for row in rows):,} tokens.",
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
