"""Training rows from a file: read any common format, recognise how a row holds its text, check every row.

Nothing is silently dropped: a row that cannot teach ends in a `Problem` that names it. Only blank lines are skipped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunedesk.core.describe import ProblemType, TaskKind
from tunedesk.core.paths import starter_data
from tunedesk.core.problems import Problem, ProblemError, did_you_mean, raise_if_any
from tunedesk.engine.label_cells import BadCellError, check_labels, check_numbers, problem_type_of, read_cell
from tunedesk.engine.preference_cells import (
    dialogue_in,
    find_columns,
    messages_in,
    rating_of,
    shared,
    unfit_columns,
)
from tunedesk.engine.tables import Table, read_table

Layout = Literal["messages", "sharegpt", "alpaca", "prompt_completion", "text", "labelled", "preference", "rated"]
Tick = Callable[[int, int | None], None]
"""Told (rows done, rows in all or None); may raise to break off."""

STARTER_SETS = ("support", "finance", "preferences")

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""What files call the speakers, and what templates call them."""

_CONVERSATION_NAMES = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat")
_TEXT_NAMES = ("text", "content")
_ALPACA: tuple[str, ...] = ("instruction", "input", "output")
_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("prompt", "output"),
    ("question", "answer"),
    ("question", "response"),
    ("instruction", "response"),
    ("instruction", "answer"),
    ("query", "response"),
    ("query", "answer"),
    ("input", "output"),
    ("input", "response"),
    ("user", "assistant"),
    ("source", "target"),
)
_TEXTS_IN_AND_OUT = (
    ("document", "summary"),
    ("article", "highlights"),
    ("article", "summary"),
    ("dialogue", "summary"),
    ("text", "summary"),
    ("input", "target"),
    ("text", "target"),
)
"""Pairs of columns as sets of two texts call them, which conversations do not."""

_LABELLED_TEXTS = (
    "text", "content", "sentence", "sentence1", "premise", "review", "comment", "tweet", "title", "headline",
    "utterance", "description", "document", "body", "question", "query", "message",
)  # fmt: skip
_TEXT_PAIRS = ("text_pair", "sentence2", "hypothesis", "text2")
_LABELS = (
    "label",
    "labels",
    "class",
    "category",
    "sentiment",
    "intent",
    "emotion",
    "topic",
    "target",
    "rating",
    "stars",
)
_STATED_ROLES = (
    "messages", "prompt", "completion", "system", "text", "text_pair", "label", "instruction", "input", "output",
    "chosen", "rejected",
)  # fmt: skip

