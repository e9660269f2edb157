"""The first step: which model learns."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from PySide6.QtCore import Qt, QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QSizePolicy, QStackedWidget, QVBoxLayout, QWidget

from tunedesk.core import starter
from tunedesk.core.describe import ModelInfo
from tunedesk.core.matching import TASK_WORDS
from tunedesk.core.problems import Problem
from tunedesk.core.project import STARTER_MODEL, model_trouble, step_status
from tunedesk.core.spec import looks_local
from tunedesk.gui import words
from tunedesk.gui.pages._model_starters import CHAT, ENCODER, StarterPanel
from tunedesk.gui.pages._model_words import ModelWords
from tunedesk.gui.pages._parts import FileDrop, SignedList, clear, short_source
from tunedesk.gui.pages.base import Page
from tunedesk.gui.session import Session, file_source
from tunedesk.gui.theme import MEASURES, Theme
from tunedesk.gui.widgets import (
    Button,
    Card,
    ChoiceCard,
    ChoiceGroup,
    ElidedLabel,
    EmptyState,
    Field,
    KeyValueList,
    Label,
    SlimProgress,
    TwoColumns,
)

SourceKind = Literal["starter", "folder", "gguf", "hub"]
RECENT: Final = 4


def source_kind(source: str) -> SourceKind:
    """Which of the four ways a source is."""
    if source.startswith("starter:"):
        return "starter"
    if source.lower().endswith(".gguf"):
        return "gguf"
    if looks_local(source) or ":\\" in source:
        return "folder"
    return "hub"


def hub_id(text: str) -> str:
    """``org/name`` out of what was typed: an id, or the address of a model's page; empty when it is neither."""
    text = text.strip().rstrip("/")
    for head in ("https://", "http://", "www.", "huggingface.co/", "hf.co/"):
        text = text.removeprefix(head)
    parts = text.split("/")
    good = len(parts) >= 2 and all(parts[:2]) and not any(char.isspace() for char in text)
    return "/".join(parts[:2]) if good else ""


def model_title(source: str) -> str:
    """A model's source as it is called in lists."""
    name = source.removeprefix("starter:")
    return starter.STARTERS[name].title if name in starter.STARTERS else short_source(source)


