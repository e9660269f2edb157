"""The sixth step: the same words to the original and to the tuned model, answers side by side."""

from __future__ import annotations

from typing import cast

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QHideEvent, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from tunedesk.core.events import Side
from tunedesk.core.project import busy
from tunedesk.gui.adapter_library import AdapterLibrary
from tunedesk.gui.chatting import ChatSession, Voice
from tunedesk.gui.pages._try_adapters import AdapterPicker
from tunedesk.gui.pages._try_labels import LabelPanel
from tunedesk.gui.pages._try_parts import (
    ROOM,
    SIDES,
    Composer,
    HeadCard,
    Mode,
    TurnView,
)
from tunedesk.gui.pages._try_sampling import SamplingBar
from tunedesk.gui.pages._try_suggestions import SuggestionsCard
from tunedesk.gui.pages.base import Page
from tunedesk.gui.rail_lines import best_right, best_told, has_adapter
from tunedesk.gui.runs_list import run_name
from tunedesk.gui.session import Session
from tunedesk.gui.theme import MEASURES, Theme
from tunedesk.gui.widgets import Button, Card, EmptyState, Label, Rule, Segmented, Skeleton, SlimProgress
from tunedesk.gui.words import problem_item

EMPTY, LOADING, TALK, LABEL = range(4)


