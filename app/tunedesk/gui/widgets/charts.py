"""Live charts. This is the only module that loads pyqtgraph: import it when a chart is built."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from math import isfinite, log10
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QEvent, QLocale, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QWheelEvent
from PySide6.QtWidgets import QFrame, QGraphicsView, QSizePolicy, QVBoxLayout, QWidget

from tunedesk.gui.theme import Theme, Tokens
from tunedesk.gui.widgets.chart_math import (
    Array,
    Points,
    columns,
    decimals_for,
    keep_factor,
    round_top,
    smoothed,
    thinned,
    ticks,
    whole_range,
)
from tunedesk.gui.widgets.glyphs import disc, hollow
from tunedesk.gui.widgets.paint import painter_on, px, round_box, text, text_width, tokens

LossMode = Literal["smooth", "every", "log"]
ChartTone = Literal["train", "eval", "third"]

pg.setConfigOptions(antialias=True)


class _CtrlViewBox(pg.ViewBox):  # type: ignore[misc]
    """Zooms and moves only while Ctrl is held, so that a page can scroll under the mouse."""

    def wheelEvent(self, ev: Any, axis: int | None = None) -> None:
        if ev.modifiers() & Qt.KeyboardModifier.ControlModifier:
            super().wheelEvent(ev, axis)
        else:
            ev.ignore()

    def mouseDragEvent(self, ev: Any, axis: int | None = None) -> None:
        if ev.modifiers() & Qt.KeyboardModifier.ControlModifier:
            super().mouseDragEvent(ev, axis)
        else:
            ev.ignore()


class _Plot(pg.PlotWidget):  # type: ignore[misc]
    """A bare plot: curves by pyqtgraph; grid, axes and notes by the chart that owns it."""

    moved = Signal(object)
    viewed = Signal()

    def __init__(self, margins: tuple[int, int, int, int], *, zoom: bool) -> None:
        super().__init__(viewBox=_CtrlViewBox(enableMenu=False), background=None)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setCacheMode(QGraphicsView.CacheModeFlag(0))
        self.setStyleSheet("border: 0; background: transparent;")
        self.setMenuEnabled(False)
        self.hideButtons()
        self.hideAxis("left")
        self.hideAxis("bottom")
        self.setMouseEnabled(x=zoom, y=False)
        self.plotItem.layout.setContentsMargins(*margins)
        self.plotItem.setDownsampling(auto=True, mode="peak")
        self.plotItem.setClipToView(True)
        self.box = self.plotItem.getViewBox()
        self.box.setDefaultPadding(0)
        self.box.disableAutoRange()
        self.box.sigRangeChanged.connect(self._range_changed)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.back: Callable[[QPainter], None] | None = None
        self.front: Callable[[QPainter], None] | None = None

    def _range_changed(self) -> None:
        self.viewport().update()
        self.viewed.emit()

    def area(self) -> QRectF:
        """Return the rectangle of the curves in pixels."""
        return QRectF(self.box.sceneBoundingRect())

    def spot(self, x: float, y: float) -> QPointF:
        """Return where a point lies in pixels."""
        area = self.area()
        (left, right), (low, high) = self.box.viewRange()
        across = (x - left) / ((right - left) or 1)
        up = (y - low) / ((high - low) or 1)
        return QPointF(area.left() + across * area.width(), area.bottom() - up * area.height())

    def x_at(self, pixel: float) -> float:
        """Return the step under a pixel."""
        area = self.area()
        left, right = self.box.viewRange()[0]
        return float(left + (pixel - area.left()) / max(1.0, area.width()) * (right - left))

    def drawBackground(self, painter: QPainter, rect: QRectF) -> None:  # noqa: ARG002
        painter.fillRect(self.viewport().rect(), QColor(tokens().card))
        if self.back is not None:
            self.back(painter)

    def drawForeground(self, painter: QPainter, rect: QRectF) -> None:  # noqa: ARG002
        if self.front is not None:
            self.front(painter)

    def mouseMoveEvent(self, ev: QMouseEvent) -> None:
        super().mouseMoveEvent(ev)
        self.moved.emit(ev.position())

    def leaveEvent(self, ev: QEvent) -> None:
        super().leaveEvent(ev)
        self.moved.emit(None)

    def wheelEvent(self, ev: QWheelEvent) -> None:
        if ev.modifiers() & Qt.KeyboardModifier.ControlModifier:
            super().wheelEvent(ev)
        else:
            ev.ignore()


class _Chart(QWidget):
    """What both kinds of chart share: the plot, its axes and the export."""

    def __init__(self, margins: tuple[int, int, int, int], *, zoom: bool, parent: QWidget | None) -> None:
        super().__init__(parent)
        self._total = 1
        self._y: tuple[float, float] | None = None
        self._margins = margins
        self._plot = _Plot(margins, zoom=zoom)
        self._plot.back = self._paint_back
        self._plot.front = self._paint_front
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._plot)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        Theme.of().changed.connect(self._restyle)

    def _restyle(self) -> None:
        left, top, right, bottom = self._margins
        self._plot.plotItem.layout.setContentsMargins(px(left), px(top), right, px(bottom))

    def _paint_back(self, painter: QPainter) -> None:
        raise NotImplementedError

    def _paint_front(self, painter: QPainter) -> None:
        raise NotImplementedError

    def _widen(self, low: float, high: float, about: float = 5) -> tuple[float, float]:
        """Widen the y range to hold `low` and `high`, in whole steps; it never shrinks."""
        if self._y is not None:
            low, high = min(low, self._y[0]), max(high, self._y[1])
        self._y = whole_range(low, high, about)
        return self._y

    def export_png(self, path: Path) -> None:
        """Write the chart as a picture at twice its size on screen."""
        ratio = 2.0
        image = self._picture(ratio)
        if not image.save(str(path), "PNG"):
            raise OSError(f"The picture could not be written to {path}.")

    def _picture(self, ratio: float) -> Any:
        from PySide6.QtGui import QImage

        image = QImage(self.size() * ratio, QImage.Format.Format_ARGB32_Premultiplied)
        image.setDevicePixelRatio(ratio)
        image.fill(QColor(tokens().card))
        self.render(image)
        return image

    def _grid(self, painter: QPainter, words: Sequence[str], places: Sequence[float]) -> None:
        colours = tokens()
        area = self._plot.area()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for y, label in zip(places, words, strict=True):
            painter.fillRect(QRectF(area.left(), round(y), area.width(), 1), QColor(colours.chart_grid))
            box = QRectF(0, y - px(8), area.left() - 8, px(16))
            text(painter, box, label, "axis", colours.t3, align=Qt.AlignmentFlag.AlignRight)


class LossChart(_Chart):
    """Training and held-out loss over the whole planned run."""

    zoom_changed = Signal(bool)
    hovered = Signal(str)

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__((42, 20, 2, 24), zoom=True, parent=parent)
        self._train: list[tuple[float, float]] = []
        self._evals: list[tuple[float, float]] = []
        self._epochs: tuple[float, ...] = ()
        self._mode: LossMode = "smooth"
        self._running = True
        self._zoomed = False
        self._hover: float | None = None
        self._name, self._upward = self.tr("Loss"), False
        self._form: Callable[[float], str] = _loss
        self._x = self._raw_y = self._smooth_y = np.empty(0)
        self._raw = self._plot.plot([], [], connect="finite")
        self._smooth = self._plot.plot([], [], connect="finite")
        self._eval = self._plot.plot([], [], connect="finite")
        self._plot.moved.connect(self._hover_at)
        self._plot.box.sigRangeChangedManually.connect(self._user_zoomed)
        self.setMinimumSize(280, 180)
        self._restyle()
        self._set_view()

    def set_data(
        self,
        train: Points,
        evals: Points,
        *,
        total_steps: int,
        epoch_steps: Sequence[float] = (),
        running: bool = True,
    ) -> None:
        """Show (step, loss) points; `epoch_steps` are the steps at which epochs 2, 3, … begin."""
        if total_steps != self._total or len(train) < len(self._train) or not (self._train or self._evals):
            self._y = None
        self._train, self._evals = list(train), list(evals)
        self._total, self._epochs, self._running = max(1, total_steps), tuple(epoch_steps), running
        self._x, self._raw_y = columns(self._train)
        self._smooth_y = smoothed(self._raw_y, keep_factor(len(self._raw_y)))
        self._show()

    def set_measure(self, name: str, form: Callable[[float], str], *, upward: bool) -> None:
        """Say what the points are, how a value is written, and whether more is better; at first it is the loss."""
        if (name, upward) != (self._name, self._upward):
            self._train, self._evals = [], []
            self._y = None
        self._name, self._form, self._upward = name, form, upward

    def train_points(self) -> list[tuple[float, float]]:
        """Return the training points that were given."""
        return list(self._train)

    def eval_points(self) -> list[tuple[float, float]]:
        """Return the held-out points that were given."""
        return list(self._evals)

    def mode(self) -> LossMode:
        """Return how the loss is drawn."""
        return self._mode

    def set_mode(self, mode: LossMode) -> None:
        """Draw the smoothed line, every step, or the smoothed line on a log scale."""
        if mode == self._mode:
            return
        self._mode = mode
        self._y = None
        self._show()

    def is_zoomed(self) -> bool:
        """Return whether the user looks at a part of the run."""
        return self._zoomed

    def reset_zoom(self) -> None:
        """Show the whole planned run again."""
        was, self._zoomed = self._zoomed, False
        self._set_view()
        if was:
            self.zoom_changed.emit(False)

    def best(self) -> tuple[float, float] | None:
        """Return step and value of the best check so far."""
        finite = [point for point in self._evals if isfinite(point[1])]
        choose = max if self._upward else min
        return choose(finite, key=lambda point: point[1]) if finite else None

    def export_csv(self, path: Path) -> None:
        """Write step, training loss and held-out loss; a missing value stays empty."""
        train, evals = dict(self._train), dict(self._evals)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "training_loss", "held_out_loss"])
            for step in sorted(train.keys() | evals.keys()):
                writer.writerow([_plain(step), _plain(train.get(step)), _plain(evals.get(step))])

    def sizeHint(self) -> QSize:
        return QSize(560, 320)

    def _restyle(self) -> None:
        super()._restyle()
        colours = tokens()
        faint = QColor(colours.chart_train)
        faint.setAlphaF(0.34)
        self._raw.setPen(pg.mkPen(faint, width=1))
        self._smooth.setPen(pg.mkPen(colours.chart_train, width=2))
        self._eval.setPen(pg.mkPen(colours.chart_eval, width=1.75))
        self._show()

    def _scaled(self, values: Array) -> Array:
        if self._mode != "log":
            return values
        with np.errstate(invalid="ignore", divide="ignore"):
            logs: Array = np.log10(np.where(values > 0, values, np.nan))
        return logs

    def _show(self) -> None:
        colours = tokens()
        every = self._mode == "every"
        full = QColor(colours.chart_train)
        full.setAlphaF(1.0 if every else 0.34)
        self._raw.setPen(pg.mkPen(full, width=1))
        self._raw.setData(self._x, self._scaled(self._raw_y), connect="finite")
        width = max(2, round(self._plot.area().width()))
        x, y = thinned(self._x, self._smooth_y, width) if not self._zoomed else (self._x, self._smooth_y)
        self._smooth.setVisible(not every)
        self._smooth.setData(x, self._scaled(y), connect="finite")
        eval_x, eval_y = columns(self._evals)
        self._eval.setData(eval_x, self._scaled(eval_y), connect="finite")
        self._set_view()
        self._describe()
        self._plot.viewport().update()

    def _bounds(self) -> tuple[float, float]:
        parts = [self._smooth_y, columns(self._evals)[1]]
        raw = self._raw_y[np.isfinite(self._raw_y)]
        if self._mode == "every":
            parts.append(raw)
        elif len(raw) > 20:
            parts.append(np.percentile(raw, [0.5, 99.5]))
        pool = np.concatenate(parts)
        pool = pool[np.isfinite(pool)]
        if self._mode == "log":
            pool = pool[pool > 0]
        return (float(pool.min()), float(pool.max())) if len(pool) else (0.1, 1.0)

    def _known(self) -> bool:
        """Tell whether there is a value from which the y axis can get its numbers."""
        return any(isfinite(value) for points in (self._train, self._evals) for _, value in points[-1:] + points[:1])

    def _set_view(self) -> None:
        if not self._known():
            self._y = None
        low, high = self._widen(*self._bounds(), about=6)
        if self._mode == "log":
            least = 0.95 * self._bounds()[0]
            low, high = log10(low if low > 0 else least), log10(high)
        box = self._plot.box
        box.setLimits(xMin=0, xMax=self._total)
        box.setYRange(low, high, padding=0)
        if not self._zoomed:
            box.setXRange(0, self._total, padding=0)

    def _user_zoomed(self, *_: object) -> None:
        if not self._zoomed:
            self._zoomed = True
            self.zoom_changed.emit(True)
        self._show()

    def _describe(self) -> None:
        words = [self._name]
        finite = self._raw_y[np.isfinite(self._raw_y)]
        if len(finite):
            words.append(self.tr("training %1 at step %2").replace("%1", self._form(self._smooth_y_last())))
            words[-1] = words[-1].replace("%2", QLocale().toString(round(self._x[-1])))
        best = self.best()
        if best is not None:
            words.append(self._best_words(best))
        self.setAccessibleName(", ".join(words))

    def _smooth_y_last(self) -> float:
        finite = self._smooth_y[np.isfinite(self._smooth_y)]
        return float(finite[-1]) if len(finite) else float("nan")

    def _best_words(self, best: tuple[float, float]) -> str:
        words = self.tr("%1 at step %2").replace("%1", self._form(best[1]))
        return words.replace("%2", QLocale().toString(round(best[0])))

    def _y_ticks(self) -> list[float]:
        low, high = self._plot.box.viewRange()[1]
        if self._mode == "log":
            low, high = 10**low, 10**high
        return ticks(low, high, max(2.0, self._plot.area().height() / px(34)))

    def _paint_back(self, painter: QPainter) -> None:
        values = self._y_ticks()
        places = decimals_for(values)
        known = self._known()
        words = [QLocale().toString(float(value), "f", max(2, places)) if known else "" for value in values]
        heights = [self._plot.spot(0, log10(v) if self._mode == "log" and v > 0 else v).y() for v in values]
        self._grid(painter, words, heights)
        self._paint_x_axis(painter)
        self._paint_epochs(painter)

    def _paint_x_axis(self, painter: QPainter) -> None:
        colours = tokens()
        area = self._plot.area()
        painter.fillRect(QRectF(area.left(), round(area.bottom()), area.width(), 1), QColor(colours.line2))
        low, high = self._plot.box.viewRange()[0]
        for value in ticks(low, high, max(2.0, area.width() / px(56)), least=1):
            x = self._plot.spot(value, 0).x()
            words = QLocale().toString(round(value))
            box = QRectF(x - 40, area.bottom() + 7, 80, px(16))
            box.moveLeft(min(box.left(), self.width() - 40 - text_width(words, "axis") / 2 - 1))
            text(painter, box, words, "axis", colours.t3, align=Qt.AlignmentFlag.AlignHCenter)

    def _paint_epochs(self, painter: QPainter) -> None:
        colours = tokens()
        area = self._plot.area()
        pen = QPen(QColor(colours.line2), 1)
        pen.setDashPattern([2, 3])
        low, high = self._plot.box.viewRange()[0]
        starts = [0.0, *self._epochs]
        top = area.top() - px(17)
        for number, start in enumerate(starts, 1):
            x = round(self._plot.spot(start, 0).x()) + 0.5
            if not low <= start <= high or not self._epochs:
                continue
            if number > 1:
                painter.setPen(pen)
                painter.drawLine(QPointF(x, top), QPointF(x, area.bottom()))
            end = starts[number] if number < len(starts) else self._total
            words = self.tr("Epoch %1").replace("%1", str(number))
            if self._plot.spot(end, 0).x() - x > text_width(words, "axis") + 10:
                text(painter, QRectF(x + (6 if number > 1 else 0), top, 90, px(14)), words, "axis", colours.t3)

    def _paint_front(self, painter: QPainter) -> None:
        colours = tokens()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = self._plot.area()
        if self._running and len(self._x):
            x = round(self._plot.spot(float(self._x[-1]), 0).x())
            if area.left() <= x <= area.right() + 1:
                line = QColor(colours.chart_train)
                line.setAlphaF(0.6)
                painter.fillRect(QRectF(x, area.top(), 1, area.height()), line)
        self._paint_evals(painter, colours, area)
        self._paint_hover(painter, colours, area)

    def _spot(self, point: tuple[float, float]) -> QPointF:
        y = log10(point[1]) if self._mode == "log" and point[1] > 0 else point[1]
        return self._plot.spot(point[0], y)

    def _paint_evals(self, painter: QPainter, colours: Tokens, area: QRectF) -> None:
        best = self.best()
        room = area.adjusted(-4, -4, 4, 4)
        spots = [(point, self._spot(point)) for point in self._evals if isfinite(point[1])]
        crowded = len(spots) > area.width() / 9
        for point, spot in spots:
            if room.contains(spot) and not crowded and point != best:
                disc(painter, spot, 3, colours.card)
                hollow(painter, spot, 3, colours.chart_eval)
        if best is not None and room.contains(self._spot(best)):
            disc(painter, self._spot(best), 4.5, colours.chart_eval)
            self._paint_best(painter, best, colours, area)

    def _paint_best(self, painter: QPainter, best: tuple[float, float], colours: Tokens, area: QRectF) -> None:
        spot = self._spot(best)
        above = spot.y() - 62 > area.top()
        top = spot.y() - 50 if above else spot.y() + 12
        words, first = self._best_words(best), self.tr("Best so far")
        width = max(text_width(words, "axis", 600), text_width(first, "axis")) + 2
        left = spot.x() - width - 6
        at_left = left > area.left()
        left = left if at_left else spot.x() + 6
        align = Qt.AlignmentFlag.AlignRight if at_left else Qt.AlignmentFlag.AlignLeft
        painter.fillRect(QRectF(left - 3, top - 1, width + 6, px(30)), _veil(colours.card))
        stem = QRectF(round(spot.x()) - 0.5, top, 1.25, spot.y() - 8 - top if above else px(28))
        painter.fillRect(stem, QColor(colours.chart_eval))
        text(painter, QRectF(left, top, width, px(14)), first, "axis", colours.t2, align=align)
        text(painter, QRectF(left, top + px(14), width, px(14)), words, "axis", colours.t1, align=align, weight=600)

    def _hover_at(self, position: QPointF | None) -> None:
        known = len(self._x) > 0 or bool(self._evals)
        inside = position is not None and self._plot.area().contains(position) and known
        self._hover = self._plot.x_at(position.x()) if inside and position is not None else None
        self.hovered.emit("; ".join(" ".join(pair) for pair in self._hover_rows()))
        self._plot.viewport().update()

    def _hover_rows(self) -> list[tuple[str, str]]:
        if self._hover is None:
            return []
        if not len(self._x):
            nearest = min(self._evals, key=lambda point: abs(point[0] - (self._hover or 0.0)))
            said = self._form(nearest[1]) if isfinite(nearest[1]) else self.tr("not a number")
            return [(self.tr("Step"), QLocale().toString(round(nearest[0]))), (self._name, said)]
        at = int(np.abs(self._x - self._hover).argmin())
        rows = [(self.tr("Step"), QLocale().toString(round(self._x[at])))]
        value = float(self._raw_y[at])
        not_a_number = self.tr("not a number")
        rows.append((self.tr("This step"), self._form(value) if isfinite(value) else not_a_number))
        if isfinite(self._smooth_y[at]):
            rows.append((self.tr("Smoothed"), self._form(float(self._smooth_y[at]))))
        near = self._near_eval(float(self._x[at]))
        if near is not None:
            rows.append((self.tr("Held-out data"), self._form(near[1])))
        return rows

    def _near_eval(self, step: float) -> tuple[float, float] | None:
        before = [point for point in self._evals if point[0] <= step and isfinite(point[1])]
        return before[-1] if before else None

    def _paint_hover(self, painter: QPainter, colours: Tokens, area: QRectF) -> None:
        rows = self._hover_rows()
        if not rows or self._hover is None:
            return
        x = round(self._plot.spot(self._hover, 0).x())
        painter.fillRect(QRectF(x, area.top(), 1, area.height()), QColor(colours.ctl))
        width = 28 + max(text_width(name, "axis") + text_width(value, "axis", 600) for name, value in rows)
        height = len(rows) * px(16) + 12
        left = x + 8 if x + 8 + width < area.right() else x - 8 - width
        box = QRectF(left, area.top() + px(18), width, height)
        round_box(painter, box, 6, colours.card, colours.line2)
        for index, (name, value) in enumerate(rows):
            row = QRectF(left + 8, box.top() + 6 + index * px(16), width - 16, px(16))
            text(painter, row, name, "axis", colours.t2)
            text(painter, row, value, "axis", colours.t1, align=Qt.AlignmentFlag.AlignRight, weight=600)


class SmallChart(_Chart):
    """One quantity over the whole planned run, with what is still planned dotted."""

    def __init__(self, tone: ChartTone = "third", *, parent: QWidget | None = None) -> None:
        super().__init__((46, 2, 4, 2), zoom=False, parent=parent)
        self._tone: Final = tone
        self._points: list[tuple[float, float]] = []
        self._planned: list[tuple[float, float]] = []
        self._format: Callable[[float], str] = _short
        self._rest = self._plot.plot([], [], connect="finite")
        self._line = self._plot.plot([], [], connect="finite")
        self.setMinimumSize(160, 64)
        self._restyle()

    def set_data(
        self,
        points: Points,
        *,
        total_steps: int,
        planned: Points = (),
        y_format: Callable[[float], str] | None = None,
    ) -> None:
        """Show (step, value) points; `planned` is the rest of the line, dotted."""
        if total_steps != self._total or len(points) < len(self._points) or not self._points:
            self._y = None
        self._points, self._planned, self._total = list(points), list(planned), max(1, total_steps)
        self._format = y_format or self._format
        self._show()

    def points(self) -> list[tuple[float, float]]:
        """Return the points that were given."""
        return list(self._points)

    def export_csv(self, path: Path) -> None:
        """Write step and value."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "value"])
            writer.writerows([_plain(step), _plain(value)] for step, value in self._points)

    def sizeHint(self) -> QSize:
        return QSize(280, 92)

    def _colour(self) -> str:
        return tokens().colour(f"chart_{self._tone}")

    def _restyle(self) -> None:
        super()._restyle()
        self._line.setPen(pg.mkPen(self._colour(), width=1.75))
        faint = QColor(self._colour())
        faint.setAlphaF(0.75)
        pen = QPen(faint, 1)
        pen.setCosmetic(True)
        pen.setDashPattern([2, 3])
        self._rest.setPen(pen)
        self._plot.viewport().update()

    def _show(self) -> None:
        x, y = columns(self._points)
        self._line.setData(*thinned(x, y, max(2, round(self._plot.area().width()))), connect="finite")
        self._rest.setData(*columns(self._planned), connect="finite")
        pool = np.concatenate([y, columns(self._planned)[1]])
        pool = pool[np.isfinite(pool)]
        high = round_top(float(pool.max()) if len(pool) else 1.0)
        low = -round_top(-float(pool.min())) if len(pool) and pool.min() < 0 else 0.0
        if self._y is not None:
            low, high = min(low, self._y[0]), max(high, self._y[1])
        self._y = (low, high)
        self._plot.box.setYRange(low, high, padding=0.05)
        self._plot.box.setXRange(0, self._total, padding=0)
        if len(y):
            self.setAccessibleDescription(self._format(float(y[-1])))
        self._plot.viewport().update()

    def _paint_back(self, painter: QPainter) -> None:
        low, high = self._y or (0.0, 1.0)
        values = [low, (low + high) / 2, high]
        words = [self._format(value) if self._points or self._planned else "" for value in values]
        self._grid(painter, words, [self._plot.spot(0, value).y() for value in values])

    def _paint_front(self, painter: QPainter) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self._points and isfinite(self._points[-1][1]):
            disc(painter, self._plot.spot(*self._points[-1]), 3, self._colour())


