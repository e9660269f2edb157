"""The style sheet, built from the tokens."""

from __future__ import annotations

from pathlib import Path
from string import Template

from tunedesk.gui.theme.tokens import TYPE_SCALE, Tokens

_TONES = ("t1", "t2", "t3", "accent", "ok", "warn", "bad")

_SHEET = Template("""
QToolTip { background: $t1; color: $card; border: 1px solid $t1; border-radius: 6px; padding: 6px 8px;
    font-size: ${fs12}px; }
QMainWindow, QDialog { background: $bg; }

QLineEdit, QComboBox, QPlainTextEdit, QTextEdit {
    background: $card; color: $t1; border: 1px solid $line2; border-radius: 6px;
    selection-background-color: $accent_fill; selection-color: $on_accent; }
QLineEdit, QPlainTextEdit, QTextEdit { placeholder-text-color: $t3; }
QLineEdit, QComboBox { min-height: ${h30}px; padding: 0 10px; }
QPlainTextEdit, QTextEdit { padding: 6px 8px; }
QLineEdit[compact="true"], QComboBox[compact="true"] { min-height: ${h26}px; font-size: ${fs12}px; }
QAbstractSpinBox[compact="true"] { font-size: ${fs12}px; }
QLineEdit:hover, QComboBox:hover { border-color: $ctl; }
QLineEdit:focus, QPlainTextEdit:focus, QTextEdit:focus { border-color: $accent; }
QLineEdit:disabled, QComboBox:disabled, QPlainTextEdit:disabled {
    background: $sunk; color: $t3; border-color: $line; }
QLineEdit[wrong="true"], QComboBox[wrong="true"],
QPlainTextEdit[wrong="true"] { border-color: $bad; }
QTextEdit[bare="true"], QPlainTextEdit[bare="true"], QLineEdit[bare="true"] {
    border: 0; background: transparent; padding: 0; }

QAbstractSpinBox QLineEdit, QComboBox QLineEdit { border: 0; padding: 0; min-height: 0;
    background: transparent; }

QComboBox { padding-right: 26px; combobox-popup: 0; }
QComboBox::drop-down { subcontrol-origin: border; subcontrol-position: center right; width: 28px; border: 0; }
QComboBox::down-arrow { image: url($images/chevron-down.svg); width: 12px; height: 12px; }
QComboBox::down-arrow:disabled { image: url($images/chevron-down-off.svg); }
QComboBox QAbstractItemView { background: $card; color: $t1; border: 1px solid $line2; border-radius: 6px;
    padding: 4px; outline: 0; selection-background-color: $hover; selection-color: $t1; }
QComboBox QAbstractItemView::item { min-height: ${h28}px; padding: 0 8px; border-radius: 4px; }
QComboBox QAbstractItemView::item:selected { background: $hover; color: $t1; }

.QPushButton { background: $card; color: $t1; border: 1px solid $line2; border-radius: 6px; min-height: ${h30}px;
    padding: 0 12px; font-weight: 500; }
.QPushButton:hover { background: $hover; }
.QPushButton:pressed { background: $pressed; }
.QPushButton:default { background: $accent_fill; color: $on_accent; border-color: $accent_fill; }
.QPushButton:disabled { background: transparent; color: $t3; border-color: $line; }

QMenu { background: $card; color: $t1; border: 1px solid $line2; border-radius: 8px; padding: 4px; }
QMenu::item { min-height: ${h20}px; padding: 4px 24px 4px 12px; border-radius: 4px; }
QMenu::item:selected { background: $hover; }
QMenu::item:disabled { color: $t3; }
QMenu::icon { padding-left: 8px; }
QMenu::separator { height: 1px; background: $line; margin: 4px 8px; }

QScrollArea, QScrollArea > QWidget > QWidget { background: transparent; border: 0; }
QAbstractScrollArea::corner { background: transparent; }
QScrollBar:vertical { background: transparent; width: 10px; margin: 0; border: 0; }
QScrollBar:horizontal { background: transparent; height: 10px; margin: 0; border: 0; }
QScrollBar::handle { background: $line2; border-radius: 3px; }
QScrollBar::handle:vertical { margin: 2px; min-height: 28px; }
QScrollBar::handle:horizontal { margin: 2px; min-width: 28px; }
QScrollBar::handle:hover, QScrollBar::handle:pressed { background: $ctl; }
QScrollBar::add-line, QScrollBar::sub-line, QScrollBar::add-page, QScrollBar::sub-page {
    background: transparent; border: 0; width: 0; height: 0; }

QTableView, QListView, QTreeView { background: $card; color: $t1; border: 0; gridline-color: $line; outline: 0;
    selection-background-color: $accent_soft; selection-color: $t1; alternate-background-color: $sunk; }
QTableView::item, QTreeView::item { border-bottom: 1px solid $line; padding: 0 8px; }
QTableView::item:selected, QTreeView::item:selected { background: $accent_soft; color: $t1; }
QHeaderView { background: $card; border: 0; }
QHeaderView::section { background: $card; color: $t2; border: 0; border-bottom: 1px solid $line; padding: 4px 8px;
    font-size: ${fs11}px; font-weight: 500; }
QTableCornerButton::section { background: $card; border: 0; }

QSlider { min-height: 20px; }
QSlider::groove:horizontal { height: 4px; border-radius: 2px; background: $line2; }
QSlider::sub-page:horizontal { height: 4px; border-radius: 2px; background: $accent_fill; }
QSlider::handle:horizontal { width: 12px; height: 12px; margin: -5px 0; border-radius: 7px; background: $card;
    border: 1px solid $ctl; }
QSlider::handle:horizontal:hover, QSlider::handle:horizontal:focus { border-color: $accent; }
QSlider::sub-page:horizontal:disabled { background: $line2; }

QProgressBar { background: $hover; border: 0; border-radius: 4px; max-height: 8px; color: transparent; }
QProgressBar::chunk { background: $accent_fill; border-radius: 4px; }
QTabWidget::pane { border: 0; border-top: 1px solid $line; }
QTabBar::tab { color: $t2; padding: 6px 12px; border-bottom: 2px solid transparent; }
QTabBar::tab:hover { color: $t1; }
QTabBar::tab:selected { color: $t1; border-bottom: 2px solid $accent; }
QSplitter::handle { background: $line; }
QCheckBox, QRadioButton { min-height: ${h20}px; }
""")


def style_sheet(tokens: Tokens, text_scale: float, images: Path) -> str:
    """Return the style sheet of the whole application."""
    values = tokens.colours() | _lengths(text_scale) | {"images": images.as_posix()}
    return _SHEET.substitute(values) + _labels(tokens, text_scale)


def _lengths(scale: float) -> dict[str, str]:
    grow = max(1.0, scale)
    sizes = {f"fs{size}": str(round(size * scale)) for size in (11, 12, 13)}
    heights = {f"h{height}": str(round(height * grow)) for height in (20, 26, 28, 30)}
    return sizes | heights


def _labels(tokens: Tokens, scale: float) -> str:
    tones = [f'QLabel[tone="{tone}"] {{ color: {tokens.colour(tone)}; }}' for tone in _TONES]
    roles = [
        f'QLabel[type="{role}"] {{ font-size: {round(style.size * scale)}px; font-weight: {style.weight};'
        f" min-height: {round(style.line * max(1.0, scale))}px; }}"
        for role, style in TYPE_SCALE.items()
    ]
    mono = 'QLabel[type="mono"] { font-family: "JetBrains Mono"; }'
    return "\n".join([*tones, *roles, mono])