_NEEDED = {
    "chat": "Needed for conversations: 'messages', or two columns such as 'prompt' and 'completion'.",
    "completion": "Needed for completion: 'text', or 'prompt' and 'completion'.",
    "classification": "Needed for classification: a 'text' column and a 'label' column.",
    "seq2seq": "Needed to turn one text into another: two columns such as 'prompt' and 'completion'.",
    "auto": "Needed: 'messages', or 'prompt' and 'completion', or 'text', or 'text' and 'label'.",
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing said; `role` is system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row of data: a conversation in `turns`, `text` to go on with after `prompt`, or `text` that has `labels`.

    Of labels there is one, or with several allowed any number, by name; where texts have a measured number, that is
    `value`. A second text that belongs to a labelled one (a hypothesis, say) is `pair`. Of preferences `turns` are what
    both answers follow, `chosen` and `rejected` what comes then, at last the answer; one that is rated alone is
    `chosen` when it is good, and the other is empty.
    `number` is its 1-based line in the file, or its row where lines mean nothing (tables; the header is not counted).
    """

    number: int
    turns: tuple[Turn, ...] = ()
    prompt: str = ""
    text: str = ""
    pair: str = ""
    labels: tuple[str, ...] = ()
    value: float | None = None
    chosen: tuple[Turn, ...] = ()
    rejected: tuple[Turn, ...] = ()

    def key(self) -> str:
        """All of its text, the same for rows that say the same, whatever their labels."""
        if self.chosen or self.rejected:
            return "\0\0".join(_joined(part) for part in (self.turns, self.chosen, self.rejected))
        if self.turns:
            return _joined(self.turns)
        return f"{self.prompt}\0{self.text}" + (f"\0{self.pair}" if self.pair else "")

    def kin(self) -> str:
        """What rows share that belong on one side of a split: their text; of preferences what both answers follow."""
        return _joined(self.turns) if self.turns and (self.chosen or self.rejected) else self.key()


def _joined(turns: Sequence[Turn]) -> str:
    return "\0".join(f"{turn.role}\0{turn.content}" for turn in turns)


@dataclass(frozen=True)
class Dataset:
    """Every row of one file, checked. `columns` maps roles to the columns that were used.

    `labels` are those of classification rows, in the order of their names, or of their numbers if all are numbers.
    Their `problem_type` is as stated or as found, and `span` holds the smallest and the largest number of a regression.
    """

    source: str
    path: Path
    file_format: str
    size: int
    sha256: str
    encoding: str
    unit: Literal["line", "row"]
    layout: Layout
    task: TaskKind
    columns: dict[str, str]
    all_columns: tuple[str, ...]
    rows: list[Row]
    labels: tuple[str, ...] = ()
    problem_type: ProblemType | None = None
    span: tuple[float, float] | None = None


def data_path(source: str) -> Path:
    """The file that `source` names: a path or ``starter:support``. Raises `ProblemError` for an unknown starter."""
    if not source.startswith("starter:"):
        return Path(source).expanduser()
    name = source.removeprefix("starter:")
    if name not in STARTER_SETS:
        raise ProblemError(
            Problem(
                code="data.starter",
                what=f"There is no starter dataset '{name}'.",
                fix=did_you_mean(f"starter:{name}", [f"starter:{item}" for item in STARTER_SETS]),
            )
        )
    return starter_data(name)


def read_dataset(
    source: str,
    columns: dict[str, str] | None = None,
    task: Literal["auto"] | TaskKind = "auto",
    tick: Tick | None = None,
    problem_type: Literal["auto"] | ProblemType = "auto",
    preference_loss: str = "dpo",
) -> Dataset:
    """Read and check every row of `source`. `columns` states which column is what, role to name.

    `problem_type` states what the label column says; ``auto`` looks at it. What preferences may be, pairs or ratings,
    says `preference_loss`.

    Raises `ProblemError` with one problem for each kind of fault, each naming the first lines and how many there are.
    """
    path = data_path(source)
    table = read_table(path)
    layout, chosen = _recognise(table, dict(columns or {}), task, path, preference_loss)
    kind = _task_of(layout) if task == "auto" else task
    faults = Faults(table.unit, path)
    says = _says(table, layout, chosen, problem_type)
    builder = _Builder(layout, kind, chosen, faults, says, split=problem_type == "multi_label")
    rows: list[Row] = []
    for done, (number, record) in enumerate(zip(table.numbers, table.records, strict=True), start=1):
        row = builder.build(number, record)
        if row is not None:
            rows.append(row)
        if tick and done % 500 == 0:
            tick(done, len(table.records))
    raise_if_any(faults.problems())
    labels = label_names(rows)
    raise_if_any(_check_labels(labels, rows, says, f"{path.name}, column '{chosen['label']}'.", table) if says else [])
    raise_if_any(_check_ratings(rows, f"{path.name}, column '{chosen['label']}'.") if layout == "rated" else [])
    values = [row.value for row in rows if row.value is not None]
    return Dataset(
        source=source,
        path=path,
        file_format=table.file_format,
        size=table.size,
        sha256=table.sha256,
        encoding=table.encoding,
        unit=table.unit,
        layout=layout,
        task=kind,
        columns=chosen,
        all_columns=table.columns,
        rows=rows,
        labels=labels,
        problem_type=says,
        span=(min(values), max(values)) if values else None,
    )


def _task_of(layout: Layout) -> TaskKind:
    kinds = {"text": "completion", "labelled": "classification", "preference": "preference"}
    return kinds.get(layout, "chat")  # type: ignore[return-value]


def label_names(rows: Sequence[Row]) -> tuple[str, ...]:
    """Every label of `rows`, once, sorted by name, or by value if all are whole numbers."""
    names = {label for row in rows for label in row.labels}
    numbers = all(name.lstrip("-").isdecimal() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if numbers else 0, name)))


def _says(
    table: Table, layout: Layout, columns: dict[str, str], stated: Literal["auto"] | ProblemType
) -> ProblemType | None:
    """What the label column says, as stated or as it looks; None where there is none."""
    if layout != "labelled":
        return None
    if stated != "auto":
        return stated
    column = columns["label"]
    return problem_type_of((record.get(column) for record in table.records), table.file_format in ("csv", "tsv"))


def _check_labels(
    labels: Sequence[str], rows: Sequence[Row], says: ProblemType, where: str, table: Table
) -> list[Problem]:
    there = _columns_there(table)
    if says == "regression":
        return check_numbers([row.value for row in rows if row.value is not None], where, there)
    return check_labels([row.labels for row in rows], labels, says, where, there)


def _check_ratings(rows: Sequence[Row], where: str) -> list[Problem]:
    if not rows or (any(row.chosen for row in rows) and any(row.rejected for row in rows)):
        return []
    return [
        Problem(
            code="data.one_rating",
            what="All answers have the same rating, so there is nothing to prefer.",
            where=where,
            found=f"Every row is rated {'good' if rows[0].chosen else 'bad'}.",
            fix="Add answers of the other rating, or learn from good ones alone with the task chat "
            '(task.kind = "chat").',
        )
    ]


def split_rows(rows: Sequence[Row], fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """(training rows, held-out rows), each row's side decided by a hash of its text and `seed`.

    The same row lands on the same side whatever surrounds it, so copies stay together, as do answers to the same
    question. With two different rows (of preferences: questions) or more and a `fraction` above 0, neither side is
    empty.
    """
    if fraction <= 0 or len(rows) < 2:
        return list(rows), []
    places = [_place(row, seed) for row in rows]
    limit = fraction
    if min(places) >= limit:
        limit = min(places) + 1e-15
    if max(places) < limit:
        limit = max(places)
    train = [row for row, place in zip(rows, places, strict=True) if place >= limit]
    held = [row for row, place in zip(rows, places, strict=True) if place < limit]
    return train, held


def _place(row: Row, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}\0{row.kin()}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class Faults:
    """Faults of rows, gathered by kind."""

    SHOWN = 4

    def __init__(self, unit: Literal["line", "row"], path: Path) -> None:
        self._unit = unit
        self._path = path
        self._found: dict[str, list[tuple[int, str]]] = {}
        self._words: dict[str, tuple[str, str, str]] = {}

    def add(self, code: str, number: int, one: str, many: str, fix: str, detail: str = "") -> None:
        """Note a fault of row `number`. `many` has ``{n}`` for the count; `detail` is what is there now."""
        self._words.setdefault(code, (one, many, fix))
        found = self._found.setdefault(code, [])
        if not found or found[-1][0] != number:
            found.append((number, detail))

    def problems(self) -> list[Problem]:
        """One problem for each kind."""
        return [self._problem(code) for code in self._found]

    def _problem(self, code: str) -> Problem:
        found = self._found[code]
        one, many, fix = self._words[code]
        details = list(dict.fromkeys(detail for _, detail in found if detail))[: self.SHOWN]
        return Problem(
            code=code,
            what=one if len(found) == 1 else many.format(n=f"{len(found):,}"),
            where=f"{self._path.name}, {name_rows([number for number, _ in found], self._unit)}.",
            found=" ".join(details),
            fix=fix,
        )


def name_rows(numbers: Sequence[int], unit: str, shown: int = Faults.SHOWN) -> str:
    """`line 7`, `lines 3, 9 and 12`, or `lines 3, 9, 12, 40 and 12 more`."""
    words = [f"{number:,}" for number in numbers[:shown]]
    left = len(numbers) - len(words)
    if left:
        words.append(f"{left:,} more")
    if len(words) == 1:
        return f"{unit} {words[0]}"
    return f"{unit}s {', '.join(words[:-1])} and {words[-1]}"


# Which column is what.


_UNFIT: dict[str, tuple[Layout, ...]] = {
    "chat": ("text", "labelled"),
    "completion": ("labelled",),
    "classification": ("messages", "sharegpt", "alpaca", "prompt_completion", "text"),
    "seq2seq": ("text", "labelled"),
}
"""Layouts that a task cannot learn from. Conversations that are to be completed get words of their own."""


def _recognise(
    table: Table, stated: dict[str, str], task: str, path: Path, preference_loss: str
) -> tuple[Layout, dict[str, str]]:
    """The layout and its columns. Raises `ProblemError` when no column fits, or a stated one is not there."""
    names = {name.strip().lower(): name for name in table.columns}
    raise_if_any(_check_stated(table, stated, path))
    chosen = dict(stated)
    if task in ("auto", "preference"):
        kind, found = find_columns(names, stated)
        if task == "preference" and (
            problem := unfit_columns(kind, preference_loss, table.columns, _columns_there(table), path.name)
        ):
            raise ProblemError(problem)
        if kind is not None and (task == "preference" or kind == "preference"):
            system = {"system": names["system"]} if "system" in names else {}
            return kind, {**system, **found, **chosen}
    layout = _layout_of_stated(chosen)
    if layout is None:
        layout, found = _detect(names, task, stated)
        chosen = {**found, **chosen}
    if layout is None:
        raise ProblemError(_wrong_columns(table, task, path))
    if layout == "messages" and _says_from(table, chosen["messages"]):
        layout = "sharegpt"
    if "system" not in chosen and layout not in ("text", "labelled") and "system" in names:
        chosen["system"] = names["system"]
    if layout in _UNFIT.get(task, ()):
        raise ProblemError(_wrong_columns(table, task, path))
    if layout in ("messages", "sharegpt") and task == "completion":
        raise ProblemError(
            Problem(
                code="data.task",
                what="These rows are conversations, and the task is to go on with a text.",
                where=f"{path.name}.",
                fix="Choose the task chat (task.kind = \"chat\"), or a file with a 'text' column.",
            )
        )
    return layout, chosen


def _check_stated(table: Table, stated: dict[str, str], path: Path) -> list[Problem]:
    problems = []
    for role, name in stated.items():
        if role not in _STATED_ROLES:
            problems.append(
                Problem(
                    code="data.columns",
                    what=f"'{role}' in [data] columns is not something a column can be.",
                    where=f"{path.name}.",
                    fix=did_you_mean(role, _STATED_ROLES),
                )
            )
        elif name not in table.columns:
            problems.append(
                Problem(
                    code="data.columns",
                    what=f"There is no column '{name}', which [data] columns names as {role}.",
                    where=f"{path.name}.",
                    found=_columns_there(table),
                    fix=did_you_mean(name, table.columns),
                )
            )
    return problems


def _layout_of_stated(stated: dict[str, str]) -> Layout | None:
    if "label" in stated:
        return "labelled" if "text" in stated else None
    if "messages" in stated:
        return "messages"
    if "instruction" in stated and "output" in stated:
        return "alpaca"
    if "prompt" in stated and "completion" in stated:
        return "prompt_completion"
    if "text" in stated:
        return "text"
    return None


def _detect(names: dict[str, str], task: str, stated: dict[str, str]) -> tuple[Layout | None, dict[str, str]]:
    if task == "classification" or "label" in stated:
        return _detect_labelled(names, stated)
    pairs = _TEXTS_IN_AND_OUT if task == "seq2seq" else ()
    for source, target in pairs:
        if source in names and target in names:
            return "prompt_completion", {"prompt": names[source], "completion": names[target]}
    for name in _CONVERSATION_NAMES if task != "completion" else ():
        if name in names:
            return "messages", {"messages": names[name]}
    if "instruction" in names and "output" in names:
        return "alpaca", {key: names[key] for key in _ALPACA if key in names}
    for prompt, completion in _PAIRS:
        if prompt in names and completion in names:
            return "prompt_completion", {"prompt": names[prompt], "completion": names[completion]}
    if task == "auto" and (labelled := _detect_labelled(names, stated))[0]:
        return labelled
    for name in _TEXT_NAMES:
        if name in names:
            return "text", {"text": names[name]}
    for name in _CONVERSATION_NAMES:
        if name in names:
            return "messages", {"messages": names[name]}
    return None, {}


def _detect_labelled(names: dict[str, str], stated: dict[str, str]) -> tuple[Layout | None, dict[str, str]]:
    """A column of texts and one of labels, either of which may be stated."""
    taken = set(stated.values())
    free = {name: column for name, column in names.items() if column not in taken}
    found: dict[str, str] = {}
    for role, known in (("text", _LABELLED_TEXTS), ("text_pair", _TEXT_PAIRS), ("label", _LABELS)):
        column = next((free[name] for name in known if name in free), None)
        if role not in stated and column is not None:
            found[role] = column
    whole = {"text", "label"} <= {*found, *stated}
    return ("labelled", found) if whole else (None, {})


def _says_from(table: Table, column: str) -> bool:
    for record in table.records[:20]:
        turns = _from_json(record.get(column))
        if isinstance(turns, list) and turns and isinstance(turns[0], dict):
            return "from" in turns[0] and "role" not in turns[0]
    return False


def _columns_there(table: Table) -> str:
    names = [f"'{name}'" for name in table.columns[:12]]
    more = f" and {len(table.columns) - 12} more" if len(table.columns) > 12 else ""
    return f"Columns there: {', '.join(names)}{more}."


def _wrong_columns(table: Table, task: str, path: Path) -> Problem:
    labelled = task == "classification"
    known = {*_CONVERSATION_NAMES[:2], *_TEXT_NAMES[:1], "prompt", "completion", "instruction", "output"}
    known = {"text", "label"} if labelled else known
    example = 'text = "...", label = "..."' if labelled else 'prompt = "...", completion = "..."'
    others = [name.lower() for name in table.columns if name.lower() not in known]
    close = [hint for name in others if "Did you mean" in (hint := did_you_mean(name, known))]
    near = f" {close[0]}" if close else ""
    return Problem(
        code="data.columns",
        what="No column holds what this task learns from.",
        where=f"{path.name}.",
        found=_columns_there(table),
        fix=f"{_NEEDED[task]} Rename the columns, or state them: [data] columns = {{ {example} }}.{near}",
    )


# From a record to a row.


class _Builder:
    """Makes rows of records; what is wrong with one goes to `faults`, and the record gives no row."""

    def __init__(
        self,
        layout: Layout,
        task: TaskKind,
        columns: dict[str, str],
        faults: Faults,
        says: ProblemType | None = None,
        split: bool = False,
    ) -> None:
        self._says: ProblemType = says or "single_label"
        self._split = split
        self._layout = layout
        self._task = task
        self._columns = columns
        self._faults = faults

    def build(self, number: int, record: dict[str, Any]) -> Row | None:
        match self._layout:
            case "messages" | "sharegpt":
                return self._conversation(number, record)
            case "text":
                text = self._text(number, record, "text")
                return None if text is None else Row(number, text=text)
            case "labelled":
                return self._labelled(number, record)
            case "preference":
                return self._preference(number, record)
            case "rated":
                return self._rated(number, record)
            case _:
                return self._pair(number, record)

    def _conversation(self, number: int, record: dict[str, Any]) -> Row | None:
        column = self._columns["messages"]
        value = _from_json(record.get(column))
        if value is None or value == []:
            self._no_answer(number, "The conversation is empty.")
            return None
        if not isinstance(value, list):
            self._wrong_type(number, column, "a list of turns", value)
            return None
        turns = [self._turn(number, column, place, item) for place, item in enumerate(value, start=1)]
        if any(turn is None for turn in turns):
            return None
        said = [turn for turn in turns if turn is not None]
        if "system" in self._columns and said[0].role != "system":
            system = self._optional(number, record, "system")
            said = [Turn("system", system), *said] if system else said
        if not any(turn.role == "assistant" for turn in said):
            self._no_answer(number, "")
            return None
        return self._two_texts(number, said) if self._task == "seq2seq" else Row(number, tuple(said))

    def _two_texts(self, number: int, said: Sequence[Turn]) -> Row | None:
        """The last answer of a conversation, and all before it, one turn a line, as the text that it comes from."""
        last = max(place for place, turn in enumerate(said) if turn.role == "assistant")
        if last == 0:
            self._faults.add(
                "data.no_source",
                number,
                "One conversation begins with its only answer: there is no text to turn into it.",
                "{n} conversations begin with their only answer: there is no text to turn into it.",
                "Put the text that the answer belongs to before it, or delete these rows.",
            )
            return None
        return Row(number, prompt="\n".join(turn.content for turn in said[:last]), text=said[last].content)

    def _turn(self, number: int, column: str, place: int, item: Any) -> Turn | None:
        where = f"{column}[{place}]"
        if not isinstance(item, dict):
            self._wrong_type(number, where, "a turn with role and content", item)
            return None
        name = item.get("role", item.get("from"))
        role = ROLES.get(name.strip().lower()) if isinstance(name, str) else None
        if role is None:
            self._unknown_role(number, item, name)
            return None
        content = _join_parts(item.get("content", item.get("value", item.get("text"))))
        if content is None:
            content = ""
        if not isinstance(content, str):
            self._wrong_type(number, where, "text", content)
            return None
        if not content.strip() and role != "system":
            self._empty(number, f"Turn {place} ({role}) says nothing.")
            return None
        return Turn(role, content) if self._readable(number, content) else None

    def _pair(self, number: int, record: dict[str, Any]) -> Row | None:
        alpaca = self._layout == "alpaca"
        prompt = self._text(number, record, "instruction" if alpaca else "prompt")
        answer = self._text(number, record, "output" if alpaca else "completion")
        if prompt is None or answer is None:
            return None
        if alpaca and "input" in self._columns:
            more = self._optional(number, record, "input")
            prompt = f"{prompt}\n\n{more}" if more else prompt
        system = self._optional(number, record, "system") if "system" in self._columns else ""
        if self._task == "completion":
            prompt = f"{system}\n\n{prompt}" if system else prompt
            return Row(number, prompt=seam(prompt, answer), text=answer)
        if self._task == "seq2seq":
            return Row(number, prompt=f"{system}\n{prompt}" if system else prompt, text=answer)
        said = [Turn("user", prompt), Turn("assistant", answer)]
        return Row(number, tuple([Turn("system", system), *said] if system else said))

    def _preference(self, number: int, record: dict[str, Any]) -> Row | None:
        better = self._answered(number, record, "chosen")
        worse = self._answered(number, record, "rejected")
        if better is None or worse is None:
            return None
        if better == worse:
            self._faults.add(
                "data.same_answers",
                number,
                "One pair has the same answer twice.",
                "{n} pairs have the same answer twice.",
                "Nothing can be preferred there: write another worse answer, or delete these rows.",
            )
            return None
        common = shared(better, worse)
        return Row(number, better[:common], chosen=better[common:], rejected=worse[common:])

    def _rated(self, number: int, record: dict[str, Any]) -> Row | None:
        said = self._answered(number, record, "completion")
        value = record.get(self._columns["label"])
        good = rating_of(value)
        if good is None:
            self._faults.add(
                "data.rating",
                number,
                "One row has a rating that is neither good nor bad.",
                "{n} rows have ratings that are neither good nor bad.",
                "Ratings are true or false, 1 or 0, good or bad, up or down.",
                f"Column '{self._columns['label']}' has {_shorten(value)}.",
            )
        if said is None or good is None:
            return None
        turns, answer = said[:-1], said[-1:]
        return Row(number, turns, chosen=answer) if good else Row(number, turns, rejected=answer)

    def _answered(self, number: int, record: dict[str, Any], role: str) -> tuple[Turn, ...] | None:
        """The whole conversation that ends with the answer in the column of `role`, which may hold it all already."""
        answer = self._said(number, record, role, "assistant")
        prompt = self._said(number, record, "prompt", "user") if "prompt" in self._columns else ()
        if answer is None or prompt is None:
            return None
        if answer[-1].role != "assistant":
            self._no_answer(number, f"Column '{self._columns[role]}' does not end with what the assistant says.")
            return None
        said = answer if answer[0].role != "assistant" else (*prompt, *answer)
        system = self._optional(number, record, "system") if "system" in self._columns else ""
        return (Turn("system", system), *said) if system and said[0].role != "system" else said

    def _said(self, number: int, record: dict[str, Any], role: str, speaker: str) -> tuple[Turn, ...] | None:
        """The turns in the column of `role`: those of a list of messages, or one of `speaker` from a text.

        An empty prompt has none; None when there was a fault.
        """
        column = self._columns[role]
        value = _from_json(record.get(column))
        listed = dialogue_in(value) if isinstance(value, str) else messages_in(value)
        if listed is not None:
            turns = [self._turn(number, column, place, item) for place, item in enumerate(listed, start=1)]
            return None if None in turns else tuple(turn for turn in turns if turn is not None)
        if role == "prompt" and (value is None or value == [] or (isinstance(value, str) and not value.strip())):
            return ()
        text = self._text(number, record, role)
        return None if text is None else (Turn(speaker, text),)

    def _labelled(self, number: int, record: dict[str, Any]) -> Row | None:
        text = self._text(number, record, "text")
        pair = self._text(number, record, "text_pair") if "text_pair" in self._columns else ""
        said = self._label(number, record)
        if text is None or pair is None or said is None:
            return None
        labels, value = said
        return Row(number, text=text, pair=pair, labels=labels, value=value)

    def _label(self, number: int, record: dict[str, Any]) -> tuple[tuple[str, ...], float | None] | None:
        column = self._columns["label"]
        try:
            labels, value = read_cell(record.get(column), self._says, self._split)
        except BadCellError as bad:
            there = "is empty" if bad.value is None else f"has {_shorten(bad.value)}"
            self._faults.add(bad.code, number, *bad.words, f"Column '{column}' {there}.")
            return None
        return (labels, value) if all(self._readable(number, label) for label in labels) else None

    def _text(self, number: int, record: dict[str, Any], role: str) -> str | None:
        column = self._columns[role]
        value = _join_parts(record.get(column))
        if value is None:
            value = ""
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            self._wrong_type(number, column, "text", value)
            return None
        if not value.strip():
            self._empty(number, f"Column '{column}' is empty.")
            return None
        return value if self._readable(number, value) else None

    def _optional(self, number: int, record: dict[str, Any], role: str) -> str:
        value = record.get(self._columns[role])
        if value is None:
            return ""
        if not isinstance(value, str):
            self._wrong_type(number, self._columns[role], "text", value)
            return ""
        return value if value.strip() and self._readable(number, value) else ""

    def _readable(self, number: int, text: str) -> bool:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            self._faults.add(
                "data.broken_text",
                number,
                "One row holds half of a character.",
                "{n} rows hold half of a character.",
                "Write these rows again as UTF-8. A \\ud800 to \\udfff escape without its partner stands for nothing.",
            )
            return False
        return True

    def _no_answer(self, number: int, detail: str) -> None:
        self._faults.add(
            "data.no_answer",
            number,
            "One conversation has no assistant turn to learn from.",
            "{n} conversations have no assistant turn to learn from.",
            "Add the answer, or delete these rows.",
            detail,
        )

    def _empty(self, number: int, detail: str) -> None:
        self._faults.add(
            "data.empty_text",
            number,
            "One row has an empty text.",
            "{n} rows have an empty text.",
            "Fill it in, or delete these rows.",
            detail,
        )

    def _unknown_role(self, number: int, item: dict[str, Any], name: Any) -> None:
        if name is None:
            keys = ", ".join(f"'{key}'" for key in list(item)[:6])
            detail = f"A turn has no 'role'; it has {keys or 'nothing'}."
        else:
            detail = f"There is the role {name!r}."
        self._faults.add(
            "data.role",
            number,
            "One row has a turn of nobody known.",
            "{n} rows have turns of nobody known.",
            "Roles are system, user, assistant and tool. " + (did_you_mean(name, ROLES) if _is_close(name) else ""),
            detail,
        )

    def _wrong_type(self, number: int, column: str, wanted: str, value: Any) -> None:
        self._faults.add(
            "data.type",
            number,
            "One row holds something other than text.",
            "{n} rows hold something other than text.",
            "Turns are objects with role and content, both text.",
            f"Column '{column}' should be {wanted}; there is {_shorten(value)}.",
        )


def _is_close(name: Any) -> bool:
    return isinstance(name, str) and "Did you mean" in did_you_mean(name, ROLES)


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 40 else text[:37] + "..."


def _from_json(value: Any) -> Any:
    """A cell of a table may hold its conversation as JSON text."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _join_parts(value: Any) -> Any:
    """The text of a content that is written as a list of text parts; anything else unchanged."""
    if not isinstance(value, list) or not value:
        return value
    texts = [
        part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else None for part in value
    ]
    joined = [text for text in texts if isinstance(text, str)]
    return "".join(joined) if len(joined) == len(value) else value


def seam(prompt: str, answer: str) -> str:
    """`prompt` with a line feed where it and `answer` would run into one word."""
    return prompt if prompt[-1:].isspace() or answer[:1].isspace() else prompt + "\n"
