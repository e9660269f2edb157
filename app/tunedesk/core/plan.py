"""What a run will cost, and which settings make it fit. Pure arithmetic on descriptions; nothing is loaded.

This is the first estimate, from the model's dimensions. Its parts are those of one training step at its busiest
moment, of the training loop in `tunedesk.engine`, and it carries an error band.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tunedesk.core import two_stacks
from tunedesk.core.counts import trainable_parameters
from tunedesk.core.describe import DataInfo, ModelInfo
from tunedesk.core.hardware import GIB, Device
from tunedesk.core.methods import default_learning_rate, method
from tunedesk.core.spec import MethodName, MethodSection, RunSpec, fields_of

PARTS = ("weights", "adapter", "gradients", "optimiser", "activations", "logits", "overhead")
EFFECTIVE_BATCH = 8
"""Rows per update when both batch settings are `auto`; small enough for small data, usual in the field."""

DEFAULT_LENGTH = 2048
"""Longest row in tokens where neither the user nor the model's context says less."""

PACK_TOKENS = 2048
"""Tokens in a pack beyond which nothing gets faster on a processor; the training loop makes packs no larger."""

SCORED_TOKENS = 256
"""Tokens whose scores over the vocabulary the fast loop holds at once."""

FUSED_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")
"""Models whose blocks the fast loop computes as one function on a processor, keeping less for the way back."""

BAND = 0.2
"""Half width of the error band, as a share of everything but the weights, which are exact."""

_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Per weight: 4 bits, one 8-bit scale per 64 weights, one fp32 scale per 256 of those (Dettmers et al. 2023)."""

_OVERHEAD = {"cuda": int(0.65 * GIB), "cpu": int(1.1 * GIB), "mps": int(0.7 * GIB)}
"""What lives outside tensors: the CUDA context and library workspaces, or the process with its libraries.

On a processor the matrix library keeps memory for each shape it meets. Measured with the starter model, 8 rows a step:
1.2, 1.9 and 1.8 GiB resident at 1, 4 and 8 rows at a time after 14 steps, and 2.1 GiB at 4 after 117, of which 0.5, 0.8
and 1.1 GiB are the other parts.
"""


Settings = dict[str, int | float | bool | str]
"""TOML keys such as ``training.max_length`` with the values to set."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Estimate(_Model):
    """Bytes at the busiest moment of one step. `parts` has the keys of `PARTS`, in that order."""

    parts: dict[str, int]
    peak_bytes: int
    low_bytes: int
    high_bytes: int


class Change(_Model):
    """One setting changed to make the run fit: TOML key, values as text, bytes saved, cost in words."""

    key: str
    label: str
    before: str
    after: str
    saved_bytes: int
    note: str


class Alternative(_Model):
    """Another way that fits: `settings` are TOML keys with the values to set."""

    title: str
    note: str
    settings: Settings
    peak_bytes: int


class Resolved(_Model):
    """Every setting that may be `auto`, with the value that will be used."""

    learning_rate: float
    alpha: float
    micro_batch_size: int
    gradient_accumulation_steps: int
    max_length: int
    gradient_checkpointing: bool
    precision: Literal["bf16", "fp16", "fp32"]
    device: Literal["cpu", "cuda", "mps"]
    total_steps: int
    steps_per_epoch: int
    eval_steps: int
    save_steps: int


class Plan(_Model):
    """The answer to 'will it fit, and what should change?'.

    `asked` is the run as asked for; `changes` lead to `suggested`, which is `asked` itself when nothing needs to
    change. `settings` are the TOML keys of `changes`. `fits` speaks of `asked`, `suggestion_fits` of `suggested`.
    """

    device: Device
    method: str
    resolved: Resolved
    asked: Estimate
    fits: bool
    suggested: Estimate
    suggestion_fits: bool
    settings: Settings
    changes: tuple[Change, ...]
    alternatives: tuple[Alternative, ...]
    recommended_method: str
    reasons: tuple[str, ...]
    trainable_parameters: int
    total_parameters: int
    seconds_per_epoch: float | None


@dataclass(frozen=True)
class _Shape:
    """The settings that decide memory."""

    method: MethodSection
    micro_batch_size: int
    max_length: int
    checkpointing: bool
    precision: Literal["bf16", "fp16", "fp32"]
    engine: Literal["fast", "reference"]
    compares: bool = False

    @property
    def packed(self) -> bool:
        return self.method.packed

    @property
    def fast(self) -> bool:
        """Whether rows are joined without padding: with plain LoRA on a frozen base."""
        return self.engine == "fast" and self.method.name in ("lora", "qlora") and not self.method.dora


