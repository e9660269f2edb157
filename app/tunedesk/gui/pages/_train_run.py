"""The Train page of a run: progress or verdict, charts, memory, and what is happening."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from PySide6.QtCore import QSize, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import (
    QBoxLayout,
    QHBoxLayout,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from tunedesk.core.describe import DataInfo
from tunedesk.core.plan import Plan
from tunedesk.core.state import LogLine as StateLine
from tunedesk.core.state import RunState
from tunedesk.gui import words
from tunedesk.gui.pages._points import GrowingPoints, Point
from tunedesk.gui.pages._train_checks import ChecksCard
from tunedesk.gui.pages._train_forgetting import ForgettingGauge
from tunedesk.gui.pages._train_loss import LossCard
from tunedesk.gui.pages._train_words import (
    elapsed,
    epoch_steps,
    epoch_words,
    log_line,
    planned_rates,
    verdict,
)
from tunedesk.gui.theme import Theme, pixmap
from tunedesk.gui.widgets import (
    Button,
    Card,
    ElidedLabel,
    Label,
    LogLine,
    LogList,
    SlimProgress,
    TwoColumns,
)
from tunedesk.gui.widgets.charts import SmallChart

MOST_LOG_LINES = 400
MANY = 1000
"""From so many steps on the charts take turns."""


BESIDE = 880
"""Width from which the verdict has what was forgotten beside it."""


class ProgressCard(Card):
    """Step, epoch, time and the bar; or, once ended, the verdict in the same place."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.setObjectName("progress")
        self.stack = QStackedWidget()
        self.stack.addWidget(self._build_progress())
        self.stack.addWidget(self._build_verdict())
        self.body.setContentsMargins(15, 11, 15, 11)
        self.add(self.stack)

    def _build_progress(self) -> QWidget:
        whole = QWidget()
        column = QVBoxLayout(whole)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        self.step = self._label("step", "strong", "t1")
        self.total = self._label("total", "body", "t2")
        self.epoch = self._label("epoch", "body", "t2")
        self.so_far = self._label("soFar", "body", "t2")
        self.left = self._label("left", "strong", "t1")
        self.done_at = self._label("doneAt", "body", "t2")
        row = QHBoxLayout()
        row.setSpacing(0)
        row.addWidget(self.step)
        row.addSpacing(4)
        row.addWidget(self.total)
        row.addSpacing(24)
        row.addWidget(self.epoch)
        row.addSpacing(24)
        row.addWidget(self.so_far)
        row.addStretch(1)
        row.addWidget(self.left)
        row.addWidget(self.done_at)
        self.bar = SlimProgress()
        self.bar.setObjectName("progressBar")
        self.bar.setAccessibleName(self.tr("Steps done"))
        column.addLayout(row)
        column.addWidget(self.bar)
        return whole

    def _label(self, name: str, role: str, tone: str) -> Label:
        label = Label("", role, tone)  # type: ignore[arg-type]
        label.setObjectName(name)
        return label

    def _build_verdict(self) -> QWidget:
        whole = QWidget()
        self._ended = QBoxLayout(QBoxLayout.Direction.LeftToRight, whole)
        self._ended.setContentsMargins(0, 0, 0, 0)
        self._ended.setSpacing(12)
        row = QHBoxLayout()
        row.setSpacing(12)
        self.sign = _Sign()
        row.addWidget(self.sign)
        column = QVBoxLayout()
        column.setSpacing(0)
        self.headline = ElidedLabel("", "verdict")
        self.headline.setObjectName("verdict")
        self.detail = ElidedLabel("", "body", "t2")
        self.detail.setObjectName("verdictDetail")
        column.addWidget(self.headline)
        column.addWidget(self.detail)
        row.addLayout(column, 1)
        self.forgetting = ForgettingGauge()
        self._ended.addLayout(row, 1)
        self._ended.addWidget(self.forgetting)
        return whole

    def resizeEvent(self, event: QResizeEvent) -> None:
        """What was forgotten stands beside the verdict, or under it where there is no room."""
        super().resizeEvent(event)
        wide = self.width() >= Theme.of().px(BESIDE)
        self.forgetting.set_beside(beside=wide)
        self._ended.setDirection(QBoxLayout.Direction.LeftToRight if wide else QBoxLayout.Direction.TopToBottom)

    def show_state(self, state: RunState) -> None:
        """Show how far the run is, or how it ended."""
        if state.ended and state.status != "failed":
            self._show_verdict(state)
            return
        self.stack.setCurrentIndex(0)
        self.set_tone(None)
        if state.began is None or state.status == "starting":
            self._show_stage(state)
        else:
            self._show_steps(state)

    def _show_stage(self, state: RunState) -> None:
        progress = state.progress
        self.step.setText(state.stage or self.tr("Starting"))
        self.total.setText("")
        if progress and progress.unit == "bytes" and progress.total:
            self.total.setText(words.of_size(progress.done, progress.total))
        self.epoch.setText("")
        self.so_far.setText("")
        self.left.setText("")
        self.done_at.setText("")
        known = progress is not None and bool(progress.total)
        self.bar.set_value(progress.done / progress.total if known and progress and progress.total else None)
        self.bar.set_ticks([])

    def _show_steps(self, state: RunState) -> None:
        assert state.began is not None
        total = state.began.total_steps
        self.step.setText(self.tr("Step {0}").format(words.count(state.step)))
        self.total.setText(self.tr("of {0}").format(words.count(total)))
        self.epoch.setText(epoch_words(state))
        self.so_far.setText(self.tr("{0} so far").format(words.duration(elapsed(state))))
        left = None if state.ended else state.seconds_left
        if left is None or state.last_time is None:
            self.left.setText("")
            self.done_at.setText("")
        else:
            self.left.setText(self.tr("{0} left").format(words.duration(left)))
            self.done_at.setText(self.tr(", done about {0}").format(words.clock(state.last_time + left)))
        self.bar.set_tone("paused" if state.ended else "accent")
        self.bar.set_value(state.fraction)
        self.bar.set_ticks([step / total for step in epoch_steps(state.began)] if total else [])

    def _show_verdict(self, state: RunState) -> None:
        said = verdict(state)
        self.headline.setText(said.headline)
        self.detail.setText(said.text)
        self.sign.show_tone(said.tone)
        self.set_tone(said.tone)
        self.bar.set_value(1.0)
        self.forgetting.show_check(state.forgetting)
        forgot = self.forgetting.accessibleName() if state.forgetting else ""
        self.setAccessibleDescription(f"{said.headline} {said.text} {forgot}".strip())
        self.stack.setCurrentIndex(1)


