"""The second step: what the model learns from, and what it would see of it."""

from __future__ import annotations

from pathlib import Path
from typing import Final, cast

from PySide6.QtCore import QSignalBlocker, Qt, QTimer
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QSizePolicy, QSpinBox, QStackedWidget, QVBoxLayout, QWidget

from tunedesk.core.describe import DataInfo, RenderedRow, TaskKind
from tunedesk.core.problems import Problem
from tunedesk.core.project import COLUMNS_THERE, STARTER_DATA, STARTER_MODEL, step_status
from tunedesk.gui import task_words, words
from tunedesk.gui.pages._data_findings import FindingsCard
from tunedesk.gui.pages._data_labels import LabelsCard
from tunedesk.gui.pages._data_mapping import MappingCard, columns_in
from tunedesk.gui.pages._parts import FileChip, FileDrop, editing, keep_place, short_source
from tunedesk.gui.pages.base import Page
from tunedesk.gui.session import Session, file_source
from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets import (
    Button,
    Card,
    EmptyState,
    Histogram,
    IconLabel,
    KeyValueList,
    Label,
    Rule,
    Segmented,
    Skeleton,
    TokenLegend,
    TokenSpan,
    TokenView,
    TurnView,
    TwoColumns,
)

LONG_VIEW: Final = 260
SHORT_VIEW: Final = 150
"""The least height of the tokens: of conversations and texts, and of texts with labels."""
CUT_DELAY_MS: Final = 400
"""How long the cut line must rest before the data is read again."""


def turn_views(row: RenderedRow) -> list[TurnView]:
    """A rendered row as the token view takes it."""
    return [
        TurnView(turn.role.capitalize(), tuple(TokenSpan(span.text, span.kind) for span in turn.spans))
        for turn in row.turns
    ]


def kind_counts(row: RenderedRow) -> dict[str, int]:
    """How many tokens of each kind a row has."""
    counts = {"trained": 0, "context": 0, "template": 0, "cut": 0}
    for turn in row.turns:
        for span in turn.spans:
            counts[span.kind] += 1
    return counts