class ModelPage(Page):
    """Four ways to a model, and what is known about the one in use."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, "model", "")
        self.header.set_title(self.tr("Model"))
        self.header.set_subtitle(self.tr("The model that learns. Its own weights stay as they are, on this computer."))
        self._shown_source: tuple[str, str | None] | None = None
        self._last_good: ModelInfo | None = None
        self._words = ModelWords(self)
        self.sources = self._build_sources()
        self.panel = QStackedWidget()
        self.panel.setObjectName("panel")
        self._fill_panel()
        self.body.addWidget(self.sources)
        self.starters = StarterPanel()
        self.starters.chosen.connect(self._use_starter)
        self.body.addWidget(self.starters)
        self.source_card = self._in_card(self.panel)
        self.body.addWidget(self.source_card)
        self.columns = TwoColumns(self._build_facts(), self._build_side(), right_width=312)
        self.body.addWidget(self.columns, 1)
        self._show_panel("starter")
        self.problems.action_chosen.connect(self._on_action)
        drop = FileDrop(self)
        drop.dropped.connect(self.take_path)
        session.settings_changed.connect(self.refresh_if_visible)

    # Building.

    def _build_sources(self) -> ChoiceGroup:
        group = ChoiceGroup(min_width=168)
        group.setObjectName("sources")
        group.setAccessibleName(self.tr("Where the model comes from"))
        group.set_cards(
            [
                ChoiceCard(
                    "starter",
                    self.tr("Starter models"),
                    self.tr("Small and ready to tune: one answers, one gives labels."),
                    left=self.tr("Two models"),
                    right=self.tr("no account"),
                ),
                ChoiceCard(
                    "folder",
                    self.tr("Folder"),
                    self.tr("A model you already have, as safetensors."),
                    left=self.tr("Choose"),
                    right=self.tr("or drop it here"),
                ),
                ChoiceCard(
                    "gguf",
                    self.tr("GGUF file"),
                    self.tr("One file, as llama.cpp and Ollama use it."),
                    left=self.tr("Choose"),
                    right=self.tr("or drop it here"),
                ),
                ChoiceCard(
                    "hub",
                    self.tr("Hugging Face Hub"),
                    self.tr("Fetched once by its name, then it works offline."),
                    left=self.tr("Fetch"),
                    right=self.tr("needs internet"),
                ),
            ]
        )
        group.chosen.connect(self._on_source_card)
        return group

    def _fill_panel(self) -> None:
        self._pages: dict[str, QWidget] = {
            "folder": self._path_panel(
                "folder",
                self.tr("Choose folder"),
                self.tr("The folder holds config.json, a tokenizer and weights as .safetensors. It is only read."),
            ),
            "gguf": self._path_panel(
                "gguf",
                self.tr("Choose file"),
                self.tr("Its packed weights are unpacked once into a copy that can be trained. The file is only read."),
            ),
            "hub": self._hub_panel(),
        }
        for page in self._pages.values():
            self.panel.addWidget(page)
        self.panel.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self.panel.currentChanged.connect(self._fit_panel)
        self._fit_panel()

    def _fit_panel(self) -> None:
        """Only the page that is shown decides how tall the panel is."""
        for page in self._pages.values():
            shown = page is self.panel.currentWidget()
            down = QSizePolicy.Policy.Preferred if shown else QSizePolicy.Policy.Ignored
            page.setSizePolicy(QSizePolicy.Policy.Preferred, down)
        self.panel.adjustSize()

    def _in_card(self, widget: QWidget) -> Card:
        card = Card()
        card.setObjectName("sourceCard")
        card.add(widget)
        card.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        return card

    def _path_panel(self, kind: str, action: str, about: str) -> QWidget:
        panel, row = _panel()
        text = QVBoxLayout()
        text.setSpacing(4)
        text.addStretch(1)
        path = ElidedLabel(self.tr("Nothing chosen yet"), "card", mode=Qt.TextElideMode.ElideMiddle)
        path.setObjectName(f"{kind}Path")
        setattr(self, f"{kind}_path", path)
        text.addWidget(path)
        text.addWidget(Label(about, "secondary", "t2", wrap=True))
        text.addStretch(1)
        row.addLayout(text, 1)
        button = Button(action, "plain", icon_name="folder-open")
        button.setObjectName(f"{kind}Button")
        button.clicked.connect(self._choose_folder if kind == "folder" else self._choose_gguf)
        row.addWidget(button, 0, Qt.AlignmentFlag.AlignVCenter)
        return panel

    def _hub_panel(self) -> QWidget:
        panel, row = _panel()
        self.hub_name = QLineEdit()
        self.hub_name.setObjectName("hubName")
        self.hub_name.setPlaceholderText("org/name")
        self.hub_revision = QLineEdit()
        self.hub_revision.setObjectName("hubRevision")
        self.hub_revision.setPlaceholderText("main")
        self.hub_revision.setMaximumWidth(160)
        name_help = self.tr("Only what training needs is downloaded, into the Hub's own cache.")
        self.hub_field = Field(self.tr("Name on the Hub"), self.hub_name, name_help)
        revision_field = Field(self.tr("Version"), self.hub_revision, self.tr("Branch, tag or commit"))
        revision_field.setMaximumWidth(160)
        self.fetch = Button(self.tr("Fetch"), "plain", icon_name="download")
        self.fetch.setObjectName("fetch")
        self.fetch.clicked.connect(self._fetch)
        self.hub_name.returnPressed.connect(self._fetch)
        self.hub_revision.returnPressed.connect(self._fetch)
        self.hub_name.textEdited.connect(lambda: self.hub_field.set_error(""))
        row.addWidget(self.hub_field, 1, Qt.AlignmentFlag.AlignTop)
        row.addWidget(revision_field, 0, Qt.AlignmentFlag.AlignTop)
        column = QVBoxLayout()
        column.addSpacing(20)
        column.addWidget(self.fetch)
        column.addStretch(1)
        row.addLayout(column)
        return panel

    def _build_facts(self) -> QWidget:
        self.card = Card(" ", right=self._build_progress())
        self.card.setObjectName("factsCard")
        self.facts = KeyValueList()
        self.facts.setObjectName("facts")
        self.card.add(self.facts)
        self.card.body.addStretch(1)
        self.card.add_rule()
        self.task_note = Label("", "secondary", "t2", wrap=True)
        self.task_note.setObjectName("taskNote")
        self.card.add(self.task_note)
        self.empty = EmptyState(
            "box",
            self.tr("Choose where it comes from above, or begin with a starter: one that answers, or one that labels."),
            title=self.tr("No model yet"),
        )
        self.empty.setObjectName("empty")
        for name, text, source, kind in (
            ("emptyStarter", self.tr("Use the starter chat model"), CHAT, "primary"),
            ("emptyEncoder", self.tr("Use the starter encoder"), ENCODER, "plain"),
        ):
            button = Button(text, kind)  # type: ignore[arg-type]
            button.setObjectName(name)
            button.clicked.connect(lambda _=False, source=source: self._use_starter(source))
            self.empty.add_button(button)
        left = QWidget()
        column = QVBoxLayout(left)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.card, 1)
        column.addWidget(self.empty, 1)
        return left

    def _build_progress(self) -> QWidget:
        self.progress_row = QWidget()
        self.progress_row.setObjectName("progressRow")
        self.progress_row.setFixedWidth(Theme.of().px(360))
        row = QHBoxLayout(self.progress_row)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(12)
        column = QVBoxLayout()
        column.setSpacing(0)
        line = QHBoxLayout()
        self.stage = ElidedLabel("", "secondary", "t2")
        self.stage.setObjectName("stage")
        self.amount = Label("", "secondary", "t2")
        self.amount.setObjectName("amount")
        line.addWidget(self.stage, 1)
        line.addWidget(self.amount)
        self.bar = SlimProgress()
        self.bar.setObjectName("bar")
        self.bar.setAccessibleName(self.tr("Progress"))
        column.addLayout(line)
        column.addWidget(self.bar)
        row.addLayout(column, 1)
        self.cancel = Button(self.tr("Cancel"), "plain", compact=True)
        self.cancel.setObjectName("cancel")
        self.cancel.clicked.connect(self.session.cancel_model)
        row.addWidget(self.cancel)
        holder = QWidget()
        holder.setFixedHeight(Theme.of().px(MEASURES.control))
        place = QHBoxLayout(holder)
        place.setContentsMargins(0, 0, 0, 0)
        place.addWidget(self.progress_row)
        return holder

    def _build_side(self) -> QWidget:
        side = QWidget()
        column = QVBoxLayout(side)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(16)
        recent = Card(self.tr("Used before"), padded=True)
        recent.setObjectName("recentCard")
        self._recent = QVBoxLayout()
        self._recent.setSpacing(0)
        self._recent_shown: tuple[str, ...] | None = None
        recent.add_layout(self._recent)
        column.addWidget(recent)
        advice = Card(self.tr("Which one?"))
        notes = SignedList("lightbulb", "t3")
        notes.setObjectName("advice")
        notes.set_texts(
            [
                self.tr("To answer in conversations, take one called instruct or chat."),
                self.tr("To sort texts by mood, topic or intent, take an encoder, such as a BERT."),
                self.tr("To turn one text into another, fetch a T5: google-t5/t5-small or google/flan-t5-small."),
                self.tr("A smaller one learns faster and fits more easily."),
                self.tr("Weights that can carry programs (pickle) are never opened."),
            ]
        )
        advice.add(notes)
        advice.body.addStretch(1)
        column.addWidget(advice, 1)
        return side

    # Acts.

    def _on_source_card(self, kind: str) -> None:
        self._show_panel(kind)
        if kind == "starter" and source_kind(self.session.project.spec.model.source) != "starter":
            self._choose(STARTER_MODEL.get(self.session.project.spec.task.kind, CHAT))
        elif kind == "hub":
            self.hub_field.set_error("")

    def _use_starter(self, source: str) -> None:
        project = self.session.project
        busy_with_it = project.spec.model.source == source and (project.model or self.session.model_activity)
        if not busy_with_it:
            self._choose(source)

    def _choose_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, self.tr("Choose a model folder"), self._start_folder())
        if path:
            self.take_path(path)

    def _choose_gguf(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, self.tr("Choose a GGUF file"), self._start_folder(), self.tr("GGUF models (*.gguf)")
        )
        if path:
            self.take_path(path)

    def take_path(self, path: str) -> None:
        """Take a file or folder of this computer as the model; what it is decides the engine."""
        self._choose(file_source(Path(path)))

    def _fetch(self) -> None:
        name = hub_id(self.hub_name.text())
        if not name:
            self.hub_field.set_error(self.tr("A name has two parts, such as org/name."))
            self.hub_name.setFocus()
            return
        self.hub_name.setText(name)
        self._choose(name, self.hub_revision.text().strip() or None)

    def _choose(self, source: str, revision: str | None = None) -> None:
        self.session.choose_model(source, revision)
        self.refresh()

    def _start_folder(self) -> str:
        source = self.session.project.spec.model.source
        return str(Path(source).parent) if looks_local(source) else str(Path.home())

    def _on_action(self, index: int, key: str) -> None:  # noqa: ARG002
        model = self.session.project.spec.model
        match key:
            case "again":
                self._choose(model.source, model.revision)
            case "back" if self._last_good:
                self._choose(self._last_good.source)
            case "starter":
                self._choose(STARTER_MODEL.get(self.session.project.spec.task.kind, CHAT))
            case "page":
                QDesktopServices.openUrl(QUrl(f"https://huggingface.co/{model.source}"))
            case "chat" | "completion" | "classification" | "seq2seq" | "preference":
                self.session.choose_task(key)
            case _:
                pass

    # Showing.

    def refresh(self) -> None:
        self._show_source()
        self._show_facts()
        self._show_activity()
        self._show_recent()
        self.problems.set_problems(
            [words.problem_item(problem, self._actions(problem)) for problem in model_trouble(self.session.project)]
        )
        self._show_footer()

    def _show_source(self) -> None:
        model = self.session.project.spec.model
        known = bool(self.session.project.model or self.session.model_activity or self.session.project.model_problems)
        if self._shown_source == (model.source, model.revision) or not known:
            return
        self._shown_source = (model.source, model.revision)
        kind = source_kind(model.source)
        self.sources.set_current(kind)
        self._show_panel(kind)
        if kind == "hub":
            self.hub_name.setText(model.source)
            self.hub_revision.setText(model.revision or "")
        elif kind in ("folder", "gguf"):
            path: ElidedLabel = getattr(self, f"{kind}_path")
            path.setText(model.source)

    def _show_panel(self, kind: str) -> None:
        """Under the ways to a model, show what belongs to the chosen one."""
        self.starters.setVisible(kind == "starter")
        self.source_card.setVisible(kind != "starter")
        if kind != "starter":
            self.panel.setCurrentWidget(self._pages[kind])

    def _show_facts(self) -> None:
        project = self.session.project
        if project.model:
            self._last_good = project.model
        empty = not (project.model or self.session.model_activity or project.model_problems)
        self.empty.setVisible(empty)
        self.card.setVisible(not empty)
        self.card.set_title(project.model.name if project.model else model_title(project.spec.model.source))
        self.facts.set_rows(self._words.rows(project.model))
        self.starters.show_use("" if empty else project.spec.model.source, project.model)
        self.task_note.setText(self._words.task_note(project.model, project.spec.task.kind))

    def _show_activity(self) -> None:
        activity, progress = self.session.model_activity, self.session.model_progress
        self.progress_row.setVisible(activity is not None)
        self.fetch.setEnabled(activity is None)
        self.stage.setText(activity or "")
        share: float | None = None
        amount = ""
        if progress and progress.total:
            share = progress.done / progress.total
            if progress.unit == "bytes":
                amount = words.of_size(progress.done, progress.total)
        self.amount.setText(amount)
        self.bar.set_value(share if activity else 0.0)

    def _actions(self, problem: Problem) -> tuple[tuple[str, str], ...]:
        actions: list[tuple[str, str]] = []
        if problem.code == "model.no_template":
            actions.append(("completion", self.tr("Train on plain text")))
        elif problem.code == "model.wrong_kind" and (model := self.session.project.model) and model.tasks:
            actions.append((model.tasks[0], self.tr("Let it {0}").format(TASK_WORDS[model.tasks[0]])))
        elif problem.code == "hub.gated":
            actions.append(("page", self.tr("Open its page")))
        if problem.code.startswith(("hub.", "starter.", "disk.")):
            actions.append(("again", self.tr("Try again")))
        good, source = self._last_good, self.session.project.spec.model.source
        if good and good.source != source:
            actions.append(("back", self.tr("Back to %1").replace("%1", good.name)))
        elif source not in (CHAT, ENCODER):
            actions.append(("starter", self.tr("Use the starter model")))
        return tuple(actions)

    def _show_recent(self) -> None:
        recent = self.session.settings.recent_models[:RECENT]
        if recent == self._recent_shown:
            return
        self._recent_shown = recent
        clear(self._recent)
        if not recent:
            note = self.tr("Models that you have used will wait here.")
            self._recent.addWidget(Label(note, "secondary", "t2", wrap=True))
        for index, source in enumerate(recent):
            self._recent.addWidget(self._recent_button(index, source))

    def _recent_button(self, index: int, source: str) -> Button:
        button = Button(model_title(source), "quiet", compact=True, icon_name=_ICONS[source_kind(source)])
        button.setObjectName(f"recent_{index}")
        button.setProperty("leftAligned", True)
        button.setToolTip(source)
        button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        button.clicked.connect(lambda: self._choose(source))
        return button

    def _show_footer(self) -> None:
        project = self.session.project
        settled = step_status(project, "model") == "settled"
        self.footer.set_next(self.tr("Next: Data"), enabled=settled, kind="primary" if settled else "plain")
        if self.session.model_activity:
            hint = self.tr("Wait until it is read")
        elif settled:
            hint = self.tr("Nothing leaves this computer.")
        elif model_trouble(project):
            hint = self.tr("This model cannot be used as it is")
        else:
            hint = self.tr("Choose a model first")
        self.footer.set_hint(hint)


_ICONS: Final[dict[SourceKind, str]] = {"starter": "star", "folder": "folder", "gguf": "file", "hub": "globe"}


def _panel() -> tuple[QWidget, QHBoxLayout]:
    panel = QWidget()
    row = QHBoxLayout(panel)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(16)
    return panel, row