def estimate(model: ModelInfo, data: DataInfo | None, device: Device, shape: _Shape) -> Estimate:
    """Memory of one step with the settings `shape`, in bytes.

    Where the run compares with the model before training, what is trained is there once more as it was; computing with
    that keeps nothing for a way back and is never the busiest moment.
    """
    wide = 4 if shape.precision == "fp32" else 2
    linear = sum(item.in_features * item.out_features * item.count for item in model.linears)
    other = model.parameters - linear
    if shape.method.name == "full":
        weights = model.parameters * 4
    else:
        packed = linear - two_stacks.kept_whole(model) if shape.packed else 0
        weights = (other + linear - packed) * wide + int(packed * _NF4_BYTES)
    trained = _trained(model, data, shape.method) * 4
    adapter = 0 if shape.method.name == "full" else trained
    if shape.compares and not shape.method.places_taken:
        weights, adapter = (2 * weights, 0) if shape.method.name == "full" else (weights, 2 * adapter)
    tokens = _tokens_at_once(data, device, shape)
    one_layer = tokens * _layer_bytes_per_token(model, wide, fused=_is_fused(model, device, shape))
    if shape.checkpointing:
        activations = tokens * model.hidden_size * wide * model.layers + one_layer
    else:
        activations = one_layer * model.layers
    scored = 0 if _outputs(data) else int(tokens * _trained_share(data))
    if shape.fast:
        scored = min(scored, SCORED_TOKENS)
    logits = scored * model.vocabulary * (wide + 4 + 4)
    if model.kind == "seq2seq":
        rows, (source, target) = shape.micro_batch_size, two_stacks.text_lengths(data, shape.max_length)
        lengths = (source + shape.method.places_taken, target)
        activations = two_stacks.activations(model, rows, lengths, wide, shape.checkpointing)
        logits = two_stacks.scores(model, rows, lengths, wide)
    workspace = 0
    if shape.packed and model.linears:
        workspace = max(item.in_features * item.out_features for item in model.linears) * wide
    parts = {
        "weights": weights,
        "adapter": adapter,
        "gradients": trained,
        "optimiser": 2 * trained,
        "activations": activations,
        "logits": logits,
        "overhead": _OVERHEAD[device.kind] + workspace,
    }
    peak = sum(parts.values())
    band = int((peak - weights) * BAND)
    return Estimate(parts=parts, peak_bytes=peak, low_bytes=peak - band, high_bytes=peak + band)


def _tokens_at_once(data: DataInfo | None, device: Device, shape: _Shape) -> int:
    """Tokens in memory at the busiest moment: a padded micro-batch, or a pack of rows joined end to end."""
    longest = _longest(data, shape.max_length)
    texts = 2 if data and data.layout == "preference" else 1
    most = shape.micro_batch_size * texts * (longest + shape.method.places_taken)
    if not shape.fast or device.kind != "cpu" or _outputs(data):
        return most
    return min(most, max(PACK_TOKENS, longest))


def _is_fused(model: ModelInfo, device: Device, shape: _Shape) -> bool:
    return shape.fast and device.kind == "cpu" and model.architecture in FUSED_ARCHITECTURES


def _layer_bytes_per_token(model: ModelInfo, wide: int, *, fused: bool) -> int:
    """What one block keeps for its backward pass, per token.

    A fused block keeps two residuals, query, attention output, keys, values and the two halves of the feed-forward.
    Otherwise it is ten vectors of the hidden size (norm inputs and outputs, query, attention output, residuals), keys
    and values twice, and four of the feed-forward size (gate, up, activation, product), at the width of the arithmetic;
    the norms keep two in fp32.
    """
    keys = model.hidden_size // max(1, model.attention_heads) * model.key_value_heads
    if fused:
        return wide * (4 * model.hidden_size + 2 * keys + 2 * model.intermediate_size)
    return wide * (10 * model.hidden_size + 4 * keys + 4 * model.intermediate_size) + 8 * model.hidden_size


def _longest(data: DataInfo | None, max_length: int) -> int:
    return min(max_length, data.tokens.longest) if data and data.tokens else max_length


def _trained_share(data: DataInfo | None) -> float:
    if not data or not data.tokens or not data.tokens.tokens:
        return 1.0
    # The busiest batch may be all answer; half way between the mean and everything.
    return (1.0 + data.tokens.trained_tokens / data.tokens.tokens) / 2


