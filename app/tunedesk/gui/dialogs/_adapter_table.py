"""The table of the adapter library: one adapter a row, its name can be edited in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from PySide6.QtCore import (
    QAbstractTableModel,
    QItemSelectionModel,
    QModelIndex,
    QPersistentModelIndex,
    QSortFilterProxyModel,
    Qt,
    Signal,
)
from PySide6.QtGui import QFont, QKeyEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QLineEdit,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QWidget,
)

from tunedesk.core.adapters import LONGEST_NAME, Adapter
from tunedesk.gui import adapter_words, words
from tunedesk.gui.theme import Theme

_Index = QModelIndex | QPersistentModelIndex

_ROW: Final = 40
_WIDTHS: Final = (0, 116, 116, 84, 92, 112)
"""Of all columns but the name, which takes what is left."""
_RIGHT: Final = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
_LEFT: Final = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
NAME, SIZE = 0, 3


class AdapterModel(QAbstractTableModel):
    """The adapters as cells; a name that was typed is told with `renamed`, and shown once it is on the disk."""

    renamed = Signal(object, str)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._adapters: list[Adapter] = []
        self._heads = (
            self.tr("Name"),
            self.tr("What it learned"),
            self.tr("Method"),
            self.tr("Size"),
            self.tr("From"),
            self.tr("When"),
        )

    def set_adapters(self, adapters: Sequence[Adapter]) -> None:
        """Show these adapters."""
        self.beginResetModel()
        self._adapters = list(adapters)
        self.endResetModel()

    def adapter(self, row: int) -> Adapter:
        """The adapter in a row."""
        return self._adapters[row]

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._adapters)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._heads)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self._heads[section]
        return int(_RIGHT if section == SIZE else _LEFT) if role == Qt.ItemDataRole.TextAlignmentRole else None

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        adapter, column = self._adapters[index.row()], index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole | Qt.ItemDataRole.EditRole:
                return self._cells(adapter)[column]
            case Qt.ItemDataRole.TextAlignmentRole:
                return int(_RIGHT if column == SIZE else _LEFT)
            case Qt.ItemDataRole.ToolTipRole:
                return str(adapter.path) if column == NAME else None
            case Qt.ItemDataRole.FontRole if column == NAME:
                return Theme.of().font("body", weight=QFont.Weight.Medium)
            case Qt.ItemDataRole.AccessibleTextRole:
                return f"{self._heads[column]}: {self._cells(adapter)[column]}"
            case _:
                return None

    @staticmethod
    def _cells(adapter: Adapter) -> tuple[str, ...]:
        return (
            adapter.name,
            adapter_words.learned(adapter),
            adapter_words.method_title(adapter),
            words.file_size(adapter.bytes),
            adapter_words.origin(adapter),
            adapter_words.when(adapter.created),
        )

    def flags(self, index: _Index) -> Qt.ItemFlag:
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        return flags | Qt.ItemFlag.ItemIsEditable if index.column() == NAME else flags

    def setData(self, index: _Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        adapter = self._adapters[index.row()]
        if role == Qt.ItemDataRole.EditRole and value.strip() != adapter.name:
            self.renamed.emit(adapter, value)
        return False


class _NameDelegate(QStyledItemDelegate):
    """Edits a name in a field of the row's height."""

    def createEditor(self, parent: QWidget, option: QStyleOptionViewItem, index: _Index) -> QWidget:  # noqa: ARG002
        field = QLineEdit(parent)
        field.setObjectName("newName")
        field.setAccessibleName(self.tr("New name"))
        field.setProperty("ownFocus", True)
        field.setMaxLength(LONGEST_NAME)
        return field

    def updateEditorGeometry(self, editor: QWidget, option: QStyleOptionViewItem, index: _Index) -> None:  # noqa: ARG002
        editor.setGeometry(option.rect.adjusted(0, 3, -4, -3))


class AdapterTable(QTableView):
    """The adapters that `search` lets through. Enter and a double click on a row ask to try it, F2 to rename it."""

    chosen = Signal()
    """Another row is selected."""
    try_asked = Signal()
    renamed = Signal(object, str)

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("adapters")
        self.setAccessibleName(self.tr("Adapters"))
        self._model = AdapterModel(self)
        self._model.renamed.connect(self.renamed)
        self._found = QSortFilterProxyModel(self)
        self._found.setSourceModel(self._model)
        self._found.setFilterKeyColumn(-1)
        self._found.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.setModel(self._found)
        self.setItemDelegateForColumn(NAME, _NameDelegate(self))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.EditKeyPressed)
        self.setTabKeyNavigation(False)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self._lay_out()
        self.doubleClicked.connect(lambda _: self.try_asked.emit())
        self.selectionModel().selectionChanged.connect(lambda *_: self.chosen.emit())

    def _lay_out(self) -> None:
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(Theme.of().px(_ROW))
        head = self.horizontalHeader()
        head.setHighlightSections(False)
        head.setSectionsClickable(False)
        head.setMinimumSectionSize(48)
        head.setStyleSheet("QHeaderView::section { padding: 4px 11px; }")  # a cell's text has 3 px beside its padding
        head.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        for column, width in enumerate(_WIDTHS):
            if width:
                head.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
                self.setColumnWidth(column, Theme.of().px(width))

    def show_adapters(self, adapters: Sequence[Adapter]) -> None:
        """Show these adapters; the selected one stays selected, or the first one is."""
        before = self.adapter()
        self._model.set_adapters(adapters)
        self.select(before)

    def search(self, text: str) -> None:
        """Show only rows with `text` in one of their cells."""
        before = self.adapter()
        self._found.setFilterFixedString(text.strip())
        self.select(before)

    def everything(self) -> list[Adapter]:
        """All adapters, also those that the search hides."""
        return [self._model.adapter(row) for row in range(self._model.rowCount())]

    def shown(self) -> list[Adapter]:
        """The adapters that the search lets through, in the order of the rows."""
        return [self._at(self._found.index(row, NAME)) for row in range(self._found.rowCount())]

    def _at(self, index: QModelIndex) -> Adapter:
        return self._model.adapter(self._found.mapToSource(index).row())

    def adapter(self) -> Adapter | None:
        """The selected adapter."""
        rows = self.selectionModel().selectedRows()
        return self._at(rows[0]) if rows else None

    def select(self, adapter: Adapter | None) -> None:
        """Select the row of `adapter`, or the first."""
        shown = self.shown()
        places = [row for row, item in enumerate(shown) if adapter is not None and item.path == adapter.path]
        if shown:
            flags = QItemSelectionModel.SelectionFlag.ClearAndSelect | QItemSelectionModel.SelectionFlag.Rows
            index = self._found.index(places[0] if places else 0, NAME)
            self.selectionModel().setCurrentIndex(index, flags)
            self.scrollTo(index)
        self.chosen.emit()

    def rename(self) -> None:
        """Edit the name of the selected adapter in its row."""
        rows = self.selectionModel().selectedRows(NAME)
        if rows:
            self.setFocus()
            self.edit(rows[0])

    def keyPressEvent(self, event: QKeyEvent) -> None:
        enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if enter and self.state() != QAbstractItemView.State.EditingState and self.adapter() is not None:
            self.try_asked.emit()
            return
        super().keyPressEvent(event)