class LossLegend(QWidget):
    """Line samples with names and the latest values, for the head of the card."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._train = self._eval = "–"
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)

    def set_values(self, train: str, evaluation: str) -> None:
        """Show the latest training and held-out loss; an empty text is a dash."""
        self._train, self._eval = train or "–", evaluation or "–"
        names = (self.tr("Training"), self._train, self.tr("Held-out data"), self._eval)
        self.setAccessibleName("{} {}, {} {}".format(*names))
        self.update()

    def sizeHint(self) -> QSize:
        names = text_width(self.tr("Training"), "secondary") + text_width(self.tr("Held-out data"), "secondary")
        return QSize(round(names + 2 * (22 + 6 + _value_room() + 14)), px(20))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        middle = round(self.height() / 2)
        x = self._entry(painter, 0, self.tr("Training"), self._train, colours.chart_train, colours)
        self._entry(painter, x, self.tr("Held-out data"), self._eval, colours.chart_eval, colours)
        spot = QPointF(x + 8, middle)
        disc(painter, spot, 3, colours.card)
        hollow(painter, spot, 3, colours.chart_eval)

    def _entry(self, painter: QPainter, x: float, name: str, value: str, colour: str, colours: Tokens) -> float:
        painter.fillRect(QRectF(x, round(self.height() / 2) - 1, 16, 2), QColor(colour))
        row = QRectF(x + 22, 0, self.width() - x - 22, self.height())
        used = text(painter, row, name, "secondary", colours.t2)
        text(painter, row.adjusted(used + 6, 0, 0, 0), value, "secondary", colours.t1, weight=600)
        return x + 22 + used + 6 + _value_room() + 14


def _value_room() -> float:
    """Return the width kept for a loss, so that nothing moves when it changes."""
    return px(42)


def _veil(colour: str) -> QColor:
    veil = QColor(colour)
    veil.setAlphaF(0.82)
    return veil


def _loss(value: float) -> str:
    return QLocale().toString(float(value), "f", 3)


def _plain(value: float | None) -> str:
    if value is None:
        return ""
    return repr(int(value)) if isfinite(value) and value == int(value) else repr(float(value))


def _short(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) < 0.001:
        return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")
    return QLocale().toString(float(value), "f", 0 if abs(value) >= 10 else 2)
