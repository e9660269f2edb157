"""Starts the window, and sees to it that a fault of the app is told and written down."""

from __future__ import annotations

import gc
import locale
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import FrameType, TracebackType

import pydantic  # noqa: F401  (before PySide6, whose import hook slows it down)
from PySide6.QtCore import QLocale, QObject, QSocketNotifier, Signal
from PySide6.QtWidgets import QApplication, QWidget

from tunedesk import __version__
from tunedesk.core.paths import data_dir
from tunedesk.core.settings import load_settings
from tunedesk.gui.session import Session
from tunedesk.gui.theme import Theme, icon
from tunedesk.gui.window import MainWindow


def main(argv: list[str], *, ready: Callable[[MainWindow], None] | None = None) -> int:
    """Open the window and run until it is closed. `ready` is given the window before it is shown."""
    app = make_application(argv)
    settings = load_settings()
    Theme(settings.theme, text_scale=settings.text_scale).apply(app)
    app.setWindowIcon(icon("logo"))
    share_the_interpreter()
    session = Session(settings)
    window = MainWindow(session)
    window.painted.connect(window.start_work)
    notifier = Notifier(window)
    with Hooks(notifier), Interrupts(app):
        if ready:
            ready(window)
        window.show()
        code = app.exec()
        session.close()
    return code


def make_application(argv: list[str]) -> QApplication:
    """The Qt application; numbers stay as Python and C libraries expect them."""
    QApplication.setApplicationName("TuneDesk")
    QApplication.setApplicationDisplayName("TuneDesk")
    QApplication.setApplicationVersion(__version__)
    QApplication.setDesktopFileName("tunedesk")
    app = QApplication(["tunedesk", *argv])
    keep_c_numbers()
    QLocale.setDefault(QLocale(QLocale.Language.English, QLocale.Country.UnitedStates))
    return app


def keep_c_numbers() -> None:
    """QApplication takes the system's locale for C code too, where a decimal comma breaks parsers."""
    locale.setlocale(locale.LC_NUMERIC, "C")


def share_the_interpreter() -> None:
    """See to it that the window never stands still for Python's own housekeeping.

    A worker that parses events holds the interpreter's lock; the window then waits 1 ms, not 5, for each turn. A full
    garbage collection walks every event of a long run, which takes 0.1 s for 100,000 steps; nearly all of what lives
    for long here is free of cycles, so the full one is put off a hundredfold.
    """
    sys.setswitchinterval(0.001)
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 1_000)


class Notifier(QObject):
    """The one way in which a fault of the app reaches the person: a crash log and a calm dialog."""

    reported = Signal(str)

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        self._window = window
        self._open = False
        self.reported.connect(self._show)

    def report(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Write the fault down and show it; may be called from any thread."""
        text = "".join(traceback.format_exception(kind, error, trace))
        sys.stderr.write(text)
        self.reported.emit(f"{write_crash_log(text)}\n\n{text}")

    def _show(self, details: str) -> None:
        if self._open:  # the log has it; one dialog at a time
            return
        from tunedesk.gui.dialogs.message import MessageDialog

        self._open = True
        sentence = self.tr(
            "A part of the window did not work as it should. Training is not touched, it runs on its own, "
            "and you can go on. The details below help to mend it."
        )
        dialog = MessageDialog(self.tr("TuneDesk stumbled"), sentence, details, parent=self._window)
        dialog.finished.connect(self._closed)
        dialog.open()

    def _closed(self) -> None:
        self._open = False


def write_crash_log(text: str) -> str:
    """Write `text` to a file of its own; returns where it lies, or why it could not be written."""
    folder = data_dir() / "crashes"
    path = folder / f"crash-{datetime.now():%Y%m%d-%H%M%S-%f}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(f"TuneDesk {__version__}, Python {sys.version}, {sys.platform}\n\n{text}", encoding="utf-8")
    except OSError as error:
        return f"{Path(path).name}: {error}"
    return str(path)


class Hooks:
    """Sends what nobody caught, in the main thread or another, to the notifier."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._before = (sys.excepthook, threading.excepthook)

    def __enter__(self) -> None:
        sys.excepthook = self._report
        threading.excepthook = self._report_thread

    def __exit__(self, *_: object) -> None:
        sys.excepthook, threading.excepthook = self._before

    def _report(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            QApplication.quit()
            return
        self._notifier.report(kind, error, trace)

    def _report_thread(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
            self._notifier.report(args.exc_type, args.exc_value, args.exc_traceback)


class Interrupts:
    """Ctrl+C and a polite kill end the app: Python's signal handler wakes Qt's event loop through a socket."""

    def __init__(self, app: QApplication) -> None:
        self._app = app

    def __enter__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._notifier = QSocketNotifier(self._reader.fileno(), QSocketNotifier.Type.Read)
        self._notifier.activated.connect(self._drain)
        self._fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._quit) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd)
        self._notifier.setEnabled(False)
        self._reader.close()
        self._writer.close()

    def _drain(self) -> None:
        self._reader.recv(64)

    def _quit(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._app.exit(128 + number if number == signal.SIGTERM else 130)
