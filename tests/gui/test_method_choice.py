"""The Method page with every method of the catalogue on offer: cards, fields, and what does not fit."""

from __future__ import annotations

import label_samples as labels
import pytest
import samples
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QComboBox, QLineEdit
from samples import settle
from test_screenshots import cut_labels

from tunedesk.core import methods
from tunedesk.core.methods import CATALOGUE, GROUPS
from tunedesk.core.spec import MethodSection, fields_of, parse_spec
from tunedesk.gui import method_words
from tunedesk.gui.method_values import with_changes
from tunedesk.gui.pages.method import MethodPage
from tunedesk.gui.rail_lines import RailLines
from tunedesk.gui.widgets import SCHEMATICS, ElidedLabel, Segmented

LEFT = Qt.MouseButton.LeftButton
NAMES = [item.name for item in CATALOGUE]


@pytest.fixture
def everything(monkeypatch):
    monkeypatch.setattr(methods, "TRAINABLE", tuple(NAMES))


@pytest.fixture
def page(qtbot, session, everything):
    made = MethodPage(session)
    qtbot.addWidget(made)
    made.resize(1048, 800)
    made.show()
    settle(session, model=samples.smollm(biases=0))
    qtbot.wait(1)
    return made


def choose(page, qtbot, name):
    qtbot.mouseClick(page.cards[name], LEFT)


def field(page, key):
    return page.detail.fields.fields[key]


def pick(page, key, value):
    """Take `value` in a list, as a click on its line does."""
    combo = field(page, key).control
    place = next(place for place in range(combo.count()) if combo.itemData(place) == value)
    combo.setCurrentIndex(place)
    combo.activated.emit(place)


def type_into(page, qtbot, key, text):
    control = field(page, key).control
    line = control.lineEdit() if isinstance(control, QComboBox) else control
    line.setFocus()
    line.selectAll()
    qtbot.keyClicks(line, text)
    qtbot.keyClick(line, Qt.Key.Key_Return)


# Cards.


def test_that_the_cards_stand_in_their_groups(page):
    assert list(page.cards) == NAMES
    titles = [label.text() for label in page.findChildren(ElidedLabel, "section")]
    assert titles == list(GROUPS.values())


def test_that_every_method_has_a_drawing():
    assert {item.drawing for item in CATALOGUE} == set(SCHEMATICS)


def test_that_a_card_shows_the_share_and_the_memory_of_its_method(page):
    assert page.cards["ia3"].item.trained == "0.04% trained"
    assert page.cards["full"].item.trained == "100% trained"
    assert all(page.cards[name].item.memory.endswith("GiB") for name in NAMES)
    assert page.cards["full"].item.memory > page.cards["lora"].item.memory


def test_that_a_method_that_cannot_be_used_is_quiet_and_says_why(page, session, qtbot):
    card = page.cards["bitfit"]
    assert not card.isEnabled()
    assert card.item.badge == "No biases"
    assert card.reason() == "BitFit trains biases alone, and SmolLM2-135M-Instruct has none."
    choose(page, qtbot, "bitfit")
    assert session.project.spec.method.name == "lora"


def test_that_four_bits_are_told_where_the_memory_counts_on_them(page, session):
    settle(session, model=samples.qwen(), data=samples.long_data(), hardware=samples.gpu_hardware(9.0))
    assert page.cards["ia3"].item.memory.endswith("GiB, 4-bit")
    assert page.cards["full"].item.badge == "Too big"


def test_that_what_cannot_be_trained_yet_is_not_shown(qtbot, session, monkeypatch):
    monkeypatch.setattr(methods, "TRAINABLE", ("lora", "ia3"))
    made = MethodPage(session)
    qtbot.addWidget(made)
    assert list(made.cards) == ["lora", "ia3"]


def test_that_arrow_keys_go_through_all_groups(page, session, qtbot):
    page.cards["lora"].setFocus()
    qtbot.keyClick(page.cards["lora"], Qt.Key.Key_Down)
    assert session.project.spec.method.name == "ia3"
    qtbot.keyClick(page.cards["ia3"], Qt.Key.Key_Down)
    assert session.project.spec.method.name == "prefix_tuning"
    qtbot.keyClick(page.cards["prefix_tuning"], Qt.Key.Key_Down)
    assert session.project.spec.method.name == "last_layer"
    qtbot.keyClick(page.cards["last_layer"], Qt.Key.Key_Right)
    assert session.project.spec.method.name == "full"
    qtbot.keyClick(page.cards["full"], Qt.Key.Key_Up)
    assert session.project.spec.method.name == "p_tuning"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "bitfit"])
