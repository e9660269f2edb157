"""The loss of a run: chart, legend, views, and saving it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PySide6.QtCore import QPointF, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import (
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QMenu,
    QSizePolicy,
    QStackedLayout,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from tunedesk.core.events import Evaluated
from tunedesk.core.measures import MEASURES, measures_in
from tunedesk.core.state import RunState
from tunedesk.gui import task_words, words
from tunedesk.gui.pages._points import GrowingPoints, Point
from tunedesk.gui.pages._train_words import epoch_steps
from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets import Button, Card, ElidedLabel, IconButton, Label, Segmented
from tunedesk.gui.widgets.charts import LossChart, LossMode
from tunedesk.gui.widgets.confusion import ConfusionMatrix

_MODES: dict[str, LossMode] = {"smooth": "smooth", "raw": "every", "log": "log"}
_VIEWS: dict[str, str] = {mode: view for view, mode in _MODES.items()}


def write_losses(path: Path, train: list[Point], evals: list[Point], checks: Sequence[Evaluated] = ()) -> None:
    """Write every step with its losses, and what the checks measured, as a table. Raises `OSError`."""
    left, right = dict(train), dict(evals)
    measured = {check.step: check.metrics for check in checks}
    keys = [item.key for item in MEASURES if any(item.key in metrics for metrics in measured.values())]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "training_loss", "held_out_loss", *keys])
        for step in sorted(left.keys() | right.keys()):
            metrics = measured.get(round(step), {})
            more = [metrics.get(key, "") for key in keys]
            writer.writerow([f"{step:.0f}", left.get(step, ""), right.get(step, ""), *more])


class _Key(QWidget):
    """The sample of a line in a legend; the held-out line has its marker."""

    def __init__(self, role: str, *, marker: bool) -> None:
        super().__init__()
        self._role, self._marker = role, marker
        self.setFixedSize(16, 16)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        tokens = Theme.of().tokens
        ink = QColor(tokens.colour(self._role))
        painter.setPen(QPen(ink, 2))
        painter.drawLine(QPointF(0, 8), QPointF(16, 8))
        if self._marker:
            painter.setBrush(QColor(tokens.card))
            painter.drawEllipse(QPointF(8, 8), 3.5, 3.5)


class LossCard(Card):
    """The loss chart with its legend, its views and its menu."""

    view_chosen = Signal(str)
    saved = Signal(str)
    not_saved = Signal(OSError)

    def __init__(self, view: str, *, parent: QWidget | None = None) -> None:
        super().__init__(padded=False, parent=parent)
        self.setObjectName("lossCard")
        self._every: list[Point] = []
        self._evals: list[Point] = []
        self._checks: Sequence[Evaluated] = ()
        self._below = False
        self._view = view
        self.what = "loss"
        """What is drawn: ``loss``, the key of a measure, or ``confusion``."""
        self._redraw: tuple[RunState, GrowingPoints, list[Point], int, tuple[str, ...]] | None = None
        self.chart = LossChart()
        self.chart.setObjectName("lossChart")
        self.chart.setAccessibleName(self.tr("Loss"))
        self.chart.setMinimumHeight(220)
        self.chart.set_mode(_MODES[view])
        self.chart.zoom_changed.connect(self._on_zoom)
        self.chart.hovered.connect(self._on_hover)
        self.body.setContentsMargins(1, 10, 1, 4)
        self.body.setSpacing(4)
        self.add_layout(self._build_top(view))
        inset = QVBoxLayout()
        inset.setContentsMargins(0, 0, 13, 0)
        self.matrix = ConfusionMatrix()
        self.matrix.setObjectName("confusion")
        framed = QWidget()
        frame = QVBoxLayout(framed)
        frame.setContentsMargins(15, 4, 2, 4)
        frame.addWidget(self.matrix)
        self.stack = QStackedWidget()
        self.stack.addWidget(self.chart)
        self.stack.addWidget(framed)
        inset.addWidget(self.stack)
        self.add_layout(inset, 1)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """The button that ends a zoom lies over the chart's corner, so that nothing moves when it comes."""
        super().resizeEvent(event)
        self._place_legend()
        self.reset.move(self.width() - self.reset.width() - 20, self.stack.y() + 6)
        self.reset.raise_()

    def _build_top(self, view: str) -> QGridLayout:
        row = self._top = QGridLayout()
        row.setContentsMargins(15, 0, 15, 0)
        row.setHorizontalSpacing(6)
        row.setVerticalSpacing(4)
        self.name = Button(self.tr("Loss"), "plain", trailing="chevron-down", compact=True)
        self.name.setObjectName("drawn")
        self.name.setAccessibleName(self.tr("What is drawn: {0}").format(self.tr("Loss")))
        self.name.clicked.connect(self._show_choices)
        self.name.hide()
        self.title_label = Label(self.tr("Loss"), "card")
        self.legend = self._build_legend()
        row.addWidget(self.name, 0, 0)
        row.addWidget(self.title_label, 0, 0)
        row.addWidget(self.legend, 0, 1)
        row.setColumnStretch(1, 1)
        self.reset = IconButton("zoom-reset", self.tr("Show the whole run"), parent=self)
        self.reset.setObjectName("resetZoom")
        self.reset.clicked.connect(self.chart.reset_zoom)
        self.reset.hide()
        self.views = Segmented(
            (("smooth", self.tr("Smooth")), ("every", self.tr("Every step")), ("log", self.tr("Log scale"))),
            _MODES[view],
            name=self.tr("How the loss is drawn"),
        )
        self.views.setObjectName("lossView")
        self.views.chosen.connect(self._choose_view)
        row.addWidget(self.views, 0, 2)
        self.menu_button = IconButton("ellipsis", self.tr("Save the chart"))
        self.menu_button.setObjectName("chartMenu")
        self.menu_button.clicked.connect(self._show_menu)
        row.addWidget(self.menu_button, 0, 3)
        return row

    @property
    def _title(self) -> QWidget:
        return self.title_label if self.name.isHidden() else self.name

    def _place_legend(self) -> None:
        """The legend lies beside the title, or under it where there is no room."""
        others = sum(widget.sizeHint().width() for widget in (self._title, self.views, self.menu_button))
        below = self.width() < others + self._entries.sizeHint().width() + 54
        if below != self._below:
            self._below = below
            self._top.removeWidget(self.legend)
            self._top.addWidget(self.legend, 1 if below else 0, 0 if below else 1, 1, 4 if below else 1)

    def _build_legend(self) -> QWidget:
        legend = self._entries = QWidget()
        row = QHBoxLayout(legend)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(5)
        self.train_value = Label(words.DASH, "strong")
        self.train_value.setObjectName("trainLoss")
        self.eval_value = Label(words.DASH, "strong")
        self.eval_value.setObjectName("evalLoss")
        self._train_entry: list[QWidget] = []
        for role, marker, text, value in (
            ("chart_train", False, self.tr("Training"), self.train_value),
            ("chart_eval", True, self.tr("Held-out data"), self.eval_value),
        ):
            entry = (_Key(role, marker=marker), Label(text, "secondary", "t2"), value)
            value.setMinimumWidth(40)
            for widget in entry:
                row.addWidget(widget)
            if not marker:
                self._train_entry = list(entry)
            row.addSpacing(4)
        row.addStretch(1)
        self.hover = ElidedLabel("", "secondary", "t1")
        self.hover.setObjectName("hoverValues")
        whole = QWidget()
        whole.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._legend = QStackedLayout(whole)
        self._legend.addWidget(legend)
        self._legend.addWidget(self.hover)
        return whole

    def show_points(
        self, state: RunState, train: GrowingPoints, evals: list[Point], total: int, labels: tuple[str, ...] = ()
    ) -> None:
        """Draw the run so far; `labels` are those of a classifier, in the order of its outputs."""
        self._redraw = (state, train, evals, total, labels)
        self._every, self._evals, self._checks = train.every, evals, state.evaluations
        choices = self.choices()
        if self.what not in choices:
            self._set_what("loss")
        self.name.setVisible(len(choices) > 1)
        self.title_label.setVisible(len(choices) < 2)
        if self.what == "confusion":
            self._show_confusion(state, labels)
        elif self.what == "loss":
            self._show_loss(state, train, evals, total)
        else:
            self._show_measure(state, total)
        self._place_legend()

    def _show_loss(self, state: RunState, train: GrowingPoints, evals: list[Point], total: int) -> None:
        self.chart.set_measure(self.tr("Loss"), words.loss, upward=False)
        self._draw(state, train.shown, evals, total)
        self.train_value.setText(words.loss(train.every[-1][1]) if train.every else words.DASH)
        self.eval_value.setText(words.loss(evals[-1][1]) if evals else words.DASH)

    def _show_measure(self, state: RunState, total: int) -> None:
        measure = next(item for item in MEASURES if item.key == self.what)
        points: list[Point] = [
            (check.step, check.metrics[measure.key]) for check in self._checks if measure.key in check.metrics
        ]
        self.chart.set_measure(
            self.tr(measure.title), lambda value: task_words.measured(measure, value), upward=measure.better == "up"
        )
        self._draw(state, [], points, total)
        said = task_words.measured(measure, points[-1][1])
        if best := self.chart.best():
            said = self.tr("{0}, best {1}").format(said, task_words.measured(measure, best[1]))
        self.eval_value.setText(said)
        self.legend.setToolTip(self.tr(measure.meaning))

    def _draw(self, state: RunState, train: list[Point], evals: list[Point], total: int) -> None:
        self.chart.set_data(
            train, evals, total_steps=total, epoch_steps=epoch_steps(state.began), running=not state.ended
        )

    def _show_confusion(self, state: RunState, labels: tuple[str, ...]) -> None:
        """The matrix of what is kept once a run has ended, of the latest check before."""
        kept = state.best if state.ended and state.best and state.best.confusion else None
        check = kept or next(check for check in reversed(self._checks) if check.confusion)
        self.matrix.set_matrix(labels, check.confusion)
        about = self.tr("Step {0}. Right labels down, given labels across").format(words.count(check.step))
        self.hover.setText(about)
        self._legend.setCurrentIndex(1)

    def choices(self) -> dict[str, str]:
        """What can be drawn, by key."""
        found = {"loss": self.tr("Loss")}
        known = {key: value for check in self._checks for key, value in check.metrics.items()}
        found.update({measure.key: self.tr(measure.title) for measure, _ in measures_in(known)})
        if any(check.confusion for check in self._checks):
            found["confusion"] = self.tr("Mixed-up labels")
        return found

    def choose(self, what: str) -> None:
        """Draw something else of the run."""
        self._set_what(what)
        if self._redraw is not None:
            self.show_points(*self._redraw)

    def _set_what(self, what: str) -> None:
        self.what = what
        name = self.choices().get(what, self.tr("Loss"))
        self.name.setText(name)
        self.name.setAccessibleName(self.tr("What is drawn: {0}").format(name))
        self.stack.setCurrentIndex(1 if what == "confusion" else 0)
        self.matrix.make_room(roomy=what == "confusion")
        self.chart.set_mode(_MODES[self._view] if what == "loss" else "smooth")
        self.views.setVisible(what == "loss")
        for widget in self._train_entry:
            widget.setVisible(what == "loss")
        self.hover.setText("")
        self.legend.setToolTip("")
        self._legend.setCurrentIndex(0)

    def _show_choices(self) -> None:
        menu = QMenu(self)
        menu.setObjectName("drawnChoices")
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.setToolTipsVisible(True)
        meanings = {measure.key: self.tr(measure.meaning) for measure in MEASURES}
        for key, title in self.choices().items():
            action = menu.addAction(title, partial(self.choose, key))
            action.setToolTip(meanings.get(key, ""))
            action.setCheckable(True)
            action.setChecked(key == self.what)
        menu.popup(self.name.mapToGlobal(self.name.rect().bottomLeft()))

    def _choose_view(self, mode: str) -> None:
        view = self._view = _VIEWS[mode]
        self.chart.set_mode(_MODES[view])
        self.view_chosen.emit(view)

    def _on_zoom(self, zoomed: bool) -> None:
        self.reset.setVisible(zoomed)

    def _on_hover(self, text: str) -> None:
        self.hover.setText(text)
        self._legend.setCurrentIndex(1 if text else 0)

    def _show_menu(self) -> None:
        menu = QMenu(self)
        menu.setObjectName("saveChart")
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction(self.tr("Save as PNG"), lambda: self.save("png"))
        menu.addAction(self.tr("Save as CSV"), lambda: self.save("csv"))
        menu.popup(self.menu_button.mapToGlobal(self.menu_button.rect().bottomLeft()))

    def save(self, kind: str) -> None:
        """Ask where to, and save the chart as a picture or its numbers as a table."""
        path, _ = QFileDialog.getSaveFileName(self, self.tr("Save the chart"), f"loss.{kind}", f"*.{kind}")
        if not path:
            return
        try:
            if kind == "png":
                self._save_picture(Path(path))
            else:
                write_losses(Path(path), self._every, self._evals, self._checks)
        except OSError as error:
            self.not_saved.emit(error)
        else:
            self.saved.emit(path)

    def _save_picture(self, path: Path) -> None:
        """Raises `OSError`."""
        if self.what != "confusion":
            self.chart.export_png(path)
        elif not self.matrix.grab().save(str(path), "PNG"):
            raise OSError(self.tr("the picture could not be written"))
