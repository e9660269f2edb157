"""The last step: save the adapter, and call it done only after it was read back and compared."""

from __future__ import annotations

import time
from pathlib import Path

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QDesktopServices, QGuiApplication, QResizeEvent
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QStackedWidget, QVBoxLayout, QWidget

from tunedesk.core.hardware import disk_free
from tunedesk.core.problems import Problem
from tunedesk.core.project import busy
from tunedesk.core.spec import MethodName
from tunedesk.gui import method_words, words
from tunedesk.gui.exporting import ExportSession
from tunedesk.gui.pages._parts import SignedList, keep_place
from tunedesk.gui.pages.base import Page
from tunedesk.gui.places import export_folder, file_name
from tunedesk.gui.rail_lines import adapter_step, has_adapter
from tunedesk.gui.runs_list import run_name
from tunedesk.gui.session import Session
from tunedesk.gui.widgets import (
    Badge,
    Button,
    Card,
    CheckItem,
    CheckList,
    CheckStatus,
    ChoiceCard,
    ChoiceGroup,
    EmptyState,
    IconButton,
    Label,
    Rule,
    TwoColumns,
)
from tunedesk.gui.words import problem_item

EMPTY, FULL = 0, 1


class ExportPage(Page):
    """What to save, where to, and whether it is what was trained."""

    def __init__(self, session: Session, exporter: ExportSession) -> None:
        super().__init__(session, "export", "")
        self.exporter = exporter
        self._proposed = ""
        self._ended_at = 0.0
        self.header.set_title(self.tr("Export"))
        self.stack = QStackedWidget()
        self.stack.setObjectName("states")
        self.stack.addWidget(self._build_empty())
        self.stack.addWidget(self._build_columns())
        self.body.addWidget(self.stack, 1)
        self.again_button = Button(self.tr("Save again"))
        self.again_button.setObjectName("saveAgain")
        self.again_button.clicked.connect(self._save_again)
        self.cancel_button = Button(self.tr("Cancel"), "quiet")
        self.cancel_button.setObjectName("cancelExport")
        self.cancel_button.clicked.connect(exporter.cancel)
        self.footer.add_right(self.again_button)
        self.footer.add_right(self.cancel_button)
        self.footer.set_back(self.tr("Back: Try"))
        self.problems.action_chosen.connect(self._on_action)
        exporter.changed.connect(self._on_export)
        session.run_changed.connect(self.refresh_if_visible)

    # Building.

    def _build_empty(self) -> QWidget:
        self.empty = EmptyState("package", "")
        self.empty.setObjectName("emptyExport")
        button = Button(self.tr("Go to Train"), "primary")
        button.setObjectName("goTrain")
        button.clicked.connect(lambda: self.go.emit("train"))
        self.empty.add_button(button)
        return self.empty

    def _build_columns(self) -> TwoColumns:
        left = QWidget()
        column = QVBoxLayout(left)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(16)
        column.addWidget(self._build_kinds())
        column.addWidget(self._build_place())
        column.addWidget(self._build_contents(), 1)
        return TwoColumns(left, self._build_checks(), right_width=344)

    def _build_kinds(self) -> ChoiceGroup:
        self.kinds = ChoiceGroup(min_width=200)
        self.kinds.setObjectName("kinds")
        self.adapter_card = ChoiceCard("adapter", "")
        self.adapter_card.setObjectName("kind_adapter")
        self.kinds.set_cards([self.adapter_card])
        self.kinds.set_current("adapter")
        return self.kinds

    def _build_place(self) -> Card:
        card = Card(self.tr("Save to"))
        self.place = QLineEdit()
        self.place.setObjectName("place")
        self.place.setAccessibleName(self.tr("Folder to save to"))
        self.place.textChanged.connect(self._show_room)
        self.choose = Button(self.tr("Choose"), icon_name="folder")
        self.choose.setObjectName("choosePlace")
        self.choose.setAccessibleName(self.tr("Choose the folder"))
        self.choose.clicked.connect(self._choose_place)
        row = QHBoxLayout()
        row.setSpacing(12)
        row.addWidget(self.place, 1)
        row.addWidget(self.choose)
        card.add_layout(row)
        self.room = Label("", "secondary", "t2", wrap=True)
        self.room.setObjectName("room")
        card.add(self.room)
        return card

    def _build_contents(self) -> Card:
        card = Card(self.tr("What is in the folder"))
        self.contents = SignedList("file-text", "t2")
        self.contents.setObjectName("contents")
        card.add(self.contents)
        card.body.addStretch(1)
        card.add_rule()
        self.usage = Label("", "mono", "t2", selectable=True)
        self.usage.setObjectName("usage")
        card.add(Label(self.tr("Any program that knows PEFT can load it:"), "secondary", "t2"))
        card.add(self.usage)
        return card

    def _build_checks(self) -> Card:
        card = Card(padded=False)
        card.setObjectName("checks")
        head = QVBoxLayout()
        head.setContentsMargins(15, 13, 15, 12)
        head.setSpacing(4)
        line = QHBoxLayout()
        line.setSpacing(10)
        self.badge = Badge(self.tr("Not saved yet"), "neutral")
        self.badge.setObjectName("badge")
        self.when = Label("", "secondary", "t2")
        self.when.setObjectName("when")
        line.addWidget(self.badge)
        line.addWidget(self.when)
        line.addStretch(1)
        self.verdict = Label("", "verdict", wrap=True)
        self.verdict.setObjectName("verdict")
        self.verdict_text = Label("", "secondary", "t2", wrap=True)
        self.verdict_text.setObjectName("verdictText")
        head.addLayout(line)
        head.addWidget(self.verdict)
        head.addWidget(self.verdict_text)
        self.checks = CheckList()
        self.checks.setObjectName("checkList")
        card.body.setSpacing(0)
        card.add_layout(head)
        card.add(Rule())
        card.add(self.checks, 1)
        card.add(self._build_hash())
        return card

    def _build_hash(self) -> QWidget:
        self.hash_box = QWidget()
        keep_place(self.hash_box)
        column = QVBoxLayout(self.hash_box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(Rule())
        inner = QVBoxLayout()
        inner.setContentsMargins(15, 12, 15, 15)
        inner.setSpacing(8)
        row = QHBoxLayout()
        self.hash = Label("", "mono", "t1", selectable=True)
        self.hash.setObjectName("sha256")
        copy = IconButton("copy", self.tr("Copy the SHA-256"))
        copy.setObjectName("copyHash")
        copy.clicked.connect(self._copy_hash)
        row.addWidget(Label("SHA-256", "secondary", "t2"))
        row.addStretch(1)
        row.addWidget(self.hash)
        row.addWidget(copy)
        self.report_button = Button(self.tr("Copy the report"))
        self.report_button.setObjectName("copyReport")
        self.report_button.clicked.connect(self._copy_report)
        inner.addLayout(row)
        inner.addWidget(self.report_button)
        column.addLayout(inner)
        return self.hash_box

    # Showing.

    @property
    def labels(self) -> bool:
        """Whether the shown run learned labels."""
        return self.session.project.spec.task.kind == "classification"

    @property
    def turns_texts(self) -> bool:
        """Whether the shown run learned to turn one text into another."""
        return self.session.project.spec.task.kind == "seq2seq"

    @property
    def method(self) -> MethodName:
        """How the shown run learned."""
        return self.session.project.spec.method.name

    def _show_contents(self) -> None:
        first = method_words.contents(self.method, labels=self.labels)
        texts = [
            self.tr("The tokenizer and the chat template, so that text is cut as it was in training."),
            self.tr("A model card: base, data, settings, losses and licence."),
        ]
        if self.labels:
            texts[:1] = [
                self.tr("What the outputs stand for: the labels in their order, or a number (labels.json)."),
                self.tr("The tokenizer, so that text is cut as it was in training."),
            ]
        elif self.turns_texts:
            texts[0] = self.tr("The tokenizer, so that text is cut as it was in training.")
        self.adapter_card.set_title(method_words.noun(self.method))
        self.adapter_card.set_text(method_words.about(self.method, labels=self.labels))
        self.contents.set_texts([first, *texts])

    def refresh(self) -> None:
        run = self.session.project.run
        ready = has_adapter(run)
        self.stack.setCurrentIndex(FULL if ready else EMPTY)
        if ready:
            self._propose()
            self._show_facts()
            self._show_contents()
            self._show_checks()
        else:
            self._show_empty()
        self._show_problems()
        self._show_footer(ready)

    def _show_empty(self) -> None:
        text = self.tr("What is learned can be saved here, and read back by other programs.")
        title = self.tr("Nothing to save yet")
        if busy(self.session.project.run):
            title = self.tr("The run is still training")
            text = self.tr("When it has ended, what was learned can be saved here.")
        self.empty.set_text(text, title)
        self.header.set_subtitle(self.tr("Take the result with you. The app calls it done only after reading it back."))

    def _propose(self) -> None:
        """Name a folder for this run, unless the person has named one."""
        name = run_name(self.session.project.spec)
        folder = f"{file_name(name)}-{method_words.folder_suffix(self.method)}"
        proposed = str(export_folder(self.session.settings) / folder)
        if self.place.text() in ("", self._proposed):
            self.place.setText(proposed)
        self._proposed = proposed

    def _show_facts(self) -> None:
        run = self.session.project.run
        step = adapter_step(run) if run else None
        name = run_name(self.session.project.spec)
        self.header.set_subtitle(
            self.tr("{0}, step {1}. The app calls it done only after reading it back.").format(
                name, words.count(step or 0)
            )
        )
        size = words.file_size(run.adapter.bytes) if run and run.adapter else words.DASH
        self.adapter_card.set_facts(size, method_words.file_format(self.method))
        self._show_room()
        idle = self.exporter.status != "running"
        for widget in (self.place, self.choose, self.kinds):
            widget.setEnabled(idle)

    def _show_room(self) -> None:
        target = Path(self.place.text() or ".").expanduser()
        self.usage.setText(f'PeftModel.from_pretrained(base, "{target.name}")')
        free = words.file_size(disk_free(target.absolute()))
        self.room.setText(self.tr("{0} free. An older folder is replaced only if you say so.").format(free))

    def _expected(self) -> tuple[tuple[str, str, str], ...]:
        """The checks in their order: the engine's name, the title, and what it is about."""
        plain = self.labels or self.turns_texts
        tokenizer = self.tr("Tokenizer") if plain else self.tr("Tokenizer and chat template")
        answers = self.tr("It answers word for word as the run does.")
        if self.labels:
            data = self.session.project.data
            number = data is not None and data.problem_type == "regression"
            answers = self.tr("It gives the {0} that the run gives.")
            answers = answers.format(self.tr("numbers") if number else self.tr("labels"))
        elif self.turns_texts:
            answers = self.tr("It writes word for word what the run writes.")
        return (
            ("Written", self.tr("Written"), self.tr("All files are there, beside their place.")),
            ("Same base", self.tr("Same base"), self.tr("The original is the one that was trained on.")),
            ("Same weights", self.tr("Same weights"), self.tr("Every tensor equals the run's.")),
            ("Tokenizer and chat template", tokenizer, self.tr("Equal to the base's.")),
            ("Licence and card", self.tr("Licence and card"), self.tr("The card says where it comes from.")),
            ("Reopened by peft", self.tr("Reopened by peft"), self.tr("Plain transformers and peft load it.")),
            ("Same answers", self.tr("Same answers"), answers),
        )

    def _show_checks(self) -> None:
        exporter = self.exporter
        done = {check.name: check for check in exporter.checks}
        items, running = [], exporter.status == "running"
        for name, title, about in self._expected():
            check = done.pop(name, None)
            status: CheckStatus = "waiting"
            text = about
            if check is not None:
                status, text = ("ok" if check.passed else "bad"), check.detail
            elif running:
                status, running = "running", False
                text = exporter.stage or about
            items.append(CheckItem(file_name(name), status, title, text))
        items += [
            CheckItem(file_name(check.name), "ok" if check.passed else "bad", check.name, check.detail)
            for check in done.values()
        ]
        self.checks.set_items(items)
        self._fit_checks()
        self._show_verdict()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_checks()

    def _fit_checks(self) -> None:
        """Give the list the height of its lines as they wrap at this width, and no more."""
        self.checks.setMinimumHeight(max(1, self.checks.heightForWidth(self.checks.width())))

    def _show_verdict(self) -> None:
        exporter = self.exporter
        self.when.setText("")
        match exporter.status:
            case "idle":
                self.badge.set_badge(self.tr("Not saved yet"), "neutral")
                self.verdict.setText(self.tr("It will be read back and compared"))
                self.verdict_text.setText(self.tr("If one check fails, nothing is saved."))
            case "running":
                self.badge.set_badge(self.tr("Checking"), "neutral")
                self.verdict.setText(self.tr("Saving and reading back"))
                self.verdict_text.setText(self.tr("It takes its place only when every check has passed."))
            case "done":
                self.badge.set_badge(self.tr("Checked"), "ok")
                took = words.duration(exporter.seconds)
                self.when.setText(self.tr("{0}, took {1}").format(words.clock(self._ended_at), took))
                self.verdict.setText(method_words.is_yours(self.method))
                self.verdict_text.setText(self.tr("Every check passed. Had one failed, nothing would be saved."))
            case "failed":
                self.badge.set_badge(self.tr("Not saved"), "bad")
                self.verdict.setText(method_words.not_saved(self.method))
                self.verdict_text.setText(self.tr("What was written so far is removed."))
        exported = exporter.exported if exporter.status == "done" else None
        self.hash_box.setVisible(exported is not None)
        self.hash.setText(short_hash(exported.sha256) if exported else "")
        self.hash.setToolTip(exported.sha256 if exported else "")

    def _show_problems(self) -> None:
        problems = self.exporter.problems if self.exporter.status == "failed" else ()
        self.problems.set_problems([problem_item(item, self._actions(item)) for item in problems])

    def _actions(self, problem: Problem) -> tuple[tuple[str, str], ...]:
        other = ("choose", self.tr("Choose another folder"))
        retry = ("retry", self.tr("Try again"))
        if problem.code == "export.not_empty" and _is_export(Path(self.exporter.target)):
            return (("replace", self.tr("Replace it")), other)
        if problem.code == "disk.full":
            return (retry, other)
        return (other,) if problem.code.startswith(("export.", "disk.")) else (retry,)

    def _show_footer(self, ready: bool) -> None:
        status = self.exporter.status
        self.again_button.setVisible(ready and status == "done")
        self.cancel_button.setVisible(ready and status == "running")
        self.footer.next_button.set_busy(ready and status == "running")
        if ready and status == "done":
            self.footer.set_next(self.tr("Show in folder"), icon_name="folder", trailing="")
        elif ready and status == "running":
            self.footer.set_next(self.tr("Saving"), enabled=False, trailing="")
        else:
            kind = "primary" if ready else "plain"
            self.footer.set_next(
                method_words.save(self.method),
                enabled=ready,
                kind=kind,  # type: ignore[arg-type]
                icon_name="download",
                trailing="",
            )

    def _on_export(self) -> None:
        exported = self.exporter.exported
        if self.exporter.status == "done" and exported is not None:
            self._ended_at = self._ended_at or time.time()
            if self.session.project.exported != exported.path:
                self.session.mark_exported(exported.path)
        else:
            self._ended_at = 0.0
        self.refresh_if_visible()

    # Acting.

    def on_next(self) -> None:
        if self.exporter.status == "done" and self.exporter.exported:
            QDesktopServices.openUrl(QUrl.fromLocalFile(self.exporter.exported.path))
            return
        self.save()

    def save(self, *, replace: bool = False) -> None:
        """Save the adapter to the place that is named."""
        run = self.session.run
        if run is not None and self.place.text().strip():
            target = Path(self.place.text().strip()).expanduser()
            self.exporter.start(run.path, target, replace=replace)

    def _save_again(self) -> None:
        self.exporter.reset()
        self.place.setFocus(Qt.FocusReason.OtherFocusReason)

    def _on_action(self, index: int, key: str) -> None:  # noqa: ARG002
        match key:
            case "replace":
                self.save(replace=True)
            case "choose":
                self._choose_place()
            case "retry":
                self.save()

    def _choose_place(self) -> None:
        now = Path(self.place.text() or ".").expanduser()
        chosen = QFileDialog.getExistingDirectory(self, self.tr("Folder that takes the result"), str(now.parent))
        if chosen:
            self.place.setText(str(Path(chosen) / now.name))
            self.session.change_settings(export_folder=chosen)

    def _copy_hash(self) -> None:
        if self.exporter.exported:
            QGuiApplication.clipboard().setText(self.exporter.exported.sha256)

    def _copy_report(self) -> None:
        QGuiApplication.clipboard().setText(self.report())

    def report(self) -> str:
        """The checks and the result as text."""
        lines = [f"{'✓' if check.passed else '✗'} {check.name}: {check.detail}" for check in self.exporter.checks]
        exported = self.exporter.exported
        if exported:
            lines += [f"{exported.path}, {words.file_size(exported.bytes)}", f"SHA-256 {exported.sha256}"]
        return "\n".join(lines)


def short_hash(sha256: str) -> str:
    """``9f2c 81d0 … 6be7 41ab``."""
    return f"{sha256[:4]} {sha256[4:8]} … {sha256[-8:-4]} {sha256[-4:]}"


def _is_export(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()