def test_that_the_detail_tells_what_a_method_changes_its_limits_and_its_paper(page, qtbot, name):
    choose(page, qtbot, name)
    item = methods.method(name)
    assert page.detail.name.text() == item.title
    assert page.detail.changes.text() == item.changes
    assert page.detail.good.texts() == list(item.good)
    assert page.detail.poor.texts()
    assert page.detail.source.text() == item.source
    wanted = {each.key for each in item.fields} - {"prompt_text"}
    assert set(page.detail.fields.shown()) | {"encoder_hidden_size"} == wanted | {"encoder_hidden_size"}


def test_that_a_caution_takes_the_place_of_the_same_words(page, qtbot):
    choose(page, qtbot, "prompt_tuning")
    told = page.detail.poor.texts()
    assert told[0].startswith("Weak on a model this small")
    assert sum("10 billion weights" in text for text in told) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [792, 1048])
def test_that_no_label_is_cut_off(page, session, qtbot, name, width):
    session.set_method(name=name)
    page.resize(width, 700)
    qtbot.waitUntil(lambda: cut_labels(page) == [])


def test_that_the_chosen_card_is_in_sight(page, session, qtbot):
    page.resize(792, 700)
    session.set_method(name="full")
    view = page.view.viewport()
    qtbot.waitUntil(lambda: view.rect().contains(page.cards["full"].mapTo(view, page.cards["full"].rect().center())))


# Fields.


def test_that_another_method_drops_the_fields_it_does_not_have(page, session, qtbot):
    field(page, "rank").control.chosen.emit("32")
    choose(page, qtbot, "ia3")
    assert session.project.spec.method.model_fields_set <= {"name", *fields_of("ia3")}
    assert parse_spec(session.project.spec.to_toml()).method.name == "ia3"


def test_that_a_method_has_its_own_values_again(page, session, qtbot):
    field(page, "rank").control.chosen.emit("32")
    choose(page, qtbot, "ia3")
    choose(page, qtbot, "lora")
    assert session.project.spec.method.rank == 32


def test_that_virtual_tokens_are_chosen_and_told(page, session, qtbot):
    choose(page, qtbot, "prefix_tuning")
    segments = field(page, "virtual_tokens").control
    assert isinstance(segments, Segmented)
    segments.chosen.emit("50")
    assert session.project.spec.method.virtual_tokens == 50
    assert page.cards["prefix_tuning"].item.trained == "0.43% trained"
    assert page.footer.hint.text().startswith("576,000 of 134.5 million weights are trained. The virtual tokens")


def test_that_the_width_of_the_network_comes_with_the_network(page, session, qtbot):
    choose(page, qtbot, "prefix_tuning")
    assert "encoder_hidden_size" not in page.detail.fields.shown()
    pick(page, "prefix_projection", True)
    assert "encoder_hidden_size" in page.detail.fields.shown()
    assert field(page, "encoder_hidden_size").control.currentText() == "auto, 576"
    type_into(page, qtbot, "encoder_hidden_size", "128")
    assert session.project.spec.method.encoder_hidden_size == 128
    pick(page, "prefix_projection", False)
    assert session.project.spec.method.encoder_hidden_size == "auto"


def test_that_a_text_to_start_from_waits_for_its_words(page, session, qtbot):
    choose(page, qtbot, "prompt_tuning")
    pick(page, "prompt_init", "text")
    assert session.project.spec.method.prompt_init == "random"
    assert field(page, "prompt_text").error() == "Write a text; until then the tokens start at random."
    type_into(page, qtbot, "prompt_text", "Answer as Marlow.")
    assert session.project.spec.method.prompt_init == "text"
    assert session.project.spec.method.prompt_text == "Answer as Marlow."
    assert field(page, "prompt_text").error() == ""
    pick(page, "prompt_init", "vocabulary")
    assert session.project.spec.method.prompt_text is None
    assert isinstance(field(page, "prompt_text").control, QLineEdit)
    assert "prompt_text" not in page.detail.fields.shown()


