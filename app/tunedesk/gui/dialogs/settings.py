"""Settings of the window; each takes effect at once."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QWidget

from tunedesk.core.paths import cache_dir, data_dir
from tunedesk.gui.dialogs.base import Dialog
from tunedesk.gui.places import export_folder
from tunedesk.gui.session import Session
from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets import Button, Card, ElidedLabel, Field, Label, Rule, Segmented

SCALES = ("0.9", "1.0", "1.15", "1.3", "1.5")


class SettingsDialog(Dialog):
    """Theme, text size and folders."""

    def __init__(self, session: Session, *, parent: QWidget | None = None) -> None:
        super().__init__("settingsDialog", "", parent=parent)
        self._session = session
        self.setWindowTitle(self.tr("Settings"))
        self.title_label.setText(self.tr("Settings"))
        self.body.addWidget(self._look())
        self.body.addWidget(self._folders())
        self.body.addStretch(1)
        close = self.add_button(Button(self.tr("Close"), "primary"), "close", default=True)
        close.clicked.connect(self.accept)
        self.setMinimumWidth(600)

    def _look(self) -> Card:
        card = Card(self.tr("Look"))
        settings = self._session.settings
        themes = (
            ("system", self.tr("System")),
            ("light", self.tr("Light")),
            ("dark", self.tr("Dark")),
            ("contrast", self.tr("High contrast")),
        )
        self.theme = Segmented(themes, settings.theme, name=self.tr("Theme"))
        self.theme.setObjectName("theme")
        self.theme.chosen.connect(self._set_theme)
        card.add(Field(self.tr("Theme"), self.theme, self.tr("System follows your desktop."), inline=True))
        card.add(Rule())
        sizes = tuple((scale, f"{float(scale):.0%}") for scale in SCALES)
        nearest = min(SCALES, key=lambda scale: abs(float(scale) - settings.text_scale))
        self.text_size = Segmented(sizes, nearest, name=self.tr("Text size"))
        self.text_size.setObjectName("textSize")
        self.text_size.chosen.connect(self._set_scale)
        help_text = self.tr("Parts that are open keep some of their measures until the next start.")
        card.add(Field(self.tr("Text size"), self.text_size, help_text, inline=True))
        return card

    def _set_theme(self, key: str) -> None:
        Theme.of().set_mode(key)  # type: ignore[arg-type]
        self._session.change_settings(theme=key)

    def _set_scale(self, key: str) -> None:
        Theme.of().set_text_scale(float(key))
        self._session.change_settings(text_scale=float(key))

    def _folders(self) -> Card:
        card = Card(self.tr("Folders"))
        self.export_line = ElidedLabel(str(export_folder(self._session.settings)), "secondary", "t2")
        self.export_line.setObjectName("exportFolder")
        choose = Button(self.tr("Choose"), compact=True)
        choose.setObjectName("chooseExport")
        choose.setAccessibleName(self.tr("Choose the folder for saved results"))
        choose.clicked.connect(self._choose_export)
        card.add_layout(self._folder_row(self.tr("Saved results"), self.export_line, choose))
        for name, title, path in (
            ("runs", self.tr("Runs"), data_dir()),
            ("cache", self.tr("Fetched models"), cache_dir()),
        ):
            card.add(Rule())
            line = ElidedLabel(str(path), "secondary", "t2")
            line.setObjectName(f"{name}Folder")
            card.add_layout(self._folder_row(title, line, self._show_button(name, title, path)))
        return card

    def _show_button(self, name: str, title: str, path: Path) -> Button:
        button = Button(self.tr("Show"), compact=True)
        button.setObjectName(f"show_{name}")
        button.setAccessibleName(self.tr("Show the folder: {0}").format(title))
        button.clicked.connect(lambda: QDesktopServices.openUrl(QUrl.fromLocalFile(str(path))))
        return button

    @staticmethod
    def _folder_row(title: str, line: ElidedLabel, button: Button) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(12)
        label = Label(title, "strong")
        label.setMinimumWidth(120)
        row.addWidget(label)
        row.addWidget(line, 1)
        row.addWidget(button)
        return row

    def _choose_export(self) -> None:
        now = str(export_folder(self._session.settings))
        chosen = QFileDialog.getExistingDirectory(self, self.tr("Folder for saved results"), now)
        if chosen:
            self._session.change_settings(export_folder=chosen)
            self.export_line.setText(chosen)
