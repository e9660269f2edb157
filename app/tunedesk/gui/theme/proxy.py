"""Fusion with our own check boxes, radio buttons and focus."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QPointF, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QIcon, QPainter, QPen, QPolygonF
from PySide6.QtWidgets import (
    QAbstractSpinBox,
    QProxyStyle,
    QStyle,
    QStyleOption,
    QStyleOptionComplex,
    QStyleOptionSpinBox,
    QWidget,
)

from tunedesk.gui.theme.icons import icon
from tunedesk.gui.theme.tokens import LIGHT, Tokens

_METRICS: Final = {
    QStyle.PixelMetric.PM_IndicatorWidth: 16,
    QStyle.PixelMetric.PM_IndicatorHeight: 16,
    QStyle.PixelMetric.PM_ExclusiveIndicatorWidth: 16,
    QStyle.PixelMetric.PM_ExclusiveIndicatorHeight: 16,
    QStyle.PixelMetric.PM_CheckBoxLabelSpacing: 8,
    QStyle.PixelMetric.PM_RadioButtonLabelSpacing: 8,
    QStyle.PixelMetric.PM_SmallIconSize: 16,
    QStyle.PixelMetric.PM_ButtonIconSize: 16,
    QStyle.PixelMetric.PM_MessageBoxIconSize: 28,
}

_ICONS: Final = {
    QStyle.StandardPixmap.SP_MessageBoxInformation: ("info", "accent"),
    QStyle.StandardPixmap.SP_MessageBoxQuestion: ("help", "accent"),
    QStyle.StandardPixmap.SP_MessageBoxWarning: ("alert", "warn"),
    QStyle.StandardPixmap.SP_MessageBoxCritical: ("problem", "bad"),
}


class DeskStyle(QProxyStyle):
    """The base style of the application; the style sheet lies on top."""

    def __init__(self) -> None:
        super().__init__("Fusion")

    def pixelMetric(
        self, metric: QStyle.PixelMetric, option: QStyleOption | None = None, widget: QWidget | None = None
    ) -> int:
        fixed = _METRICS.get(metric)
        return super().pixelMetric(metric, option, widget) if fixed is None else fixed

    def standardIcon(
        self,
        standard_icon: QStyle.StandardPixmap,
        option: QStyleOption | None = None,
        widget: QWidget | None = None,
    ) -> QIcon:
        named = _ICONS.get(standard_icon)
        return super().standardIcon(standard_icon, option, widget) if named is None else icon(*named)

    def drawPrimitive(
        self,
        element: QStyle.PrimitiveElement,
        option: QStyleOption,
        painter: QPainter,
        widget: QWidget | None = None,
    ) -> None:
        match element:
            case QStyle.PrimitiveElement.PE_FrameFocusRect:
                return
            case QStyle.PrimitiveElement.PE_IndicatorCheckBox | QStyle.PrimitiveElement.PE_IndicatorItemViewItemCheck:
                draw_check(painter, QRectF(option.rect), option.state)
            case QStyle.PrimitiveElement.PE_IndicatorRadioButton:
                on, enabled = _flags(option.state)
                draw_radio(painter, QRectF(option.rect), checked=on, enabled=enabled)
            case _:
                super().drawPrimitive(element, option, painter, widget)

    def drawComplexControl(
        self,
        control: QStyle.ComplexControl,
        option: QStyleOptionComplex,
        painter: QPainter,
        widget: QWidget | None = None,
    ) -> None:
        if control is QStyle.ComplexControl.CC_SpinBox and isinstance(option, QStyleOptionSpinBox):
            draw_spin_box(painter, option, widget)
            return
        super().drawComplexControl(control, option, painter, widget)

    def subControlRect(
        self,
        control: QStyle.ComplexControl,
        option: QStyleOptionComplex,
        sub_control: QStyle.SubControl,
        widget: QWidget | None = None,
    ) -> QRect:
        if control is QStyle.ComplexControl.CC_SpinBox and isinstance(option, QStyleOptionSpinBox):
            return spin_rect(option, sub_control)
        return super().subControlRect(control, option, sub_control, widget)  # type: ignore[arg-type]

    def sizeFromContents(
        self, kind: QStyle.ContentsType, option: QStyleOption, size: QSize, widget: QWidget | None = None
    ) -> QSize:
        if kind is QStyle.ContentsType.CT_SpinBox and widget is not None:
            from tunedesk.gui.theme.style import Theme

            tall = 28 if widget.property("compact") else 32
            return QSize(size.width() + 38, Theme.of().px(tall))
        return super().sizeFromContents(kind, option, size, widget)  # type: ignore[arg-type]


_NO_BUTTONS: Final = QAbstractSpinBox.ButtonSymbols.NoButtons


def spin_rect(option: QStyleOptionSpinBox, part: QStyle.SubControl) -> QRect:
    """Return where a part of a spin box lies: text at the left, two arrows at the right."""
    box = option.rect
    half = box.height() // 2
    arrows = 0 if option.buttonSymbols is _NO_BUTTONS else 24
    match part:
        case QStyle.SubControl.SC_SpinBoxEditField:
            return box.adjusted(8, 1, -(arrows or 8), -1)
        case QStyle.SubControl.SC_SpinBoxUp if arrows:
            return QRect(box.right() - arrows + 1, box.top(), arrows, half)
        case QStyle.SubControl.SC_SpinBoxDown if arrows:
            return QRect(box.right() - arrows + 1, box.top() + half, arrows, box.height() - half)
        case QStyle.SubControl.SC_SpinBoxFrame:
            return box
    return QRect()


def _spin_edge(tokens: Tokens, state: QStyle.StateFlag, widget: QWidget | None) -> str:
    if widget is not None and widget.property("wrong"):
        return tokens.bad
    if not state & QStyle.StateFlag.State_Enabled:
        return tokens.line
    if state & QStyle.StateFlag.State_HasFocus:
        return tokens.accent
    return tokens.ctl if state & QStyle.StateFlag.State_MouseOver else tokens.line2


def draw_spin_box(painter: QPainter, option: QStyleOptionSpinBox, widget: QWidget | None) -> None:
    """Draw the frame and the two arrows of a spin box."""
    tokens = _tokens()
    enabled = bool(option.state & QStyle.StateFlag.State_Enabled)
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(QColor(_spin_edge(tokens, option.state, widget)), 1))
    painter.setBrush(QColor(tokens.card if enabled else tokens.sunk))
    painter.drawRoundedRect(QRectF(option.rect).adjusted(0.5, 0.5, -0.5, -0.5), 6, 6)
    if option.buttonSymbols is not _NO_BUTTONS:
        steps = option.stepEnabled
        up, down = QAbstractSpinBox.StepEnabledFlag.StepUpEnabled, QAbstractSpinBox.StepEnabledFlag.StepDownEnabled
        _draw_chevron(painter, spin_rect(option, QStyle.SubControl.SC_SpinBoxUp), -1, tokens, bool(steps & up))
        _draw_chevron(painter, spin_rect(option, QStyle.SubControl.SC_SpinBoxDown), 1, tokens, bool(steps & down))
    painter.restore()


def _draw_chevron(painter: QPainter, box: QRect, direction: int, tokens: Tokens, live: bool) -> None:
    centre = QRectF(box).center() - QPointF(0, 1.5 * direction)
    ink = QColor(tokens.t2)
    ink.setAlphaF(1.0 if live else 0.4)
    painter.setPen(_mark_pen(ink.name(QColor.NameFormat.HexArgb), 1.4))
    points = [QPointF(-3, -1.5 * direction), QPointF(0, 1.5 * direction), QPointF(3, -1.5 * direction)]
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawPolyline(QPolygonF([centre + point for point in points]))


def _flags(state: QStyle.StateFlag) -> tuple[bool, bool]:
    return bool(state & QStyle.StateFlag.State_On), bool(state & QStyle.StateFlag.State_Enabled)


def _tokens() -> Tokens:
    from PySide6.QtWidgets import QApplication

    from tunedesk.gui.theme.style import Theme

    return Theme.of().tokens if QApplication.instance() else LIGHT


def draw_check(painter: QPainter, rect: QRectF, state: QStyle.StateFlag) -> None:
    """Draw a check box: off, on or partly on."""
    tokens = _tokens()
    on, enabled = _flags(state)
    partly = bool(state & QStyle.StateFlag.State_NoChange)
    filled = on or partly
    box = QRectF(0, 0, 15, 15)
    box.moveCenter(rect.center())
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    fill = tokens.accent_fill if enabled else tokens.t3
    edge = tokens.ctl if enabled else tokens.line2
    painter.setPen(QPen(QColor(fill if filled else edge), 1))
    painter.setBrush(QColor(fill if filled else tokens.card))
    painter.drawRoundedRect(box, 4, 4)
    painter.setPen(_mark_pen(tokens.on_accent if enabled else tokens.card))
    if partly:
        painter.drawLine(box.center() - QPointF(3.5, 0), box.center() + QPointF(3.5, 0))
    elif on:
        painter.drawPolyline(tick_shape(box.center(), 1.0))
    painter.restore()


def _mark_pen(colour: str, width: float = 1.75) -> QPen:
    pen = QPen(QColor(colour), width)
    pen.setCapStyle(Qt.PenCapStyle.RoundCap)
    pen.setJoinStyle(Qt.PenJoinStyle.RoundJoin)
    return pen


def tick_shape(centre: QPointF, scale: float) -> QPolygonF:
    """Return the three points of a tick around `centre`; it is 7 px wide at scale 1."""
    offsets = ((-3.5, 0.25), (-1.0, 2.75), (3.5, -2.5))
    return QPolygonF([centre + QPointF(x, y) * scale for x, y in offsets])


def draw_radio(painter: QPainter, rect: QRectF, *, checked: bool, enabled: bool) -> None:
    """Draw a radio button 16 px wide in the middle of `rect`."""
    tokens = _tokens()
    centre = rect.center()
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    if checked:
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(tokens.accent_fill if enabled else tokens.t3))
        painter.drawEllipse(centre, 8, 8)
        painter.setBrush(QColor(tokens.on_accent if enabled else tokens.card))
        painter.drawEllipse(centre, 3, 3)
    else:
        painter.setPen(QPen(QColor(tokens.ctl if enabled else tokens.line2), 1.25))
        painter.setBrush(QColor(tokens.card))
        painter.drawEllipse(centre, 7.4, 7.4)
    painter.restore()
