"""What the rail says: the second line of every step, the runs, and the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from PySide6.QtCore import QCoreApplication, QObject

from tunedesk.core.events import Progress
from tunedesk.core.hardware import Hardware, choose_device
from tunedesk.core.project import STEPS, Project, StepKey, busy, model_trouble, rows_of, step_status
from tunedesk.core.state import RunState
from tunedesk.gui import method_words, task_words, words
from tunedesk.gui.runs_list import RunStatus, RunSummary
from tunedesk.gui.session import Session
from tunedesk.gui.widgets import DeviceItem, RunItem, StepItem


def tr(text: str) -> str:
    """`text` in the user's language."""
    return QCoreApplication.translate("RailLines", text)


class RailLines(QObject):
    """Words for the rail, made from what the session knows."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self.titles: dict[StepKey, str] = {
            "model": self.tr("Model"),
            "data": self.tr("Data"),
            "method": self.tr("Method"),
            "fit": self.tr("Fit"),
            "train": self.tr("Train"),
            "try": self.tr("Try"),
            "export": self.tr("Export"),
        }

    def steps(self) -> list[StepItem]:
        """All seven steps."""
        return [self._step(key) for key in STEPS]

    def _step(self, key: StepKey) -> StepItem:
        project = self._session.project
        running = key == "train" and busy(project.run)
        progress = project.run.fraction if running and project.run else None
        return StepItem(key, self.titles[key], self._line(key, project), step_status(project, key), progress)

    def _line(self, key: StepKey, project: Project) -> str:
        match key:
            case "model":
                return self._model(project)
            case "data":
                return self._data(project)
            case "method":
                return self._method(project)
            case "fit":
                return self._fit(project)
            case "train":
                return self._train(project.run)
            case "try":
                return self._try(project)
            case "export":
                return self._export(project)

    def _model(self, project: Project) -> str:
        if self._session.model_activity is not None:
            return _with_share(self._session.model_activity, self._session.model_progress)
        if model_trouble(project):
            return self.tr("Needs another choice")
        return project.model.name if project.model else self.tr("Choose a model")

    def _data(self, project: Project) -> str:
        if project.data_problems:
            return self.tr("Needs another choice")
        if project.data is None:
            return self._session.data_activity or self.tr("Choose a file")
        rows = task_words.rows(project.data.rows, rows_of(project.spec.task, project.data))
        if project.data.span is not None:
            return self.tr("{0}, numbers").format(rows)
        if not project.data.labels:
            return rows
        return self.tr("{0}, {1} labels").format(rows, words.count(len(project.data.labels)))

    def _method(self, project: Project) -> str:
        if not project.method_chosen:
            return self.tr("Choose how to train")
        return method_words.in_short(project.spec.method)

    def _fit(self, project: Project) -> str:
        plan = project.plan
        if plan is None:
            return self.tr("Checked before training")
        needed, free = plan.asked.peak_bytes, plan.device.free_bytes
        if plan.fits:
            return self.tr("{0} of {1}").format(words.gib_number(needed), words.gib(free))
        if needed > free:
            return self.tr("{0} too much").format(words.gib(needed - free))
        return self.tr("Too tight")

    def _train(self, run: RunState | None) -> str:
        if run is None or run.status == "new":
            return self.tr("Not started")
        if run.status == "starting":
            return run.stage or self.tr("Starting")
        if run.status == "running":
            return self._running(run)
        if run.status == "failed":
            return self.tr("Broke off at step {0}").format(words.count(run.step)) if run.step else self.tr("Failed")
        if right := best_right(run):
            text = self.tr("Stopped, {0} right") if run.status == "stopped" else self.tr("{0} right")
            return text.format(right)
        if told := best_told(run.best.metrics if run.best else {}):
            return self.tr("Stopped, {0}").format(told) if run.status == "stopped" else told[:1].upper() + told[1:]
        best = words.loss(run.best.loss) if run.best else ""
        if run.status == "stopped":
            return self.tr("Stopped, best {0}").format(best) if best else self.tr("Stopped")
        return self.tr("Best loss {0}").format(best) if best else self.tr("Done")

    def _running(self, run: RunState) -> str:
        share = f"{int(run.fraction * 100)}%"
        left = run.seconds_left
        return self.tr("{0}, {1} left").format(share, words.duration(left)) if left is not None else share

    def _try(self, project: Project) -> str:
        done, ready = {
            "labels": (self.tr("Texts labelled"), self.tr("Label a text")),
            "number": (self.tr("Texts measured"), self.tr("Measure a text")),
            "seq2seq": (self.tr("Results compared"), self.tr("Compare the results")),
        }.get(_tries(project), (self.tr("Answers compared"), self.tr("Compare the answers")))
        if project.tried:
            return done
        return ready if has_adapter(project.run) else self.tr("After training")

    def _export(self, project: Project) -> str:
        if project.exported:
            return method_words.saved_line(project.spec.method.name)
        return self.tr("Save the result") if has_adapter(project.run) else self.tr("After training")

    def runs(self, summaries: list[RunSummary]) -> list[RunItem]:
        """All runs; the shown one with its newest state."""
        return [self._run(summary) for summary in summaries]

    def _run(self, summary: RunSummary) -> RunItem:
        shown = self._session.run
        state = self._session.project.run
        if shown is not None and state is not None and shown.path == summary.path:
            summary = _up_to_date(summary, state)
        values = {"running": f"{int(summary.fraction * 100)}%", "failed": self.tr("failed")}
        best = words.loss(summary.best) if summary.best is not None else ""
        if "accuracy" in summary.metrics:
            best = self.tr("{0} right").format(words.share(summary.metrics["accuracy"]))
        elif told := best_told(summary.metrics):
            best = told
        fallback = self.tr("stopped") if summary.status == "stopped" else ""
        return RunItem(summary.id, summary.name, summary.status, values.get(summary.status, best or fallback))

    def device(self, hardware: Hardware | None) -> DeviceItem:
        """The device in use and its free memory."""
        if hardware is None:
            return DeviceItem(self.tr("Reading the hardware"), words.DASH)
        device = choose_device(hardware)
        free, total = words.gib_number(device.free_bytes), words.gib(device.total_bytes)
        return DeviceItem(device.name, self.tr("{0} of {1} free").format(free, total))


def _up_to_date(summary: RunSummary, state: RunState) -> RunSummary:
    """The shown run as its state tells it, which is newer than the list."""
    ends: dict[str, RunStatus] = {"completed": "done", "stopped": "stopped", "failed": "failed"}
    summary = replace(summary, status=ends.get(state.status, "running"), fraction=state.fraction)
    if state.best is None:
        return summary
    return replace(summary, best=state.best.loss, metrics=dict(state.best.metrics))


def has_adapter(run: RunState | None) -> bool:
    """Whether the shown run has ended with something that can be tried and saved: its adapter, or a checkpoint's."""
    return run is not None and run.ended and adapter_step(run) is not None


