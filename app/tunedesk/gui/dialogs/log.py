"""The engine's own words: the end of a log file, kept up to date while it grows."""

from __future__ import annotations

import os
from pathlib import Path

from PySide6.QtCore import QTimer, QUrl
from PySide6.QtGui import QDesktopServices, QGuiApplication, QTextCursor
from PySide6.QtWidgets import QPlainTextEdit, QWidget

from tunedesk.gui.dialogs.base import Dialog
from tunedesk.gui.theme import Theme
from tunedesk.gui.widgets import Button

MOST_BYTES = 256 * 1024
"""As much of a long log as is shown; the file has the rest."""


class LogDialog(Dialog):
    """The last part of a log, followed once a second."""

    def __init__(self, path: Path, *, parent: QWidget | None = None) -> None:
        super().__init__("logDialog", "", str(path), parent=parent)
        title = self.tr("Full log")
        self.setWindowTitle(title)
        self.title_label.setText(title)
        self._path = path
        self._end = 0
        self.text = QPlainTextEdit()
        self.text.setObjectName("log")
        self.text.setAccessibleName(title)
        self.text.setReadOnly(True)
        self.text.setFont(Theme.of().font("mono"))
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setPlaceholderText(self.tr("The engine has printed nothing so far."))
        self.body.addWidget(self.text)
        folder = self.add_button(Button(self.tr("Show in folder"), icon_name="folder"), "folder")
        folder.clicked.connect(lambda: QDesktopServices.openUrl(QUrl.fromLocalFile(str(path.parent))))
        copy = self.add_button(Button(self.tr("Copy"), icon_name="copy"), "copy")
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(self.text.toPlainText()))
        close = self.add_button(Button(self.tr("Close"), "primary"), "close", default=True)
        close.clicked.connect(self.accept)
        timer = QTimer(self, interval=1000)
        timer.timeout.connect(self.read)
        timer.start()
        self.resize(840, 520)
        self.read()

    def read(self) -> None:
        """Add what the log has gained."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._end, size - MOST_BYTES) if size >= self._end else 0)
                added = file.read(MOST_BYTES)
                self._end = file.tell()
        except OSError:
            return
        if added:
            self._append(added.decode("utf-8", "replace").replace("\r", "\n"))

    def _append(self, text: str) -> None:
        bar = self.text.verticalScrollBar()
        at_end = bar.value() >= bar.maximum() - 4
        cursor = QTextCursor(self.text.document())
        cursor.movePosition(QTextCursor.MoveOperation.End)
        cursor.insertText(text)
        if at_end:
            bar.setValue(bar.maximum())
