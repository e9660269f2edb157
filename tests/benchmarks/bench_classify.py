"""How fast a classifier is trained beside transformers' own `Trainer`, in one run, in turn, repeated.

    .venv/bin/python -m tests.benchmarks.bench_classify [--epochs 4] [--repeat 3] [--data FILE] [--only fast,trainer]

Every contestant is a process of its own that tunes the starter encoder (MiniLM, 22.7 million weights) on the same
training rows, 8 rows a step; the first 5 steps are not counted. `trainer` has Trainer's defaults (fp32, padded to the
longest of the batch) with LoRA r=8 on all linear layers, as `fast` and `reference`; `trainer-full` trains all weights.
Accuracy is of the last weights on the rows that TuneDesk holds out with seed 0.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CONTESTANTS = ("fast", "reference", "trainer", "trainer-full")
RATES = {"fast": 1e-3, "reference": 1e-3, "trainer": 1e-3, "trainer-full": 5e-5}
BATCH, UNCOUNTED = 8, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--data", default="starter:finance")
    parser.add_argument("--only", default=",".join(CONTESTANTS))
    parser.add_argument("--child", choices=CONTESTANTS)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.child:
        found = tunedesk(asked) if asked.child in ("fast", "reference") else trainer(asked)
        (asked.out / "result.json").write_text(json.dumps(found))
        return
    names = asked.only.split(",")
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(asked.repeat):
        for name in names:
            results[name].append(measured(name, asked))
            print(f"{turn + 1} {name:<13}", line(results[name][-1]), flush=True)
    print(f"\nMedians of {asked.repeat}")
    medians = {
        name: {key: statistics.median(item[key] for item in items) for key in items[0]}
        for name, items in results.items()
    }
    for name, found in medians.items():
        beside = f"  fast is {medians['fast']['samples'] / found['samples']:.2f} x as fast" if "fast" in medians else ""
        print(f"{name:<13}", line(found) + beside)


def measured(name: str, asked: argparse.Namespace) -> dict[str, float]:
    """Run one contestant in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'app'}{os.pathsep}{ROOT}"}
        command = [sys.executable, "-m", "tests.benchmarks.bench_classify", "--child", name, "--out", folder]
        command += ["--epochs", str(asked.epochs), "--data", asked.data]
        with (out / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{name} failed:\n" + (out / "log").read_text()[-2000:])
        found: dict[str, float] = json.loads((out / "result.json").read_text())
        return {**found, "peak": usage.ru_maxrss * 1024}


def line(found: dict[str, float]) -> str:
    return (
        f"{found['samples']:7.1f} samples/s  {found['tokens']:7.0f} tokens/s  {found['peak'] / 2**30:5.2f} GiB  "
        f"accuracy {found['accuracy']:.3f}  held-out loss {found['loss']:.3f}"
    )


def tunedesk(asked: argparse.Namespace) -> dict[str, float]:
    """The command line, as a user runs it."""
    spec = asked.out / "RUN.toml"
    spec.write_text(
        f'[model]\nsource = "starter:encoder"\n[task]\nkind = "classification"\n[data]\ntrain = "{asked.data}"\n'
        f"[method]\nrank = 8\n[training]\nmicro_batch_size = {BATCH}\ngradient_accumulation_steps = 1\n"
        f"epochs = {asked.epochs}\nlearning_rate = {RATES[asked.child]}\nlr_scheduler = 'linear'\nwarmup_ratio = 0\n"
        f"eval_steps = 1000000\nsave_steps = 1000000\nengine = '{asked.child}'\n"
    )
    command = [sys.executable, "-m", "tunedesk", "train", str(spec), "--json", "--out", str(asked.out / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    events = [json.loads(text) for text in done.stdout.splitlines()]
    steps = [event for event in events if event.get("kind") == "step"]
    check = [event for event in events if event.get("kind") == "evaluated"][-1]
    # The last step of an epoch may have fewer rows than the others.
    began = next(event for event in events if event.get("kind") == "training_began")
    rows = [min(BATCH, began["train_rows"] - (place % began["steps_per_epoch"]) * BATCH) for place in range(len(steps))]
    seconds = [step["seconds"] for step in steps]
    counted = slice(UNCOUNTED, None)
    return {
        "samples": sum(rows[counted]) / sum(seconds[counted]),
        "tokens": sum(step["tokens"] for step in steps[counted]) / sum(seconds[counted]),
        "accuracy": check["metrics"]["accuracy"],
        "loss": check["loss"],
    }


def trainer(asked: argparse.Namespace) -> dict[str, float]:
    """transformers' Trainer with its defaults, on the same rows."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from tunedesk.core.spec import DataSection
    from tunedesk.engine import loading
    from tunedesk.engine.channel import Channel
    from tunedesk.engine.material import gather
    from tunedesk.engine.sources import resolve

    info = resolve("starter:encoder", None, Channel(open(os.devnull, "wb"), open(os.devnull, "rb")))  # noqa: PTH123, SIM115
    tokenizer = loading.load_tokenizer(info)
    material = gather(DataSection(train=asked.data), "classification", 0)
    labels = material.data.labels

    def encoded(rows: Any) -> list[dict[str, Any]]:
        return [{**tokenizer(row.text, truncation=True), "label": labels.index(row.labels[0])} for row in rows]

    model: Any = AutoModelForSequenceClassification.from_pretrained(info.path, num_labels=len(labels))
    if asked.child == "trainer":
        lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="SEQ_CLS")
        model = get_peft_model(model, lora)
    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: object, **__: object) -> None:
            times.append(time.perf_counter())

    options = TrainingArguments(
        output_dir=str(asked.out / "trainer"), num_train_epochs=asked.epochs, learning_rate=RATES[asked.child],
        report_to=[], save_strategy="no", use_cpu=True, seed=0,
    )  # fmt: skip
    train, held = encoded(material.train), encoded(material.held)
    collate = DataCollatorWithPadding(tokenizer)
    teacher = Trainer(model, options, train_dataset=train, data_collator=collate, callbacks=[Clock()])
    teacher.train()
    steps = [after - before for before, after in pairwise(times)][UNCOUNTED - 1 :]
    found = teacher.predict(held)
    scores = torch.tensor(found.predictions)
    wanted = torch.tensor(found.label_ids)
    mean = sum(len(row["input_ids"]) for row in train) / len(train)
    rows = len(train) / -(-len(train) // BATCH)
    return {
        "samples": rows * len(steps) / sum(steps),
        "tokens": rows * mean * len(steps) / sum(steps),
        "accuracy": float((scores.argmax(-1) == wanted).float().mean()),
        "loss": float(torch.nn.functional.cross_entropy(scores, wanted)),
    }


if __name__ == "__main__":
    main()
