"""How fast and how lean training is beside TRL and a plain transformers + peft loop, in one run, in turn, repeated.

    .venv/bin/pip install --no-deps --target /tmp/trl "trl==1.16.*"
    .venv/bin/python -m tests.benchmarks.bench_train --trl /tmp/trl [--steps 20] [--repeat 2] [--only fast,trl]

TRL is used here alone and is no dependency. Every contestant is a process of its own that tunes SmolLM2-135M with LoRA
r=8 on all linear layers, 8 conversations a step, on the same steps x 8 conversations (the packed one in as many steps
as its packs are); the first step is not counted. Held-out loss is of what the assistant says, by one judge for all.
`trl` has TRL's defaults, which teach every token; `trl-said` teaches what the assistant says, as TuneDesk does;
`trl-bf16` has that with weights in bf16, no checkpointing and like lengths together; `trl-packed` with rows packed to
1,024 tokens instead (conversations counted by their tokens).
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
CONTESTANTS = ("fast", "qlora", "reference", "plain", "trl", "trl-said", "trl-bf16", "trl-packed")
RATE = 1e-3
MARKED = (
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' }}"
    "{% endif %}{{ '<|im_start|>' + message.role + '\\n' }}{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
)
"""The model's own template, with marks around what the assistant says."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", type=Path, help="the folder that TRL was installed into")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--only", default=",".join(CONTESTANTS))
    parser.add_argument("--data", default="starter:support")
    parser.add_argument("--child", choices=CONTESTANTS)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.child:
        child(asked)
        return
    names = [name for name in asked.only.split(",") if asked.trl or not name.startswith("trl")]
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(asked.repeat):
        for name in names:
            results[name].append(measured(name, asked))
            print(f"{turn + 1} {name:<11}", line(results[name][-1]), flush=True)
    report(results)


def measured(name: str, asked: argparse.Namespace) -> dict[str, float]:
    """Run one contestant: conversations/s, tokens/s, peak memory in bytes, held-out loss."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'app'}{os.pathsep}{ROOT}"}
        command = [sys.executable, "-m", "tests.benchmarks.bench_train", "--child", name, "--out", str(out)]
        command += ["--steps", str(asked.steps), "--data", asked.data]
        command += ["--trl", str(asked.trl)] if asked.trl else []
        with (out / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{name} failed:\n" + (out / "log").read_text()[-2000:])
        found: dict[str, float] = json.loads((out / "result.json").read_text())
        found["peak"] = usage.ru_maxrss * 1024
        found["loss"] = held_out_loss(out / "adapter", asked.data)
        return found


def held_out_loss(adapter: Path, data: str) -> float:
    """The judge, in a process of its own so that no memory stays: plain peft, padded, bf16."""
    code = f"from tests.benchmarks.bench_train import judge; print(judge({str(adapter)!r}, {data!r}))"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'app'}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return float(done.stdout.split()[-1])


def judge(adapter: str, data: str) -> float:
    import torch
    from peft import PeftModel

    from tunedesk.engine import loading
    from tunedesk.engine.batches import batch_loss, micro_batches

    torch.set_num_threads(os.cpu_count() or 1)
    info, _, _, held = rows(data)
    base = loading.load_base(info, "bf16", torch.device("cpu"))
    model = PeftModel.from_pretrained(base, adapter, autocast_adapter_dtype=False).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        parts = [(batch_loss(model, batch).item(), batch.trained) for batch in micro_batches(held, 8, 0)]
    return sum(loss for loss, _ in parts) / sum(count for _, count in parts)


def line(found: dict[str, float]) -> str:
    return (
        f"{found['conversations']:6.2f} conversations/s  {found['tokens']:6.0f} tokens/s  "
        f"{found['peak'] / 2**30:5.2f} GiB  held-out loss {found['loss']:.4f}"
    )


def report(results: dict[str, list[dict[str, float]]]) -> None:
    """Medians, and everyone beside the fast engine."""
    medians = {
        name: {key: statistics.median(item[key] for item in items) for key in items[0]}
        for name, items in results.items()
    }
    rate = matrix_rate()
    print(f"\nMedians of {len(next(iter(results.values())))}; bf16 matrix products here: {rate / 1e9:.0f} GFLOP/s")
    fast = medians.get("fast")
    for name, found in medians.items():
        share = f"  {flop_per_token() * found['tokens'] / rate:4.0%} of that rate"
        beside = f"  fast is {fast['conversations'] / found['conversations']:5.2f} x as fast, in " if fast else ""
        beside += f"{fast['peak'] / found['peak']:.2f} x the memory" if fast else ""
        print(f"{name:<11}", line(found) + share + beside)


def flop_per_token() -> float:
    """4 x (non-embedding parameters) a token, and the head's 4 x V x H for the half of them that is trained."""
    return 4 * 106.2e6 + 0.52 * 4 * 49152 * 576


