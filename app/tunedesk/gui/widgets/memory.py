"""Memory drawn to scale: what one training step needs, and what is free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Final

from PySide6.QtCore import QAbstractAnimation, QCoreApplication, QLocale, QPointF, QRectF, QSize, Qt, QVariantAnimation
from PySide6.QtGui import QColor, QHelpEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from tunedesk.gui.theme import MEMORY_PARTS, Theme, Tokens
from tunedesk.gui.widgets.paint import painter_on, px, text, text_width, tokens

LABEL_WIDTH: Final = 104
_ROW: Final = 32
_ROW_GAP: Final = 16
_TOP: Final = 30
_SLIDE_MS: Final = 150


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """The memory of one plan in GiB, by part, with the ends of its error band; `ok` = it fits."""

    label: str
    parts: Mapping[str, float]
    low: float
    high: float
    ok: bool

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return sum(self.parts.values())


def part_names() -> dict[str, str]:
    """Return the words for each part, in order."""
    tr = QCoreApplication.translate
    return {
        "weights": tr("MemoryBar", "Model weights"),
        "adapter": tr("MemoryBar", "Added"),
        "gradients": tr("MemoryBar", "Gradients"),
        "optimiser": tr("MemoryBar", "Optimiser"),
        "activations": tr("MemoryBar", "Activations"),
        "logits": tr("MemoryBar", "Logits"),
        "overhead": tr("MemoryBar", "Overhead"),
    }


def gib(value: float, decimals: int = 1) -> str:
    """Return a number of GiB in the locale's notation, without the unit."""
    return QLocale().toString(float(value), "f", decimals)


def spoken(row: MemoryRow) -> str:
    """Return a row as a sentence with its numbers."""
    names = part_names()
    tr = QCoreApplication.translate
    parts = ", ".join(f"{names[name]} {gib(row.parts.get(name, 0.0), 2)} GiB" for name in MEMORY_PARTS)
    verdict = tr("MemoryBar", "fits") if row.ok else tr("MemoryBar", "does not fit")
    band = tr("MemoryBar", "between %1 and %2 GiB").replace("%1", gib(row.low)).replace("%2", gib(row.high))
    return f"{row.label}: {gib(row.total)} GiB, {band}, {verdict}. {parts}."


def nice_step(span: float, about: int = 6) -> float:
    """Return a round step that divides `span` into about that many parts."""
    rough = span / about if span > 0 else 1.0
    power = 10.0 ** floor(log10(rough))
    return next(power * factor for factor in (1, 2, 4, 5, 10) if power * factor >= rough * 0.999)


def segments(row: Mapping[str, float], scale: float, left: float) -> list[tuple[str, float, float]]:
    """Return (part, x, width) for each part, in order."""
    placed, x = [], left
    for name in MEMORY_PARTS:
        width = row.get(name, 0.0) * scale
        placed.append((name, x, width))
        x += width
    return placed


def paint_segments(painter: QPainter, placed: list[tuple[str, float, float]], y: float, h: float, c: Tokens) -> None:
    """Fill the segments, with a gap of one pixel between neighbours."""
    painter.setPen(Qt.PenStyle.NoPen)
    for name, x, width in placed:
        if width >= 0.5:
            painter.fillRect(QRectF(x, y, max(1.0, width - 1), h), QColor(c.memory.part(name)))


