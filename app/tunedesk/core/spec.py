"""RUN.toml: what a run was asked to do, with the field's own terms. `"auto"` is resolved by the planner."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunedesk.core.describe import ProblemType, TaskKind
from tunedesk.core.problems import Problem, ProblemError, did_you_mean

MethodName = Literal[
    "lora", "qlora", "adalora", "ia3", "prefix_tuning", "prompt_tuning", "p_tuning", "houlsby", "compacter", "bitfit",
    "last_layer", "full",
]  # fmt: skip
Auto = Literal["auto"]
PositiveInt = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelSection(_Section):
    """Which model is tuned."""

    source: str = Field(
        default="starter:chat",
        min_length=1,
        description="A folder, a Hub id, a .gguf file, starter:chat or starter:encoder.",
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of a Hub model.")


class TaskSection(_Section):
    """What the model learns to do."""

    kind: TaskKind = Field(
        default="chat",
        description="chat: answer in conversations. completion: go on with a text. "
        "classification: give each text a label, several, or a number. seq2seq: turn one text into another. "
        "preference: prefer the better of two answers.",
    )
    problem_type: Auto | ProblemType = Field(
        default="auto",
        description="What classification says of a text: single_label, multi_label or regression (a number). auto "
        "looks at the labels.",
    )
    preference_loss: Literal["dpo", "kto", "orpo"] = Field(
        default="dpo",
        description="dpo: of two answers prefer the better. kto: answers rated good or bad, not in pairs. orpo: learn "
        "the better answer and shun the worse at once, without the untouched model as a measure.",
    )
    beta: Auto | Annotated[float, Field(gt=0, le=100)] = Field(
        default="auto",
        description="Preference: how hard the model is held to what it was (dpo, kto), or how much shunning weighs "
        "beside learning (orpo). auto is 0.1.",
    )

    @property
    def compares(self) -> bool:
        """Whether it is asked at every step what the model was before."""
        return self.kind == "preference" and self.preference_loss != "orpo"

    @property
    def strictness(self) -> float:
        """`beta`; auto is TRL's default for all three losses, which their papers use too."""
        return 0.1 if self.beta == "auto" else self.beta


class DataSection(_Section):
    """What it learns from."""

    train: str = Field(
        default="starter:support",
        min_length=1,
        description="csv, tsv, json, jsonl, parquet or txt; or starter:support, starter:finance, starter:preferences.",
    )
    validation: str | None = Field(default=None, description="A second file of held-out rows.")
    validation_fraction: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of rows held out to check progress; the model never trains on them.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Which column is what, where detection is not enough: messages, prompt, completion, system, text, "
        "text_pair, label, chosen, rejected.",
    )


