"""Attention within each segment of a pack, causal, on any device.

On CUDA torch's variable-length flash attention does it, on a processor with AMX tiles attention.c. Elsewhere each
segment is two batched matrix products around one softmax, the query heads that share a key head stacked into one
product, nothing kept but the logarithms of the sums; on short segments that is three times as fast as the processor's
flash attention, whose way back is slow.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from tunedesk.engine.fast import kernels, products
from tunedesk.engine.fast.packing import Heads, Pack, Slots

NAME = "tunedesk_segments"
"""What transformers knows `attend` by."""

_BLOCK = 512
"""Queries of one segment that are worked on at once, which bounds the memory for scores."""

_ALIGN = 32

_NARROW = (torch.float16, torch.bfloat16)
"""Number formats that flash attention takes."""

_WIDEST = 192
"""Heads that flash attention takes on every device since Ampere; wider ones need the large ones' shared memory."""


Turn = tuple[Tensor, Tensor]
"""Cosine and sine of each token's position (RoPE), each fp32 (M, D / 2)."""

Kept = tuple[Tensor, ...]


def forward(qkv: Tensor, turn: Turn | None, slots: Slots, heads: Heads, out: Tensor) -> Kept:
    """Rows qkv (M, (Q + 2 K) D), to be turned, to `out` (M, Q D), whose rows may lie apart.

    Gives what `backward` needs: on tiles qkv and the logarithms of the sums, otherwise q, k, v in slots and those.
    """
    if on_tiles(qkv, heads):
        return qkv, kernels.attend(qkv, turn, slots, heads, out)
    q, k, v = kernels.split_heads(qkv, turn, slots, heads.queries, heads.keys)
    attended, sums = in_slots(q, k, v, slots, heads)
    kernels.scatter_heads(attended, out, slots, heads.queries)
    return q, k, v, sums


def backward(grad: Tensor, out: Tensor, kept: Kept, turn: Turn | None, slots: Slots, heads: Heads) -> Tensor:
    """The gradient of qkv from that of `out`, both (M, Q D), rows may lie apart."""
    if len(kept) == 2:
        return kernels.attend_backward(grad, out, kept, turn, slots, heads)
    q, k, v, sums = kept
    d_out, dots = kernels.gather_heads(grad, out, slots, heads.queries)
    parts = in_slots_backward(d_out, dots, q, k, v, sums, slots, heads)
    return kernels.join_heads(*parts, turn, slots, grad.shape[0], (heads.queries, heads.keys))


def on_tiles(qkv: Tensor, heads: Heads) -> bool:
    """Whether attention.c can do it."""
    return heads.width % _ALIGN == 0 and products.on_tiles(qkv, heads.width, heads.width)


def in_slots(q: Tensor, k: Tensor, v: Tensor, slots: Slots, heads: Heads) -> tuple[Tensor, Tensor]:
    """Flat q, k, v in slots to (flat output in slots, log of the sums, fp32 by segment, head and place)."""
    out = torch.empty_like(q)
    sums = q.new_empty(slots.count * heads.queries, dtype=torch.float32)
    for span in slots.spans:
        query, result = (_view(flat, span, heads.queries, heads.width) for flat in (q, out))
        key, value = (_view(flat, span, heads.keys, heads.width) for flat in (k, v))
        logs = _view(sums, span, heads.queries, 1)
        for start, end, low in _blocks(span[1], heads.window):
            scores = torch.bmm(_stack(query, start, end, heads), key[:, low:end].transpose(1, 2))
            shape = (-1, end - start, end - low)
            logs[:, start:end, 0] = kernels.softmax(scores.view(shape), start - low, heads.scale, heads.window)
            _put(result, torch.bmm(scores, value[:, low:end]), start, end)
    return out, sums