class MemoryBar(QWidget):
    """One or two stacked bars on one axis, with a line for what is free now."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: list[MemoryRow] = []
        self._shown: list[dict[str, float]] = []
        self._from: list[dict[str, float]] = []
        self._free = self._total = 0.0
        self._note = ""
        self._total_name = ""
        self._slide = QVariantAnimation(self)
        self._slide.setDuration(_SLIDE_MS)
        self._slide.setStartValue(0.0)
        self._slide.setEndValue(1.0)
        self._slide.valueChanged.connect(self._move)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAccessibleName(self.tr("Memory, not measured yet"))

    def set_rows(
        self, rows: Sequence[MemoryRow], free: float, total: float, *, note: str = "", total_name: str = ""
    ) -> None:
        """Show these rows against the memory that is free and that is there, in GiB.

        `total_name` is what all the memory is called; a card, unless told otherwise.
        """
        before = {row.label: shown for row, shown in zip(self._rows, self._shown, strict=True)}
        first = list(self._shown[:1])
        self._rows, self._free, self._total, self._note = list(rows), free, total, note
        self._total_name = total_name or self.tr("Card")
        target = [dict(row.parts) for row in self._rows]
        start = [before.get(row.label, first[0] if first else None) for row in self._rows]
        self._from = [old if old is not None else new for old, new in zip(start, target, strict=True)]
        self._describe()
        self.updateGeometry()
        self._slide.stop()
        if self._from == target or Theme.of().reduced_motion or not self.isVisible():
            self._shown = target
            self.update()
            return
        self._shown = list(self._from)
        self._slide.start()

    def rows(self) -> list[MemoryRow]:
        """Return what is shown."""
        return list(self._rows)

    def is_sliding(self) -> bool:
        """Return whether the bars are on their way."""
        return self._slide.state() == QAbstractAnimation.State.Running

    def _describe(self) -> None:
        free = self.tr("Free now: %1 of %2 GiB.").replace("%1", gib(self._free)).replace("%2", gib(self._total))
        self.setAccessibleName(" ".join([*(spoken(row) for row in self._rows), free]))

    def _move(self, share: float) -> None:
        self._shown = [
            {
                name: old.get(name, 0.0) + (row.parts.get(name, 0.0) - old.get(name, 0.0)) * share
                for name in MEMORY_PARTS
            }
            for old, row in zip(self._from, self._rows, strict=True)
        ]
        self.update()

    def sizeHint(self) -> QSize:
        rows = max(1, len(self._rows))
        return QSize(480, _TOP + rows * _ROW + (rows - 1) * _ROW_GAP + 14 + px(16))

    def minimumSizeHint(self) -> QSize:
        return QSize(320, self.sizeHint().height())

    def axis_end(self) -> float:
        """Return the right end of the axis in GiB: a whole number of steps."""
        most = max([self._total, self._free, *(row.high for row in self._rows)], default=1.0) or 1.0
        step = nice_step(most)
        return float(step * (int(most / step - 1e-9) + 1))

    def _left(self) -> float:
        return px(LABEL_WIDTH)

    def _scale(self) -> float:
        return (self.width() - self._left() - px(22)) / self.axis_end()

    def _x(self, value: float) -> float:
        return self._left() + value * self._scale()

    def _row_top(self, index: int) -> float:
        return _TOP + index * (_ROW + _ROW_GAP)

    def _bottom(self) -> float:
        return self._row_top(max(0, len(self._rows) - 1)) + _ROW

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        self._paint_axis(painter, colours)
        self._paint_taken(painter, colours)
        for index, row in enumerate(self._rows):
            self._paint_row(painter, index, row, colours)
        self._paint_lines(painter, colours)

    def _paint_axis(self, painter: QPainter, colours: Tokens) -> None:
        end = self.axis_end()
        step = nice_step(end)
        decimals = 0 if step >= 1 else 1
        top, bottom = self._row_top(0) - 8, self._bottom() + 10
        for index in range(round(end / step) + 1):
            value = index * step
            x = round(self._x(value))
            painter.fillRect(QRectF(x, top, 1, bottom - top), QColor(colours.chart_grid))
            words = gib(value, decimals) + (" GiB" if index == round(end / step) else "")
            box = QRectF(x - 40, bottom + 4, 80, px(16))
            if index == round(end / step):
                box.moveRight(min(x + 40, self.width() + 40 - text_width(words, "axis") / 2))
            text(painter, box, words, "axis", colours.t3, align=Qt.AlignmentFlag.AlignHCenter)

    def _paint_taken(self, painter: QPainter, colours: Tokens) -> None:
        if self._total > self._free > 0:
            left, right = self._x(self._free), self._x(self._total)
            top = self._row_top(0) - 8
            painter.fillRect(QRectF(left, top, right - left, self._bottom() + 10 - top), QColor(colours.sunk))

    def _paint_row(self, painter: QPainter, index: int, row: MemoryRow, colours: Tokens) -> None:
        top = self._row_top(index)
        placed = segments(self._shown[index], self._scale(), self._left())
        end = placed[-1][1] + placed[-1][2]
        self._paint_band_shade(painter, row, top, end, colours)
        paint_segments(painter, placed, top, _ROW, colours)
        self._paint_segment_labels(painter, index, placed, top, colours)
        if not self.is_sliding():
            self._paint_whisker(painter, row, top, colours)
        self._paint_row_label(painter, row, top, colours)
        self._paint_spare(painter, row, top, colours)

    def _paint_row_label(self, painter: QPainter, row: MemoryRow, top: float, colours: Tokens) -> None:
        width = self._left() - 10
        middle = top + _ROW / 2
        text(painter, QRectF(0, middle - px(16), width, px(16)), row.label, "body", colours.t1, weight=500)
        band = gib((row.high - row.low) / 2)
        words = self.tr("%1 GiB ± %2").replace("%1", gib(row.total)).replace("%2", band)
        tone = colours.ok if row.ok else colours.bad
        text(painter, QRectF(0, middle, width, px(16)), words, "secondary", tone, weight=500)

    def _paint_segment_labels(
        self, painter: QPainter, index: int, placed: list[tuple[str, float, float]], top: float, colours: Tokens
    ) -> None:
        inks = {
            "weights": colours.memory.on_weights,
            "activations": colours.memory.on_activations,
            "logits": colours.memory.on_logits,
        }
        for name, x, width in placed:
            words = f"{part_names()[name]} {gib(self._shown[index].get(name, 0.0))}"
            left = self._label_left(x, width, text_width(words, "secondary", 500)) if name in inks else None
            if left is not None:
                box = QRectF(left, top, x + width - left - 2, _ROW)
                text(painter, box, words, "secondary", inks[name], weight=500)

    def _label_left(self, x: float, width: float, needed: float) -> float | None:
        """Return where a label fits into a segment without lying under a line, if it does."""
        lines = [self._x(value) for value in (self._free, self._total) if x < self._x(value) < x + width]
        starts = [x, *lines]
        ends = [*lines, x + width]
        for start, end in zip(starts, ends, strict=True):
            if needed + 18 <= end - start:
                return start + 10
        return None

    def _paint_band_shade(self, painter: QPainter, row: MemoryRow, top: float, end: float, colours: Tokens) -> None:
        high = self._x(row.high)
        if high > end and not self.is_sliding():
            shade = QColor(colours.memory.overhead)
            shade.setAlphaF(0.25)
            painter.fillRect(QRectF(end, top, high - end, _ROW), shade)

    def _paint_whisker(self, painter: QPainter, row: MemoryRow, top: float, colours: Tokens) -> None:
        low, high, middle = round(self._x(row.low)), round(self._x(row.high)), round(top + _ROW / 2)
        if high - low < 2:
            return
        if colours.name == "contrast":
            painter.fillRect(QRectF(low - 1, middle - 2, high - low + 2, 3.5), QColor(colours.card))
            for x in (low, high - 1.5):
                painter.fillRect(QRectF(x - 1, middle - 7, 3.5, 14), QColor(colours.card))
        ink = QColor(colours.t1)
        painter.fillRect(QRectF(low, middle - 1, high - low, 1.5), ink)
        for x in (low, high - 1.5):
            painter.fillRect(QRectF(x, middle - 6, 1.5, 12), ink)

    def _paint_spare(self, painter: QPainter, row: MemoryRow, top: float, colours: Tokens) -> None:
        spare = self._free - row.total
        words = self.tr("%1 GiB to spare").replace("%1", gib(spare))
        needed = text_width(words, "secondary", 500)
        start = max(self._x(self._total), self._x(row.high)) + 10
        if start + needed >= self.width():
            start = max(self._x(self._free), self._x(row.high)) + 10
        if row.ok and spare > 0 and start + needed < self.width():
            box = QRectF(start, top, self.width() - start, _ROW)
            text(painter, box, words, "secondary", colours.ok, weight=500)

    def _paint_lines(self, painter: QPainter, colours: Tokens) -> None:
        if not self._rows:
            return
        top, bottom = self._row_top(0) - 16, self._bottom() + 14
        free, total = round(self._x(self._free)), round(self._x(self._total))
        if total > free:
            pen = QPen(QColor(colours.t3), 1)
            pen.setDashPattern([2, 3])
            painter.setPen(pen)
            painter.drawLine(QPointF(total + 0.5, top), QPointF(total + 0.5, bottom - 4))
        painter.fillRect(QRectF(free - 1, top, 2, bottom - top), QColor(colours.t1))
        self._paint_line_labels(painter, free, total, colours)

    def _paint_line_labels(self, painter: QPainter, free: int, total: int, colours: Tokens) -> None:
        words = self.tr("Free now %1 GiB").replace("%1", gib(self._free))
        width = text_width(words, "secondary", 600) + 2
        x = max(0.0, free - width - 5)
        text(painter, QRectF(x, 0, width, px(18)), words, "secondary", colours.t1, weight=600)
        if total <= free:
            return
        rest = self.tr("%1 %2 GiB").replace("%1", self._total_name).replace("%2", gib(self._total))
        if self._note:
            rest = f"{rest}, {self._note}"
        needed = text_width(rest, "secondary") + 2
        left = max(total + 6.0, x + width + 8)
        if left + needed > self.width() and x - 16 - needed > self._left():
            left = x - 16 - needed
        text(painter, QRectF(left, 0, self.width() - left, px(18)), rest, "secondary", colours.t2)

    def event(self, event: QHelpEvent) -> bool:  # type: ignore[override]
        if isinstance(event, QHelpEvent):
            self._tell(event)
            return True
        return super().event(event)

    def _tell(self, event: QHelpEvent) -> None:
        for index, row in enumerate(self._rows):
            top = self._row_top(index)
            if not top <= event.pos().y() <= top + _ROW:
                continue
            for name, x, width in segments(row.parts, self._scale(), self._left()):
                if x <= event.pos().x() < x + width:
                    words = f"{part_names()[name]} {gib(row.parts.get(name, 0.0), 2)} GiB"
                    QToolTip.showText(event.globalPos(), words, self)
                    return
        QToolTip.hideText()


class MemoryTable(QWidget):
    """The legend of the bar: a swatch and a name per part, and a row of numbers per plan."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: list[MemoryRow] = []
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_rows(self, rows: Sequence[MemoryRow]) -> None:
        """Show these rows."""
        self._rows = list(rows)
        self.setAccessibleName(" ".join(spoken(row) for row in rows))
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(560, px(20) * (1 + max(1, len(self._rows))))

    def minimumSizeHint(self) -> QSize:
        return QSize(320, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        left, line = px(LABEL_WIDTH), px(20)
        widths = self._columns()
        text(painter, QRectF(0, 0, left, line), "GiB", "secondary", colours.t2)
        x = float(left)
        for (name, words), column in zip(part_names().items(), widths, strict=True):
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(colours.memory.part(name)))
            painter.drawRoundedRect(QRectF(x, line / 2 - 5, 10, 10), 2, 2)
            text(painter, QRectF(x + 16, 0, column - 20, line), words, "secondary", colours.t2)
            self._paint_numbers(painter, name, x + 16, column - 20, colours)
            x += column
        for index, row in enumerate(self._rows):
            text(painter, QRectF(0, line * (index + 1), left - 8, line), row.label, "secondary", colours.t2)

    def _columns(self) -> list[float]:
        """Return a width per part: room for its name, and an equal share of what is left."""
        needed = [text_width(words, "secondary") + 24 for words in part_names().values()]
        room = self.width() - px(LABEL_WIDTH)
        if sum(needed) > room:
            return [room * width / sum(needed) for width in needed]
        spare = (room - sum(needed)) / len(needed)
        return [width + spare for width in needed]

    def _paint_numbers(self, painter: QPainter, name: str, x: float, width: float, colours: Tokens) -> None:
        line = px(20)
        first = gib(self._rows[0].parts.get(name, 0.0), 2) if self._rows else ""
        for index, row in enumerate(self._rows):
            words = gib(row.parts.get(name, 0.0), 2)
            strong = index > 0 and words != first
            ink, weight = (colours.t1, 600) if strong else (colours.t2, 400)
            box = QRectF(x, line * (index + 1), width, line)
            text(painter, box, words, "secondary", ink, weight=weight)


class MemoryStrip(QWidget):
    """A bar of 8 px that compares one plan with what is free."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._row: MemoryRow | None = None
        self._free = self._total = 0.0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_row(self, row: MemoryRow, free: float, total: float) -> None:
        """Show one plan, in GiB."""
        self._row, self._free, self._total = row, free, total
        self.setAccessibleName(spoken(row))
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(160, 16)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        top = (self.height() - 8) / 2
        painter.fillRect(QRectF(0, top, self.width(), 8), QColor(colours.hover))
        if self._row is None:
            return
        scale = self.width() / max(self._total, self._row.total, 1e-9)
        paint_segments(painter, segments(self._row.parts, scale, 0), top, 8, colours)
        x = round(self._free * scale)
        painter.fillRect(QRectF(x - 2, top - 2, 4, 12), QColor(colours.card))
        painter.fillRect(QRectF(x - 1, top - 2, 2, 12), QColor(colours.t1))
