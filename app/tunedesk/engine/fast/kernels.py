"""The loops between matrix products, natively where kernels.c was built, in plain torch on any device otherwise.

M tokens, H residual width, I feed-forward width, D head width, Q and K heads of queries and of keys. Rows may lie
apart (a stride greater than their width) where a parameter says so.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tunedesk.engine.fast import native
from tunedesk.engine.fast.native import address as _at
from tunedesk.engine.fast.native import real as _f
from tunedesk.engine.fast.native import whole as _n
from tunedesk.engine.fast.packing import Heads, Slots


def norm(
    x: Tensor, add: Tensor | None, weight: Tensor, out: Tensor, eps: float, plus: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Write RMS norm (Zhang & Sennrich 2019) of x + add, times weight + plus, to `out`; give (x + add, 1 / rms).

    x, add (M, H) contiguous; weight (H,); out (M, H), rows may lie apart; 1 / rms is fp32 (M,).
    """
    count, width = x.shape
    if (run := _native("norm_forward", x)) is not None:
        rstd = x.new_empty(count, dtype=torch.float32)
        total = x if add is None else torch.empty_like(x)
        run(_at(x), _at(add), _at(weight), _at(total), _at(out), _n(out.stride(0)), _at(rstd), _n(count), _n(width),
            _f(eps), _f(plus))  # fmt: skip
        return total, rstd
    total = x if add is None else x + add
    wide = total.float()
    rstd = torch.rsqrt(wide.square().mean(-1) + eps)
    out.copy_(wide * rstd[:, None] * (weight.float() + plus))
    return total, rstd


def norm_backward(grad: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, add: Tensor, plus: float = 0.0) -> Tensor:
    """`add` plus the gradient of x through `norm`; all (M, H), rows of grad may lie apart."""
    count, width = x.shape
    if (run := _native("norm_backward", x)) is not None:
        out = torch.empty_like(x)
        run(_at(grad), _n(grad.stride(0)), _at(x), _at(weight), _at(rstd), _at(add), _at(out), _n(count), _n(width),
            _f(plus))  # fmt: skip
        return out
    scaled, wide = grad.float() * (weight.float() + plus), x.float()
    share = (scaled * wide).mean(-1) * rstd.square()
    result: Tensor = (add.float() + rstd[:, None] * (scaled - wide * share[:, None])).to(x.dtype)
    return result


def swiglu(both: Tensor, out: Tensor) -> None:
    """Write silu(gate) * up to `out` (M, I), rows may lie apart; a row of `both` (M, 2 I) is gate and up."""
    count, width = out.shape
    if (run := _native("swiglu_forward", both)) is not None:
        run(_at(both), _at(out), _n(out.stride(0)), _n(count), _n(width))
        return
    gate, up = both.float().chunk(2, -1)
    out.copy_(functional.silu(gate) * up)


def swiglu_backward(both: Tensor, grad: Tensor, out: Tensor) -> None:
    """Turn `both` into its gradient, given that of the output; the output itself is formed again in `out`."""
    count, width = out.shape
    if (run := _native("swiglu_backward", both)) is not None:
        run(_at(both), _at(grad), _n(grad.stride(0)), _at(out), _n(out.stride(0)), _n(count), _n(width))
        return
    gate, up = both.float().chunk(2, -1)
    wide, sigmoid = grad.float(), gate.sigmoid()
    silu = gate * sigmoid
    out.copy_(silu * up)
    both.copy_(torch.cat((wide * up * (sigmoid + silu * (1 - sigmoid)), wide * silu), -1))


