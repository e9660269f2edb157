"""The fifth step: before the start, while it trains, and how it ended."""

from __future__ import annotations

from PySide6.QtWidgets import QSizePolicy, QStackedWidget

from tunedesk.core.methods import method
from tunedesk.core.problems import Problem
from tunedesk.core.project import StepKey, blockers
from tunedesk.core.state import RunState
from tunedesk.gui import method_words, words
from tunedesk.gui.pages._train_ready import ReadyPanel
from tunedesk.gui.pages._train_run import RunPanel
from tunedesk.gui.pages.base import Page
from tunedesk.gui.rail_lines import adapter_step, has_adapter
from tunedesk.gui.runs_list import run_name
from tunedesk.gui.session import Session
from tunedesk.gui.widgets import Button, ButtonKind, ProblemItem, Toast
from tunedesk.gui.words import problem_item

READY, RUN = 0, 1


class TrainPage(Page):
    """Start, watch and steer one run."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, "train", "")
        self._stopping = False
        self._saving_after: int | None = None
        self.ready = ReadyPanel(session)
        self.run = RunPanel(session.settings.loss_view)
        self.stack = QStackedWidget()
        self.stack.setObjectName("panels")
        self.stack.addWidget(self.ready)
        self.stack.addWidget(self.run)
        self.body.addWidget(self.stack, 1)
        self._build_actions()
        self.run.loss.view_chosen.connect(lambda view: session.change_settings(loss_view=view))
        self.run.loss.saved.connect(self._tell_saved)
        self.run.loss.not_saved.connect(self._tell_not_saved)
        self.run.log.full_log_asked.connect(self.show_log)
        self.problems.action_chosen.connect(self._on_action)
        session.run_changed.connect(self._on_run_changed)
        session.state_changed.connect(self.refresh_if_visible)

    def _build_actions(self) -> None:
        self.save_button = Button(self.tr("Save now"), icon_name="download")
        self.save_button.setObjectName("saveNow")
        self.save_button.clicked.connect(self._save_now)
        self.stop_button = Button(self.tr("Stop and keep best"), icon_name="stop")
        self.stop_button.setObjectName("stop")
        self.stop_button.clicked.connect(self._stop)
        self.again_button = Button(self.tr("New run"), icon_name="plus")
        self.again_button.setObjectName("newRunHere")
        self.again_button.setToolTip(self.tr("Keeps the choices and leaves this run as it is."))
        self.again_button.clicked.connect(self.session.new_run)
        for button in (self.save_button, self.stop_button, self.again_button):
            button.setAccessibleName(button.text())
            self.header.add_action(button)

    # Showing.

    def refresh(self) -> None:
        state = self.session.project.run
        if state is None or state.status == "new":
            self._show_ready()
        else:
            self._show_run(state)

    def _on_run_changed(self) -> None:
        self._stopping = False
        self._saving_after = None
        if self.session.run is None:
            self.ready.ask_names()
        self.refresh_if_visible()

    def showEvent(self, event: object) -> None:
        if self.session.run is None:
            self.ready.ask_names()
        super().showEvent(event)  # type: ignore[arg-type]

    def _show_ready(self) -> None:
        project = self.session.project
        self._show_part(READY)
        self.header.set_title(self.tr("Train"))
        for button in (self.save_button, self.stop_button, self.again_button):
            button.hide()
        self.ready.refresh(project)
        waiting = self.session.model_activity or self.session.data_activity
        stops = () if waiting else blockers(project)
        self.problems.set_problems([*map(self._blocker_item, stops), *self._memory_items(bool(stops))])
        sentence = self.tr("Everything is settled. One button starts it.")
        if waiting:
            sentence = self.tr("{0}. Start is ready in a moment.").format(waiting)
        elif stops:
            sentence = self.tr("Something is to be settled first.")
        self.header.set_subtitle(sentence)
        self.footer.set_back(self.tr("Back: Fit"))
        self.footer.set_hint("")
        can_start = not waiting and not stops
        self.footer.set_next(self.tr("Start training"), enabled=can_start, icon_name="play", trailing="")

    def _blocker_item(self, problem: Problem) -> ProblemItem:
        key, text = self._place_of(problem)
        return problem_item(problem, ((key, text),))

    def _place_of(self, problem: Problem) -> tuple[StepKey, str]:
        if problem in self.session.project.data_problems or problem.code.startswith("data."):
            return "data", self.tr("Go to Data")
        return "model", self.tr("Go to Model")

    def _memory_items(self, stopped: bool) -> list[ProblemItem]:
        plan = self.session.project.plan
        if plan is None or plan.fits or stopped:
            return []
        needs, free = words.gib(plan.asked.peak_bytes), words.gib(plan.device.free_bytes)
        headline = self.tr("Needs {0}, and {1} is free.").format(needs, free)
        text = self.tr("It may run out of memory and end. Fit suggests what to change.")
        return [ProblemItem("warn", headline, text, (("fit", self.tr("Settle the memory")),))]

    def _show_run(self, state: RunState) -> None:
        self._show_part(RUN)
        self.header.set_title(self.tr("Training"))
        self.header.set_subtitle(self._about(state))
        failed = state.status == "failed"
        self.run.progress.setVisible(not failed)
        self.problems.set_problems(self._failure_items(state) if failed else [])
        self.run.show_state(state, self.session.project.plan, self.session.project.data)
        self._show_actions(state)
        self._show_footer(state)

    def _about(self, state: RunState) -> str:
        spec = self.session.project.spec
        model = self.session.project.model
        name = model.name if model else spec.model.source
        begin = self.tr("{0}. {1} on {2}").format(run_name(spec), method(spec.method.name).title, name)
        if state.began is None:
            return f"{begin}."
        trained, whole = words.large(state.began.trainable_parameters), words.large(state.began.total_parameters)
        if spec.task.kind == "classification":
            return self.tr("{0} and a new output layer, {1} of {2} weights.").format(begin, trained, whole)
        return self.tr("{0}, {1} of {2} weights.").format(begin, trained, whole)

    def _show_actions(self, state: RunState) -> None:
        self.stop_button.setVisible(not state.ended)
        self.save_button.setVisible(not state.ended)
        self.again_button.setVisible(state.ended)
        self._stopping = self._stopping and not state.ended
        stopping = self.tr("Stopping after this step") if self._stopping else self.tr("Stop and keep best")
        self._set_button(self.stop_button, stopping, enabled=not self._stopping)
        saved = state.checkpoint.step if state.checkpoint else 0
        if state.ended or (self._saving_after is not None and saved > self._saving_after):
            self._saving_after = None
        saving = self._saving_after is not None
        can_save = state.status == "running" and not self.session.following and not saving and not self._stopping
        self._set_button(
            self.save_button, self.tr("Saving after this step") if saving else self.tr("Save now"), enabled=can_save
        )
        tip = self.tr("Only the window that started a run can ask it to save.") if self.session.following else ""
        self.save_button.setToolTip(tip)

    @staticmethod
    def _set_button(button: Button, text: str, *, enabled: bool) -> None:
        if button.text() != text:
            button.setText(text)
            button.setAccessibleName(text)
            button.updateGeometry()
        if button.isEnabled() != enabled:
            button.setEnabled(enabled)

    def _show_footer(self, state: RunState) -> None:
        if state.ended:
            self.footer.set_back(self.tr("Back: Fit"))
            name = self.session.project.spec.method.name
            self.footer.set_hint("" if has_adapter(state) else method_words.nothing_yet(name))
            kind: ButtonKind = "plain" if state.status == "failed" else "primary"
            self.footer.set_next(self.tr("Next: Try"), enabled=has_adapter(state), kind=kind)
            return
        self.footer.set_back("")
        hint = self.tr("Runs on its own. You may close this window; training goes on and nothing is lost.")
        if self._stopping:
            hint = self.tr("Stopping after this step. The best so far is kept.")
        self.footer.set_hint(hint, "download")
        self.footer.set_next(self.tr("Next: Try"), enabled=False, kind="plain")

    def _failure_items(self, state: RunState) -> list[ProblemItem]:
        actions: list[tuple[str, str]] = []
        if state.checkpoint is not None:
            step = words.count(state.checkpoint.step)
            actions.append(("resume", self.tr("Resume from step {0}").format(step)))
        kept = adapter_step(state)
        if kept is not None:
            actions.append(("try", method_words.try_step(self.session.project.spec.method.name, words.count(kept))))
        if state.checkpoint is None:
            actions.append(("again", self.tr("Start anew")))
        actions.append(("log", self.tr("Open log")))
        aside = self._where_it_ended(state)
        first, *rest = state.problems or (Problem(code="run.failed", what=self.tr("Training broke off.")),)
        return [problem_item(first, tuple(actions), aside=aside), *(problem_item(item) for item in rest)]

    def _where_it_ended(self, state: RunState) -> str:
        if not state.began or not state.step:
            return ""
        done, total = words.count(state.step), words.count(state.began.total_steps)
        return self.tr("Step {0} of {1}").format(done, total)

    # Acting.

    def on_next(self) -> None:
        state = self.session.project.run
        if state is None or state.status == "new":
            self.session.start_run(self.ready.run_name())
            return
        super().on_next()

    def _stop(self) -> None:
        self._stopping = True
        self.session.stop_run()
        self.refresh()

    def _save_now(self) -> None:
        state = self.session.project.run
        self._saving_after = state.checkpoint.step if state and state.checkpoint else 0
        self.session.save_now()
        self.refresh()

    def _on_action(self, index: int, key: str) -> None:  # noqa: ARG002
        match key:
            case "resume":
                self.session.resume_run()
            case "again":
                self.session.new_run()
            case "log":
                self.show_log()
            case _:
                self.go.emit(key)

    def show_log(self) -> None:
        """Open the engine's own log of this run."""
        if self.session.run is None:
            return
        from tunedesk.gui.dialogs.log import LogDialog

        LogDialog(self.session.run.log_file, parent=self.window()).open()

    def _tell_saved(self, path: str) -> None:
        Toast.show_in(self.window(), self.tr("Saved {0}").format(path))

    def _tell_not_saved(self, error: OSError) -> None:
        text = self.tr("The chart was not saved: {0}.").format(error.strerror or str(error))
        Toast.show_in(self.window(), text, kind="bad")

    def _show_part(self, part: int) -> None:
        """Show one part of the stack, which takes no more room than that part needs."""
        for place, widget in ((READY, self.ready), (RUN, self.run)):
            down = QSizePolicy.Policy.Preferred if place == part else QSizePolicy.Policy.Ignored
            widget.setSizePolicy(QSizePolicy.Policy.Preferred, down)
        self.stack.setCurrentIndex(part)
