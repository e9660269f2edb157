"""What the model forgot: how hard general text is for it now, beside how hard it was."""

from __future__ import annotations

import math
from typing import Final

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from tunedesk.core.events import ForgettingChecked
from tunedesk.core.forgetting import verdict
from tunedesk.gui import words
from tunedesk.gui.pages._parts import Sign
from tunedesk.gui.widgets import Label
from tunedesk.gui.widgets.paint import painter_on, px, round_box, text, text_width, tokens

WIDTH: Final = 340
QWIDGETSIZE_MAX: Final = 16_777_215
"""Qt's own word for no limit."""
_LINES: Final = 32
_GAP: Final = 2
_ROW: Final = 14
_BAR: Final = 6


class ForgettingGauge(QWidget):
    """A sentence, and a bar of before and now; hidden while nothing was checked."""

    def __init__(self, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("forgetting")
        self.sign = QVBoxLayout()
        self.said = _Sentence("", "secondary", "t1", wrap=True)
        self.said.setObjectName("forgettingSaid")
        self.said.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.said.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        self.bar = _Bar()
        self.bar.setObjectName("forgettingBar")
        column = QVBoxLayout()
        column.setSpacing(_GAP)
        column.addWidget(self.said)
        column.addWidget(self.bar)
        column.addStretch(1)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        row.addLayout(self.sign)
        row.addLayout(column, 1)
        self.set_beside(beside=True)
        self._shown: ForgettingChecked | None = None
        self.hide()

    def set_beside(self, *, beside: bool) -> None:
        """Take little width and two lines, with room kept for them, or the whole width and one."""
        policy = self.sizePolicy()
        policy.setRetainSizeWhenHidden(beside)
        self.setSizePolicy(policy)
        self.setMinimumWidth(px(WIDTH) if beside else 0)
        self.setMaximumWidth(px(WIDTH) if beside else QWIDGETSIZE_MAX)
        self.said.setMinimumHeight(px(_LINES) if beside else 0)
        self.setMinimumHeight(px(_LINES + _GAP + _ROW) if beside else 0)
        self._lay_out()

    def show_check(self, check: ForgettingChecked | None) -> None:
        """Show what was found."""
        if check is None or check is self._shown:
            self.setVisible(check is not None)
            return
        self._shown = check
        degree, sentence = verdict(check.measure, check.before, check.after)
        while (item := self.sign.takeAt(0)) is not None:
            if widget := item.widget():
                widget.deleteLater()
        good = degree in ("none", "little")
        self.sign.addWidget(Sign("circle-check" if good else "alert", "ok" if good else "warn"))
        self.sign.addStretch(1)
        first, stop, _ = sentence.partition(". ")
        self.said.setText(f"{first}{stop.strip()}")
        self.bar.show_check(check)
        about = self.tr("Read on {0} tokens of general text that is not in your data.").format(
            words.count(check.tokens)
        )
        self.setToolTip(f"{sentence} {about}")
        self.setAccessibleName(f"{sentence} {self.bar.accessibleName()}")
        self.setVisible(True)
        self._lay_out()

    def _lay_out(self) -> None:
        """Give the sentence its lines at once, also where the gauge as a whole keeps its size."""
        if (layout := self.layout()) is not None:
            layout.invalidate()
            layout.activate()


class _Sentence(Label):
    """Words on one line or two; how many does not decide about the height of the page."""

    def hasHeightForWidth(self) -> bool:
        return False

    def sizeHint(self) -> QSize:
        return QSize(240, max(px(20), self.minimumHeight()))


class _Bar(QWidget):
    """Loss on general text: grey as far as before, and what came on top. Or how much of what it makes of it changed."""

    def __init__(self) -> None:
        super().__init__()
        self._before = self._now = 0.0
        self._figures = ""
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_check(self, check: ForgettingChecked) -> None:
        after = check.after if math.isfinite(check.after) else math.inf
        if check.measure == "drift":
            self._before, self._now = 0.0, min(1.0, max(0.0, after))
            self._figures = self.tr("changed by {0}").format(words.share(after))
        else:
            most = max((value for value in (check.before, after) if math.isfinite(value)), default=1.0) or 1.0
            self._before, self._now = check.before / most, min(1.0, after / most)
            figures = self.tr("loss {0} before, {1} now")
            self._figures = figures.format(words.loss(check.before), words.loss(check.after))
        self.setAccessibleName(self._figures)
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(240, px(_ROW))

    def minimumSizeHint(self) -> QSize:
        return QSize(120, px(_ROW))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002
        colours, painter = tokens(), painter_on(self)
        row = QRectF(self.rect())
        room = text_width(self._figures, "axis") + 10
        text(painter, row, self._figures, "axis", colours.t2, align=Qt.AlignmentFlag.AlignRight)
        track = QRectF(0, row.center().y() - _BAR / 2, row.width() - room, _BAR)
        round_box(painter, track, _BAR / 2, colours.hover)
        worse = colours.warn if self._now > self._before else colours.chart_train
        for share, ink in sorted(((self._now, worse), (self._before, colours.ctl)), reverse=True):
            if share > 0:
                box = QRectF(track.x(), track.y(), max(_BAR, share * track.width()), _BAR)
                round_box(painter, box, _BAR / 2, ink)
