"""Small real adapter folders in the library and in runs of the test's own home, for the tests of the window."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

import numpy as np
import run_samples as made
from safetensors.numpy import save_file

from tunedesk.core.adapters import ABOUT_FILE, CONFIG_FILE, WEIGHTS_FILE, Adapter, library_dir, read_adapter
from tunedesk.core.events import write_line
from tunedesk.core.paths import runs_dir
from tunedesk.core.spec import RunSpec

NOON = datetime(2026, 3, 5, 12, 0).timestamp()


def weights(folder: Path, seed: int = 0) -> None:
    """Write both files of PEFT's format."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(seed).normal(size=(2, 64)).astype(np.float32)
    save_file({"base_model.model.lm_head.lora_A.weight": numbers}, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps({"peft_type": "LORA", "r": 2}), encoding="utf-8")


def in_library(
    name: str,
    *,
    base: str = "starter:chat",
    method: str | None = "lora",
    task: str | None = "chat",
    origin: str = "imported",
    created: float = NOON,
) -> Adapter:
    """Put an adapter into the library."""
    folder = library_dir() / name.lower().replace(" ", "-")
    weights(folder)
    about = {"name": name, "base": base, "method": method, "task": task, "origin": origin, "created": created}
    (folder / ABOUT_FILE).write_text(json.dumps(about), encoding="utf-8")
    adapter = read_adapter(folder)
    assert adapter is not None
    return adapter


def in_run(name: str, *, method: str = "lora", created: float = NOON, base: str = "starter:chat") -> Adapter:
    """Put a finished run with its adapter among the runs."""
    spec = RunSpec.model_validate({"name": name, "model": {"source": base}, "method": {"name": method}})
    run = runs_dir() / name.lower().replace(" ", "-")
    weights(run / "adapter")
    (run / "run.toml").write_text(spec.to_toml(), encoding="utf-8")
    (run / "events.jsonl").write_text("".join(write_line(event) for event in made.completed()), encoding="utf-8")
    os.utime(run / "adapter" / WEIGHTS_FILE, (created, created))
    adapter = read_adapter(run / "adapter")
    assert adapter is not None
    return adapter