def split_heads(
    qkv: Tensor, turn: tuple[Tensor, Tensor] | None, slots: Slots, queries: int, keys: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (M, (Q + 2 K) D) to q, k, v in slots, flat; q and k turned by (cosine, sine), each fp32 (M, D / 2)."""
    width = qkv.shape[1] // (queries + 2 * keys)
    size = slots.count * width
    q, k, v = (qkv.new_empty(size * heads) for heads in (queries, keys, keys))
    if (run := _native("split_heads", qkv)) is not None:
        run(_at(qkv), *_turn(turn), _at(q), _at(k), _at(v), *_slots(slots), _n(queries), _n(keys), _n(width))
        return q, k, v
    parts = qkv.view(-1, queries + 2 * keys, width)
    turned = _turned(parts[:, : queries + keys], turn, 1.0)
    for part, flat in ((turned[:, :queries], q), (turned[:, queries:], k), (parts[:, queries + keys :], v)):
        _fill(flat, part, slots)
    return q, k, v


def join_heads(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    turn: tuple[Tensor, Tensor] | None,
    slots: Slots,
    count: int,
    heads: tuple[int, int],
) -> Tensor:
    """The way back of `split_heads` for gradients: rows (M = count, (Q + 2 K) D), turned the other way."""
    queries, keys = heads
    width = q.numel() // slots.count // queries
    qkv = q.new_empty(count, (queries + 2 * keys) * width)
    if (run := _native("join_heads", q)) is not None:
        run(_at(qkv), *_turn(turn), _at(q), _at(k), _at(v), *_slots(slots), _n(queries), _n(keys), _n(width))
        return qkv
    rows = torch.cat([_rows(flat, slots, each) for flat, each in ((q, queries), (k, keys), (v, keys))], 1)
    rows[:, : queries + keys] = _turned(rows[:, : queries + keys], turn, -1.0)
    return rows.reshape(count, -1)


def scatter_heads(heads: Tensor, out: Tensor, slots: Slots, queries: int) -> None:
    """Flat heads in slots to rows of `out` (M, Q D), which may lie apart."""
    width = out.shape[1] // queries
    if (run := _native("scatter_heads", heads)) is not None:
        run(_at(heads), _at(out), _n(out.stride(0)), *_slots(slots), _n(queries), _n(width))
        return
    out.copy_(_rows(heads, slots, queries).reshape(out.shape))


def gather_heads(rows: Tensor, other: Tensor, slots: Slots, queries: int) -> tuple[Tensor, Tensor]:
    """Rows (M, Q D) to flat heads in slots, and each head's dot product with the same of `other`, fp32, flat."""
    width = rows.shape[1] // queries
    heads = rows.new_empty(slots.count * rows.shape[1])
    dots = rows.new_empty(slots.count * queries, dtype=torch.float32)
    if (run := _native("gather_heads", rows)) is not None:
        run(_at(rows), _n(rows.stride(0)), _at(other), _n(other.stride(0)), _at(heads), _at(dots), *_slots(slots),
            _n(queries), _n(width))  # fmt: skip
        return heads, dots
    parts = rows.reshape(-1, queries, width)
    _fill(heads, parts, slots)
    _fill(dots, (parts.float() * other.reshape(parts.shape).float()).sum(-1, keepdim=True), slots)
    return heads, dots


def softmax(scores: Tensor, first: int, scale: float, window: int = 0) -> Tensor:
    """Scores (heads, rows, L) to causal attention in place; gives the log of the sums, fp32 (heads, rows).

    Row i is query first + i and sees keys up to itself, `window` of them at most (0: all).
    """
    heads, rows, length = scores.shape
    sums = scores.new_empty(heads, rows, dtype=torch.float32)
    if (run := _native("softmax_forward", scores)) is not None:
        run(_at(scores), _at(sums), *map(_n, (heads, rows, length, first)), _f(scale), _n(window))
        return sums
    seen = _seen(rows, length, first, window, scores.device)
    wide = (scores.float() * scale).masked_fill(~seen, -torch.inf)
    sums.copy_(wide.logsumexp(-1))
    scores.copy_((wide - sums[..., None]).exp())
    return sums


def softmax_backward(
    scores: Tensor, grad: Tensor, sums: Tensor, dots: Tensor, first: int, scale: float, window: int = 0
) -> None:
    """Scores to attention, and the gradient of attention to that of scores, both in place."""
    heads, rows, length = scores.shape
    if (run := _native("softmax_backward", scores)) is not None:
        run(_at(scores), _at(grad), _at(sums), _at(dots), *map(_n, (heads, rows, length, first)), _f(scale),
            _n(window))  # fmt: skip
        return
    seen = _seen(rows, length, first, window, scores.device)
    share = (scores.float() * scale - sums[..., None]).exp().masked_fill(~seen, 0.0)
    scores.copy_(share)
    grad.copy_(torch.where(seen, share * (grad.float() - dots[..., None]) * scale, 0.0))


def attend(qkv: Tensor, turn: tuple[Tensor, Tensor] | None, slots: Slots, heads: Heads, out: Tensor) -> Tensor:
    """On tiles: causal attention within segments of rows qkv (M, (Q + 2 K) D) to rows of `out` (M, Q D).

    Gives the logarithms of the sums, fp32 (M, Q).
    """
    sums = qkv.new_empty(qkv.shape[0], heads.queries, dtype=torch.float32)
    _tiles("attend", qkv)(_at(qkv), *_turn(turn), _at(slots.starts), _n(slots.starts.numel() - 1), _at(out),
                          _n(out.stride(0)), _at(sums), *_heads(heads))  # fmt: skip
    return sums


def attend_backward(
    grad: Tensor,
    out: Tensor,
    kept: tuple[Tensor, ...],
    turn: tuple[Tensor, Tensor] | None,
    slots: Slots,
    heads: Heads,
) -> Tensor:
    """The gradient of qkv from that of `out` and from `kept`, which is qkv and what `attend` gave."""
    qkv, sums = kept
    result = torch.empty_like(qkv)
    _tiles("attend_backward", qkv)(_at(qkv), *_turn(turn), _at(slots.starts), _n(slots.starts.numel() - 1), _at(out),
                                   _n(out.stride(0)), _at(grad), _n(grad.stride(0)), _at(sums), _at(result),
                                   *_heads(heads))  # fmt: skip
    return result


def dropout(x: Tensor, share: float, seed: int) -> Tensor:
    """x with `share` of it set to 0 and the rest scaled up; the same places for the same seed and shape."""
    flat = x.contiguous()
    if (run := _native("dropout", flat)) is not None:
        out = torch.empty_like(flat)
        run(_at(flat), _at(out), _n(flat.numel()), _n(seed), _f(share))
        return out
    chance = torch.Generator(flat.device if flat.device.type != "meta" else "cpu").manual_seed(seed)
    kept = torch.rand(flat.shape, generator=chance, device=chance.device).to(flat.device) >= share
    return flat * kept / (1 - share)


def cross_entropy(scores: Tensor, targets: Tensor, weight: float, scale: float = 1.0, cap: float = 0.0) -> Tensor:
    """The cross entropies of (M, V) scores, fp32 (M,); scores become their gradients times `weight` unless it is 0.

    Scores count times `scale`, then capped softly at `cap` unless it is 0 (Gemma 2).
    """
    count, width = scores.shape
    if (run := _native("cross_entropy", scores)) is not None:
        losses = scores.new_empty(count, dtype=torch.float32)
        run(_at(scores), _at(targets), _at(losses), _n(count), _n(width), _f(weight), _f(scale), _f(cap))
        return losses
    wide = scores.float() * scale
    slope: Tensor | float = scale
    if cap:
        tanh = torch.tanh(wide / cap)
        wide, slope = tanh * cap, (1 - tanh.square()) * scale
    sums = wide.logsumexp(-1, keepdim=True)
    losses = (sums - wide.gather(-1, targets[:, None]))[:, 0]
    if weight:
        share = wide.sub(sums).exp_()
        share.scatter_add_(-1, targets[:, None], torch.full_like(sums, -1.0))
        scores.copy_(share * slope * weight)
    return losses


def unpack_nf4(packed: Tensor, state: Any, out: Tensor) -> None:
    """Write the matrix that bitsandbytes packed in NF4, with its `QuantState`, to `out` (N, K), rows may lie apart."""
    rows, width = state.shape
    nested = state.nested
    simple = width % state.blocksize == 0 and (not nested or state.state2.blocksize == 256)
    if simple and (run := _native("unpack_nf4", out)) is not None:
        second = state.state2 if nested else None
        run(_at(packed), _at(state.absmax) if nested else None, _at(second.code) if second else None,
            _at(second.absmax if second else state.absmax), _f(float(_offset(state)) if nested else 0.0), _at(out),
            _n(out.stride(0)), _n(rows), _n(width), _n(state.blocksize))  # fmt: skip
        return
    from bitsandbytes.functional import dequantize_4bit

    out.copy_(dequantize_4bit(packed, state).to(out.dtype))


def _offset(state: Any) -> float:
    """The offset as a plain number, read once: reading a tensor takes longer than the rest."""
    if state.offset.is_meta:
        return 0.0
    if not isinstance(getattr(state, "plain_offset", None), float):
        state.plain_offset = float(state.offset)
    return float(state.plain_offset)


def _seen(rows: int, length: int, first: int, window: int, device: torch.device) -> Tensor:
    """(rows, length): whether the query sees the key."""
    query = torch.arange(first, first + rows, device=device)[:, None]
    key = torch.arange(length, device=device)[None]
    seen = key <= query
    return seen & (query - key < window) if window else seen


def _turned(parts: Tensor, turn: tuple[Tensor, Tensor] | None, sign: float) -> Tensor:
    """Heads (M, heads, D) turned by their position (RoPE, Su et al. 2021; halves, as transformers has it)."""
    if turn is None:
        return parts
    cosine, sine = (part[:, None] for part in turn)
    a, b = parts.float().chunk(2, -1)
    sine = sine * sign
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), -1).to(parts.dtype)