def test_that_a_wrong_value_is_explained_and_not_taken(page, session, qtbot):
    choose(page, qtbot, "houlsby")
    type_into(page, qtbot, "bottleneck", "0")
    assert field(page, "bottleneck").error() == "Must be 'auto' or greater than or equal to 1."
    assert session.project.spec.method.bottleneck == "auto"
    type_into(page, qtbot, "bottleneck", "48")
    assert field(page, "bottleneck").error() == ""
    assert session.project.spec.method.bottleneck == 48


def test_that_values_that_contradict_each_other_are_explained(page, session, qtbot):
    pick(page, "init", "pissa")
    pick(page, "quantised", True)
    assert field(page, "quantised").error().startswith("PiSSA takes the principal parts")
    assert session.project.spec.method.quantised == "auto"
    choose(page, qtbot, "qlora")
    assert session.project.spec.method == MethodSection(name="qlora")


def test_that_the_ratio_of_lora_plus_may_be_off(page, session, qtbot):
    assert field(page, "lora_plus_ratio").control.currentText() == "off"
    pick(page, "lora_plus_ratio", 16)
    assert session.project.spec.method.lora_plus_ratio == 16
    type_into(page, qtbot, "lora_plus_ratio", "off")
    assert session.project.spec.method.lora_plus_ratio is None


def test_that_qlora_cannot_be_told_to_leave_its_bits(page, qtbot):
    choose(page, qtbot, "qlora")
    combo = field(page, "quantised").control
    assert [combo.itemData(place) for place in range(combo.count())] == ["auto", True]


# The model changes.


def test_that_a_method_gives_way_when_the_model_cannot_take_it(page, session, qtbot):
    settle(session, model=samples.smollm(biases=5000))
    choose(page, qtbot, "bitfit")
    settle(session, model=samples.smollm(biases=0))
    session._follow_model()
    assert session.project.spec.method.name == "lora"
    told = page.problems.problems()[0]
    assert told.headline.startswith("BitFit trains biases alone")
    assert told.aside == "LoRA is chosen instead"
    choose(page, qtbot, "qlora")
    assert page.problems.problems() == []


def test_that_a_method_is_kept_where_it_fits(page, session, qtbot):
    choose(page, qtbot, "ia3")
    session._follow_model()
    assert session.project.spec.method.name == "ia3"
    assert session.dropped_method is None


def test_that_labels_count_the_new_output_layer(page, session):
    labels.settle_labels(session)
    assert page.cards["last_layer"].item.trained != "– trained"
    assert "the new output layer among them" in page.footer.hint.text()


# Words.


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"name": "lora"}, "LoRA, rank 16"),
        ({"name": "adalora", "rank": 8}, "AdaLoRA, rank 8"),
        ({"name": "prefix_tuning"}, "Prefix tuning, 20 tokens"),
        ({"name": "houlsby", "bottleneck": 32}, "Bottleneck adapters, waist 32"),
        ({"name": "ia3"}, "IA³"),
        ({"name": "full"}, "Full fine-tuning"),
    ],
)
def test_that_the_rail_tells_the_main_setting(page, session, changes, line):
    session.set_method(**changes)
    assert next(step.line for step in RailLines(session).steps() if step.key == "method") == line


@pytest.mark.parametrize("name", NAMES)
def test_that_no_method_but_an_adapter_is_called_one(name):
    said = [
        method_words.cost(name, "1", "2", "3 MB"),
        method_words.share(name, "1", "2"),
        method_words.noun(name),
        method_words.save(name),
        method_words.saved_line(name),
        method_words.is_yours(name),
        method_words.not_saved(name),
        method_words.nothing_yet(name),
        method_words.try_step(name, "4"),
        method_words.contents(name, labels=False),
        method_words.folder_suffix(name),
    ]
    adapter = methods.method(name).group == "inside"
    assert any("dapter" in text for text in said) == adapter
    assert all(said)


def test_that_a_section_never_has_a_field_of_another_method():
    for before in NAMES:
        for after in NAMES:
            made = with_changes(MethodSection(name=before), {"name": after})
            assert made.name == after
            assert made.model_fields_set <= {"name", *fields_of(after)}
