"""Whether a window can be shown here."""

from __future__ import annotations

import os
import sys


def has_display(environment: dict[str, str] | None = None, platform: str = sys.platform) -> bool:
    """Whether Qt would find a screen; `QT_QPA_PLATFORM`, when set, is taken at its word."""
    environment = dict(os.environ) if environment is None else environment
    if platform in ("win32", "darwin") or environment.get("QT_QPA_PLATFORM"):
        return True
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))