def _index(slots: Slots, heads: int) -> Tensor:
    """(tokens, heads): where each token's head lies in the flat order [segment][head][place]."""
    base, length, place = (part[slots.held].long()[:, None] for part in (slots.base, slots.length, slots.place))
    return base * heads + torch.arange(heads, device=base.device) * length + place


def _fill(flat: Tensor, parts: Tensor, slots: Slots) -> None:
    flat.zero_()
    flat.view(-1, parts.shape[-1])[_index(slots, parts.shape[1])] = parts


def _rows(flat: Tensor, slots: Slots, heads: int) -> Tensor:
    width = flat.numel() // slots.count // heads
    return flat.view(-1, width)[_index(slots, heads)]


def _native(name: str, example: Tensor) -> Any:
    """The C function `name` for the number format of `example`, or None where torch must do it."""
    suffix = native.SUFFIXES.get(example.dtype)
    library = native.library() if suffix is not None and native.of_processor(example) else None
    if library is None:
        return None
    return native.nothing if example.is_meta else library[f"{name}_{suffix}"]


def _tiles(name: str, example: Tensor) -> Any:
    library = native.tiles()
    assert library is not None
    return native.nothing if example.is_meta else library[name]


def _heads(heads: Heads) -> tuple[Any, ...]:
    return *map(_n, (heads.queries, heads.keys, heads.width)), _f(heads.scale), _n(heads.window)


def _turn(turn: tuple[Tensor, Tensor] | None) -> tuple[ctypes.c_void_p, ctypes.c_void_p]:
    return (_at(turn[0]), _at(turn[1])) if turn else (_at(None), _at(None))


def _slots(slots: Slots) -> tuple[Any, ...]:
    return (_at(slots.token), _at(slots.base), _at(slots.length), _at(slots.place), _n(slots.count))