def best_right(run: RunState) -> str:
    """How many held-out texts the best of a classifier gets right: ``33 of 36``; empty when labels are not learned."""
    accuracy = run.best.metrics.get("accuracy") if run.best else None
    if accuracy is None:
        return ""
    return task_words.right_of(accuracy, run.began.eval_rows if run.began else 0)


def best_told(metrics: Mapping[str, float]) -> str:
    """What tells most of a run that gives no labels: ``87% preferred``, ``ROUGE-L 0.412``; empty if it is the loss."""
    if "preference_accuracy" in metrics:
        return tr("{0} preferred").format(words.share(metrics["preference_accuracy"]))
    if "rouge_l" in metrics:
        return f"ROUGE-L {words.number(metrics['rouge_l'], 3)}"
    return tr("correlation {0}").format(words.number(metrics["pearson"], 2)) if "pearson" in metrics else ""


def _tries(project: Project) -> str:
    """What is tried after training: labels, a number, another text, or answers."""
    kind = project.spec.task.kind
    if kind != "classification":
        return kind
    number = project.data is not None and project.data.problem_type == "regression"
    return "number" if number or project.spec.task.problem_type == "regression" else "labels"


def adapter_step(run: RunState) -> int | None:
    """The step of the adapter that is tried and saved."""
    kept = run.adapter or run.checkpoint
    return kept.step if kept else None


def _with_share(text: str, progress: Progress | None) -> str:
    if progress is None or not progress.total:
        return text
    return f"{text}, {int(100 * progress.done / progress.total)}%"
