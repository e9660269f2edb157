"""Trying a classifier: a text goes in, the labels come back with how likely each is, and what was tried stays below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QPaintEvent
from PySide6.QtWidgets import QAbstractButton, QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from tunedesk.core.describe import DataInfo, ProblemType, RenderedRow
from tunedesk.core.events import Sampling
from tunedesk.gui import task_words, words
from tunedesk.gui.chatting import Answer, ChatSession, Turn
from tunedesk.gui.pages._parts import clear, keep_place
from tunedesk.gui.pages._try_parts import ROOM, Composer, example_button
from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets import (
    Bar,
    BarList,
    Button,
    Card,
    ElidedLabel,
    IconButton,
    IconLabel,
    Label,
    NumberScale,
    Rule,
)
from tunedesk.gui.widgets.paint import painter_on, px, round_box, text, text_width, tokens

MOST_LABELS: Final = 10
MOST_EXAMPLES: Final = 4
_ROW: Final = 40
_LABEL_SHARE: Final = 0.3
_VOICE_SHARE: Final = 0.2


def labelled_examples(rows: Sequence[RenderedRow]) -> dict[str, str]:
    """The texts of the rows that the session shows, each with its label in the data."""
    found: dict[str, str] = {}
    for row in rows:
        said = {turn.role: "".join(span.text for span in turn.spans if span.kind != "template") for turn in row.turns}
        truth = said.get("label", said.get("number"))
        if truth is not None and said.get("text", "").strip() and "pair" not in said:
            found.setdefault(" ".join(said["text"].split()), truth)
    return found


def _as_number(text: str) -> float | None:
    """A number of the data; None where there is none."""
    try:
        return float(text)
    except ValueError:
        return None


class TriedRow(QAbstractButton):
    """A text that was tried, its label and how likely it is; pressed, it is shown above again."""

    def __init__(self, turn: Turn, *, named: bool = False, parent: QWidget | None = None) -> None:
        """With `named` the row says which adapter answered."""
        super().__init__(parent)
        self.turn = turn
        self._answer = answer_of(turn)
        self.voice = self._answer.voice.name if named and self._answer.voice else ""
        self.setObjectName("tried")
        self.setText(turn.question)
        self.setToolTip(turn.question)
        said = self.tr("{0}: {1}, {2}").format(turn.question, self._answer.text, self._figure())
        self.setAccessibleName(f"{self.voice}. {said}" if self.voice else said)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setProperty("ringRadius", 6)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def _figure(self) -> str:
        """How sure the model is, where it gave one label."""
        labels = self._answer.labels
        return words.percent(labels[0].share) if labels and labels[0].name == self._answer.text else ""

    def sizeHint(self) -> QSize:
        return QSize(320, px(_ROW))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        if self.underMouse() or self.isDown():
            round_box(painter, QRectF(self.rect()), 6, colours.hover)
        row = QRectF(self.rect()).adjusted(8, 0, -8, 0)
        figure = px(44)
        label = min(text_width(self._answer.text, "body", 600) + 1, row.width() * _LABEL_SHARE)
        right = Qt.AlignmentFlag.AlignRight
        said = " ".join(self.turn.question.split())
        voice = min(text_width(self.voice, "secondary") + 1, row.width() * _VOICE_SHARE) if self.voice else 0
        room = row.adjusted(0, 0, -label - figure - voice - (32 if voice else 16), 0)
        text(painter, room, said, "body", colours.t2)
        if voice:
            box = QRectF(row.right() - figure - label - 16 - voice, row.y(), voice, row.height())
            text(painter, box, self.voice, "secondary", colours.t2)
        box = QRectF(row.right() - figure - label, row.y(), label, row.height())
        text(painter, box, self._answer.text, "body", colours.t1, weight=600)
        box = QRectF(row.right() - figure, row.y(), figure, row.height())
        text(painter, box, self._figure(), "body", colours.t2, align=right)


def answer_of(turn: Turn) -> Answer:
    """The classifier's answer."""
    return turn.answers.get("tuned", Answer())


