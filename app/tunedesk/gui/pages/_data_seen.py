"""What the model sees of a row: its very tokens, which of them are learned, and the way through the first rows."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QSignalBlocker, Qt
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QSpinBox, QStackedWidget, QVBoxLayout, QWidget

from tunedesk.core.describe import RenderedRow, TaskKind
from tunedesk.core.project import rows_of
from tunedesk.gui import task_words, words
from tunedesk.gui.pages._parts import editing, keep_place
from tunedesk.gui.session import Session
from tunedesk.gui.task_words import RowKind
from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets import (
    Card,
    IconLabel,
    Label,
    Rule,
    Segmented,
    Skeleton,
    TokenLegend,
    TokenSpan,
    TokenView,
    TurnView,
)

LONG_VIEW: Final = 260
SHORT_VIEW: Final = 150
"""The least height of the tokens: of conversations and texts, and of texts with labels."""


def turn_views(row: RenderedRow, kind: RowKind = "chat", *, number: bool = False) -> list[TurnView]:
    """A rendered row as the token view takes it."""
    return [
        TurnView(
            task_words.role_name(turn.role, kind, number=number),
            tuple(TokenSpan(span.text, span.kind) for span in turn.spans),
        )
        for turn in row.turns
    ]


def kind_counts(row: RenderedRow) -> dict[str, int]:
    """How many tokens of each kind a row has."""
    counts = {"trained": 0, "context": 0, "template": 0, "cut": 0}
    for turn in row.turns:
        for span in turn.spans:
            counts[span.kind] += 1
    return counts


class SeenCard(Card):
    """One of the first rows at a time, as reading or as tokens."""

    def __init__(self, session: Session, *, parent: QWidget | None = None) -> None:
        self.mode = Segmented((), name="")
        super().__init__("", right=self.mode, padded=False, parent=parent)
        self.set_title(self.tr("What the model sees"))
        self.setObjectName("seen")
        self._session = session
        self._at = 0
        self._shown: tuple[RenderedRow, str, str] | None = None
        self.mode.set_options([("reading", self.tr("Reading")), ("tokens", self.tr("Tokens"))])
        self.mode.setAccessibleName(self.tr("How it is shown"))
        self.mode.set_current("tokens")
        self.mode.setObjectName("mode")
        self.mode.chosen.connect(self.show_row)
        self.add(self._build_row_bar())
        self.add(Rule())
        self.view = TokenView()
        self.view.setObjectName("tokens")
        self.skeleton = Skeleton(8)
        self.view_stack = QStackedWidget()
        self.view_stack.addWidget(self.view)
        self.view_stack.addWidget(inset(self.skeleton))
        self.add(self.view_stack, 1)
        self.add(Rule())
        self.note = IconLabel("", "secondary", "t2", icon_name="info")
        self.note.setObjectName("note")
        self.add(inset(self.note, 16, 4, 16, 10))
        self.body.setSpacing(0)

    def _build_row_bar(self) -> QWidget:
        bar = QWidget()
        row = QHBoxLayout(bar)
        row.setContentsMargins(15, 0, 15, 10)
        row.setSpacing(8)
        self.legend = TokenLegend()
        self.legend.setObjectName("legend")
        keep_place(self.legend)
        row.addWidget(self.legend, 1)
        self.row_word = Label("", "secondary", "t2")
        self.row_box = QSpinBox()
        self.row_box.setObjectName("row")
        self.row_box.setProperty("compact", True)
        self.row_box.setFixedWidth(Theme.of().px(64))
        self.row_box.setKeyboardTracking(False)
        self.row_box.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.row_box.valueChanged.connect(self._go_to)
        self.row_of = Label("", "secondary", "t2")
        self.row_of.setObjectName("rowOf")
        row.addWidget(self.row_word)
        row.addWidget(self.row_box)
        row.addWidget(self.row_of)
        return bar

    @property
    def kind(self) -> TaskKind:
        """What the model is to learn."""
        return self._session.project.spec.task.kind

    @property
    def _rows(self) -> RowKind:
        """What a row of the data is."""
        return rows_of(self._session.project.spec.task, self._session.project.data)

    def begin(self) -> None:
        """Go back to the first row."""
        self._at = 0

    def _go_to(self, number: int) -> None:
        self._at = number - 1
        self.show_row()

    def show_row(self) -> None:
        """Show the row of the moment, or that it is being read."""
        rows = self._session.examples
        self._make_room(short=self.kind == "classification")
        self._show_row_bar(len(rows))
        self.view_stack.setCurrentIndex(0 if rows else 1)
        if not rows:
            if self._shown is not None:
                self.skeleton.start()
            self._shown = None
            self.view.set_turns([])
            self.legend.hide()
            self.note.set_text(self.tr("Every token will be shown as the model gets it."), "info")
            return
        row = rows[self._at]
        now = (row, self.mode.current(), self.kind)
        if self._shown is not None and self._shown[0] is row and self._shown[1:] == now[1:]:
            return
        self._shown = now
        self.view.set_mode("reading" if now[1] == "reading" or not row.tokens else "tokens")
        kind = self._rows
        self.view.set_turns(turn_views(row, kind, number=self._number()))
        counts = kind_counts(row)
        self.legend.setVisible(bool(row.tokens))
        read = counts["context"] + counts["template"]
        if self.kind == "classification":
            name = self.tr("Number to learn") if self._number() else ""
            self.legend.set_label_counts(read, counts["cut"], name=name)
        else:
            self.legend.set_counts(counts["trained"], read, cut=counts["cut"])
        self._show_note(row)

    def _show_row_bar(self, count: int) -> None:
        info = self._session.project.data
        self._at = min(self._at, max(0, count - 1))
        if not editing(self.row_box):
            with QSignalBlocker(self.row_box):
                self.row_box.setRange(1, max(1, count))
                self.row_box.setValue(self._at + 1)
        self.row_box.setEnabled(count > 1)
        self.row_word.setText(task_words.row_name(self._rows))
        self.row_box.setAccessibleName(self.row_word.text())
        whole = info is not None and info.rows <= count
        text = self.tr("of %1") if whole else self.tr("of the first %1")
        self.row_of.setText(text.replace("%1", words.count(count)) if count else words.DASH)

    def _show_note(self, row: RenderedRow) -> None:
        self.mode.set_option_enabled("tokens", bool(row.tokens), self.tr("Choose a model to see its tokens."))
        if not row.tokens:
            text = self.tr("Choose a model to see the tokens that it makes of this.")
        elif any(span.kind == "cut" for turn in row.turns for span in turn.spans):
            text = self.tr("The model learns {0}. The struck tokens are past the cut.").format(self._what_is_learned())
        else:
            text = self._whole_note()
        self.note.set_text(text, "info")

    def _what_is_learned(self) -> str:
        if self.kind == "classification":
            return self.tr("to tell the number") if self._number() else self.tr("to tell the label")
        return {
            "preference": self.tr("which of the blue answers is better"),
            "rated": self.tr("whether the blue answer is good"),
        }.get(self._rows, self.tr("to write the blue tokens"))

    def _whole_note(self) -> str:
        if self.kind == "classification":
            return self.tr("The model reads the tokens and learns {0}.").format(self._what_is_learned())
        return self.tr("The model learns {0}. The others are only read.").format(self._what_is_learned())

    def _number(self) -> bool:
        data = self._session.project.data
        return data is not None and data.problem_type == "regression"

    def _make_room(self, *, short: bool) -> None:
        """A text to label is short: its view takes the room that is left, and no more."""
        down = QSizePolicy.Policy.Ignored if short else QSizePolicy.Policy.Preferred
        self.view_stack.setSizePolicy(QSizePolicy.Policy.Preferred, down)
        self.view_stack.setMinimumHeight(SHORT_VIEW if short else LONG_VIEW)


def inset(widget: QWidget, left: int = 16, top: int = 16, right: int = 16, bottom: int = 16) -> QWidget:
    """`widget` with room around it."""
    frame = QWidget()
    column = QVBoxLayout(frame)
    column.setContentsMargins(left, top, right, bottom)
    column.addWidget(widget)
    column.addStretch(1)
    return frame
