"""Where the app keeps things. Each place can be moved with an environment variable, which the tests use."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

APP = "tunedesk"


def _place(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or default).expanduser()


def cache_dir() -> Path:
    """Models that were fetched or unpacked; may be deleted at any time (`TUNEDESK_CACHE`)."""
    return _place("TUNEDESK_CACHE", platformdirs.user_cache_dir(APP, appauthor=False))


def data_dir() -> Path:
    """The user's runs (`TUNEDESK_HOME`)."""
    return _place("TUNEDESK_HOME", platformdirs.user_data_dir(APP, appauthor=False))


def config_dir() -> Path:
    """Settings of the window (`TUNEDESK_CONFIG`)."""
    return _place("TUNEDESK_CONFIG", platformdirs.user_config_dir(APP, appauthor=False))


def runs_dir() -> Path:
    """The folder that holds one folder per run."""
    return data_dir() / "runs"


def resources_dir() -> Path:
    """Shipped files: inside the package when installed, beside `app/` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "resources"
    return inside if inside.is_dir() else package.parents[1] / "resources"


def general_text() -> Path:
    """Ordinary English prose, by which forgetting is measured."""
    return resources_dir() / "texts" / "general.txt"


def starter_data(name: str) -> Path:
    """The starter dataset `name` (``support`` or ``finance``)."""
    return resources_dir() / "datasets" / f"{name}.jsonl"
