"""Where the window proposes to save things."""

from __future__ import annotations

import re
from pathlib import Path

from PySide6.QtCore import QStandardPaths

from tunedesk.core.settings import Settings


def export_folder(settings: Settings) -> Path:
    """The folder that takes saved adapters: the chosen one, or Documents/TuneDesk."""
    if settings.export_folder:
        return Path(settings.export_folder)
    documents = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.DocumentsLocation)
    return Path(documents or Path.home()) / "TuneDesk"


def file_name(words: str) -> str:
    """`words` as the name of a file or folder that every system takes."""
    return re.sub(r"[^\w]+", "-", words.lower()).strip("-")[:60] or "run"
