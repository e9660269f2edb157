"""What every page shares: its place on the path, the way back and on, and when it repaints."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtGui import QShowEvent

from tunedesk.core.project import STEPS, StepKey
from tunedesk.gui.session import Session
from tunedesk.gui.widgets import PageFrame


class Page(PageFrame):
    """A step of the path. Subclasses build their widgets once and fill them in `refresh`."""

    go = Signal(str)
    """Ask the window to show the step with this key."""

    def __init__(self, session: Session, key: StepKey, title: str, subtitle: str = "") -> None:
        super().__init__(title, subtitle)
        self.session = session
        self.key: StepKey = key
        self.setObjectName(f"page_{key}")
        place = STEPS.index(key)
        self.next_key: StepKey | None = STEPS[place + 1] if place + 1 < len(STEPS) else None
        self.back_key: StepKey | None = STEPS[place - 1] if place > 0 else None
        self.footer.next_asked.connect(self.on_next)
        self.footer.back_asked.connect(self.on_back)
        session.project_changed.connect(self.refresh_if_visible)
        session.activity_changed.connect(self.refresh_if_visible)
        session.hardware_changed.connect(self.refresh_if_visible)

    def refresh(self) -> None:
        """Show what the session knows now. Called when the page appears and on each change while it is visible."""
        raise NotImplementedError  # pragma: no cover

    def refresh_if_visible(self) -> None:
        """`refresh`, unless nobody would see it."""
        if self.isVisible():
            self.refresh()

    def on_next(self) -> None:
        """Go on to the next step; a page with a stronger act overrides this."""
        if self.next_key:
            self.go.emit(self.next_key)

    def on_back(self) -> None:
        """Go back one step."""
        if self.back_key:
            self.go.emit(self.back_key)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.refresh()
