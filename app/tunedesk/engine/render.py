"""Rows as the model sees them: token ids and which of them are trained, from the tokenizer's own chat template.

What the window shows and what the trainer receives both come from `Renderer`.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from tunedesk.core.describe import RenderedRow, RenderedTurn, Span, SpanKind, TaskKind, TokenStats
from tunedesk.core.problems import Problem, ProblemError, raise_if_any
from tunedesk.engine.rows import Faults, Row, Tick, Turn, name_rows

Range = tuple[int, int]
"""Characters from the first to before the second."""

_BATCH = 256
_MARK = "\N{LATIN SMALL LETTER TURNED V}q{n}z\N{LATIN SMALL LETTER TURNED V}"


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A row in tokens, not cut. `trained[i]` is 1 where the model is taught to say token i, 0 elsewhere."""

    number: int
    ids: array[int]
    trained: bytes

    @property
    def trained_count(self) -> int:
        return sum(self.trained)

    @property
    def length(self) -> int:
        """What `max_length` is compared with, in tokens."""
        return len(self.ids)

    def cut(self, max_length: int) -> TokenRow:
        """The first `max_length` tokens."""
        return (
            self
            if len(self.ids) <= max_length
            else TokenRow(self.number, self.ids[:max_length], self.trained[:max_length])
        )

    @property
    def needed(self) -> int:
        """The shortest `max_length`, in tokens, that leaves a trained token."""
        return self.trained.find(1) + 1


@dataclass(frozen=True, slots=True)
class Written:
    """A row as text, and the ranges of its characters that are trained."""

    text: str
    trained: tuple[Range, ...]


