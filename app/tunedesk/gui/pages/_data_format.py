"""How the file is read: its format, what a row holds, which columns are used."""

from __future__ import annotations

from typing import Final

from PySide6.QtWidgets import QSizePolicy, QWidget

from tunedesk.core.describe import DataInfo
from tunedesk.gui import task_words, words
from tunedesk.gui.widgets import Card, KeyValueList

_FORMATS: Final = {
    "jsonl": "JSON Lines",
    "json": "JSON",
    "csv": "CSV",
    "tsv": "TSV",
    "parquet": "Parquet",
    "txt": "Plain text",
}


class FormatCard(Card):
    """Facts about the file."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__("", parent=parent)
        self.set_title(self.tr("Read as"))
        self.setObjectName("format")
        self.facts = KeyValueList()
        self.facts.setObjectName("formatFacts")
        self.add(self.facts)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)

    def show_file(self, info: DataInfo | None) -> None:
        """Show the facts; while nothing is known, their names alone."""
        names = [self.tr("Format"), self.tr("A row holds"), self.tr("Columns"), self.tr("Rows")]
        values = self._values(info) if info else [""] * len(names)
        rows = list(zip(names, values, strict=True))
        if info and info.problem_type == "regression":
            rows.append((self.tr("Numbers"), task_words.span(info)))
        self.facts.set_rows(rows)

    def _values(self, info: DataInfo) -> list[str]:
        used = [name if role == name else f"{name} ({self._role(role, info)})" for role, name in info.columns.items()]
        rows = self.tr("%1 to learn from, %2 held out")
        rows = rows.replace("%1", words.count(info.train_rows)).replace("%2", words.count(info.eval_rows))
        return [_FORMATS.get(info.file_format, info.file_format), self._layout(info), words.listed(used), rows]

    def _role(self, role: str, info: DataInfo) -> str:
        """What a column is, in the words of the boxes in which columns are named."""
        if info.task == "seq2seq":
            return {"prompt": self.tr("text"), "completion": self.tr("result")}.get(role, role)
        if info.layout == "rated" and role == "label":
            return self.tr("rating")
        return role

    def _layout(self, info: DataInfo) -> str:
        layouts = {
            "messages": self.tr("A list of messages, each with a role"),
            "sharegpt": self.tr("A list of turns, as ShareGPT writes them"),
            "alpaca": self.tr("An instruction, its input and the output"),
            "prompt_completion": self.tr("A question and its answer"),
            "text": self.tr("One text"),
            "labelled": self.tr("A text and its label"),
            "preference": self.tr("Two answers, the better and the worse"),
            "rated": self.tr("An answer, rated good or bad"),
        }
        if info.task == "seq2seq":
            return self.tr("A text and what becomes of it")
        if info.problem_type == "regression":
            layouts["labelled"] = self.tr("A text and its number")
        if info.problem_type == "multi_label":
            layouts["labelled"] = self.tr("A text and its labels")
        if "text_pair" in info.columns:
            ends = {"regression": self.tr("number"), "multi_label": self.tr("labels")}
            what = ends.get(info.problem_type or "", self.tr("label"))
            return self.tr("Two texts and the {0} of the pair").format(what)
        return layouts[info.layout]