class _Sign(QWidget):
    """The icon of a verdict."""

    def __init__(self) -> None:
        super().__init__()
        self._tone = "ok"
        self.setFixedSize(20, 20)

    def show_tone(self, tone: str) -> None:
        self._tone = tone
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        name = {"ok": "circle-check", "warn": "alert", "info": "info"}[self._tone]
        ink = Theme.of().tokens.colour("accent" if self._tone == "info" else self._tone)
        QPainter(self).drawPixmap(0, 0, pixmap(name, 20, ink, self.devicePixelRatioF()))


class SmallCard(Card):
    """A small chart with its newest value at the right of its title."""

    def __init__(self, name: str, title: str, unit: str, *, parent: QWidget | None = None) -> None:
        super().__init__(padded=False, parent=parent)
        self.setObjectName(f"{name}Card")
        self.value = Label(words.DASH, "strong")
        self.value.setObjectName(f"{name}Value")
        self.unit = Label(unit, "secondary", "t2")
        self.unit.setObjectName(f"{name}Unit")
        self.chart = SmallChart()
        self.chart.setObjectName(f"{name}Chart")
        self.chart.setAccessibleName(title)
        self.chart.setMinimumHeight(72)
        head = QHBoxLayout()
        head.setContentsMargins(15, 0, 15, 0)
        head.setSpacing(4)
        head.addWidget(Label(title, "card"))
        head.addStretch(1)
        head.addWidget(self.value)
        head.addWidget(self.unit)
        self.body.setContentsMargins(1, 12, 1, 4)
        self.body.setSpacing(4)
        self.add_layout(head)
        inset = QVBoxLayout()
        inset.setContentsMargins(0, 0, 13, 2)
        inset.addWidget(self.chart)
        self.add_layout(inset, 1)

    def show_points(
        self, points: list[Point], total: int, y_format: Callable[[float], str], planned: Sequence[Point] = ()
    ) -> None:
        """Draw the line so far."""
        self.chart.set_data(points, total_steps=total, planned=planned if points else (), y_format=y_format)