class MethodSection(_Section):
    """How it learns. Which fields a method has says `fields_of`."""

    name: MethodName = Field(default="lora", description="See `tunedesk methods`.")
    rank: int = Field(
        default=16, ge=1, le=1024, description="Width of the two thin matrices. In adalora the mean width at the end."
    )
    alpha: Auto | Annotated[float, Field(gt=0)] = Field(
        default="auto", description="Scale of the adapter: alpha / rank. auto is twice the rank."
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: Literal["all-linear", "attention"] | tuple[str, ...] = Field(
        default="all-linear", description="all-linear, attention, or a list of module names."
    )
    rslora: bool = Field(default=False, description="Scale by alpha / sqrt(rank), which keeps high ranks learning.")
    dora: bool = Field(default=False, description="Learn the length of each weight column apart from its direction.")
    init: Literal["default", "pissa"] = Field(
        default="default", description="pissa: start from the principal parts of each weight matrix."
    )
    lora_plus_ratio: Annotated[float, Field(ge=1, le=1000)] | None = Field(
        default=None, description="How many times faster the second thin matrix learns (LoRA+); 16 is usual."
    )
    virtual_tokens: int = Field(
        default=20, ge=1, le=1024, description="Trained places before the text. Each takes one from the context."
    )
    prefix_projection: bool = Field(
        default=False, description="Train the prefix by way of a small network; steadier, and more to train."
    )
    prompt_init: Literal["random", "text", "vocabulary"] = Field(
        default="random", description="What the virtual tokens start as: random, prompt_text, or random words."
    )
    prompt_text: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description='The text that the virtual tokens start as, with prompt_init = "text".'
    )
    encoder: Literal["mlp", "lstm"] = Field(
        default="mlp", description="The network that the virtual tokens come from while training."
    )
    encoder_hidden_size: Auto | PositiveInt = Field(
        default="auto", description="Width of the network that makes the virtual tokens. auto is the model's own."
    )
    bottleneck: Auto | PositiveInt = Field(
        default="auto",
        description="Width of the adapter's waist. auto: 64 for houlsby, hidden size / 32 for compacter.",
    )
    hypercomplex: int = Field(
        default=4, ge=1, le=64, description="Number of Kronecker products that a compacter matrix is the sum of."
    )
    quantised: Auto | bool = Field(
        default="auto", description="Hold the frozen weights in 4 bits (NF4). auto does so for qlora alone."
    )

    @property
    def packed(self) -> bool:
        """Whether the frozen weights are held in 4 bits."""
        return self.name == "qlora" if self.quantised == "auto" else self.quantised

    @property
    def places_taken(self) -> int:
        """Tokens of the context that virtual ones take from the text."""
        return self.virtual_tokens if "virtual_tokens" in fields_of(self.name) else 0

    def waist(self, hidden_size: int) -> int:
        """The bottleneck of `houlsby` and `compacter` in a model of `hidden_size`.

        64 is the one fixed size that Houlsby et al. 2019 report, hidden size / 32 the reduction in the own program of
        Karimi Mahabadi et al. 2021, here rounded up to a multiple of `hypercomplex`.
        """
        if self.bottleneck != "auto":
            return self.bottleneck
        if self.name == "houlsby":
            return 64
        return max(1, -(-hidden_size // 32 // self.hypercomplex)) * self.hypercomplex


_LORA = ("rank", "alpha", "dropout", "target_modules")
_LORA_KINDS = (*_LORA, "rslora", "dora", "init", "lora_plus_ratio", "quantised")

_METHOD_FIELDS: dict[MethodName, tuple[str, ...]] = {
    "lora": _LORA_KINDS,
    "qlora": _LORA_KINDS,
    "adalora": (*_LORA, "quantised"),
    "ia3": ("quantised",),
    "prefix_tuning": ("virtual_tokens", "prefix_projection", "encoder_hidden_size", "quantised"),
    "prompt_tuning": ("virtual_tokens", "prompt_init", "prompt_text", "quantised"),
    "p_tuning": ("virtual_tokens", "encoder", "encoder_hidden_size", "quantised"),
    "houlsby": ("bottleneck", "quantised"),
    "compacter": ("bottleneck", "hypercomplex", "quantised"),
    "bitfit": (),
    "last_layer": ("quantised",),
    "full": (),
}

_NOT_PACKED = {
    "full": "It trains every weight, and a weight of 4 bits cannot take small steps.",
    "bitfit": "The biases of packed layers are rounded to 16 bits at every step, and small steps would be lost.",
}


def fields_of(name: MethodName) -> tuple[str, ...]:
    """The keys of [method] that the method `name` has beside `name`."""
    return _METHOD_FIELDS[name]


class TrainingSection(_Section):
    """How long and how fast."""

    learning_rate: Auto | Annotated[float, Field(gt=0, le=1)] = Field(
        default="auto",
        description="Peak learning rate. Too high forgets and diverges; too low learns nothing.",
    )
    lr_scheduler: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="Course of the learning rate after warm-up."
    )
    warmup_ratio: float = Field(default=0.05, ge=0, le=1, description="Share of steps in which the rate rises.")
    epochs: Annotated[float, Field(gt=0, le=10_000)] = Field(default=3.0, description="Passes over the training rows.")
    max_steps: PositiveInt | None = Field(default=None, description="Ends the run earlier or later than `epochs`.")
    micro_batch_size: Auto | PositiveInt = Field(
        default="auto", description="Rows in memory at once. Costs memory; no effect on the result."
    )
    gradient_accumulation_steps: Auto | PositiveInt = Field(
        default="auto", description="Micro-batches added up before each update. Costs time, no memory."
    )
    max_length: Auto | Annotated[int, Field(ge=8)] = Field(
        default="auto", description="Longest row in tokens; longer rows are cut at the end."
    )
    gradient_checkpointing: Auto | bool = Field(
        default="auto", description="Recomputes activations instead of keeping them: less memory, more time."
    )
    precision: Auto | Literal["bf16", "fp16", "fp32"] = Field(
        default="auto", description="Number format of the frozen weights and of the arithmetic."
    )
    device: Auto | Literal["cpu", "cuda", "mps"] = Field(default="auto", description="Where it is computed.")
    engine: Literal["fast", "reference"] = Field(
        default="fast",
        description="fast: rows are joined without padding. reference: the plain loop, much slower, same losses.",
    )
    weight_decay: float = Field(default=0.0, ge=0, description="Pull of the adapter towards zero.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Longer gradients are cut to this length.")
    eval_steps: Auto | PositiveInt = Field(default="auto", description="Steps between two checks on held-out rows.")
    save_steps: Auto | PositiveInt = Field(default="auto", description="Steps between two checkpoints.")
    forgetting: bool = Field(
        default=True, description="Read general text before and after training, and tell how much worse it got."
    )
    keep_checkpoints: PositiveInt = Field(default=2, description="Older checkpoints are deleted; the best one stays.")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Makes the run repeatable.")


class RunSpec(_Section):
    """A whole RUN.toml."""

    name: str | None = Field(default=None, description="What the run is called in lists.")
    model: ModelSection = ModelSection()
    task: TaskSection = TaskSection()
    data: DataSection = DataSection()
    method: MethodSection = MethodSection()
    training: TrainingSection = TrainingSection()

    def to_toml(self) -> str:
        """The text of a RUN.toml that reads back as this spec; fields that its method does not have are left out."""
        tree = self.model_dump(mode="json", exclude_none=True)
        kept = {"name", *fields_of(self.method.name)}
        tree["method"] = {key: value for key, value in tree["method"].items() if key in kept}
        kind = self.task.kind
        tree["task"] = {key: value for key, value in tree["task"].items() if _TASK_FIELDS.get(key, kind) == kind}
        return tomli_w.dumps(tree)


def parse_spec(text: str, where: str = "RUN.toml", overrides: Sequence[str] = ()) -> RunSpec:
    """Read a run file and apply `--set` overrides (``training.seed=1``).

    Raises `ProblemError` with every fault: TOML syntax with its line, unknown keys with the nearest known one, values
    of the wrong type or out of range, fields that the method does not have or that contradict each other.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProblemError(
            Problem(
                code="spec.syntax",
                what=f"{where} is not valid TOML.",
                where=_upper_first(str(error)) + ".",
                fix='Text values need quotes, for example: source = "starter:chat".',
            )
        ) from error
    problems = [problem for item in overrides if (problem := _apply(tree, item))]
    try:
        spec = RunSpec.model_validate_json(_to_json(tree))
    except ValidationError as error:
        problems += _explain(error, where)
    else:
        problems += [*check_task(spec.task, where), *check_method(spec.method, where)]
    if problems:
        raise ProblemError(problems)
    return spec


_TASK_FIELDS: dict[str, TaskKind] = {
    "problem_type": "classification",
    "preference_loss": "preference",
    "beta": "preference",
}
"""The keys of [task] that one task alone has."""


def check_task(section: TaskSection, where: str = "RUN.toml") -> list[Problem]:
    """What is wrong with `section`: keys that its task does not use."""
    unused = [
        key for key in sorted(section.model_fields_set & _TASK_FIELDS.keys()) if _TASK_FIELDS[key] != section.kind
    ]
    return [
        Problem(
            code="spec.unused_field",
            what=f"The task {section.kind} has no '{key}'.",
            where=f"{where}, key '{key}' in [task].",
            fix=f"Leave '{key}' out, or set kind = \"{_TASK_FIELDS[key]}\".",
        )
        for key in unused
    ]


def check_method(section: MethodSection, where: str = "RUN.toml") -> list[Problem]:
    """What is wrong with `section`: fields that its method does not use, and values that contradict each other."""
    unused = sorted(section.model_fields_set - {"name", *fields_of(section.name)})
    problems = [_unused_field(section, field, where) for field in unused]
    rules = (
        (
            section.name == "qlora" and section.quantised is False,
            "qlora is LoRA on weights of 4 bits.",
            "quantised",
            "Leave 'quantised' out, or set name = \"lora\".",
        ),
        (
            section.init == "pissa" and section.packed,
            "PiSSA takes the principal parts out of the weights, and weights of 4 bits cannot be changed.",
            "init",
            'Set init = "default", or quantised = false.',
        ),
        (
            section.prompt_init == "text" and section.prompt_text is None,
            "The virtual tokens should start as a text, and there is none.",
            "prompt_text",
            'Set prompt_text = "...", or prompt_init = "random".',
        ),
        (
            section.prompt_init != "text" and section.prompt_text is not None,
            "The text for the virtual tokens would not be used.",
            "prompt_text",
            "Set prompt_init = \"text\", or leave 'prompt_text' out.",
        ),
        (
            section.name == "prefix_tuning" and not section.prefix_projection and section.encoder_hidden_size != "auto",
            "A prefix that is trained directly has no network, so its width means nothing.",
            "encoder_hidden_size",
            "Set prefix_projection = true, or leave 'encoder_hidden_size' out.",
        ),
        (
            section.name == "compacter"
            and section.bottleneck != "auto"
            and section.bottleneck % section.hypercomplex > 0,
            "A compacter's waist is made of equal parts.",
            "bottleneck",
            f"Choose a multiple of hypercomplex, which is {section.hypercomplex}.",
        ),
    )
    return problems + [
        Problem(
            code="spec.method",
            what=what,
            where=f"{where}, key '{key}' in [method].",
            found=f"There is {key} = {getattr(section, key)!r} with the method {section.name}.",
            fix=fix,
        )
        for wrong, what, key, fix in rules
        if wrong and key not in unused
    ]


def _unused_field(section: MethodSection, field: str, where: str) -> Problem:
    has = fields_of(section.name)
    reason = _NOT_PACKED.get(section.name) if field == "quantised" else None
    return Problem(
        code="spec.unused_field",
        what=f"The method {section.name} has no '{field}'.",
        where=f"{where}, key '{field}' in [method].",
        found=reason or f"It has {', '.join(has)}." if reason or has else "It has no settings of its own.",
        fix=f"Leave '{field}' out, or choose a method that has it: {', '.join(_with_field(field))}.",
    )


def _with_field(field: str) -> list[str]:
    return [name for name, fields in _METHOD_FIELDS.items() if field in fields]


def read_spec(path: Path, overrides: Sequence[str] = ()) -> RunSpec:
    """`parse_spec` of a file; relative model and data paths are taken from the file's folder."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ProblemError(
            Problem(
                code="spec.missing",
                what=f"There is no file {path}.",
                fix="Run `tunedesk starter` to write an example RUN.toml.",
            )
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ProblemError(_unreadable(path, error)) from error
    return anchored(parse_spec(text, str(path), overrides), path.parent)


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> Problem:
    if isinstance(error, UnicodeDecodeError):
        found, fix = f"Byte {error.start + 1} is not UTF-8 text.", "Save it as UTF-8, or name the right file."
    else:
        found, fix = (error.strerror or str(error)) + ".", "Name the RUN.toml itself, a file that you may read."
    return Problem(code="spec.unreadable", what=f"{path} cannot be read as text.", found=found, fix=fix)


def anchored(spec: RunSpec, folder: Path) -> RunSpec:
    """`spec` with local paths made absolute, taken from `folder`."""
    data = spec.data.model_copy(
        update={
            "train": _anchor(spec.data.train, folder),
            "validation": _anchor(spec.data.validation, folder) if spec.data.validation else None,
        }
    )
    source = spec.model.source
    local = looks_local(source) or (folder / source).exists()
    model = spec.model.model_copy(update={"source": _anchor(source, folder)}) if local else spec.model
    return spec.model_copy(update={"data": data, "model": model})


def looks_local(source: str) -> bool:
    """Whether a model source can only be a path: it starts like one or ends in .gguf."""
    return source.startswith(("/", "./", "../", "~", "\\")) or source.lower().endswith(".gguf") or "\\" in source


def _anchor(source: str, folder: Path) -> str:
    if source.startswith("starter:"):
        return source
    path = Path(source).expanduser()
    return str(path if path.is_absolute() else (folder / path).resolve())


def _to_json(tree: dict[str, Any]) -> str:
    return json.dumps(tree, default=str)


def _apply(tree: dict[str, Any], override: str) -> Problem | None:
    key, sign, value = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not sign or not all(parts):
        return Problem(
            code="spec.override",
            what=f"--set {override} is not of the form KEY=VALUE.",
            fix="For example: --set training.learning_rate=2e-4",
        )
    node = tree
    for part in parts[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            return Problem(code="spec.override", what=f"--set {override}: {part} holds a value, not a section.")
    node[parts[-1]] = _toml_value(value.strip())
    return None


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(error: ValidationError, where: str) -> list[Problem]:
    problems: list[Problem] = []
    seen: set[tuple[Any, ...]] = set()
    for item in error.errors():
        location = _known_location(item["loc"])
        if item["type"] == "extra_forbidden":
            problems.append(_unknown_key(location, where))
        elif location not in seen:
            seen.add(location)
            rules = [other["msg"] for other in error.errors() if _known_location(other["loc"]) == location]
            problems.append(_bad_value(location, item["input"], _rule(rules), where))
    return problems


def _rule(messages: Sequence[str]) -> str:
    """What a value should be, in one sentence: ``It should be 'auto' or less than or equal to 1``."""
    either = dict.fromkeys(message.removeprefix("Input should be ") for message in messages)
    if all(message.startswith("Input should be ") for message in messages):
        return "It should be " + " or ".join(either).replace("an object", "a section")
    return messages[0]


def _known_location(location: tuple[int | str, ...]) -> tuple[str, ...]:
    """The part of a pydantic location that names keys of the file; union branches are left out."""
    model: Any = RunSpec
    keys: list[str] = []
    for part in location:
        if not isinstance(part, str) or not isinstance(model, type) or not issubclass(model, BaseModel):
            break
        keys.append(part)
        field = model.model_fields.get(part)
        model = field.annotation if field else None
    return tuple(keys)


def _unknown_key(location: tuple[str, ...], where: str) -> Problem:
    section: Any = RunSpec
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    name = ".".join(location)
    inside = f" in [{'.'.join(location[:-1])}]" if len(location) > 1 else ""
    return Problem(
        code="spec.unknown_key",
        what=f"'{name}' is not a setting.",
        where=f"{where}, key '{location[-1]}'{inside}.",
        fix=did_you_mean(location[-1], section.model_fields),
    )


def _bad_value(location: tuple[str, ...], value: Any, message: str, where: str) -> Problem:
    field: Any = None
    model: Any = RunSpec
    for part in location:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = field.annotation if field else None
    fix = (field.description or "") if field is not None else ""
    if location == ("method", "name") and isinstance(value, str):
        fix = did_you_mean(value, list(_METHOD_FIELDS))
    return Problem(
        code="spec.bad_value",
        what=f"'{'.'.join(location)}' has a value that cannot be used.",
        where=f"{where}, key '{'.'.join(location)}'.",
        found=f"There is {value!r} now. {_upper_first(message)}.",
        fix=fix,
    )


def _upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]
