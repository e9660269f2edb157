"""Parts of the Try page: column heads, turns with their answers, popups, and the field to write in."""

from __future__ import annotations

from html import escape
from typing import Final, Literal

from PySide6.QtCore import QPoint, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QHideEvent, QKeyEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import (
    QDoubleSpinBox,
    QFrame,
    QHBoxLayout,
    QPlainTextEdit,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from tunedesk.core.events import Sampling, Side
from tunedesk.gui import words
from tunedesk.gui.chatting import Answer, Turn
from tunedesk.gui.theme import MEASURES, Theme
from tunedesk.gui.widgets import Button, Card, ElidedLabel, Field, IconButton, Label

SIDES: tuple[Side, ...] = ("base", "tuned")


class HeadCard(Card):
    """Who answers in this column, and how well it knows the held-out rows."""

    def __init__(self, side: Side, *, parent: QWidget | None = None) -> None:
        super().__init__(padded=False, parent=parent)
        self.side = side
        self.setObjectName(f"head_{side}")
        if side == "tuned":
            self.set_tone("info")
        self.name = Label(self.tr("Original") if side == "base" else self.tr("Tuned"), "card")
        self.name.setObjectName("who")
        self.what = ElidedLabel("", "secondary", "t2")
        self.what.setObjectName("what")
        self.loss = Label("", "secondary", "t2")
        self.loss.setObjectName("loss")
        self._row = QHBoxLayout()
        self._row.setContentsMargins(15, 7, 15, 7)
        self._row.setSpacing(8)
        self._row.addWidget(_Dot(side))
        self._row.addWidget(self.name)
        self._row.addWidget(self.what, 1)
        self._row.addWidget(self.loss)
        self.add_layout(self._row)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def put(self, button: QWidget) -> None:
        """Put `button`, which holds the name, in the name's place."""
        self._row.setContentsMargins(15, 5, 15, 5)
        self._row.insertWidget(2, button)
        self._row.insertStretch(3, 1)

    def show_name(self, what: str) -> None:
        """Name an adapter of which nothing is measured."""
        self.what.setText(what)
        self.loss.setText("")
        self.setAccessibleName(f"{self.name.text()}, {what}")

    def show_facts(self, what: str, loss: float | None) -> None:
        """Name the model or the run, and its held-out loss."""
        self.what.setText(what)
        self.loss.setText(self.tr("Held-out loss {0}").format(words.loss(loss) if loss is not None else words.DASH))
        self.setAccessibleName(f"{self.name.text()}, {what}, {self.loss.text()}")

    def show_told(self, what: str, told: str) -> None:
        """Name the model or the run, and what was measured on held-out rows."""
        self.what.setText(what)
        self.loss.setText(self.tr("Held-out data: {0}").format(told))
        self.setAccessibleName(f"{self.name.text()}, {what}, {self.loss.text()}")

    def show_right(self, what: str, right: str) -> None:
        """Name the run of a classifier, and how many held-out texts it gets right."""
        self.what.setText(what)
        self.loss.setText(self.tr("Gets {0} held-out texts right").format(right))
        self.setAccessibleName(f"{self.name.text()}, {what}, {self.loss.text()}")


class _Dot(QWidget):
    def __init__(self, side: Side) -> None:
        super().__init__()
        self._role = "ctl" if side == "base" else "accent_fill"
        self.setFixedSize(10, 10)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(Theme.of().tokens.colour(self._role)))
        painter.drawEllipse(QPointF(5, 5), 5, 5)


class QuestionCard(QFrame):
    """What the person said; it spans all columns. The last question can be asked again."""

    asked_again = Signal()

    def __init__(self, question: str, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("question")
        self.setAccessibleName(self.tr("You: {0}").format(question))
        row = QHBoxLayout(self)
        row.setContentsMargins(16, 3, 8, 3)
        row.setSpacing(12)
        you = Label(self.tr("You"), "secondary", "t2")
        you.setContentsMargins(0, 6, 0, 0)
        row.addWidget(you, 0, Qt.AlignmentFlag.AlignTop)
        said = Label(question, "strong", wrap=True, selectable=True)
        said.setObjectName("said")
        said.setContentsMargins(0, 3, 0, 5)
        row.addWidget(said, 1)
        self.again = IconButton("refresh", self.tr("Ask again"))
        self.again.setObjectName("askAgain")
        self.again.clicked.connect(self.asked_again)
        policy = self.again.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.again.setSizePolicy(policy)
        row.addWidget(self.again, 0, Qt.AlignmentFlag.AlignTop)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        tokens = Theme.of().tokens
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QColor(tokens.line))
        painter.setBrush(QColor(tokens.sunk))
        radius = MEASURES.radius_card
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), radius, radius)


