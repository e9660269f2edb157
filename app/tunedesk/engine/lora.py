"""LoRA by its old name: see `tunedesk.engine.methods.lora`."""

from __future__ import annotations

from tunedesk.engine.methods.base import trainable
from tunedesk.engine.methods.lora import attach_plain as attach

__all__ = ["attach", "trainable"]
