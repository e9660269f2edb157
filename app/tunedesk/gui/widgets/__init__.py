"""The parts that pages are made of. The charts are apart, in `charts`, because they load pyqtgraph."""

from tunedesk.gui.theme import MEMORY_PARTS
from tunedesk.gui.widgets.badge import Badge, BadgeKind
from tunedesk.gui.widgets.bars import Bar, BarList
from tunedesk.gui.widgets.button import Button, ButtonKind, IconButton
from tunedesk.gui.widgets.card import Card, Rule, Severity
from tunedesk.gui.widgets.checks import CheckItem, CheckList, CheckStatus
from tunedesk.gui.widgets.choice import ChoiceCard, ChoiceGroup, MethodCard, MethodItem, RadioCard
from tunedesk.gui.widgets.facts import Field, KeyValueList
from tunedesk.gui.widgets.histogram import Histogram
from tunedesk.gui.widgets.icon_label import IconLabel
from tunedesk.gui.widgets.log import LogLine, LogList
from tunedesk.gui.widgets.memory import MemoryBar, MemoryRow, MemoryStrip, MemoryTable
from tunedesk.gui.widgets.page import CardGrid, Footer, PageFrame, PageHeader, TwoColumns
from tunedesk.gui.widgets.problem import ProblemBar, ProblemItem
from tunedesk.gui.widgets.progress import ProgressTone, SlimProgress
from tunedesk.gui.widgets.rail import DeviceItem, Rail, RunItem, StepItem
from tunedesk.gui.widgets.scale import NumberScale
from tunedesk.gui.widgets.schematic import SCHEMATICS, Schematic
from tunedesk.gui.widgets.sections import SectionGrid
from tunedesk.gui.widgets.segmented import Segmented
from tunedesk.gui.widgets.states import EmptyState, Skeleton, Toast
from tunedesk.gui.widgets.text import ElidedLabel, Label
from tunedesk.gui.widgets.token_view import TokenLegend, TokenSpan, TokenView, TurnView

__all__ = [
    "MEMORY_PARTS",
    "SCHEMATICS",
    "Badge",
    "BadgeKind",
    "Bar",
    "BarList",
    "Button",
    "ButtonKind",
    "Card",
    "CardGrid",
    "CheckItem",
    "CheckList",
    "CheckStatus",
    "ChoiceCard",
    "ChoiceGroup",
    "DeviceItem",
    "ElidedLabel",
    "EmptyState",
    "Field",
    "Footer",
    "Histogram",
    "IconButton",
    "IconLabel",
    "KeyValueList",
    "Label",
    "LogLine",
    "LogList",
    "MemoryBar",
    "MemoryRow",
    "MemoryStrip",
    "MemoryTable",
    "MethodCard",
    "MethodItem",
    "NumberScale",
    "PageFrame",
    "PageHeader",
    "ProblemBar",
    "ProblemItem",
    "ProgressTone",
    "RadioCard",
    "Rail",
    "Rule",
    "RunItem",
    "Schematic",
    "SectionGrid",
    "Segmented",
    "Severity",
    "Skeleton",
    "SlimProgress",
    "StepItem",
    "Toast",
    "TokenLegend",
    "TokenSpan",
    "TokenView",
    "TurnView",
    "TwoColumns",
]
