"""Labels: the type scale and the tones of the theme on a QLabel."""

from __future__ import annotations

from html import escape

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QFontMetrics, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import QLabel, QSizePolicy, QStyle, QStyleOption, QWidget

from tunedesk.gui.theme import TYPE_SCALE, Theme, Tone, TypeRole
from tunedesk.gui.widgets.paint import painter_on


class Label(QLabel):
    """Text in one role of the type scale and one tone."""

    def __init__(
        self,
        text: str = "",
        role: TypeRole = "body",
        tone: Tone = "t1",
        *,
        wrap: bool = False,
        selectable: bool = False,
        rich: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setProperty("type", role)
        self.setProperty("tone", tone)
        self.setWordWrap(wrap)
        if wrap:
            policy = QSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
            policy.setHeightForWidth(True)
            self.setSizePolicy(policy)
            self.setContentsMargins(0, -1, 0, 1)
        if selectable:
            self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        if role == "mono":
            self.setFont(Theme.of().font("mono"))
        self._role: TypeRole = role
        self._rich = rich
        self._markup = ""
        if rich or wrap:
            Theme.of().changed.connect(self._retint)
        self.setText(text)

    def setText(self, text: str) -> None:
        """Show a text; in rich text `<b>` becomes semibold and t1.

        A text that wraps gets the line height of its role, which QLabel knows only in rich text.
        """
        self._markup = text
        if self._rich:
            strong = f'<span style="font-weight:600; color:{Theme.of().tokens.t1}">'
            text = text.replace("<b>", strong).replace("</b>", "</span>")
        if self.wordWrap() and text:
            text = _spaced(text if self._rich else escape(text), TYPE_SCALE[self._role].line)
        self.setTextFormat(Qt.TextFormat.RichText if self._rich or self.wordWrap() else Qt.TextFormat.PlainText)
        super().setText(text)

    def text(self) -> str:
        """Return the text that was given, without the marks that only serve the layout."""
        return self._markup

    def _retint(self) -> None:
        self.setText(self._markup)

    def tone(self) -> Tone:
        """Return the tone of the moment."""
        tone: Tone = self.property("tone")
        return tone

    def set_tone(self, tone: Tone) -> None:
        """Change the tone of the text."""
        if tone == self.property("tone"):
            return
        self.setProperty("tone", tone)
        self.style().unpolish(self)
        self.style().polish(self)


def _spaced(markup: str, line: int) -> str:
    height = Theme.of().px(line)
    words = markup.replace("\n", "<br>")
    return f'<p style="margin:0; white-space:pre-wrap; line-height:{height}px; -qt-line-height-type:fixed">{words}</p>'


class ElidedLabel(Label):
    """One line that is cut with an ellipsis when it does not fit; the whole text is in the tooltip."""

    def __init__(
        self,
        text: str = "",
        role: TypeRole = "body",
        tone: Tone = "t1",
        *,
        mode: Qt.TextElideMode = Qt.TextElideMode.ElideRight,
        parent: QWidget | None = None,
    ) -> None:
        self._mode = mode
        super().__init__(text, role, tone, parent=parent)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setMinimumWidth(24)

    def sizeHint(self) -> QSize:
        hint = super().sizeHint()
        return QSize(QFontMetrics(self.font()).horizontalAdvance(self.text()) + 2, hint.height())

    def minimumSizeHint(self) -> QSize:
        return QSize(24, super().minimumSizeHint().height())

    def shown_text(self) -> str:
        """Return the text as it is drawn."""
        return QFontMetrics(self.font()).elidedText(self.text(), self._mode, self.width())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._tell()

    def setText(self, text: str) -> None:
        super().setText(text)
        self._tell()

    def _tell(self) -> None:
        self.setToolTip("" if self.shown_text() == self.text() else self.text())

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        option = QStyleOption()
        option.initFrom(self)
        painter = painter_on(self)
        self.style().drawItemText(
            painter,
            self.rect(),
            int(self.alignment() | Qt.TextFlag.TextSingleLine),
            option.palette,
            bool(option.state & QStyle.StateFlag.State_Enabled),
            self.shown_text(),
            self.foregroundRole(),
        )