def make_plan(spec: RunSpec, model: ModelInfo, data: DataInfo | None, device: Device) -> Plan:
    """Resolve every `auto` of `spec` for this model, data and device, and look for what fits when that does not."""
    chosen = _first_choice(spec, model, data, device)
    asked = estimate(model, data, device, chosen)
    if _fits(asked, device):
        changes: list[Change] = []
        final, suggested = chosen, asked
    else:
        final, changes = _make_fit(model, data, device, chosen)
        suggested = estimate(model, data, device, final)
    resolved = _resolve(spec, model, data, device, chosen)
    settings = _settings_of(changes, final, resolved)
    return Plan(
        device=device,
        method=spec.method.name,
        resolved=resolved,
        asked=asked,
        fits=_fits(asked, device),
        suggested=suggested,
        suggestion_fits=_fits(suggested, device),
        settings=settings,
        changes=tuple(changes),
        alternatives=tuple(_alternatives(model, data, device, final, settings)),
        recommended_method=_recommended(model, data, device, chosen),
        reasons=tuple(_reasons(model, data, device, chosen)),
        trainable_parameters=_trained(model, data, chosen.method),
        total_parameters=model.parameters,
        seconds_per_epoch=None,
    )


def _fits(item: Estimate, device: Device) -> bool:
    return item.high_bytes <= device.free_bytes


def _rows(data: DataInfo | None) -> int:
    return max(1, data.train_rows) if data else EFFECTIVE_BATCH


def _first_choice(spec: RunSpec, model: ModelInfo, data: DataInfo | None, device: Device) -> _Shape:
    training = spec.training
    precision = training.precision
    if precision == "auto":
        halves = device.kind == "cuda" and model.kind != "seq2seq"  # T5's sums outgrow what fp16 can hold
        precision = "bf16" if device.fast_bf16 else ("fp16" if halves else "fp32")
    length = _max_length(spec, model, data)
    micro = training.micro_batch_size
    checkpointing = training.gradient_checkpointing
    shape = _Shape(
        method=spec.method,
        micro_batch_size=1 if micro == "auto" else micro,
        max_length=length,
        checkpointing=False if checkpointing == "auto" else checkpointing,
        precision=precision,
        engine=training.engine,
        compares=spec.task.compares,
    )
    tries = [micro] if micro != "auto" else _micro_sizes(spec, data, device)
    recompute = [checkpointing] if checkpointing != "auto" else [False, True] if _may_recompute(shape) else [False]
    for again in recompute:
        for size in tries:
            candidate = replace(shape, micro_batch_size=size, checkpointing=again)
            if _fits(estimate(model, data, device, candidate), device):
                return candidate
    return shape


