"""What one training step of an encoder-decoder keeps in memory: two stacks, each of its own text."""

from __future__ import annotations

from tunedesk.core.counts import decoder_layers, key_width
from tunedesk.core.describe import DataInfo, ModelInfo

_SCORES = 12
"""Bytes that T5's attention keeps for each head and pair of tokens: its bias on positions and the dropout let no fused
kernel take it, so that scores, shares and dropped shares are all there, in fp32 whatever the run's arithmetic."""


def kept_whole(model: ModelInfo) -> int:
    """Weights of linear layers that are not packed in 4 bits: of T5's feed-forward transformers keeps the last."""
    if model.kind != "seq2seq":
        return 0
    return sum(item.in_features * item.out_features * item.count for item in model.linears if item.name == "wo")


def text_lengths(data: DataInfo | None, max_length: int) -> tuple[int, int]:
    """Tokens of the longest source and target, each cut at `max_length`, parted as they are on the whole.

    Without data both are as long as they may be.
    """
    if data is None or data.tokens is None or not data.tokens.tokens:
        return max_length, max_length
    share = data.tokens.trained_tokens / data.tokens.tokens
    target = max(1, round(data.tokens.longest * share))
    return min(max_length, max(1, data.tokens.longest - target)), min(max_length, target)


def activations(model: ModelInfo, rows: int, lengths: tuple[int, int], wide: int, checkpointing: bool) -> int:
    """Bytes that `rows` of the two `lengths` keep for the way back; `wide` is the width of a number in bytes.

    Per token a block keeps ten vectors of the hidden size, keys and values twice, two of the inner size (six where it
    is gated, since T5's GELU is written out) and four in fp32; attention to the source five more vectors, and keys and
    values of the source. Measured on random T5s of 256 features with transformers 5.23: within a fifth.
    """
    source, target = lengths
    hidden, keys = model.hidden_size, key_width(model)
    gated = any(item.name == "wi_0" for item in model.linears)
    block = wide * (10 * hidden + 4 * keys + (6 if gated else 2) * model.intermediate_size) + 16 * hidden
    pair = 0 if model.family == "BART" else _SCORES * model.attention_heads
    encoder = source * block + source * source * pair
    decoder = target * (block + 5 * wide * hidden) + 2 * wide * keys * source + target * (target + source) * pair
    if not checkpointing:
        return rows * (model.layers * encoder + decoder_layers(model) * decoder)
    inputs = wide * hidden * (model.layers * source + decoder_layers(model) * (target + source))
    return rows * (inputs + max(encoder, decoder))


def scores(model: ModelInfo, rows: int, lengths: tuple[int, int], wide: int) -> int:
    """Bytes of the scores over the vocabulary: of all targets, of those without padding, and the gradients of both."""
    return rows * lengths[1] * model.vocabulary * 4 * wide
