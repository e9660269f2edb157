"""The job that adds up LoRA adapters of one base by weights, exactly, into one LoRA that plain peft loads.

A LoRA adds s B A to a matrix. The sum over i of w_i s_i B_i A_i is one product again, of [w_1 s_1 B_1, w_2 s_2 B_2,
...] and [A_1; A_2; ...]: ranks are put one after the other and nothing is lost (the combination ``cat`` of peft). Where
a matrix has the rank R, alpha is R, so that its own scale is 1.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunedesk.core.adapters import CONFIG_FILE, WEIGHTS_FILE, About, check_name, read_adapter, same_base
from tunedesk.core.events import CombineAdapters, Stage
from tunedesk.core.problems import Problem, ProblemError, raise_if_any
from tunedesk.engine.channel import Channel, Stopped
from tunedesk.engine.library import add_to_library
from tunedesk.engine.saved import Origin, Saved, misfits, origin_of, read_saved
from tunedesk.engine.sources import resolve

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX = "base_model.model."
_LAYERS = ("layers_to_transform", "layers_pattern", "exclude_modules")


@dataclass(frozen=True)
class _Pair:
    """The two matrices of one module: A (rank, in, ...) and B (out, rank, ...), and their names without the module."""

    a: Tensor
    b: Tensor
    names: tuple[str, str]


def combine_adapters(job: CombineAdapters, channel: Channel) -> Literal["completed", "stopped"]:
    """Add up `job.adapters` into a new adapter of the library. Raises `ProblemError` with all that keeps them apart."""
    folders = [Path(folder).expanduser().absolute() for folder in job.adapters]
    channel.emit(Stage(text="Reading the adapters"))
    named = check_name(job.name)
    problems = [*([named] if named else []), *_check_weights(folders, job.weights)]
    saved: list[Saved] = []
    for folder in folders:
        try:
            saved.append(read_saved(folder))
        except ProblemError as error:
            problems += error.problems
    origins = [origin_of(item.path) for item in saved]
    problems += [problem for item in saved for problem in _cannot_be_added(item)] + _other_bases(saved, origins)
    raise_if_any(problems)
    base = origins[0].base
    assert base is not None
    info = resolve(base, origins[0].revision, channel)
    raise_if_any([problem for item in saved for problem in misfits(item.config, item.shapes, item.head, info)])
    channel.emit(Stage(text="Adding them up"))
    config, weights = add_up(saved, job.weights)
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    raise_if_any([*misfits(config, shapes, None, info), *_not_finite(weights)])
    if channel.stop_asked:
        raise Stopped
    tasks = [origin.task for origin in origins if origin.task]
    about = About(
        job.name.strip(), base, "lora", tasks[0] if tasks else None, "combined", time.time(), origins[0].revision
    )
    add_to_library(_content(config, weights), about, channel)
    return "completed"


def add_up(saved: Sequence[Saved], weights: Sequence[float]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights (fp32) of one LoRA that is the sum of `saved` by `weights`."""
    import torch

    parts: dict[str, list[_Pair]] = {}
    for item, weight in zip(saved, weights, strict=True):
        for module, pair in _pairs(item).items():
            scaled = _Pair(
                pair.a.float(), pair.b.float() * (weight * scale_of(item.config, module, pair.a)), pair.names
            )
            parts.setdefault(module, []).append(scaled)
    found: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for module, pairs in sorted(parts.items()):
        first, second = pairs[0].names
        found[f"{_PREFIX}{module}.{first}"] = torch.cat([pair.a for pair in pairs]).contiguous()
        found[f"{_PREFIX}{module}.{second}"] = torch.cat([pair.b for pair in pairs], dim=1).contiguous()
        ranks[module] = sum(len(pair.a) for pair in pairs)
    return _config(saved, ranks), found


def scale_of(config: dict[str, Any], module: str, a: Tensor) -> float:
    """What peft multiplies B A of `module` by: alpha / rank, or alpha over its root (rsLoRA)."""
    from peft.utils.other import get_pattern_key

    patterns = config.get("alpha_pattern") or {}
    alpha = float(patterns.get(get_pattern_key(list(patterns), module), config.get("lora_alpha", 8)))
    rank = len(a)
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _pairs(saved: Saved) -> dict[str, _Pair]:
    """The matrices in the file by the name of their module."""
    from safetensors.torch import load_file

    weights = load_file(saved.path / WEIGHTS_FILE)
    found = {}
    for name, tensor in weights.items():
        for first, second in (("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B")):
            if name.endswith(f".{first}"):
                module = name.removesuffix(f".{first}")
                pair = _Pair(tensor, weights[f"{module}.{second}"], (first, second))
                found[module.removeprefix(_PREFIX)] = pair
    return found


def _config(saved: Sequence[Saved], ranks: dict[str, int]) -> dict[str, Any]:
    """peft's configuration: the commonest rank for all, and the modules that have another."""
    common = Counter(ranks.values()).most_common(1)[0][0]
    others = {module: rank for module, rank in ranks.items() if rank != common}
    first = saved[0].config
    return {
        "peft_type": "LORA",
        "task_type": first.get("task_type"),
        "base_model_name_or_path": first.get("base_model_name_or_path"),
        "revision": first.get("revision"),
        "inference_mode": True,
        "r": common,
        "lora_alpha": common,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "init_lora_weights": True,
        "fan_in_fan_out": bool(first.get("fan_in_fan_out")),
        "rank_pattern": others,
        "alpha_pattern": others,
        **_targets(saved, set(ranks)),
    }


