"""The second step: what the model learns from, and what it would see of it."""

from __future__ import annotations

from pathlib import Path
from typing import Final, cast

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QFileDialog, QSizePolicy, QVBoxLayout, QWidget

from tunedesk.core.describe import DataInfo, TaskKind
from tunedesk.core.matching import unfit_task
from tunedesk.core.problems import Problem
from tunedesk.core.project import COLUMNS_THERE, STARTER_DATA, STARTER_MODEL, rows_of, step_status, switch_for
from tunedesk.gui import task_words, words
from tunedesk.gui.pages._data_findings import FindingsCard
from tunedesk.gui.pages._data_format import FormatCard
from tunedesk.gui.pages._data_labels import LabelsCard
from tunedesk.gui.pages._data_mapping import MappingCard, columns_in
from tunedesk.gui.pages._data_seen import SeenCard
from tunedesk.gui.pages._data_task import TaskCard
from tunedesk.gui.pages._parts import FileChip, FileDrop, keep_place, short_source
from tunedesk.gui.pages.base import Page
from tunedesk.gui.session import Session, file_source
from tunedesk.gui.widgets import Button, Card, EmptyState, Histogram, Label, TwoColumns

CUT_DELAY_MS: Final = 400
"""How long the cut line must rest before the data is read again."""


