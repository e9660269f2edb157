"""The settings of the chosen method, from its catalogue entry and the run file's own fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pydantic import ValidationError
from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtWidgets import QComboBox, QDoubleSpinBox, QLineEdit, QVBoxLayout, QWidget

from tunedesk.core.methods import CATALOGUE, MethodField, method
from tunedesk.core.plan import Plan
from tunedesk.core.problems import ProblemError
from tunedesk.core.spec import MethodSection
from tunedesk.gui import words
from tunedesk.gui.pages._parts import editing
from tunedesk.gui.pages._settings import AUTO, allows_auto, allows_none, choices_of, parse, typed
from tunedesk.gui.widgets import Field, Rule, Segmented

MOST_SEGMENTS: Final = 5
_FIELD_WIDTH: Final = 112
_COMBO_WIDTH: Final = 152
_SWITCH_WIDTH: Final = 80
_BESIDE: Final = 24
"""Letters of a label up to which its control stands beside it."""

_SHARED: Final = "quantised"
"""What most methods have stands after what is their own."""

Change = Callable[..., None]
"""Takes the changed fields to the session; raises what the session raises."""


class MethodFields(QWidget):
    """A field for each setting of the chosen method; a value that cannot be used is explained there and not taken."""

    changed = Signal()

    def __init__(self, change: Change, *, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._change = change
        self._section = MethodSection()
        self._plan: Plan | None = None
        self._hidden: int | None = None
        self._waiting: dict[str, object] = {}
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(8)
        self.fields: dict[str, Field] = {}
        self._about: dict[str, MethodField] = {}
        self._rules: dict[str, Rule] = {}
        everything = {field.key: field for item in CATALOGUE for field in item.fields}
        last = everything.pop(_SHARED)
        for about in (*everything.values(), last):
            self._add(about)

    # Building.

    def _add(self, about: MethodField) -> None:
        control = self._control(about)
        control.setObjectName(about.key)
        control.setProperty("compact", True)
        inline = not isinstance(control, QLineEdit) and len(about.label) <= _BESIDE
        field = Field(self.tr(about.label), control, self.tr(about.help), inline=inline)
        field.setObjectName(f"field_{about.key}")
        rule = Rule()
        self._about[about.key], self.fields[about.key], self._rules[about.key] = about, field, rule
        self._column.addWidget(rule)
        self._column.addWidget(field)

    def _control(self, about: MethodField) -> QWidget:
        key = about.key
        annotation = MethodSection.model_fields[key].annotation
        if key in ("alpha", "dropout"):
            return self._spin(key)
        if key == "target_modules" or choices_of(annotation):
            combo = QComboBox()
            combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            combo.setFixedWidth(_width(choices_of(annotation)))
            combo.activated.connect(lambda place: self._set(key, combo.itemData(place)))
            return combo
        if about.choices and len(about.choices) <= MOST_SEGMENTS and not self._may_be_empty(key):
            segments = Segmented(name=self.tr(about.label))
            segments.chosen.connect(lambda text: self._set(key, int(text)))
            return segments
        if about.choices:
            return self._editable(key)
        line = QLineEdit()
        line.editingFinished.connect(lambda: self._set_text(key, line.text()))
        return line

    def _spin(self, key: str) -> QDoubleSpinBox:
        top, step, decimals = (4096, 8, 1) if key == "alpha" else (0.9, 0.05, 2)
        box = QDoubleSpinBox()
        box.setRange(0, top)
        box.setSingleStep(step)
        box.setDecimals(decimals)
        box.setKeyboardTracking(False)
        box.setFixedWidth(_FIELD_WIDTH)
        auto = key == "alpha"
        box.valueChanged.connect(lambda value: self._set(key, AUTO if auto and not value else round(value, decimals)))
        return box

    def _editable(self, key: str) -> QComboBox:
        combo = QComboBox()
        combo.setEditable(True)
        combo.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        combo.setFixedWidth(_FIELD_WIDTH)
        combo.activated.connect(lambda place: self._set(key, combo.itemData(place)))
        line = combo.lineEdit()
        assert line is not None
        line.setObjectName(f"{key}_text")
        line.setAccessibleName(self.tr(self._label_of(key)))
        line.editingFinished.connect(lambda: self._set_text(key, combo.currentText()))
        return combo

    @staticmethod
    def _label_of(key: str) -> str:
        return next(field.label for item in CATALOGUE for field in item.fields if field.key == key)

    @staticmethod
    def _may_be_empty(key: str) -> bool:
        annotation = MethodSection.model_fields[key].annotation
        return allows_auto(annotation) or allows_none(annotation)

    # Acting.

    def _set_text(self, key: str, text: str) -> None:
        """Take what was typed; the words for auto and for none stand for themselves."""
        if text == self._word(key, self._value(key)):
            return
        annotation: Any = MethodSection.model_fields[key].annotation
        empty = text.strip().lower().startswith((AUTO, self.tr("off").lower()))
        self._set(key, parse("" if empty and self._may_be_empty(key) else text, annotation))

    def _set(self, key: str, value: object) -> None:
        values = {**self._waiting, key: value, **self._dropped(key, value)}
        if values.get("prompt_init") == "text" and not (values.get("prompt_text") or self._section.prompt_text):
            self._wait(values)
            return
        try:
            self._change(**values)
        except ValidationError as error:
            messages = [item["msg"].removeprefix("Input should be ") for item in error.errors()]
            self.fields[key].set_error(self.tr("Must be {0}.").format(self.tr(" or ").join(dict.fromkeys(messages))))
        except ProblemError as error:
            first = error.problems[0]
            self.fields[key].set_error(" ".join(filter(None, (first.what, first.fix))).replace("'", ""))
        else:
            self._waiting = {}
            self.fields[key].set_error("")
            self.changed.emit()

    @staticmethod
    def _dropped(key: str, value: object) -> dict[str, object]:
        """What makes no sense any more once `key` has `value`."""
        if key == "prompt_init" and value != "text":
            return {"prompt_text": None}
        if key == "prefix_projection" and not value:
            return {"encoder_hidden_size": AUTO}
        return {}

    def _wait(self, values: dict[str, object]) -> None:
        """Hold back what needs a text until there is one."""
        self._waiting = values
        self._show_which(self._section)
        line = self.fields["prompt_text"].control
        self.fields["prompt_text"].set_error(self.tr("Write a text; until then the tokens start at random."))
        line.setFocus(Qt.FocusReason.OtherFocusReason)

    # Showing.

    def show_section(self, section: MethodSection, plan: Plan | None, hidden_size: int | None) -> None:
        """Show the fields that the method of `section` has, with its values; `plan` and `hidden_size` resolve auto."""
        if section != self._section:
            self._waiting = {}
        self._section, self._plan, self._hidden = section, plan, hidden_size
        self._show_which(section)
        for about in method(section.name).fields:
            field = self.fields[about.key]
            if not self._waiting:
                field.set_error("")
            self._show_value(about, field.control)

    def _show_which(self, section: MethodSection) -> None:
        shown = [about.key for about in method(section.name).fields if self._applies(about.key, section)]
        for key, field in self.fields.items():
            field.setVisible(key in shown)
            self._rules[key].setVisible(key in shown)

    def _applies(self, key: str, section: MethodSection) -> bool:
        if key == "prompt_text":
            return {"prompt_init": section.prompt_init, **self._waiting}["prompt_init"] == "text"
        if key == "encoder_hidden_size":
            return section.name != "prefix_tuning" or section.prefix_projection
        return True

    def reset_help(self, *keys: str) -> None:
        """Show the catalogue's own help again."""
        for key in keys:
            self.fields[key].set_help(self.tr(self._about[key].help))

    def shown(self) -> list[str]:
        """The keys of the fields that are shown, in order."""
        return [key for key, field in self.fields.items() if not field.isHidden()]

    def _value(self, key: str) -> object:
        return self._waiting.get(key, getattr(self._section, key))

    def _show_value(self, about: MethodField, control: QWidget) -> None:
        value = self._value(about.key)
        with QSignalBlocker(control):
            match control:
                case QDoubleSpinBox():
                    self._show_spin(control, about.key, value)
                case Segmented():
                    self._show_segments(control, about, value)
                case QComboBox():
                    self._show_combo(control, about, value)
                case QLineEdit() if not (control.hasFocus() and control.isModified()):
                    control.setText(typed(value))

    def _show_spin(self, box: QDoubleSpinBox, key: str, value: object) -> None:
        if editing(box):
            return
        if key == "alpha":
            box.setSpecialValueText(self._word(key, AUTO))
        box.setValue(float(value) if isinstance(value, float | int) else 0)

    @staticmethod
    def _show_segments(segments: Segmented, about: MethodField, value: object) -> None:
        options = [(str(choice), str(choice)) for choice in sorted({*about.choices, int(str(value))})]
        if options != segments.property("options"):
            segments.setProperty("options", options)
            segments.set_options(options)
        segments.set_current(str(value))

    def _show_combo(self, combo: QComboBox, about: MethodField, value: object) -> None:
        options: list[object] = [*self._options(about)]
        if value not in options and not combo.isEditable():
            options.append(value)
        combo.clear()
        for option in options:
            combo.addItem(self._word(about.key, option), option)
        if combo.isEditable():
            combo.setEditText(self._word(about.key, value))
            return
        place = next(place for place, option in enumerate(options) if option is value or option == value)
        combo.setCurrentIndex(place)

    def _options(self, about: MethodField) -> tuple[object, ...]:
        annotation = MethodSection.model_fields[about.key].annotation
        if about.key == "target_modules":
            return ("all-linear", "attention")
        if about.key == "quantised":
            forbidden = False if self._section.name == "qlora" else None
            return tuple(choice for choice in choices_of(annotation) if choice is not forbidden)
        if about.options:
            return about.options
        if about.choices:
            first = (AUTO,) if allows_auto(annotation) else (None,)
            return (*first, *about.choices)
        return choices_of(annotation)

    def _word(self, key: str, value: object) -> str:
        """A value as it is shown in a field."""
        names = {
            "all-linear": self.tr("All linear layers"),
            "attention": self.tr("Attention only"),
            "default": self.tr("As usual"),
            "pissa": self.tr("Principal parts"),
            "random": self.tr("Random numbers"),
            "text": self.tr("A text of yours"),
            "vocabulary": self.tr("Random words"),
            "mlp": self.tr("Plain layers"),
            "lstm": "LSTM",
        }
        if value is None:
            return self.tr("off")
        if isinstance(value, bool):
            return self.tr("On") if value else self.tr("Off")
        if value == AUTO:
            resolved = self._resolved(key)
            return self.tr("auto, {0}").format(resolved) if resolved else AUTO
        if isinstance(value, tuple):
            return ", ".join(value)
        return names.get(str(value), typed(value))

    def _resolved(self, key: str) -> str:
        """What auto stands for, as far as it is known."""
        section = self._section
        if key == "alpha":
            return words.decimal(self._plan.resolved.alpha if self._plan else 2.0 * section.rank)
        if key == "quantised":
            return self.tr("on") if section.packed else self.tr("off")
        if self._hidden is None:
            return ""
        return words.count(section.waist(self._hidden) if key == "bottleneck" else self._hidden)


def _width(choices: tuple[object, ...]) -> int:
    """How wide the list of `choices` is: on and off take less than words."""
    if True not in choices:
        return _COMBO_WIDTH
    return _FIELD_WIDTH if AUTO in choices else _SWITCH_WIDTH
