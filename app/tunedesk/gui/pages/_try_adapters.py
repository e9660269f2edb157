"""Which adapter answers on the Try page: the name that opens the list, the list, and what a choice does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from PySide6.QtCore import QEvent, QObject, QPoint, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QKeyEvent, QPaintEvent
from PySide6.QtWidgets import QAbstractButton, QFrame, QHBoxLayout, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from tunedesk.core.adapters import Adapter
from tunedesk.core.project import busy
from tunedesk.gui import adapter_words, words
from tunedesk.gui.adapter_library import AdapterLibrary
from tunedesk.gui.chatting import ChatSession, Voice
from tunedesk.gui.pages._parts import clear
from tunedesk.gui.pages._try_parts import Popup
from tunedesk.gui.rail_lines import adapter_step, has_adapter
from tunedesk.gui.runs_list import run_name
from tunedesk.gui.session import Session
from tunedesk.gui.theme import pixmap
from tunedesk.gui.widgets import Button, ElidedLabel, Label, Rule
from tunedesk.gui.widgets.paint import painter_on, px, ring, round_box, text, tokens

_ROW: Final = 44
_MOST_ROWS: Final = 6
_STEPS: Final = {Qt.Key.Key_Up: -1, Qt.Key.Key_Down: 1}


class AdapterButton(QAbstractButton):
    """The name of the adapter of the tuned side; pressed, it opens the list of the others."""

    def __init__(self, what: ElidedLabel, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._what = what
        self._busy = False
        self.setObjectName("chooseAdapter")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.setProperty("ringRadius", 6)
        self.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        what.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        row = QHBoxLayout(self)
        row.setContentsMargins(4, 0, 26, 0)
        row.addWidget(what)

    def show_state(self, *, busy: bool, enabled: bool) -> None:
        """Show a ring while the adapter changes; follow the name."""
        self._busy = busy
        self.setEnabled(enabled)
        self.setAccessibleName(self.tr("Adapter: {0}. Choose another").format(self._what.text()))
        self.setToolTip(self._what.text())
        self.updateGeometry()
        self.update()

    @property
    def busy(self) -> bool:
        """Whether the ring is shown."""
        return self._busy

    def sizeHint(self) -> QSize:
        return QSize(self._what.sizeHint().width() + 30, px(24))

    def minimumSizeHint(self) -> QSize:
        return QSize(px(80), px(24))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        if self.isEnabled() and (self.underMouse() or self.isDown()):
            round_box(painter, QRectF(self.rect()), 6, colours.accent_line if self.isDown() else colours.hover)
        right, middle = self.width() - 21, self.height() / 2
        if self._busy:
            ring(painter, QRectF(right + 2, middle - 6, 12, 12), 0.3, colours.accent, colours.accent_line)
        elif self.isEnabled():
            sign = pixmap("chevron-down", 16, colours.t2, self.devicePixelRatioF())
            painter.drawPixmap(right, round(middle - 8), sign)


class AdapterRow(QAbstractButton):
    """One adapter of the list: its name, and method, origin and age in short; a tick at the one that answers."""

    moved = Signal(int)
    """An arrow key asks for the row that many below."""

    def __init__(self, adapter: Adapter, note: str, *, current: bool, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.adapter = adapter
        self.note = note
        self.setText(adapter.name)
        self.setObjectName(f"adapter_{adapter.id}")
        self.setCheckable(True)
        self.setChecked(current)
        said = self.tr("{0}, {1}, answers now") if current else self.tr("{0}, {1}")
        self.setAccessibleName(said.format(adapter.name, note))
        self.setToolTip(adapter.name)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.setProperty("ownFocus", True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def nextCheckState(self) -> None:
        """The tick follows the engine, not the click."""

    def sizeHint(self) -> QSize:
        return QSize(240, px(_ROW))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.click()
            return
        step = _STEPS.get(Qt.Key(event.key()))
        if step is None:
            super().keyPressEvent(event)
        else:
            self.moved.emit(step)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours = tokens()
        painter = painter_on(self)
        if self.underMouse() or self.hasFocus():
            edge = colours.accent if self.hasFocus() else ""
            round_box(painter, QRectF(self.rect()).adjusted(4, 0, -4, 0), 6, colours.hover, edge)
        if self.isChecked():
            tick = pixmap("tick", 16, colours.accent, self.devicePixelRatioF())
            painter.drawPixmap(14, (self.height() - 16) // 2, tick)
        box = QRectF(40, self.height() / 2 - px(19), self.width() - 56, px(20))
        text(painter, box, self.text(), "body", colours.t1, weight=500)
        text(painter, box.translated(0, px(19)), self.note, "secondary", colours.t2)


class AdapterPopup(Popup):
    """All adapters of the base, to choose one; and the way to the library."""

    picked = Signal(object)
    manage_asked = Signal()

    def __init__(self, *, parent: QWidget) -> None:
        super().__init__(width=360, parent=parent)
        self.setObjectName("adapterPopup")
        self.column.setContentsMargins(0, 14, 0, 8)
        self.column.setSpacing(8)
        self._rows: list[AdapterRow] = []
        head = QVBoxLayout()
        head.setContentsMargins(16, 0, 16, 0)
        head.setSpacing(2)
        self.title = ElidedLabel("", "card")
        self.title.setObjectName("title")
        self.sentence = Label("", "secondary", "t2", wrap=True)
        self.sentence.setObjectName("sentence")
        head.addWidget(self.title)
        head.addWidget(self.sentence)
        self.column.addLayout(head)
        self.column.addWidget(self._build_list())
        self.column.addWidget(Rule())
        foot = QHBoxLayout()
        foot.setContentsMargins(7, 0, 8, 0)
        self.manage = Button(self.tr("Manage adapters…"), "quiet", icon_name="layers", compact=True)
        self.manage.setObjectName("manageAdapters")
        self.manage.setAccessibleName(self.manage.text())
        self.manage.clicked.connect(self._manage)
        foot.addWidget(self.manage)
        foot.addStretch(1)
        self.column.addLayout(foot)

    def _build_list(self) -> QScrollArea:
        content = QWidget()
        self._list = QVBoxLayout(content)
        self._list.setContentsMargins(0, 0, 0, 0)
        self._list.setSpacing(0)
        self.area = QScrollArea()
        self.area.setObjectName("adapters")
        self.area.setFrameShape(QFrame.Shape.NoFrame)
        self.area.setWidgetResizable(True)
        self.area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.area.setWidget(content)
        return self.area

    def show_adapters(self, base: str, rows: Sequence[tuple[Adapter, str]], current: Adapter | None) -> None:
        """Show these (adapter, note) pairs; `current` answers now."""
        title = self.tr("Adapters of {0}").format(base)
        self.title.setText(title)
        self.setAccessibleName(title)
        self.sentence.setText(
            self.tr("The original stays loaded; changing takes a moment.")
            if rows
            else self.tr("None so far. A finished run adds its own; one from elsewhere can be imported.")
        )
        clear(self._list)
        self._rows = []
        for adapter, note in rows:
            row = AdapterRow(adapter, note, current=current is not None and _same(adapter.path, current.path))
            row.clicked.connect(lambda _=False, adapter=adapter: self._pick(adapter))
            row.moved.connect(lambda step, row=row: self._move(row, step))
            self._list.addWidget(row)
            self._rows.append(row)
        self.area.setVisible(bool(rows))
        self.area.setFixedHeight(px(_ROW) * min(len(rows), _MOST_ROWS))
        self.column.activate()

    def rows(self) -> list[AdapterRow]:
        """Return the rows, in reading order."""
        return list(self._rows)

    def open_below(self, anchor: QWidget) -> None:
        """Open under the lower left corner of `anchor`, within the screen."""
        self.resize(self.width(), self.column.totalHeightForWidth(self.width()))
        corner = anchor.mapToGlobal(QPoint(0, anchor.height() + 4))
        room = anchor.screen().availableGeometry()
        left = max(room.left(), min(corner.x(), room.right() - self.width()))
        self.move(left, max(room.top(), min(corner.y(), room.bottom() - self.height())))
        self.show()
        first = next((row for row in self._rows if row.isChecked()), self._rows[0] if self._rows else None)
        (first or self.manage).setFocus(Qt.FocusReason.PopupFocusReason)
        if first:
            self.area.ensureWidgetVisible(first, 0, 0)

    def _move(self, row: AdapterRow, step: int) -> None:
        """Put the focus on the row `step` below, or on the button under the last."""
        place = self._rows.index(row) + step
        if place >= len(self._rows):
            self.manage.setFocus(Qt.FocusReason.TabFocusReason)
        elif place >= 0:
            self._rows[place].setFocus(Qt.FocusReason.TabFocusReason)
            self.area.ensureWidgetVisible(self._rows[place], 0, 0)

    def _pick(self, adapter: Adapter) -> None:
        self.hide()
        self.picked.emit(adapter)

    def _manage(self) -> None:
        self.hide()
        self.manage_asked.emit()


class AdapterPicker(QObject):
    """What can answer on the tuned side, what does, and the change from one to another."""

    def __init__(
        self, session: Session, chat: ChatSession, library: AdapterLibrary, what: ElidedLabel, *, page: QWidget
    ) -> None:
        super().__init__(page)
        self._session, self._chat, self._library, self._page = session, chat, library, page
        self.button = AdapterButton(what)
        self.popup = AdapterPopup(parent=page)
        self.button.clicked.connect(lambda: self.open_at(self.button))
        self.popup.picked.connect(self.pick)
        self.popup.manage_asked.connect(self.manage)
        library.deleted.connect(self._on_deleted)
        library.renamed.connect(self._on_renamed)
        page.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Read the list when the page appears."""
        if watched is self._page and event.type() == QEvent.Type.Show:
            self._leave_other_base()
            self._library.read()
        return False

    def _leave_other_base(self) -> None:
        """Another model was chosen since: the one that is loaded without a run is not the base any more."""
        run, model = self._chat.target
        if run is None and model not in (None, self._session.project.spec.model.source):
            self._chat.close()
            self._chat.new_chat()

    # What there is.

    def adapters(self) -> tuple[Adapter, ...]:
        """The adapters of the base: that of the shown run first, then the newest."""
        own = self.own()
        listed = self._library.adapters
        if own is None:
            return listed
        return (own, *(item for item in listed if not _same(item.path, own.path)))

    def own(self) -> Adapter | None:
        """The adapter of the shown run, as the run is called; from a checkpoint where training broke off."""
        run, state = self._session.run, self._session.project.run
        if run is None or state is None or not has_adapter(state):
            return None
        spec = self._session.project.spec
        listed = self._library.at(self._chat.own) or self._library.at(run.adapter)
        if listed is not None:
            return replace(listed, name=run_name(spec))
        kept = state.adapter or state.checkpoint
        return Adapter(
            id=run.id,
            name=run_name(spec),
            path=Path(self._chat.own) if self._chat.own else run.adapter,
            base=spec.model.source,
            method=spec.method.name,
            task=spec.task.kind,
            origin="run",
            bytes=kept.bytes if kept else 0,
            created=state.last_time or 0.0,
        )

    def current(self) -> Adapter | None:
        """The adapter that answers now; None when the original is alone."""
        voice = self._chat.voice
        if voice is None:
            return None
        own = self.own()
        if own is not None and self._chat.target[0] and (voice.path is None or _same(voice.path, own.path)):
            return own
        return self._library.at(voice.path)

    @property
    def is_own(self) -> bool:
        """Whether the shown run's own adapter answers."""
        own, current = self.own(), self.current()
        return own is not None and current is not None and own.path == current.path

    @property
    def measured(self) -> bool:
        """Whether the held-out figures of the shown run belong to what answers."""
        return self._chat.coming is None and (self.is_own or (self._chat.voice is None and not self.alone))

    @property
    def alone(self) -> bool:
        """Whether the original is loaded by itself, and an adapter could join it."""
        ready = self._chat.ready if self._chat.status in ("ready", "answering") else None
        return ready is not None and "tuned" not in ready.sides and bool(self.adapters())

    @property
    def has_button(self) -> bool:
        """Whether the tuned side has a head, which leads to the list and the library."""
        ready = self._chat.ready
        return self.alone or ready is None or "tuned" in ready.sides

    @property
    def several(self) -> bool:
        """Whether it has to be said which adapter gave an answer."""
        voices = {answer.voice.path for turn in self._chat.turns for answer in turn.answers.values() if answer.voice}
        return len(self.adapters()) > 1 or len(voices) > 1

    def can_load(self) -> bool:
        """Whether an adapter can be tried without a run."""
        project = self._session.project
        return bool(self.adapters()) and project.model is not None and not busy(project.run)

    # Showing.

    def what(self) -> str:
        """What the tuned side is called: the run and its step, or the adapter and its method."""
        coming, voice = self._chat.coming, self._chat.voice
        if coming is not None:
            return self.tr("Changing to {0}").format(coming.name) if coming.path else self.tr("Taking it off")
        if self.measured:
            return self._own_words()
        current = self.current()
        if current is not None:
            return f"{current.name}, {adapter_words.method_title(current)}" if current.method else current.name
        return voice.name if voice else self.tr("Choose an adapter")

    def _own_words(self) -> str:
        project = self._session.project
        kept = adapter_step(project.run) if project.run else None
        step = words.count(kept) if kept is not None else words.DASH
        return self.tr("{0}, step {1}").format(run_name(project.spec), step)

    def show(self) -> None:
        """Follow the chat: the ring while the adapter changes, nothing to press while the model is loaded."""
        changing = self._chat.coming is not None
        usable = self._chat.status in ("ready", "answering") and not changing
        self.button.show_state(busy=changing, enabled=usable)

    # Acting.

    def open_at(self, anchor: QWidget) -> None:
        """Show the list under `anchor`."""
        rows = [(item, self._note(item)) for item in self.adapters()]
        self.popup.show_adapters(self._library.base_name, rows, self.current())
        self.popup.open_below(anchor)

    def _note(self, adapter: Adapter) -> str:
        own = self.own()
        if own is not None and _same(adapter.path, own.path):
            return self.tr("{0}, the run that is shown").format(adapter_words.method_title(adapter))
        return adapter_words.in_short(adapter)

    def pick(self, adapter: Adapter) -> None:
        """Let `adapter` answer on the tuned side; the base is loaded only if it is not."""
        run, own = self._session.run, self.own()
        is_own = own is not None and _same(adapter.path, own.path)
        path = None if is_own and self._chat.status in ("idle", "failed") else str(adapter.path)
        voice = Voice(path, adapter.name)
        if run is not None and own is not None:
            self._chat.open(str(run.path), None, voice)
        else:
            self._chat.open(None, self._session.project.spec.model.source, voice)

    def manage(self) -> None:
        """Open the library."""
        from tunedesk.gui.dialogs.adapters import AdaptersDialog

        dialog = AdaptersDialog(self._library, self._session, parent=self._page.window())
        dialog.try_asked.connect(self.pick)
        dialog.open()

    def _on_deleted(self, adapter: Adapter) -> None:
        voice = self._chat.voice
        if voice is not None and voice.path is not None and _same(voice.path, adapter.path):
            self._leave_adapter()

    def _leave_adapter(self) -> None:
        """Let the original answer alone; a classifier says nothing without an adapter."""
        if self._chat.ready is not None and "base" in self._chat.ready.sides:
            self._chat.use(None)
        else:
            self._chat.close()

    def _on_renamed(self, adapter: Adapter) -> None:
        voice = self._chat.voice
        if voice is not None and voice.path is not None and _same(voice.path, adapter.path):
            self._chat.voice = replace(voice, name=adapter.name)


def _same(left: str | Path, right: str | Path) -> bool:
    """Whether two paths are the same folder."""
    return os.path.realpath(left) == os.path.realpath(right)
