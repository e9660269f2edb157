"""The loss of a run: chart, legend, views, and saving it."""

from __future__ import annotations

import csv
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
    QVBoxLayout,
    QWidget,
)

from tunedesk.core.state import RunState
from tunedesk.gui import words
from tunedesk.gui.pages._points import GrowingPoints, Point
from tunedesk.gui.pages._train_words import epoch_steps
from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets import Card, ElidedLabel, IconButton, Label, Segmented
from tunedesk.gui.widgets.charts import LossChart, LossMode

_MODES: dict[str, LossMode] = {"smooth": "smooth", "raw": "every", "log": "log"}
_VIEWS: dict[str, str] = {mode: view for view, mode in _MODES.items()}


def write_losses(path: Path, train: list[Point], evals: list[Point]) -> None:
    """Write every step with its training loss and held-out loss as a table. Raises `OSError`."""
    left, right = dict(train), dict(evals)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "training_loss", "held_out_loss"])
        for step in sorted(left.keys() | right.keys()):
            writer.writerow([f"{step:.0f}", left.get(step, ""), right.get(step, "")])


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
        self._below = False
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
        inset.addWidget(self.chart)
        self.add_layout(inset, 1)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """The button that ends a zoom lies over the chart's corner, so that nothing moves when it comes."""
        super().resizeEvent(event)
        self._place_legend()
        self.reset.move(self.width() - self.reset.width() - 20, self.chart.y() + 6)
        self.reset.raise_()

    def _build_top(self, view: str) -> QGridLayout:
        row = self._top = QGridLayout()
        row.setContentsMargins(15, 0, 15, 0)
        row.setHorizontalSpacing(6)
        row.setVerticalSpacing(4)
        self.name = Label(self.tr("Loss"), "card")
        self.legend = self._build_legend()
        row.addWidget(self.name, 0, 0)
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

    def _place_legend(self) -> None:
        """The legend lies beside the title, or under it where there is no room."""
        others = sum(widget.sizeHint().width() for widget in (self.name, self.views, self.menu_button))
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
        for role, marker, text, value in (
            ("chart_train", False, self.tr("Training"), self.train_value),
            ("chart_eval", True, self.tr("Held-out data"), self.eval_value),
        ):
            row.addWidget(_Key(role, marker=marker))
            row.addWidget(Label(text, "secondary", "t2"))
            value.setMinimumWidth(40)
            row.addWidget(value)
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

    def show_points(self, state: RunState, train: GrowingPoints, evals: list[Point], total: int) -> None:
        """Draw the run so far."""
        self._every, self._evals = train.every, evals
        self.chart.set_data(
            train.shown,
            evals,
            total_steps=total,
            epoch_steps=epoch_steps(state.began),
            running=not state.ended,
        )
        self.train_value.setText(words.loss(train.every[-1][1]) if train.every else words.DASH)
        self.eval_value.setText(words.loss(evals[-1][1]) if evals else words.DASH)
        self._place_legend()

    def _choose_view(self, mode: str) -> None:
        view = _VIEWS[mode]
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
                self.chart.export_png(Path(path))
            else:
                write_losses(Path(path), self._every, self._evals)
        except OSError as error:
            self.not_saved.emit(error)
        else:
            self.saved.emit(path)
