"""An icon and one line of text."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from tunedesk.gui.theme import TYPE_SCALE, Tone, TypeRole, pixmap
from tunedesk.gui.widgets.paint import painter_on, px, text, text_width, tokens


class IconLabel(QWidget):
    """One line, elided, with an icon of 16 px before it."""

    def __init__(
        self,
        words: str = "",
        role: TypeRole = "body",
        tone: Tone = "t1",
        *,
        icon_name: str = "",
        icon_tone: Tone | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._words, self._role, self._tone = words, role, tone
        self._icon, self._icon_tone = icon_name, icon_tone
        self._align = Qt.AlignmentFlag.AlignLeft
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self.set_text(words, icon_name)

    def text(self) -> str:
        """Return the whole text."""
        return self._words

    def set_text(self, words: str, icon_name: str = "") -> None:
        """Change text and icon."""
        self._words, self._icon = words, icon_name
        self.setAccessibleName(words)
        self.setToolTip("")
        self.updateGeometry()
        self.update()

    def set_tone(self, tone: Tone, icon_tone: Tone | None = None) -> None:
        """Change the tones of text and icon."""
        self._tone, self._icon_tone = tone, icon_tone
        self.update()

    def set_alignment(self, align: Qt.AlignmentFlag) -> None:
        """Lay the text at the left or the right."""
        self._align = align
        self.update()

    def _indent(self) -> int:
        return 24 if self._icon else 0

    def sizeHint(self) -> QSize:
        width = text_width(self._words, self._role) + self._indent() + 1
        return QSize(round(width), px(TYPE_SCALE[self._role].line))

    def minimumSizeHint(self) -> QSize:
        return QSize(40, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        wanted = text_width(self._words, self._role) + self._indent()
        x = max(0.0, self.width() - wanted - 1) if self._align == Qt.AlignmentFlag.AlignRight else 0.0
        if self._icon:
            ink = colours.colour(self._icon_tone or self._tone)
            image = pixmap(self._icon, 16, ink, self.devicePixelRatioF())
            painter.drawPixmap(round(x), (self.height() - 16) // 2, image)
        box = QRectF(x + self._indent(), 0, self.width() - x - self._indent(), self.height())
        text(painter, box, self._words, self._role, colours.colour(self._tone))
        self.setToolTip(self._words if wanted > self.width() + 1 else "")
