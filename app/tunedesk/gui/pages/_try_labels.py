"""Trying a classifier: a text goes in, the labels come back with how likely each is, and what was tried stays below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QPaintEvent
from PySide6.QtWidgets import QAbstractButton, QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from tunedesk.core.describe import RenderedRow
from tunedesk.core.events import Sampling
from tunedesk.gui import words
from tunedesk.gui.chatting import Answer, ChatSession, Turn
from tunedesk.gui.pages._parts import clear, keep_place
from tunedesk.gui.pages._try_parts import Composer
from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets import Bar, BarList, Button, Card, IconLabel, Label, Rule
from tunedesk.gui.widgets.paint import painter_on, px, round_box, text, text_width, tokens

MOST_LABELS: Final = 10
MOST_EXAMPLES: Final = 4
_ROW: Final = 40
_LABEL_SHARE: Final = 0.3


def labelled_examples(rows: Sequence[RenderedRow]) -> dict[str, str]:
    """The texts of the rows that the session shows, each with its label in the data."""
    found: dict[str, str] = {}
    for row in rows:
        said = {turn.role: "".join(span.text for span in turn.spans if span.kind != "template") for turn in row.turns}
        if "label" in said and said.get("text", "").strip() and "pair" not in said:
            found.setdefault(" ".join(said["text"].split()), said["label"])
    return found


class TriedRow(QAbstractButton):
    """A text that was tried, its label and how likely it is; pressed, it is shown above again."""

    def __init__(self, turn: Turn, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.turn = turn
        self._answer = answer_of(turn)
        self.setObjectName("tried")
        self.setText(turn.question)
        self.setToolTip(turn.question)
        said = self.tr("{0}: {1}, {2}").format(turn.question, self._answer.text, self._figure())
        self.setAccessibleName(said)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setProperty("ringRadius", 6)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def _figure(self) -> str:
        return words.percent(self._answer.labels[0].share) if self._answer.labels else ""

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
        text(painter, row.adjusted(0, 0, -label - figure - 16, 0), said, "body", colours.t2)
        box = QRectF(row.right() - figure - label, row.y(), label, row.height())
        text(painter, box, self._answer.text, "body", colours.t1, weight=600)
        box = QRectF(row.right() - figure, row.y(), figure, row.height())
        text(painter, box, self._figure(), "body", colours.t2, align=right)


def answer_of(turn: Turn) -> Answer:
    """The classifier's answer."""
    return turn.answers.get("tuned", Answer())


class ResultCard(Card):
    """The text and its labels, the likeliest first."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.setObjectName("result")
        self.said = Label("", "body", "t2", wrap=True, selectable=True)
        self.said.setObjectName("said")
        self.label = Label("", "title", "t1", wrap=True, selectable=True)
        self.label.setObjectName("likeliest")
        self.truth = IconLabel("", "secondary", "t2")
        self.truth.setObjectName("truth")
        self.list = BarList(most=MOST_LABELS)
        self.list.setObjectName("labelBars")
        self.time = Label("", "secondary", "t2")
        self.time.setObjectName("took")
        keep_place(self.truth)
        keep_place(self.time)
        self.add(self.said)
        self.add(self.label)
        self.add(Rule())
        self.add(self.list)
        foot = QHBoxLayout()
        foot.addWidget(self.truth, 1)
        foot.addWidget(self.time)
        self.add_layout(foot)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)

    def show_nothing(self, labels: Sequence[str]) -> None:
        """Show which labels there are, before a text was given one."""
        self.said.setText(self.tr("Nothing labelled yet. These are the labels it knows."))
        self.label.setText(words.DASH)
        self.list.set_bars([Bar(name, 0.0, words.DASH, quiet=True) for name in labels])
        self.truth.hide()
        self.time.hide()
        self.setAccessibleName(f"{self.said.text()} {', '.join(labels)}")

    def show_turn(self, turn: Turn, truth: str) -> None:
        """Show a text with its answer; `truth` is its label in the data, if it is one of its rows."""
        answer = answer_of(turn)
        self.said.setText(" ".join(turn.question.split()))
        self.label.setText(answer.text or words.DASH)
        self.list.set_bars(
            [
                Bar(item.name, item.share, words.percent(item.share), quiet=place > 0)
                for place, item in enumerate(answer.labels)
            ]
        )
        self.time.setText(self.tr("took {0} ms").format(words.count(round(answer.seconds * 1000))))
        self.time.show()
        self._show_truth(answer, truth)
        self.setAccessibleName(f"{self.label.text()}: {self.said.text()}. {self.list.accessibleName()}")

    def _show_truth(self, answer: Answer, truth: str) -> None:
        self.truth.setVisible(bool(truth))
        if truth == answer.text:
            self.truth.set_text(self.tr("The data says so too."), "circle-check")
            self.truth.set_tone("t2", "ok")
        else:
            self.truth.set_text(self.tr("The data says {0}.").format(truth), "alert")
            self.truth.set_tone("t2", "warn")


class LabelPanel(QWidget):
    """A field for a text, its labels, examples from the data, and what was tried before."""

    def __init__(self, chat: ChatSession, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("labelling")
        self.chat = chat
        self._examples: dict[str, str] = {}
        self._chosen: Turn | None = None
        self._tried_shown: list[int] = []
        self.result = ResultCard()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(16)
        column.addWidget(self._build_entry())
        column.addWidget(self.result)
        column.addWidget(self._build_examples())
        column.addWidget(self._build_tried())
        column.addStretch(1)
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
        self.field.setPlaceholderText(
            self.tr("Write or paste a text. Enter labels it, Shift and Enter starts a new line.")
        )
        self.field.sent.connect(self.send)
        self.field.textChanged.connect(self._show_button)
        self.button = Button(self.tr("Label it"), "plain", icon_name="send")
        self.button.setObjectName("labelIt")
        self.button.setMinimumWidth(Theme.of().px(96))
        self.button.clicked.connect(self.send)
        row = QHBoxLayout()
        row.setContentsMargins(15, 9, 9, 9)
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
            button = Button("", "plain")
            button.setObjectName(f"example_{number}")
            button.setProperty("leftAligned", True)
            button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            button.setMinimumWidth(120)
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

    def _on_turns(self) -> None:
        self._chosen = None
        self._show_turns()

    def _show_turns(self) -> None:
        """The newest answer above, the older ones below; an answer that was chosen stays above."""
        answered = [turn for turn in self.chat.turns if answer_of(turn).ended]
        shown = self._chosen or (answered[-1] if answered else None)
        if shown is not None:
            said = " ".join(shown.question.split())
            self.result.show_turn(shown, self._examples.get(said, ""))
        elif self.chat.ready is not None:
            self.result.show_nothing(self.chat.ready.labels)
        self._show_tried(answered[::-1])
        self._show_button()

    def _show_tried(self, turns: list[Turn]) -> None:
        self.tried.setVisible(len(turns) > 1)
        if [id(turn) for turn in turns] == self._tried_shown:
            return
        self._tried_shown = [id(turn) for turn in turns]
        clear(self._tried)
        for turn in turns:
            row = TriedRow(turn)
            row.clicked.connect(lambda _=False, turn=turn: self._choose(turn))
            self._tried.addWidget(row)

    def _choose(self, turn: Turn) -> None:
        self._chosen = turn
        self._show_turns()

    def _show_button(self) -> None:
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
