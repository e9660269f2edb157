"""What stands out in the data: the findings of the Data page, each with its place and what can be done."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from tunedesk.core.describe import DataInfo, Finding
from tunedesk.gui import words
from tunedesk.gui.pages._parts import ContentScroll
from tunedesk.gui.session import Session
from tunedesk.gui.widgets import Card, CheckItem, CheckList, Rule

PLACES: Final = 3
"""How many rows of a finding are named."""


def raised_length(info: DataInfo) -> int:
    """A `max_length` that cuts nothing: the longest row, rounded up to 64."""
    longest = info.tokens.longest if info.tokens else 0
    return -(-longest // 64) * 64


class FindingsCard(Card):
    """Findings with their rows; a row that is among the examples can be shown."""

    shown = Signal(int)
    """Show the example at this place, from 0 on."""

    def __init__(self, session: Session, *, parent: QWidget | None = None) -> None:
        super().__init__("", padded=False, parent=parent)
        self.set_title(self.tr("Findings"))
        self.setObjectName("findingsCard")
        self._session = session
        self.list = CheckList()
        self.list.setObjectName("findings")
        self.list.action_chosen.connect(self._on_action)
        self.add(Rule())
        self.add(ContentScroll(self.list, at_least=88), 1)
        self.body.setSpacing(0)

    def _on_action(self, key: str, action: str) -> None:
        info = self._session.project.data
        finding = next((item for item in info.findings if item.code == key), None) if info else None
        if info is None or finding is None:
            return
        if action == "raise":
            self._session.set_training(max_length=self.raised(info))
        elif action == "show" and (place := self._place_of(finding)) is not None:
            self.shown.emit(place)

    def show_findings(self, info: DataInfo | None, *, loading: bool) -> None:
        """Show what was found; a sound file says so."""
        if info is None:
            text = self.tr("Looking at every row") if loading else words.DASH
            self.list.set_items([CheckItem("waiting", "running" if loading else "waiting", text)])
            return
        items = [self._item(finding, info) for finding in info.findings]
        if not any(item.status == "warn" for item in items):
            sound = {
                "chat": self.tr("Format, roles and held-out rows are sound"),
                "classification": self.tr("Format, labels and held-out rows are sound"),
            }.get(info.task, self.tr("Format, columns and held-out rows are sound"))
            items.append(CheckItem("sound", "ok", sound, self.tr("Every row can be learned from.")))
        self.list.set_items(items)

    def _item(self, finding: Finding, info: DataInfo) -> CheckItem:
        actions: list[tuple[str, str]] = []
        if info.tokens and info.tokens.cut_rows and _is_about_length(finding):
            actions.append(("raise", self.tr("Raise to %1").replace("%1", words.count(self.raised(info)))))
        if self._place_of(finding) is not None:
            actions.append(("show", self.tr("Show")))
        detail = f"{finding.detail} {self._places(finding)}".strip()
        return CheckItem(finding.code, finding.level, finding.text, detail, tuple(actions))

    def _places(self, finding: Finding) -> str:
        """Where it is: the first rows, and how many more."""
        if not finding.rows:
            return ""
        shown = [words.count(row) for row in finding.rows[:PLACES]]
        more = finding.count - len(shown)
        if more > 0:
            shown.append(self.tr("%1 more").replace("%1", words.count(more)))
        word = self.tr("Row %1.") if finding.count == 1 else self.tr("Rows %1.")
        return word.replace("%1", words.listed(shown))

    def raised(self, info: DataInfo) -> int:
        """A length that cuts nothing, or the longest that the model can read."""
        model = self._session.project.model
        limit = model.context_length if model else None
        return min(raised_length(info), limit) if limit else raised_length(info)

    def _place_of(self, finding: Finding) -> int | None:
        """Where in the examples one of the finding's rows is."""
        return next((at for at, row in enumerate(self._session.examples) if row.row in finding.rows), None)


def _is_about_length(finding: Finding) -> bool:
    return any(word in finding.code for word in ("long", "cut", "length", "unusable"))
