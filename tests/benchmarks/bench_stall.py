"""How long the window's event loop stands still while a run trains.

    python tests/benchmarks/bench_stall.py [SECONDS] [--engine]

A timer of 5 ms beats in the GUI thread; what a beat comes late is a stall. Events come from a made-up source through
the real `TrainingWorker`, its thread, and the real window with the Train page open: at a realistic rate, at twenty
times that, and with 100,000 steps already drawn. `--engine` adds a real run of the starter model.
"""

# ruff: noqa: E402
from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "app"), str(ROOT / "tests" / "gui")]

import pydantic  # noqa: F401
import run_samples as made
from PySide6.QtCore import QEventLoop, QObject, Qt, QTimer
from samples import QuietSession, settle

from tunedesk.core.events import Event, Stop
from tunedesk.core.runs import RunFolder, create_run
from tunedesk.core.settings import Settings
from tunedesk.core.state import RunState, reduce_all
from tunedesk.gui.app import make_application, share_the_interpreter
from tunedesk.gui.theme import Theme
from tunedesk.gui.window import MainWindow

LIMIT_MS = 50.0
BEAT_MS = 5
REALISTIC = 5.0
"""Steps a second: a small model on a GPU; the starter model on two CPU cores does about one."""


class LiveSource:
    """Steps at a steady rate, with a check, sentences and a checkpoint every 50."""

    def __init__(self, first: int, total: int, rate: float) -> None:
        self._step, self._total, self._rate = first, total, rate
        self._queue: list[Event] = []
        self._next = time.monotonic()
        self.finished = False

    def start(self) -> None:
        self._next = time.monotonic()

    def next_event(self, timeout: float | None = None) -> Event | None:
        if not self._queue:
            wait = self._next - time.monotonic()
            if wait > (timeout or 0.0):
                time.sleep(timeout or 0.0)
                return None
            time.sleep(max(0.0, wait))
            self._next += 1 / self._rate
            self._queue = made.steps(self._step, self._step, self._total, every=50)
            self._step += 1
        return self._queue.pop(0).model_copy(update={"time": time.time()})

    def send(self, command: object) -> None:
        pass

    def kill(self) -> None:
        pass

    def detach(self) -> None:
        self.finished = True


class Heartbeat(QObject):
    """Notes by how much each beat of the event loop comes late, in milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[float] = []
        self._last = 0.0
        self._timer = QTimer(self, interval=BEAT_MS, timerType=Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._beat)

    def watch(self, seconds: float) -> list[float]:
        """Let the event loop run and return the delays, sorted."""
        self.late, self._last = [], time.perf_counter()
        self._timer.start()
        wait(seconds)
        self._timer.stop()
        return sorted(self.late)

    def _beat(self) -> None:
        now = time.perf_counter()
        self.late.append(max(0.0, (now - self._last) * 1000 - BEAT_MS))
        self._last = now


def wait(seconds: float) -> None:
    """Run the event loop for a while."""
    loop = QEventLoop()
    QTimer.singleShot(round(seconds * 1000), loop.quit)
    loop.exec()


def report(name: str, late: list[float]) -> bool:
    """Print one distribution; whether it is within the limit."""

    def at(share: float) -> str:
        return f"{late[min(len(late) - 1, int(len(late) * share))]:5.1f}"

    over = sum(value > LIMIT_MS for value in late)
    print(
        f"{name:<44} beats {len(late):>5}  median {at(0.5)}  p95 {at(0.95)}  p99 {at(0.99)}  p99.9 {at(0.999)}"
        f"  max {late[-1]:5.1f} ms  over {LIMIT_MS:.0f} ms: {over}",
        flush=True,
    )
    return over == 0


def long_history(total: int) -> RunState:
    """A run of which all but the last thousand steps are done."""
    events = [*made.opening(), made.began(total, total // 3), made.evaluated(0, total)]
    return reduce_all(made.stamped([*events, *made.steps(1, total - 1000, total, every=500)]))


def watch_made_up(window: MainWindow, name: str, state: RunState, total: int, rate: float, seconds: float) -> bool:
    """Show a made-up run and measure."""
    session = window.session
    session.new_run()
    source = LiveSource(state.step + 1, total, rate)
    session._watch(RunFolder(Path(tempfile.mkdtemp(prefix="bench-"))), source, state)
    window.go("train")
    wait(2.0)
    return report(name, Heartbeat().watch(seconds))


def watch_engine(window: MainWindow, seconds: float) -> bool:
    """Train the starter model for real and measure, from Start to the end of the time."""
    from tunedesk.core.client import EngineProcess
    from tunedesk.core.events import Train

    session = window.session
    session.new_run()
    run = create_run(session.project.spec)
    process = EngineProcess(Train(run=str(run.path)), run.log_file, run.events_file)
    session._watch(run, process, RunState())
    window.go("train")
    good = report("a real run of the starter model, from Start", Heartbeat().watch(seconds))
    print(f"    it reached step {session.project.run.step if session.project.run else 0}")
    process.send(Stop())
    wait(5.0)
    process.kill()
    return good


def main(arguments: list[str]) -> int:
    """Measure; exit status 1 when a stall is over the limit."""
    numbers = [float(item) for item in arguments if item.replace(".", "").isdigit()]
    seconds = numbers[0] if numbers else 10.0
    if "--engine" not in arguments:
        for variable in ("TUNEDESK_HOME", "TUNEDESK_CACHE", "TUNEDESK_CONFIG"):
            os.environ[variable] = tempfile.mkdtemp(prefix="bench-")
    app = make_application([])
    Theme("light").apply(app)
    share_the_interpreter()
    session = QuietSession(Settings())
    settle(session)
    window = MainWindow(session)
    window.show()
    window.page("train")
    wait(0.5)
    short = reduce_all(made.stamped([*made.opening(), made.began(5000, 500), made.evaluated(0, 5000)]))
    good = watch_made_up(window, f"{REALISTIC:.0f} steps/s", short, 5000, REALISTIC, seconds)
    good &= watch_made_up(window, f"{REALISTIC * 20:.0f} steps/s", short, 5000, REALISTIC * 20, seconds)
    history = long_history(100_000)
    name = f"{REALISTIC * 20:.0f} steps/s after 99,000 steps"
    good &= watch_made_up(window, name, history, 100_000, REALISTIC * 20, seconds)
    if "--engine" in arguments:
        good &= watch_engine(window, max(seconds, 60.0))
    session.close()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
