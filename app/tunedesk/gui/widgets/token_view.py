"""The very tokens that the model gets: trained ones tinted and underlined, the others plain."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise, takewhile
from typing import Final, Literal, NamedTuple

from PySide6.QtCore import QLocale, QMimeData, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import (
    QColor,
    QPainter,
    QPaintEvent,
    QPen,
    QTextBlock,
    QTextBlockFormat,
    QTextCharFormat,
    QTextCursor,
    QTextLayout,
)
from PySide6.QtWidgets import QFrame, QSizePolicy, QTextEdit, QWidget

from tunedesk.gui.theme import Theme, Tokens
from tunedesk.gui.widgets.paint import font, painter_on, px, round_box, text, text_width, tokens

TokenKind = Literal["trained", "context", "template", "cut"]
TokenMode = Literal["reading", "tokens"]

MAX_TOKENS: Final = 4000
_ROLE_COLUMN: Final = 70
_PADDING: Final = 16
_TURN_GAP: Final = 20
_JOINER: Final = "\u2060"
_LINE: Final = "\u2028"
_RETURN: Final = "↵"
_FRAME: Final = re.compile(r"\[[A-Z]+\]")
"""What a tokenizer puts around a text, such as `[CLS]`."""


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """The text of one token (or of a run of them) and what training does with it."""

    text: str
    kind: TokenKind


@dataclass(frozen=True, slots=True)
class TurnView:
    """One turn of a conversation as the chat template renders it."""

    role: str
    spans: tuple[TokenSpan, ...]


class _Mark(NamedTuple):
    start: int
    end: int
    kind: TokenKind
    chip: bool


class TokenView(QTextEdit):
    """Shows turns with their role at the left, in a reading mode or token by token."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._turns: list[TurnView] = []
        self._mode: TokenMode = "tokens"
        self._marks: dict[int, list[_Mark]] = {}
        self._roles: dict[int, str] = {}
        self.setReadOnly(True)
        self.setProperty("bare", True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.viewport().setAutoFillBackground(False)
        self.setUndoRedoEnabled(False)
        self.setAccessibleName(self.tr("What the model sees"))
        self.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.document().setDocumentMargin(0)
        self.setViewportMargins(0, 6, 0, 6)
        Theme.of().changed.connect(self._rebuild)

    def set_turns(self, turns: Sequence[TurnView]) -> None:
        """Show these turns; beyond 4,000 tokens the rest is left out, and said to be."""
        self._turns = list(turns)
        self._rebuild()

    def turns(self) -> list[TurnView]:
        """Return what was given."""
        return list(self._turns)

    def mode(self) -> TokenMode:
        """Return the mode."""
        return self._mode

    def set_mode(self, mode: TokenMode) -> None:
        """Reading hides token edges and the template; tokens shows both."""
        if mode != self._mode:
            self._mode = mode
            self._rebuild()

    def plain_text(self) -> str:
        """Return the shown text without the characters that only serve the layout."""
        return _clean(self.toPlainText())

    def createMimeDataFromSelection(self) -> QMimeData:
        data = QMimeData()
        data.setText(_clean(self.textCursor().selection().toPlainText()))
        return data

    def sizeHint(self) -> QSize:
        return QSize(420, 320)

    def _rebuild(self) -> None:
        self._marks, self._roles = {}, {}
        document = self.document()
        document.clear()
        cursor = QTextCursor(document)
        cursor.beginEditBlock()
        left = MAX_TOKENS
        for turn in self._turns:
            spans = self._visible(turn)[:left]
            left -= len(spans)
            if spans:
                self._add_turn(cursor, turn.role, spans)
        total = sum(len(self._visible(turn)) for turn in self._turns)
        if total > MAX_TOKENS:
            words = self.tr("%1 more tokens are not shown").replace("%1", QLocale().toString(total - MAX_TOKENS))
            self._add_turn(cursor, "", [TokenSpan(words, "context")])
        cursor.endEditBlock()
        self._describe()
        self.moveCursor(QTextCursor.MoveOperation.Start)
        self.viewport().update()

    def _describe(self) -> None:
        """Say the roles too: they are painted beside the text and no part of it."""
        blocks = (self.document().findBlockByNumber(number) for number in self._roles)
        said = [f"{role}: {_clean(block.text())}" for role, block in zip(self._roles.values(), blocks, strict=True)]
        self.setAccessibleDescription("\n".join(said))

    def _visible(self, turn: TurnView) -> list[TokenSpan]:
        if self._mode == "tokens":
            return list(turn.spans)
        shown = [span for span in turn.spans if span.kind != "template" and not _is_special(span.text)]
        return shown or [span for span in turn.spans if span.text.strip() and not _is_chip(span, turn.role)]

    def _add_turn(self, cursor: QTextCursor, role: str, spans: Sequence[TokenSpan]) -> None:
        block = QTextBlockFormat()
        block.setLeftMargin(_PADDING + px(_ROLE_COLUMN))
        block.setRightMargin(_PADDING)
        block.setTopMargin(_TURN_GAP if self._roles else _TURN_GAP / 2)
        block.setBottomMargin(_TURN_GAP / 2)
        block.setLineHeight(px(23), QTextBlockFormat.LineHeightTypes.FixedHeight.value)
        if self._roles:
            cursor.insertBlock(block)
        else:
            cursor.setBlockFormat(block)
        number = cursor.block().blockNumber()
        self._roles[number] = role
        spans = _with_whole_role(_without_last_break(spans), role)
        self._marks[number] = [mark for span in spans if (mark := self._add_span(cursor, span, role)) is not None]

    def _add_span(self, cursor: QTextCursor, span: TokenSpan, role: str) -> _Mark | None:
        chip = self._mode == "tokens" and _is_chip(span, role)
        if chip and not span.text.strip():
            cursor.insertText(span.text.replace("\n", _LINE), _format(span.kind, chip=False))
            return None
        shape = _format(span.kind, chip=chip)
        if chip:
            cursor.insertText("\u2005", _format("context", chip=False))
        start = cursor.positionInBlock()
        cursor.insertText(self._shown(span.text, chip=chip), shape)
        end = cursor.positionInBlock()
        if chip:
            cursor.insertText("\u2002", _format("context", chip=False))
            if span.text.endswith("\n"):
                cursor.insertText(_LINE, shape)
        return _Mark(start, end, span.kind, chip)

    def _shown(self, words: str, *, chip: bool) -> str:
        if chip:
            return _JOINER.join(words.strip("\n").replace(" ", "\u00a0"))
        breaks = f"{_RETURN}{_LINE}" if self._mode == "tokens" else _LINE
        return words.replace("\n", breaks)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = painter_on(self.viewport())
        offset = QPointF(-self.horizontalScrollBar().value(), -self.verticalScrollBar().value())
        painter.translate(offset)
        colours = tokens()
        area = QRectF(event.rect()).translated(-offset)
        for block in self._blocks_in(area):
            self._paint_block(painter, block, area, colours)
        painter.end()
        super().paintEvent(event)

    def _blocks_in(self, area: QRectF) -> Iterator[QTextBlock]:
        layout = self.document().documentLayout()
        block = self.document().begin()
        while block.isValid():
            rect = layout.blockBoundingRect(block)
            if rect.top() > area.bottom() + _TURN_GAP:
                return
            if rect.bottom() >= area.top() - _TURN_GAP:
                yield block
            block = block.next()

    def _paint_block(self, painter: QPainter, block: QTextBlock, area: QRectF, colours: Tokens) -> None:
        number = block.blockNumber()
        layout = block.layout()
        top = layout.position().y()
        if number:
            y = round(top - _TURN_GAP / 2)
            painter.fillRect(QRectF(0, y, self.viewport().width(), 1), QColor(colours.line))
        role = QRectF(_PADDING, top, px(_ROLE_COLUMN) - 8, px(23))
        text(painter, role, self._roles.get(number, ""), "secondary", colours.t2, weight=500)
        for mark, rect in _rects(layout, self._marks.get(number, ()), area):
            self._paint_mark(painter, rect, mark, colours)

    def _paint_mark(self, painter: QPainter, rect: QRectF, mark: _Mark, colours: Tokens) -> None:
        if mark.chip:
            box = rect.adjusted(-3.5, -0.5, 3.5, 0.5)
            fill, edge = (
                (colours.trained_bg, colours.trained_line) if mark.kind == "trained" else (colours.sunk, colours.line)
            )
            round_box(painter, box, 3, fill, edge)
            return
        if mark.kind != "trained":
            return
        edge_gap = 1.0 if self._mode == "tokens" else 0.0
        box = rect.adjusted(0, -1, -edge_gap, 3)
        painter.fillRect(box, QColor(colours.trained_bg))
        painter.fillRect(QRectF(box.left(), box.bottom() - 2, box.width(), 2), QColor(colours.trained_line))


def _rects(layout: QTextLayout, marks: Sequence[_Mark], area: QRectF) -> Iterator[tuple[_Mark, QRectF]]:
    """Yield the boxes of the marks on the lines that lie in `area`; a mark may have one on each of several lines."""
    origin = layout.position()
    first_mark = 0
    for index in range(layout.lineCount()):
        line = layout.lineAt(index)
        top = origin.y() + line.y()
        if top > area.bottom() + _TURN_GAP:
            return
        if top + line.height() < area.top() - _TURN_GAP:
            continue
        begin, stop = line.textStart(), line.textStart() + line.textLength()
        first_mark = bisect_right(marks, begin, lo=first_mark, key=lambda mark: mark.end)
        for mark in takewhile(lambda mark: mark.start < stop, islice(marks, first_mark, None)):  # noqa: B023
            ends = (max(begin, mark.start), min(stop, mark.end))
            left, right = (_cursor_x(line.cursorToX(position)) for position in ends)
            yield mark, QRectF(origin.x() + left, top, right - left, line.height())


def _cursor_x(answer: object) -> float:
    return float(answer[0] if isinstance(answer, tuple) else answer)  # type: ignore[arg-type]


def _is_special(words: str) -> bool:
    """Tell a control token such as `<|im_end|>` or `</s>` from words."""
    stripped = words.strip()
    return len(stripped) > 2 and stripped[0] == "<" and stripped[-1] == ">" and " " not in stripped


def _is_chip(span: TokenSpan, role: str) -> bool:
    """Tell what marks a turn (control tokens, the name of the role) from words, also those that the template adds."""
    if _is_special(span.text):
        return True
    words = span.text.strip()
    return span.kind == "template" and (words.casefold() in ("", role.casefold()) or bool(_FRAME.fullmatch(words)))


def _with_whole_role(spans: Sequence[TokenSpan], role: str) -> list[TokenSpan]:
    """Join the tokens that together name the role, such as `ass` and `istant`, so that they are one chip."""
    for start, span in enumerate(spans):
        joined = ""
        for end in range(start, len(spans)):
            if spans[end].kind != "template" or not role.casefold().startswith(joined.strip().casefold()):
                break
            joined += spans[end].text
            if joined.strip().casefold() == role.casefold():
                return [*spans[:start], TokenSpan(joined, span.kind), *spans[end + 1 :]]
    return list(spans)


def _without_last_break(spans: Sequence[TokenSpan]) -> list[TokenSpan]:
    """Leave out the line break with which a template ends a turn: the line between the turns shows it."""
    kept = list(spans)
    while kept and kept[-1].kind != "trained" and not kept[-1].text.strip():
        kept.pop()
    if kept and kept[-1].text.endswith("\n") and _is_special(kept[-1].text):
        kept[-1] = TokenSpan(kept[-1].text.rstrip("\n"), kept[-1].kind)
    return kept


def _clean(words: str) -> str:
    return (
        words.replace(_JOINER, "")
        .replace("\u2005", "")
        .replace("\u2002", "")
        .replace("\u00a0", " ")
        .replace(f"{_RETURN}\n", "\n")
    )


def _format(kind: TokenKind, *, chip: bool) -> QTextCharFormat:
    colours = tokens()
    shape = QTextCharFormat()
    if chip:
        face = font("mono")
        face.setPixelSize(round(face.pixelSize() * 11 / 12))
        shape.setFont(face)
    else:
        shape.setFont(font("body"))
    inks = {"trained": colours.trained_text, "context": colours.t2, "template": colours.t2, "cut": colours.t3}
    shape.setForeground(QColor(inks[kind]))
    if kind == "cut":
        shape.setFontStrikeOut(True)
    return shape


def _figure(count: int | None) -> str:
    return "" if count is None else QLocale().toString(count)


class TokenLegend(QWidget):
    """What the tints mean, with counts."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._counts: list[tuple[TokenKind, str, int | None]] = []
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)

    def set_counts(self, trained: int, context: int, template: int = 0, cut: int = 0) -> None:
        """Show the counts; kinds without any token are left out, but for the first two."""
        entries: list[tuple[TokenKind, str, int]] = [
            ("trained", self.tr("Trained"), trained),
            ("context", self.tr("Context only"), context),
            ("template", self.tr("Template"), template),
            ("cut", self.tr("Cut off"), cut),
        ]
        self._show([*entries[:2], *(entry for entry in entries[2:] if entry[2])])

    def set_label_counts(self, read: int, cut: int = 0, *, name: str = "") -> None:
        """Show what the tints mean where a label, or a thing called `name`, is learned: it needs no count."""
        entries: list[tuple[TokenKind, str, int | None]] = [
            ("trained", name or self.tr("Label to learn"), None),
            ("context", self.tr("Tokens read"), read),
        ]
        self._show([*entries, ("cut", self.tr("Cut off"), cut)] if cut else entries)

    def _show(self, entries: Sequence[tuple[TokenKind, str, int | None]]) -> None:
        self._counts = list(entries)
        self.setAccessibleName(", ".join(f"{name} {_figure(count)}".strip() for _, name, count in entries))
        self.updateGeometry()
        self.update()

    def _starts(self) -> list[float]:
        starts = [0.0]
        for _, name, count in self._counts:
            number = text_width(_figure(count), "secondary", 600)
            width = 22 + text_width(name, "secondary") + 5 + number + 18
            starts.append(starts[-1] + width)
        return starts

    def sizeHint(self) -> QSize:
        return QSize(round(self._starts()[-1]), px(20))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        middle = self.height() / 2
        for (kind, name, count), (left, right) in zip(self._counts, pairwise(self._starts()), strict=True):
            self._swatch(painter, kind, QRectF(left, middle - 7, 15, 14), colours)
            row = QRectF(left + 22, 0, right - left - 22, self.height())
            used = text(painter, row, name, "secondary", colours.t2)
            text(painter, row.adjusted(used + 5, 0, 0, 0), _figure(count), "secondary", colours.t1, weight=600)

    def _swatch(self, painter: QPainter, kind: TokenKind, box: QRectF, colours: Tokens) -> None:
        if kind == "trained":
            painter.fillRect(box, QColor(colours.trained_bg))
            painter.fillRect(QRectF(box.left(), box.bottom() - 2, box.width(), 2), QColor(colours.trained_line))
            return
        painter.fillRect(box, QColor(colours.sunk))
        painter.setPen(QPen(QColor(colours.line), 1))
        painter.drawRect(box.adjusted(0.5, 0.5, -0.5, -0.5))
        if kind == "cut":
            painter.setPen(QPen(QColor(colours.t3), 1))
            painter.drawLine(QPointF(box.left() + 2, box.center().y()), QPointF(box.right() - 2, box.center().y()))
