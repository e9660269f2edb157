"""The colours can be read, the icons can be seen, and the theme follows what it is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PySide6.QtCore import QSize
from PySide6.QtGui import QColor, QFont, QImage
from PySide6.QtWidgets import QApplication, QLabel

from tunedesk.gui.theme import (
    CONTRAST,
    DARK,
    LIGHT,
    TYPE_SCALE,
    Mode,
    Theme,
    Tokens,
    contrast_ratio,
    icon_names,
    pixmap,
)
from tunedesk.gui.theme import icon as themed_icon
from tunedesk.gui.theme.tokens import MEMORY_PARTS
from tunedesk.gui.widgets import Label

ALL = [LIGHT, DARK, CONTRAST]
MODES: list[Mode] = ["light", "dark", "contrast"]
SURFACES = ("rail", "bg", "card", "sunk", "hover")
TEXTS = ("t1", "t2", "t3", "accent")


@pytest.fixture
def theme(qapp: QApplication) -> Iterator[Theme]:
    found = Theme.of()
    before = found.mode
    yield found
    found.set_text_scale(1.0)
    found.set_mode(before)


def least(tokens: Tokens) -> float:
    return 7.0 if tokens is CONTRAST else 4.5


@pytest.mark.parametrize("tokens", ALL, ids=lambda tokens: tokens.name)
@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("text", TEXTS)
def test_that_text_can_be_read_on_every_surface(tokens: Tokens, surface: str, text: str) -> None:
    assert contrast_ratio(tokens.colour(text), tokens.colour(surface)) >= least(tokens)


@pytest.mark.parametrize("tokens", ALL, ids=lambda tokens: tokens.name)
@pytest.mark.parametrize("state", ["ok", "warn", "bad"])
def test_that_the_colour_of_a_state_can_be_read(tokens: Tokens, state: str) -> None:
    for surface in ("rail", "bg", "card", "sunk", f"{state}_soft"):
        assert contrast_ratio(tokens.colour(state), tokens.colour(surface)) >= least(tokens)


@pytest.mark.parametrize("tokens", ALL, ids=lambda tokens: tokens.name)
def test_that_text_on_filled_grounds_can_be_read(tokens: Tokens) -> None:
    pairs = [
        (tokens.on_accent, tokens.accent_fill),
        (tokens.on_accent, tokens.accent_hover),
        (tokens.on_accent, tokens.accent_pressed),
        (tokens.accent, tokens.accent_soft),
        (tokens.t1, tokens.accent_soft),
        (tokens.t2, tokens.accent_soft),
        (tokens.trained_text, tokens.trained_bg),
        (tokens.t1, tokens.warn_soft),
        (tokens.t1, tokens.bad_soft),
        (tokens.t1, tokens.ok_soft),
    ]
    for ink, ground in pairs:
        assert contrast_ratio(ink, ground) >= least(tokens), (ink, ground)


@pytest.mark.parametrize("tokens", ALL, ids=lambda tokens: tokens.name)
def test_that_labels_on_segments_can_be_read(tokens: Tokens) -> None:
    memory = tokens.memory
    for part in ("weights", "activations", "logits"):
        assert contrast_ratio(getattr(memory, f"on_{part}"), memory.part(part)) >= least(tokens)
    assert len({memory.part(part) for part in MEMORY_PARTS}) == len(MEMORY_PARTS)


@pytest.mark.parametrize("tokens", ALL, ids=lambda tokens: tokens.name)
def test_that_controls_and_lines_of_charts_stand_out(tokens: Tokens) -> None:
    for name in ("ctl", "chart_train", "chart_eval", "chart_third"):
        assert contrast_ratio(tokens.colour(name), tokens.card) >= 3.0, name


def shows_something(image: QImage) -> bool:
    return any(image.pixelColor(x, y).alpha() > 100 for x in range(image.width()) for y in range(image.height()))


@pytest.mark.parametrize("mode", MODES)
def test_that_every_icon_renders_in_every_theme(theme: Theme, mode: Mode) -> None:
    theme.set_mode(mode)
    for name in icon_names():
        image = themed_icon(name, "t2").pixmap(16, 16).toImage()
        assert image.width() == 16
        assert shows_something(image), name


def test_that_an_icon_takes_the_colour_of_the_theme(theme: Theme) -> None:
    made = themed_icon("stop", "accent")
    for mode, tokens in (("light", LIGHT), ("dark", DARK)):
        theme.set_mode(mode)
        image = made.pixmap(32, 32).toImage()
        strongest = max(
            (image.pixelColor(x, y) for x in range(32) for y in range(32)), key=lambda colour: colour.alpha()
        )
        wanted = QColor(tokens.accent)
        assert abs(strongest.red() - wanted.red()) < 12
        assert abs(strongest.blue() - wanted.blue()) < 12


def test_that_icons_are_sharp_on_dense_screens(qapp: QApplication) -> None:
    image = pixmap("tick", 16, "#000000", 2.0)
    assert image.width() == 32
    assert image.deviceIndependentSize().width() == 16


def test_that_an_unknown_icon_is_refused(qapp: QApplication) -> None:
    with pytest.raises(ValueError, match="no-such-icon"):
        themed_icon("no-such-icon")


def test_that_a_change_of_mode_reaches_palette_and_listeners(theme: Theme, qapp: QApplication) -> None:
    heard: list[str] = []
    theme.changed.connect(lambda: heard.append(theme.tokens.name))
    theme.set_mode("dark")
    assert heard == ["dark"]
    assert qapp.palette().window().color() == QColor(DARK.bg)
    assert DARK.card in qapp.styleSheet()


def test_that_text_grows_with_the_scale(theme: Theme) -> None:
    label = Label("Training", "title")
    theme.set_text_scale(1.5)
    label.ensurePolished()
    assert label.font().pixelSize() == 30
    assert theme.font("body").pixelSize() == round(13 * 1.5)


def test_that_figures_are_tabular_in_labels(theme: Theme) -> None:
    label = Label("1", "title")
    label.ensurePolished()
    assert label.font().featureValue(QFont.Tag("tnum")) == 1
    assert label.font().weight() == TYPE_SCALE["title"].weight


def test_that_the_shipped_fonts_are_used(theme: Theme) -> None:
    from PySide6.QtGui import QFontInfo

    assert QFontInfo(theme.font("body")).family().startswith("Inter")
    assert QFontInfo(theme.font("mono")).family() == "JetBrains Mono"


def test_that_the_tone_of_a_label_is_its_colour(theme: Theme) -> None:
    label = QLabel("x")
    label.setProperty("tone", "bad")
    label.ensurePolished()
    assert label.palette().windowText().color() == QColor(LIGHT.bad)


def test_that_a_themed_icon_has_the_pixels_of_a_dense_screen(theme: Theme) -> None:
    made = themed_icon("alert", "warn").pixmap(QSize(28, 28), 2.0)
    assert made.size() == QSize(56, 56)
    assert made.devicePixelRatio() == 2.0