def matrix_rate() -> float:
    """FLOP a second of bf16 products of the model's own shapes, the best of 20."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    x, weight = torch.randn(1024, 576).bfloat16(), torch.randn(1536, 576).bfloat16()
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(10):
            torch.nn.functional.linear(x, weight)
        best = min(best, (time.perf_counter() - start) / 10)
    return 2 * 1024 * 576 * 1536 / best


def rows(data: str) -> tuple[Any, Any, Any, Any]:
    """(model, tokenizer, material, held-out token rows), parted as TuneDesk parts them with seed 0."""
    from tunedesk.core.spec import DataSection
    from tunedesk.engine import loading
    from tunedesk.engine.channel import Channel
    from tunedesk.engine.material import gather, tokenise
    from tunedesk.engine.render import Renderer
    from tunedesk.engine.sources import resolve

    info = resolve("starter:chat", None, Channel(open(os.devnull, "wb"), open(os.devnull, "rb")))  # noqa: PTH123, SIM115
    tokenizer = loading.load_tokenizer(info)
    material = gather(DataSection(train=data), "chat", 0)
    return info, tokenizer, material, tokenise(material, Renderer(tokenizer, "chat", info.name)).held


def child(asked: argparse.Namespace) -> None:
    """One contestant; writes result.json and adapter/."""
    if asked.child in ("fast", "qlora", "reference"):
        found = tunedesk(asked.child, asked)
    elif asked.child == "plain":
        found = plain(asked)
    else:
        found = trl(asked.child, asked)
    (asked.out / "result.json").write_text(json.dumps(found))


def speed(seconds: list[float], tokens: list[float], conversations: int = 8) -> dict[str, float]:
    """Without the first step. `conversations` in each step."""
    return {
        "conversations": conversations * len(seconds[1:]) / sum(seconds[1:]),
        "tokens": sum(tokens[1:]) / sum(seconds[1:]),
    }


def tunedesk(name: str, asked: argparse.Namespace) -> dict[str, float]:
    """The command line, as a user runs it."""
    spec = asked.out / "RUN.toml"
    method, engine = ("qlora" if name == "qlora" else "lora"), ("reference" if name == "reference" else "fast")
    spec.write_text(
        f'[data]\ntrain = "{asked.data}"\n[method]\nname = "{method}"\nrank = 8\n'
        f"[training]\nmicro_batch_size = 8\ngradient_accumulation_steps = 1\nmax_steps = {asked.steps}\n"
        f'learning_rate = {RATE}\neval_steps = {asked.steps}\nengine = "{engine}"\n'
    )
    command = [sys.executable, "-m", "tunedesk", "train", str(spec), "--json", "--out", str(asked.out / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    steps = [event for text in done.stdout.splitlines() if "gradient_norm" in (event := json.loads(text))]
    (asked.out / "run" / "adapter").rename(asked.out / "adapter")
    return speed([step["seconds"] for step in steps], [step["tokens"] for step in steps])


def plain(asked: argparse.Namespace) -> dict[str, float]:
    """What one writes in an afternoon: bf16 weights, autocast, padded batches, transformers' own loss."""
    import torch
    from peft import LoraConfig, get_peft_model

    from tunedesk.engine import loading
    from tunedesk.engine.batches import Steps
    from tunedesk.engine.material import tokenise
    from tunedesk.engine.render import Renderer

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    info, tokenizer, material, _ = rows(asked.data)
    train = tokenise(material, Renderer(tokenizer, "chat", info.name)).train
    base = loading.load_base(info, "bf16", torch.device("cpu"))
    model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    optimiser = torch.optim.AdamW([item for item in model.parameters() if item.requires_grad], lr=RATE, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, asked.steps)
    seconds, tokens = [], []
    steps = Steps(train, 8, 0)
    for step in range(1, asked.steps + 1):
        start = time.perf_counter()
        some = steps.rows(step)
        longest = max(len(row.ids) for row in some)
        ids, labels = torch.zeros(len(some), longest, dtype=torch.long), torch.full((len(some), longest), -100)
        for place, row in enumerate(some):
            ids[place, : len(row.ids)] = torch.tensor(row.ids)
            said = torch.tensor(list(row.trained)).bool()
            labels[place, : len(row.ids)][said] = torch.tensor(row.ids)[said]
        mask = (torch.arange(longest) < torch.tensor([[len(row.ids)] for row in some])).long()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        seconds.append(time.perf_counter() - start)
        tokens.append(float(mask.sum()))
    model.save_pretrained(asked.out / "adapter")
    return speed(seconds, tokens)


