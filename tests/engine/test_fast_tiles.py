"""The bf16 products and attention of matmul.c and attention.c, and what stands in for them, against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tunedesk.engine.fast import attention, kernels, native, products
from tunedesk.engine.fast.packing import Heads, slots

SIZES = [(1, 64, 48), (33, 96, 80), (64, 608, 576), (130, 3104, 96), (100, 640, 1600), (7, 70, 30), (5, 32, 20)]
"""Rows, steps and columns; the last two are for torch."""


@pytest.fixture(params=["tiles", "torch"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.tiles() is None:
        pytest.skip("no AMX tiles here")
    return str(request.param)


def drawn(*shape: int, apart: int = 0) -> Tensor:
    """Normal numbers in bf16, the rows `apart` numbers further from each other than they are wide."""
    return torch.randn(*shape[:-1], shape[-1] + apart).bfloat16()[..., : shape[-1]]


def assert_near(mine: Tensor, exact: Tensor, most: float) -> None:
    """Relative error of the whole; 2^-9 is what rounding the result to bf16 may cost in each number."""
    assert torch.isfinite(mine).all()
    assert (mine.double() - exact).norm() <= most * exact.norm()


ROUNDED = 2.0**-8


@pytest.mark.parametrize(("rows", "steps", "columns"), SIZES)
def test_that_products_are_exact_up_to_one_rounding(rows: int, steps: int, columns: int) -> None:
    torch.manual_seed(rows)
    x, weight, bias = drawn(rows, steps, apart=32), drawn(columns, steps, apart=32), drawn(columns)
    assert_near(products.across(x, weight, bias), x.double() @ weight.double().t() + bias.double(), ROUNDED)
    into = drawn(rows, columns + 64)[:, 32 : 32 + columns]
    products.across(x, weight, None, into)
    assert_near(into, x.double() @ weight.double().t(), ROUNDED)
    inner, down = drawn(rows, 32), drawn(32, columns)
    weight = drawn(steps, columns, apart=32)
    exact = x.double() @ weight.double()
    assert_near(products.back(x, weight), exact, ROUNDED)
    assert_near(products.back_long(x, weight), exact, ROUNDED)
    assert_near(products.back(x, weight, (inner, down)), exact + inner.double() @ down.double(), 2 * ROUNDED)
    assert_near(products.over_rows(inner, x), inner.double().t() @ x.double(), ROUNDED)


def test_that_a_contraction_as_long_as_a_vocabulary_is_summed_in_parts() -> None:
    torch.manual_seed(0)
    grad, weight = drawn(64, 5024), drawn(5024, 96)
    assert_near(products.back_long(grad, weight), grad.double() @ weight.double(), ROUNDED)


@pytest.mark.parametrize(("rows", "steps", "width"), [(33, 64, 96), (130, 608, 320), (1, 32, 48), (64, 70, 30)])
def test_that_swiglu_is_part_of_the_product(rows: int, steps: int, width: int) -> None:
    torch.manual_seed(rows)
    x, weight, out = drawn(rows, steps), drawn(2 * width, steps) / steps**0.5, drawn(rows, width, apart=32)
    both = products.across_swiglu(x, weight, None, out)
    assert_near(both, x.double() @ weight.double().t(), ROUNDED)
    wide = both.double().requires_grad_()
    gate, up = wide.chunk(2, -1)
    exact = functional.silu(gate) * up
    assert_near(out, exact.detach(), ROUNDED)
    grad, weight, inner, down = drawn(rows, steps), drawn(steps, width) / steps**0.5, drawn(rows, 32), drawn(32, width)
    back = grad.double() @ weight.double() + inner.double() @ down.double()
    (exact_grad,) = torch.autograd.grad(exact, wide, back)
    d_both, again = products.back_swiglu(grad, weight, (inner, down), both.clone())
    assert_near(again, exact.detach(), ROUNDED)
    assert_near(d_both, exact_grad, 2 * ROUNDED)


def attended(qkv: Tensor, turn: tuple[Tensor, Tensor], lengths: list[int], heads: Heads) -> Tensor:
    """Attention within segments by its definition."""
    group = heads.queries // heads.keys
    cosine, sine = (part.double()[:, None] for part in turn)
    a, b = qkv.view(qkv.shape[0], -1, heads.width)[:, : heads.queries + heads.keys].chunk(2, -1)
    turned = torch.cat((a * cosine - b * sine, b * cosine + a * sine), -1)
    value = qkv.view(qkv.shape[0], -1, heads.width)[:, heads.queries + heads.keys :]
    parts = []
    for q, k, v in zip(
        turned[:, : heads.queries].split(lengths), turned[:, heads.queries :].split(lengths), value.split(lengths),
        strict=True,
    ):  # fmt: skip
        k, v = (part.transpose(0, 1).repeat_interleave(group, 0) for part in (k, v))
        scores = q.transpose(0, 1) @ k.transpose(1, 2) * heads.scale
        place = torch.arange(len(q))
        apart = place[:, None] - place
        scores = scores.masked_fill((apart < 0) | (apart >= (heads.window or len(q))), -torch.inf)
        parts.append((scores.softmax(-1) @ v).transpose(0, 1).reshape(len(q), -1))
    return torch.cat(parts)


@pytest.mark.parametrize(
    ("lengths", "queries", "keys", "width", "window"),
    [
        ([130, 1, 33, 64, 7], 9, 3, 64, 0),
        ([700], 4, 2, 64, 0),
        ([700, 90], 4, 2, 64, 100),
        ([300, 31], 2, 1, 128, 40),
        ([5] * 30, 3, 3, 32, 3),
        ([65], 6, 2, 96, 0),
        ([40, 9], 4, 2, 16, 0),
    ],
)
def test_that_attention_and_its_gradients_stay_within_segments(
    lengths: list[int], queries: int, keys: int, width: int, window: int
) -> None:
    torch.manual_seed(0)
    count = sum(lengths)
    heads = Heads(queries, keys, width, width**-0.5, window)
    angle = torch.rand(count, width // 2) * 6
    turn = angle.cos(), angle.sin()
    qkv, grad = drawn(count, (queries + 2 * keys) * width), drawn(count, queries * width, apart=32)
    wide = qkv.double().requires_grad_()
    exact = attended(wide, turn, lengths, heads)
    (exact_grad,) = torch.autograd.grad(exact, wide, grad.double())
    out = drawn(count, queries * width, apart=32)
    places = slots(lengths)
    kept = attention.forward(qkv, turn, places, heads, out)
    assert_near(out, exact.detach(), 2 * ROUNDED)
    d_qkv = attention.backward(grad, out, kept, turn, places, heads)
    sizes = [queries * width, keys * width, keys * width]
    for mine, whole in zip(d_qkv.split(sizes, 1), exact_grad.split(sizes, 1), strict=True):
        assert_near(mine, whole, 3 * ROUNDED)


def test_that_results_do_not_depend_on_the_number_of_threads(way: str) -> None:
    if way == "torch":
        pytest.skip("torch promises no such thing")
    torch.manual_seed(0)
    x, weight, grad = drawn(200, 608), drawn(960, 608), drawn(200, 960)
    heads, places = Heads(9, 3, 64, 0.125), slots([150, 50])
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            qkv = products.across(x, weight)
            out = torch.empty(200, 576, dtype=torch.bfloat16)
            kept = attention.forward(qkv, None, places, heads, out)
            d_qkv = attention.backward(out, out, kept, None, places, heads)
            found.append((qkv, products.back(grad, weight), products.over_rows(x, grad), out, d_qkv))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_that_the_torch_way_of_a_norm_is_the_native_one() -> None:
    torch.manual_seed(0)
    x, add, weight = drawn(20, 64), drawn(20, 64), drawn(64)
    out = torch.empty_like(x)
    total, rstd = kernels.norm(x, add, weight, out, 1e-5)
    exact = total.double() * (total.double().square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight.double()
    assert_near(out, exact, ROUNDED)
    assert_near(rstd, (total.double().square().mean(-1) + 1e-5).rsqrt(), 1e-5)