class AnswerCard(Card):
    """One side's answer, with a caret while it is written; below it only numbers."""

    def __init__(self, side: Side, *, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.side = side
        self.setObjectName(f"answer_{side}")
        self._answer: Answer | None = None
        self._writing = False
        self.voice = ElidedLabel("", "secondary", "t2")
        self.voice.setObjectName("voice")
        self.voice.hide()
        self.words = Label("", "body", wrap=True, selectable=True, rich=True)
        self.words.setObjectName("words")
        self.count = Label("", "secondary", "t2")
        self.count.setObjectName("count")
        self.speed = Label("", "secondary", "t2")
        self.speed.setObjectName("speed")
        row = QHBoxLayout()
        row.addWidget(self.count)
        row.addStretch(1)
        row.addWidget(self.speed)
        self.body.setSpacing(6)
        self.body.setContentsMargins(15, 11, 15, 11)
        self.add(self.voice)
        self.add(self.words)
        self.add_layout(row)
        self.body.addStretch(1)
        Theme.of().changed.connect(self._show_words)

    def show_answer(self, answer: Answer | None, *, writing: bool, named: bool = False) -> None:
        """Show the answer as far as it is, and who gave it when `named`; None when this side was not asked."""
        name = self.tr("Original") if self.side == "base" else self.tr("Tuned")
        if answer and answer.voice and answer.voice.name:
            name = answer.voice.name
        self.voice.setText(name)
        self.voice.setVisible(named)
        self._answer, self._writing = answer, writing
        self._show_words()
        self.count.setText(self._count())
        speed = answer.tokens / answer.seconds if answer and answer.seconds > 0 else None
        self.speed.setText(words.tokens_per_second(speed) if speed is not None else "")
        self.setAccessibleName(f"{name}: {answer.text if answer else self.count.text()}")

    def _show_words(self) -> None:
        text = escape(self._answer.text.strip()) if self._answer else ""
        caret = ""
        if self._writing:
            caret = f"<span style='color:{Theme.of().tokens.accent};font-weight:600'>|</span>"
        self.words.setText(f"<p style='white-space:pre-wrap;margin:0;line-height:130%'>{text}{caret}</p>")

    def _count(self) -> str:
        answer = self._answer
        if answer is None:
            return self.tr("Not asked")
        if not answer.ended:
            return self.tr("Writing") if self._writing else self.tr("Waits for its turn")
        number = words.several(answer.tokens, self.tr("token"), self.tr("tokens"))
        endings = {
            "length": self.tr("{0}, cut at the limit"),
            "stopped": self.tr("{0}, stopped"),
            "stop_token": "{0}",
        }
        return endings[answer.ended].format(number)


class TurnView(QWidget):
    """A question and its answers, side by side."""

    def __init__(self, turn: Turn, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.turn = turn
        self.setObjectName("turn")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(12)
        self.question = QuestionCard(turn.question)
        column.addWidget(self.question)
        row = QHBoxLayout()
        row.setSpacing(16)
        self.cards = {side: AnswerCard(side) for side in SIDES}
        for card in self.cards.values():
            row.addWidget(card, 1)
        column.addLayout(row)

    def show_sides(self, sides: tuple[Side, ...], *, busy: bool, named: bool = False) -> None:
        """Show these columns; the first unfinished side is the one that is writing while `busy`.

        With `named` each answer says who gave it.
        """
        unfinished = [side for side, answer in self.turn.answers.items() if not answer.ended]
        for side, card in self.cards.items():
            card.setVisible(side in sides)
            writing = busy and unfinished[:1] == [side]
            card.show_answer(self.turn.answers.get(side), writing=writing, named=named)


class Popup(QFrame):
    """A small card over the page, opened from a button; Escape or a click elsewhere closes it."""

    closed = Signal()

    def __init__(self, *, width: int, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Popup | Qt.WindowType.FramelessWindowHint)
        self.setAttribute(Qt.WidgetAttribute.WA_TranslucentBackground)
        self.setFixedWidth(Theme.of().px(width))
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(16, 14, 16, 16)
        self.column.setSpacing(12)

    def set_head(self, title: str, sentence: str) -> None:
        """Say what this is."""
        self.setAccessibleName(title)
        head = QVBoxLayout()
        head.setSpacing(2)
        head.addWidget(Label(title, "card"))
        head.addWidget(Label(sentence, "secondary", "t2", wrap=True))
        self.column.addLayout(head)

    def open_above(self, button: QWidget) -> None:
        """Open with the lower right corner above the button."""
        self.resize(self.width(), self.column.totalHeightForWidth(self.width()))
        corner = button.mapToGlobal(QPoint(button.width() - self.width(), -self.height() - 8))
        self.move(corner)
        self.show()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        tokens = Theme.of().tokens
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QColor(tokens.line2))
        painter.setBrush(QColor(tokens.card))
        radius = MEASURES.radius_card
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), radius, radius)

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self.closed.emit()


