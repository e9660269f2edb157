"""What every test of the window needs: a themed application and a session that can touch nothing of the user's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import pytest
from PySide6.QtWidgets import QApplication
from samples import QuietSession

from tunedesk.core.settings import Settings
from tunedesk.gui.theme import Theme


@pytest.fixture(scope="session")
def qapp(qapp: QApplication) -> QApplication:
    """pytest-qt's application in the light theme, without motion."""
    theme = Theme("light")
    theme.reduced_motion = True
    theme.apply(qapp)
    return qapp


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs, caches and settings of each test lie in its own folder."""
    for variable in ("TUNEDESK_HOME", "TUNEDESK_CACHE", "TUNEDESK_CONFIG"):
        place = tmp_path / variable.lower()
        place.mkdir()
        monkeypatch.setenv(variable, str(place))
    return tmp_path


@pytest.fixture
def session(qapp: QApplication) -> Iterator[QuietSession]:
    """An empty session."""
    made = QuietSession(Settings())
    yield made
    made.close()
