"""Every method on real weights: what it trains, what it learns, what it forgets, and what it costs.

    .venv/bin/python -m tests.benchmarks.bench_methods chat [--steps 40] [--methods lora,ia3] [--keep FOLDER]
    .venv/bin/python -m tests.benchmarks.bench_methods labels [--epochs 10] [--folds 5] [--methods lora,full]

`chat` tunes the starter chat model (SmolLM2, 135 million weights) on the starter conversations, `labels` the starter
encoder (MiniLM, 22.7 million) on the starter's sentences about money, in folds: each row is tested once, by a model
that never saw it, and the figure is of all rows together. Every run is `tunedesk train` with the app's own settings;
only the number of steps is the same for all. With --keep, the results of each run are kept there and not done again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import tomli_w

from tunedesk.core.methods import method
from tunedesk.core.paths import starter_data
from tunedesk.core.spec import MethodName

MIB = 2**20
NOT_CHAT = ("bitfit",)
"""SmolLM2 has no biases."""
FULL, LAST = "full", "last_layer"


@dataclass(frozen=True)
class Result:
    """One run. Losses in nats, `bytes` of the adapter's weights, `memory` the process's peak, in bytes."""

    method: str
    trained: int
    share: float
    base_loss: float
    loss: float
    step: int
    right: int
    rows: int
    macro_f1: float
    measure: str
    forgotten: float
    seconds: float
    memory: int
    bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("chat", "labels"))
    parser.add_argument("--methods", default="")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        (chat if asked.what == "chat" else labels)(asked, asked.keep or Path(scratch))


def chat(asked: argparse.Namespace, folder: Path) -> None:
    """One run for each method."""
    print(
        f"{'method':<14} {'trained':>11} {'share':>8} {'loss':>6} {'forgot':>7} {'seconds':>8} {'MiB':>6} {'file':>9}"
    )
    for name in chosen(asked.methods, NOT_CHAT):
        spec = run_file("starter:chat", "chat", {"train": "starter:support"}, name)
        spec["training"] |= {"max_steps": asked.steps, "epochs": 1000.0}
        found = measured(spec, folder, asked.set)
        print(
            f"{name:<14} {found.trained:>11,} {found.share:>8.3%} {found.loss:>6.3f} {found.forgotten:>+7.3f} "
            f"{found.seconds:>8.0f} {found.memory / MIB:>6.0f} {found.bytes / 1e6:>6.2f} MB",
            flush=True,
        )
        base = found.base_loss
    print(f"The untouched model's held-out loss is {base:.3f}. Forgotten: nats a token of general text, more is worse.")


def labels(asked: argparse.Namespace, folder: Path) -> None:
    """One run for each method and fold."""
    accuracy: dict[str, float] = {}
    print(
        f"{'method':<14} {'trained':>11} {'share':>8} {'accuracy':>9} {'macro-F1':>9} {'loss':>6} {'drift':>6} "
        f"{'seconds':>8} {'MiB':>6} {'file':>9}"
    )
    files = folds(asked.folds, folder)
    for name in chosen(asked.methods, ()):
        if name == "qlora" and name not in asked.methods:
            continue  # 22 million weights in 4 bits save nothing
        runs = []
        for train, test in files:
            data = {"train": str(train), "validation": str(test)}
            spec = run_file("starter:encoder", "classification", data, name)
            spec["training"] |= {"epochs": float(asked.epochs)}
            runs.append(measured(spec, folder, asked.set))
        accuracy[name] = sum(run.right for run in runs) / sum(run.rows for run in runs)
        print(
            f"{name:<14} {runs[0].trained:>11,} {runs[0].share:>8.3%} {accuracy[name]:>9.1%} "
            f"{statistics.mean(run.macro_f1 for run in runs):>9.3f} {statistics.mean(run.loss for run in runs):>6.3f} "
            f"{statistics.mean(run.forgotten for run in runs):>6.1%} {sum(run.seconds for run in runs):>8.0f} "
            f"{max(run.memory for run in runs) / MIB:>6.0f} {runs[0].bytes / 1e6:>6.2f} MB",
            flush=True,
        )
    if FULL in accuracy:
        others = {name: value for name, value in accuracy.items() if name not in (FULL, LAST)}
        for name in [max(others, key=lambda item: others[item])] * bool(others) + [LAST] * (LAST in accuracy):
            print(f"{name} is {100 * (accuracy[name] - accuracy[FULL]):+.1f} points from full fine-tuning.")


def chosen(text: str, without: tuple[str, ...]) -> list[str]:
    """The methods to try, in the order of the guide."""
    asked = text.split(",") if text else [name for name in get_args(MethodName) if name not in without]
    return [method(name).name for name in asked]


def run_file(model: str, task: str, data: dict[str, Any], name: str) -> dict[str, Any]:
    """A RUN.toml as a tree, with the app's own settings."""
    return {
        "model": {"source": model}, "task": {"kind": task}, "data": data, "method": {"name": name},
        "training": {"save_steps": 100_000, "keep_checkpoints": 1},
    }  # fmt: skip


def folds(count: int, folder: Path) -> list[tuple[Path, Path]]:
    """(training file, test file) of each fold; a hash of the text decides, so that chance has no say."""
    lines = starter_data("finance").read_text(encoding="utf-8").splitlines()
    places = sorted(lines, key=lambda line: hashlib.sha256(line.encode()).hexdigest())
    files = []
    for number in range(count):
        test = places[number::count]
        train = [line for line in lines if line not in test]
        pair = folder / f"train-{count}-{number}.jsonl", folder / f"test-{count}-{number}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        for path, rows in zip(pair, (train, test), strict=True):
            path.write_text("\n".join(rows) + "\n", encoding="utf-8")
        files.append(pair)
    return files


def measured(spec: dict[str, Any], folder: Path, overrides: list[str]) -> Result:
    """Train what `spec` says, in a process of its own, and read what came of it."""
    text = tomli_w.dumps(spec)
    place = folder / hashlib.sha256(f"{text}{overrides}".encode()).hexdigest()[:16]
    kept = place / "result.json"
    if kept.exists():
        return Result(**json.loads(kept.read_text()))
    place.mkdir(parents=True, exist_ok=True)
    (place / "run.toml").write_text(text)
    sets = [part for item in overrides for part in ("--set", item)]
    command = [sys.executable, "-m", "tunedesk", "train", str(place / "run.toml"), "--out", str(place / "run"), *sets]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{spec['method']['name']}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    report = json.loads((place / "run" / "report.json").read_text())
    forgetting = report["forgetting"]
    rows = sum(sum(row) for row in report["confusion"])
    result = Result(
        method=spec["method"]["name"],
        trained=report["trainable_parameters"],
        share=report["trainable_parameters"] / report["total_parameters"],
        base_loss=report["base_loss"],
        loss=report["best_loss"],
        step=report["best_step"],
        right=sum(row[place] for place, row in enumerate(report["confusion"])),
        rows=rows,
        macro_f1=report["metrics"].get("macro_f1", 0.0),
        measure=forgetting["measure"],
        forgotten=forgetting["after"] - forgetting["before"],
        seconds=report["seconds"],
        memory=report["peak_memory_bytes"],
        bytes=(place / "run" / "adapter" / "adapter_model.safetensors").stat().st_size,
    )
    kept.write_text(json.dumps(asdict(result)))
    return result


if __name__ == "__main__":
    main()
