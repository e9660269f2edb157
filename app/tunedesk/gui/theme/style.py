"""The theme: one object that gives the application its palette, style sheet, fonts and style."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final, Literal, Self, cast

from PySide6.QtCore import QObject, Qt, QTemporaryDir, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QGuiApplication, QPalette
from PySide6.QtWidgets import QApplication

from tunedesk.gui.theme.focus import FocusWatcher
from tunedesk.gui.theme.icons import svg
from tunedesk.gui.theme.paths import resources
from tunedesk.gui.theme.proxy import DeskStyle
from tunedesk.gui.theme.qss import style_sheet
from tunedesk.gui.theme.tokens import CONTRAST, DARK, LIGHT, TYPE_SCALE, Tokens, TypeRole

Mode = Literal["system", "light", "dark", "contrast"]

_PROPERTY: Final = "tunedesk_theme"
_FIXED: Final = {"light": LIGHT, "dark": DARK, "contrast": CONTRAST}
_SANS: Final = ["Inter", "Segoe UI", "Noto Sans", "sans-serif"]
_MONO: Final = ["JetBrains Mono", "Consolas", "DejaVu Sans Mono", "monospace"]


class Theme(QObject):
    """The look of the application.

    A widget reads `Theme.of().tokens` whenever it paints, so a change of theme needs no wiring: the
    new palette repaints every widget. Only what keeps colours (a chart, a text document) listens to `changed`.
    """

    changed = Signal()

    def __init__(self, mode: Mode = "system", *, text_scale: float = 1.0, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._mode: Mode = mode
        self._text_scale = text_scale
        self._app: QApplication | None = None
        self._images: QTemporaryDir | None = None
        self._focus: FocusWatcher | None = None
        self._tokens = LIGHT
        self.reduced_motion = False

    @classmethod
    def of(cls) -> Self:
        """Return the theme of the running application; without one, a light theme is applied first."""
        app = cast(QApplication, QApplication.instance())
        found = app.property(_PROPERTY)
        if isinstance(found, cls):
            return found
        theme = cls("light")
        theme.apply(app)
        return theme

    @property
    def tokens(self) -> Tokens:
        """The colours of the moment."""
        return self._tokens

    @property
    def mode(self) -> Mode:
        """What was asked for: a fixed theme, or the system's."""
        return self._mode

    @property
    def text_scale(self) -> float:
        """The factor on every text size."""
        return self._text_scale

    def set_mode(self, mode: Mode) -> None:
        """Change to another theme."""
        self._mode = mode
        self._refresh()

    def set_text_scale(self, scale: float) -> None:
        """Make all text larger or smaller."""
        self._text_scale = scale
        self._refresh()

    def color(self, name: str) -> QColor:
        """Return the token called `name` as a QColor."""
        return QColor(self._tokens.colour(name))

    def font(self, role: TypeRole = "body", *, weight: int | None = None) -> QFont:
        """Return the font of a type role, with tabular figures."""
        return QFont(_font(role, self._text_scale, weight))

    def px(self, length: float) -> int:
        """Return a length that grows with the text, in whole pixels."""
        return round(length * max(1.0, self._text_scale))

    def apply(self, app: QApplication) -> None:
        """Give `app` this look, and keep it in step with the system."""
        load_fonts()
        self._app = app
        self.setParent(app)
        app.setProperty(_PROPERTY, self)
        self._tokens = self._resolve()
        app.setStyle(DeskStyle())
        self._focus = FocusWatcher(app)
        QGuiApplication.styleHints().colorSchemeChanged.connect(self._system_changed)
        self._refresh()

    def _system_changed(self) -> None:
        if self._mode == "system":
            self._refresh()

    def _resolve(self) -> Tokens:
        if self._mode != "system":
            return _FIXED[self._mode]
        if _system_wants_contrast():
            return CONTRAST
        scheme = QGuiApplication.styleHints().colorScheme()
        return DARK if scheme is Qt.ColorScheme.Dark else LIGHT

    def _refresh(self) -> None:
        if self._app is None:
            return
        self._tokens = self._resolve()
        self._app.setFont(self.font())
        self._app.setPalette(palette(self._tokens))
        self._app.setStyleSheet(style_sheet(self._tokens, self._text_scale, self._write_images()))
        self.changed.emit()

    def _write_images(self) -> Path:
        self._images = QTemporaryDir()
        folder = Path(self._images.path())
        for name in ("chevron-down", "chevron-right"):
            for suffix, role in (("", "t2"), ("-off", "t3")):
                path = folder / f"{name}{suffix}.svg"
                path.write_text(svg(name, self._tokens.colour(role), 12), encoding="utf-8")
        return folder


@cache
def load_fonts() -> tuple[str, ...]:
    """Register the shipped fonts once, and return their families."""
    files = sorted((resources() / "fonts").glob("*.[ot]tf"))
    handles = [QFontDatabase.addApplicationFont(str(path)) for path in files]
    return tuple(QFontDatabase.applicationFontFamilies(handle)[0] for handle in handles if handle >= 0)


@cache
def _font(role: TypeRole, scale: float, weight: int | None) -> QFont:
    style = TYPE_SCALE[role]
    font = QFont()
    font.setFamilies(_MONO if style.mono else _SANS)
    font.setPixelSize(round(style.size * scale))
    font.setWeight(QFont.Weight(weight or style.weight))
    font.setHintingPreference(QFont.HintingPreference.PreferNoHinting)
    font.setFeature(QFont.Tag("tnum"), 1)
    if style.mono:
        font.setFeature(QFont.Tag("liga"), 0)
        font.setFeature(QFont.Tag("calt"), 0)
    return font


def _system_wants_contrast() -> bool:
    """Qt tells the system's wish for contrast since 6.10."""
    hints = getattr(QGuiApplication.styleHints(), "accessibility", None)
    if hints is None:
        return False
    return bool(hints().contrastPreference() == Qt.ContrastPreference.HighContrast)


def palette(tokens: Tokens) -> QPalette:
    """Return the palette made of `tokens`."""
    role = QPalette.ColorRole
    colours = {
        role.Window: tokens.bg,
        role.Base: tokens.card,
        role.AlternateBase: tokens.sunk,
        role.Button: tokens.card,
        role.Text: tokens.t1,
        role.WindowText: tokens.t1,
        role.ButtonText: tokens.t1,
        role.BrightText: tokens.t1,
        role.PlaceholderText: tokens.t3,
        role.Highlight: tokens.accent_fill,
        role.HighlightedText: tokens.on_accent,
        role.Link: tokens.accent,
        role.LinkVisited: tokens.accent,
        role.Mid: tokens.line,
        role.Dark: tokens.line2,
        role.Light: tokens.card,
        role.Midlight: tokens.line,
        role.Shadow: tokens.line2,
        role.ToolTipBase: tokens.t1,
        role.ToolTipText: tokens.card,
        role.Accent: tokens.accent_fill,
    }
    made = QPalette()
    for name, colour in colours.items():
        made.setColor(name, QColor(colour))
    for name in (role.Text, role.WindowText, role.ButtonText):
        made.setColor(QPalette.ColorGroup.Disabled, name, QColor(tokens.t3))
    return made