class DataPage(Page):
    """The very tokens that the model gets, their lengths, and what stands out."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, "data", "")
        self.header.set_title(self.tr("Data"))
        self._build_header()
        self.task_card = TaskCard()
        self.task_card.chosen.connect(self._choose_task)
        self.empty = self._build_empty()
        self.mapping = MappingCard()
        self.mapping.taken.connect(self._take_columns)
        self.columns = TwoColumns(self._build_left(), self._build_side(), right_width=424)
        self.columns.setObjectName("columns")
        self.body.addWidget(self.task_card)
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
        self.seen = SeenCard(self.session)
        column.addWidget(self.seen, 1)
        column.addWidget(self.labels)
        return left

    def _build_side(self) -> QWidget:
        side = QWidget()
        column = QVBoxLayout(side)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(16)
        column.addWidget(self._build_lengths())
        self.findings = FindingsCard(self.session)
        self.findings.shown.connect(lambda place: self.seen.row_box.setValue(place + 1))
        column.addWidget(self.findings, 1)
        self.format_card = FormatCard()
        column.addWidget(self.format_card)
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
        self.seen.begin()
        self.session.choose_data(file_source(Path(path)))
        self.refresh()

    def _use_starter(self) -> None:
        self.seen.begin()
        self.session.choose_data(STARTER_DATA[self.kind])
        self.refresh()

    def _start_folder(self) -> str:
        source = self.session.project.spec.data.train
        return str(Path(source).parent) if source and not source.startswith("starter:") else str(Path.home())

    def _take_columns(self, columns: dict[str, str]) -> None:
        self.session.choose_data(self.session.project.spec.data.train, columns)
        self.refresh()

    def _choose_task(self, task: str, choices: dict[str, object]) -> None:
        self.session.choose_task(cast(TaskKind, task), **choices)
        self.refresh()

    def _take_cut(self) -> None:
        self.session.set_training(max_length=max(8, self.histogram.cut()))

    def _on_action(self, index: int, key: str) -> None:  # noqa: ARG002
        match key:
            case "again":
                self.session.inspect_data()
            case "change":
                self._choose_file()
            case "encoder":
                self.session.choose_model(STARTER_MODEL["classification"])
            case "writer":
                self.session.choose_model(STARTER_MODEL["chat"])
            case _ if key.startswith("task_"):
                self._choose_task(key.removeprefix("task_"), {})
            case _:
                pass

    # Showing.

    def refresh(self) -> None:
        project, loading = self.session.project, self.session.data_activity is not None
        info = project.data
        self.task_card.show_project(project)
        self._show_problems()
        self._show_mapping()
        self._show_empty()
        nothing = info is None and not loading
        self.empty.setVisible(nothing)
        self.columns.setVisible(not nothing)
        self._show_header(info, nothing)
        self.seen.show_row()
        self._show_lengths(info)
        self.findings.show_findings(info, loading=loading)
        several = info is not None and info.problem_type == "multi_label"
        self.labels.show_labels(info.labels if info else (), several=several)
        self.format_card.show_file(info)
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
        codes = [problem.code for problem in problems]
        change = ("change", self.tr("Choose another file"))
        task = next((task for code in codes if (task := switch_for(code, self.session.project.model))), None)
        if task is not None:
            return ((f"task_{task}", self._switch_words(task)), change)
        if "data.labelled" in codes:
            return (("encoder", self.tr("Use the starter encoder")), change)
        if "data.conversations" in codes or "data.preferences" in codes:
            return (("writer", self.tr("Use the starter chat model")), change)
        other = self._other()
        if "data.task" in codes and other:
            return (*other, change)
        if "data.columns" in codes and other:
            return (change, *other)
        return (change, ("again", self.tr("Read it again")))

    def _switch_words(self, task: TaskKind) -> str:
        texts: dict[TaskKind, str] = {
            "chat": self.tr("Learn to answer"),
            "classification": self.tr("Learn to give labels"),
            "seq2seq": self.tr("Learn to turn one text into another"),
            "preference": self.tr("Learn to prefer better answers"),
        }
        return texts.get(task, task_words.title(task))

    def _other(self) -> tuple[tuple[str, str], ...]:
        """The other way to read a file for a model that writes."""
        names: dict[TaskKind, tuple[TaskKind, str]] = {
            "chat": ("completion", self.tr("Read as plain text")),
            "completion": ("chat", self.tr("Read as conversations")),
        }
        task, text = names.get(self.kind, (None, ""))
        model = self.session.project.model
        if task is None or (model is not None and unfit_task(model, task)):
            return ()
        return ((f"task_{task}", text),)

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
        self.mapping.ask(names, rows_of(self.session.project.spec.task))

    def _show_empty(self) -> None:
        formats = self.tr(
            "Drop a file here: JSON Lines, JSON, CSV, Parquet or plain text. Or begin with the starter data:"
        )
        about: dict[TaskKind, str] = {
            "classification": self.tr(
                "351 sentences about companies and money, each with its label: negative, neutral or positive."
            ),
            "preference": self.tr("questions to a support desk, each with a better and a worse answer."),
        }
        support = self.tr("349 conversations of the support desk of an invented lamp maker, with a voice of its own.")
        formats = f"{formats} {about.get(self.kind, support)}"
        asked = not self.mapping.isHidden()
        self.open.set_kind("plain" if asked else "primary")
        self.empty.set_text(formats, self.tr("Or take other data") if asked else self.tr("No data yet"))

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
        parts = [task_words.rows(info.rows, rows_of(self.session.project.spec.task, info))]
        if info.tokens:
            parts.append(self.tr("%1 tokens").replace("%1", words.large(info.tokens.tokens)))
        if info.labels:
            parts.append(self.tr("%1 labels").replace("%1", words.count(len(info.labels))))
        elif info.span:
            parts.append(self.tr("numbers from %1").replace("%1", task_words.span(info)))
        elif info.tokens:
            share = words.share(round(info.tokens.trained_tokens / max(1, info.tokens.tokens), 2))
            parts.append(self.tr("%1 of them trained").replace("%1", share))
        held = self.tr("%1 are held out.").replace("%1", words.count(info.eval_rows))
        return f"{', '.join(parts)}. {held}"

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

    def _show_footer(self, info: DataInfo | None, loading: bool) -> None:
        settled = step_status(self.session.project, "data") == "settled"
        self.footer.set_back(self.tr("Back: Model"))
        self.footer.set_next(self.tr("Next: Method"), enabled=settled, kind="primary" if settled else "plain")
        if info is not None:
            hint = self.tr("Nothing in your file is changed.")
        elif loading:
            hint = self.tr("Wait until it is read")
        else:
            asked = not self.mapping.isHidden()
            hint = self.tr("Say which column is what") if asked else self.tr("Choose a file first")
        self.footer.set_hint(hint)
