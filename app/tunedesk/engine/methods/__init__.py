"""The methods behind one interface: attached fresh for training, or as they were saved for answering.

`base.Tuned` is what training sees of a method, a PeftModel or `base.OwnModel` what answering sees.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel

from tunedesk.core.spec import MethodName
from tunedesk.engine.methods import adalora, compacter, houlsby, ia3, lora, prompts, whole
from tunedesk.engine.methods.base import OwnModel, Setting, Tuned, trainable
from tunedesk.engine.methods.prompts import prepended, virtual_tokens, writer

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

_ATTACH: dict[MethodName, Callable[[PreTrainedModel, Setting], Tuned]] = {
    "lora": lora.attach,
    "qlora": lora.attach,
    "adalora": adalora.attach,
    "ia3": ia3.attach,
    "prefix_tuning": prompts.attach_prefix,
    "prompt_tuning": prompts.attach_prompt,
    "p_tuning": prompts.attach_p_tuning,
    "houlsby": houlsby.attach,
    "compacter": compacter.attach,
    "bitfit": whole.attach_bitfit,
    "last_layer": whole.attach_last_layer,
    "full": whole.attach_full,
}

_LOADER_IMPORTS = """\
import json

import torch
from safetensors.torch import load_file
from torch.nn.functional import gelu, linear
"""

_REBUILD: dict[str, Callable[[PreTrainedModel, dict[str, Any]], OwnModel]] = {
    "HOULSBY": houlsby.rebuild,
    "COMPACTER": compacter.rebuild,
    "BITFIT": whole.rebuild,
    "LAST_LAYER": whole.rebuild,
    "FULL": whole.rebuild,
}
"""The `peft_type` of methods that peft does not have."""


def attach(model: PreTrainedModel, setting: Setting) -> Tuned:
    """`model` with the method of `setting` on it, fresh and the same for the same seed; what is trained is in fp32.

    Raises `ProblemError` when the method cannot work on this model.
    """
    tuned = _ATTACH[setting.section.name](model, setting)
    if setting.compares:
        tuned.remember()
    return tuned


def attach_saved(model: PreTrainedModel, folder: Path) -> Any:
    """`model` with the adapter in `folder`, for answering: a PeftModel or an `OwnModel`.

    Raises what reading files raises, `KeyError`, `ValueError` and `RuntimeError` when it was made for another model.
    """
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    rebuild = _REBUILD.get(str(config["peft_type"]))
    if rebuild is None:
        tuned = PeftModel.from_pretrained(model, str(folder)).eval()
        ia3.keep_format(tuned)
        return tuned
    own = rebuild(model, config)
    own.put(load_file(folder / WEIGHTS_FILE))
    return own.eval()


def rebuild_own(model: PreTrainedModel, config: dict[str, Any]) -> OwnModel:
    """`model` with a method that peft does not have, as `config` says, ready for saved weights.

    Raises `KeyError` where `config` lacks something or speaks of parts that the model has not.
    """
    return _REBUILD[str(config["peft_type"])](model, config)


def put_saved(model: Any, folder: Path) -> None:
    """Put the weights in `folder` into `model`, which `attach_saved` made from an adapter of the same shape."""
    weights = load_file(folder / WEIGHTS_FILE)
    if isinstance(model, OwnModel):
        model.put(weights)
        return
    config = model.peft_config[model.active_adapter]
    pattern = getattr(config, "rank_pattern", None)
    config.rank_pattern = None  # AdaLoRA would cut its ranks down once more
    set_peft_model_state_dict(model, weights)
    config.rank_pattern = pattern


def saved_weights(model: Any) -> dict[str, Any]:
    """The adapter's weights in `model` from `attach_saved`, by the names that they have in its file."""
    if isinstance(model, OwnModel):
        return dict(model.state())
    return dict(get_peft_model_state_dict(model, save_embedding_layers=False))


def loader(name: MethodName) -> tuple[str, str] | None:
    """(the function that loads what `name` saved, its name) for people without TuneDesk; None where peft loads it."""
    module = {"houlsby": houlsby, "compacter": compacter, "bitfit": whole, "last_layer": whole, "full": whole}.get(name)
    found = re.search(r"```python\n(.*?)```", (module.__doc__ or "") if module else "", re.DOTALL)
    if found is None:
        return None
    code = found.group(1).strip()
    return f"{_LOADER_IMPORTS}\n\n{code}", code.split("(")[0].removeprefix("def ")


def merge(model: Any) -> PreTrainedModel | None:
    """The base of `model` with what was learned in its own weights, or None for a method that has none to go into."""
    if isinstance(model, OwnModel):
        return model.merge()
    can = not model.active_peft_config.is_prompt_learning
    merged: PreTrainedModel | None = model.merge_and_unload() if can else None
    return merged


__all__ = [
    "OwnModel", "Setting", "Tuned", "attach", "attach_saved", "loader", "merge", "prepended", "put_saved",
    "rebuild_own", "saved_weights", "trainable", "virtual_tokens", "writer",
]  # fmt: skip
