"""What the window remembers between two starts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tunedesk.core.events import Sampling
from tunedesk.core.paths import config_dir
from tunedesk.core.runs import write_atomic


class Settings(BaseModel):
    """All settings of the window, each with its default."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = 1
    theme: Literal["system", "light", "dark", "contrast"] = "system"
    text_scale: float = 1.0
    window_width: int = 1280
    window_height: int = 800
    model_source: str = ""
    data_source: str = ""
    export_folder: str = ""
    system_prompt: str = ""
    sampling: Sampling = Sampling()
    loss_view: Literal["smooth", "raw", "log"] = "smooth"
    recent_models: tuple[str, ...] = ()
    recent_data: tuple[str, ...] = ()


def settings_file() -> Path:
    """Where the settings are kept."""
    return config_dir() / "settings.json"


def load_settings() -> Settings:
    """The saved settings, or the defaults when there are none; a damaged file is set aside, not lost."""
    path = settings_file()
    try:
        return Settings.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Settings()
    except (ValidationError, OSError):
        if path.is_file():
            path.replace(path.with_suffix(".damaged.json"))
        return Settings()


def save_settings(settings: Settings) -> None:
    """Write the settings. Raises `OSError`."""
    path = settings_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, settings.model_dump_json(indent=2) + "\n")
