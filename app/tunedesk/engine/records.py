"""A run's `environment.json`: what it was computed with, and what a resumed run must find unchanged."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from transformers import PreTrainedTokenizerBase

from tunedesk.core.describe import DataInfo, ModelInfo
from tunedesk.core.hardware import read_hardware
from tunedesk.core.paths import cache_dir
from tunedesk.core.plan import Plan, Resolved
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.core.runs import RunFolder, write_json
from tunedesk.core.spec import RunSpec
from tunedesk.engine.loading import versions
from tunedesk.engine.material import Material
from tunedesk.engine.render import fingerprint

_AUTO = (
    "learning_rate",
    "micro_batch_size",
    "gradient_accumulation_steps",
    "max_length",
    "gradient_checkpointing",
    "precision",
    "device",
    "eval_steps",
    "save_steps",
)


def write_environment(
    run: RunFolder, info: ModelInfo, material: Material, data: DataInfo, plan: Plan, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Record versions, hardware, resolved values and hashes. Raises `OSError` when the folder cannot be written."""
    template = tokenizer.chat_template
    write_json(
        run.environment_file,
        {
            "versions": versions(),
            "hardware": read_hardware(run.path).model_dump(mode="json"),
            "device": plan.device.model_dump(mode="json"),
            "resolved": plan.resolved.model_dump(mode="json"),
            "model": {
                "source": info.source,
                "path": info.path,
                "files": weight_hashes(Path(info.path)) if info.path else {},
                "tokenizer_sha256": fingerprint(tokenizer),
                "template_sha256": hashlib.sha256(str(template).encode()).hexdigest() if template else None,
            },
            "data": {
                "path": data.path,
                "sha256": data.sha256,
                "rows": data.rows,
                "train_rows": data.train_rows,
                "eval_rows": data.eval_rows,
                "validation": _validation(material),
            },
        },
    )


def _validation(material: Material) -> dict[str, str] | None:
    other = material.validation
    return {"path": str(other.path), "sha256": other.sha256} if other else None


def weight_hashes(folder: Path) -> dict[str, str]:
    """File name to SHA-256 of the safetensors in `folder`; remembered by size and time of change."""
    cache = cache_dir() / "hashes.json"
    known = _read(cache)
    result = {}
    for path in sorted(folder.glob("*.safetensors")):
        about = path.stat()
        key = f"{path.resolve()}|{about.st_size}|{about.st_mtime_ns}"
        if not isinstance(known.get(key), str):
            with path.open("rb") as file:
                known[key] = hashlib.file_digest(file, "sha256").hexdigest()
        result[path.name] = known[key]
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, known)
    except OSError:
        pass  # only costs the time to hash again
    return result


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def read_resolved(run: RunFolder) -> Resolved | None:
    """The values that a run began with, or None when it did not get that far."""
    try:
        return Resolved.model_validate_json(json.dumps(_read(run.environment_file).get("resolved")))
    except ValidationError:
        return None


def with_recorded(spec: RunSpec, recorded: Resolved) -> RunSpec:
    """`spec` with every `auto` replaced by the value that the run began with; what is stated stays as stated."""
    changes = {key: getattr(recorded, key) for key in _AUTO if getattr(spec.training, key) == "auto"}
    training = spec.training.model_copy(update=changes)
    alpha = recorded.alpha if spec.method.alpha == "auto" else spec.method.alpha
    return spec.model_copy(update={"training": training, "method": spec.method.model_copy(update={"alpha": alpha})})


def check_same_data(run: RunFolder, material: Material) -> None:
    """Raises `ProblemError` when the rows are not those that the run began with."""
    before = _read(run.environment_file).get("data", {})
    if before.get("sha256") == material.data.sha256 and before.get("validation") == _validation(material):
        return
    raise ProblemError(
        Problem(
            code="data.changed",
            what="The data has changed since this run began.",
            where=str(material.data.path),
            found=f"It has {len(material.data.rows):,} rows now and had {before.get('rows', 0):,} then.",
            fix="Put the old file back, or start a new run with this one.",
        )
    )
