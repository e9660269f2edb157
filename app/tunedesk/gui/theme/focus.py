"""The ring around the widget that has the keyboard."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QPoint, QRect, QRectF, Qt
from PySide6.QtGui import QColor, QGuiApplication, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QApplication, QWidget
from shiboken6 import isValid

GAP = 2


class FocusRing(QWidget):
    """A ring drawn 2 px outside a widget, on the nearest ancestor that has room for it."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("focusRing")
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(Qt.WidgetAttribute.WA_NoSystemBackground)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._target: QWidget | None = None
        self._watched: list[QWidget] = []

    def follow(self, target: QWidget | None) -> None:
        """Lie around `target`, or go away."""
        for widget in self._watched:
            if isValid(widget):
                widget.removeEventFilter(self)
        self._watched = []
        self._target = target
        if target is None:
            self.hide()
            return
        self._watch(target)
        self._place()

    def _watch(self, target: QWidget) -> None:
        """Hear when the target or a widget around it moves."""
        widget: QWidget | None = target
        while widget is not None and not _clips(widget):
            widget.installEventFilter(self)
            self._watched.append(widget)
            widget = widget.parentWidget()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: ARG002
        kind = event.type()
        if kind in (QEvent.Type.Move, QEvent.Type.Resize, QEvent.Type.Show):
            self._place()
        elif kind is QEvent.Type.Hide:
            self.hide()
        elif kind is QEvent.Type.ParentAboutToChange:
            self.follow(None)
        return False

    def _place(self) -> None:
        target = self._target if self._target is not None and isValid(self._target) else None
        host = target.parentWidget() if target is not None else None
        if target is None or host is None or not target.isVisible():
            self.hide()
            return
        margin = GAP + _ring_width()
        wanted = target.geometry().adjusted(-margin, -margin, margin, margin)
        while not host.rect().contains(wanted) and not _clips(host):
            above = host.parentWidget()
            if above is None:
                break
            wanted = QRect(host.mapTo(above, QPoint(wanted.x(), wanted.y())), wanted.size())
            host = above
        self.setParent(host)
        self.setGeometry(wanted)
        self.raise_()
        self.show()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        from tunedesk.gui.theme.style import Theme

        width = _ring_width()
        target = self._target if self._target is not None and isValid(self._target) else None
        radius = float((target.property("ringRadius") if target else None) or 6) + GAP
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(Theme.of().tokens.accent), width))
        half = width / 2
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(half, half, -half, -half), radius, radius)


class FocusWatcher(QObject):
    """Shows the ring when the keyboard, not the mouse, moved the focus."""

    def __init__(self, app: QApplication) -> None:
        super().__init__(app)
        self._ring: FocusRing | None = None
        app.focusChanged.connect(self._moved)
        app.aboutToQuit.connect(self._drop)

    def _drop(self) -> None:
        self._ring = None

    def _moved(self, old: QWidget | None, now: QWidget | None) -> None:  # noqa: ARG002
        if self._ring is not None and isValid(self._ring):
            self._ring.follow(None)
            self._ring.deleteLater()
        self._ring = None
        if now is None or now.property("ownFocus") or QGuiApplication.mouseButtons():
            return
        self._ring = FocusRing()
        self._ring.follow(now)


def _clips(widget: QWidget) -> bool:
    """Whether the ring must stay within `widget`. A viewport that fills the page to its edges lets it out."""
    viewport = widget.objectName() == "qt_scrollarea_viewport" and not widget.property("ringPasses")
    return widget.isWindow() or viewport


def _ring_width() -> int:
    from tunedesk.gui.theme.style import Theme

    return Theme.of().tokens.ring_width
