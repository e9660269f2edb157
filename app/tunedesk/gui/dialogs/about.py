"""What this app is, and of which parts."""

from __future__ import annotations

import platform

from PySide6 import __version__ as pyside_version
from PySide6.QtCore import QUrl
from PySide6.QtGui import QDesktopServices, QGuiApplication
from PySide6.QtWidgets import QWidget

from tunedesk import __version__
from tunedesk.core.paths import data_dir
from tunedesk.gui.dialogs.base import Dialog
from tunedesk.gui.widgets import Button, KeyValueList


class AboutDialog(Dialog):
    """Version, parts, and where everything is kept."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__("aboutDialog", "TuneDesk", parent=parent)
        self.setWindowTitle(self.tr("About TuneDesk"))
        self.sentence.setText(
            self.tr(
                "Fine-tune language models on the computer you already own. "
                "Everything runs here; nothing listens on a network."
            )
        )
        self.sentence.show()
        facts = KeyValueList()
        facts.setObjectName("facts")
        rows = [
            (self.tr("Version"), __version__),
            (self.tr("Python"), platform.python_version()),
            (self.tr("PySide6"), pyside_version),
            (self.tr("Licence"), "Apache-2.0"),
            (self.tr("Runs are kept in"), str(data_dir())),
        ]
        facts.set_rows(rows)
        self.body.addWidget(facts)
        self.body.addStretch(1)
        copy = self.add_button(Button(self.tr("Copy"), icon_name="copy"), "copy")
        words = "\n".join(f"{name}: {value}" for name, value in rows)
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(words))
        folder = self.add_button(Button(self.tr("Show the runs"), icon_name="folder"), "folder")
        folder.clicked.connect(lambda: QDesktopServices.openUrl(QUrl.fromLocalFile(str(data_dir()))))
        close = self.add_button(Button(self.tr("Close"), "primary"), "close", default=True)
        close.clicked.connect(self.accept)
        self.setMinimumWidth(520)