class TryPage(Page):
    """Talk to the base, to the tuned model, or to both at once; a classifier labels texts in place of a talk."""

    def __init__(self, session: Session, chat: ChatSession, library: AdapterLibrary | None = None) -> None:
        """Without `library` the page reads the adapters of the user by itself."""
        super().__init__(session, "try", "")
        self.chat = chat
        self.library = library or AdapterLibrary(session, self)
        self.mode: Mode = "both"
        self._turns: list[TurnView] = []
        self._bottom = 0
        self.header.set_title(self.tr("Try"))
        self._build_actions()
        self._build_frame()
        self._connect()
        self.footer.set_back(self.tr("Back: Train"))
        self._show_turns()

    # Building.

    def _build_actions(self) -> None:
        options = (
            ("both", self.tr("Side by side")),
            ("tuned", self.tr("Tuned only")),
            ("base", self.tr("Original only")),
        )
        self.modes = Segmented(options, "both", name=self.tr("Who answers"), compact=False)
        self.modes.setObjectName("whoAnswers")
        self.new_button = Button(self.tr("New chat"), icon_name="plus")
        self.new_button.setObjectName("newChat")
        self.new_button.setAccessibleName(self.new_button.text())
        self.adapters_button = Button(self.tr("Adapters"), icon_name="layers")
        self.adapters_button.setObjectName("adapters")
        self.adapters_button.setAccessibleName(self.tr("Manage adapters"))
        self.header.add_action(self.modes)
        self.header.add_action(self.adapters_button)
        self.header.add_action(self.new_button)

    def _build_frame(self) -> None:
        self.heads = {side: HeadCard(side) for side in SIDES}
        self.picker = AdapterPicker(self.session, self.chat, self.library, self.heads["tuned"].what, page=self)
        self.heads["tuned"].put(self.picker.button)
        self.heads_row = QWidget()
        self.heads_row.setObjectName("heads")
        row = QHBoxLayout(self.heads_row)
        row.setContentsMargins(MEASURES.margin, 0, MEASURES.margin, 12)
        row.setSpacing(16)
        for head in self.heads.values():
            row.addWidget(head, 1)
        self.stack = QStackedWidget()
        self.stack.setObjectName("states")
        self.stack.addWidget(self._build_empty())
        self.stack.addWidget(self._build_loading())
        self.stack.addWidget(self._build_talk())
        self.labelling = LabelPanel(self.chat)
        self.stack.addWidget(self.labelling)
        self.body.addWidget(self.stack, 1)
        self.composer_row = QWidget()
        row = QHBoxLayout(self.composer_row)
        row.setContentsMargins(MEASURES.margin, 12, MEASURES.margin, MEASURES.gap)
        row.addWidget(self._build_composer())
        whole = cast(QVBoxLayout, self.layout())
        whole.insertWidget(1, self.heads_row)
        whole.insertWidget(3, self.composer_row)
        self.scroll_area.verticalScrollBar().rangeChanged.connect(self._on_range)

    def _build_empty(self) -> QWidget:
        self.empty = EmptyState("message", "", title=self.tr("Nothing is tuned yet"))
        self.empty.setObjectName("emptyTry")
        self.train_button = Button(self.tr("Go to Train"), "primary")
        self.train_button.setObjectName("goTrain")
        self.train_button.clicked.connect(lambda: self.go.emit("train"))
        self.base_button = Button(self.tr("Talk to the original"))
        self.base_button.setObjectName("tryBase")
        self.base_button.clicked.connect(self._open_base)
        self.adapter_button = Button(self.tr("Try an adapter"), trailing="chevron-down")
        self.adapter_button.setObjectName("tryAdapter")
        self.adapter_button.clicked.connect(lambda: self.picker.open_at(self.adapter_button))
        self.empty.add_button(self.train_button)
        self.empty.add_button(self.base_button)
        self.empty.add_button(self.adapter_button)
        return self.empty

    def _build_loading(self) -> QWidget:
        whole = QWidget()
        column = QVBoxLayout(whole)
        column.setContentsMargins(0, 0, 0, 0)
        card = Card()
        self.stage = Label("", "strong")
        self.stage.setObjectName("stage")
        self.stage_bar = SlimProgress()
        self.stage_bar.setObjectName("stageBar")
        self.stage_bar.setAccessibleName(self.tr("Loading"))
        card.add(self.stage)
        card.add(self.stage_bar)
        card.add(Skeleton(3))
        column.addWidget(card)
        column.addStretch(1)
        return whole

    def _build_talk(self) -> QWidget:
        whole = QWidget()
        self.talk = QVBoxLayout(whole)
        self.talk.setContentsMargins(0, 0, 0, 0)
        self.talk.setSpacing(12)
        self.suggestions = SuggestionsCard()
        self.suggestions.asked.connect(self._ask)
        self.talk.addWidget(self.suggestions)
        self.talk.addStretch(1)
        return whole

    def _build_composer(self) -> Card:
        card = Card(padded=False)
        card.setObjectName("composerCard")
        self.composer = Composer()
        self.send_button = Button(self.tr("Send"), icon_name="send")
        self.send_button.setObjectName("send")
        self.stop_button = Button(self.tr("Stop"), icon_name="stop")
        self.stop_button.setObjectName("stopAnswer")
        for button in (self.send_button, self.stop_button):
            button.setAccessibleName(button.text())
            button.setMinimumWidth(Theme.of().px(84))
        self.stop_button.hide()
        top = QHBoxLayout()
        top.setContentsMargins(15 - ROOM, 9, 9, 4)
        top.setSpacing(12)
        top.addWidget(self.composer, 1, Qt.AlignmentFlag.AlignVCenter)
        top.addWidget(self.send_button, 0, Qt.AlignmentFlag.AlignTop)
        top.addWidget(self.stop_button, 0, Qt.AlignmentFlag.AlignTop)
        rule = QVBoxLayout()
        rule.setContentsMargins(15, 0, 9, 0)
        rule.addWidget(Rule())
        card.body.setSpacing(4)
        card.add_layout(top)
        card.add_layout(rule)
        settings = self.session.settings
        self.bar = SamplingBar(settings.sampling, settings.system_prompt, popups_in=self)
        self.bar.closed.connect(self._keep_settings)
        card.add(self.bar)
        return card

    def _connect(self) -> None:
        self.modes.chosen.connect(self._choose_mode)
        self.new_button.clicked.connect(self._new_chat)
        self.adapters_button.clicked.connect(self.picker.manage)
        self.library.changed.connect(self.refresh_if_visible)
        self.composer.sent.connect(self.send)
        self.composer.textChanged.connect(self._show_buttons)
        self.send_button.clicked.connect(self.send)
        self.stop_button.clicked.connect(self.chat.stop)
        self.chat.status_changed.connect(self.refresh_if_visible)
        self.chat.turns_changed.connect(self._show_turns)
        self.chat.answer_changed.connect(self._on_answer)
        self.problems.action_chosen.connect(self._on_action)
        self.session.run_changed.connect(self.refresh_if_visible)

    # Showing.

    def showEvent(self, event: QShowEvent) -> None:
        self._open_run()
        super().showEvent(event)
        if self.chat.status != "idle":
            self._entry.setFocus()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._keep_settings()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.bar.seed_note.setVisible(self.width() >= Theme.of().px(900))

    def refresh(self) -> None:
        if self.chat.status == "idle":
            self._open_run()
        ready = LABEL if self.labels else TALK
        place = {"idle": EMPTY, "loading": LOADING, "failed": EMPTY}.get(self.chat.status, ready)
        if self.stack.currentIndex() != place:
            self.stack.setCurrentIndex(place)
            if place in (TALK, LABEL):
                self._take_focus()
        self._show_frame(loaded=place != EMPTY)
        self._show_empty()
        self._show_stage()
        self._show_sides()
        self._show_suggestions()
        self._show_buttons()
        self._show_problems()
        self._show_footer()

    def _take_focus(self) -> None:
        """Go to the field, which was hidden until now, unless someone is elsewhere in the window."""
        focused = QApplication.focusWidget()
        if focused is None or not focused.isVisible() or self.isAncestorOf(focused):
            self._entry.setFocus()

    @property
    def labels(self) -> bool:
        """Whether the model gives labels: it says so once it is loaded, before that the task does."""
        if self.chat.status in ("ready", "answering"):
            return self.chat.gives_labels
        return self.session.project.spec.task.kind == "classification"

    @property
    def _in_pairs(self) -> bool:
        """Whether the data holds two texts in a row, of which only one can be tried."""
        data = self.session.project.data
        return data is not None and "text_pair" in data.columns

    @property
    def _entry(self) -> Composer:
        return self.labelling.field if self.labels else self.composer

    def _show_frame(self, *, loaded: bool) -> None:
        """What stands around the middle. There is no base beside a classifier, and nothing to sample."""
        talking = loaded and not self.labels
        self.chat.alone = self.turns_texts
        self.bar.prompt_button.setVisible(not self.turns_texts)
        self.heads_row.setVisible(loaded)
        self.composer_row.setVisible(talking)
        self.modes.setVisible(talking)
        self.new_button.setVisible(loaded)
        self.adapters_button.setVisible(not (loaded and self.picker.has_button))
        if self.labels:
            self.header.set_subtitle(self._label_subtitle())
            self._set_new_button(self.tr("Clear"), "trash")
            self.labelling.show_data(self.session.project.data, () if self._in_pairs else self.session.examples)
        elif self.turns_texts:
            self.header.set_subtitle(self.tr("The same text to both models; each text stands alone."))
            self._set_new_button(self.tr("Clear"), "trash")
        else:
            self.header.set_subtitle(self.tr("The same words to both models, with the same seed."))
            self._set_new_button(self.tr("New chat"), "plus")

    @property
    def turns_texts(self) -> bool:
        """Whether the model turns one text into another, so that there is no conversation."""
        model = self.session.project.model
        return model.kind == "seq2seq" if model else self.session.project.spec.task.kind == "seq2seq"

    def _label_subtitle(self) -> str:
        return {
            "regression": self.tr("A text goes in, and a number comes out."),
            "multi_label": self.tr("A text goes in; every label that is likelier than not comes out."),
            "single_label": self.tr("A text goes in, and every label comes out with how likely it is."),
        }[self.labelling.gives]

    def _set_new_button(self, text: str, icon_name: str) -> None:
        if self.new_button.text() != text:
            self.new_button.setText(text)
            self.new_button.setAccessibleName(text)
            self.new_button.set_icon_name(icon_name)

    def _show_empty(self) -> None:
        run = self.session.project.run
        loadable = self.session.project.model is not None
        if self.labels:
            title, text = self._labels_empty(busy(run))
        elif busy(run):
            title = self.tr("The run is still training")
            text = self.tr("Training uses the memory now. When it has ended, both models answer here, side by side.")
        else:
            title = self.tr("Nothing is tuned yet")
            text = self.tr(
                "After training, the same words go to the original and to the tuned model, side by side. "
                "The original alone answers already."
            )
        if self.chat.status == "failed":
            title, text = self.tr("The model is not loaded"), self.tr("What stands above has to be settled first.")
        self.empty.set_text(text, title)
        self.train_button.setVisible(self.chat.status != "failed")
        self.base_button.setVisible(not busy(run) and loadable and not has_adapter(run) and not self.labels)
        self.adapter_button.setVisible(self.picker.can_load())

    def _labels_empty(self, training: bool) -> tuple[str, str]:
        if training:
            text = self.tr("Training uses the memory now. When it has ended, texts get their labels here.")
            return self.tr("The run is still training"), text
        text = self.tr("After training, a text that you write here gets its label, and you see how sure the model is.")
        return self.tr("Nothing is tuned yet"), text

    def _show_stage(self) -> None:
        self.stage.setText(self.chat.stage or self.tr("Loading the model"))
        progress = self.chat.progress
        known = progress is not None and bool(progress.total)
        self.stage_bar.set_value(progress.done / progress.total if known and progress and progress.total else None)

    @property
    def sides(self) -> tuple[Side, ...]:
        """Whose answers are shown."""
        loaded: tuple[Side, ...] = self.chat.ready.sides if self.chat.ready else self._expected_sides()
        wanted: tuple[Side, ...] = SIDES if self.mode == "both" else (self.mode,)
        return tuple(side for side in wanted if side in loaded) or loaded

    def _expected_sides(self) -> tuple[Side, ...]:
        if self.labels:
            return ("tuned",)
        return SIDES if self.chat.target[0] else ("base",)

    def _show_sides(self) -> None:
        run = self.session.project.run
        project = self.session.project
        loaded = self.chat.ready.sides if self.chat.ready else self._expected_sides()
        reason = "" if "tuned" in loaded else self.tr("There is no tuned model yet.")
        for key in ("both", "tuned"):
            self.modes.set_option_enabled(key, "tuned" in loaded, reason)
        self.modes.set_current(self.mode if "tuned" in loaded else "base")
        model = project.model.name if project.model else project.spec.model.source
        self.heads["base"].show_facts(model, run.base_loss if run else None)
        untouched = next((check.metrics for check in run.evaluations if check.step == 0), {}) if run else {}
        if told := best_told(untouched):
            self.heads["base"].show_told(model, told)
        name = self.picker.what()
        if not self.picker.measured:
            self.heads["tuned"].show_name(name)
        elif run and self.labels and (right := best_right(run)):
            self.heads["tuned"].show_right(name, right)
        elif run and run.best and (told := best_told(run.best.metrics)):
            self.heads["tuned"].show_told(name, told)
        else:
            self.heads["tuned"].show_facts(name, run.best.loss if run and run.best else None)
        self.picker.show()
        self.labelling.name_answers(self.picker.several)
        for side, head in self.heads.items():
            head.setVisible(side in self.sides or (side == "tuned" and self.picker.alone))
        for view in self._turns:
            self._show_turn(view)
        self.composer.setPlaceholderText(self._invitation())

    def _invitation(self) -> str:
        if self.turns_texts:
            return self.tr("Write or paste a text. Enter sends it, Shift and Enter starts a new line.")
        if len(self.sides) == 2:
            return self.tr("Ask both. Enter sends, Shift and Enter starts a new line.")
        who = self.tr("the original") if self.sides == ("base",) else self.tr("the tuned model")
        return self.tr("Ask {0}. Enter sends, Shift and Enter starts a new line.").format(who)

    def _show_turn(self, view: TurnView) -> None:
        last = view is self._turns[-1]
        view.show_sides(self.sides, busy=self._is_writing(view), named=self.picker.several)
        view.question.again.setVisible(last)
        view.question.again.setEnabled(last and self.chat.can_ask)

    def _is_writing(self, view: TurnView) -> bool:
        return self.chat.status == "answering" and view is self._turns[-1]

    def _show_suggestions(self) -> None:
        examples = self.session.examples
        some = self.suggestions.show_rows(examples, texts=self.turns_texts, enabled=self.chat.can_ask)
        self.suggestions.setVisible(some and not self.chat.turns)

    def _show_buttons(self) -> None:
        answering = self.chat.status == "answering"
        self.send_button.setVisible(not answering)
        self.stop_button.setVisible(answering)
        self.send_button.setEnabled(self.chat.can_ask and bool(self.composer.toPlainText().strip()))
        self.new_button.setEnabled(bool(self.chat.turns))

    def _show_problems(self) -> None:
        action = (("retry", self.tr("Try again")),) if self.chat.status == "failed" else ()
        self.problems.set_problems([problem_item(problem, action) for problem in self.chat.problems])

    def _show_footer(self) -> None:
        ready = has_adapter(self.session.project.run)
        self.footer.set_next(self.tr("Next: Export"), enabled=ready, kind="primary" if ready else "plain")
        note = ""
        if self.labels:
            note = self.tr("It learned from pairs of texts; one text alone is tried here.") if self._in_pairs else ""
        elif self.chat.ready is not None and not self.chat.ready.has_chat_template and not self.turns_texts:
            note = self.tr("This model has no chat template: it goes on with your text.")
        self.footer.set_hint(note, "info" if note else "")

    # The conversation.

    def _show_turns(self) -> None:
        turns = [] if self.labels else self.chat.turns
        while self._turns and (
            len(self._turns) > len(turns) or self._turns[-1].turn is not turns[len(self._turns) - 1]
        ):
            view = self._turns.pop()
            self.talk.removeWidget(view)
            view.hide()
            view.deleteLater()
        for turn in turns[len(self._turns) :]:
            view = TurnView(turn)
            self._turns.append(view)
            self.talk.insertWidget(self.talk.count() - 1, view)
            view.question.asked_again.connect(self._ask_again)
            QTimer.singleShot(0, self, self._to_end)
        for view in self._turns:
            self._show_turn(view)
        self._show_suggestions()
        self._show_buttons()

    def _on_answer(self, side: str) -> None:
        if self._turns:
            self._show_turn(self._turns[-1])
        answer = self.chat.turns[-1].answers.get(cast(Side, side)) if self.chat.turns else None
        if side == "tuned" and answer and answer.ended and (answer.text or answer.labels) and self.picker.is_own:
            self.session.mark_tried()

    def _on_range(self, low: int, high: int) -> None:  # noqa: ARG002
        bar = self.scroll_area.verticalScrollBar()
        was_at_end = bar.value() >= self._bottom - 8
        self._bottom = high
        if was_at_end and self._turns:
            bar.setValue(high)

    def _to_end(self) -> None:
        bar = self.scroll_area.verticalScrollBar()
        bar.setValue(bar.maximum())

    # Acting.

    def _open_run(self) -> None:
        """Load the run's model when there is one to try; a failed attempt waits for the person."""
        run = self.session.run
        if run is not None and has_adapter(self.session.project.run) and self.chat.status == "idle":
            self.chat.open(str(run.path), None, Voice(None, run_name(self.session.project.spec)))

    def _open_base(self) -> None:
        self.chat.open(None, self.session.project.spec.model.source)

    def _on_action(self, index: int, key: str) -> None:  # noqa: ARG002
        if key == "retry":
            self.chat.open(*self.chat.target, self.chat.voice)

    def _choose_mode(self, mode: str) -> None:
        self.mode = cast(Mode, mode)
        self._show_sides()

    def _new_chat(self) -> None:
        self.chat.new_chat()
        self._entry.setFocus()

    def send(self) -> None:
        """Ask what is written."""
        question = self.composer.toPlainText().strip()
        if question and self.chat.can_ask:
            self.composer.clear()
            self._ask(question)

    def _ask(self, question: str) -> None:
        self._keep_settings()
        self.chat.ask(question, self.sides, self.bar.system_prompt(), self.bar.sampling())
        self.composer.setFocus()

    def _ask_again(self) -> None:
        self._keep_settings()
        self.chat.ask_again(self.sides, self.bar.system_prompt(), self.bar.sampling())
        self.composer.setFocus()

    def _keep_settings(self) -> None:
        settings = self.session.settings
        now = {"sampling": self.bar.sampling(), "system_prompt": self.bar.system_prompt()}
        if (settings.sampling, settings.system_prompt) != tuple(now.values()):
            self.session.change_settings(**now)
