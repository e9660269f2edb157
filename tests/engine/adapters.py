"""Saved adapters of every method for tiny models: random, and far enough from zero to change every answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.engine.jobs import do
from tunedesk.core.adapters import About
from tunedesk.core.events import AdapterUsed, Ask, Chat, ChatAnswer, ChatReady, Event, Message, Sampling, UseAdapter
from tunedesk.core.spec import MethodSection
from tunedesk.engine import checkpoints, loading
from tunedesk.engine.label_head import LabelHead
from tunedesk.engine.methods import Setting, attach, trainable
from tunedesk.engine.sources import resolve

COLOURS = LabelHead(labels=("red", "green", "blue"))
MOODS = LabelHead(labels=("good", "bad"))

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"name": "lora", "rank": 4},
    "rslora": {"name": "lora", "rank": 3, "rslora": True, "target_modules": ("q_proj", "v_proj")},
    "dora": {"name": "lora", "rank": 4, "dora": True},
    "pissa": {"name": "lora", "rank": 4, "init": "pissa"},
    "adalora": {"name": "adalora", "rank": 4},
    "ia3": {"name": "ia3"},
    "prefix": {"name": "prefix_tuning", "virtual_tokens": 6},
    "prompt": {"name": "prompt_tuning", "virtual_tokens": 6},
    "p_tuning": {"name": "p_tuning", "virtual_tokens": 6},
    "houlsby": {"name": "houlsby", "bottleneck": 8},
    "compacter": {"name": "compacter", "bottleneck": 8},
    "last_layer": {"name": "last_layer"},
    "full": {"name": "full"},
}
"""Method by name; BitFit is not there, as a LLaMA has no biases."""


def saved(
    model: Path, folder: Path, method: str = "lora", head: LabelHead | None = None, seed: int = 1, **settings: Any
) -> Path:
    """Write an adapter of `method` for the model in `model` into `folder`, with numbers of `seed`."""
    torch.set_grad_enabled(True)
    info = resolve(str(model))
    section = {**METHODS.get(method, {"name": method}), **settings}
    base = loading.load_base(info, "fp32", torch.device("cpu"), head=head)
    tuned = attach(base, Setting(MethodSection(**section), 8.0, False, seed, tokenizer=str(model)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trainable(tuned.model):
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    checkpoints.write_folder(folder, checkpoints.adapter_files(tuned), "adapter")
    return folder


def tell(folder: Path, model: Path, task: str = "chat", name: str = "Told", **more: Any) -> Path:
    """Write `about.json` into `folder`."""
    about = About(name=name, base=str(model), method="lora", task=task, origin="imported", created=1.0, **more)  # type: ignore[arg-type]
    (folder / "about.json").write_text(about.text(), encoding="utf-8")
    return folder


def say(number: int, text: str, *sides: str, tokens: int = 12) -> Ask:
    """A greedy question."""
    turn = (Message(role="user", content=text),)
    return Ask(
        id=number,
        conversations=dict.fromkeys(sides or ("tuned",), turn),  # type: ignore[arg-type]
        sampling=Sampling(temperature=0, max_new_tokens=tokens),
    )


def of(events: list[Event], kind: type) -> list[Any]:
    """The events of one kind."""
    return [event for event in events if isinstance(event, kind)]


__all__ = ["COLOURS", "METHODS", "MOODS", "AdapterUsed", "Chat", "ChatAnswer", "ChatReady", "UseAdapter", "do", "of",
           "saved", "say", "tell"]  # fmt: skip
