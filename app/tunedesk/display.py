"""Whether a window can be shown here."""

from __future__ import annotations

import os
import sys

UNSEEN = ("offscreen", "minimal")
"""Qt platforms that draw where nobody can look."""


def has_display(environment: dict[str, str] | None = None, platform: str = sys.platform) -> bool:
    """Whether Qt would find a screen. A `QT_QPA_PLATFORM` that shows something is taken at its word."""
    environment = dict(os.environ) if environment is None else environment
    chosen = environment.get("QT_QPA_PLATFORM", "").partition(":")[0]
    if chosen:
        return chosen not in UNSEEN
    if platform in ("win32", "darwin"):
        return True
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))
