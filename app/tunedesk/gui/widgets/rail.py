"""The rail at the left: the seven steps, the runs, and what the computer has free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from PySide6.QtCore import (
    QAbstractListModel,
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    QPointF,
    QRectF,
    QSize,
    Qt,
    Signal,
)
from PySide6.QtGui import QColor, QFocusEvent, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QListView,
    QSizePolicy,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from tunedesk.gui.theme import MEASURES, Theme, Tokens, pixmap
from tunedesk.gui.widgets.button import IconButton
from tunedesk.gui.widgets.glyphs import run_glyph, step_glyph
from tunedesk.gui.widgets.paint import painter_on, px, text, text_width, tokens
from tunedesk.gui.widgets.text import ElidedLabel, Label

StepStatus = Literal["open", "settled", "trouble", "running", "paused", "failed"]
RunStatus = Literal["running", "paused", "done", "failed", "stopped"]
_Index = QModelIndex | QPersistentModelIndex

ITEM_ROLE: Final = Qt.ItemDataRole.UserRole + 1
CHOSEN_ROLE: Final = Qt.ItemDataRole.UserRole + 2
_KEYS: Final = {Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space}


@dataclass(frozen=True, slots=True)
class StepItem:
    """One step of the journey: its state, and in `line` the choice made or why it waits."""

    key: str
    title: str
    line: str
    status: StepStatus = "open"
    progress: float | None = None


@dataclass(frozen=True, slots=True)
class RunItem:
    """One run; `value` is its best held-out loss, its progress or its end, as text."""

    id: str
    name: str
    status: RunStatus
    value: str = ""


@dataclass(frozen=True, slots=True)
class DeviceItem:
    """The device in use, and its memory as a sentence."""

    name: str
    line: str


class _Items(QAbstractListModel):
    """Steps or runs, with the one that is chosen."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.items: Sequence[StepItem | RunItem] = []
        self.chosen = ""

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self.items)

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        item = self.items[index.row()]
        if role == ITEM_ROLE:
            return item
        if role == CHOSEN_ROLE:
            return self.key(item) == self.chosen
        if role == Qt.ItemDataRole.DisplayRole:
            return item.title if isinstance(item, StepItem) else item.name
        if role in (Qt.ItemDataRole.AccessibleTextRole, Qt.ItemDataRole.ToolTipRole):
            return self.words(item)
        return None

    def words(self, item: StepItem | RunItem) -> str:
        """Return the item as a sentence for a screen reader."""
        states = {
            "open": self.tr("not yet"),
            "settled": self.tr("settled"),
            "trouble": self.tr("needs a decision"),
            "running": self.tr("running"),
            "paused": self.tr("paused"),
            "failed": self.tr("failed"),
            "done": self.tr("done"),
            "stopped": self.tr("stopped"),
        }
        if isinstance(item, StepItem):
            parts = [item.title, item.line, states[item.status]]
        else:
            parts = [item.name, states[item.status], item.value]
        return ", ".join(part for part in parts if part)

    @staticmethod
    def key(item: StepItem | RunItem) -> str:
        return item.key if isinstance(item, StepItem) else item.id

    def row_of(self, key: str) -> int | None:
        """Return the row of the item with this key."""
        return next((row for row, item in enumerate(self.items) if self.key(item) == key), None)

    def replace(self, items: Sequence[StepItem | RunItem]) -> None:
        """Show other items; while keys stay the same, only the rows are repainted."""
        same = [self.key(item) for item in items] == [self.key(item) for item in self.items]
        if not same:
            self.beginResetModel()
        self.items = items
        if not same:
            self.endResetModel()
        elif items:
            self.dataChanged.emit(self.index(0), self.index(len(items) - 1))