class MemoryCard(Card):
    """Memory in use now, its peak, and what was predicted."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(padded=False, parent=parent)
        self.setObjectName("memoryCard")
        self.name = Label(self.tr("Memory"), "card")
        self.now = Label(words.DASH, "strong")
        self.now.setObjectName("memoryNow")
        self.total = Label("", "secondary", "t2")
        self.total.setObjectName("memoryTotal")
        self.bar = SlimProgress()
        self.bar.setObjectName("memoryBar")
        self.bar.set_tone("third")
        self.peak = Label("", "secondary", "t2")
        self.peak.setObjectName("memoryPeak")
        self.predicted = Label("", "secondary", "t2")
        self.predicted.setObjectName("memoryPredicted")
        self.body.setContentsMargins(15, 11, 15, 11)
        self.body.setSpacing(2)
        for left, right in (((self.name,), (self.now, self.total)), ((self.peak,), (self.predicted,))):
            row = QHBoxLayout()
            row.setSpacing(4)
            for widget in left:
                row.addWidget(widget)
            row.addStretch(1)
            for widget in right:
                row.addWidget(widget)
            self.add_layout(row)
        self.body.insertWidget(1, self.bar)

    def show_state(self, state: RunState, plan: Plan | None) -> None:
        """Show the newest reading against what is there and what was predicted."""
        device = plan.device if plan else None
        self.name.setText(self.tr("GPU memory") if device and device.kind == "cuda" else self.tr("Memory"))
        total = device.total_bytes if device else 0
        used = state.steps[-1].memory_bytes if state.steps else 0
        self.now.setText(words.gib_number(used) if used else words.DASH)
        self.total.setText(self.tr("of {0}").format(words.gib(total)) if total else "")
        self.bar.set_value(used / total if total else 0.0)
        peak = words.gib(state.peak_memory, 2) if state.peak_memory else words.DASH
        self.peak.setText(self.tr("Peak {0}").format(peak))
        predicted = plan.asked.peak_bytes if plan else 0
        self.bar.set_marker(predicted / total if total and predicted else None)
        said = words.gib_number(predicted, 2) if predicted else words.DASH
        self.predicted.setText(self.tr("Predicted {0}").format(said))
        self.bar.setAccessibleName(f"{self.name.text()} {self.now.text()} {self.total.text()}")


class LogCard(Card):
    """What is happening, newest first, and the way to the raw log."""

    full_log_asked = Signal()

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(padded=False, parent=parent)
        self.setObjectName("logCard")
        self._seen = 0
        self._last: StateLine | None = None
        self._lines: list[LogLine] = []
        head = QHBoxLayout()
        head.setContentsMargins(15, 0, 11, 0)
        head.addWidget(Label(self.tr("What is happening"), "card"))
        head.addStretch(1)
        self.full = Button(self.tr("Full log"), "quiet", trailing="chevron-right", compact=True)
        self.full.setObjectName("fullLog")
        self.full.clicked.connect(self.full_log_asked)
        head.addWidget(self.full)
        self.list = LogList()
        self.list.setObjectName("log")
        self.waiting = Label(self.tr("Sentences will come here, newest first."), "body", "t2")
        self.waiting.setObjectName("logWaiting")
        self.body.setContentsMargins(1, 6, 1, 8)
        self.body.setSpacing(2)
        self.add_layout(head)
        inset = QStackedWidget()
        inset.setContentsMargins(15, 0, 15, 0)
        empty = QWidget()
        column = QVBoxLayout(empty)
        column.setContentsMargins(0, 4, 0, 0)
        column.addWidget(self.waiting)
        column.addStretch(1)
        inset.addWidget(empty)
        inset.addWidget(self.list)
        self._inset = inset
        self.list.verticalScrollBar().rangeChanged.connect(self._make_room)
        self.add(inset, 1)

    def _make_room(self, low: int, high: int) -> None:
        """The scroll bar lies in the card's margin, so that the lines end where they end without it."""
        self._inset.setContentsMargins(15, 0, 5 if high > low else 15, 0)

    def show_lines(self, state: RunState) -> None:
        """Add the sentences that are new."""
        log = state.log
        if len(log) < self._seen or (self._seen and log[self._seen - 1] is not self._last):
            self._seen, self._lines = 0, []
        if len(log) == self._seen and self._seen:
            return
        fresh = [log_line(line) for line in log[max(self._seen, len(log) - MOST_LOG_LINES) :]]
        self._lines = [*reversed(fresh), *self._lines][:MOST_LOG_LINES]
        self._seen = len(log)
        self._last = log[-1] if log else None
        self.list.set_lines(self._lines)
        self._inset.setCurrentIndex(1 if self._lines else 0)

    def sizeHint(self) -> QSize:
        return QSize(400, super().sizeHint().height())


