"""What the window works on: the choices, what is known about them, and the run. Pages take it and subscribe.

The session knows no page. It starts engine jobs through workers and keeps the newest answers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import QObject, QTimer, Signal

from tunedesk.core.client import EngineProcess, RunFollower
from tunedesk.core.describe import RenderedRow, TaskKind
from tunedesk.core.events import (
    DataDescribed,
    Event,
    Finished,
    InspectData,
    InspectModel,
    ModelDescribed,
    Progress,
    SaveNow,
    Stage,
    Stop,
    Train,
)
from tunedesk.core.hardware import Hardware, choose_device, read_hardware
from tunedesk.core.matching import unfit, unfit_task
from tunedesk.core.paths import cache_dir, runs_dir
from tunedesk.core.plan import make_plan
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.core.project import Project, busy, rows_of, suited_task, unfit_data, with_task
from tunedesk.core.runs import RunFolder, create_run, open_run
from tunedesk.core.settings import Settings, save_settings
from tunedesk.core.spec import MethodSection, ModelSection, RunSpec, TrainingSection, check_method
from tunedesk.core.state import RunState
from tunedesk.gui.method_values import with_changes
from tunedesk.gui.worker import Background, EngineWorker, TrainingWorker, WorkerThread

HARDWARE_EVERY_MS = 2000
RECENT = 8
"""How many models and files are remembered."""


class Session(QObject):
    """The state behind every page; see each signal for what changed."""

    project_changed = Signal()
    """A choice, a description, the plan or the problems changed."""
    hardware_changed = Signal()
    """A new reading of memory."""
    activity_changed = Signal()
    """An inspection started, moved on or ended: see `model_activity` and `data_activity`."""
    run_changed = Signal()
    """Another run is shown."""
    state_changed = Signal()
    """The shown run moved on, at about 10 Hz."""
    runs_changed = Signal()
    """The list of runs changed."""
    settings_changed = Signal()
    failed = Signal(tuple)
    """Problems that belong to no page."""

    def __init__(self, settings: Settings, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.settings = settings
        self.project = Project()
        self.examples: tuple[RenderedRow, ...] = ()
        self.hardware: Hardware | None = None
        self.device_choice = "auto"
        self.run: RunFolder | None = None
        self.model_activity: str | None = None
        self.model_progress: Progress | None = None
        self.data_activity: str | None = None
        self.following = False
        self.answers: dict[str, object] = {}
        """What was answered to the recommender beside what the project tells."""
        self.dropped_method: Problem | None = None
        """Why the method that was chosen had to give way to another when the model or the task changed."""
        self.background = Background(self)
        self._reading_hardware = False
        self._unclear: tuple[Problem, ...] = ()
        self._task_chosen = False
        self._settings_of: dict[str, MethodSection] = {}
        self._workers: dict[str, WorkerThread] = {}
        self._leaving: set[WorkerThread] = set()
        self._timer = QTimer(self, interval=HARDWARE_EVERY_MS)
        self._timer.timeout.connect(self._ask_hardware)

    # Hardware and settings.

    def watch_hardware(self) -> None:
        """Read memory now and every two seconds, off the GUI thread: a driver may take its time."""
        self._ask_hardware()
        self._timer.start()

    def read_hardware(self) -> None:
        """Read memory once, at once. Free memory alone does not change a plan while a run is using it."""
        self._take_hardware(read_hardware(runs_dir()))

    def _ask_hardware(self) -> None:
        if not self._reading_hardware:
            self._reading_hardware = True
            self.background.run(lambda: read_hardware(runs_dir()), self._take_hardware)

    def _take_hardware(self, hardware: Hardware) -> None:
        self._reading_hardware = False
        first = self.hardware is None
        self.hardware = hardware
        self.hardware_changed.emit()
        if first:
            self.replan()

    def change_settings(self, **changes: object) -> None:
        """Change and save settings; a disk that refuses is reported, the change holds for this session."""
        self.settings = self.settings.model_copy(update=changes)
        try:
            save_settings(self.settings)
        except OSError as error:
            self.failed.emit(
                (Problem(code="settings.unsaved", what="The settings could not be saved.", found=str(error)),)
            )
        self.settings_changed.emit()

    # Choices.

    def choose_model(self, source: str, revision: str | None = None) -> None:
        """Take `source` as the model and have it described; it is fetched when it is not here yet."""
        section = ModelSection(source=source, revision=revision)
        self._update(
            spec=self.project.spec.model_copy(update={"model": section}), model=None, model_problems=(), plan=None
        )
        self.model_activity, self.model_progress = self.tr("Reading the model"), None
        self.activity_changed.emit()
        self._start("model", InspectModel(source=source, revision=revision), self._on_model_events)

    def cancel_model(self) -> None:
        """Give up the inspection or download of the model."""
        self._drop("model")
        self.model_activity = self.model_progress = None
        self.activity_changed.emit()

    def choose_data(self, source: str, columns: dict[str, str] | None = None) -> None:
        """Take the file `source` as the data and have it described."""
        section = self.project.spec.data.model_copy(update={"train": source, "columns": columns or {}})
        self.examples = ()
        self._update(
            spec=self.project.spec.model_copy(update={"data": section}), data=None, data_problems=(), plan=None
        )
        self.inspect_data()

    def choose_task(self, task: TaskKind, **choices: object) -> None:
        """What the model learns to do, with `choices` in it; the data is read again, or starter data of that task."""
        self._task_chosen = True
        self._take_task(task, **choices)
        self.inspect_data()

    def set_beta(self, beta: float | str) -> None:
        """How hard the untouched model holds the new one. Raises `pydantic.ValidationError`."""
        self._update(spec=with_task(self.project.spec, self.project.spec.task.kind, beta=beta))
        self.replan()

    def _take_task(self, task: TaskKind, **choices: object) -> None:
        before = self.project.spec
        spec = with_task(before, task, **choices)
        if spec.data != before.data or _reads(spec) != _reads(before):
            self.examples = ()
            self._update(spec=spec, data=None, data_problems=(), plan=None)
        elif spec != before:
            self._update(spec=spec)
        self._take_possible_method()

    def _take_possible_method(self) -> None:
        """Put LoRA in the place of a method that cannot train this model, and keep the reason."""
        project = self.project
        chosen = project.spec.method.name
        if project.model is None or unfit_task(project.model, project.spec.task.kind):
            return
        problem = unfit(chosen, project.model, project.spec.task.kind)
        if problem is not None:
            self.set_method(name="lora")
            self.dropped_method = problem
            self.project_changed.emit()

    def inspect_data(self) -> None:
        """Have the chosen file described again, with the chosen model's eyes when there is one."""
        spec = self.project.spec
        if not spec.data.train:
            return
        model = spec.model.source if self.project.model else None
        length = spec.training.max_length
        self.data_activity = self.tr("Reading the data")
        self.activity_changed.emit()
        job = InspectData(
            source=spec.data.train,
            model=model,
            task=spec.task.kind,
            problem_type=spec.task.problem_type,
            preference_loss=spec.task.preference_loss,
            columns=spec.data.columns,
            max_length=None if length == "auto" else length,
            validation_fraction=spec.data.validation_fraction,
            seed=spec.training.seed,
        )
        self._start("data", job, self._on_data_events)

    def set_method(self, **changes: object) -> None:
        """Change fields of the method section; another method has its earlier values again.

        Raises `pydantic.ValidationError` for a value out of range, `ProblemError` for a contradiction.
        """
        before = self.project.spec.method
        self._settings_of[before.name] = before
        section = with_changes(before, changes, self._settings_of.get(str(changes.get("name"))))
        problems = check_method(section)
        if problems:
            raise ProblemError(problems)
        self.dropped_method = None
        self._update(spec=self.project.spec.model_copy(update={"method": section}))
        self.replan()

    def set_training(self, **changes: object) -> None:
        """Change fields of the training section. Raises `pydantic.ValidationError`."""
        before = self.project.spec.training
        section = TrainingSection.model_validate({**before.model_dump(), **changes})
        self._update(spec=self.project.spec.model_copy(update={"training": section}))
        if section.max_length != before.max_length:
            self.inspect_data()
        self.replan()

    def set_spec(self, spec: RunSpec) -> None:
        """Take over all settings at once, for example to undo."""
        self._update(spec=spec)
        self.replan()

    def apply(self, settings: dict[str, int | float | bool | str]) -> None:
        """Apply TOML keys such as ``training.micro_batch_size``, as the planner names them."""
        sections: dict[str, dict[str, object]] = {}
        for key, value in settings.items():
            section, _, name = key.partition(".")
            sections.setdefault(section, {})[name] = value
        if "method" in sections:
            self.set_method(**sections["method"])
        if "training" in sections:
            self.set_training(**sections["training"])

    def choose_device(self, wanted: str) -> None:
        """Plan for another device: ``auto``, ``cpu`` or a card such as ``RTX 3060:12GiB``."""
        self.device_choice = wanted
        self.replan()

    def replan(self) -> None:
        """Make the plan anew from what is known; none while model or hardware are unknown."""
        project = self.project
        if project.model is None or self.hardware is None:
            self._update(plan=None)
            return
        try:
            device = choose_device(self.hardware, self.device_choice)
        except ValueError:
            device = choose_device(self.hardware)
        self._update(plan=make_plan(project.spec, project.model, project.data, device))

    # The run.

    def start_run(self, name: str | None = None) -> None:
        """Make the run's folder and start to train. Problems go to `failed`."""
        spec = self.project.spec.model_copy(update={"name": name})
        try:
            run = create_run(spec)
        except ProblemError as error:
            self.failed.emit(error.problems)
            return
        self._update(spec=spec)
        self._watch(run, EngineProcess(Train(run=str(run.path)), run.log_file, run.events_file), RunState())

    def resume_run(self) -> None:
        """Go on with the shown run from its last checkpoint."""
        run = self.run
        if run is None or self.training:
            return
        job = Train(run=str(run.path), resume=True)
        state = self.project.run or RunState()
        self._watch(run, EngineProcess(job, run.log_file, run.events_file), state)

    def stop_run(self) -> None:
        """Ask the shown run to end after the step at hand."""
        self._send(Stop())

    def save_now(self) -> None:
        """Ask for a checkpoint after the step at hand; only a run that this window started takes it."""
        self._send(SaveNow())

    def _send(self, command: Stop | SaveNow) -> None:
        thread = self._workers.get("train")
        if thread:
            thread.worker.send(command)

    @property
    def training(self) -> bool:
        """Whether the shown run is starting or training."""
        return busy(self.project.run)

    def show_run(self, run_id: str) -> None:
        """Show a run of the past, or one that another window started."""
        self.background.run(lambda: _read_run(run_id), self._show_read)

    def _show_read(self, found: tuple[RunFolder, RunSpec, RunState] | tuple[Problem, ...]) -> None:
        if isinstance(found[0], Problem):
            self.failed.emit(found)
            return
        run, spec, state = found
        if self.run is not None and run.path == self.run.path:
            return
        self._drop("train")
        before = self.project.spec
        changed = (spec.model, spec.data, _reads(spec)) != (before.model, before.data, _reads(before))
        self._task_chosen = True
        self._update(spec=spec, plan=state.plan)
        if busy(state):
            self._watch(run, RunFollower(run), RunState())
        else:
            self._show(run, state)
        if changed:
            self.choose_model(spec.model.source, spec.model.revision)
            self.inspect_data()

    def new_run(self) -> None:
        """Leave the shown run (it goes on if it is training) and keep the choices for a new one."""
        self._drop("train")
        self._update(spec=self.project.spec.model_copy(update={"name": None}))
        self._show(None, None)

    def mark_tried(self) -> None:
        """The person has asked the tuned model something."""
        if not self.project.tried:
            self._update(tried=True)

    def mark_exported(self, path: str | None) -> None:
        """An export passed all checks."""
        self._update(exported=path)

    # Inside.

    def _watch(self, run: RunFolder, source: EngineProcess | RunFollower, state: RunState) -> None:
        self.following = isinstance(source, RunFollower)
        self._show(run, replace(state, status="starting", problems=()))
        worker = TrainingWorker(source, state)
        worker.state_changed.connect(self._on_state)
        self._run_worker("train", worker)

    def _show(self, run: RunFolder | None, state: RunState | None) -> None:
        self.run = run
        self._update(run=state, tried=False, exported=None)
        self.run_changed.emit()
        self.state_changed.emit()
        self.runs_changed.emit()

    def _on_state(self, state: RunState) -> None:
        if self.sender() is not self._worker("train"):
            return
        ended = state.ended and not (self.project.run and self.project.run.ended)
        self.project = replace(self.project, run=state, plan=state.plan or self.project.plan)
        self.state_changed.emit()
        if ended:
            self.project_changed.emit()
            self.runs_changed.emit()

    def _on_model_events(self, events: list[Event]) -> None:
        if self.sender() is not self._worker("model"):
            return
        for event in events:
            match event:
                case Stage(text=text):
                    self.model_activity, self.model_progress = text, None
                case Progress():
                    self.model_progress = event
                case ModelDescribed(info=info):
                    self._update(model=info)
                case Finished(problems=problems):
                    self.model_activity = self.model_progress = None
                    self._update(model_problems=problems)
                    if not problems:
                        self._remember("recent_models", self.project.spec.model.source)
                        self._follow_model()
                        self.replan()
                        self.inspect_data()
                case _:
                    pass
        self.activity_changed.emit()

    def _on_data_events(self, events: list[Event]) -> None:
        if self.sender() is not self._worker("data"):
            return
        for event in events:
            match event:
                case Stage(text=text):
                    self.data_activity = text
                case DataDescribed(info=info, examples=examples):
                    self.examples = examples
                    self._update(data=info)
                case Finished(problems=problems):
                    if self._is_unclear(problems):
                        self._look_again(problems)
                    else:
                        self._end_data(problems)
                case _:
                    pass
        self.activity_changed.emit()

    def _follow_model(self) -> None:
        """What the model cannot learn gives way to what it can, and starter data with it."""
        if self.project.model is None:
            return
        before = self.project.spec.task.kind
        task = suited_task(self.project.model, self.project.spec, chosen=self._task_chosen)
        if task != before:
            self._task_chosen = False
        self._take_task(task)

    def _end_data(self, problems: tuple[Problem, ...]) -> None:
        self.data_activity = None
        self._update(data_problems=problems, data=None if problems else self.project.data)
        if not problems:
            self._remember("recent_data", self.project.spec.data.train)
        self.replan()

    def _is_unclear(self, problems: tuple[Problem, ...]) -> bool:
        """Whether the file may be fit for another task, which is worth telling."""
        return not self.project.spec.data.columns and any(item.code == "data.columns" for item in problems)

    def _look_again(self, problems: tuple[Problem, ...]) -> None:
        """Ask what the file is, whatever the task, and tell `problems` after that."""
        self._unclear = problems
        job = InspectData(source=self.project.spec.data.train, task="auto", examples=0)
        self._start("data", job, self._on_second_look)

    def _on_second_look(self, events: list[Event]) -> None:
        if self.sender() is not self._worker("data"):
            return
        for event in events:
            match event:
                case DataDescribed(info=info):
                    unfit = unfit_data(info, self.project.spec.task.kind, self.project.model)
                    self._unclear = (unfit,) if unfit else self._unclear
                case Finished():
                    self._end_data(self._unclear)
                case _:
                    pass
        self.activity_changed.emit()

    def _remember(self, name: str, source: str) -> None:
        """Put `source` first in the settings' list `name`."""
        before: tuple[str, ...] = getattr(self.settings, name)
        after = (source, *(item for item in before if item != source))[:RECENT]
        if after != before:
            self.change_settings(**{name: after})

    def _update(self, **changes: object) -> None:
        self.project = replace(self.project, **changes)  # type: ignore[arg-type]
        self.project_changed.emit()

    def _start(self, key: str, job: InspectModel | InspectData, slot: object) -> None:
        worker = EngineWorker(EngineProcess(job, cache_dir() / "logs" / f"{key}.log"))
        worker.events.connect(slot)
        self._run_worker(key, worker)

    def _worker(self, key: str) -> EngineWorker | None:
        thread = self._workers.get(key)
        return thread.worker if thread else None

    def _run_worker(self, key: str, worker: EngineWorker) -> None:
        self._drop(key)
        thread = WorkerThread(worker, self)
        self._workers[key] = thread
        thread.done.connect(self._on_done)
        thread.start()

    def _on_done(self) -> None:
        thread = self.sender()
        for key, known in list(self._workers.items()):
            if known is thread:
                del self._workers[key]
        if isinstance(thread, WorkerThread):
            self._leaving.discard(thread)
            thread.deleteLater()

    def _drop(self, key: str) -> None:
        """Leave the worker `key`: a training engine goes on, any other is ended. Never waits."""
        thread = self._workers.pop(key, None)
        if thread is None:
            return
        self._leaving.add(thread)
        if key != "train":
            thread.worker.kill()
        thread.worker.let_go()

    def close(self) -> None:
        """End inspections, let go of a training engine, and wait for the threads."""
        self._timer.stop()
        self.background.close()
        for key in list(self._workers):
            self._drop(key)
        for thread in list(self._leaving):
            thread.close()


def _reads(spec: RunSpec) -> tuple[str, str]:
    """What of the task decides how a file is read: conversations and plain texts are one, as are DPO and ORPO."""
    rows = rows_of(spec.task)
    return ("completion" if rows == "chat" else rows, spec.task.problem_type)


def _read_run(run_id: str) -> tuple[RunFolder, RunSpec, RunState] | tuple[Problem, ...]:
    """A run with all that its record tells; a long record takes a while."""
    try:
        run = open_run(run_id)
        return run, run.spec(), run.state()
    except ProblemError as error:
        return error.problems


def file_source(path: Path) -> str:
    """A path as a source: absolute."""
    return str(path.expanduser().resolve())
