"""The first four pages by keyboard and for assistive technology."""

from __future__ import annotations

import pytest
import samples
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit, QScrollArea
from samples import settle

from tunedesk.gui.pages.data import DataPage
from tunedesk.gui.pages.fit import FitPage
from tunedesk.gui.pages.method import MethodPage
from tunedesk.gui.pages.model import ModelPage
from tunedesk.gui.widgets import MethodCard

CONTROLS = (QAbstractButton, QLineEdit, QComboBox, QAbstractSpinBox)


@pytest.fixture(params=[ModelPage, DataPage, MethodPage, FitPage])
def page(request, qtbot, session):
    settle(session, data=samples.support_data(findings=samples.findings()))
    made = request.param(session)
    qtbot.addWidget(made)
    made.resize(1048, 800)
    made.show()
    return made


def controls(page):
    found = [widget for kind in CONTROLS for widget in page.findChildren(kind)]
    return [widget for widget in found if widget.isVisible() and widget.objectName() != "qt_spinbox_lineedit"]


def test_that_every_control_has_a_name_for_tests_and_one_for_people(page):
    assert controls(page)
    for widget in controls(page):
        text = widget.text() if isinstance(widget, QAbstractButton) else ""
        assert widget.objectName() or text, widget
        assert widget.accessibleName() or text, widget.objectName()


def test_that_the_keyboard_reaches_every_control(page):
    for widget in controls(page):
        reachable = widget.focusPolicy() & Qt.FocusPolicy.TabFocus
        in_group = isinstance(widget.parent().parent(), type(page)) or widget.focusPolicy() == Qt.FocusPolicy.ClickFocus
        assert reachable or in_group or isinstance(widget, MethodCard) or not widget.isEnabled(), widget.objectName()


@pytest.mark.parametrize("width", [792, 1048, 1400])
def test_that_nothing_is_wider_than_the_page(page, width, qtbot):
    page.resize(width, 800)
    qtbot.wait(1)
    scroll = page.findChild(QScrollArea, "scroll", Qt.FindChildOption.FindDirectChildrenOnly)
    assert scroll.widget().width() <= scroll.viewport().width()
    for widget in controls(page):
        right = widget.mapTo(page, widget.rect().bottomRight()).x()
        assert right <= page.width(), widget.objectName()
