"""How the command line shows things to people: progress, tables and problems, on a terminal or in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from tunedesk.core import events as e
from tunedesk.core.adapters import Adapter
from tunedesk.core.describe import DataInfo, ModelInfo, RenderedRow, TaskKind
from tunedesk.core.forgetting import verdict
from tunedesk.core.hardware import GIB
from tunedesk.core.matching import TASK_WORDS, TASKS, Match, short
from tunedesk.core.measures import metric_words
from tunedesk.core.methods import CATALOGUE, GROUPS, TRAINABLE, Method, default_learning_rate, method
from tunedesk.core.plan import Plan
from tunedesk.core.problems import Problem
from tunedesk.core.recommend import Advice
from tunedesk.core.state import RunState, reduce

OUT = Console(highlight=False, emoji=False)
ERR = Console(stderr=True, highlight=False, emoji=False)


def show_problems(problems: Iterable[Problem]) -> None:
    """Print problems to standard error: what is wrong, then where, what is there, what to do."""
    for problem in problems:
        first, *rest = problem.lines()
        ERR.print(Text("✗ ", style="red") + Text(first, style="bold"))
        for line in rest:
            ERR.print(Text("  " + line))


def rows(count: int) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} row{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """`48 s`, `32 min`, `1 h 26 min`."""
    if seconds < 60:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def gib(size: int) -> str:
    """A size in GiB with one decimal, two when small."""
    value = size / GIB
    return f"{value:.1f} GiB" if value >= 1 else f"{value:.2f} GiB"


def weights(count: int) -> str:
    """`135 million weights`; exact where it is less than a million."""
    return f"{count / 1e6:,.0f} million weights" if count >= 1e6 else f"{count:,} weights"


class TrainingView:
    """Shows a run as its events come: a bar on a terminal, a line now and then in a file."""

    def __init__(self, console: Console = OUT, state: RunState | None = None) -> None:
        self._console = console
        self.state = state or RunState()
        self._last_line = 0.0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def show(self, event: e.Event) -> None:
        """Take in one event."""
        self.state = reduce(self.state, event)
        match event:
            case e.Stage(text=text):
                self._say(text + " …")
            case e.Notice(text=text, level=level):
                self._say(text, {"warn": "yellow", "good": "green"}.get(level, ""))
            case e.ModelDescribed(info=info):
                self._say(f"Model: {info.name}, {weights(info.parameters)}.")
            case e.TrainingBegan():
                self._begin(event)
            case e.StepDone():
                self._step(event)
            case e.Evaluated(step=0, loss=loss):
                self._say(f"Held-out loss of the base model: {loss:.3f}")
            case e.Evaluated(step=step, loss=loss, metrics=metrics):
                words = f", {measures}" if (measures := metric_words(metrics)) else ""
                self._say(f"Step {step}: held-out loss {loss:.3f}{words}")
            case e.Finished():
                self._end()
            case _:
                pass

    def _say(self, text: str, style: str = "") -> None:
        console = self._bar.console if self._bar else self._console
        console.print(Text(text, style=style))

    def _begin(self, event: e.TrainingBegan) -> None:
        self._say(
            f"Training {event.trainable_parameters:,} weights beside {event.total_parameters:,} frozen ones on "
            f"{rows(event.train_rows)}, {event.eval_rows:,} held out; {event.device}, {event.precision}."
        )
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("Step {task.completed} of {task.total}"),
                BarColumn(),
                TextColumn("{task.description}"),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=event.total_steps, completed=event.first_step - 1)
            self._bar.start()

    def _step(self, event: e.StepDone) -> None:
        words = f"loss {event.loss:.3f} · {event.tokens / max(event.seconds, 1e-9):,.0f} tokens/s"
        left = self.state.seconds_left
        words += f" · about {duration(left)} left" if left is not None else ""
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=event.step, description=words)
        elif time.monotonic() - self._last_line > 10:
            self._last_line = time.monotonic()
            total = self.state.began.total_steps if self.state.began else 0
            self._say(f"Step {event.step} of {total} · {words}")

    def _end(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None
        sys.stdout.flush()


def show_verdict(state: RunState, folder: str) -> None:
    """The end of a run in two sentences, and what it forgot."""
    base, best = state.base_loss, state.best
    if state.status == "failed":
        return
    ended = "Done." if state.status == "completed" else f"Stopped at step {state.step}."
    if base and best and best.step > 0:
        change = (best.loss - base) / base
        word = "below" if change < 0 else "above"
        words = f", {measures}" if (measures := metric_words(best.metrics)) else ""
        OUT.print(
            f"{ended} Held-out loss went from {base:.3f} to {best.loss:.3f}, {abs(change):.0%} {word} the base model's"
            f"{words}."
        )
    else:
        OUT.print(ended)
    if state.forgetting:
        OUT.print(verdict(state.forgetting.measure, state.forgetting.before, state.forgetting.after)[1])
    OUT.print(f"Run folder: {folder}", markup=False, soft_wrap=True)


def show_plan(plan: Plan, model: ModelInfo | None) -> None:
    """The plan as a verdict, a table of parts and the changes."""
    asked = plan.asked
    band = (asked.high_bytes - asked.low_bytes) / 2
    verdict = "Fits" if plan.fits else "Does not fit"
    OUT.print(
        f"[bold]{verdict}:[/bold] needs about {asked.peak_bytes / GIB:.1f} GiB ± {band / GIB:.1f}, "
        f"{plan.device.free_bytes / GIB:.1f} of {plan.device.total_bytes / GIB:.1f} GiB is free on "
        f"{escape(plan.device.name)}."
    )
    if model:
        OUT.print(
            f"{escape(model.name)}: {plan.trainable_parameters:,} of {plan.total_parameters:,} weights are trained "
            f"({plan.trainable_parameters / max(1, plan.total_parameters):.2%})."
        )
    table = Table("Part", box=None, pad_edge=False)
    table.add_column("As asked", justify="right")
    if plan.changes:
        table.add_column("Suggested", justify="right")
    for part, size in asked.parts.items():
        row = [part.capitalize(), f"{size / GIB:.2f} GiB"]
        table.add_row(*row, *([f"{plan.suggested.parts[part] / GIB:.2f} GiB"] if plan.changes else []))
    OUT.print(table)
    for change in plan.changes:
        saved = f"saves {change.saved_bytes / GIB:.1f} GiB"
        OUT.print(f"Suggested: {change.label} {change.before} → {change.after}, {saved}. {change.note}", markup=False)
    if plan.changes and not plan.suggestion_fits:
        OUT.print("Even so it does not fit. A smaller model, or another device, is needed.")
    for other in plan.alternatives:
        OUT.print(f"Or: {other.title}, {gib(other.peak_bytes)}. {other.note}", markup=False)
    for reason in plan.reasons:
        OUT.print(reason, markup=False)
    resolved = plan.resolved
    OUT.print(
        f"{resolved.total_steps:,} steps of {resolved.micro_batch_size} × {resolved.gradient_accumulation_steps} rows, "
        f"learning rate {resolved.learning_rate:g}, {resolved.precision}, at most {resolved.max_length:,} tokens a row."
    )


def show_data(info: DataInfo, examples: Sequence[RenderedRow]) -> None:
    """What is in a file and what the model would see of its first rows."""
    OUT.print(
        f"[bold]{escape(info.name)}[/bold]: {rows(info.rows)}, {info.file_format}, "
        f"read as {info.layout} for {info.task}."
    )
    OUT.print(f"{rows(info.train_rows)} to train on, {info.eval_rows:,} held out.")
    if info.tokens:
        stats = info.tokens
        trained = "" if info.labels else f", {stats.trained_tokens / max(1, stats.tokens):.0%} of them trained"
        OUT.print(
            f"{stats.tokens:,} tokens{trained}. "
            f"Median {stats.median:,}, longest {stats.longest:,}; {stats.cut_rows:,} are cut at {stats.max_length:,}."
        )
    if info.labels:
        shown = ", ".join(f"{item.name} ({item.rows:,})" for item in info.labels[:20])
        more = f" and {len(info.labels) - 20:,} more" if len(info.labels) > 20 else ""
        OUT.print(f"{len(info.labels):,} labels: {shown}{more}.", markup=False)
    for finding in info.findings:
        OUT.print(Text(f"{finding.text} {finding.detail}", style="yellow" if finding.level == "warn" else ""))
    styles = {"trained": "blue underline", "context": "", "template": "dim", "cut": "red strike"}
    for row in examples[:3]:
        trained = "its label is trained" if info.labels else f"{row.trained_tokens} trained (underlined)"
        counts = f": {row.tokens} tokens, {trained}" if row.tokens else ""
        OUT.print(f"\n[dim]Row {row.row}{counts}[/dim]")
        for turn in row.turns:
            text = Text(f"{turn.role:>10}  ")
            for span in turn.spans:
                text.append(span.text, style=styles[span.kind])
            OUT.print(text)


def side_by_side(question: str, base: str, tuned: str) -> None:
    """One question with the answer of the original and of the tuned model in two columns."""
    table = Table(
        title=Text(f"You: {question}"), title_justify="left", title_style="bold", show_lines=False, expand=True
    )
    table.add_column("Original", ratio=1, overflow="fold")
    table.add_column("Tuned", ratio=1, overflow="fold")
    table.add_row(Text(base), Text(tuned))
    OUT.print(table)


# Methods.


def show_guide(items: Sequence[Method]) -> None:
    """Every method in a few lines, by where it changes the network."""
    for group, title in GROUPS.items():
        OUT.print(f"[bold]{title}[/bold]\n")
        for item in items:
            if item.group == group:
                _show_in_short(item)
    OUT.print(
        "More of one: tunedesk methods NAME. What works on a model: --model M. Which suits: --advise.", markup=False
    )


def _show_in_short(item: Method) -> None:
    OUT.print(f"[bold]{item.title}[/bold] [dim]({item.name})[/dim]  {item.summary} Suits {item.suits}.{_not_yet(item)}")
    _show_points(item)
    OUT.print()


def _not_yet(item: Method) -> str:
    return "" if item.name in TRAINABLE else " [dim]Not in this version yet.[/dim]"


def _trained_now() -> str:
    titles = [item.title for item in CATALOGUE if item.name in TRAINABLE]
    return "" if len(titles) == len(CATALOGUE) else f"This version trains {' and '.join(titles)}."


def _show_points(item: Method) -> None:
    for word, lines in (("good", item.good), ("not for", item.poor)):
        for line in lines:
            OUT.print(f"  {word:>7}  {line}", markup=False)
    OUT.print(f"  {'source':>7}  {item.source}", markup=False)


def show_method(item: Method) -> None:
    """One method in full."""
    _show_in_short(item)
    yes = {True: "yes", False: "no"}
    rates = sorted({default_learning_rate(item.name, size) for size in (10**8, 10**9, 7 * 10**9, 70 * 10**9)})
    low, high = f"{rates[0]:g}", f"{rates[-1]:g}"
    facts = (
        ("What it changes", item.changes),
        ("Learning rate", f"{low if low == high else f'{low} to {high}, by the size of the model'}: {item.rates}."),
        ("Becomes part of the model's weights", yes[item.merges]),
        ("Works on 4-bit weights", yes[item.four_bit]),
        ("Takes places from the context", yes[item.virtual]),
    )
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts:
        table.add_row(name, Text(value))
    OUT.print(table)
    if not item.fields:
        OUT.print("\nIt has no settings of its own.")
        return
    settings = Table("\nSetting", "\nKey", "\nWhat it does", box=None, pad_edge=False)
    for field in item.fields:
        settings.add_row(field.label, field.key, Text(field.help))
    OUT.print(settings)


def show_matches(model: ModelInfo, task: TaskKind, found: Sequence[Match]) -> None:
    """What works on one model for one task, how much of it is trained, and why the rest does not."""
    OUT.print(f"{escape(model.name)}, {weights(model.parameters)}, to {TASK_WORDS[task]}:")
    table = Table("Method", box=None, pad_edge=False)
    table.add_column("Trained", justify="right")
    table.add_column("Share", justify="right")
    table.add_column("")
    for item in found:
        title = method(item.method).title
        if item.problem:
            words = " ".join(part for part in (item.problem.what, item.problem.found, item.problem.fix) if part)
            table.add_row(title, "–", "–", Text(f"✗ {words}"))
        else:
            words = " ".join(("✓", *item.cautions))
            table.add_row(title, f"{item.trained:,}", share(item.share), Text(words))
    OUT.print(table)
    OUT.print(_trained_now())


def share(value: float) -> str:
    """A share with as many digits as it needs: ``2.4%``, ``0.052%``."""
    if value >= 0.01:
        return f"{value:.1%}".replace(".0%", "%")
    return f"{value:.3%}"


def show_matrix(table: Mapping[str, Sequence[Match]]) -> None:
    """Every family with every task, then with every method: yes, or why not in a few words."""
    heads = Table("", *table, box=None, pad_edge=False)
    for task in TASKS:
        cells = [next(item for item in row if item.task == task) for row in table.values()]
        problems = [item.problem if _is_task(item) else None for item in cells]
        heads.add_row(task, *(short(problem) for problem in problems))
    heads.add_row()
    for entry in CATALOGUE:
        heads.add_row(entry.title, *(_cell(row, entry) for row in table.values()))
    OUT.print(heads)
    names = ", ".join(row[0].model for row in table.values())
    OUT.print(f"\nAs of {names}. In full for one model: tunedesk methods --model M", markup=False)


def _is_task(item: Match) -> bool:
    return item.problem is not None and item.problem.code.startswith("model.")


def _cell(row: Sequence[Match], entry: Method) -> str:
    """The answer for the tasks that the family can do at all; the task where they differ."""
    mine = [item for item in row if item.method == entry.name and not _is_task(item)]
    words = {short(item.problem) for item in mine}
    if len(words) == 1:
        return words.pop()
    return ", ".join(f"{item.task}: {short(item.problem)}" for item in mine) or "–"


@dataclass(frozen=True)
class Question:
    """A question of the advice, what may be answered (value, words), and the option that answers it."""

    text: str
    option: str
    answers: tuple[tuple[str, str], ...] = ()


ADVICE_QUESTIONS = {
    "task": Question(
        "What should the model learn?", "--task", tuple((task, words) for task, words in TASK_WORDS.items())
    ),
    "rows": Question("How many rows of data are there?", "--rows"),
    "memory": Question(
        "How much memory is there beside the model?",
        "--memory",
        (
            ("ample", "enough to train every weight, 18 bytes each"),
            ("fits", "enough for its weights in 16 bits and some more"),
            ("tight", "enough for its weights in 4 bits alone"),
            ("short", "less than that"),
        ),
    ),
    "keep": Question(
        "How much do its old skills matter?",
        "--keep-skills",
        (("little", "not much"), ("some", "it should stay sensible"), ("much", "nothing may be lost")),
    ),
}


def show_adapters(found: Sequence[Adapter], current: str | None = None) -> None:
    """A table of adapters; the one in the folder `current` is marked."""
    if not found:
        OUT.print("No adapters yet. A finished run has one; `tunedesk adapters import` takes others.", markup=False)
        return
    table = Table("Name", "Method", "Task", "Model", box=None, pad_edge=False)
    table.add_column("Size", justify="right")
    for name in ("From", "When"):
        table.add_column(name, no_wrap=True)
    for item in found:
        mark = "• " if str(item.path) == current else ""
        method_title = method(item.method).title if item.method else "–"
        size, when = f"{item.bytes / 1e6:.1f} MB", f"{datetime.fromtimestamp(item.created):%Y-%m-%d %H:%M}"
        names = (mark + item.name, method_title, item.task or "–", item.base, size, item.origin, when)
        table.add_row(*(escape(text) for text in names))
    OUT.print(table)


def ask_for(key: str) -> Any:
    """Ask one of `ADVICE_QUESTIONS` until it is answered with one of the words or numbers there."""
    question = ADVICE_QUESTIONS[key]
    OUT.print(f"[bold]{question.text}[/bold]")
    for value, words in question.answers:
        OUT.print(f"  {value:<15} {words}", markup=False)
    while True:
        answer = input("> ").strip().lower().replace(",", "")
        if not question.answers and answer.isdecimal():
            return int(answer)
        if answer in dict(question.answers):
            return answer
        OUT.print("One of the words on the left." if question.answers else "A whole number.")


_FACTS: dict[str, tuple[dict[str, Any], str]] = {
    "changing": ({"changing": True}, "the data holds facts that soon change"),
    "prompt": ({"prompting": "enough"}, "a good prompt does it already"),
    "tried": ({"prompting": "weak"}, "a good prompt was tried and is not enough"),
    "far": ({"shift": "far"}, "the data is in another language or a field that the model hardly knows"),
    "best": ({"last_point": True}, "the last point of quality is worth any price"),
    "manner": ({"manner": True}, "it is about a tone or a persona, not a skill"),
    "single": ({"one_file": True}, "a single plain model must come out"),
    "network": ({"new_parts": True}, "the network itself is to change"),
    "unknown": ({"known": False}, "the model is no transformer of a common family"),
}


def ask_facts() -> dict[str, Any]:
    """Ask which of a few facts hold; the fields of a `Situation` that follow."""
    OUT.print("[bold]Is any of this so?[/bold] Words from the left, or Enter for none.")
    for word, (_, text) in _FACTS.items():
        OUT.print(f"  {word:<15} {text}", markup=False)
    said = input("> ").lower().replace(",", " ").split()
    return {key: value for word in said if word in _FACTS for key, value in _FACTS[word][0].items()}


def show_advice(advice: Advice) -> None:
    """The verdict, its reasons and the methods in order."""
    verdicts = {
        "peft": "Train a small part of the model.",
        "full": "Train all of the model.",
        "none": "Do not train.",
        "cannot": "These methods do not work here.",
    }
    OUT.print(f"[bold]{verdicts[advice.verdict]}[/bold]")
    for reason in advice.reasons:
        OUT.print(f"  {reason}", markup=False)
    for place, choice in enumerate(advice.ranked, 1):
        item = method(choice.method)
        OUT.print(f"{place}. [bold]{item.title}[/bold]  {choice.why}{_not_yet(item)}")
    if advice.instead:
        OUT.print(advice.instead, markup=False)