class Renderer:
    """Turns rows into tokens for one tokenizer and task.

    Raises `ProblemError` when the task needs a chat template and there is none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, task: TaskKind, model_name: str) -> None:
        self._tokenizer = tokenizer
        self._name = model_name
        self._task = task
        check_offsets(tokenizer, model_name)
        self._template = _template_of(tokenizer) if task == "chat" else ""
        if task == "chat" and not self._template:
            raise ProblemError(no_template(model_name))
        self._specials = _special_texts(tokenizer)
        self._lead = _leading_ids(tokenizer)
        self._lead_text = "".join(tokenizer.convert_ids_to_tokens(self._lead))
        eos = tokenizer.eos_token_id
        self._eos_id: int | None = eos if isinstance(eos, int) else None

    # In tokens.

    def render(self, rows: Sequence[Row], path: Path, unit: Any = "line", tick: Tick | None = None) -> list[TokenRow]:
        """Every row in tokens, not cut. `path` and `unit` only serve to name rows in problems.

        Raises `ProblemError` for rows that the template refuses or does not render dependably.
        """
        faults = Faults(unit, path)
        result: list[TokenRow] = []
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            written = [self._write_or_note(row, faults) for row in part]
            whole = [(row, item) for row, item in zip(part, written, strict=True) if item is not None]
            if whole:
                result += [row for row, _ in self._tokenise(whole)]
            if tick:
                tick(min(start + _BATCH, len(rows)), len(rows))
        raise_if_any(faults.problems())
        return result

    def _write_or_note(self, row: Row, faults: Faults) -> Written | None:
        try:
            return self.write(row)
        except jinja2.exceptions.TemplateSyntaxError as error:
            raise ProblemError(broken_template(error)) from error
        except jinja2.exceptions.TemplateError as error:
            faults.add(
                "template.refuses",
                row.number,
                "The model's chat template refuses one conversation.",
                "The model's chat template refuses {n} conversations.",
                "Change these rows to what the template allows, or choose another model.",
                f"It says: {str(error).rstrip('.')}.",
            )
        except _UnstableError:
            faults.add(
                "template.unstable",
                row.number,
                "The chat template rewrites one conversation, so what is trained cannot be told from the rest.",
                "The chat template rewrites {n} conversations, so what is trained cannot be told from the rest.",
                "Choose another model, or take out what the template changes (such as <think> parts).",
            )
        return None

    def _tokenise(self, written: Sequence[tuple[Row, Written]]) -> list[tuple[TokenRow, list[Range]]]:
        """Token rows with the characters that each token stands for."""
        skip = 0 if self._task == "chat" else len(self._lead_text)
        texts = [item.text[skip:] for _, item in written]
        out = self._tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        result = []
        for (row, item), ids, offsets in zip(written, out["input_ids"], out["offset_mapping"], strict=True):
            places = _cover([(start + skip, end + skip) for start, end in offsets])
            lead: list[int] = []
            if skip:
                lead, place = self._lead, 0
                for token in reversed(self._tokenizer.convert_ids_to_tokens(lead)):
                    places.insert(0, (max(0, skip - place - len(token)), skip - place))
                    place += len(token)
            marks = _mark(places, item.trained)
            if marks:
                marks[0] = 0  # nothing comes before the first token that could predict it
            result.append((TokenRow(row.number, array("i", [*lead, *ids]), bytes(marks)), places))
        return result

    # In text.

    def write(self, row: Row) -> Written:
        """The row's text as the model gets it. Raises `jinja2` template errors, or `_UnstableError`."""
        if self._task == "completion":
            return self._write_completion(row)
        messages = [{"role": turn.role, "content": turn.content} for turn in row.turns]
        if "generation" in self._template and "{% generation" in self._template.replace("{%-", "{%"):
            written = self._by_marks(messages)
            if written is not None:
                return written
        return self._by_prefixes(messages) or self._by_places(messages)

    def _write_completion(self, row: Row) -> Written:
        eos = self._tokenizer.eos_token if self._eos_id is not None else ""
        text = row.text
        lead = "" if (row.prompt + text).startswith(self._lead_text) else self._lead_text
        # Text that brings its own lead (a BOS) gets no second one; the lead is then cut off and put back as tokens.
        body = row.prompt + text if lead else (row.prompt + text)[len(self._lead_text) :]
        whole = self._lead_text + body
        start = len(whole) - len(text) if row.prompt else len(self._lead_text)
        if eos and not whole.endswith(str(eos)):
            whole += str(eos)
        return Written(whole, ((start, len(whole)),))

    def _template_text(self, messages: Sequence[dict[str, str]], prompt: bool = False) -> str:
        rendered, _ = self._rendered(messages, prompt, marks=False)
        return rendered

    def _rendered(self, messages: Sequence[dict[str, str]], prompt: bool, marks: bool) -> tuple[str, list[Range]]:
        try:
            texts, ranges = render_jinja_template(
                conversations=[list(messages)],
                chat_template=self._template,
                return_assistant_tokens_mask=marks,
                add_generation_prompt=prompt,
                **self._tokenizer.special_tokens_map,
            )
        except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            raise jinja2.exceptions.TemplateError(f"{type(error).__name__}: {error}") from error
        return texts[0], list(ranges[0]) if marks and ranges else []

    def _by_marks(self, messages: Sequence[dict[str, str]]) -> Written | None:
        """By the template's own generation marks, each stretched to the closing token after it."""
        text, ranges = self._rendered(messages, prompt=False, marks=True)
        if not ranges:
            return None
        closed = []
        for start, end in ranges:
            end = start + len(text[start:end].rstrip()) if self._closes(text[start:end]) else end
            if not self._closes(text[start:end]):
                end += self._closing(text[end:])
            closed.append((start, end))
        return self._ended(text, closed, messages)

    def _by_prefixes(self, messages: Sequence[dict[str, str]]) -> Written | None:
        """By the difference between the conversation before and after each answer; None when one is no prefix."""
        text = self._template_text(messages)
        ranges = []
        for place, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            try:
                before = self._template_text(messages[:place], prompt=True)
                after = text if place + 1 == len(messages) else self._template_text(messages[: place + 1])
            except jinja2.exceptions.TemplateError:
                return None
            if not after.startswith(before) or not text.startswith(after):
                return None
            said = after[len(before) :].rstrip()
            if message["content"].strip() not in said:
                return None
            ranges.append((len(before), len(before) + len(said)))
        return self._ended(text, ranges, messages)

    def _by_places(self, messages: Sequence[dict[str, str]]) -> Written:
        """By where the answers stand: the template is rendered with marks in their place, then compared.

        Serves templates that render earlier turns differently once others follow.
        """
        text = self._template_text(messages)
        marked = [dict(message) for message in messages]
        answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        for place in answers:
            marked[place]["content"] = _MARK.format(n=place)
        skeleton = self._template_text(marked)
        ranges, at, rest = [], 0, skeleton
        for place in answers:
            before, found, rest = rest.partition(_MARK.format(n=place))
            if not found or not text.startswith(before, at):
                raise _UnstableError
            start = at + len(before)
            content = messages[place]["content"]
            shown = next((form for form in _forms(content) if text.startswith(form, start)), None)
            if shown is None:
                raise _UnstableError
            at = start + len(shown)
            ranges.append((start, at + self._closing(text[at:])))
        if text[at:] != rest:
            raise _UnstableError
        return self._ended(text, ranges, messages)

    def _ended(self, text: str, ranges: list[Range], messages: Sequence[dict[str, str]]) -> Written:
        """With the end-of-text token added where the template leaves the last answer open."""
        last = ranges[-1]
        open_end = messages[-1]["role"] == "assistant" and not self._closes(text[last[0] : last[1]])
        if open_end and self._eos_id is not None and not text[last[1] :].strip():
            text = text[: last[1]] + str(self._tokenizer.eos_token)
            ranges[-1] = (last[0], len(text))
        return Written(text, tuple(ranges))

    def _closes(self, said: str) -> bool:
        return said.rstrip().endswith(self._specials) if self._specials else False

    def _closing(self, tail: str) -> int:
        """How many characters of `tail` reach to the end of the closing token that it begins with; 0 if none."""
        bare = tail.lstrip()
        found = next((item for item in self._specials if bare.startswith(item)), "")
        return len(tail) - len(bare) + len(found) if found else 0

    # For people.

    def show(self, row: Row, max_length: int) -> RenderedRow:
        """The row as spans of one token each, coloured by kind; joined they are the exact text of `write`."""
        written = self.write(row)
        tokens, places = self._tokenise([(row, written)])[0]
        contents = _contents(written, row)
        bounds = self._turn_bounds(written, row, contents)
        turns: list[tuple[str, list[Span]]] = [(role, []) for role, _ in bounds]
        done, current = 0, 0
        for index, (start, end) in enumerate(places):
            while current + 1 < len(bounds) and start >= bounds[current + 1][1]:
                current += 1
            kind = _kind(index, (start, end), tokens, contents, max_length)
            stop = max(done, end)
            turns[current][1].append(Span(text=written.text[done:stop], kind=kind))
            done = stop
        kept = tokens.cut(max_length)
        return RenderedRow(
            row=row.number,
            turns=tuple(RenderedTurn(role=role, spans=tuple(spans)) for role, spans in turns if spans),
            tokens=len(tokens.ids),
            trained_tokens=kept.trained_count,
        )

    def _turn_bounds(self, written: Written, row: Row, contents: Sequence[Range]) -> list[tuple[str, int]]:
        """(role, first character) of each turn, in the order of the text."""
        if not row.turns:
            prompt = [("prompt", 0)] if row.prompt else []
            return [*prompt, ("text", written.trained[0][0] if row.prompt else 0)]
        (first, (start, end)), *others = _spoken(row, contents)
        bounds = [(first, 0)]
        written_by_template = self._own_system(written.text[:start])
        if written_by_template and first != "system":
            bounds = [("system", 0), (first, written_by_template)]
        for role, (start, stop) in others:
            bounds.append((role, self._turn_start(written.text, end, start)))
            end = stop
        return bounds

    def _own_system(self, lead: str) -> int:
        """Where a system turn that the template adds by itself ends in `lead`, the text before the first content."""
        closing = self._tokenizer.eos_token or ""
        place = lead.find(closing, 1) if closing and not self._closes(lead) else -1
        return _after_space(lead, place + len(closing)) if place > 0 else 0

    def _turn_start(self, text: str, end: int, start: int) -> int:
        """Where, between the end of one content and the start of the next, the new turn begins."""
        if self._closes(text[:end]):
            return _after_space(text, end)
        gap = text[end:start]
        places = [place + len(item) for item in self._specials if (place := gap.find(item)) >= 0]
        return _after_space(text, end + min(places)) if places else end


