"""A grid of like cards in titled sections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PySide6.QtCore import QSize
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QGridLayout, QWidget

from tunedesk.gui.theme import MEASURES
from tunedesk.gui.widgets.paint import px
from tunedesk.gui.widgets.text import ElidedLabel

Section = tuple[str, Sequence[QWidget]]
_HEAD_GAP: Final = 8


class SectionGrid(QWidget):
    """Cards in equal columns under headings; their number follows the width.

    A section without a title has no heading. A short section shares a row with the one before where there is room.
    """

    def __init__(self, *, min_width: int = 200, gap: int = MEASURES.tight_gap, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._min_width = min_width
        self._sections: list[tuple[ElidedLabel | None, list[QWidget]]] = []
        self._columns = 0
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(gap)

    def set_sections(self, sections: Sequence[Section]) -> None:
        """Show these (title, cards) sections; cards that are left out are deleted."""
        kept = [card for _, cards in sections for card in cards]
        for heading, cards in self._sections:
            for widget in (heading, *cards):
                if widget is not None and widget not in kept:
                    widget.deleteLater()
        self._sections = [(self._heading(title), list(cards)) for title, cards in sections]
        for card in kept:
            card.setParent(self)
            card.show()
        self._columns = 0
        self._arrange(self.width())

    def _heading(self, title: str) -> ElidedLabel | None:
        if not title:
            return None
        heading = ElidedLabel(title, "secondary", "t2", parent=self)
        heading.setObjectName("section")
        heading.show()
        return heading

    def columns(self) -> int:
        """Return the number of columns of the moment."""
        return self._columns

    def minimumSizeHint(self) -> QSize:
        return QSize(self._min_width, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._arrange(event.size().width())

    def _arrange(self, width: int) -> None:
        if not self._sections:
            return
        gap = self._grid.horizontalSpacing()
        fitting = max(1, (width + gap) // (px(self._min_width) + gap))
        columns = min(fitting, max(1, *(len(cards) for _, cards in self._sections)))
        if columns == self._columns:
            return
        for column in range(max(self._columns, columns)):
            self._grid.setColumnStretch(column, 1 if column < columns else 0)
        self._columns = columns
        self._place(columns)
        self._grid.invalidate()

    def _place(self, columns: int) -> None:
        row = column = 0
        below = 0
        for heading, cards in self._sections:
            if not column or column + len(cards) > columns:
                row, column = below, 0
            top = row
            if heading is not None:
                span = min(len(cards), columns - column)
                heading.setContentsMargins(0, _HEAD_GAP if row else 0, 0, -_HEAD_GAP // 2)
                self._grid.addWidget(heading, row, column, 1, span)
                top += 1
            for index, card in enumerate(cards):
                self._grid.addWidget(card, top + (column + index) // columns, (column + index) % columns)
            below = top + -(-(column + len(cards)) // columns)
            column = column + len(cards) if column + len(cards) < columns else 0