def in_slots_backward(
    grad: Tensor, dots: Tensor, q: Tensor, k: Tensor, v: Tensor, sums: Tensor, slots: Slots, heads: Heads
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of flat q, k, v in slots. `dots` is each output's dot product with its gradient, ordered as `sums`."""
    d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for span in slots.spans:
        query, out, to_query = (_view(flat, span, heads.queries, heads.width) for flat in (q, grad, d_q))
        key, value, to_key, to_value = (_view(flat, span, heads.keys, heads.width) for flat in (k, v, d_k, d_v))
        logs, dot = (_view(flat, span, heads.queries, 1) for flat in (sums, dots))
        for start, end, low in _blocks(span[1], heads.window):
            stacked, d_out = _stack(query, start, end, heads), _stack(out, start, end, heads)
            shares = torch.bmm(stacked, key[:, low:end].transpose(1, 2))
            d_scores = torch.bmm(d_out, value[:, low:end].transpose(1, 2))
            shape = (-1, end - start, end - low)
            kernels.softmax_backward(
                shares.view(shape), d_scores.view(shape), logs[:, start:end, 0].contiguous(),
                dot[:, start:end, 0].contiguous(), start - low, heads.scale, heads.window,
            )  # fmt: skip
            _put(to_query, torch.bmm(d_scores, key[:, low:end]), start, end)
            to_value[:, low:end] += torch.bmm(shares.transpose(1, 2), d_out)
            to_key[:, low:end] += torch.bmm(d_scores.transpose(1, 2), stacked)
    return d_q, d_k, d_v


def _view(flat: Tensor, span: tuple[int, int, int], heads: int, width: int) -> Tensor:
    """(segments * heads, length, width): the part of a run of segments of one length."""
    base, length, segments = span
    size = heads * width
    return flat[base * size : (base + length * segments) * size].view(segments * heads, length, width)


def _blocks(length: int, window: int) -> list[tuple[int, int, int]]:
    """(first query, end, first key) of each block of queries; the keys that it sees end where it ends."""
    found = []
    for start in range(0, length, _BLOCK):
        low = max(0, start - window + 1) // _ALIGN * _ALIGN if window else 0
        found.append((start, min(start + _BLOCK, length), low))
    return found


def _stack(query: Tensor, start: int, end: int, heads: Heads) -> Tensor:
    """(segments * K, Q / K * rows, D): the query heads of each key head one below the other."""
    return query[:, start:end].reshape(-1, heads.queries // heads.keys * (end - start), heads.width)


def _put(place: Tensor, stacked: Tensor, start: int, end: int) -> None:
    place[:, start:end] = stacked.view(place.shape[0], end - start, -1)


class SegmentAttention(torch.autograd.Function):
    """Rows q (T, Q, D), k and v (T, K, D) to the output (T, Q, D)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, slots: Slots, heads: Heads) -> Tensor:
        rows = torch.cat([part.reshape(part.shape[0], -1) for part in (q, k, v)], 1)
        out = rows.new_empty(q.shape[0], heads.queries * heads.width)
        ctx.save_for_backward(out, *forward(rows, None, slots, heads, out))
        ctx.about = slots, heads
        return out.view(q.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        out, *kept = ctx.saved_tensors
        slots, heads = ctx.about
        rows = backward(grad.reshape(out.shape).contiguous(), out, tuple(kept), None, slots, heads)
        sizes = [heads.queries * heads.width, heads.keys * heads.width, heads.keys * heads.width]
        d_q, d_k, d_v = torch.split(rows, sizes, 1)
        return *(part.reshape(out.shape[0], -1, heads.width) for part in (d_q, d_k, d_v)), None, None


def attend(
    module: torch.nn.Module,  # noqa: ARG001 (transformers' interface)
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    segments: Pack | None = None,
    varlen: bool = False,
    **_: Any,
) -> tuple[Tensor, None]:
    """For transformers' attention interface: query (1, Q, T, D), key and value (1, K, T, D) to (1, T, Q, D).

    `s_aux` are attention sinks, one a head (gpt-oss); `softcap` caps the scores softly (Gemma 2); `varlen` asks for
    torch's variable-length attention where it can take the heads.
    """
    if segments is None or attention_mask is not None:
        raise ValueError("The model does not hand the pack on to its attention.")
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    window = sliding_window or 0
    if softcap or s_aux is not None or dropout or q.shape[-1] != v.shape[-1]:
        out = _plain(q, k, v, segments, scale, window, softcap or 0.0, s_aux, dropout)
    elif varlen and q.dtype in _NARROW and q.shape[-1] <= _WIDEST and q.shape[-1] % 8 == 0:
        out = _flash(q, k, v, segments, scale, window)
    else:
        heads = Heads(q.shape[1], k.shape[1], q.shape[2], scale, window)
        out = SegmentAttention.apply(q, k, v, segments.slots, heads)  # type: ignore[no-untyped-call]
    return out[None], None


def _flash(q: Tensor, k: Tensor, v: Tensor, pack: Pack, scale: float, window: int) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    reach = (window - 1, 0) if window else (-1, 0)
    result = varlen_attn(
        q, k, v, pack.starts, pack.starts, pack.longest, pack.longest, scale=scale, window_size=reach, enable_gqa=True
    )
    assert isinstance(result, Tensor)
    return result


def _plain(
    q: Tensor, k: Tensor, v: Tensor, pack: Pack, scale: float, window: int, cap: float, sinks: Tensor | None,
    dropout: float,
) -> Tensor:  # fmt: skip
    """Segment by segment in plain torch, for what the kernels leave out."""
    group = q.shape[1] // k.shape[1]
    parts = []
    for start, end in pairwise(accumulate(pack.lengths, initial=0)):
        query, key, value = (part[start:end].transpose(0, 1) for part in (q, k, v))
        key, value = key.repeat_interleave(group, 0), value.repeat_interleave(group, 0)
        scores = (query @ key.transpose(1, 2)).float() * scale
        if cap:
            scores = torch.tanh(scores / cap) * cap
        place = torch.arange(end - start, device=q.device)
        apart = place[:, None] - place
        scores = scores.masked_fill((apart < 0) | (apart >= (window or end - start)), -torch.inf)
        if sinks is not None:
            sink = sinks.float().view(-1, 1, 1).expand(-1, end - start, 1)
            shares = torch.cat((scores, sink), -1).softmax(-1)[..., :-1]
        else:
            shares = scores.softmax(-1)
        shares = torch.nn.functional.dropout(shares, dropout)
        parts.append((shares.to(value.dtype) @ value).transpose(0, 1))
    return torch.cat(parts)
