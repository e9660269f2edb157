"""Colours, type, icons and the style of the whole window."""

from tunedesk.gui.theme.icons import icon, icon_names, pixmap
from tunedesk.gui.theme.style import Mode, Theme
from tunedesk.gui.theme.tokens import (
    CONTRAST,
    DARK,
    LIGHT,
    MEASURES,
    MEMORY_PARTS,
    TYPE_SCALE,
    MemoryColours,
    Tokens,
    Tone,
    TypeRole,
    contrast_ratio,
)

__all__ = [
    "CONTRAST",
    "DARK",
    "LIGHT",
    "MEASURES",
    "MEMORY_PARTS",
    "TYPE_SCALE",
    "MemoryColours",
    "Mode",
    "Theme",
    "Tokens",
    "Tone",
    "TypeRole",
    "contrast_ratio",
    "icon",
    "icon_names",
    "pixmap",
]
