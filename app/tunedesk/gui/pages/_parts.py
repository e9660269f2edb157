"""Small widgets that several pages share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QEvent, QMimeData, QObject, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QDragEnterEvent, QDropEvent, QPainter, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractSpinBox,
    QFrame,
    QHBoxLayout,
    QLayout,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from tunedesk.gui.theme import MEASURES, Theme, Tone, pixmap
from tunedesk.gui.widgets import Label


def clear(layout: QLayout) -> None:
    """Remove and delete everything in `layout`."""
    while (item := layout.takeAt(0)) is not None:
        widget = item.widget()
        if widget is not None:
            widget.hide()
            widget.deleteLater()


def keep_place(widget: QWidget) -> None:
    """Let `widget` keep its place in the layout while it is hidden, so that nothing jumps."""
    policy = widget.sizePolicy()
    policy.setRetainSizeWhenHidden(True)
    widget.setSizePolicy(policy)


def editing(box: QAbstractSpinBox) -> bool:
    """Whether someone is typing into `box`, so that its text must not be replaced."""
    return box.hasFocus() and box.lineEdit().isModified()


def dropped_path(data: QMimeData) -> str:
    """The one local file or folder in a drag, or an empty text."""
    urls = data.urls()
    return urls[0].toLocalFile() if len(urls) == 1 and urls[0].isLocalFile() else ""


class FileDrop(QObject):
    """Makes all of `page` a target for one file or folder; the edge of the page lights up meanwhile."""

    dropped = Signal(str)

    def __init__(self, page: QWidget) -> None:
        super().__init__(page)
        self._frame = _DropFrame(page)
        page.setAcceptDrops(True)
        page.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        match event:
            case QDragEnterEvent() if dropped_path(event.mimeData()):
                event.acceptProposedAction()
                self._frame.cover()
            case QDropEvent() if event.type() == QEvent.Type.Drop and dropped_path(event.mimeData()):
                event.acceptProposedAction()
                self._frame.hide()
                self.dropped.emit(dropped_path(event.mimeData()))
            case _ if event.type() == QEvent.Type.DragLeave:
                self._frame.hide()
            case _:
                return super().eventFilter(watched, event)
        return True


class _DropFrame(QWidget):
    def __init__(self, page: QWidget) -> None:
        super().__init__(page)
        self._page = page
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.hide()

    def cover(self) -> None:
        self.setGeometry(self._page.rect())
        self.raise_()
        self.show()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        soft = QColor(Theme.of().tokens.accent_soft)
        soft.setAlphaF(0.6)
        painter.setBrush(soft)
        painter.setPen(QPen(QColor(Theme.of().tokens.accent), 2, Qt.PenStyle.DashLine))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(9, 9, -9, -9), MEASURES.radius_card, MEASURES.radius_card)


class FileChip(QWidget):
    """The file in use: an icon, its name and its size."""

    def __init__(self, icon_name: str = "file-text", *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._icon = icon_name
        self.name = Label("", "body", "t1")
        self.name.setObjectName("name")
        self.size_label = Label("", "body", "t2")
        self.size_label.setObjectName("size")
        row = QHBoxLayout(self)
        row.setContentsMargins(36, 0, 12, 0)
        row.setSpacing(8)
        row.addWidget(self.name)
        row.addWidget(self.size_label)
        self.setFixedHeight(Theme.of().px(MEASURES.control))

    def set_file(self, name: str, size: str, path: str) -> None:
        """Show another file; an empty name hides the chip."""
        metrics = self.name.fontMetrics()
        self.name.setText(metrics.elidedText(name, Qt.TextElideMode.ElideMiddle, 220))
        self.size_label.setText(size)
        self.setToolTip(path)
        self.setAccessibleName(f"{name}, {size}")
        self.setVisible(bool(name))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        tokens = Theme.of().tokens
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QColor(tokens.line2))
        painter.setBrush(QColor(tokens.card))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), 6, 6)
        image = pixmap(self._icon, 16, tokens.t1, self.devicePixelRatioF())
        painter.drawPixmap(12, (self.height() - 16) // 2, image)


class Sign(QWidget):
    """An icon of 16 px in the first line of a text."""

    def __init__(self, icon_name: str, tone: Tone, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._icon, self._tone = icon_name, tone
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        return QSize(16, Theme.of().px(20))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        painter = QPainter(self)
        image = pixmap(self._icon, 16, Theme.of().tokens.colour(self._tone), self.devicePixelRatioF())
        painter.drawPixmap(0, (Theme.of().px(20) - 16) // 2, image)


class SignedList(QWidget):
    """Sentences, each behind a tick or another sign."""

    def __init__(
        self, icon_name: str = "tick", tone: Tone = "ok", *, gap: int = 8, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._icon, self._tone = icon_name, tone
        self._lines: list[tuple[str, str, Tone]] = []
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(gap)

    def set_texts(self, texts: Sequence[str]) -> None:
        """Show these sentences behind the list's own sign."""
        self.set_lines([(text, self._icon, self._tone) for text in texts])

    def set_lines(self, lines: Sequence[tuple[str, str, Tone]]) -> None:
        """Show (sentence, icon, tone of the icon) lines."""
        if list(lines) == self._lines:
            return
        self._lines = list(lines)
        clear(self._column)
        for text, icon_name, tone in lines:
            self._column.addWidget(self._line(text, icon_name, tone))
        self.setAccessibleName(" ".join(self.texts()))

    def texts(self) -> list[str]:
        """Return the sentences."""
        return [text for text, _, _ in self._lines]

    def _line(self, text: str, icon_name: str, tone: Tone) -> QWidget:
        line = QWidget(self)
        row = QHBoxLayout(line)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(Sign(icon_name, tone), 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(Label(text, "body", "t2", wrap=True, selectable=True), 1)
        return line


class ContentScroll(QScrollArea):
    """Scrolls its content within a card, and asks for no more height than the content has."""

    def __init__(self, content: QWidget, *, at_least: int = 64, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._content, self._at_least = content, at_least
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(content)
        content.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.LayoutRequest:
            self._fit()
        return super().eventFilter(watched, event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        """Give the content the height that its texts need at this width; a size hint knows only one width."""
        view = self.viewport().size()
        height = max(view.height(), self._content.heightForWidth(view.width()))
        self._content.resize(view.width(), height)

    def sizeHint(self) -> QSize:
        return QSize(200, self._at_least)

    def minimumSizeHint(self) -> QSize:
        return QSize(100, self._at_least)


def short_source(source: str) -> str:
    """A source as it is called in lists: the last part of a path, a Hub id whole."""
    if source.startswith(("/", "\\", "~")) or ":\\" in source:
        return Path(source).name or source
    return source
