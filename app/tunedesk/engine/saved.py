"""A saved adapter in its folder: what it says of itself, and whether it fits a model, found out without any weights.

A model of the same shape is built on torch's meta device, the adapter's configuration is put on it, and the names and
shapes of what it then wants are compared with those in the file. Nothing in the folder is ever executed.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunedesk.core import starter
from tunedesk.core.adapters import CONFIG_FILE, WEIGHTS_FILE, about_of, run_of, same_base
from tunedesk.core.describe import ModelInfo, TaskKind
from tunedesk.core.matching import unfit_task
from tunedesk.core.problems import Problem, ProblemError, did_you_mean, raise_if_any
from tunedesk.core.runs import RunFolder
from tunedesk.core.spec import MethodName
from tunedesk.engine.label_head import LabelHead, read_head
from tunedesk.engine.model_folder import read_header

Shapes = dict[str, tuple[int, ...]]

METHODS: dict[str, MethodName] = {
    "LORA": "lora",
    "ADALORA": "adalora",
    "IA3": "ia3",
    "PREFIX_TUNING": "prefix_tuning",
    "PROMPT_TUNING": "prompt_tuning",
    "P_TUNING": "p_tuning",
    "HOULSBY": "houlsby",
    "COMPACTER": "compacter",
    "BITFIT": "bitfit",
    "LAST_LAYER": "last_layer",
    "FULL": "full",
}
"""The `peft_type` of an adapter that can be used, and its method."""

_OWN = ("HOULSBY", "COMPACTER", "BITFIT", "LAST_LAYER", "FULL")
_PROMPTS = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways in which a LoRA can begin that change the weights of the base each time it is loaded."""

