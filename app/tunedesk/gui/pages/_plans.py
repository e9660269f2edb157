"""Plans and what a change would do to them. Pure functions between the core's planner and the widgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunedesk.core.describe import DataInfo, ModelInfo
from tunedesk.core.hardware import GIB
from tunedesk.core.methods import method, offered
from tunedesk.core.plan import PARTS, Estimate, Plan, make_plan
from tunedesk.core.spec import MethodName, RunSpec, TrainingSection
from tunedesk.gui import words
from tunedesk.gui.method_values import with_changes
from tunedesk.gui.widgets import MemoryRow


def memory_row(label: str, estimate: Estimate, ok: bool) -> MemoryRow:
    """An estimate as the memory widgets take it, in GiB."""
    parts = {name: estimate.parts[name] / GIB for name in PARTS}
    return MemoryRow(label, parts, estimate.low_bytes / GIB, estimate.high_bytes / GIB, ok)


def changed(spec: RunSpec, settings: Mapping[str, object]) -> RunSpec:
    """`spec` with TOML keys such as ``training.micro_batch_size`` set. Raises `pydantic.ValidationError`."""
    method: dict[str, object] = {}
    training: dict[str, Any] = spec.training.model_dump()
    for key, value in settings.items():
        section, _, name = key.partition(".")
        (method if section == "method" else training)[name] = value
    return spec.model_copy(
        update={
            "method": with_changes(spec.method, method),
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


def method_plans(spec: RunSpec, plan: Plan, model: ModelInfo, data: DataInfo | None) -> dict[MethodName, Plan]:
    """The plan of each method that may be chosen, for the same model, data and device."""
    return {
        item.name: make_plan(changed(spec, {"method.name": item.name}), model, data, plan.device) for item in offered()
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


def small_size(size: int) -> str:
    """Memory with enough digits to tell a small change from none."""
    return words.gib(size, 1 if abs(size) >= 0.1 * GIB else 2) if abs(size) >= 0.005 * GIB else words.file_size(size)


def shrinkable(plan: Plan, count: int = 2) -> list[tuple[str, int]]:
    """The largest parts that other settings can make smaller, with their bytes."""
    item = method(plan.method)
    names = ["activations", "logits", "weights"] if item.four_bit and not item.quantised else ["activations", "logits"]
    parts = sorted(((name, plan.asked.parts[name]) for name in names), key=lambda part: -part[1])
    return [part for part in parts[:count] if part[1] > 0.1 * GIB]