def trl(name: str, asked: argparse.Namespace) -> dict[str, float]:
    """TRL's SFTTrainer on the same rows."""
    sys.path.append(str(asked.trl))
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from tunedesk.engine import loading
    from tunedesk.engine.batches import Steps

    info, tokenizer, material, _ = rows(asked.data)
    seen_rows = Steps(material.train, 8, 0)
    train = [
        {"messages": [{"role": turn.role, "content": turn.content} for turn in row.turns]}
        for step in range(1, asked.steps + 1)
        for row in seen_rows.rows(step)
    ]
    options: dict[str, Any] = {}
    model: Any = info.path
    if name != "trl":
        tokenizer.chat_template = MARKED
        options = {"assistant_only_loss": True}
    if name in ("trl-bf16", "trl-packed"):
        model = loading.load_base(info, "bf16", torch.device("cpu"))
        options |= {"gradient_checkpointing": False, "bf16": True}
    if name == "trl-bf16":
        options["train_sampling_strategy"] = "group_by_length"
    if name == "trl-packed":
        options |= {"packing": True, "max_length": 1024}
    times = [time.perf_counter()]

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: object, **__: object) -> None:
            times.append(time.perf_counter())

    config = SFTConfig(
        output_dir=str(asked.out / "trl"), num_train_epochs=1, logging_steps=1, report_to=[], save_strategy="no",
        use_cpu=True, seed=0, learning_rate=RATE, lr_scheduler_type="cosine",
        per_device_train_batch_size=1 if name == "trl-packed" else 8, **options,
    )  # fmt: skip
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=model, args=config, train_dataset=Dataset.from_list(train), processing_class=tokenizer, peft_config=lora,
        callbacks=[Clock()],
    )  # fmt: skip
    times[:] = [time.perf_counter()]
    trainer.train()
    seen = [entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry]
    seconds = [after - before for before, after in pairwise(times)]
    found = speed(seconds, [after - before for before, after in zip([0, *seen], seen, strict=False)])
    if name == "trl-packed":
        lengths = [len(tokenizer.apply_chat_template(talk["messages"])["input_ids"]) for talk in train]
        found["conversations"] = found["tokens"] / (sum(lengths) / len(lengths))
    trainer.model.save_pretrained(asked.out / "adapter")
    return found


if __name__ == "__main__":
    main()
