"""What is said of a method and of what it leaves behind, method by method."""

from __future__ import annotations

from typing import Literal

from PySide6.QtCore import QCoreApplication

from tunedesk.core.methods import method
from tunedesk.core.spec import MethodName, MethodSection, fields_of
from tunedesk.gui import words

Kind = Literal["adapter", "tokens", "weights"]
"""What a run ends with: an adapter, virtual tokens, or weights of the model itself."""

OWN_FORMAT: tuple[MethodName, ...] = ("houlsby", "compacter", "bitfit", "last_layer", "full")
"""The methods that PEFT does not have."""


def tr(text: str) -> str:
    """`text` in the user's language."""
    return QCoreApplication.translate("Method", text)


def kind(name: MethodName) -> Kind:
    """What the method `name` leaves behind."""
    item = method(name)
    if item.virtual:
        return "tokens"
    return "adapter" if item.group == "inside" else "weights"


def in_short(section: MethodSection) -> str:
    """The method with its main setting: ``LoRA, rank 16``, ``Prefix tuning, 20 tokens``, ``IA³``."""
    title, fields = method(section.name).title, fields_of(section.name)
    if "rank" in fields:
        return tr("{0}, rank {1}").format(title, words.count(section.rank))
    if "virtual_tokens" in fields:
        return f"{title}, {words.several(section.virtual_tokens, tr('token'), tr('tokens'))}"
    if "bottleneck" in fields and section.bottleneck != "auto":
        return tr("{0}, waist {1}").format(title, words.count(section.bottleneck))
    return title


def cost(name: MethodName, trained: str, whole: str, size: str) -> str:
    """How much is trained, and what is left on the disk."""
    if name == "full":
        return tr("All {0} weights are trained. The result will be about {1}.").format(whole, size)
    ends = {
        "adapter": tr("{0} of {1} weights are trained. The adapter will be about {2}."),
        "tokens": tr("{0} of {1} weights are trained. The virtual tokens will be about {2}."),
        "weights": tr("{0} of {1} weights are trained. They will be about {2}."),
    }
    return ends[kind(name)].format(trained, whole, size)


def share(name: MethodName, trained: str, whole: str) -> str:
    """What a run trains, as it stands behind the method's name."""
    if name == "full":
        return tr("trains all {0} weights").format(whole)
    if kind(name) == "weights":
        return tr("trains {0} of {1} weights").format(trained, whole)
    return tr("trains {0} beside {1} frozen weights").format(trained, whole)


def nothing_yet(name: MethodName) -> str:
    """That there is no result to try."""
    texts = {
        "adapter": tr("There is no adapter to try yet"),
        "tokens": tr("There are no virtual tokens to try yet"),
        "weights": tr("There are no trained weights to try yet"),
    }
    return texts[kind(name)]


def try_step(name: MethodName, step: str) -> str:
    """The act of trying what was kept at a step."""
    texts = {
        "adapter": tr("Try the adapter of step {0}"),
        "tokens": tr("Try the virtual tokens of step {0}"),
        "weights": tr("Try the weights of step {0}"),
    }
    return texts[kind(name)].format(step)


# Export.


def noun(name: MethodName) -> str:
    """What is saved: ``Adapter``."""
    texts = {"adapter": tr("Adapter"), "tokens": tr("Virtual tokens"), "weights": tr("Trained weights")}
    return texts[kind(name)]


def save(name: MethodName) -> str:
    """The act of saving it."""
    texts = {"adapter": tr("Save adapter"), "tokens": tr("Save virtual tokens"), "weights": tr("Save weights")}
    return texts[kind(name)]


def saved_line(name: MethodName) -> str:
    """That it is saved, beside the step."""
    texts = {"adapter": tr("Adapter, checked"), "tokens": tr("Tokens, checked"), "weights": tr("Weights, checked")}
    return texts[kind(name)]


def is_yours(name: MethodName) -> str:
    """That what was saved passed the checks."""
    texts = {
        "adapter": tr("This adapter is what you trained"),
        "tokens": tr("These virtual tokens are what you trained"),
        "weights": tr("These weights are what you trained"),
    }
    return texts[kind(name)]


def not_saved(name: MethodName) -> str:
    """That it failed the checks."""
    texts = {
        "adapter": tr("The adapter was not saved"),
        "tokens": tr("The virtual tokens were not saved"),
        "weights": tr("The weights were not saved"),
    }
    return texts[kind(name)]


def folder_suffix(name: MethodName) -> str:
    """What the name of the folder ends in."""
    return {"adapter": "adapter", "tokens": "tokens", "weights": "weights"}[kind(name)]


def file_format(name: MethodName) -> str:
    """How it is written."""
    return tr("safetensors") if name in OWN_FORMAT else tr("PEFT format")


def about(name: MethodName, *, labels: bool) -> str:
    """What is saved, and what it needs beside it."""
    if labels:
        return tr("What was learned, and the names of the labels (labels.json). Needs the original beside it.")
    if name == "full":
        return tr("Every weight as it was learned. The original's settings go with it.")
    return tr("Only what was learned. Needs the original model beside it.")


def contents(name: MethodName, *, labels: bool) -> str:
    """What the main file of the folder holds."""
    if name not in OWN_FORMAT:
        things = {"adapter": tr("the adapter"), "tokens": tr("the virtual tokens"), "weights": ""}[kind(name)]
        if labels:
            text = tr("The weights of {0} and of the new output layer, as PEFT reads them (safetensors).")
            return text.format(things)
        if kind(name) == "adapter":
            return tr("The adapter's weights and settings, as PEFT reads them (safetensors).")
        return tr("The virtual tokens and their settings, as PEFT reads them (safetensors).")
    if labels:
        return tr("The trained weights and the new output layer (safetensors), and the settings they need.")
    return tr("The trained weights (safetensors), and the settings that they need.")
