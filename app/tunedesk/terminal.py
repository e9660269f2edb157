"""How the command line shows things to people: progress, tables and problems, on a terminal or in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from tunedesk.core import events as e
from tunedesk.core.describe import DataInfo, ModelInfo, RenderedRow
from tunedesk.core.hardware import GIB
from tunedesk.core.plan import Plan
from tunedesk.core.problems import Problem
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
                self._say(f"Step {step}: held-out loss {loss:.3f}" + metric_words(metrics))
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


def metric_words(metrics: Mapping[str, float]) -> str:
    """`, accuracy 92.1%, macro-F1 0.918`: what is known of a check beside its loss."""
    words = ""
    if "accuracy" in metrics:
        words += f", accuracy {metrics['accuracy']:.1%}"
    if "macro_f1" in metrics:
        words += f", macro-F1 {metrics['macro_f1']:.3f}"
    return words


def show_verdict(state: RunState, folder: str) -> None:
    """The end of a run in two sentences."""
    base, best = state.base_loss, state.best
    if state.status == "failed":
        return
    ended = "Done." if state.status == "completed" else f"Stopped at step {state.step}."
    if base and best and best.step > 0:
        change = (best.loss - base) / base
        word = "below" if change < 0 else "above"
        OUT.print(
            f"{ended} Held-out loss went from {base:.3f} to {best.loss:.3f}, {abs(change):.0%} {word} the base model's"
            f"{metric_words(best.metrics)}."
        )
    else:
        OUT.print(ended)
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
