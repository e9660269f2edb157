"""Plans and what a change would do to them. Pure functions between the core's planner and the widgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunedesk.core.describe import DataInfo, ModelInfo
from tunedesk.core.hardware import GIB
from tunedesk.core.methods import METHODS
from tunedesk.core.plan import PARTS, Estimate, Plan, make_plan
from tunedesk.core.spec import MethodSection, RunSpec, TrainingSection
from tunedesk.gui.widgets import MemoryRow


def memory_row(label: str, estimate: Estimate, ok: bool) -> MemoryRow:
    """An estimate as the memory widgets take it, in GiB."""
    parts = {name: estimate.parts[name] / GIB for name in PARTS}
    return MemoryRow(label, parts, estimate.low_bytes / GIB, estimate.high_bytes / GIB, ok)


def changed(spec: RunSpec, settings: Mapping[str, object]) -> RunSpec:
    """`spec` with TOML keys such as ``training.micro_batch_size`` set. Raises `pydantic.ValidationError`."""
    method: dict[str, Any] = spec.method.model_dump()
    training: dict[str, Any] = spec.training.model_dump()
    for key, value in settings.items():
        section, _, name = key.partition(".")
        (method if section == "method" else training)[name] = value
    return spec.model_copy(
        update={
            "method": MethodSection.model_validate(method),
            "training": TrainingSection.model_validate(training),
        }
    )


def pinned(spec: RunSpec, plan: Plan) -> RunSpec:
    """`spec` with what decides memory fixed to the plan's values, so that two plans differ in one thing only."""
    resolved = plan.resolved
    return changed(
        spec,
        {
            "training.micro_batch_size": resolved.micro_batch_size,
            "training.max_length": resolved.max_length,
            "training.gradient_checkpointing": resolved.gradient_checkpointing,
            "training.precision": resolved.precision,
        },
    )


def estimate_with(
    spec: RunSpec, plan: Plan, model: ModelInfo, data: DataInfo | None, settings: Mapping[str, object]
) -> Estimate:
    """The memory of the planned run with `settings` changed and everything else as it is."""
    return make_plan(changed(pinned(spec, plan), settings), model, data, plan.device).asked


def effect(spec: RunSpec, plan: Plan, model: ModelInfo, data: DataInfo | None, settings: Mapping[str, object]) -> int:
    """How many bytes more (or fewer, below zero) `settings` would take."""
    return estimate_with(spec, plan, model, data, settings).peak_bytes - plan.asked.peak_bytes


def method_plans(spec: RunSpec, plan: Plan, model: ModelInfo, data: DataInfo | None) -> dict[str, Plan]:
    """The plan of each method for the same model, data and device."""
    return {
        item.name: make_plan(changed(spec, {"method.name": item.name}), model, data, plan.device) for item in METHODS
    }


def frugal(spec: RunSpec, plan: Plan, model: ModelInfo, data: DataInfo | None) -> tuple[Estimate, bool]:
    """What the plan's own method needs with the settings the app suggests, and whether that fits."""
    if plan.fits or not plan.changes:
        return plan.asked, plan.fits
    if "method.name" not in plan.settings:
        return plan.suggested, plan.suggestion_fits
    settings: dict[str, object] = {}
    for change in plan.changes:
        if change.key == "method.name":
            break
        settings[change.key] = plan.settings[change.key]
    estimate = estimate_with(spec, plan, model, data, settings)
    return estimate, estimate.high_bytes <= plan.device.free_bytes


def shrinkable(plan: Plan, count: int = 2) -> list[tuple[str, int]]:
    """The largest parts that other settings can make smaller, with their bytes."""
    quantised = plan.method == "qlora"
    names = ["activations", "logits"] if quantised else ["activations", "logits", "weights"]
    parts = sorted(((name, plan.asked.parts[name]) for name in names), key=lambda part: -part[1])
    return [part for part in parts[:count] if part[1] > 0.1 * GIB]
