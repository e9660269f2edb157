"""The frame of every page: head, problems, a body that scrolls, and foot."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QFrame, QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from tunedesk.gui.theme import MEASURES, Theme
from tunedesk.gui.widgets.button import Button, ButtonKind
from tunedesk.gui.widgets.icon_label import IconLabel
from tunedesk.gui.widgets.paint import px, tokens
from tunedesk.gui.widgets.problem import ProblemBar
from tunedesk.gui.widgets.sections import SectionGrid
from tunedesk.gui.widgets.text import ElidedLabel


class PageHeader(QWidget):
    """Title, one sentence under it, and the page's own actions at the right."""

    def __init__(self, title: str, subtitle: str = "", *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._fit()
        Theme.of().changed.connect(self._fit)
        row = QHBoxLayout(self)
        row.setContentsMargins(MEASURES.margin, 20, MEASURES.margin, 0)
        row.setSpacing(16)
        words = QVBoxLayout()
        words.setSpacing(0)
        self.title = ElidedLabel(title, "title")
        self.title.setObjectName("title")
        self.subtitle = ElidedLabel(subtitle, "body", "t2")
        self.subtitle.setObjectName("subtitle")
        words.addWidget(self.title)
        words.addWidget(self.subtitle)
        words.addStretch(1)
        row.addLayout(words, 1)
        self._actions = QHBoxLayout()
        self._actions.setSpacing(8)
        row.addLayout(self._actions)
        row.setAlignment(self._actions, Qt.AlignmentFlag.AlignTop)

    def _fit(self) -> None:
        self.setFixedHeight(px(MEASURES.head))

    def set_title(self, text: str) -> None:
        """Change the title."""
        self.title.setText(text)

    def set_subtitle(self, text: str) -> None:
        """Change the sentence under the title."""
        self.subtitle.setText(text)

    def add_action(self, widget: QWidget) -> None:
        """Put a button or field at the right."""
        self._actions.addWidget(widget, 0, Qt.AlignmentFlag.AlignTop)

    def clear_actions(self) -> None:
        """Remove all actions."""
        while (item := self._actions.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.deleteLater()


class Footer(QWidget):
    """Back at the left, a hint, and Next at the right."""

    next_asked = Signal()
    back_asked = Signal()

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._fit()
        Theme.of().changed.connect(self._fit)
        self.back_button = Button("", "quiet")
        self.back_button.setObjectName("back")
        self.back_button.clicked.connect(self.back_asked)
        self.next_button = Button("", "primary", trailing="chevron-right")
        self.next_button.setObjectName("next")
        self.next_button.clicked.connect(self.next_asked)
        self.hint = IconLabel("", "secondary", "t2")
        self.hint.setObjectName("hint")
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(MEASURES.margin, 1, MEASURES.margin, 0)
        self._row.setSpacing(12)
        self._left = QHBoxLayout()
        self._left.setSpacing(8)
        self._left.addWidget(self.back_button)
        self._right = QHBoxLayout()
        self._right.setSpacing(8)
        self._row.addLayout(self._left)
        self._row.addWidget(self.hint, 1)
        self._row.addLayout(self._right)
        self._row.addWidget(self.next_button)
        self.set_back("")
        self.set_next("")

    def _fit(self) -> None:
        self.setFixedHeight(px(MEASURES.footer))

    def set_back(self, text: str) -> None:
        """Name the step before; an empty text hides the button."""
        self.back_button.setText(text)
        self.back_button.setVisible(bool(text))
        left = Qt.AlignmentFlag.AlignRight if text else Qt.AlignmentFlag.AlignLeft
        self.hint.set_alignment(left)

    def add_left(self, widget: QWidget) -> None:
        """Add a widget after Back."""
        self._left.addWidget(widget)

    def add_right(self, widget: QWidget) -> None:
        """Add a widget before Next."""
        self._right.addWidget(widget)

    def set_hint(self, text: str, icon_name: str = "") -> None:
        """Say one sentence about what Next does or what it waits for."""
        self.hint.set_text(text, icon_name)

    def set_next(
        self,
        text: str,
        *,
        enabled: bool = True,
        kind: ButtonKind = "primary",
        icon_name: str = "",
        trailing: str = "chevron-right",
    ) -> None:
        """Change the button that leads on; an empty text hides it."""
        self.next_button.setText(text)
        self.next_button.setVisible(bool(text))
        self.next_button.setEnabled(enabled)
        self.next_button.set_kind(kind)
        self.next_button.set_icon_name(icon_name)
        self.next_button.set_trailing(trailing)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        QPainter(self).fillRect(0, 0, self.width(), 1, QColor(tokens().line))


class PageFrame(QWidget):
    """A whole page; its body scrolls while head and foot stay."""

    def __init__(self, title: str, subtitle: str = "", *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.header = PageHeader(title, subtitle)
        self.header.setObjectName("header")
        self.problems = ProblemBar()
        self.problems.setObjectName("problems")
        self.footer = Footer()
        self.footer.setObjectName("footer")
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(MEASURES.margin, 0, MEASURES.margin, MEASURES.gap)
        self._column = column
        column.setSpacing(MEASURES.gap)
        column.addWidget(self.problems)
        self.body = QVBoxLayout()
        self.body.setSpacing(MEASURES.gap)
        column.addLayout(self.body, 1)
        self.scroll_area = QScrollArea()
        self.scroll_area.setObjectName("scroll")
        self.scroll_area.setFrameShape(QFrame.Shape.NoFrame)
        self.scroll_area.setWidgetResizable(True)
        self.scroll_area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.scroll_area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.scroll_area.setWidget(content)
        self.scroll_area.verticalScrollBar().rangeChanged.connect(self._leave_room)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(0)
        whole.addWidget(self.header)
        whole.addWidget(self.scroll_area, 1)
        whole.addWidget(self.footer)

    def _leave_room(self, low: int, high: int) -> None:
        """Let the scroll bar lie in the margin, so that nothing moves when it comes."""
        bar = self.scroll_area.verticalScrollBar().sizeHint().width() if high > low else 0
        self._column.setContentsMargins(MEASURES.margin, 0, MEASURES.margin - bar, MEASURES.gap)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        QPainter(self).fillRect(self.rect(), QColor(tokens().bg))


class TwoColumns(QWidget):
    """Two columns; the right one goes under the left where there is no room beside it."""

    def __init__(
        self,
        left: QWidget,
        right: QWidget,
        *,
        right_width: int = 312,
        narrow_below: int = 820,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._right, self._width, self._narrow_below = right, right_width, narrow_below
        self._box = QBoxLayout(QBoxLayout.Direction.LeftToRight, self)
        self._box.setContentsMargins(0, 0, 0, 0)
        self._box.setSpacing(MEASURES.gap)
        self._box.addWidget(left, 1)
        self._box.addWidget(right, 0)
        right.setFixedWidth(px(right_width))
        Theme.of().changed.connect(self._fit)

    def is_narrow(self) -> bool:
        """Return whether the right column lies under the left."""
        return self._box.direction() == QBoxLayout.Direction.TopToBottom

    def minimumSizeHint(self) -> QSize:
        return QSize(280, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        narrow = event.size().width() < self._narrow_below
        if narrow == self.is_narrow():
            return
        self._box.setDirection(QBoxLayout.Direction.TopToBottom if narrow else QBoxLayout.Direction.LeftToRight)
        self._fit()

    def _fit(self) -> None:
        if self.is_narrow():
            self._right.setMinimumWidth(0)
            self._right.setMaximumWidth(16777215)
        else:
            self._right.setFixedWidth(px(self._width))


class CardGrid(SectionGrid):
    """Equal columns of cards; their number follows the width."""

    def set_cards(self, cards: Sequence[QWidget]) -> None:
        """Show these cards, in reading order; cards that are left out are deleted."""
        self.set_sections([("", cards)] if cards else [])