class RunPanel(QWidget):
    """All that is shown of a run. `show_state` is called at about 10 Hz and does only what is new."""

    def __init__(self, view: str, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("run")
        self._count = (0, 0)
        self._last_step: object = None
        self._last_eval: object = None
        self._drawn: object = None
        self._stale: set[str] = set()
        self._loss_next = True
        self._labels: tuple[str, ...] = ()
        self._clear_points()
        self.progress = ProgressCard()
        self.loss = LossCard(view)
        self.rate = SmallCard("rate", self.tr("Learning rate"), "")
        self.speed = SmallCard("speed", self.tr("Speed"), self.tr("tokens/s"))
        self.checks = ChecksCard()
        self.memory = MemoryCard()
        self.log = LogCard()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(16)
        column.addWidget(self.progress)
        column.addWidget(TwoColumns(self.loss, self._side(), right_width=328), 1)
        column.addWidget(self.log)

    def _side(self) -> QWidget:
        side = QWidget()
        column = QVBoxLayout(side)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(12)
        column.addWidget(self.checks)
        column.addWidget(self.rate, 1)
        column.addWidget(self.speed, 1)
        column.addWidget(self.memory)
        return side

    def show_state(self, state: RunState, plan: Plan | None, data: DataInfo | None = None) -> None:
        """Show the run as it is now; `data` names the labels where the run itself does not."""
        known = state.data or data
        labels = tuple(label.name for label in known.labels) if known else ()
        if labels != self._labels:
            self._labels, self._stale = labels, {"loss", "small"}
        self.progress.show_state(state)
        if self._gather(state):
            self._stale = {"loss", "small"}
        if self._stale:
            self._draw_some(state, _total(state, state.plan or plan))
        self.checks.show_state(state)
        self.speed.setHidden(self.checks.isVisibleTo(self))
        self.memory.show_state(state, state.plan or plan)
        self.log.show_lines(state)

    def _gather(self, state: RunState) -> bool:
        """Take over points that are new; whether there is anything to draw anew."""
        steps, evals = state.steps, state.evaluations
        known_steps, known_evals = self._count
        other = (
            len(steps) < known_steps
            or len(evals) < known_evals
            or (known_steps and steps[known_steps - 1] is not self._last_step)
            or (known_evals and evals[known_evals - 1] is not self._last_eval)
        )
        if other:
            known_steps = known_evals = 0
            self._clear_points()
        for event in steps[known_steps:]:
            self.train.add(event.step, event.loss)
            self.rates.add(event.step, event.learning_rate)
            self.speeds.add(event.step, event.tokens / event.seconds if event.seconds > 0 else math.nan)
        self.evals.extend((event.step, event.loss) for event in evals[known_evals:])
        before, self._count = self._count, (len(steps), len(evals))
        self._last_step = steps[-1] if steps else None
        self._last_eval = evals[-1] if evals else None
        key = (state.began, state.ended)
        changed = other or before != self._count or key != self._drawn
        self._drawn = key
        return bool(changed)

    def _clear_points(self) -> None:
        self.train, self.rates, self.speeds = GrowingPoints(), GrowingPoints(), GrowingPoints()
        self.evals: list[Point] = []

    def _draw_some(self, state: RunState, total: int) -> None:
        """Draw what is new. Charts of a long run take turns, so that each call stays short; none lags by much."""
        takes_turns = len(self.train.every) > MANY and not state.ended
        turn = {"loss" if self._loss_next else "small"} if takes_turns else {"loss", "small"}
        if "loss" in turn & self._stale:
            total_shown = total if self.train.every else total + 1
            self.loss.show_points(state, self.train, self.evals, total_shown, self._labels)
        if "small" in turn & self._stale:
            self._draw_small(state, total)
        self._stale -= turn
        self._loss_next = not self._loss_next

    def _draw_small(self, state: RunState, total: int) -> None:
        began = state.began
        rates, speeds = self.rates.shown, self.speeds.shown
        planned = planned_rates(began, max(1, state.step)) if began and not state.ended else []
        self.rate.show_points(rates, total, words.rate, planned)
        self.rate.value.setText(words.rate(rates[-1][1]) if rates else words.DASH)
        self.rate.unit.setText(self.tr("peak {0}").format(words.rate(began.peak_learning_rate)) if began else "")
        self.speed.show_points(speeds, total, words.number)
        recent = self.speeds.recent_mean(20)
        self.speed.value.setText(words.number(recent) if recent is not None else words.DASH)


def _total(state: RunState, plan: Plan | None) -> int:
    """The steps of the whole run: as begun, or as planned."""
    if state.began:
        return state.began.total_steps
    return plan.resolved.total_steps if plan else 1