class _List(QListView):
    """A flat list that reports a click, Return or Space."""

    picked = Signal(str)

    def __init__(self, delegate: QStyledItemDelegate, name: str, parent: QWidget) -> None:
        super().__init__(parent)
        self.items = _Items(self)
        self.setModel(self.items)
        self.setItemDelegate(delegate)
        self.setAccessibleName(name)
        self.setProperty("ownFocus", True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setUniformItemSizes(True)
        self.setMouseTracking(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self.setEditTriggers(QListView.EditTrigger.NoEditTriggers)
        self.setStyleSheet("QListView { background: transparent; }")
        self.clicked.connect(self._pick)
        self.by_keyboard = False

    def choose(self, key: str) -> None:
        """Mark the item with this key."""
        if key == self.items.chosen:
            return
        self.items.chosen = key
        row = self.items.row_of(key)
        if row is not None:
            self.setCurrentIndex(self.items.index(row))
        self.viewport().update()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        self.by_keyboard = True
        if Qt.Key(event.key()) in _KEYS and self.currentIndex().isValid():
            self._pick(self.currentIndex())
            return
        super().keyPressEvent(event)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self.by_keyboard = False
        super().mousePressEvent(event)

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        self.by_keyboard = event.reason() in (Qt.FocusReason.TabFocusReason, Qt.FocusReason.BacktabFocusReason)
        if not self.currentIndex().isValid():
            self.setCurrentIndex(self.items.index(0))

    def _pick(self, index: _Index) -> None:
        self.picked.emit(self.items.key(index.data(ITEM_ROLE)))


def _row_ground(painter: QPainter, option: QStyleOptionViewItem, index: _Index, colours: Tokens) -> QRectF:
    box = QRectF(option.rect).adjusted(8, 0, -8, 0)
    hover = bool(option.state & QStyle.StateFlag.State_MouseOver)
    if index.data(CHOSEN_ROLE) or hover:
        fill = QColor(colours.hover)
        if not index.data(CHOSEN_ROLE):
            fill.setAlphaF(0.55)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(fill)
        painter.drawRoundedRect(box, 6, 6)
    view = option.widget
    if option.state & QStyle.StateFlag.State_HasFocus and isinstance(view, _List) and view.by_keyboard:
        painter.setPen(QPen(QColor(colours.accent), colours.ring_width))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRoundedRect(box.adjusted(1, 1, -1, -1), 5, 5)
    return box


class _StepDelegate(QStyledItemDelegate):
    def sizeHint(self, option: QStyleOptionViewItem, index: _Index) -> QSize:  # noqa: ARG002
        return QSize(MEASURES.rail - 1, px(MEASURES.step))

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        item: StepItem = index.data(ITEM_ROLE)
        colours = tokens()
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = _row_ground(painter, option, index, colours)
        centre = QPointF(25, box.center().y())
        self._links(painter, index, box, colours)
        step_glyph(painter, centre, item.status, colours, current=bool(index.data(CHOSEN_ROLE)), progress=item.progress)
        self._words(painter, item, box, colours, current=bool(index.data(CHOSEN_ROLE)))
        painter.restore()

    def _words(self, painter: QPainter, item: StepItem, box: QRectF, colours: Tokens, *, current: bool) -> None:
        quiet = item.status == "open" and not current
        middle = box.center().y()
        half = px(15)
        left, width = 46.0, box.right() - 46 - 8
        ink = colours.t2 if quiet else colours.t1
        text(painter, QRectF(left, middle - px(8) - half / 2, width, half), item.title, "body", ink, weight=500)
        text(painter, QRectF(left, middle + px(8) - half / 2, width, half), item.line, "secondary", colours.t2)

    def _links(self, painter: QPainter, index: _Index, box: QRectF, colours: Tokens) -> None:
        def status(row: int) -> str:
            found = index.model().index(row, 0)
            return found.data(ITEM_ROLE).status if found.isValid() else ""

        here, before, after = status(index.row()), status(index.row() - 1), status(index.row() + 1)
        middle = box.center().y()
        if before:
            self._link(painter, box.top(), middle - 11, before == "settled", colours)
        if after:
            self._link(painter, middle + 11, box.bottom(), here == "settled", colours)

    @staticmethod
    def _link(painter: QPainter, top: float, bottom: float, done: bool, colours: Tokens) -> None:
        ink = QColor(colours.ok if done else colours.line2)
        ink.setAlphaF(0.65 if done else 1.0)
        painter.setPen(QPen(ink, 1))
        painter.drawLine(QPointF(24.5, top), QPointF(24.5, bottom))


class _RunDelegate(QStyledItemDelegate):
    def sizeHint(self, option: QStyleOptionViewItem, index: _Index) -> QSize:  # noqa: ARG002
        return QSize(MEASURES.rail - 1, px(MEASURES.run))

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        item: RunItem = index.data(ITEM_ROLE)
        colours = tokens()
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = _row_ground(painter, option, index, colours)
        run_glyph(painter, QPointF(25, box.center().y()), item.status, colours)
        value = text_width(item.value, "secondary")
        right = box.right() - 8
        text(painter, QRectF(42, box.top(), right - 42 - value - 8, box.height()), item.name, "secondary", colours.t1)
        spot = QRectF(right - value - 1, box.top(), value + 1, box.height())
        text(painter, spot, item.value, "secondary", colours.t2, align=Qt.AlignmentFlag.AlignRight)
        painter.restore()


class _Foot(QWidget):
    """The device, its free memory, and the way to the settings."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._fit()
        Theme.of().changed.connect(self._fit)
        row = QHBoxLayout(self)
        row.setContentsMargins(40, 1, 10, 0)
        row.setSpacing(4)
        words = QVBoxLayout()
        words.setSpacing(0)
        words.setContentsMargins(0, 11, 0, 11)
        self.name = ElidedLabel("", "secondary")
        self.name.setObjectName("deviceName")
        self.line = ElidedLabel("", "secondary", "t2")
        self.line.setObjectName("deviceLine")
        words.addWidget(self.name)
        words.addWidget(self.line)
        row.addLayout(words, 1)
        self.gear = IconButton("settings", self.tr("Settings"))
        self.gear.setObjectName("settings")
        row.addWidget(self.gear)

    def _fit(self) -> None:
        self.setFixedHeight(px(MEASURES.footer) + 1)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        painter.fillRect(0, 0, self.width(), 1, QColor(colours.line))
        image = pixmap("cpu", 16, colours.t2, self.devicePixelRatioF())
        painter.drawPixmap(16, (self.height() - 16) // 2, image)


class _Head(QWidget):
    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setFixedHeight(56)
        self.setAccessibleName("TuneDesk")

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        painter = painter_on(self)
        painter.drawPixmap(16, 18, pixmap("logo", 20, "", self.devicePixelRatioF()))
        text(painter, QRectF(44, 18, self.width() - 52, 20), "TuneDesk", "verdict", tokens().t1)


class Rail(QWidget):
    """The path through the app, always visible."""

    step_chosen = Signal(str)
    run_chosen = Signal(str)
    new_run_asked = Signal()
    settings_asked = Signal()
    run_menu_asked = Signal(str, QPoint)

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("rail")
        self.setFixedWidth(MEASURES.rail)
        self._steps = _List(_StepDelegate(self), self.tr("Steps"), self)
        self._steps.setObjectName("steps")
        self._steps.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._steps.picked.connect(self.step_chosen)
        self._runs = _List(_RunDelegate(self), self.tr("Runs"), self)
        self._runs.setObjectName("runs")
        self._runs.picked.connect(self.run_chosen)
        self._runs.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self._runs.customContextMenuRequested.connect(self._ask_menu)
        self._runs.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
        self._foot = _Foot(self)
        self._foot.gear.clicked.connect(self.settings_asked)
        self._lay_out()
        Theme.of().changed.connect(self._fit)

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 1, 0)
        column.setSpacing(0)
        column.addWidget(_Head(self))
        column.addWidget(self._steps)
        column.addSpacing(14)
        column.addLayout(self._runs_head())
        column.addWidget(self._runs, 1)
        column.addSpacing(8)
        column.addWidget(self._foot)

    def _runs_head(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setContentsMargins(16, 0, 10, 0)
        row.addWidget(Label(self.tr("Runs"), "axis", "t2"), 1)
        plus = IconButton("plus", self.tr("Start a new run"))
        plus.setObjectName("newRun")
        plus.clicked.connect(self.new_run_asked)
        row.addWidget(plus)
        return row

    def set_steps(self, steps: Sequence[StepItem]) -> None:
        """Show the state of every step."""
        self._steps.items.replace(list(steps))
        self._fit()

    def _fit(self) -> None:
        self._steps.setFixedHeight(len(self._steps.items.items) * px(MEASURES.step))
        self._steps.scheduleDelayedItemsLayout()
        self._runs.scheduleDelayedItemsLayout()

    def steps(self) -> list[StepItem]:
        """Return what is shown."""
        return [item for item in self._steps.items.items if isinstance(item, StepItem)]

    def set_current(self, key: str) -> None:
        """Mark the step whose page is open."""
        self._steps.choose(key)

    def set_runs(self, runs: Sequence[RunItem]) -> None:
        """Show these runs, newest first."""
        self._runs.items.replace(list(runs))

    def set_current_run(self, run_id: str) -> None:
        """Mark the run that is open."""
        self._runs.choose(run_id)

    def set_device(self, item: DeviceItem) -> None:
        """Show the device and what it has free."""
        self._foot.name.setText(item.name)
        self._foot.line.setText(item.line)
        self._foot.setAccessibleName(f"{item.name}, {item.line}")

    def _ask_menu(self, spot: QPoint) -> None:
        index = self._runs.indexAt(spot)
        if index.isValid():
            self.run_menu_asked.emit(index.data(ITEM_ROLE).id, self._runs.viewport().mapToGlobal(spot))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(colours.rail))
        painter.fillRect(self.width() - 1, 0, 1, self.height(), QColor(colours.line))