def _micro_sizes(spec: RunSpec, data: DataInfo | None, device: Device) -> list[int]:
    """Sizes worth trying, the best first.

    On a processor 4 conversations are faster than 8: more of the work stays in cache. Texts to classify are short.
    """
    asked = spec.training.gradient_accumulation_steps
    most = EFFECTIVE_BATCH if asked == "auto" else max(1, EFFECTIVE_BATCH // asked)
    largest = 4 if device.kind == "cpu" and spec.task.kind != "classification" else 8
    sizes = [size for size in (8, 4, 2, 1) if size <= min(most, largest, _rows(data))]
    return sizes or [1]


def _max_length(spec: RunSpec, model: ModelInfo, data: DataInfo | None) -> int:
    if spec.training.max_length != "auto":
        return spec.training.max_length
    limit = min(model.context_length or DEFAULT_LENGTH, DEFAULT_LENGTH)
    if not data or not data.tokens:
        return limit
    return min(limit, max(64, math.ceil(data.tokens.longest / 64) * 64))


def _resolve(spec: RunSpec, model: ModelInfo, data: DataInfo | None, device: Device, shape: _Shape) -> Resolved:
    training = spec.training
    asked = training.gradient_accumulation_steps
    accumulation = max(1, min(EFFECTIVE_BATCH, _rows(data)) // shape.micro_batch_size) if asked == "auto" else asked
    per_epoch = math.ceil(_rows(data) / (shape.micro_batch_size * accumulation))
    total = training.max_steps or max(1, math.ceil(per_epoch * training.epochs))
    often = max(1, round(total / 10))
    rate = training.learning_rate
    alpha = spec.method.alpha
    return Resolved(
        learning_rate=_rate(spec, model) if rate == "auto" else rate,
        alpha=2.0 * spec.method.rank if alpha == "auto" else alpha,
        micro_batch_size=shape.micro_batch_size,
        gradient_accumulation_steps=accumulation,
        max_length=shape.max_length,
        gradient_checkpointing=shape.checkpointing,
        precision=shape.precision,
        device=device.kind,
        total_steps=total,
        steps_per_epoch=per_epoch,
        eval_steps=often if training.eval_steps == "auto" else training.eval_steps,
        save_steps=often if training.save_steps == "auto" else training.save_steps,
    )


def _rate(spec: RunSpec, model: ModelInfo) -> float:
    return default_learning_rate(spec.method.name, model.parameters, spec.task.kind, spec.task.preference_loss)


def _make_fit(model: ModelInfo, data: DataInfo | None, device: Device, start: _Shape) -> tuple[_Shape, list[Change]]:
    """Take the cheapest steps, in order, until it fits or none is left."""
    shape = start
    changes: list[Change] = []
    ladder = [
        ("training.micro_batch_size", "Batch", "Same result, added up more often. A little slower."),
        (
            "training.gradient_checkpointing",
            "Gradient checkpointing",
            "Recomputes instead of remembering. About 25% slower.",
        ),
        ("method.name", "4-bit weights", "Answers may be slightly weaker."),
        ("training.max_length", "Longest text", "Longer rows lose their end."),
    ]
    for key, label, note in ladder:
        for candidate, before, after in _candidates(key, data, shape):
            if _fits(estimate(model, data, device, shape), device):
                return shape, changes
            saved = (
                estimate(model, data, device, shape).peak_bytes - estimate(model, data, device, candidate).peak_bytes
            )
            if saved <= 0:
                continue
            if changes and changes[-1].key == key:
                last = changes.pop()
                before, saved = last.before, saved + last.saved_bytes
            changes.append(Change(key=key, label=label, before=before, after=after, saved_bytes=saved, note=note))
            shape = candidate
    return shape, changes


def _candidates(key: str, data: DataInfo | None, shape: _Shape) -> list[tuple[_Shape, str, str]]:
    match key:
        case "training.micro_batch_size":
            sizes = [size for size in (32, 16, 8, 4, 2, 1) if size < shape.micro_batch_size]
            return [(replace(shape, micro_batch_size=size), str(shape.micro_batch_size), str(size)) for size in sizes]
        case "training.gradient_checkpointing":
            can = _may_recompute(shape) and not shape.checkpointing
            return [(replace(shape, checkpointing=True), "Off", "On")] if can else []
        case "method.name":
            small, title = _in_four_bits(shape), method(shape.method.name).title
            after = "QLoRA" if shape.method.name == "lora" else f"{title}, 4-bit base"
            return [] if small is None else [(small, title, after)]
        case _:
            now = _longest(data, shape.max_length)
            lengths = [length for length in (2048, 1536, 1024, 768, 512, 384, 256) if length < now]
            return [(replace(shape, max_length=length), str(now), str(length)) for length in lengths]


def _settings_of(changes: list[Change], final: _Shape, resolved: Resolved) -> Settings:
    rows = resolved.micro_batch_size * resolved.gradient_accumulation_steps
    values: dict[str, Settings] = {
        "training.micro_batch_size": {
            "training.micro_batch_size": final.micro_batch_size,
            "training.gradient_accumulation_steps": max(1, rows // final.micro_batch_size),
        },
        "training.gradient_checkpointing": {"training.gradient_checkpointing": True},
        "method.name": {"method.name": "qlora"} if final.method.name == "qlora" else {"method.quantised": True},
        "training.max_length": {"training.max_length": final.max_length},
    }
    settings: Settings = {}
    for change in changes:
        settings.update(values[change.key])
    return settings


def _alternatives(
    model: ModelInfo, data: DataInfo | None, device: Device, shape: _Shape, settings: Settings
) -> list[Alternative]:
    """At most three ways that fit beside `shape` (which `settings` lead to), each naming what it gives up."""
    found = []
    for title, note, candidate, change in _offers(data, shape):
        guess = estimate(model, data, device, candidate)
        if _fits(guess, device):
            together = {**settings, **change}
            found.append(Alternative(title=title, note=note, settings=together, peak_bytes=guess.peak_bytes))
    return found[:3]


def _offers(data: DataInfo | None, shape: _Shape) -> Iterator[tuple[str, str, _Shape, Settings]]:
    """(title, what it gives up, shape, settings) of everything that may be tried beside `shape`."""
    if shape.method.name == "qlora":
        note = "Faster and a little better, for more memory."
        yield (
            "16-bit weights (LoRA)",
            note,
            replace(shape, method=_named(shape.method, "lora")),
            {"method.name": "lora"},
        )
    elif (small := _in_four_bits(shape)) is not None:
        note = "Least memory for weights. Slower; answers may be slightly weaker."
        is_lora = shape.method.name == "lora"
        title = "4-bit weights (QLoRA)" if is_lora else "4-bit weights"
        yield title, note, small, {"method.name": "qlora"} if is_lora else {"method.quantised": True}
    if not shape.checkpointing and _may_recompute(shape):
        note = "Recomputes instead of remembering. Same result, about 25% slower."
        change: Settings = {"training.gradient_checkpointing": True}
        yield "Gradient checkpointing", note, replace(shape, checkpointing=True), change
    half = _longest(data, shape.max_length) // 2 // 64 * 64
    if half >= 64:
        note = "Less memory and faster. Longer rows lose their end."
        yield (
            f"Shorter texts, {half:,} tokens",
            note,
            replace(shape, max_length=half),
            {"training.max_length": half},
        )
    if "target_modules" in fields_of(shape.method.name) and shape.method.target_modules != "attention":
        note = "A smaller adapter, a little faster. It learns less."
        yield (
            "Attention layers only",
            note,
            replace(shape, method=shape.method.model_copy(update={"target_modules": "attention"})),
            {"method.target_modules": "attention"},
        )


def _named(section: MethodSection, name: MethodName) -> MethodSection:
    """`section` as the method `name` of its kind."""
    return section.model_copy(update={"name": name, "quantised": "auto"})


def _in_four_bits(shape: _Shape) -> _Shape | None:
    """`shape` on a base in 4 bits; None where it is there already, or the method needs whole weights."""
    section = shape.method
    if section.packed or not method(section.name).four_bit:
        return None
    if section.name == "lora":
        return replace(shape, method=_named(section, "qlora"))
    return replace(shape, method=section.model_copy(update={"quantised": True}))


def _may_recompute(shape: _Shape) -> bool:
    """Whether activations may be recomputed: a prefix is handed over as a cache, which that switches off."""
    return shape.method.name != "prefix_tuning"


def _trained(model: ModelInfo, data: DataInfo | None, section: MethodSection) -> int:
    return trainable_parameters(section.name, section, model, _outputs(data))


def _outputs(data: DataInfo | None) -> int:
    """What a classifier of this data gives for a text: a score for each label, or one number; 0 where none is made."""
    if data is None:
        return 0
    return 1 if data.problem_type == "regression" else len(data.labels)


def _frugal(shape: _Shape, name: Literal["lora", "qlora"]) -> _Shape:
    """LoRA or QLoRA in the place of `shape`'s method, with everything taken that costs time alone."""
    return replace(shape, method=_named(shape.method, name), micro_batch_size=1, checkpointing=True)


def _recommended(model: ModelInfo, data: DataInfo | None, device: Device, shape: _Shape) -> str:
    """LoRA wherever 16-bit weights fit at the smallest batch with checkpointing; QLoRA otherwise."""
    return "lora" if _fits(estimate(model, data, device, _frugal(shape, "lora")), device) else "qlora"


def _reasons(model: ModelInfo, data: DataInfo | None, device: Device, shape: _Shape) -> list[str]:
    kinds: tuple[Literal["lora", "qlora"], ...] = ("lora", "qlora")
    lora, qlora = (estimate(model, data, device, _frugal(shape, name)) for name in kinds)
    needs = (
        f"At its most frugal, LoRA needs about {lora.peak_bytes / GIB:.1f} GiB and QLoRA {qlora.peak_bytes / GIB:.1f}"
    )
    reasons = [f"{needs}; {device.free_bytes / GIB:.1f} GiB is free."]
    if _fits(lora, device):
        reasons.append("16-bit weights fit, so nothing is gained by squeezing them into 4 bits.")
    elif _fits(qlora, device):
        reasons.append("Only 4-bit weights leave room to train on this device.")
    else:
        reasons.append("Not even 4-bit weights leave room to train. A smaller model, or another device, is needed.")
    if shape.compares and shape.method.name == "full":
        reasons.append("All weights are held twice, as they are and as they were, to compare; adapters spare the copy.")
    if device.kind == "cpu":
        reasons.append("No usable GPU: it trains on the processor, which suits models up to about 1 billion weights.")
    if data:
        reasons.append(_rows_reason(data.train_rows))
    return reasons


def _rows_reason(rows: int) -> str:
    """What the amount of data says. Up to 100,000 pairs LoRA kept up with full fine-tuning (Biderman et al. 2024)."""
    if rows < 50:
        return f"{rows:,} rows are few: the model may learn them by heart. A hundred or more are better."
    if rows < 100_000:
        return f"{rows:,} rows are enough for an adapter, and too few to gain from training all weights."
    return f"{rows:,} rows are plenty for an adapter; a higher rank can take in more of them."
