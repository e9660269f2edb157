"""The real window with the real engine; runs and settings in a folder of the test, models in the user's cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractButton, QApplication, QWidget
from pytestqt.qtbot import QtBot

from tests.engine.models import tiny_model as make_tiny_model
from tunedesk.core.settings import Settings
from tunedesk.gui.session import Session
from tunedesk.gui.theme import Theme
from tunedesk.gui.window import MainWindow


@pytest.fixture(scope="session")
def qapp(qapp: QApplication) -> QApplication:
    Theme("light").apply(qapp)
    return qapp


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TUNEDESK_HOME", "TUNEDESK_CONFIG"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))


class Person:
    """Someone at the window: looks at what is on screen, clicks and types."""

    def __init__(self, window: MainWindow, qtbot: QtBot) -> None:
        self.window = window
        self.qtbot = qtbot

    def see(self, name: str, kind: type[QWidget] = QWidget) -> QWidget:
        """The visible widget of that object name."""
        found = [item for item in self.window.findChildren(kind, name) if item.isVisible()]
        for dialog in QApplication.topLevelWidgets():
            if dialog is not self.window and dialog.isVisible():
                found += [item for item in dialog.findChildren(kind, name) if item.isVisible()]
        assert found, f"nothing called {name} is on screen"
        return found[0]

    def click(self, name: str) -> None:
        """Click the visible button of that object name."""
        button = self.see(name, QAbstractButton)
        assert button.isEnabled(), f"{name} cannot be clicked"
        self.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    def type_into(self, name: str, text: str, *, enter: bool = False) -> None:
        """Replace what is in a field."""
        field = self.see(name)
        field.setFocus()
        self.qtbot.keyClick(field, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
        self.qtbot.keyClicks(field, text)
        if enter:
            self.qtbot.keyClick(field, Qt.Key.Key_Return)

    def wait(self, condition: Callable[[], object], seconds: float = 60) -> None:
        """Until `condition` holds."""
        self.qtbot.waitUntil(lambda: bool(condition()), timeout=int(seconds * 1000))

    def can_go_on(self) -> bool:
        """Whether the footer's main button is ready."""
        return self.see("next", QAbstractButton).isEnabled()

    def next(self) -> None:
        """Wait for Next and press it."""
        self.wait(self.can_go_on)
        self.click("next")


OpenWindow = Callable[..., Person]


@pytest.fixture
def open_window(qapp: QApplication, qtbot: QtBot) -> Iterator[OpenWindow]:
    """Open a window with these settings, as the app does."""
    windows: list[MainWindow] = []

    def open_(**settings: object) -> Person:
        window = MainWindow(Session(Settings.model_validate(settings)))
        windows.append(window)
        window.painted.connect(window.start_work)
        window.show()
        return Person(window, qtbot)

    yield open_
    for window in windows:
        window._may_close = True
        window.close()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA with random weights that trains in milliseconds."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def small_data(tmp_path: Path) -> Path:
    """Forty conversations."""
    import json

    path = tmp_path / "rows.jsonl"
    rows = [
        [{"role": "user", "content": f"Where is order {n}?"}, {"role": "assistant", "content": f"Order {n} is here."}]
        for n in range(40)
    ]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return path
