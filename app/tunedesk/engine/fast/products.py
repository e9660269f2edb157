"""Matrix products of a layer: on AMX tiles where matmul.c can be used (bf16), by torch otherwise.

M tokens, K inputs, N outputs, R columns for adapters. Rows may lie apart (a stride greater than their width).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tunedesk.engine.fast import kernels, native
from tunedesk.engine.fast.native import address, whole

_STEP = 32
"""Numbers of the contraction that a tile takes at once."""

_TILE = 16

_LONG = 2048
"""Steps of a long contraction that are worked on at once."""

_PLAIN, _SWIGLU, _SWIGLU_BACKWARD, _ADD = range(4)
"""What matmul.c does with the sums."""


def across(x: Tensor, weight: Tensor, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """x (M, K) weight' + bias, with weight (N, K), to `out` (M, N)."""
    if on_tiles(x, x.shape[1], weight.shape[0]):
        out = x.new_empty(x.shape[0], weight.shape[0]) if out is None else out
        _matmul((x, weight), None, bias, out, transposed=True)
        return out
    result = functional.linear(x, weight, bias)
    return result if out is None else out.copy_(result)


def back(grad: Tensor, weight: Tensor, more: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """grad (M, N) weight (N, K), plus the product (M, R) (R, K) of `more`."""
    if on_tiles(grad, grad.shape[1], weight.shape[1]):
        out = grad.new_empty(grad.shape[0], weight.shape[1])
        _matmul((grad, weight), more, None, out, transposed=False)
        return out
    result = grad @ weight
    return result.addmm_(*more) if more else result


def across_swiglu(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """`across` for weights of gate and up below each other; their SwiGLU (Shazeer 2020) goes to `out` (M, N / 2)."""
    if bias is None and on_tiles(x, x.shape[1], weight.shape[0]) and out.shape[1] % _STEP == 0:
        both = _apart(x, weight.shape[0])
        _matmul((x, weight), None, None, both, transposed=True, finish=_SWIGLU, more_out=out)
        return both
    both = across(x, weight, bias)
    kernels.swiglu(both, out)
    return both


def back_swiglu(
    grad: Tensor, weight: Tensor, more: tuple[Tensor, Tensor] | None, both: Tensor
) -> tuple[Tensor, Tensor]:
    """`back`, and through the SwiGLU of `both` (M, 2 K): (the gradient of both, SwiGLU (M, K) again)."""
    width = weight.shape[1]
    out = grad.new_empty(grad.shape[0], width)
    if on_tiles(grad, grad.shape[1], width) and width % _STEP == 0:
        d_both = both.new_empty_strided(both.shape, both.stride())
        _matmul((grad, weight), more, None, out, transposed=False, finish=_SWIGLU_BACKWARD, both=both, more_out=d_both)
        return d_both, out
    kernels.swiglu_backward(both, back(grad, weight, more), out)
    return both, out


def back_long(grad: Tensor, weight: Tensor) -> Tensor:
    """`back` for a contraction as long as a vocabulary: by parts whose weights fit the cache, summed in fp32."""
    count, width = grad.shape[0], weight.shape[1]
    if not (on_tiles(grad, grad.shape[1], width) and count % _STEP == width % _STEP == 0):
        return grad @ weight
    total = grad.new_zeros(count, width, dtype=torch.float32)
    for start in range(0, grad.shape[1], _LONG):
        part = slice(start, start + _LONG)
        _matmul((grad[:, part], weight[part]), None, None, None, transposed=False, finish=_ADD, total=total)
    return total.to(grad.dtype)


def over_rows(left: Tensor, right: Tensor) -> Tensor:
    """left (M, R)' right (M, N), in fp32 where tiles sum it."""
    width = right.shape[1]
    if on_tiles(left, left.shape[1], width) and on_tiles(right, left.shape[1], width) and width % _STEP == 0:
        out = left.new_empty(left.shape[1], right.shape[1], dtype=torch.float32)
        library = native.tiles()
        assert library is not None
        run = native.nothing if out.is_meta else library.matmul_over_rows
        run(*_rows(left), *_rows(right), address(out), *map(whole, (left.shape[0], *out.shape)))
        return out
    return left.t() @ right


def _apart(example: Tensor, width: int) -> Tensor:
    """(M, width), rows a little apart: a stride of many whole kilobytes would put rows in each other's cache lines."""
    return example.new_empty(example.shape[0], width + _STEP)[:, :width]


def on_tiles(example: Tensor, steps: int, columns: int) -> bool:
    """Whether matmul.c can multiply numbers like those of `example` in these sizes."""
    fits = example.dtype == torch.bfloat16 and native.of_processor(example) and example.shape[0] > 0
    fits = fits and example.stride(1) == 1
    return fits and steps % _STEP == 0 and columns % _TILE == 0 and native.tiles() is not None


def _matmul(
    pair: tuple[Tensor, Tensor],
    more: tuple[Tensor, Tensor] | None,
    bias: Tensor | None,
    out: Tensor | None,
    transposed: bool,
    finish: int = _PLAIN,
    both: Tensor | None = None,
    more_out: Tensor | None = None,
    total: Tensor | None = None,
) -> None:
    library = native.tiles()
    shape = out if total is None else total
    assert library is not None
    assert shape is not None
    second = (*_pair(*more),) if more else (address(None), whole(0), address(None), whole(0), whole(0))
    run = native.nothing if shape.is_meta else library.matmul
    run(
        *_pair(*pair), *second, whole(transposed), address(bias), *_rows(out), whole(shape.shape[0]),
        whole(shape.shape[1]), whole(finish), address(both), *_rows(more_out), address(total),
    )  # fmt: skip


def _pair(left: Tensor, right: Tensor) -> tuple[object, ...]:
    return (*_rows(left), *_rows(right), whole(left.shape[1]))


def _rows(matrix: Tensor | None) -> tuple[object, object]:
    return address(matrix), whole(0 if matrix is None else matrix.stride(0))