def _after_space(text: str, place: int) -> int:
    """The first place from `place` on that is no white space."""
    return place + len(text[place:]) - len(text[place:].lstrip())


class _UnstableError(Exception):
    """The template rewrites what it is given."""


def check_offsets(tokenizer: PreTrainedTokenizerBase, model_name: str) -> None:
    """Raises `ProblemError` when the tokenizer does not say which characters a token stands for."""
    if not tokenizer.is_fast:
        raise ProblemError(
            Problem(
                code="model.tokenizer",
                what=f"The tokenizer of {model_name} does not say which characters a token stands for.",
                fix="Choose a model that has a tokenizer.json.",
            )
        )


def no_template(model_name: str) -> Problem:
    """The problem of a conversation for a model that does not know any."""
    return Problem(
        code="template.missing",
        what=f"{model_name} has no chat template, so it does not know what a conversation looks like.",
        fix='Choose an instruct model, or the task completion (task.kind = "completion").',
    )


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the tokenizer's vocabulary, rules and chat template."""
    rules = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(f"{rules}\0{tokenizer.chat_template}".encode()).hexdigest()


def cut_rows(rows: Sequence[TokenRow], max_length: int) -> tuple[list[TokenRow], list[int]]:
    """(rows cut at `max_length` that still teach, numbers of those that do not)."""
    kept = [row.cut(max_length) for row in rows]
    return [row for row in kept if any(row.trained)], [row.number for row in kept if not any(row.trained)]