class DataPage(Page):
    """The very tokens that the model gets, their lengths, and what stands out."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, "data", "")
        self.header.set_title(self.tr("Data"))
        self._at = 0
        self._shown_row: tuple[RenderedRow, str] | None = None
        self._build_header()
        self.empty = self._build_empty()
        self.mapping = MappingCard()
        self.mapping.taken.connect(self._take_columns)
        self.columns = TwoColumns(self._build_left(), self._build_side(), right_width=424)
        self.columns.setObjectName("columns")
        self.body.addWidget(self.mapping)
        self.body.addWidget(self.empty, 1)
        self.body.addWidget(self.columns, 1)
        self._cut_timer = QTimer(self, interval=CUT_DELAY_MS, singleShot=True)
        self._cut_timer.timeout.connect(self._take_cut)
        self.problems.action_chosen.connect(self._on_action)
        FileDrop(self).dropped.connect(self.take_path)

    # Building.

    def _build_header(self) -> None:
        self.chip = FileChip()
        self.chip.setObjectName("chip")
        self.change = Button(self.tr("Change"), "plain")
        self.change.setObjectName("change")
        self.change.setAccessibleName(self.tr("Choose another data file"))
        self.change.clicked.connect(self._choose_file)
        self.header.add_action(self.chip)
        self.header.add_action(self.change)

    def _build_empty(self) -> EmptyState:
        empty = EmptyState("file-text", "", title=self.tr("No data yet"))
        empty.setObjectName("empty")
        self.open = Button(self.tr("Open file"), "primary", icon_name="folder-open")
        self.open.setObjectName("open")
        self.open.clicked.connect(self._choose_file)
        self.use_starter = Button(self.tr("Use the starter data"), "plain")
        self.use_starter.setObjectName("useStarter")
        self.use_starter.clicked.connect(self._use_starter)
        empty.add_button(self.open)
        empty.add_button(self.use_starter)
        return empty

    def _build_left(self) -> QWidget:
        left = QWidget()
        column = QVBoxLayout(left)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(16)
        self.labels = LabelsCard()
        column.addWidget(self._build_seen(), 1)
        column.addWidget(self.labels)
        return left

    def _build_seen(self) -> Card:
        self.mode = Segmented(
            [("reading", self.tr("Reading")), ("tokens", self.tr("Tokens"))], "tokens", name=self.tr("How it is shown")
        )
        self.mode.setObjectName("mode")
        self.mode.chosen.connect(self._show_row)
        card = Card(self.tr("What the model sees"), right=self.mode, padded=False)
        card.setObjectName("seen")
        card.add(self._build_row_bar())
        card.add(Rule())
        self.view = TokenView()
        self.view.setObjectName("tokens")
        self.skeleton = Skeleton(8)
        self.view_stack = QStackedWidget()
        self.view_stack.addWidget(self.view)
        self.view_stack.addWidget(_inset(self.skeleton))
        card.add(self.view_stack, 1)
        card.add(Rule())
        self.note = IconLabel("", "secondary", "t2", icon_name="info")
        self.note.setObjectName("note")
        card.add(_inset(self.note, 16, 4, 16, 10))
        card.body.setSpacing(0)
        return card

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

    def _build_side(self) -> QWidget:
        side = QWidget()
        column = QVBoxLayout(side)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(16)
        column.addWidget(self._build_lengths())
        self.findings = FindingsCard(self.session)
        self.findings.shown.connect(lambda place: self.row_box.setValue(place + 1))
        column.addWidget(self.findings, 1)
        column.addWidget(self._build_format())
        return side

    def _build_lengths(self) -> Card:
        self.length_note = Label("", "secondary", "t2")
        self.length_note.setObjectName("lengthNote")
        card = Card(self.tr("Length in tokens"), right=self.length_note)
        card.setObjectName("lengths")
        self.histogram = Histogram()
        self.histogram.setObjectName("histogram")
        self.histogram.setFixedHeight(152)
        keep_place(self.histogram)
        self.histogram.cut_changed.connect(lambda _: self._cut_timer.start())
        card.add(self.histogram)
        card.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        return card

    def _build_format(self) -> Card:
        self.task = Segmented(
            [("chat", self.tr("Conversations")), ("completion", self.tr("Plain text"))], name=self.tr("Learn from")
        )
        self.task.setObjectName("task")
        self.task.chosen.connect(lambda kind: self.session.choose_task(cast(TaskKind, kind)))
        card = Card(self.tr("Read as"), right=self.task)
        card.setObjectName("format")
        self.task_note = Label("", "secondary", "t2", wrap=True)
        self.task_note.setObjectName("taskNote")
        card.add(self.task_note)
        self.format = KeyValueList()
        self.format.setObjectName("formatFacts")
        card.add(self.format)
        card.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        return card

    # Acts.

    def _choose_file(self) -> None:
        kinds = "*.jsonl *.json *.csv *.tsv *.parquet *.txt"
        path, _ = QFileDialog.getOpenFileName(
            self,
            self.tr("Choose a data file"),
            self._start_folder(),
            ";;".join([self.tr("Data (%1)").replace("%1", kinds), self.tr("All files (*)")]),
        )
        if path:
            self.take_path(path)

    def take_path(self, path: str) -> None:
        """Take a file of this computer as the data."""
        self._at = 0
        self.session.choose_data(file_source(Path(path)))
        self.refresh()

    def _use_starter(self) -> None:
        self._at = 0
        self.session.choose_data(STARTER_DATA[self.kind])
        self.refresh()

    def _start_folder(self) -> str:
        source = self.session.project.spec.data.train
        return str(Path(source).parent) if source and not source.startswith("starter:") else str(Path.home())

    def _take_columns(self, columns: dict[str, str]) -> None:
        self.session.choose_data(self.session.project.spec.data.train, columns)
        self.refresh()

    def _go_to(self, number: int) -> None:
        self._at = number - 1
        self._show_row()

    def _take_cut(self) -> None:
        self.session.set_training(max_length=max(8, self.histogram.cut()))

    def _on_action(self, index: int, key: str) -> None:  # noqa: ARG002
        match key:
            case "again":
                self.session.inspect_data()
            case "change":
                self._choose_file()
            case "task":
                self.session.choose_task("completion" if self.kind == "chat" else "chat")
            case "encoder":
                self.session.choose_model(STARTER_MODEL["classification"])
            case "writer":
                self.session.choose_model(STARTER_MODEL["chat"])
            case _:
                pass

    # Showing.

    def refresh(self) -> None:
        project, loading = self.session.project, self.session.data_activity is not None
        info = project.data
        self._show_problems()
        self._show_mapping()
        self._show_empty()
        nothing = info is None and not loading
        self.empty.setVisible(nothing)
        self.columns.setVisible(not nothing)
        self._show_header(info, nothing)
        self._show_row()
        self._show_lengths(info)
        self.findings.show_findings(info, loading=loading)
        self._show_format(info)
        self._show_footer(info, loading)

    def _show_problems(self) -> None:
        problems = self.session.project.data_problems
        last = len(problems) - 1
        self.problems.set_problems(
            [
                words.problem_item(self._in_window(item), self._actions(problems) if at == last else ())
                for at, item in enumerate(problems)
            ]
        )

    @property
    def kind(self) -> TaskKind:
        """What the model is to learn."""
        return self.session.project.spec.task.kind

    def _actions(self, problems: tuple[Problem, ...]) -> tuple[tuple[str, str], ...]:
        codes = {problem.code for problem in problems}
        change = ("change", self.tr("Choose another file"))
        other = ("task", self.tr("Read as plain text") if self.kind == "chat" else self.tr("Read as conversations"))
        if "data.labelled" in codes:
            return (("encoder", self.tr("Use the starter encoder")), change)
        if "data.conversations" in codes:
            return (("writer", self.tr("Use the starter chat model")), change)
        if "data.columns" in codes and self.kind == "classification":
            return (change, ("again", self.tr("Read it again")))
        if "data.task" in codes:
            return (other, change)
        if "data.columns" in codes:
            return (change, other)
        return (change, ("again", self.tr("Read it again")))

    def _in_window(self, problem: Problem) -> Problem:
        """The problem with what to do here: its columns stand below, and its own advice is for a run file."""
        if not columns_in(problem):
            return problem
        if problem.code == "data.columns":
            fix = self.tr("Say below which column is what, or choose another file.")
        else:
            fix = self.tr("{0} Or say below which column is what.").format(problem.fix)
        found = problem.found.partition(COLUMNS_THERE)[0].strip()
        return problem.model_copy(update={"found": found, "fix": fix})

    def _show_mapping(self) -> None:
        names = next((found for item in self.session.project.data_problems if (found := columns_in(item))), ())
        self.mapping.ask(names, self.kind)

    def _show_empty(self) -> None:
        formats = self.tr(
            "Drop a file here: JSON Lines, JSON, CSV, Parquet or plain text. Or begin with the starter data:"
        )
        about = self.tr("349 conversations of the support desk of an invented lamp maker, with a voice of its own.")
        if self.kind == "classification":
            about = self.tr(
                "351 sentences about companies and money, each with its label: negative, neutral or positive."
            )
        self.empty.set_text(f"{formats} {about}", self.tr("No data yet"))

    def _show_header(self, info: DataInfo | None, nothing: bool) -> None:
        source = self.session.project.spec.data.train
        if nothing:
            self.chip.set_file("", "", "")
            self.header.set_subtitle(self.tr("What the model learns from. The file is only read."))
        elif info is None:
            self.chip.set_file(short_source(source), words.DASH, source)
            self.header.set_subtitle(self.session.data_activity or "")
        else:
            self.chip.set_file(info.name, words.file_size(info.bytes), info.path)
            self.header.set_subtitle(self._summary(info))
        self.change.setVisible(not nothing)

    def _summary(self, info: DataInfo) -> str:
        parts = [task_words.rows(info.rows, self.kind)]
        if info.tokens:
            parts.append(self.tr("%1 tokens").replace("%1", words.large(info.tokens.tokens)))
        if info.labels:
            parts.append(self.tr("%1 labels").replace("%1", words.count(len(info.labels))))
        elif info.tokens:
            share = words.share(round(info.tokens.trained_tokens / max(1, info.tokens.tokens), 2))
            parts.append(self.tr("%1 of them trained").replace("%1", share))
        held = self.tr("%1 are held out.").replace("%1", words.count(info.eval_rows))
        return f"{', '.join(parts)}. {held}"

    def _show_row(self) -> None:
        rows = self.session.examples
        self._show_row_bar(len(rows))
        self.view_stack.setCurrentIndex(0 if rows else 1)
        if not rows:
            if self._shown_row is not None:
                self.skeleton.start()
            self._shown_row = None
            self.view.set_turns([])
            self.legend.hide()
            self.note.set_text(self.tr("Every token will be shown as the model gets it."), "info")
            return
        row = rows[self._at]
        mode = self.mode.current()
        if self._shown_row is not None and self._shown_row[0] is row and self._shown_row[1] == mode:
            return
        self._shown_row = (row, mode)
        self.view.set_mode("reading" if mode == "reading" or not row.tokens else "tokens")
        self.view.set_turns(turn_views(row))
        counts = kind_counts(row)
        self.legend.setVisible(bool(row.tokens))
        read = counts["context"] + counts["template"]
        if self.kind == "classification":
            self.legend.set_label_counts(read, counts["cut"])
        else:
            self.legend.set_counts(counts["trained"], read, cut=counts["cut"])
        self._show_note(row)

    def _show_row_bar(self, count: int) -> None:
        info = self.session.project.data
        self._at = min(self._at, max(0, count - 1))
        if not editing(self.row_box):
            with QSignalBlocker(self.row_box):
                self.row_box.setRange(1, max(1, count))
                self.row_box.setValue(self._at + 1)
        self.row_box.setEnabled(count > 1)
        self.row_word.setText(task_words.row_name(self.kind))
        self.row_box.setAccessibleName(self.row_word.text())
        whole = info is not None and info.rows <= count
        text = self.tr("of %1") if whole else self.tr("of the first %1")
        self.row_of.setText(text.replace("%1", words.count(count)) if count else words.DASH)

    def _show_note(self, row: RenderedRow) -> None:
        self.mode.set_option_enabled("tokens", bool(row.tokens), self.tr("Choose a model to see its tokens."))
        labelled = self.kind == "classification"
        if not row.tokens:
            text = self.tr("Choose a model to see the tokens that it makes of this.")
        elif any(span.kind == "cut" for turn in row.turns for span in turn.spans):
            learns = self.tr("to tell the label") if labelled else self.tr("to write the blue tokens")
            text = self.tr("The model learns {0}. The struck tokens are past the cut.").format(learns)
        elif labelled:
            text = self.tr("The model reads the tokens and learns to tell the label.")
        else:
            text = self.tr("The model learns to write the blue tokens. The others are only read.")
        self.note.set_text(text, "info")

    def _show_lengths(self, info: DataInfo | None) -> None:
        tokens = info.tokens if info else None
        self.histogram.setVisible(tokens is not None)
        if tokens is None:
            self.length_note.setText("" if info is None else self.tr("Known once a model is chosen"))
            return
        text = self.tr("Median %1, longest %2")
        text = text.replace("%1", words.count(tokens.median)).replace("%2", words.count(tokens.longest))
        self.length_note.setText(text)
        self.histogram.set_data(list(tokens.histogram), tokens.bin_width)
        if not self._cut_timer.isActive():
            self.histogram.set_cut(tokens.max_length)

    def _show_format(self, info: DataInfo | None) -> None:
        self.labels.show_labels(info.labels if info else ())
        labelled = self.kind == "classification"
        self.task.setVisible(not labelled)
        self._make_room(short=labelled)
        if not labelled:
            self.task.set_current(self.kind)
        notes: dict[TaskKind, str] = {
            "chat": self.tr("The model learns to answer: only what the assistant says is trained."),
            "completion": self.tr("The model learns to go on with a text: every token is trained."),
            "classification": self.tr("The model learns to give each text one of the labels."),
        }
        self.task_note.setText(notes[self.kind])
        names = [self.tr("Format"), self.tr("A row holds"), self.tr("Columns"), self.tr("Rows")]
        values = self._format_values(info) if info else [""] * len(names)
        self.format.set_rows(list(zip(names, values, strict=True)))

    def _make_room(self, *, short: bool) -> None:
        """A text to label is short: its view takes the room that is left, and no more."""
        down = QSizePolicy.Policy.Ignored if short else QSizePolicy.Policy.Preferred
        self.view_stack.setSizePolicy(QSizePolicy.Policy.Preferred, down)
        self.view_stack.setMinimumHeight(SHORT_VIEW if short else LONG_VIEW)

    def _format_values(self, info: DataInfo) -> list[str]:
        used = [name if role == name else f"{name} ({role})" for role, name in info.columns.items()]
        rows = self.tr("%1 to learn from, %2 held out")
        rows = rows.replace("%1", words.count(info.train_rows)).replace("%2", words.count(info.eval_rows))
        return [_FORMATS.get(info.file_format, info.file_format), self._layout(info), words.listed(used), rows]

    def _layout(self, info: DataInfo) -> str:
        layouts = {
            "messages": self.tr("A list of messages, each with a role"),
            "sharegpt": self.tr("A list of turns, as ShareGPT writes them"),
            "alpaca": self.tr("An instruction, its input and the output"),
            "prompt_completion": self.tr("A question and its answer"),
            "text": self.tr("One text"),
            "labelled": self.tr("A text and its label"),
        }
        if "text_pair" in info.columns:
            return self.tr("Two texts and the label of the pair")
        return layouts[info.layout]

    def _show_footer(self, info: DataInfo | None, loading: bool) -> None:
        settled = step_status(self.session.project, "data") == "settled"
        self.footer.set_back(self.tr("Back: Model"))
        self.footer.set_next(self.tr("Next: Method"), enabled=settled, kind="primary" if settled else "plain")
        if info is not None:
            hint = self.tr("Nothing in your file is changed.")
        elif loading:
            hint = self.tr("Wait until it is read")
        else:
            hint = self.tr("Choose a file first")
        self.footer.set_hint(hint)


_FORMATS: Final = {
    "jsonl": "JSON Lines",
    "json": "JSON",
    "csv": "CSV",
    "tsv": "TSV",
    "parquet": "Parquet",
    "txt": "Plain text",
}


def _inset(widget: QWidget, left: int = 16, top: int = 16, right: int = 16, bottom: int = 16) -> QWidget:
    frame = QWidget()
    column = QVBoxLayout(frame)
    column.setContentsMargins(left, top, right, bottom)
    column.addWidget(widget)
    column.addStretch(1)
    return frame
