"""What is happening, in sentences, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from PySide6.QtCore import (
    QAbstractListModel,
    QEvent,
    QModelIndex,
    QPersistentModelIndex,
    QPointF,
    QRect,
    QRectF,
    QSize,
    Qt,
    Signal,
)
from PySide6.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter
from PySide6.QtWidgets import QFrame, QListView, QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from tunedesk.gui.theme import MEASURES
from tunedesk.gui.widgets.glyphs import check_glyph
from tunedesk.gui.widgets.paint import px, text, text_width, tokens

Glyph = Literal["dot", "star", "ok", "warn", "bad", "info"]
_Index = QModelIndex | QPersistentModelIndex
_LINE: Final = Qt.ItemDataRole.UserRole + 1


@dataclass(frozen=True, slots=True)
class LogLine:
    """One sentence: when, a sign, what happened, where, and optionally a link."""

    time: str
    text: str
    glyph: Glyph = "dot"
    right: str = ""
    link: str = ""


class _Lines(QAbstractListModel):
    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.lines: list[LogLine] = []

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self.lines)

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        line = self.lines[index.row()]
        if role == _LINE:
            return line
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            return line.text
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return " ".join(part for part in (line.time, line.text, line.right, line.link) if part)
        return None

    def replace(self, lines: list[LogLine]) -> None:
        """Show other lines; new ones at the top are inserted so that the view keeps its place."""
        added = len(lines) - len(self.lines)
        if added > 0 and lines[added:] == self.lines:
            self.beginInsertRows(QModelIndex(), 0, added - 1)
            self.lines = lines
            self.endInsertRows()
        elif lines != self.lines:
            self.beginResetModel()
            self.lines = lines
            self.endResetModel()


class _Delegate(QStyledItemDelegate):
    def sizeHint(self, option: QStyleOptionViewItem, index: _Index) -> QSize:  # noqa: ARG002
        return QSize(200, px(MEASURES.log))

    def link_rect(self, rect: QRect, line: LogLine) -> QRectF:
        """Return where the link of a line is drawn."""
        right = rect.right() - text_width(line.right, "secondary") - (16 if line.right else 0)
        width = text_width(line.link, "secondary", 500) + 1
        return QRectF(right - width, rect.top(), width, rect.height())

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        line: LogLine = index.data(_LINE)
        colours = tokens()
        box = QRectF(option.rect)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if option.state & QStyle.StateFlag.State_HasFocus:
            painter.fillRect(box, QColor(colours.hover))
        stamp = px(64)
        text(painter, QRectF(box.left() + 1, box.top(), stamp, box.height()), line.time, "secondary", colours.t2)
        check_glyph(painter, QPointF(box.left() + stamp + 7, box.center().y()), line.glyph, colours)
        link = self.link_rect(option.rect, line)
        start = box.left() + stamp + 28
        room = QRectF(start, box.top(), link.left() - start - 12, box.height())
        text(painter, room, line.text, "body", colours.t1)
        text(painter, link, line.link, "secondary", colours.accent, weight=500)
        text(painter, box, line.right, "secondary", colours.t2, align=Qt.AlignmentFlag.AlignRight)
        painter.restore()


class LogList(QListView):
    """Log lines of 28 px: time, sign, sentence, place."""

    link_chosen = Signal(int)

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._lines = _Lines(self)
        self._drawn = _Delegate(self)
        self.setModel(self._lines)
        self.setItemDelegate(self._drawn)
        self.setAccessibleName(self.tr("What is happening"))
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setUniformItemSizes(True)
        self.setMouseTracking(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self.setEditTriggers(QListView.EditTrigger.NoEditTriggers)

    def set_lines(self, lines: Sequence[LogLine]) -> None:
        """Show these lines, newest first."""
        self._lines.replace(list(lines))

    def lines(self) -> list[LogLine]:
        """Return what is shown."""
        return list(self._lines.lines)

    def sizeHint(self) -> QSize:
        return QSize(400, px(MEASURES.log) * 5)

    def minimumSizeHint(self) -> QSize:
        return QSize(200, px(MEASURES.log) * 2)

    def _over_link(self, event: QMouseEvent) -> int | None:
        index = self.indexAt(event.position().toPoint())
        if not index.isValid() or not self._lines.lines[index.row()].link:
            return None
        rect = self._drawn.link_rect(self.visualRect(index), self._lines.lines[index.row()])
        return index.row() if rect.contains(event.position()) else None

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        super().mouseMoveEvent(event)
        over = self._over_link(event) is not None
        self.viewport().setCursor(Qt.CursorShape.PointingHandCursor if over else Qt.CursorShape.ArrowCursor)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        super().mouseReleaseEvent(event)
        row = self._over_link(event)
        if row is not None:
            self.link_chosen.emit(row)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        index = self.currentIndex()
        enter = event.type() == QEvent.Type.KeyPress and event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if enter and index.isValid() and self._lines.lines[index.row()].link:
            self.link_chosen.emit(index.row())
            return
        super().keyPressEvent(event)
