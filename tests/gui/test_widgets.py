"""The parts of the pages, by what a person sees, clicks and types."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QLocale, QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QApplication, QListView, QSpinBox, QVBoxLayout, QWidget
from pytestqt.qtbot import QtBot

from tunedesk.gui.theme import MEMORY_PARTS, Theme
from tunedesk.gui.widgets import (
    SCHEMATICS,
    Badge,
    Bar,
    BarList,
    Button,
    Card,
    CheckItem,
    CheckList,
    ChoiceCard,
    ChoiceGroup,
    DeviceItem,
    ElidedLabel,
    EmptyState,
    Field,
    Histogram,
    IconButton,
    KeyValueList,
    Label,
    LogLine,
    LogList,
    MemoryBar,
    MemoryRow,
    MemoryTable,
    MethodCard,
    MethodItem,
    PageFrame,
    ProblemBar,
    ProblemItem,
    Rail,
    RunItem,
    Segmented,
    Skeleton,
    SlimProgress,
    StepItem,
    Toast,
    TokenLegend,
    TokenSpan,
    TokenView,
    TurnView,
    TwoColumns,
)
from tunedesk.gui.widgets.charts import LossChart, SmallChart

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    before = QLocale()
    QLocale.setDefault(QLocale(QLocale.Language.English, QLocale.Country.UnitedStates))
    yield
    QLocale.setDefault(before)


def shown(qtbot: QtBot, widget: QWidget, width: int = 800, height: int = 600) -> None:
    qtbot.addWidget(widget)
    widget.resize(width, height)
    widget.show()
    qtbot.waitExposed(widget)


def memory_row(label: str = "As you asked", ok: bool = False) -> MemoryRow:
    parts = dict(zip(MEMORY_PARTS, (7.49, 0.12, 0.12, 0.25, 9.24, 3.48, 0.61), strict=True))
    return MemoryRow(label, parts, 20.7, 21.9, ok)


def methods(*keys: str) -> list[MethodCard]:
    return [MethodCard(MethodItem(key, key.title(), "lora", "A sentence.", trained="1% trained")) for key in keys]


@pytest.fixture
def rail(qtbot: QtBot) -> Rail:
    made = Rail()
    made.set_steps(
        [
            StepItem("model", "Model", "Small chat model", "settled"),
            StepItem("data", "Data", "4,812 conversations", "trouble"),
            StepItem("train", "Train", "63%", "running", 0.63),
        ]
    )
    made.set_runs([RunItem("a", "First", "done", "1.204"), RunItem("b", "Second", "failed", "failed")])
    made.set_device(DeviceItem("CPU", "9.1 of 16.0 GiB free"))
    shown(qtbot, made, 232, 800)
    return made


def part(rail: Rail, name: str) -> QListView:
    found = rail.findChild(QListView, name)
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "signal", "keys"), [("steps", "step_chosen", "data"), ("runs", "run_chosen", "b")])
def test_that_the_rail_answers_a_click(qtbot: QtBot, rail: Rail, name: str, signal: str, keys: str) -> None:
    view = part(rail, name)
    spot = view.visualRect(view.model().index(1, 0)).center()
    with qtbot.waitSignal(getattr(rail, signal)) as heard:
        qtbot.mouseClick(view.viewport(), LEFT, pos=spot)
    assert heard.args == [keys]


def test_that_the_rail_answers_the_keyboard(qtbot: QtBot, rail: Rail) -> None:
    view = part(rail, "steps")
    rail.set_current("model")
    view.setFocus()
    qtbot.keyClick(view, Qt.Key.Key_Down)
    with qtbot.waitSignal(rail.step_chosen) as heard:
        qtbot.keyClick(view, Qt.Key.Key_Return)
    assert heard.args == ["data"]


def test_that_the_rail_offers_new_run_and_settings(qtbot: QtBot, rail: Rail) -> None:
    for name, signal in (("newRun", rail.new_run_asked), ("settings", rail.settings_asked)):
        button = rail.findChild(IconButton, name)
        assert button is not None
        with qtbot.waitSignal(signal):
            qtbot.mouseClick(button, LEFT)


def test_that_the_rail_speaks_its_states(rail: Rail) -> None:
    view = part(rail, "steps")
    words = view.model().index(1, 0).data(Qt.ItemDataRole.AccessibleTextRole)
    assert words == "Data, 4,812 conversations, needs a decision"


def test_that_the_memory_bar_speaks_its_numbers(qtbot: QtBot) -> None:
    bar = MemoryBar()
    qtbot.addWidget(bar)
    bar.set_rows([memory_row()], 11.2, 12.0)
    name = bar.accessibleName()
    assert "As you asked: 21.3 GiB" in name
    assert "Model weights 7.49 GiB" in name
    assert "Logits 3.48 GiB" in name
    assert "does not fit" in name
    assert "11.2 of 12.0" in name


@pytest.mark.parametrize(("free", "total", "end"), [(11.2, 12.0, 24.0), (30.0, 31.0, 35.0), (0.4, 0.5, 24.0)])
def test_that_the_memory_axis_ends_on_a_whole_step(qtbot: QtBot, free: float, total: float, end: float) -> None:
    bar = MemoryBar()
    qtbot.addWidget(bar)
    bar.set_rows([memory_row()], free, total)
    assert bar.axis_end() >= max(21.9, total)
    assert bar.axis_end() == pytest.approx(end, rel=0.2)


@pytest.mark.parametrize("total", [0.0, 0.003, 0.6, 900.0])
def test_that_memory_of_any_size_is_drawn(qtbot: QtBot, total: float) -> None:
    bar, table = MemoryBar(), MemoryTable()
    rows = [MemoryRow("As you asked", {"weights": total}, total, total * 1.1, True)]
    for widget in (bar, table):
        shown(qtbot, widget)
    bar.set_rows(rows, total, total * 1.2)
    table.set_rows(rows)
    assert not bar.grab().isNull()
    assert not table.grab().isNull()


def test_that_problems_are_shown_together_and_can_be_acted_on(qtbot: QtBot) -> None:
    bar = ProblemBar()
    qtbot.addWidget(bar)
    assert bar.isHidden()
    bar.set_problems(
        [
            ProblemItem("bad", "6 conversations have no answer.", "Lines 3 & 4.", (("drop", "Leave out 6"),)),
            ProblemItem("warn", "The disk is nearly full."),
        ]
    )
    words = [label.text() for label in bar.findChildren(Label, "words")]
    assert "6 conversations have no answer." in words[0]
    assert "Lines 3 &amp; 4." in words[0]
    assert len(words) == 2
    assert "The disk is nearly full." in bar.accessibleName()
    button = bar.findChild(Button, "action_drop")
    assert button is not None
    with qtbot.waitSignal(bar.action_chosen) as heard:
        qtbot.mouseClick(button, LEFT)
    assert heard.args == [0, "drop"]
    bar.clear()
    assert bar.isHidden()


def test_that_arrow_keys_choose_among_method_cards(qtbot: QtBot) -> None:
    group = ChoiceGroup()
    cards = methods("lora", "qlora", "dora")
    cards[1].set_reason("There is no 4-bit on this device.")
    group.set_cards(cards)
    group.set_current("lora")
    shown(qtbot, group)
    cards[0].setFocus()
    with qtbot.waitSignal(group.chosen) as heard:
        qtbot.keyClick(cards[0], Qt.Key.Key_Right)
    assert heard.args == ["dora"]
    assert group.current() == "dora"
    assert [card.isChecked() for card in cards] == [False, False, True]


def test_that_one_tab_stop_leads_into_a_group(qtbot: QtBot) -> None:
    group = ChoiceGroup()
    cards = methods("lora", "qlora")
    group.set_cards(cards)
    group.set_current("qlora")
    qtbot.addWidget(group)
    stops = [bool(card.focusPolicy() & Qt.FocusPolicy.TabFocus.value) for card in cards]
    assert stops == [False, True]


def test_that_a_card_that_cannot_be_chosen_says_why(qtbot: QtBot) -> None:
    card = ChoiceCard("gguf", "GGUF file", "One file.", left="2.89 GB", right="llama.cpp")
    qtbot.addWidget(card)
    card.set_reason("Needs 12 GB of disk.")
    assert not card.isEnabled()
    assert card.toolTip() == "Needs 12 GB of disk."
    assert card.accessibleDescription() == "Needs 12 GB of disk."


def test_that_a_click_on_the_chosen_card_keeps_it(qtbot: QtBot) -> None:
    group = ChoiceGroup()
    group.set_cards(methods("lora", "qlora"))
    group.set_current("lora")
    shown(qtbot, group)
    qtbot.mouseClick(group.card("lora"), LEFT)
    assert group.current() == "lora"


@pytest.mark.parametrize("kind", SCHEMATICS)
def test_that_every_method_has_a_drawing(qtbot: QtBot, kind: str) -> None:
    card = MethodCard(MethodItem("key", "Name", kind, "A sentence.", "most tasks", "1% trained", "2.0 GiB"))
    shown(qtbot, card, 216, 220)
    image = card.grab().toImage()
    colours = {image.pixelColor(x, y).name() for x in range(16, 130, 2) for y in range(14, 64, 2)}
    assert len(colours) > 2


def test_that_segments_follow_keys_and_report_the_user_only(qtbot: QtBot) -> None:
    control = Segmented([("reading", "Reading"), ("tokens", "Tokens")], "reading", name="Mode")
    shown(qtbot, control)
    heard: list[str] = []
    control.chosen.connect(heard.append)
    control.set_current("tokens")
    assert heard == []
    first = control.findChild(QWidget, "segment_reading")
    assert first is not None
    qtbot.mouseClick(first, LEFT)
    qtbot.keyClick(first, Qt.Key.Key_Right)
    assert heard == ["reading", "tokens"]
    assert control.current() == "tokens"


def test_that_a_cut_label_keeps_its_text_in_the_tooltip(qtbot: QtBot) -> None:
    label = ElidedLabel("A sentence that is too long for its place")
    shown(qtbot, label, 80, 20)
    assert label.text() == label.toolTip()
    assert label.shown_text().endswith("…")
    label.setText("Short")
    assert label.toolTip() == ""


def test_that_a_field_marks_and_clears_what_is_wrong(qtbot: QtBot) -> None:
    field = Field("Rank", QSpinBox(), "Room to learn.")
    qtbot.addWidget(field)
    field.set_error("At most 256.")
    assert field.help_line.text() == "At most 256."
    assert field.control.property("wrong")
    field.set_error("")
    assert field.help_line.text() == "Room to learn."
    assert not field.control.property("wrong")


def test_that_missing_facts_are_a_dash(qtbot: QtBot) -> None:
    facts = KeyValueList()
    qtbot.addWidget(facts)
    facts.set_rows([("Layers", "30"), ("Licence", "")])
    assert facts.rows() == [("Layers", "30"), ("Licence", "–")]


def test_that_log_lines_keep_their_links(qtbot: QtBot) -> None:
    log = LogList()
    shown(qtbot, log)
    log.set_lines(
        [LogLine("16:08:44", "New best.", "star", "Step 500"), LogLine("16:00:00", "High loss.", link="Show")]
    )
    log.setFocus()
    log.setCurrentIndex(log.model().index(1, 0))
    with qtbot.waitSignal(log.link_chosen) as heard:
        qtbot.keyClick(log, Qt.Key.Key_Return)
    assert heard.args == [1]


def test_that_findings_report_key_and_action(qtbot: QtBot) -> None:
    findings = CheckList()
    shown(qtbot, findings)
    item = CheckItem("copies", "warn", "112 are copies", "Twice as hard.", (("one", "Keep one"), ("show", "Show")))
    findings.set_items([item])
    button = findings.findChild(Button, "action_show")
    assert button is not None
    with qtbot.waitSignal(findings.action_chosen) as heard:
        qtbot.mouseClick(button, LEFT)
    assert heard.args == ["copies", "show"]
    row = findings.findChild(QWidget, "check_copies")
    findings.set_items([item, CheckItem("ok", "ok", "Sound")])
    assert findings.findChild(QWidget, "check_copies") is row


def conversation() -> list[TurnView]:
    spans = (
        TokenSpan("<|im_start|>", "template"),
        TokenSpan("assistant", "template"),
        TokenSpan("\n", "template"),
        TokenSpan("Good", "trained"),
        TokenSpan(" day", "trained"),
        TokenSpan("<|im_end|>", "trained"),
    )
    return [TurnView("User", (TokenSpan("Hello\nthere", "context"),)), TurnView("Assistant", spans)]


def test_that_reading_hides_the_template(qtbot: QtBot) -> None:
    view = TokenView()
    shown(qtbot, view)
    view.set_turns(conversation())
    assert "<|im_start|>" in view.plain_text()
    assert "<|im_end|>" in view.plain_text()
    view.set_mode("reading")
    assert view.plain_text() == "Hello\nthere\nGood day"


def test_that_copied_tokens_are_clean(qtbot: QtBot) -> None:
    view = TokenView()
    shown(qtbot, view)
    view.set_turns(conversation())
    view.selectAll()
    copied = view.createMimeDataFromSelection().text()
    assert "<|im_start|>assistant\nGood day<|im_end|>" in copied
    assert "\u2060" not in copied


def test_that_a_long_conversation_says_what_is_left_out(qtbot: QtBot) -> None:
    view = TokenView()
    shown(qtbot, view)
    view.set_turns([TurnView("User", tuple(TokenSpan(" a", "context") for _ in range(5000)))])
    assert "1,000 more tokens are not shown" in view.plain_text()


def test_that_a_list_of_bars_speaks_its_figures_and_hides_the_tail(qtbot: QtBot) -> None:
    bars = BarList(most=3)
    qtbot.addWidget(bars)
    bars.resize(240, 200)
    bars.show()
    bars.set_bars([Bar(f"label {place}", 1 / (place + 1), str(place)) for place in range(6)])
    assert bars.accessibleName() == "label 0 0, label 1 1, label 2 2"
    assert bars.more.text() == "and 3 more"
    qtbot.mouseClick(bars.more, Qt.MouseButton.LeftButton)
    assert len(bars.shown()) == 6
    bars.set_bars([Bar(f"label {place}", 0.5, "1") for place in range(6)])
    assert len(bars.shown()) == 6
    bars.set_bars([Bar("other", 0.0, "–")])
    assert bars.accessibleName() == "other –"
    assert not bars.more.isVisible()


def test_that_one_bar_too_many_is_shown_in_place_of_the_link(qtbot: QtBot) -> None:
    bars = BarList(most=3)
    qtbot.addWidget(bars)
    bars.set_bars([Bar(str(place), 0.5, "") for place in range(4)])
    assert len(bars.shown()) == 4


@pytest.mark.parametrize("mode", ["light", "dark", "contrast"])
def test_that_bars_are_drawn_in_every_theme_with_long_names(qtbot: QtBot, mode: str) -> None:
    bars = BarList()
    qtbot.addWidget(bars)
    Theme.of().set_mode(mode)
    bars.set_bars([Bar("a very long name of a label " * 4, 2.0, "100%"), Bar("b", 0.0, "0%", quiet=True)])
    assert not bars.grab().isNull()
    Theme.of().set_mode("light")


def test_that_what_a_tokenizer_adds_is_a_chip_and_hidden_when_read(qtbot: QtBot) -> None:
    view = TokenView()
    qtbot.addWidget(view)
    spans = (TokenSpan("[CLS]", "template"), TokenSpan("A [X] text", "context"), TokenSpan("[SEP]", "template"))
    view.set_turns([TurnView("Text", spans)])
    assert [mark.chip for mark in view._marks[0]] == [True, False, True]
    view.set_mode("reading")
    assert view.plain_text() == "A [X] text"


def test_that_the_legend_speaks_its_counts(qtbot: QtBot) -> None:
    legend = TokenLegend()
    qtbot.addWidget(legend)
    legend.set_counts(1060, 72, cut=3)
    assert legend.accessibleName() == "Trained 1,060, Context only 72, Cut off 3"


def test_that_arrow_keys_move_the_cut(qtbot: QtBot) -> None:
    chart = Histogram()
    shown(qtbot, chart)
    chart.set_data([10, 20, 5, 1], 128)
    chart.set_cut(256)
    assert chart.longer() == 6
    with qtbot.waitSignal(chart.cut_changed) as heard:
        qtbot.keyClick(chart, Qt.Key.Key_Right)
    assert heard.args == [384]
    assert chart.longer() == 1
    assert "Cut at 384" in chart.accessibleName()


def test_that_the_cut_can_be_dragged_but_not_off_the_scale(qtbot: QtBot) -> None:
    chart = Histogram()
    shown(qtbot, chart, 400, 180)
    chart.set_data([10, 20, 5, 1], 128)
    chart.set_cut(256)
    start = QPoint(round(chart._x(256)), 90)
    qtbot.mousePress(chart, LEFT, pos=start)
    qtbot.mouseMove(chart, QPoint(399, 90))
    qtbot.mouseRelease(chart, LEFT, pos=QPoint(399, 90))
    assert chart.cut() == 512


def test_that_loading_bars_wait_a_moment(qtbot: QtBot) -> None:
    bars = Skeleton(delay_ms=40)
    shown(qtbot, bars)
    assert not bars.are_bars_shown()
    qtbot.waitUntil(bars.are_bars_shown, timeout=2000)
    bars.stop()
    assert not bars.are_bars_shown()


def test_that_a_toast_goes_away_and_acts(qtbot: QtBot) -> None:
    window = QWidget()
    shown(qtbot, window)
    toast = Toast.show_in(window, "Checkpoint saved", action="Show", seconds=0.05)
    assert toast.isVisible()
    assert window.rect().contains(toast.geometry())
    with qtbot.waitSignal(toast.destroyed, timeout=2000):
        pass
    again = Toast.show_in(window, "Saved", action="Show")
    button = again.findChild(Button, "action")
    assert button is not None
    with qtbot.waitSignal(again.action_asked):
        qtbot.mouseClick(button, LEFT)


@pytest.mark.parametrize(("given", "kept"), [(-1.0, 0.0), (0.63, 0.63), (7.0, 1.0), (None, None)])
def test_that_progress_stays_within_its_bar(qtbot: QtBot, given: float | None, kept: float | None) -> None:
    bar = SlimProgress()
    shown(qtbot, bar, 200, 16)
    bar.set_value(given)
    assert bar.value() == kept


def test_that_a_page_leads_on_and_back(qtbot: QtBot) -> None:
    page = PageFrame("Method", "Which part of the model learns.")
    shown(qtbot, page)
    page.footer.set_back("Back: Data")
    page.footer.set_next("Next: Fit")
    for button, signal in (
        (page.footer.next_button, page.footer.next_asked),
        (page.footer.back_button, page.footer.back_asked),
    ):
        with qtbot.waitSignal(signal):
            qtbot.mouseClick(button, LEFT)
    page.footer.set_next("Next: Fit", enabled=False)
    assert not page.footer.next_button.isEnabled()


def test_that_the_right_column_goes_under_the_left(qtbot: QtBot) -> None:
    columns = TwoColumns(Card("Left"), Card("Right"), narrow_below=700)
    shown(qtbot, columns, 900, 400)
    assert not columns.is_narrow()
    columns.resize(600, 400)
    assert columns.is_narrow()


def test_that_badges_without_words_are_hidden(qtbot: QtBot) -> None:
    host = QWidget()
    qtbot.addWidget(host)
    badge = Badge("", "ok", parent=host)
    assert badge.isHidden()
    badge.set_badge("Fits", "ok")
    assert not badge.isHidden()


def test_that_an_empty_page_offers_its_button(qtbot: QtBot) -> None:
    empty = EmptyState("file", "Drop a file here.", title="No data yet")
    empty.add_button(Button("Open file", "primary"))
    shown(qtbot, empty)
    assert empty.accessibleName() == "No data yet Drop a file here."
    assert not empty.grab().isNull()


POINTS = [(1.0, 2.5), (2.0, 2.25), (3.0, float("nan")), (4.0, 2.0), (5.0, 1.875)]
EVALS = [(2.0, 2.4), (4.0, 2.1)]


@pytest.fixture
def loss(qtbot: QtBot) -> LossChart:
    chart = LossChart()
    shown(qtbot, chart, 600, 320)
    chart.set_data(POINTS, EVALS, total_steps=10, epoch_steps=[5])
    return chart


def test_that_the_chart_holds_the_points_it_was_given(loss: LossChart) -> None:
    assert loss.eval_points() == EVALS
    assert [step for step, _ in loss.train_points()] == [1, 2, 3, 4, 5]
    x, y = loss._raw.getData()
    assert list(x) == [1, 2, 3, 4, 5]
    assert y[0] == 2.5


def test_that_a_value_that_is_not_a_number_leaves_a_gap(loss: LossChart) -> None:
    assert loss._raw.opts["connect"] == "finite"
    assert math.isnan(loss._raw.getData()[1][2])
    assert math.isnan(loss._smooth.getData()[1][2])
    assert math.isfinite(loss._smooth.getData()[1][3])


def test_that_the_whole_planned_run_is_on_the_axis(loss: LossChart) -> None:
    assert loss._plot.box.viewRange()[0] == [0, 10]


def test_that_the_y_axis_widens_and_never_shrinks(loss: LossChart) -> None:
    before = loss._plot.box.viewRange()[1]
    loss.set_data([*POINTS, (6.0, 9.0)], EVALS, total_steps=10)
    wide = loss._plot.box.viewRange()[1]
    assert wide[1] > before[1]
    loss.set_data([*POINTS, (6.0, 2.0)], EVALS, total_steps=10)
    assert loss._plot.box.viewRange()[1] == wide


def test_that_the_best_is_named(loss: LossChart) -> None:
    assert loss.best() == (4.0, 2.1)
    assert "2.100 at step 4" in loss.accessibleName()


@pytest.mark.parametrize("mode", ["smooth", "every", "log"])
@pytest.mark.parametrize("points", [[], [(1.0, float("nan"))], [(1.0, -1.0), (2.0, 0.0)], POINTS])
def test_that_any_points_are_drawn_in_any_mode(qtbot: QtBot, mode: str, points: list[tuple[float, float]]) -> None:
    chart = LossChart()
    shown(qtbot, chart)
    chart.set_mode(mode)  # type: ignore[arg-type]
    chart.set_data(points, [], total_steps=10)
    assert not chart.grab().isNull()


def test_that_exported_numbers_are_the_points(loss: LossChart, tmp_path: Path) -> None:
    target = tmp_path / "loss.csv"
    loss.export_csv(target)
    rows = list(csv.DictReader(target.open(encoding="utf-8")))
    train = [(float(row["step"]), float(row["training_loss"])) for row in rows if row["training_loss"]]
    evals = [(float(row["step"]), float(row["held_out_loss"])) for row in rows if row["held_out_loss"]]
    assert [pair for pair in train if not math.isnan(pair[1])] == [pair for pair in POINTS if not math.isnan(pair[1])]
    assert math.isnan(train[2][1])
    assert evals == EVALS


def test_that_the_picture_is_written(loss: LossChart, tmp_path: Path) -> None:
    target = tmp_path / "loss.png"
    loss.export_png(target)
    assert target.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OSError, match="could not be written"):
        loss.export_png(tmp_path / "nowhere" / "loss.png")


def test_that_zoom_is_told_and_taken_back(qtbot: QtBot, loss: LossChart) -> None:
    with qtbot.waitSignal(loss.zoom_changed) as heard:
        loss._plot.box.setXRange(2, 4, padding=0)
        loss._plot.box.sigRangeChangedManually.emit([True, False])
    assert heard.args == [True]
    loss.set_data(POINTS, EVALS, total_steps=10)
    assert loss._plot.box.viewRange()[0] == [2, 4]
    loss.reset_zoom()
    assert not loss.is_zoomed()
    assert loss._plot.box.viewRange()[0] == [0, 10]


def test_that_hovering_tells_the_values(qtbot: QtBot, loss: LossChart) -> None:
    spot = loss._plot.spot(3.0, 2.2)
    with qtbot.waitSignal(loss.hovered) as heard:
        loss._hover_at(spot)
    assert heard.args is not None
    assert "Step 3" in heard.args[0]
    assert "not a number" in heard.args[0]


def test_that_long_runs_are_cut_to_the_width(qtbot: QtBot) -> None:
    chart = LossChart()
    shown(qtbot, chart, 600, 300)
    chart.set_data([(step, 1.0 + 1 / (step + 1)) for step in range(20_000)], [], total_steps=20_000)
    assert len(chart._smooth.getData()[0]) <= 600
    assert len(chart.train_points()) == 20_000


def test_that_the_small_chart_keeps_points_and_plan(qtbot: QtBot, tmp_path: Path) -> None:
    chart = SmallChart()
    shown(qtbot, chart, 300, 100)
    spell: Callable[[float], str] = "{:.0e}".format
    chart.set_data([(0, 0.0), (1, 2e-4)], total_steps=4, planned=[(1, 2e-4), (4, 0.0)], y_format=spell)
    assert chart.points() == [(0, 0.0), (1, 2e-4)]
    assert chart.accessibleDescription() == "2e-04"
    chart.export_csv(tmp_path / "rate.csv")
    assert (tmp_path / "rate.csv").read_text(encoding="utf-8").split() == ["step,value", "0,0", "1,0.0002"]


def test_that_the_parts_load_without_the_chart_library() -> None:
    code = "import sys, tunedesk.gui.widgets; sys.exit('pyqtgraph' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def ring_of(window: QWidget) -> QWidget | None:
    return next((ring for ring in window.findChildren(QWidget, "focusRing") if ring.isVisible()), None)


def test_that_the_keyboard_brings_a_ring(qtbot: QtBot) -> None:
    window = QWidget()
    column = QVBoxLayout(window)
    first, second = Button("First"), Button("Second")
    column.addWidget(first)
    column.addWidget(second)
    shown(qtbot, window, 300, 200)
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    second.setFocus(Qt.FocusReason.TabFocusReason)
    qtbot.waitUntil(lambda: ring_of(window) is not None)
    ring = ring_of(window)
    assert ring is not None
    assert ring.geometry().contains(second.geometry())
    assert ring.geometry() != second.geometry()


def test_that_a_widget_may_die_under_its_ring(qtbot: QtBot) -> None:
    window = QWidget()
    column = QVBoxLayout(window)
    doomed, other = Button("Doomed"), Button("Other")
    column.addWidget(doomed)
    column.addWidget(other)
    shown(qtbot, window, 300, 200)
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    doomed.setFocus(Qt.FocusReason.TabFocusReason)
    doomed.deleteLater()
    qtbot.waitUntil(lambda: len(window.findChildren(Button)) == 1)
    other.setFocus(Qt.FocusReason.TabFocusReason)
    qtbot.waitUntil(lambda: ring_of(window) is not None)


def turn_wheel(chart: LossChart, modifiers: Qt.KeyboardModifier) -> QWheelEvent:
    viewport = chart._plot.viewport()
    spot = QPointF(viewport.rect().center())
    event = QWheelEvent(
        spot,
        viewport.mapToGlobal(spot),
        QPoint(0, 0),
        QPoint(0, 120),
        Qt.MouseButton.NoButton,
        modifiers,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(viewport, event)
    return event


def test_that_the_wheel_zooms_only_with_ctrl(loss: LossChart) -> None:
    plain = turn_wheel(loss, Qt.KeyboardModifier.NoModifier)
    assert not plain.isAccepted()
    assert not loss.is_zoomed()
    turn_wheel(loss, Qt.KeyboardModifier.ControlModifier)
    assert loss.is_zoomed()
    low, high = loss._plot.box.viewRange()[0]
    assert 0 <= low < high <= 10
    assert high - low < 10


@pytest.mark.parametrize("width", [300, 700, 1200])
def test_that_the_sentence_of_an_empty_page_is_never_cut(qtbot: QtBot, width: int) -> None:
    empty = EmptyState(
        "file", "Drop a file here: JSON Lines, JSON, CSV, Parquet or plain text. Or begin with a starter."
    )
    shown(qtbot, empty, width, 500)
    label = empty.sentence
    assert label.height() >= label.heightForWidth(label.width())


def test_that_a_problem_with_many_words_is_never_cut(qtbot: QtBot) -> None:
    page = PageFrame("Fit")
    shown(qtbot, page, 600, 500)
    page.problems.set_problems([ProblemItem("bad", "It does not fit.", "Many words. " * 40, (("a", "Make it fit"),))])
    words = page.problems.findChild(Label, "words")
    assert words is not None
    qtbot.waitUntil(lambda: words.height() >= words.heightForWidth(words.width()) > 60)


def test_that_a_page_follows_the_text_scale_while_it_is_open(qtbot: QtBot, rail: Rail) -> None:
    page = PageFrame("Method", "Which part of the model learns.")
    shown(qtbot, page)
    before = (page.header.height(), page.footer.height(), part(rail, "steps").height())
    Theme.of().set_text_scale(1.5)
    try:
        after = (page.header.height(), page.footer.height(), part(rail, "steps").height())
    finally:
        Theme.of().set_text_scale(1.0)
    assert after == tuple(height * 3 // 2 for height in before)
    assert (page.header.height(), page.footer.height(), part(rail, "steps").height()) == before


def test_that_a_role_of_several_tokens_is_one_chip_and_template_words_are_none(qtbot):
    head = (TokenSpan("<|im_start|>", "template"), TokenSpan("sys", "template"), TokenSpan("tem\n", "template"))
    words = (TokenSpan("You", "template"), TokenSpan(" help", "template"))
    tail = (TokenSpan("<|im_end|>", "template"), TokenSpan("\n", "template"))
    view = TokenView()
    qtbot.addWidget(view)
    view.set_turns([TurnView("System", (*head, *words, *tail))])
    chips = [mark for marks in view._marks.values() for mark in marks if mark.chip]
    assert len(chips) == 3
    assert view.plain_text().splitlines()[-1].startswith("You help")
    assert not view.plain_text().endswith("\n")
    assert view.accessibleDescription().startswith("System: ")


def test_that_a_wrapped_label_has_the_line_height_of_its_role_and_keeps_its_text(qtbot):
    label = Label("A <b> & a long sentence that needs more than one line", wrap=True)
    qtbot.addWidget(label)
    label.ensurePolished()
    assert label.text() == "A <b> & a long sentence that needs more than one line"
    one, two = label.heightForWidth(2000), label.heightForWidth(200)
    assert one == 20
    assert two == 40
