"""Pictures of every page, in both themes and two sizes, and that no word on them is cut off.

    TUNEDESK_SCREENSHOTS=1 python -m pytest tests/gui/test_screenshots.py

writes them to resources/screenshots, where the README takes them from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import label_samples as labels
import numpy as np
import pytest
import recorded_samples as recorded
import run_samples as made
from PySide6.QtCore import QEvent
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication, QLabel, QWidget
from samples import QuietSession, settle

from tunedesk.core.hardware import GIB
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

TIGHT = 2.35
TIGHT_SETTINGS = {"micro_batch_size": 8, "gradient_checkpointing": False}
"""Free memory in GiB at which the starter run, with 8 conversations at a time, must change to fit."""


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
                if focused := QApplication.focusWidget():
                    focused.clearFocus()
                path = folder / f"{key}-{theme}-{size[0]}x{size[1]}.png"
                assert with_palette(window.grab().toImage()).save(str(path), "PNG", 0)
                files.append(path)
            end(window)
    Theme.of().set_mode("light")
    return files


def with_palette(picture: QImage) -> QImage:
    """The picture in its 256 most telling colours: a third of the bytes, and no eye sees it."""
    picture = picture.convertToFormat(QImage.Format.Format_RGB32)
    shape = (picture.height(), picture.bytesPerLine() // 4)
    pixels = np.frombuffer(picture.constBits(), np.uint32).reshape(shape)[:, : picture.width()] & 0xFFFFFF
    colours, where, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    channels = np.stack([(colours >> shift) & 255 for shift in (16, 8, 0)], axis=1).astype(np.float64)
    chosen, far = [], np.full(len(colours), np.inf)
    nearest = np.zeros(len(colours), np.uint8)
    for index in range(min(256, len(colours))):
        best = int(np.argmax(counts * np.minimum(far, 1e6)))
        distance = ((channels - channels[best]) ** 2).sum(axis=1)
        nearest[distance < far] = index
        far = np.minimum(far, distance)
        chosen.append(int(colours[best]) | 0xFF000000)
    indices = nearest[where].reshape(pixels.shape)
    width = -(-indices.shape[1] // 4) * 4
    padded = np.zeros((indices.shape[0], width), np.uint8)
    padded[:, : indices.shape[1]] = indices
    small = QImage(padded.tobytes(), indices.shape[1], indices.shape[0], width, QImage.Format.Format_Indexed8).copy()
    small.setColorTable(chosen)
    return small


def sample_window(size: tuple[int, int]) -> MainWindow:
    """A window on sample data that starts no engine."""
    session = QuietSession(Settings(window_width=size[0], window_height=size[1]))
    session.change_settings = lambda **_: None  # type: ignore[method-assign]
    settle_recorded(session)
    window = MainWindow(session)
    window.chat.open = lambda *_: None  # type: ignore[method-assign]
    window.read_runs = lambda: None  # type: ignore[method-assign]
    window._take_runs(
        [
            RunSummary("now", Path("/runs/now"), recorded.NAME, "running", fraction=recorded.MIDST / 117),
        ]
    )
    window.show()
    return window


def settle_recorded(session: QuietSession, memory_free: float = 0.0) -> None:
    """Put the session where the recorded run began; on a smaller computer when `memory_free` (GiB) is given."""
    machine = recorded.machine()
    if memory_free:
        machine = machine.model_copy(update={"memory_total": 4 * GIB, "memory_free": int(memory_free * GIB)})
    training = session.project.spec.training.model_copy(update=TIGHT_SETTINGS if memory_free else {})
    spec = session.project.spec.model_copy(update={"name": recorded.NAME, "training": training})
    session.project = replace(session.project, spec=spec)
    settle(session, recorded.model(), recorded.data(), machine, recorded.rows())


def end(window: MainWindow) -> None:
    window._may_close = True
    window.chat.shut_down()
    window.exporter.shut_down()
    window.close()
    window.deleteLater()
    QApplication.processEvents()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)  # no loop runs here that would do it


def stage(window: MainWindow, key: str) -> None:
    """Put the window where the page `key` has something to show."""
    session = window.session
    if key in ("model", "data", "method"):
        show_run(window, None)
    elif key == "fit":
        settle_recorded(session, TIGHT)
        show_run(window, None)
    elif key == "train":
        settle_recorded(session)
        show_run(window, reduce_all(recorded.running()))
    else:
        show_run(window, reduce_all(recorded.kept()))
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
    """The recorded conversation."""
    chat = window.chat
    chat.target = ("/runs/now", None)
    chat._set("loading", "Loading the model")
    chat._take_other(made.chat_ready())
    page = window.page("try")
    page.bar.temperature.setValue(0)
    page.bar.at_most.setValue(recorded.MOST_TOKENS)
    chat.turns.extend(recorded.turns()[:1])
    chat.turns_changed.emit()
    chat._set("ready")


def save(window: MainWindow) -> None:
    """An export that has passed every check."""
    exporter = window.exporter
    exporter.status, exporter._began = "running", 0.0
    page = window.page("export")
    page.place.setText("/home/ana/Documents/TuneDesk/starter-tour-adapter")
    for event in recorded.export_events():
        exporter._take(event)
    exporter.seconds = recorded.export_seconds()
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
    if Theme.of().mode != "light":
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


def label_window(size: tuple[int, int], key: str) -> MainWindow:
    """A window on a classifier, at the page `key`."""
    window = sample_window(size)
    labels.settle_labels(window.session, labels.finance_data(labels=labels.many_labels()))
    show_run(window, None)
    if key in ("train", "try", "export"):
        labels.show_run(window.session, labels.completed())
    if key == "try":
        chat = window.chat
        chat.target = ("/runs/labels", None)
        chat._set("loading", "Loading the model")
        chat._take_other(labels.labels_ready())
        answer = labels.labelled(1, ("negative", 0.9), ("neutral", 0.08), ("positive", 0.02))
        told = Answer(answer.text, seconds=0.012, ended="stop_token", labels=answer.labels)
        chat.turns.extend(Turn(text, {"tuned": told}) for text, _ in labels.TEXTS[:2])
        chat.turns_changed.emit()
    window.go(key)
    for _ in range(4):
        QApplication.processEvents()
    return window


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", STEPS)
def test_that_no_label_of_a_classifier_is_cut_off(qapp, size: tuple[int, int], key: str) -> None:
    window = label_window(size, key)
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