class ResultCard(Card):
    """The text and its labels, the likeliest first."""

    asked_again = Signal(str)
    """The text is to be given to the adapter of the moment."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.setObjectName("result")
        self.voice = ElidedLabel("", "secondary", "t2")
        self.voice.setObjectName("voice")
        self.voice.hide()
        self.said = Label("", "body", "t2", wrap=True, selectable=True)
        self.said.setObjectName("said")
        self.label = Label("", "title", "t1", wrap=True, selectable=True)
        self.label.setObjectName("likeliest")
        self.truth = IconLabel("", "secondary", "t2")
        self.truth.setObjectName("truth")
        self.list = BarList(most=MOST_LABELS)
        self.list.setObjectName("labelBars")
        self.scale = NumberScale()
        self.scale.setObjectName("numberScale")
        self.scale.hide()
        self._gives: ProblemType = "single_label"
        self.time = Label("", "secondary", "t2")
        self.time.setObjectName("took")
        keep_place(self.truth)
        keep_place(self.time)
        self._question = ""
        self.again = IconButton("refresh", self.tr("Ask again"))
        self.again.setObjectName("askAgain")
        self.again.clicked.connect(lambda: self.asked_again.emit(self._question))
        self.again.hide()
        keep_place(self.again)
        self.add(self.voice)
        self.add(self.said)
        self.add(self.label)
        self.add(Rule())
        self.add(self.list)
        self.add(self.scale)
        foot = QHBoxLayout()
        foot.addWidget(self.truth, 1)
        foot.addWidget(self.time)
        foot.addWidget(self.again)
        self.add_layout(foot)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)

    def set_kind(self, gives: ProblemType, data: DataInfo | None) -> None:
        """Say what a text gets; numbers lie on a scale that spans those of the data."""
        self._gives = gives
        span = data.span if data and gives == "regression" else None
        self.list.setVisible(gives != "regression")
        self.scale.setVisible(span is not None)
        if span is not None:
            low, high = (task_words.signed(words.decimal(end)) for end in span)
            self.scale.set_span(*span, (low, high))

    def show_nothing(self, labels: Sequence[str]) -> None:
        """Show which labels there are, before a text was given one."""
        self.said.setText(
            self.tr("Nothing read yet. It gives each text a number.")
            if self._gives == "regression"
            else self.tr("Nothing labelled yet. These are the labels it knows.")
        )
        self.label.setText(words.DASH)
        self.list.set_bars([Bar(name, 0.0, words.DASH, quiet=True) for name in labels])
        self.scale.set_value(None)
        self.voice.hide()
        self.again.hide()
        self.truth.hide()
        self.time.hide()
        self.setAccessibleName(f"{self.said.text()} {', '.join(labels)}".strip())

    def show_turn(self, turn: Turn, truth: str, *, named: bool = False) -> None:
        """Show a text with its answer; `truth` is its label in the data, if it is one of its rows.

        With `named` the card says which adapter answered.
        """
        answer = answer_of(turn)
        self.voice.setText(answer.voice.name if answer.voice else "")
        self.voice.setVisible(named and bool(self.voice.text()))
        self._question = turn.question
        self.again.show()
        self.said.setText(" ".join(turn.question.split()))
        self.label.setText(self._headline(answer))
        given = set(_parts(answer.text)) if self._gives == "multi_label" else set()
        self.list.set_bars(
            [
                Bar(
                    item.name,
                    item.share,
                    words.percent(item.share),
                    quiet=item.name not in given if self._gives == "multi_label" else place > 0,
                    marked=item.name in given,
                )
                for place, item in enumerate(answer.labels)
            ]
        )
        self.scale.set_value(answer.number, _as_number(truth))
        self.time.setText(self.tr("took {0} ms").format(words.count(round(answer.seconds * 1000))))
        self.time.show()
        self._show_truth(answer, truth)
        bars = self.list.accessibleName() if answer.labels else self.scale.accessibleName()
        self.setAccessibleName(f"{self.label.text()}: {self.said.text()}. {bars}")

    def _headline(self, answer: Answer) -> str:
        if self._gives == "multi_label" and answer.labels and not answer.text:
            return self.tr("None of the labels")
        return task_words.signed(answer.text) or words.DASH

    def _show_truth(self, answer: Answer, truth: str) -> None:
        self.truth.setVisible(bool(truth))
        same = truth == answer.text
        if self._gives == "multi_label":
            same = set(_parts(truth)) == set(_parts(answer.text))
        if self._gives == "regression":
            self.truth.set_text(self.tr("The data says {0}.").format(task_words.signed(truth)), "info")
            self.truth.set_tone("t2", "t2")
        elif same:
            self.truth.set_text(self.tr("The data says so too."), "circle-check")
            self.truth.set_tone("t2", "ok")
        else:
            self.truth.set_text(self.tr("The data says {0}.").format(truth), "alert")
            self.truth.set_tone("t2", "warn")


def _parts(text: str) -> list[str]:
    """Several labels apart."""
    return [part for part in (part.strip() for part in text.split(",")) if part]


class LabelPanel(QWidget):
    """A field for a text, its labels, examples from the data, and what was tried before."""

    def __init__(self, chat: ChatSession, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("labelling")
        self.chat = chat
        self._examples: dict[str, str] = {}
        self._chosen: Turn | None = None
        self._tried_shown: list[object] = []
        self._named = False
        self.result = ResultCard()
        self.result.asked_again.connect(self._ask)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(16)
        column.addWidget(self._build_entry())
        column.addWidget(self.result)
        column.addWidget(self._build_examples())
        column.addWidget(self._build_tried())
        column.addStretch(1)
        self._data: DataInfo | None = None
        self._show_kind()
        self.show_examples(())
        chat.turns_changed.connect(self._on_turns)
        chat.answer_changed.connect(lambda _: self._show_turns())
        chat.status_changed.connect(self._show_turns)

    def _build_entry(self) -> Card:
        card = Card(padded=False)
        card.setObjectName("entryCard")
        self.field = Composer()
        self.field.setObjectName("textToLabel")
        self.field.setAccessibleName(self.tr("A text to label"))
        self.field.sent.connect(self.send)
        self.field.textChanged.connect(self._show_button)
        self.button = Button(self.tr("Label it"), "plain", icon_name="send")
        self.button.setObjectName("labelIt")
        self.button.setMinimumWidth(Theme.of().px(96))
        self.button.clicked.connect(self.send)
        row = QHBoxLayout()
        row.setContentsMargins(15 - ROOM, 9, 9, 9)
        row.setSpacing(12)
        row.addWidget(self.field, 1, Qt.AlignmentFlag.AlignVCenter)
        row.addWidget(self.button, 0, Qt.AlignmentFlag.AlignTop)
        card.add_layout(row)
        card.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        return card

    def _build_examples(self) -> Card:
        self.examples = Card(self.tr("Try one of these"), subtitle=self.tr("The first texts of your data."))
        self.examples.setObjectName("examples")
        self._example_buttons: list[Button] = []
        for number in range(MOST_EXAMPLES):
            button = example_button(f"example_{number}")
            button.clicked.connect(lambda _=False, button=button: self._ask(button.text()))
            self.examples.add(button)
            self._example_buttons.append(button)
        self.examples.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        return self.examples

    def _build_tried(self) -> Card:
        self.tried = Card(self.tr("Tried before"))
        self.tried.setObjectName("triedCard")
        self._tried = QVBoxLayout()
        self._tried.setSpacing(0)
        self._tried.setContentsMargins(0, 0, 0, 0)
        self.tried.add_layout(self._tried)
        self.tried.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        return self.tried

    # Showing.

    @property
    def gives(self) -> ProblemType:
        """What a text gets from the loaded model."""
        ready = self.chat.ready
        return (ready.problem_type if ready else None) or "single_label"

    def _show_kind(self) -> None:
        number = self.gives == "regression"
        self.field.setPlaceholderText(
            self.tr("Write or paste a text. Enter gives it a number, Shift and Enter starts a new line.")
            if number
            else self.tr("Write or paste a text. Enter labels it, Shift and Enter starts a new line.")
        )
        self.button.setText(self.tr("Read it") if number else self.tr("Label it"))
        self.button.setAccessibleName(self.button.text())
        self.result.set_kind(self.gives, self._data)

    def show_data(self, data: DataInfo | None, rows: Sequence[RenderedRow]) -> None:
        """Take over what the data tells: its first texts, and the span of its numbers."""
        self._data = data
        self._show_kind()
        self.show_examples(rows)

    def show_examples(self, rows: Sequence[RenderedRow]) -> None:
        """Offer the first texts of the data, each label in turn."""
        found = labelled_examples(rows)
        if found == self._examples and found:
            return
        self._examples = found
        offered = _of_each_label(found)
        for number, button in enumerate(self._example_buttons):
            said = offered[number] if number < len(offered) else ""
            button.setText(said)
            button.setToolTip(said)
            button.setAccessibleName(self.tr("Label: {0}").format(said))
            button.setVisible(bool(said))
        self.examples.setVisible(bool(offered))
        self._show_turns()

    def name_answers(self, named: bool) -> None:
        """Whether each answer says which adapter gave it."""
        if named != self._named:
            self._named = named
            self._show_turns()

    def _on_turns(self) -> None:
        self._chosen = None
        self._show_turns()

    def _show_turns(self) -> None:
        """The newest answer above, the older ones below; an answer that was chosen stays above."""
        answered = [turn for turn in self.chat.turns if answer_of(turn).ended]
        shown = self._chosen or (answered[-1] if answered else None)
        if shown is not None:
            said = " ".join(shown.question.split())
            self.result.show_turn(shown, self._examples.get(said, ""), named=self._named)
        elif self.chat.ready is not None:
            self.result.show_nothing(self.chat.ready.labels)
        self._show_tried(answered[::-1])
        self._show_button()

    def _show_tried(self, turns: list[Turn]) -> None:
        self.tried.setVisible(len(turns) > 1)
        shown: list[object] = [self._named, *(id(turn) for turn in turns)]
        if shown == self._tried_shown:
            return
        self._tried_shown = shown
        clear(self._tried)
        for turn in turns:
            row = TriedRow(turn, named=self._named)
            row.clicked.connect(lambda _=False, turn=turn: self._choose(turn))
            self._tried.addWidget(row)

    def _choose(self, turn: Turn) -> None:
        self._chosen = turn
        self._show_turns()

    def _show_button(self) -> None:
        self.result.again.setEnabled(self.chat.can_ask)
        self.button.setEnabled(self.chat.can_ask and bool(self.field.toPlainText().strip()))
        for button in self._example_buttons:
            button.setEnabled(self.chat.can_ask)

    # Acting.

    def send(self) -> None:
        """Label what is written."""
        said = self.field.toPlainText().strip()
        if said and self.chat.can_ask:
            self.field.clear()
            self._ask(said)

    def _ask(self, said: str) -> None:
        self.chat.ask(said, ("tuned",), "", Sampling())
        self.field.setFocus()


def _of_each_label(examples: dict[str, str]) -> list[str]:
    """A few texts: the first of each label, then the second of each, and so on."""
    seen: dict[str, int] = {}
    places = []
    for place, (said, label) in enumerate(examples.items()):
        seen[label] = seen.get(label, 0) + 1
        places.append((seen[label], place, said))
    return [said for _, _, said in sorted(places)[:MOST_EXAMPLES]]
