"""The colours, measures and type scale of TuneDesk. No Qt here: plain values only."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal

Tone = Literal["t1", "t2", "t3", "accent", "ok", "warn", "bad"]
TypeRole = Literal["title", "verdict", "card", "body", "strong", "secondary", "axis", "mono"]

MEMORY_PARTS: Final = ("weights", "adapter", "gradients", "optimiser", "activations", "logits", "overhead")


@dataclass(frozen=True, slots=True)
class MemoryColours:
    """One colour per part of the memory figure, and the text that may lie on it."""

    weights: str
    adapter: str
    gradients: str
    optimiser: str
    activations: str
    logits: str
    overhead: str
    on_weights: str
    on_activations: str
    on_logits: str
    on_overhead: str

    def part(self, name: str) -> str:
        """Return the fill of the part called `name`."""
        return str(getattr(self, name))


@dataclass(frozen=True, slots=True)
class Tokens:
    """Every colour of one theme, as `#RRGGBB`."""

    name: str
    rail: str
    bg: str
    card: str
    sunk: str
    hover: str
    pressed: str
    line: str
    line2: str
    ctl: str
    t1: str
    t2: str
    t3: str
    accent: str
    accent_fill: str
    accent_hover: str
    accent_pressed: str
    on_accent: str
    accent_soft: str
    accent_line: str
    ok: str
    ok_soft: str
    ok_line: str
    warn: str
    warn_soft: str
    warn_line: str
    bad: str
    bad_soft: str
    bad_line: str
    trained_bg: str
    trained_text: str
    trained_line: str
    frozen: str
    chart_train: str
    chart_eval: str
    chart_third: str
    chart_grid: str
    ring_width: int
    memory: MemoryColours

    def colour(self, name: str) -> str:
        """Return the colour called `name`; an unknown name raises `AttributeError`."""
        return str(getattr(self, name))

    def colours(self) -> dict[str, str]:
        """Return every colour by name."""
        names = (field.name for field in fields(self))
        return {name: self.colour(name) for name in names if name not in {"name", "memory", "ring_width"}}


LIGHT: Final = Tokens(
    name="light",
    rail="#F5F6F8",
    bg="#FBFBFC",
    card="#FFFFFF",
    sunk="#F3F4F6",
    hover="#ECEEF1",
    pressed="#E2E5E9",
    line="#E2E5E9",
    line2="#C9CED6",
    ctl="#868D97",
    t1="#191C20",
    t2="#535A64",
    t3="#626975",
    accent="#2B59D0",
    accent_fill="#2B59D0",
    accent_hover="#254EBB",
    accent_pressed="#2044A4",
    on_accent="#FFFFFF",
    accent_soft="#EAF0FD",
    accent_line="#B8CBF6",
    ok="#157347",
    ok_soft="#E6F4EC",
    ok_line="#B3DBC4",
    warn="#8A5300",
    warn_soft="#FDF3E1",
    warn_line="#EBD09B",
    bad="#B3261E",
    bad_soft="#FCEBEA",
    bad_line="#F0BDB9",
    trained_bg="#DCE7FD",
    trained_text="#17398F",
    trained_line="#8CA7E9",
    frozen="#CFD4DB",
    chart_train="#2B59D0",
    chart_eval="#B35200",
    chart_third="#0B7F74",
    chart_grid="#ECEEF1",
    ring_width=2,
    memory=MemoryColours(
        weights="#2F4F8F",
        adapter="#D55E00",
        gradients="#C0649B",
        optimiser="#7B4FB0",
        activations="#147A6D",
        logits="#BF8500",
        overhead="#858C97",
        on_weights="#FFFFFF",
        on_activations="#FFFFFF",
        on_logits="#191C20",
        on_overhead="#101114",
    ),
)

DARK: Final = Tokens(
    name="dark",
    rail="#131417",
    bg="#17191C",
    card="#1D1F23",
    sunk="#141619",
    hover="#26292E",
    pressed="#2E3238",
    line="#2B2E34",
    line2="#40454D",
    ctl="#7B828D",
    t1="#ECEEF1",
    t2="#A9AFB9",
    t3="#8E95A0",
    accent="#86A8FF",
    accent_fill="#3F6AE0",
    accent_hover="#3A63D3",
    accent_pressed="#3459C0",
    on_accent="#FFFFFF",
    accent_soft="#1F2A45",
    accent_line="#35497C",
    ok="#5CC48D",
    ok_soft="#16291F",
    ok_line="#27503A",
    warn="#E3AC4E",
    warn_soft="#2C2314",
    warn_line="#5B4621",
    bad="#F2877F",
    bad_soft="#311B1A",
    bad_line="#643330",
    trained_bg="#253762",
    trained_text="#C9D8FF",
    trained_line="#516AA9",
    frozen="#444951",
    chart_train="#7FA3FF",
    chart_eval="#F0914A",
    chart_third="#45BDB0",
    chart_grid="#25282D",
    ring_width=2,
    memory=MemoryColours(
        weights="#6387D6",
        adapter="#F0914A",
        gradients="#DE8DBB",
        optimiser="#A883DB",
        activations="#3FB5A5",
        logits="#E8B93A",
        overhead="#757C87",
        on_weights="#101114",
        on_activations="#101114",
        on_logits="#101114",
        on_overhead="#101114",
    ),
)

CONTRAST: Final = Tokens(
    name="contrast",
    rail="#000000",
    bg="#000000",
    card="#000000",
    sunk="#000000",
    hover="#262626",
    pressed="#3A3A3A",
    line="#8C8C8C",
    line2="#FFFFFF",
    ctl="#FFFFFF",
    t1="#FFFFFF",
    t2="#F0F0F0",
    t3="#D9D9D9",
    accent="#8CC8FF",
    accent_fill="#8CC8FF",
    accent_hover="#A6D4FF",
    accent_pressed="#BFE0FF",
    on_accent="#000000",
    accent_soft="#00264D",
    accent_line="#8CC8FF",
    ok="#7CE8A8",
    ok_soft="#000000",
    ok_line="#7CE8A8",
    warn="#FFD24D",
    warn_soft="#000000",
    warn_line="#FFD24D",
    bad="#FFA39B",
    bad_soft="#000000",
    bad_line="#FFA39B",
    trained_bg="#00264D",
    trained_text="#FFFFFF",
    trained_line="#8CC8FF",
    frozen="#6E6E6E",
    chart_train="#8CC8FF",
    chart_eval="#FFB05C",
    chart_third="#5FE0D0",
    chart_grid="#3A3A3A",
    ring_width=3,
    memory=MemoryColours(
        weights="#8CB4FF",
        adapter="#FFB05C",
        gradients="#FFA8D8",
        optimiser="#CDA8FF",
        activations="#5FE0D0",
        logits="#FFE066",
        overhead="#C0C0C0",
        on_weights="#101114",
        on_activations="#101114",
        on_logits="#101114",
        on_overhead="#101114",
    ),
)


@dataclass(frozen=True, slots=True)
class Measures:
    """Lengths in device-independent pixels."""

    grid: int = 4
    rail: int = 232
    margin: int = 24
    gap: int = 16
    tight_gap: int = 12
    padding: int = 16
    head: int = 84
    footer: int = 56
    radius_card: int = 8
    radius_control: int = 6
    radius_chip: int = 4
    control: int = 32
    compact: int = 28
    in_row: int = 24
    step: int = 44
    run: int = 28
    log: int = 28
    table_row: int = 40
    icon: int = 16
    icon_stroke: float = 1.5


MEASURES: Final = Measures()


@dataclass(frozen=True, slots=True)
class TypeStyle:
    """A size and line height in pixels, and a weight of 400, 500 or 600."""

    size: int
    line: int
    weight: int
    mono: bool = False


TYPE_SCALE: Final[dict[TypeRole, TypeStyle]] = {
    "title": TypeStyle(20, 28, 600),
    "verdict": TypeStyle(15, 20, 600),
    "card": TypeStyle(13, 20, 600),
    "body": TypeStyle(13, 20, 400),
    "strong": TypeStyle(13, 20, 500),
    "secondary": TypeStyle(12, 16, 400),
    "axis": TypeStyle(11, 16, 500),
    "mono": TypeStyle(12, 16, 400, mono=True),
}


def luminance(colour: str) -> float:
    """Return the relative luminance of `#RRGGBB` as WCAG 2 defines it."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast_ratio(first: str, second: str) -> float:
    """Return the WCAG contrast ratio of two colours, from 1 to 21."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
