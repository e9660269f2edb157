"""Cards of which one is chosen: methods, model sources, kinds of export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PySide6.QtCore import QEvent, QObject, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFontMetricsF, QKeyEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QAbstractButton, QSizePolicy, QVBoxLayout, QWidget

from tunedesk.gui.theme import MEASURES, Tokens, pixmap
from tunedesk.gui.theme.proxy import draw_radio
from tunedesk.gui.widgets.badge import Badge, BadgeKind
from tunedesk.gui.widgets.paint import font, painter_on, px, round_box, text, text_width, tokens
from tunedesk.gui.widgets.schematic import draw_schematic
from tunedesk.gui.widgets.sections import SectionGrid

_PAD: Final = MEASURES.padding
_TIGHT: Final = 12
_SCALE: Final = 0.75
_DRAWN: Final = round(40 * _SCALE)
"""Height of a drawing in a method card."""
_STEPS: Final = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}
_ROWS: Final = {Qt.Key.Key_Up: -1, Qt.Key.Key_Down: 1}


class RadioCard(QAbstractButton):
    """A card that can be chosen; its edge turns into two pixels of accent and nothing moves."""

    chosen = Signal(str)

    def __init__(self, key: str, parent: QWidget | None) -> None:
        super().__init__(parent)
        self.key = key
        self._reason = ""
        self.setObjectName(f"card_{key}")
        self.setCheckable(True)
        self.setProperty("ringRadius", 8)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.clicked.connect(lambda: self.chosen.emit(self.key))

    def nextCheckState(self) -> None:
        self.setChecked(True)

    def set_reason(self, reason: str) -> None:
        """Say why the card cannot be chosen; an empty reason allows it again."""
        self._reason = reason
        self.setEnabled(not reason)
        self.setToolTip(reason)
        self.setAccessibleDescription(reason)
        self.updateGeometry()
        self.update()

    def reason(self) -> str:
        """Return why the card cannot be chosen, or an empty text."""
        return self._reason

    def _ground(self, painter: QPainter, colours: Tokens) -> None:
        box = QRectF(self.rect())
        if not self.isEnabled():
            round_box(painter, box, MEASURES.radius_card, colours.sunk, colours.line)
        elif self.isChecked():
            round_box(painter, box, MEASURES.radius_card, colours.card, colours.accent, 2)
        else:
            edge = colours.ctl if self.underMouse() else colours.line
            round_box(painter, box, MEASURES.radius_card, colours.card, edge)

    def _footer(self, painter: QPainter, left: str, right: str, colours: Tokens) -> None:
        """Draw the line above the foot, and in it two facts, the first strong and the second quiet."""
        top = self.height() - _PAD - px(16) - 12
        width = self.width() - 2 * _PAD
        painter.fillRect(QRectF(_PAD, round(top), width, 1), QColor(colours.line))
        row = QRectF(_PAD, top + 10, width, px(20))
        text(painter, row, left, "secondary", self._ink(colours), weight=500)
        text(painter, row, right, "secondary", colours.t2, align=Qt.AlignmentFlag.AlignRight)

    def _ink(self, colours: Tokens) -> str:
        return colours.t1 if self.isEnabled() else colours.t3


@dataclass(frozen=True, slots=True)
class MethodItem:
    """What a method card says. `fits=False` shows the memory in red; `reason` forbids the choice, without figures."""

    key: str
    name: str
    schematic: str
    sentence: str
    suits: str = ""
    trained: str = ""
    memory: str = ""
    fits: bool = True
    badge: str = ""
    badge_kind: BadgeKind = "recommended"
    reason: str = ""


class MethodCard(RadioCard):
    """One method in short: a drawing, its two figures, and what it does, or why it cannot be used."""

    def __init__(self, item: MethodItem, *, parent: QWidget | None = None) -> None:
        super().__init__(item.key, parent)
        self._badge = Badge("", "recommended", parent=self)
        self._badge.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.item = item
        self.set_item(item)

    def set_item(self, item: MethodItem) -> None:
        """Show other facts."""
        self.item = item
        self.key = item.key
        self.setText(item.name)
        self._badge.set_badge(item.badge, item.badge_kind)
        self.set_reason(item.reason)
        if not item.reason:
            self.setToolTip(" ".join(word for word in (self.tr("Suits"), item.suits) if item.suits))
        words = [item.name, item.badge, item.sentence, item.suits, item.trained, item.memory, item.reason]
        self.setAccessibleName(". ".join(word for word in words if word))

    def sizeHint(self) -> QSize:
        return QSize(216, self.heightForWidth(216))

    def minimumSizeHint(self) -> QSize:
        return QSize(180, self.heightForWidth(self.width() or 200))

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, width: int) -> int:
        said = len(_wrap(self._sentence(), width - 2 * _TIGHT)) * px(16)
        below = px(20) + 6 if self._is_badge_below(width) else 0
        return _TIGHT + _DRAWN + 8 + px(20) + max(2 * px(16), said + below) + _TIGHT - 2

    def _is_badge_below(self, width: int) -> bool:
        """Whether name and badge are too wide for one line."""
        if not self.item.badge:
            return False
        name = text_width(self.item.name, "card")
        return name + 8 + self._badge.sizeHint().width() > width - 2 * _TIGHT

    def _sentence(self) -> str:
        return self.reason() or self.item.sentence

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        self._ground(painter, colours)
        spot = QPointF(_TIGHT, _TIGHT - 4 * _SCALE)
        draw_schematic(painter, self.item.schematic, spot, colours, faint=not self.isEnabled(), scale=_SCALE)
        width = self.width() - 2 * _TIGHT
        self._paint_figures(painter, width, colours)
        y = float(_TIGHT + _DRAWN + 8)
        below = self._is_badge_below(self.width())
        self._badge.adjustSize()
        if not below:
            centred = round(y + (px(20) - self._badge.height()) / 2)
            self._badge.move(self.width() - _TIGHT - self._badge.width(), centred)
        room = width - (self._badge.width() + 8 if self.item.badge and not below else 0)
        text(painter, QRectF(_TIGHT, y, room, px(20)), self.item.name, "card", self._ink(colours))
        y += px(20)
        quiet = colours.t2 if self.isEnabled() else colours.t3
        for line in _wrap(self._sentence(), width):
            text(painter, QRectF(_TIGHT, y, width + 4, px(16)), line, "secondary", quiet)
            y += px(16)
        if below:
            self._badge.move(_TIGHT, round(y) + 6)

    def _paint_figures(self, painter: QPainter, width: float, colours: Tokens) -> None:
        """Draw the share trained and the memory, one below the other, right of the drawing."""
        if self.reason():
            return
        memory = colours.t1 if self.item.fits else colours.bad
        for row, (figure, ink) in enumerate(((self.item.trained, colours.t1), (self.item.memory, memory))):
            number, unit = _split(figure)
            box = QRectF(_TIGHT, _TIGHT - 1 + row * px(17), width, px(16))
            tail = text_width(unit, "secondary")
            right = Qt.AlignmentFlag.AlignRight
            text(painter, box, unit, "secondary", colours.t2 if ink == colours.t1 else ink, align=right)
            text(painter, box.adjusted(0, 0, -tail - 4, 0), number, "secondary", ink, align=right, weight=500)


class ChoiceCard(RadioCard):
    """A title with a radio sign, a text, and two facts at the foot."""

    def __init__(
        self,
        key: str,
        title: str,
        text: str = "",
        *,
        left: str = "",
        right: str = "",
        badge: str = "",
        badge_kind: BadgeKind = "neutral",
        icon_name: str = "",
        radio: bool = True,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(key, parent)
        self._words, self._left, self._right = text, left, right
        self._icon, self._radio = icon_name, radio
        self._badge = Badge("", "neutral", parent=self)
        self._badge.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setText(title)
        self.set_badge(badge, badge_kind)
        self._describe()

    def set_title(self, title: str) -> None:
        """Change the title."""
        self.setText(title)
        self._describe()
        self.update()

    def set_text(self, words: str) -> None:
        """Change the text under the title."""
        self._words = words
        self._describe()
        self.updateGeometry()
        self.update()

    def set_facts(self, left: str, right: str) -> None:
        """Change the two facts at the foot."""
        self._left, self._right = left, right
        self._describe()
        self.updateGeometry()
        self.update()

    def set_badge(self, words: str, kind: BadgeKind = "neutral") -> None:
        """Change the badge beside the title."""
        self._badge.set_badge(words, kind)
        self.update()

    def _describe(self) -> None:
        words = [self.text(), self._words, self._left, self._right]
        self.setAccessibleName(". ".join(word for word in words if word))

    def sizeHint(self) -> QSize:
        return QSize(206, self.heightForWidth(206))

    def minimumSizeHint(self) -> QSize:
        return QSize(160, self.heightForWidth(self.width() or 200))

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, width: int) -> int:
        lines = len(_wrap(self._body(), width - 2 * _PAD))
        foot = 20 + px(16) + 12 if self._left or self._right else 0
        return 14 + px(20) + (6 + lines * px(16) if lines else 0) + foot + _PAD - 2

    def _body(self) -> str:
        return self.reason() or self._words

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        self._ground(painter, colours)
        width = self.width() - 2 * _PAD
        left = self._paint_sign(painter, colours)
        self._badge.adjustSize()
        self._badge.move(self.width() - _PAD - self._badge.width(), 14 + (px(20) - self._badge.height()) // 2)
        room = self.width() - _PAD - left - (self._badge.width() + 8 if self._badge.text() else 0)
        text(painter, QRectF(left, 14, room, px(20)), self.text(), "card", self._ink(colours))
        y = 14 + px(20) + 6
        quiet = colours.t2 if self.isEnabled() else colours.t3
        for line in _wrap(self._body(), width):
            text(painter, QRectF(_PAD, y, width + 4, px(16)), line, "secondary", quiet)
            y += px(16)
        if self._left or self._right:
            self._footer(painter, self._left, self._right, colours)

    def _paint_sign(self, painter: QPainter, colours: Tokens) -> float:
        x = float(_PAD)
        middle = 14 + px(20) / 2
        if self._radio:
            box = QRectF(x, middle - 8, 16, 16)
            draw_radio(painter, box, checked=self.isChecked(), enabled=self.isEnabled())
            x += 26
        if self._icon:
            image = pixmap(self._icon, 16, self._ink(colours), self.devicePixelRatioF())
            painter.drawPixmap(round(x), round(middle - 8), image)
            x += 24
        return x


class ChoiceGroup(QWidget):
    """Cards in equal columns that behave as one group of radio buttons, in sections if wanted."""

    chosen = Signal(str)

    def __init__(self, *, min_width: int = 200, gap: int = MEASURES.tight_gap, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._cards: list[RadioCard] = []
        self._grid = SectionGrid(min_width=min_width, gap=gap)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._grid)

    def set_cards(self, cards: Sequence[RadioCard]) -> None:
        """Show these cards, in reading order."""
        self.set_sections([("", cards)])

    def set_sections(self, sections: Sequence[tuple[str, Sequence[RadioCard]]]) -> None:
        """Show these cards under the titles of their sections, in reading order."""
        kept, before = self.current(), self._cards
        self._cards = [card for _, cards in sections for card in cards]
        self._grid.set_sections(sections)
        for card in self._cards:
            if card not in before:
                card.installEventFilter(self)
                card.chosen.connect(self._picked)
        self.set_current(kept)

    def cards(self) -> list[RadioCard]:
        """Return the cards, in reading order."""
        return list(self._cards)

    def card(self, key: str) -> RadioCard:
        """Return the card with this key; an unknown key raises `KeyError`."""
        for card in self._cards:
            if card.key == key:
                return card
        raise KeyError(key)

    def current(self) -> str:
        """Return the chosen key, or an empty text."""
        return next((card.key for card in self._cards if card.isChecked()), "")

    def set_current(self, key: str) -> None:
        """Choose a card without a signal."""
        for card in self._cards:
            card.setChecked(card.key == key)
        self._mark_tab_stop()

    def _mark_tab_stop(self) -> None:
        allowed = [card for card in self._cards if card.isEnabled()]
        stop = next((card for card in allowed if card.isChecked()), allowed[0] if allowed else None)
        for card in self._cards:
            card.setFocusPolicy(Qt.FocusPolicy.StrongFocus if card is stop else Qt.FocusPolicy.ClickFocus)

    def _picked(self, key: str) -> None:
        self.set_current(key)
        self.chosen.emit(key)

    def move_from(self, card: RadioCard, key: Qt.Key) -> bool:
        """Choose the card that lies in the direction of an arrow key."""
        step = _STEPS.get(key)
        if step is None and key not in _ROWS:
            return False
        found = self._beside(card, step) if step else self._in_next_row(card, _ROWS[key])
        if found is not None:
            found.setFocus(Qt.FocusReason.TabFocusReason)
            found.click()
        return True

    def _beside(self, card: RadioCard, step: int) -> RadioCard | None:
        at = self._cards.index(card)
        rest = self._cards[at + 1 :] if step > 0 else self._cards[:at][::-1]
        return next((other for other in rest if other.isEnabled()), None)

    def _in_next_row(self, card: RadioCard, step: int) -> RadioCard | None:
        """The nearest card above (`step` -1) or below (1) that can be chosen."""
        here = card.geometry()

        def distance(other: RadioCard) -> tuple[int, int]:
            there = other.geometry()
            return abs(there.y() - here.y()), abs(there.x() - here.x())

        rest = [other for other in self._cards if other.isEnabled() and step * (other.y() - here.y()) > 0]
        return min(rest, key=distance, default=None)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if isinstance(event, QKeyEvent) and isinstance(watched, RadioCard) and event.type() == QKeyEvent.Type.KeyPress:
            return self.move_from(watched, Qt.Key(event.key()))
        return False


def _split(figure: str) -> tuple[str, str]:
    number, _, unit = figure.partition(" ")
    return number, unit


def _wrap(words: str, width: float) -> list[str]:
    """Break a text into lines of the secondary size."""
    metrics = QFontMetricsF(font("secondary"))
    lines: list[str] = []
    for word in words.split():
        candidate = f"{lines[-1]} {word}" if lines else word
        if lines and metrics.horizontalAdvance(candidate) <= width:
            lines[-1] = candidate
        else:
            lines.append(word)
    return lines
