"""What a tuned classifier says of a text."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunedesk.core.describe import ModelInfo
from tunedesk.core.events import LabelShare
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.engine.generate import Answer
from tunedesk.engine.label_head import LabelHead
from tunedesk.engine.label_rows import NOTHING, LabelRenderer, LabelRow, written
from tunedesk.engine.rows import Row

if TYPE_CHECKING:
    import torch

_GAP = re.compile(r"\n[ \t]*\n")

LIKELIER_THAN_NOT = 0.5
"""The share from which on a label is said to apply, where any number of them may."""


def classify(model: Any, tokenizer: Any, messages: Sequence[str], head: LabelHead, info: ModelInfo) -> Answer:
    """What `model` says of the last of `messages`, cut at the context of `info`: labels and their shares, or a number.

    Where `head` wants a pair, that is one message with an empty line between both texts, or the last two. Raises
    `ProblemError`.
    """
    import torch

    text, pair = texts_of(messages, head)
    start = time.monotonic()
    with torch.inference_mode():
        scores = label_scores(model, tokenizer, text, pair, info)
    if not bool(torch.isfinite(scores).all()):
        raise ProblemError(
            Problem(
                code="chat.not_finite",
                what="The model's scores are not numbers.",
                fix="Its weights are damaged: train again, or export an earlier checkpoint.",
            )
        )
    return _answer(scores, head, time.monotonic() - start)


def texts_of(messages: Sequence[str], head: LabelHead) -> tuple[str, str]:
    """The text and its pair, empty where `head` wants none. Raises `ProblemError` where one is missing."""
    text, pair = (messages[-1] if messages else ""), ""
    if not text.strip():
        raise ProblemError(Problem(code="chat.empty", what="There is no text to label.", fix="Type a sentence."))
    if not head.pair:
        return text, pair
    parts: Sequence[str] = _GAP.split(text.strip(), maxsplit=1)
    if len(parts) < 2:
        parts = messages[-2:]
    if len(parts) < 2 or not all(part.strip() for part in parts):
        raise ProblemError(
            Problem(
                code="chat.no_pair",
                what="This model was trained on two texts at a time, and there is one.",
                fix="Type both texts with an empty line between them.",
            )
        )
    return parts[0], parts[1]


def _answer(scores: torch.Tensor, head: LabelHead, seconds: float) -> Answer:
    if head.problem_type == "regression":
        number = head.number(float(scores[0]))
        return Answer(written(number), (), seconds, "stop_token", (), number)
    several = head.problem_type == "multi_label"
    shares = scores.sigmoid() if several else scores.softmax(-1)
    ranked = sorted(zip(head.labels, shares.tolist(), strict=True), key=lambda item: -item[1])
    found = tuple(LabelShare(name=name, share=share) for name, share in ranked)
    likely = [item.name for item in found if item.share > LIKELIER_THAN_NOT] if several else [found[0].name]
    return Answer(", ".join(likely) or NOTHING, (), seconds, "stop_token", found)


def label_scores(model: Any, tokenizer: Any, text: str, pair: str, info: ModelInfo) -> torch.Tensor:
    """What the head gives for `text` and its `pair`, shown to `model` as in training, fp32 (outputs,)."""
    import torch

    from tunedesk.engine.pooling import pooled_scores

    renderer = LabelRenderer(tokenizer, (), info.name, one_text=info.kind == "decoder")
    (row,) = renderer.render([Row(1, text=text, pair=pair)], Path())
    shown = row.cut(info.context_length or len(row.ids))
    assert isinstance(shown, LabelRow)
    ids = torch.tensor([list(shown.ids)], device=model.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if any(shown.types):
        inputs["token_type_ids"] = torch.tensor([list(shown.types)], device=model.device)
    return pooled_scores(model, inputs)[0].float()