def _targets(saved: Sequence[Saved], modules: set[str]) -> dict[str, Any]:
    """Which modules get matrices: as the adapters say it where that means exactly these, else by their whole names."""
    for item in saved:
        if set(_pairs_of(item)) == modules:
            return {name: item.config[name] for name in ("target_modules", *_LAYERS) if item.config.get(name)}
    lists = [item.config.get("target_modules") for item in saved]
    plain = not any(item.config.get(name) for item in saved for name in _LAYERS)
    if plain and all(isinstance(names, list) for names in lists):
        return {"target_modules": sorted({name for names in lists for name in names or ()})}
    return {"target_modules": sorted(modules)}


def _pairs_of(saved: Saved) -> list[str]:
    """The modules that an adapter has matrices for."""
    names = [name.removeprefix(_PREFIX) for name in saved.shapes]
    ends = (".lora_A.weight", ".lora_embedding_A")
    return [name.removesuffix(end) for name in names for end in ends if name.endswith(end)]


def _check_weights(folders: Sequence[Path], weights: Sequence[float]) -> list[Problem]:
    found = ""
    if len(folders) != len(weights):
        found = f"There are {len(folders)} adapters and {len(weights)} weights."
    elif len(folders) < 2:
        found = "There is one." if folders else "There is none."
    elif len(set(folders)) < len(folders):
        found = "One of them is named twice."
    elif not all(math.isfinite(weight) for weight in weights):
        found = f"The weights are {', '.join(f'{weight:g}' for weight in weights)}."
    elif 0.0 in weights:
        found = "A weight is 0, which leaves its adapter out."
    if not found:
        return []
    what, fix = "Two or more adapters are combined, each with a weight.", "For example: 0.7 of one and 0.3 of another."
    return [Problem(code="combine.weights", what=what, found=found, fix=fix)]


def _cannot_be_added(saved: Saved) -> list[Problem]:
    """Everything about one adapter that a sum of products cannot say."""
    config = saved.config
    if saved.kind != "LORA":
        return [
            _not_plain(saved, f"It is {saved.kind}, whose parts do not add up.", "Only LoRA adapters are combined.")
        ]
    strange = [name for name in saved.shapes if not name.endswith(_ADDED)]
    rules = (
        (bool(config.get("use_dora")), "It is DoRA: lengths of columns that were learned do not add up."),
        (bool(config.get("lora_bias")), "It has biases of its own (lora_bias)."),
        (
            bool(saved.head or config.get("modules_to_save")),
            "It holds layers that were trained whole, such as a classifier's head.",
        ),
        (
            any(config.get(name) for name in ("trainable_token_indices", "target_parameters", "alora_invocation_tokens",
                                              "arrow_config", "megatron_config")),
            "It uses a variant of LoRA that is more than two matrices.",
        ),
    )  # fmt: skip
    found = [words for wrong, words in rules if wrong]
    if strange and not found:
        found = [f"It holds {len(strange)} tensors that are no LoRA matrices, such as {strange[0]}."]
    return [_not_plain(saved, words, "Leave it out, or combine others.") for words in found]


_ADDED = ("lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B")


def _not_plain(saved: Saved, found: str, fix: str) -> Problem:
    known = read_adapter(saved.path)
    name = known.name if known else saved.path.name
    return Problem(
        code="combine.not_lora",
        what=f"The adapter '{name}' cannot be combined.",
        where=str(saved.path),
        found=found,
        fix=fix,
    )


def _other_bases(saved: Sequence[Saved], origins: Sequence[Origin]) -> list[Problem]:
    """The problem of adapters that belong to several models, or to one that is not told."""
    bases = [origin.base for origin in origins]
    if not bases:
        return []
    first = bases[0]
    unknown = [str(item.path) for item, base in zip(saved, bases, strict=True) if base is None]
    others = [base for base in bases if base and first and not same_base(base, first)]
    tasks = {item.config.get("task_type") for item in saved} if not (unknown or others) else set()
    revisions = {origin.revision for origin in origins} if not (unknown or others) else set()
    found = ""
    if unknown:
        found = f"{unknown[0]} does not say what it was made for."
    elif others:
        found = f"They were made for {first} and {others[0]}."
    elif len(revisions) > 1:
        found = f"They were made for several revisions: {', '.join(sorted(str(item) for item in revisions))}."
    elif len(tasks) > 1:
        found = f"They are for several tasks: {', '.join(sorted(str(task) for task in tasks))}."
    if not found:
        return []
    return [
        Problem(
            code="combine.bases",
            what="Only adapters of one model can be added up.",
            found=found,
            fix="Choose adapters of one model and task.",
        )
    ]


def _not_finite(weights: dict[str, Tensor]) -> list[Problem]:
    bad = [name for name, tensor in weights.items() if not bool(tensor.isfinite().all())]
    if not bad:
        return []
    return [
        Problem(
            code="adapter.not_finite",
            what="The sum holds values that are no numbers (NaN or infinite).",
            found=f"The first is in {bad[0]}.",
            fix="Choose smaller weights; or one of the adapters is damaged.",
        )
    ]


def _content(config: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, bytes]:
    from safetensors.torch import save

    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    return {WEIGHTS_FILE: save(weights, metadata={"format": "pt"}), CONFIG_FILE: text.encode()}
