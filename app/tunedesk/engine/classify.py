"""What a tuned classifier says of a text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from tunedesk.core.events import LabelShare
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.engine.generate import Answer


def classify(model: Any, tokenizer: Any, text: str, labels: Sequence[str], longest: int | None) -> Answer:
    """The likeliest label of `text`, cut at `longest` tokens, and every label's share. Raises `ProblemError`."""
    import torch

    if not text.strip():
        raise ProblemError(Problem(code="chat.empty", what="There is no text to label.", fix="Type a sentence."))
    start = time.monotonic()
    with torch.inference_mode():
        shares = label_scores(model, tokenizer, text, longest).softmax(-1)
    if not bool(torch.isfinite(shares).all()):
        raise ProblemError(
            Problem(
                code="chat.not_finite",
                what="The model's scores are not numbers.",
                fix="Its weights are damaged: train again, or export an earlier checkpoint.",
            )
        )
    ranked = sorted(zip(labels, shares.tolist(), strict=True), key=lambda item: -item[1])
    found = tuple(LabelShare(name=name, share=share) for name, share in ranked)
    return Answer(found[0].name, (), time.monotonic() - start, "stop_token", found)


def label_scores(model: Any, tokenizer: Any, text: str, longest: int | None) -> Any:
    """The scores of the labels, fp32 (labels,)."""
    inputs = tokenizer(text, truncation=longest is not None, max_length=longest, return_tensors="pt")
    inputs.pop("token_type_ids", None)  # of one text they are all 0, which is what models take them for
    return model(**inputs.to(model.device)).logits[0].float()