def all_cut(rows: Sequence[TokenRow], max_length: int, unit: Any) -> Problem:
    """The problem of `max_length` leaving no row a token to learn."""
    needed = min((row.needed for row in rows if row.needed), default=0)
    median = sorted(row.length for row in rows)[len(rows) // 2]
    return Problem(
        code="data.all_cut",
        what=f"Every row is longer than max_length ({max_length:,}): nothing to learn is left of any.",
        where=f"All {len(rows):,} rows, {name_rows([row.number for row in rows], unit)}.",
        found=f"The first trained token comes at {needed:,} tokens at the earliest; half the rows are longer than "
        f"{median:,}.",
        fix=f"Set training.max_length to at least {needed:,}, better {max(row.length for row in rows):,} "
        "(the longest row).",
    )


def token_stats(rows: Sequence[TokenRow], max_length: int) -> TokenStats:
    """Lengths of `rows` (not cut), and what `max_length` cuts of them. `rows` must not be empty."""
    lengths = sorted(row.length for row in rows)
    longest = lengths[-1]
    width = next(size for size in (8, 16, 32, 64, 128, 256, 512, 1024, 4096, 65536, 2**31) if longest / size <= 40)
    histogram = [0] * (longest // width + 1)
    for length in lengths:
        histogram[length // width] += 1
    cut = [row.cut(max_length) for row in rows]
    trained = sum(row.trained_count for row in cut)
    return TokenStats(
        tokens=sum(len(row.ids) for row in cut),
        trained_tokens=trained,
        median=lengths[len(lengths) // 2],
        p90=lengths[min(len(lengths) - 1, len(lengths) * 9 // 10)],
        longest=longest,
        bin_width=width,
        histogram=tuple(histogram),
        max_length=max_length,
        cut_rows=sum(len(part.ids) < len(row.ids) for part, row in zip(cut, rows, strict=True)),
        mean_trained=trained / len(rows),
    )


def _template_of(tokenizer: PreTrainedTokenizerBase) -> str:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        return str(template.get("default", ""))
    return template or ""


def _special_texts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Every token that is not made of ordinary text, the longest first."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if not token.content.isspace()]
    return tuple(sorted({*added, *tokenizer.all_special_tokens}, key=len, reverse=True))


def _leading_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before a plain text: a BOS, or nothing."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a", add_special_tokens=True)["input_ids"]
    for place in range(len(whole)):
        if whole[place : place + len(plain)] == plain:
            return list(whole[:place])
    return []


def _cover(offsets: Iterable[Range]) -> list[Range]:
    """Offsets in which every character belongs to a token: one that was trimmed goes to the token after it."""
    places = []
    done = 0
    for start, end in offsets:
        places.append((done if done < end else start, max(start, end)))
        done = max(done, end)
    return places


def _mark(places: Sequence[Range], ranges: Sequence[Range]) -> bytearray:
    marks = bytearray(len(places))
    at = 0
    for index, (start, end) in enumerate(places):
        while at < len(ranges) and ranges[at][1] <= start:
            at += 1
        if at < len(ranges):
            marks[index] = ranges[at][0] < max(end, start + 1)
    return marks


def _forms(content: str) -> tuple[str, ...]:
    """How templates may write a content, the most faithful first."""
    bare = content.split("</think>")[-1]
    return content, content.rstrip(), content.lstrip(), content.strip(), bare.strip("\n"), bare.strip()


def _contents(written: Written, row: Row) -> list[Range]:
    """Where the turns' words stand in the text, in the order of the turns; (-1, -1) for one that is not found."""
    if not row.turns:
        start = written.trained[0][0]
        lead = len(written.text) - len(row.prompt) - len(row.text)
        return [(max(0, min(lead, start)), start), written.trained[0]]
    places: list[Range] = []
    at = 0
    ranges = iter(written.trained)
    for turn in row.turns:
        found = next(ranges, (-1, -1)) if turn.role == "assistant" else _find(written.text, turn, at)
        places.append(found)
        at = max(at, found[1])
    return places


def _find(text: str, turn: Turn, at: int) -> Range:
    words = turn.content.strip()
    place = text.find(words, at) if words else -1
    return (place, place + len(words)) if place >= 0 else (-1, -1)


def _spoken(row: Row, contents: Sequence[Range]) -> list[tuple[str, Range]]:
    found = [(turn.role, place) for turn, place in zip(row.turns, contents, strict=True) if place[0] >= 0]
    return sorted(found, key=lambda item: item[1])


def _kind(index: int, place: Range, tokens: TokenRow, contents: Sequence[Range], max_length: int) -> SpanKind:
    if index >= max_length:
        return "cut"
    if tokens.trained[index]:
        return "trained"
    start, end = place
    inside = any(first < max(end, start + 1) and start < last for first, last in contents)
    return "context" if inside else "template"


def broken_template(error: jinja2.exceptions.TemplateSyntaxError) -> Problem:
    """The problem of a chat template that is no valid Jinja."""
    return Problem(
        code="template.broken",
        what="The model's chat template is broken.",
        where=f"Chat template, line {error.lineno}.",
        found=f"{str(error.message or error).rstrip('.')}.",
        fix="Download the model again, or mend chat_template in its folder.",
    )
