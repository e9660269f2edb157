"""Where the shipped icons and fonts are, in a checkout and in an installed wheel."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def resources() -> Path:
    """Return the folder that holds `icons` and `fonts`."""
    package = Path(__file__).resolve().parents[2]
    shipped = package / "resources"
    if (shipped / "icons").is_dir():
        return shipped
    return package.parents[1] / "resources"
