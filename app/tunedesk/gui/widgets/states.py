"""What a page shows while it is empty or loading, and a short message at its corner."""

from __future__ import annotations

from typing import Self

from PySide6.QtCore import QEvent, QObject, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QPaintEvent, QPen
from PySide6.QtWidgets import QFrame, QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from tunedesk.gui.theme import MEASURES, pixmap
from tunedesk.gui.widgets.button import Button, IconButton
from tunedesk.gui.widgets.card import Severity
from tunedesk.gui.widgets.paint import painter_on, px, round_box, tokens
from tunedesk.gui.widgets.text import Label


class _BigIcon(QWidget):
    def __init__(self, name: str, parent: QWidget) -> None:
        super().__init__(parent)
        self._name = name
        self.setFixedSize(28, 28)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        painter = painter_on(self)
        painter.drawPixmap(0, 0, pixmap(self._name, 28, tokens().t3, self.devicePixelRatioF()))


class EmptyState(QWidget):
    """An icon, one sentence and the button that fills the page."""

    def __init__(self, icon_name: str, sentence: str, *, title: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        centre = Qt.AlignmentFlag.AlignHCenter
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 32, 24, 32)
        column.setSpacing(8)
        column.addStretch(1)
        column.addWidget(_BigIcon(icon_name, self), 0, centre)
        column.addSpacing(4)
        self.title = Label(title, "card")
        self.title.setObjectName("title")
        self.title.setAlignment(centre)
        self.sentence = Label(sentence, "body", "t2", wrap=True)
        self.sentence.setObjectName("sentence")
        self.sentence.setAlignment(centre)
        self.sentence.setMaximumWidth(px(460))
        self.sentence.setMinimumWidth(200)
        column.addWidget(self.title)
        middle = QHBoxLayout()
        middle.addStretch(1)
        middle.addWidget(self.sentence, 20)
        middle.addStretch(1)
        column.addLayout(middle)
        self._buttons = QHBoxLayout()
        self._buttons.setSpacing(8)
        self._buttons.setContentsMargins(0, 8, 0, 0)
        self._buttons.addStretch(1)
        self._buttons.addStretch(1)
        column.addLayout(self._buttons)
        column.addStretch(1)
        self.set_text(sentence, title)

    def set_text(self, sentence: str, title: str = "") -> None:
        """Change the words."""
        self.title.setText(title)
        self.title.setVisible(bool(title))
        self.sentence.setText(sentence)
        self.setAccessibleName(f"{title} {sentence}".strip())

    def add_button(self, button: QWidget) -> None:
        """Add a button; the first should be the primary one."""
        self._buttons.insertWidget(self._buttons.count() - 1, button)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        pen = QPen(QColor(colours.line2), 1)
        pen.setDashPattern([4, 3])
        painter.setPen(pen)
        radius = MEASURES.radius_card
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), radius, radius)


class Skeleton(QWidget):
    """Grey bars in the place of rows that are being read; they appear after a short while."""

    _WIDTHS = (0.46, 0.92, 0.7, 0.84, 0.58)

    def __init__(self, rows: int = 3, *, delay_ms: int = 300, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows = rows
        self._shown = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(delay_ms)
        self._timer.timeout.connect(self._show_bars)
        self.setAccessibleName(self.tr("Loading"))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.start()

    def start(self) -> None:
        """Begin to wait; the bars appear after the delay."""
        self._shown = False
        self._timer.start()
        self.update()

    def stop(self) -> None:
        """Hide the bars."""
        self._timer.stop()
        self._shown = False
        self.update()

    def are_bars_shown(self) -> bool:
        """Return whether the delay is over."""
        return self._shown

    def _show_bars(self) -> None:
        self._shown = True
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(200, self._rows * 20)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        if not self._shown:
            return
        painter = painter_on(self)
        for row in range(self._rows):
            width = self.width() * self._WIDTHS[row % len(self._WIDTHS)]
            round_box(painter, QRectF(0, row * 20 + 5, width, 10), 4, tokens().hover)


class Toast(QFrame):
    """A message at the bottom right of a window that goes away by itself."""

    action_asked = Signal()

    def __init__(self, text: str, *, kind: Severity = "ok", action: str = "", parent: QWidget) -> None:
        super().__init__(parent)
        self._host = parent
        self.setObjectName("toast")
        self._kind = kind
        self.setAccessibleName(text)
        row = QHBoxLayout(self)
        row.setContentsMargins(44, 6, 6, 6)
        row.setSpacing(8)
        self.words = Label(text)
        self.words.setObjectName("words")
        row.addWidget(self.words)
        row.addSpacing(8)
        if action:
            button = Button(action, "link")
            button.setObjectName("action")
            button.clicked.connect(self._act)
            row.addWidget(button)
        close = IconButton("cross", self.tr("Close this message"))
        close.setObjectName("close")
        close.clicked.connect(self.close_now)
        row.addWidget(close)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.close_now)
        parent.installEventFilter(self)

    @classmethod
    def show_in(
        cls, window: QWidget, text: str, *, kind: Severity = "ok", action: str = "", seconds: float = 5.0
    ) -> Self:
        """Show a message in `window`; a former one makes room."""
        for former in window.findChildren(cls, options=Qt.FindChildOption.FindDirectChildrenOnly):
            former.close_now()
        toast = cls(text, kind=kind, action=action, parent=window)
        toast.adjustSize()
        toast.place()
        toast.show()
        toast.raise_()
        toast.start(seconds)
        return toast

    def start(self, seconds: float) -> None:
        """Go away after some seconds."""
        self._timer.start(round(seconds * 1000))

    def place(self) -> None:
        """Move to the bottom right corner, above the foot of the page."""
        host = self._host
        foot = MEASURES.footer + MEASURES.gap
        self.move(host.width() - self.width() - MEASURES.margin, host.height() - self.height() - foot)

    def close_now(self) -> None:
        """Go away."""
        self._timer.stop()
        self.hide()
        self.deleteLater()

    def _act(self) -> None:
        self.action_asked.emit()
        self.close_now()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: ARG002
        if event.type() == QEvent.Type.Resize:
            self.place()
        return False

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        round_box(painter, QRectF(self.rect()), MEASURES.radius_card, colours.card, colours.line2)
        prefix = "accent" if self._kind == "info" else self._kind
        name = {"bad": "problem", "warn": "alert", "ok": "circle-check", "info": "info"}[self._kind]
        image = pixmap(name, 16, colours.colour(prefix), self.devicePixelRatioF())
        painter.drawPixmap(16, (self.height() - 16) // 2, image)