_UNREADABLE = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What building a model raises for a configuration that does not make sense."""

_SHOWN = 3
"""Names that a problem lists before it counts the rest."""

_LONGEST_CONFIG = 64 << 20


@dataclass(frozen=True)
class Saved:
    """An adapter's folder as it was read: `config` is its configuration, `shapes` those of its tensors by name.

    `head` says what a classifier's outputs mean, None of other adapters.
    """

    path: Path
    config: dict[str, Any]
    shapes: Shapes
    head: LabelHead | None

    @property
    def kind(self) -> str:
        """The `peft_type`."""
        return str(self.config.get("peft_type"))

    @property
    def method(self) -> MethodName | None:
        """The method that made it; of LoRA it cannot be told whether the base was packed."""
        return METHODS.get(self.kind)


@dataclass(frozen=True)
class Origin:
    """Where an adapter comes from, as far as its folder or the run around it tells."""

    base: str | None
    revision: str | None
    task: TaskKind | None
    run: RunFolder | None = None


def read_saved(folder: Path) -> Saved:
    """The adapter in `folder`. Raises `ProblemError` with everything that keeps it from being read."""
    problems: list[Problem] = []
    config: dict[str, Any] = {}
    shapes: Shapes = {}
    head: LabelHead | None = None
    if not folder.is_dir():
        raise ProblemError(_nothing(folder))
    try:
        config = _read_config(folder / CONFIG_FILE)
    except ProblemError as error:
        problems += error.problems
    try:
        shapes = _read_shapes(folder)
    except ProblemError as error:
        problems += error.problems
    try:
        head = read_head(folder)
    except ProblemError as error:
        problems += error.problems
    if config:
        problems += _unusable(folder, config)
    raise_if_any(problems)
    return Saved(folder, config, shapes, head)


def origin_of(folder: Path) -> Origin:
    """Where the adapter in `folder` comes from: its run, or `about.json`, or what peft wrote down."""
    run = run_of(folder) or _run_around(folder)
    if run:
        spec = run.spec()
        return Origin(spec.model.source, spec.model.revision, spec.task.kind, run)
    about = about_of(folder)
    if about:
        return Origin(about.base, about.revision, about.task)
    with suppress(OSError, ValueError, AttributeError):
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        base, revision = config.get("base_model_name_or_path"), config.get("revision")
        return Origin(base or None, revision or None, None)
    return Origin(None, None, None)


def is_named(info: ModelInfo, base: str) -> bool:
    """Whether `base`, as an adapter has it, names the model of `info`, as far as names tell."""
    known = [name for name in (info.source, info.path) if name]
    if info.origin == "starter":
        known.append(starter.starter(info.source.removeprefix("starter:")).upstream)
    return any(same_base(base, name) for name in known)


def _run_around(folder: Path) -> RunFolder | None:
    """The run of whose checkpoint `folder` is, or is the adapter."""
    for place in (folder, folder.parent):
        run = RunFolder(place.parent.parent)
        if place.parent == run.checkpoints and run.spec_file.is_file():
            return run
    return None


def misfits(config: dict[str, Any], shapes: Shapes, head: LabelHead | None, info: ModelInfo) -> list[Problem]:
    """Why an adapter of this `config` and these `shapes` cannot work on the model of `info`; empty when it can."""
    import torch

    wrong = _wrong_task(config, head, info)
    if wrong:
        return [wrong]
    try:
        with torch.device("meta"):
            wanted, problems = _wanted(config, head, info)
    except _UNREADABLE as error:
        return [_does_not_attach(info, error)]
    return problems or _differences(wanted, shapes, info)


def _nothing(folder: Path) -> Problem:
    return Problem(
        code="adapter.missing",
        what="There is no adapter here.",
        where=str(folder),
        found=f"It is a file. Its folder is {folder.parent}." if folder.is_file() else "There is no such folder.",
        fix=f"Name a folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}.",
    )


def _read_config(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _LONGEST_CONFIG:
            raise ValueError(f"It has {file.stat().st_size:,} bytes, which no configuration has.")
        config = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("It is no JSON object.")
    except FileNotFoundError:
        inside = file.parent / "adapter" / CONFIG_FILE
        raise ProblemError(
            Problem(
                code="adapter.no_config",
                what=f"The folder has no {CONFIG_FILE}.",
                where=str(file.parent),
                fix=f"Name the folder {inside.parent}." if inside.is_file() else "Name the folder that peft saved.",
            )
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ProblemError(
            Problem(
                code="adapter.config",
                what=f"{CONFIG_FILE} cannot be read.",
                where=str(file),
                found=str(error).splitlines()[0][:300],
                fix="Copy or save the adapter again.",
            )
        ) from error
    return config


def _read_shapes(folder: Path) -> Shapes:
    file = folder / WEIGHTS_FILE
    try:
        tensors = read_header(file)
        if not tensors:
            raise ValueError("It holds no tensors.")
        return {item.name: item.shape for item in tensors}
    except FileNotFoundError:
        raise ProblemError(_no_weights(folder)) from None
    except (OSError, ValueError) as error:
        raise ProblemError(
            Problem(
                code="adapter.weights",
                what=f"{WEIGHTS_FILE} is not whole.",
                where=str(file),
                found=str(error),
                fix="Copy or save the adapter again.",
            )
        ) from error


def _no_weights(folder: Path) -> Problem:
    pickled = folder / "adapter_model.bin"
    if not pickled.exists():
        return Problem(code="adapter.no_weights", what=f"The folder has no {WEIGHTS_FILE}.", where=str(folder))
    return Problem(
        code="adapter.pickle",
        what="The adapter is a pickle file, which can run code when it is opened; only safetensors are taken.",
        where=str(pickled),
        fix="If you trust it, save it anew where it was made: load it with peft, then "
        'model.save_pretrained("FOLDER", safe_serialization=True).',
    )


def _unusable(folder: Path, config: dict[str, Any]) -> list[Problem]:
    """Kinds that are not known, and those that would change the base for whoever comes after them."""
    where, kind = str(folder / CONFIG_FILE), config.get("peft_type")
    if kind not in METHODS:
        fix = did_you_mean(str(kind), METHODS)
        return [Problem(code="adapter.kind", what=f"Adapters of the kind {kind} are not known.", where=where, fix=fix)]
    start = str(config.get("init_lora_weights", "")).lower()
    rules = (
        (
            start.startswith(_CHANGING),
            f"It began as {start}, which takes parts out of the base's weights whenever it is loaded.",
            'Save it as plain LoRA with peft: save_pretrained("FOLDER", path_initial_model_for_weight_conversion=...).',
        ),
        (
            config.get("bias", "none") != "none",
            "It replaces biases of the base.",
            'Train with bias="none".',
        ),
        (
            bool(config.get("layer_replication")),
            "It repeats layers of the base.",
            "Build that model first and save it; then the adapter can be trained on it.",
        ),
    )
    return [
        Problem(code="adapter.changes_base", what="The adapter changes its base.", where=where, found=found, fix=fix)
        for wrong, found, fix in rules
        if wrong
    ]


def _wrong_task(config: dict[str, Any], head: LabelHead | None, info: ModelInfo) -> Problem | None:
    """The problem of an adapter that is for another task than its model can do."""
    named = config.get("task_type")
    tasks: dict[str, TaskKind] = {"CAUSAL_LM": "completion", "SEQ_CLS": "classification", "SEQ_2_SEQ_LM": "seq2seq"}
    if head:
        task: TaskKind | None = "classification"
    elif named is None:
        task = {"decoder": "completion", "seq2seq": "seq2seq"}.get(info.kind)  # type: ignore[assignment]
    else:
        task = tasks.get(str(named))
    if task is None or (task == "classification" and not head):
        return Problem(
            code="adapter.task",
            what="What the adapter is for is not known here." if task is None else "The classifier has no outputs.",
            found=f"Its task_type is {named}." if named else f"It has no task_type, and {info.name} writes no text.",
            fix="Adapters for chat, completion, classification and seq2seq can be used.",
        )
    return unfit_task(info, task)


def _wanted(config: dict[str, Any], head: LabelHead | None, info: ModelInfo) -> tuple[Shapes, list[Problem]]:
    """The names and shapes that the file must hold, and what else does not fit. To be called on the meta device."""
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict

    from tunedesk.engine.loading import skeleton
    from tunedesk.engine.methods import rebuild_own

    model = skeleton(info, head)
    if config["peft_type"] in _OWN:
        return _shapes(rebuild_own(model, config).state()), []
    stated: Any = PeftConfig.from_peft_type(**config)
    stated.inference_mode = True
    if config["peft_type"] in _PROMPTS:
        return _wanted_prompts(model, stated)
    pattern = getattr(stated, "rank_pattern", None)
    if config["peft_type"] == "ADALORA":
        stated.rank_pattern = None
    tuned: Any = get_peft_model(model, stated, low_cpu_mem_usage=True)
    wanted = _shapes(get_peft_model_state_dict(tuned, save_embedding_layers=False))
    return (_with_ranks(wanted, pattern) if config["peft_type"] == "ADALORA" else wanted), []


def _shapes(weights: Any) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def _wanted_prompts(model: Any, stated: Any) -> tuple[Shapes, list[Problem]]:
    """Virtual tokens: their sizes stand in the configuration, and peft does not compare them with the model."""
    import copy

    from peft import get_peft_model, get_peft_model_state_dict

    from tunedesk.engine.methods.prompts import decoder_layers, decoder_shape

    fresh = copy.deepcopy(stated)
    fresh.num_layers = fresh.token_dim = fresh.num_attention_heads = None
    if stated.peft_type == "PREFIX_TUNING" and model.config.is_encoder_decoder:
        for name, value in decoder_shape(model).items():
            setattr(fresh, name, value)
        if stated.num_layers == decoder_layers(model):  # as peft by itself makes them
            fresh.num_layers = stated.num_layers
    tuned: Any = get_peft_model(model, fresh)
    right: Any = tuned.peft_config["default"]
    different = [
        f"{name} is {getattr(stated, name)}, the model has {getattr(right, name)}"
        for name in ("num_layers", "token_dim", "num_attention_heads")
        if getattr(stated, name) not in (None, getattr(right, name))
    ]
    if different:
        return {}, [_other_model(f"{'; '.join(different)}.")]
    heads = get_peft_model_state_dict(tuned, save_embedding_layers=False) if stated.modules_to_save else {}
    embedding = tuned.prompt_encoder["default"].embedding.weight
    return {**_shapes(heads), "prompt_embeddings": tuple(embedding.shape)}, []


def _with_ranks(wanted: Shapes, pattern: dict[str, Any] | None) -> Shapes:
    """`wanted` of AdaLoRA with the ranks that were left of each matrix, as `rank_pattern` marks them."""
    ranks = {
        name.removesuffix(".default").removesuffix(".lora_E"): sum(marks) if isinstance(marks, list) else int(marks)
        for name, marks in (pattern or {}).items()
    }
    found = dict(wanted)
    for name, shape in wanted.items():
        module, _, part = name.removeprefix("base_model.model.").rpartition(".")
        rank = ranks.get(module)
        if rank is not None and part.startswith("lora_"):
            found[name] = (shape[0], rank) if part == "lora_B" else (rank, shape[1])
    return found


def _differences(wanted: Shapes, there: Shapes, info: ModelInfo) -> list[Problem]:
    """The names that one side alone has, and the shapes that differ, the first few of each."""
    other = [
        f"{_short(name)} is {_by(there[name])}, not {_by(shape)}"
        for name, shape in wanted.items()
        if name in there and there[name] != shape
    ]
    own = [name for name in there if name not in wanted and ".base_layer." in name]
    places = [_short(name) for name in there if name not in wanted and name not in own]
    missing = [_short(name) for name in wanted if name not in there]
    found = [
        f"{len(names):,} {words}: {_first(names)}."
        for names, words in (
            (other, "of another shape"),
            (places, "with no place in the model"),
            (missing, "missing"),
        )
        if names
    ]
    return [_other_model(f"Of its tensors {text}", info) for text in found] + ([_holds_base(own)] if own else [])


def _holds_base(names: list[str]) -> Problem:
    return Problem(
        code="adapter.changes_base",
        what="The adapter holds weights of its base, which would take the place of the model's own.",
        found=f"{_first([_short(name) for name in names])}.",
        fix='Save it without them with peft: save_pretrained("FOLDER", save_embedding_layers=False).',
    )


def _other_model(found: str, info: ModelInfo | None = None) -> Problem:
    return Problem(
        code="adapter.other_model",
        what=f"The adapter was not made for {info.name if info else 'this model'}.",
        found=found,
        fix="Choose the model that it was trained on.",
    )


def _does_not_attach(info: ModelInfo, error: Exception) -> Problem:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    found = f"{type(error).__name__}: {lines[0]}" if isinstance(error, KeyError) else lines[0]
    return _other_model(found[:300], info)


def _short(name: str) -> str:
    return name.removeprefix("base_model.model.")


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(str(side) for side in shape) or "a single number"


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
