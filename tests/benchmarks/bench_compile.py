"""Whether `torch.compile` pays for itself within a run on a processor: seconds to compile beside seconds saved a step.

    .venv/bin/python -m tests.benchmarks.bench_compile [--steps 12] [--only starter,gpt2] [--threads 2]

Each model learns LoRA r=8 on all linear layers in bf16, on packs of 8 random rows of 40 to 300 tokens. It runs as it
is and with its decoder layers compiled (dynamic shapes, inductor), by turns in one process, from an empty cache. Lean
layers and attention add to gradients on the way back, which a graph cannot hold, so they stay outside: what is compiled
are the norms, activations, rotary positions and residuals between them. `starter` (SmolLM2-135M) has its fused layers
switched off for this and is shown with them, too; `gpt2` has random weights in GPT-2's shape (12 layers x 768), whose
layers are never fused.

On two cores of an Intel Xeon with AMX, packs of 1,380 tokens, medians of 10 steps:

    starter   fused 0.86 s, plain 1.42 s, compiled 1.11 s a step; compiling 54 s pays after 177 steps
    gpt2      plain 0.79 s, compiled 0.67 s a step; compiling 42 s pays after 354 steps

Fused layers are faster than compiled ones and cost nothing. For other families compiling pays in runs of more than some
hundred steps, where there is a C++ compiler; and it rounds otherwise, so that a resumed run would have to choose the
same again. It is not done on a processor.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from array import array
from typing import Any

VOCABULARY = 8000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--only", default="starter,gpt2")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        import torch

        torch.set_num_threads(asked.threads)
        for name in asked.only.split(","):
            compare(name, asked.steps)
            torch.compiler.reset()


def compare(name: str, count: int) -> None:
    """Print what compiling costs and saves for the model `name`."""
    kinds = (
        {"fused": "cpu", "plain": "mps", "compiled": "mps"}
        if name == "starter"
        else {"plain": "cpu", "compiled": "cpu"}
    )
    learners = {kind: learner(name, device) for kind, device in kinds.items()}
    work = steps(count)
    for kind, step in learners.items():  # matrix kernels for each shape, and pages, at first use
        if kind != "compiled":
            for part in work:
                step(part)
    compile_layers(learners["compiled"].layers)
    started = time.perf_counter()
    found = {"compiled": [learners["compiled"](part) for part in work]}
    first = time.perf_counter() - started
    seconds: dict[str, list[float]] = {kind: [] for kind in learners}
    for part in work:
        for kind, step in learners.items():
            started = time.perf_counter()
            found.setdefault(kind, []).append(step(part))
            seconds[kind].append(time.perf_counter() - started)
    median = {kind: statistics.median(values) for kind, values in seconds.items()}
    apart = [
        max(abs(a[which] - b[which]) for a, b in zip(found["plain"], found["compiled"][-count:], strict=True))
        for which in (0, 1)
    ]
    cost = first - sum(seconds["compiled"])
    saved = median["plain"] - median["compiled"]
    tokens = statistics.mean(part.tokens for part in work)
    print(f"{name}: {tokens:.0f} tokens a step; compiled, losses are {apart[0]:.4f} apart, gradients {apart[1]:.4f}")
    for kind, value in median.items():
        print(f"  {kind:<9} {value:7.3f} s a step ({min(seconds[kind]):.3f} to {max(seconds[kind]):.3f})")
    after = "never pays" if saved <= 0 else f"pays after {cost / saved:,.0f} steps" if cost > 0 else "too noisy to say"
    print(f"  compiling {cost:7.1f} s, saves {saved:+.3f} s a step ({saved / median['plain']:+.1%}): {after}")


class Learner:
    """One model and its step; weights stay as they are, so that losses can be compared."""

    def __init__(self, model: Any, kind: str) -> None:
        from tunedesk.engine.fast.model import make_fast

        fast = make_fast(model, kind)
        assert fast is not None
        self._fast, self._model = fast, model.train()
        base = model.get_base_model().base_model
        self.layers = base.h if hasattr(base, "h") else base.layers

    def __call__(self, part: Any) -> tuple[float, float]:
        """Forward and backward of one pack; the mean loss and the length of its gradient."""
        loss = self._fast.loss(part) / part.trained
        loss.backward()
        lengths = [item.grad.norm() for item in self._model.parameters() if item.grad is not None]
        self._model.zero_grad(set_to_none=False)
        return float(loss.item()), float(sum(length**2 for length in lengths) ** 0.5)


def learner(name: str, kind: str) -> Learner:
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config

    from tunedesk.core.spec import MethodSection
    from tunedesk.engine import loading
    from tunedesk.engine.channel import Channel
    from tunedesk.engine.methods.lora import attach_plain as attach
    from tunedesk.engine.sources import resolve

    if name == "starter":
        info = resolve("starter:chat", None, Channel(open(os.devnull, "wb"), open(os.devnull, "rb")))  # noqa: PTH123, SIM115
        base = loading.load_base(info, "bf16", torch.device("cpu"))
    else:
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
        )
        base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        base.requires_grad_(False)
    return Learner(attach(base, MethodSection(rank=8), 16.0, False, 0), kind)


def compile_layers(layers: Any) -> None:
    """Compile each decoder layer but for what a graph cannot hold. Layers of one kind share their code."""
    import torch
    from peft.tuners.lora import LoraLayer
    from transformers import AttentionInterface

    from tunedesk.engine.fast import attention

    AttentionInterface.register(attention.NAME, torch.compiler.disable(attention.attend))
    torch._dynamo.config.recompile_limit = 64
    for layer in layers:
        for module in layer.modules():
            if isinstance(module, LoraLayer):
                module.forward = torch.compiler.disable(module.forward)
        layer.compile(dynamic=True)


def steps(count: int) -> list[Any]:
    """`count` packs of 8 random rows, no two of one shape but by chance."""
    import torch

    from tunedesk.engine.fast.packing import pack
    from tunedesk.engine.render import TokenRow

    draw = torch.Generator().manual_seed(0)

    def row(number: int) -> TokenRow:
        length = int(torch.randint(40, 300, (), generator=draw))
        ids = torch.randint(3, VOCABULARY, (length,), generator=draw).tolist()
        return TokenRow(number, array("i", ids), bytes([0] * (length // 2) + [1] * (length - length // 2)))

    return [pack([row(number) for number in range(8)]) for _ in range(count)]


if __name__ == "__main__":
    main()
