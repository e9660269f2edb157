"""Pictures of every page, in both themes and two sizes, and that no word on them is cut off.

    TUNEDESK_SCREENSHOTS=1 python -m pytest tests/gui/test_screenshots.py

writes them to resources/screenshots, where the README takes them from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import run_samples as made
from PySide6.QtWidgets import QApplication, QLabel, QWidget
from samples import QuietSession, gpu_hardware, long_data, plan, qwen, settle

from tunedesk.core.events import Finished
from tunedesk.core.project import STEPS
from tunedesk.core.runs import RunFolder
from tunedesk.core.settings import Settings
from tunedesk.core.state import RunState, reduce_all
from tunedesk.gui.chatting import Answer, Turn
from tunedesk.gui.runs_list import RunSummary
from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets import ElidedLabel
from tunedesk.gui.window import MainWindow

SIZES = ((1280, 800), (1024, 700))
THEMES = ("light", "dark")

CONVERSATION = (
    (
        "My lamp came with a scratched frame. Do I have to send it back?",
        "I am sorry to hear your order arrived with a scratched frame! Whether you need to send it back depends on "
        "the policy of the retailer. In general, you may want to:\n1. Take clear photos of the damage.\n"
        "2. Contact customer support with your order number.\n3. Ask about a refund, an exchange or a discount.",
        "Ahoy. You need not send it back. Reply with one photo of the frame, and choose: we refund 15% today, or a "
        "new frame leaves tomorrow. Either way it is settled within two working days. Fair winds, Marlow",
    ),
    (
        "A new frame, please. How long does it take to Bergen?",
        "I do not have access to live delivery data, but here are some tips: check the tracking number, ask the "
        "carrier, or call the retailer.",
        "Good choice. It leaves tomorrow and takes four working days to Bergen; you get the number the moment",
    ),
)


def make_screenshots(folder: Path) -> list[Path]:
    """Write `<page>-<theme>-<width>x<height>.png` for all pages and return the files."""
    files = []
    folder.mkdir(parents=True, exist_ok=True)
    for theme in THEMES:
        Theme.of().set_mode(theme)
        for size in SIZES:
            window = sample_window(size)
            for key in STEPS:
                stage(window, key)
                path = folder / f"{key}-{theme}-{size[0]}x{size[1]}.png"
                assert window.grab().save(str(path))
                files.append(path)
            end(window)
    Theme.of().set_mode("light")
    return files


def sample_window(size: tuple[int, int]) -> MainWindow:
    """A window on sample data that starts no engine."""
    session = QuietSession(Settings(window_width=size[0], window_height=size[1]))
    session.change_settings = lambda **_: None  # type: ignore[method-assign]
    settle(session)
    window = MainWindow(session)
    window.chat.open = lambda *_: None  # type: ignore[method-assign]
    window.read_runs = lambda: None  # type: ignore[method-assign]
    window._take_runs(
        [
            RunSummary("now", Path("/runs/now"), "Support LoRA", "running", None, 0.62),
            RunSummary("a", Path("/runs/a"), "Support first try", "done", 1.204),
            RunSummary("b", Path("/runs/b"), "Release notes", "done", 0.873),
            RunSummary("c", Path("/runs/c"), "Recipes, long", "failed"),
        ]
    )
    window.show()
    return window


def end(window: MainWindow) -> None:
    window._may_close = True
    window.chat.shut_down()
    window.exporter.shut_down()
    window.close()
    window.deleteLater()


def stage(window: MainWindow, key: str) -> None:
    """Put the window where the page `key` has something to show."""
    session = window.session
    if key in ("model", "data", "method"):
        show_run(window, None)
    elif key == "fit":
        settle(session, qwen(), long_data(), gpu_hardware())
    elif key == "train":
        settle(session)
        show_run(window, reduce_all(made.running(75, made=plan())))
    else:
        show_run(window, reduce_all(made.completed()))
    if key == "try":
        talk(window)
    window.go(key)
    if key == "export":
        save(window)
    for _ in range(4):
        QApplication.processEvents()


def show_run(window: MainWindow, state: RunState | None) -> None:
    session = window.session
    session.run = RunFolder(Path("/runs/now")) if state else None
    session.project = replace(session.project, run=state)
    session.run_changed.emit()
    session.state_changed.emit()
    session.project_changed.emit()


def talk(window: MainWindow) -> None:
    """A conversation whose last answer is being written."""
    chat = window.chat
    chat.target = ("/runs/now", None)
    chat._set("loading", "Loading the model")
    chat._take_other(made.chat_ready())
    for question, base, tuned in CONVERSATION:
        answers = {"base": Answer(base, 71, 1.7, "stop_token"), "tuned": Answer(tuned, 58, 1.5, "stop_token")}
        chat.turns.append(Turn(question, answers))  # type: ignore[arg-type]
    chat.turns[-1].answers["tuned"] = Answer(CONVERSATION[-1][2])
    chat.turns_changed.emit()
    chat._set("answering")


def save(window: MainWindow) -> None:
    """An export that has passed every check."""
    exporter = window.exporter
    exporter.status, exporter._began = "running", 0.0
    page = window.page("export")
    page.place.setText("/home/ana/Documents/TuneDesk/support-lora-adapter")
    for event in made.export_checks():
        exporter._take(event)
    exporter._take(Finished(outcome="completed"))
    exporter.seconds = 14.0
    exporter.changed.emit()


def cut_labels(page: QWidget) -> list[str]:
    """The labels on a page whose text has less room than it needs."""
    cut = []
    for label in page.findChildren(QLabel):
        if not label.isVisible() or not label.text() or isinstance(label, ElidedLabel):
            continue
        if label.wordWrap():
            if label.height() < label.heightForWidth(label.width()) - 1:
                cut.append(f"{label.objectName()}: {label.text()!r} {label.size().toTuple()}")
        elif label.width() < label.sizeHint().width() - 1 or label.height() < label.sizeHint().height() - 1:
            cut.append(f"{label.objectName()}: {label.text()!r} {label.size().toTuple()}")
    return cut


@pytest.fixture(autouse=True)
def light_again(qapp) -> Iterator[None]:
    yield
    Theme.of().set_mode("light")


def test_that_every_page_is_pictured_in_both_themes_and_sizes(qapp, tmp_path: Path) -> None:
    wanted = os.environ.get("TUNEDESK_SCREENSHOTS") == "1"
    folder = Path(__file__).resolve().parents[2] / "resources" / "screenshots" if wanted else tmp_path
    files = make_screenshots(folder)
    assert len(files) == len(STEPS) * len(THEMES) * len(SIZES)
    assert all(path.stat().st_size > 10_000 for path in files)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", STEPS)
def test_that_no_label_is_cut_off(qapp, size: tuple[int, int], key: str) -> None:
    window = sample_window(size)
    stage(window, key)
    found = cut_labels(window.page(key))
    end(window)
    assert found == []


def test_that_no_label_is_cut_off_when_a_run_has_failed(qapp) -> None:
    window = sample_window(SIZES[1])
    show_run(window, reduce_all(made.nan_run()))
    window.go("train")
    QApplication.processEvents()
    found = cut_labels(window.page("train"))
    end(window)
    assert found == []


def test_that_no_label_is_cut_off_before_the_start(qapp) -> None:
    window = sample_window(SIZES[1])
    show_run(window, None)
    window.go("train")
    QApplication.processEvents()
    found = cut_labels(window.page("train"))
    end(window)
    assert found == []
