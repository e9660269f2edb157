"""Rows joined end to end: no padding between them, positions that restart, attention within each.

Matrix libraries prepare a kernel for each new shape (milliseconds, and a megabyte that is never given back), so the
number of tokens in a pack and the lengths that attention works on are rounded up to a few sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, groupby
from typing import Any, TypeVar

import torch

from tunedesk.engine.render import TokenRow

_ROUND = 64
_SEGMENT = 32


@dataclass(frozen=True)
class Heads:
    """`queries` heads share `keys` heads of keys and values, all of one `width` D.

    Scores count times `scale`; a query sees `window` keys, itself included (0: all before it).
    """

    queries: int
    keys: int
    width: int
    scale: float
    window: int = 0


@dataclass(frozen=True)
class Slots:
    """Where attention keeps the tokens: each segment padded to a rounded length, one slot a token, as int32 (slots,).

    `token` is the token in the slot, -1 for none; `base` the first slot of its segment, `length` the segment's slots,
    `place` the position within. `spans` has (first slot, length, segments) of each run of segments of one length.
    `starts` are the boundaries of the segments in tokens, int32 (segments + 1,); `held` the slot of each token, int64.
    """

    token: torch.Tensor
    base: torch.Tensor
    length: torch.Tensor
    place: torch.Tensor
    starts: torch.Tensor
    held: torch.Tensor
    spans: tuple[tuple[int, int, int], ...]

    @property
    def count(self) -> int:
        return self.token.numel()


@dataclass(frozen=True)
class Pack:
    """Rows joined to (1, T); the last few tokens only fill up T, are a segment of their own and teach nothing.

    `starts` are the boundaries of the segments, int32 (segments + 1,), and `lengths` their tokens; `predicts` the
    places, int64 (trained,), whose next token is a trained one, and `targets` those tokens.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    starts: torch.Tensor
    lengths: tuple[int, ...]
    longest: int
    predicts: torch.Tensor
    targets: torch.Tensor
    tokens: int
    slots: Slots

    @property
    def trained(self) -> int:
        return self.targets.numel()

    def to(self, device: torch.device) -> Pack:
        """The pack on `device`."""
        return _moved(self, device, slots=_moved(self.slots, device))


_T = TypeVar("_T", Pack, Slots)
_Row = TypeVar("_Row", bound=TokenRow)


def _moved(value: _T, device: torch.device, **changes: Any) -> _T:
    """The dataclass `value` with its tensors on `device`."""
    held = {item.name: getattr(value, item.name) for item in fields(value)}
    moved: dict[str, Any] = {name: item.to(device) for name, item in held.items() if isinstance(item, torch.Tensor)}
    return replace(value, **moved, **changes)


def packs(rows: Sequence[TokenRow], budget: int) -> list[Pack]:
    """`rows` in as few packs of about `budget` tokens as hold them, all of nearly the same size."""
    return [pack(group) for group in groups(rows, budget)]


def groups(rows: Sequence[_Row], budget: int) -> list[list[_Row]]:
    """`rows`, the longest first, each into the emptiest group; no group exceeds `budget` unless a single row does."""
    count = -(-sum(len(row.ids) for row in rows) // budget)
    while True:
        parts: list[list[_Row]] = [[] for _ in range(count)]
        sizes = [0] * count
        for row in sorted(rows, key=lambda row: -len(row.ids)):
            emptiest = sizes.index(min(sizes))
            parts[emptiest].append(row)
            sizes[emptiest] += len(row.ids)
        if all(size <= budget or len(part) == 1 for size, part in zip(sizes, parts, strict=True)):
            return [part for part in parts if part]
        count += 1


def pack(rows: Sequence[TokenRow]) -> Pack:
    """One pack of `rows`, on the CPU."""
    lengths = [len(row.ids) for row in rows]
    tokens = sum(lengths)
    if fill := -tokens % _ROUND:
        lengths.append(fill)
    ids = torch.zeros(tokens + fill, dtype=torch.long)
    trained = torch.zeros(tokens + fill, dtype=torch.bool)
    starts = [0, *accumulate(lengths)]
    for start, row in zip(starts, rows, strict=False):
        end = start + len(row.ids)
        ids[start:end] = torch.tensor(row.ids, dtype=torch.long)
        trained[start:end] = torch.tensor(list(row.trained), dtype=torch.bool)
        trained[start] = False
    found = trained.nonzero()[:, 0]
    return Pack(
        input_ids=ids[None],
        positions=torch.cat([torch.arange(length) for length in lengths])[None],
        starts=torch.tensor(starts, dtype=torch.int32),
        lengths=tuple(lengths),
        longest=max(lengths),
        predicts=found - 1,
        targets=ids[found],
        tokens=tokens,
        slots=slots(lengths),
    )


def slots(lengths: Sequence[int]) -> Slots:
    """The slots of segments of `lengths` tokens that follow each other."""
    padded = [-(-length // _SEGMENT) * _SEGMENT for length in lengths]
    bases = [0, *accumulate(padded)]
    starts = [0, *accumulate(lengths)]
    token = torch.full((bases[-1],), -1, dtype=torch.int32)
    for base, start, length in zip(bases, starts, lengths, strict=False):
        token[base : base + length] = torch.arange(start, start + length, dtype=torch.int32)
    sizes = torch.tensor(padded)
    return Slots(
        token=token,
        base=torch.tensor(bases[:-1], dtype=torch.int32).repeat_interleave(sizes),
        length=sizes.to(torch.int32).repeat_interleave(sizes),
        place=torch.cat([torch.arange(length, dtype=torch.int32) for length in padded]),
        starts=torch.tensor(starts, dtype=torch.int32),
        held=(token >= 0).nonzero()[:, 0],
        spans=tuple(_spans(padded)),
    )


def _spans(padded: Sequence[int]) -> list[tuple[int, int, int]]:
    found = []
    base = 0
    for length, run in groupby(padded):
        count = len(list(run))
        found.append((base, length, count))
        base += length * count
    return found
