"""A row of joined buttons, of which one is on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QKeyEvent, QPainterPath, QPaintEvent, QPen
from PySide6.QtWidgets import QAbstractButton, QButtonGroup, QHBoxLayout, QSizePolicy, QWidget

from tunedesk.gui.widgets.paint import painter_on, px, text, text_width, tokens

_ARROWS: Final = {Qt.Key.Key_Left: -1, Qt.Key.Key_Up: -1, Qt.Key.Key_Right: 1, Qt.Key.Key_Down: 1}


class _Segment(QAbstractButton):
    def __init__(self, key: str, words: str, compact: bool, parent: Segmented) -> None:
        super().__init__(parent)
        self.key = key
        self._owner = parent
        self.compact = compact
        self.setText(words)
        self.setCheckable(True)
        self.setObjectName(f"segment_{key}")
        self.setAccessibleName(words)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)

    def sizeHint(self) -> QSize:
        return QSize(round(text_width(self.text(), "secondary", 500) + 22), px(28 if self.compact else 32))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        if self.isChecked() or (self.underMouse() and self.isEnabled()):
            fill = QColor(colours.hover)
            if not self.isChecked():
                fill.setAlphaF(0.6)
            painter.fillPath(self._shape(), fill)
        ink = colours.t1 if self.isEnabled() else colours.t3
        box = QRectF(self.rect()).adjusted(4, 0, -4, 0)
        text(painter, box, self.text(), "secondary", ink, align=Qt.AlignmentFlag.AlignHCenter, weight=500)

    def _shape(self) -> QPainterPath:
        group = self._owner
        path, clip = QPainterPath(), QPainterPath()
        path.addRect(QRectF(self.rect()))
        clip.addRoundedRect(QRectF(group.rect()).translated(-self.x(), -self.y()).adjusted(1, 1, -1, -1), 5, 5)
        return path.intersected(clip)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        step = _ARROWS.get(Qt.Key(event.key()))
        if step is not None:
            self._owner.move_focus(self, step)
            return
        super().keyPressEvent(event)


class Segmented(QWidget):
    """A segmented control; `chosen` tells the key when the user picks one."""

    chosen = Signal(str)

    def __init__(
        self,
        options: Sequence[tuple[str, str]] = (),
        current: str = "",
        *,
        name: str = "",
        compact: bool = True,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._compact = compact
        self._group = QButtonGroup(self)
        self._group.setExclusive(True)
        self._group.buttonClicked.connect(self._clicked)
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(0)
        self.setAccessibleName(name)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.set_options(options)
        if current:
            self.set_current(current)

    def set_options(self, options: Sequence[tuple[str, str]]) -> None:
        """Replace all options by (key, text) pairs; the current key is kept if it is among them."""
        before = self.current()
        for segment in self._segments():
            self._group.removeButton(segment)
            self._row.removeWidget(segment)
            segment.deleteLater()
        for key, words in options:
            segment = _Segment(key, words, self._compact, self)
            self._group.addButton(segment)
            self._row.addWidget(segment)
        if before:
            self.set_current(before)

    def _segments(self) -> list[_Segment]:
        return [button for button in self._group.buttons() if isinstance(button, _Segment)]

    def current(self) -> str:
        """Return the key that is on, or an empty string."""
        return next((segment.key for segment in self._segments() if segment.isChecked()), "")

    def set_current(self, key: str) -> None:
        """Turn one option on, without a signal."""
        for segment in self._segments():
            if segment.key == key:
                segment.setChecked(True)

    def set_option_enabled(self, key: str, enabled: bool, reason: str = "") -> None:
        """Allow or forbid one option; `reason` says why it is forbidden."""
        for segment in self._segments():
            if segment.key == key:
                segment.setEnabled(enabled)
                segment.setToolTip("" if enabled else reason)
                segment.setAccessibleDescription("" if enabled else reason)

    def set_option_shown(self, key: str, shown: bool) -> None:
        """Show or leave out one option."""
        for segment in self._segments():
            if segment.key == key:
                segment.setVisible(shown)
        self._row.invalidate()
        self.updateGeometry()

    def shown(self) -> list[str]:
        """Return the keys of the options that are not left out."""
        return [segment.key for segment in self._segments() if not segment.isHidden()]

    def move_focus(self, start: QAbstractButton, step: int) -> None:
        """Choose the next allowed option to the left or right."""
        allowed = [segment for segment in self._segments() if segment.isEnabled() and not segment.isHidden()]
        at = next((i for i, segment in enumerate(allowed) if segment is start), 0)
        target = allowed[(at + step) % len(allowed)]
        target.setFocus(Qt.FocusReason.TabFocusReason)
        target.click()

    def _clicked(self, segment: QAbstractButton) -> None:
        if isinstance(segment, _Segment):
            self.chosen.emit(segment.key)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        painter.setBrush(QColor(colours.card))
        painter.setPen(QPen(QColor(colours.line2), 1))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), 6, 6)
        for segment in [segment for segment in self._segments() if not segment.isHidden()][1:]:
            painter.drawLine(segment.x(), 1, segment.x(), self.height() - 1)