class InstructionsPopup(Popup):
    """The system prompt, sent to both sides before every conversation."""

    def __init__(self, text: str, *, parent: QWidget) -> None:
        super().__init__(width=420, parent=parent)
        self.setObjectName("instructionsPopup")
        sentence = self.tr("Both sides get this before the conversation, as the system prompt. Empty means none.")
        self.set_head(self.tr("Instructions"), sentence)
        self.text = QPlainTextEdit(text)
        self.text.setObjectName("systemPrompt")
        self.text.setAccessibleName(self.tr("Instructions for both sides"))
        self.text.setPlaceholderText(self.tr("You answer the customers of our shop. Be brief and exact."))
        self.text.setFixedHeight(132)
        self.column.addWidget(self.text)
        row = QHBoxLayout()
        clear = Button(self.tr("Clear"), "quiet", compact=True)
        clear.setObjectName("clearInstructions")
        clear.clicked.connect(self.text.clear)
        done = Button(self.tr("Done"), compact=True)
        done.setObjectName("instructionsDone")
        done.clicked.connect(self.hide)
        row.addStretch(1)
        row.addWidget(clear)
        row.addWidget(done)
        self.column.addLayout(row)


class SamplingPopup(Popup):
    """The settings of sampling that are seldom touched."""

    def __init__(self, sampling: Sampling, *, parent: QWidget) -> None:
        super().__init__(width=340, parent=parent)
        self.setObjectName("samplingPopup")
        self.set_head(self.tr("More sampling"), self.tr("How the next token is chosen. The same for both sides."))
        self.top_p = self._real("topP", sampling.top_p, 0.05, 1.0)
        self.top_k = QSpinBox()
        self.top_k.setObjectName("topK")
        self.top_k.setRange(0, 1000)
        self.top_k.setValue(sampling.top_k)
        self.top_k.setSpecialValueText(self.tr("Off"))
        self.penalty = self._real("repetitionPenalty", sampling.repetition_penalty, 0.5, 2.0)
        fields = (
            (self.tr("Top-p"), self.top_p, self.tr("Keeps the likeliest tokens up to this share. 1 keeps all.")),
            (self.tr("Top-k"), self.top_k, self.tr("Keeps no more than this many. Off keeps all.")),
            (self.tr("Repetition penalty"), self.penalty, self.tr("Above 1, words said before become less likely.")),
        )
        for label, control, help_text in fields:
            control.setFixedWidth(Theme.of().px(96))
            self.column.addWidget(Field(label, control, help_text, inline=True))

    def _real(self, name: str, value: float, low: float, high: float) -> QDoubleSpinBox:
        box = QDoubleSpinBox()
        box.setObjectName(name)
        box.setRange(low, high)
        box.setSingleStep(0.05)
        box.setDecimals(2)
        box.setValue(value)
        return box


ROOM: Final = 6
"""Pixels between the words of a composer and its edge, where the focus ring is."""


class Composer(QPlainTextEdit):
    """The field to write in: Enter sends, Shift and Enter starts a new line; it grows to five lines."""

    sent = Signal()

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("composer")
        self.setAccessibleName(self.tr("Your question"))
        self.setProperty("bare", True)
        self.setTabChangesFocus(True)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.document().setDocumentMargin(0)
        self.setViewportMargins(ROOM, 6, ROOM, 6)
        self.textChanged.connect(self._fit)
        self._fit()

    def _fit(self) -> None:
        line = self.fontMetrics().lineSpacing()
        lines = min(5, max(1, round(self.document().size().height())))
        self.setFixedHeight(lines * line + 16)

    def sizeHint(self) -> QSize:
        return QSize(300, self.height())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        enter = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if enter and not event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            self.sent.emit()
            return
        super().keyPressEvent(event)


Mode = Literal["both", "tuned", "base"]


def example_button(name: str) -> Button:
    """A button as wide as its card, whose text is a question or a text to try."""
    button = Button("", "plain")
    button.setObjectName(name)
    button.setProperty("leftAligned", True)
    button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    button.setMinimumWidth(120)
    return button
