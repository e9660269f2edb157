"""Frozen linear layers with their LoRA adapters, as few matrix products as there can be.

Layers that read the same input form a group: their frozen weights lie below each other in one matrix, and the scaled B
matrices beside them, so that `[x | x A'] [W | s B]'` is the whole layer in one product and `g [W | s B]` gives both the
gradient of the input and what dA needs. Adapters stay peft's parameters, in fp32; copies in the model's own number
format are renewed by `refresh`. Gradients are added to the parameters' `.grad`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tunedesk.engine.fast import kernels, products

_ALIGN = 32
"""The columns for adapters are filled up to a multiple: matrix units take so many numbers at once."""

Scratch = dict[tuple[int, int], Tensor]
"""One buffer for each shape of unpacked 4-bit weights, shared by all groups; valid until the next one is unpacked."""


Norm = tuple[Tensor, Tensor]
"""1 / rms of each row, fp32 (M,), and the weight (K,) of an RMS norm."""


@dataclass(frozen=True)
class Member:
    """One layer of a group: its rows of the joint output, and, with an adapter, its columns of x A'."""

    base: nn.Module
    rows: slice
    columns: slice
    down: nn.Parameter | None
    up: nn.Parameter | None
    scale: float


class Group:
    """Linear layers of one input (K) and a joint output (N), R columns for their adapters."""

    def __init__(self, layers: list[nn.Module], dtype: torch.dtype, scratch: Scratch) -> None:
        self.members = _members(layers)
        first = self.members[0].base
        self.inputs = _in_features(first)
        self.outputs = self.members[-1].rows.stop
        rank = self.members[-1].columns.stop
        self.extra: int = -(-rank // _ALIGN) * _ALIGN
        device = next(first.parameters()).device
        self.down = torch.zeros(self.extra, self.inputs, dtype=dtype, device=device)
        self.bias = self._joint_bias(dtype)
        self._packed = any(_quantised(member.base) for member in self.members)
        self._scratch = scratch
        if self._packed:
            self._up = torch.zeros(self.outputs, self.extra, dtype=dtype, device=device)
        else:
            self._weight = torch.zeros(self.outputs, self.inputs + self.extra, dtype=dtype, device=device)
            self._up = self._weight[:, self.inputs :]
            self._adopt()
        self.refresh()

    @property
    def learns(self) -> bool:
        """Whether any layer has an adapter."""
        return bool(self.extra)

    @torch.no_grad()
    def refresh(self) -> None:
        """Renew the copies of the adapters."""
        for member in self.members:
            if member.down is not None and member.up is not None:
                self.down[member.columns].copy_(member.down)
                self._up[member.rows, member.columns] = member.up * member.scale

    def weight(self) -> Tensor:
        """[W | s B], (N, K + R). Of packed weights it is valid until another group's is asked for."""
        if not self._packed:
            return self._weight
        key = (self.outputs, self.inputs + self.extra)
        whole = self._scratch.get(key)
        if whole is None:
            whole = self._scratch[key] = self.down.new_empty(key)
        for member in self.members:
            _unpack(member.base, whole[member.rows, : self.inputs])
        whole[:, self.inputs :] = self._up
        return whole

    def room(self, count: int) -> Tensor:
        """(count, K + R): the input goes into the first K columns."""
        return self.down.new_empty(count, self.inputs + self.extra)

    def forward(self, x: Tensor, swiglu: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (M, K + R) as `room` gave it, its last R columns not yet filled, to (x A' (M, R), output (M, N)).

        Where the output is gate and up, their SwiGLU goes to `swiglu` (M, N / 2).
        """
        inner = x[:, self.inputs :]
        if self.extra:
            products.across(x[:, : self.inputs], self.down, out=inner)
        if swiglu is None:
            return inner.contiguous(), products.across(x, self.weight(), self.bias)
        return inner.contiguous(), products.across_swiglu(x, self.weight(), self.bias, swiglu)

    def into(self, grad: Tensor, wanted: bool = True) -> tuple[Tensor, Tensor]:
        """Gradient of the output (M, N) to those of the input (M, K), only if `wanted`, and of x A' (M, R)."""
        inner = self._into_inner(grad)
        if not wanted:
            return grad[:, :0], inner
        return products.back(grad, *self._ways(inner)), inner

    def into_swiglu(self, grad: Tensor, both: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same where the input was the SwiGLU of `both` (M, 2 K), and on through it.

        Gives the gradients of both and of x A', and the input again. `both` itself may be overwritten.
        """
        inner = self._into_inner(grad)
        d_both, x = products.back_swiglu(grad, *self._ways(inner), both)
        return d_both, inner, x

    def _into_inner(self, grad: Tensor) -> Tensor:
        return products.back(grad, self._up) if self.extra else grad[:, :0]

    def _ways(self, inner: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """What gradients are multiplied by on their way to the input: the frozen weights, and through the adapters."""
        return self.weight()[:, : self.inputs], (inner, self.down) if self.extra else None

    def learn(self, grad: Tensor, inner_grad: Tensor, x: Tensor, inner: Tensor, norm: Norm | None = None) -> None:
        """Add to the adapters' gradients: grad (M, N), inner_grad and inner = x A' (M, R), x (M, K).

        With `norm` x is what the norm before the layers read: its rows times 1 / rms and columns times the weight are
        what they were given, and both may as well be applied to the other side and to the result.
        """
        if not self.extra:
            return
        if norm is not None:
            inner_grad = (inner_grad * norm[0][:, None]).to(inner_grad.dtype)
        to_down, to_up = products.over_rows(inner_grad, x), products.over_rows(inner, grad)
        if norm is not None:
            to_down = to_down.mul_(norm[1])
        for member in self.members:
            if member.down is not None and member.up is not None:
                _add(member.down, to_down[member.columns], 1.0)
                _add(member.up, to_up[member.columns, member.rows].t(), member.scale)

    def _joint_bias(self, dtype: torch.dtype) -> Tensor | None:
        parts = [member.base.bias for member in self.members]
        if all(part is None for part in parts):
            return None
        device = self.down.device
        whole = torch.zeros(self.outputs, dtype=dtype, device=device)
        for member, part in zip(self.members, parts, strict=True):
            if isinstance(part, Tensor):
                whole[member.rows] = part.detach()
        return whole

    def _adopt(self) -> None:
        """Move the frozen weights into the joint matrix and leave the layers views of it."""
        for member in self.members:
            view = self._weight[member.rows, : self.inputs]
            weight = member.base.weight
            assert isinstance(weight, nn.Parameter)
            view.copy_(_matrix(member.base))
            weight.data = view.t() if isinstance(member.base, Conv1D) else view


def lean(layer: nn.Module) -> bool:
    """Whether a group can take `layer`: a frozen linear one, alone or in peft's plain LoRA without dropout."""
    if not isinstance(layer, LoraLayer):
        return type(layer) in (nn.Linear, Conv1D) or _quantised(layer)
    base = layer.get_base_layer()
    if type(base) not in (nn.Linear, Conv1D) and not _quantised(base):
        return False
    names = layer.active_adapters
    return (
        not layer.merged
        and len(names) == 1
        and names[0] in layer.lora_A
        and names[0] not in layer.lora_variant
        and isinstance(layer.lora_dropout[names[0]], nn.Identity)
        and layer.lora_B[names[0]].bias is None
    )


def _members(layers: list[nn.Module]) -> list[Member]:
    found: list[Member] = []
    row = column = 0
    for layer in layers:
        base = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
        down = up = None
        scale, rank = 1.0, 0
        if isinstance(layer, LoraLayer):
            name = layer.active_adapters[0]
            down, up, scale = layer.lora_A[name].weight, layer.lora_B[name].weight, float(layer.scaling[name])
            rank = down.shape[0]
        width = _out_features(base)
        found.append(Member(base, slice(row, row + width), slice(column, column + rank), down, up, scale))
        row, column = row + width, column + rank
    return found


def _add(parameter: nn.Parameter, grad: Tensor, scale: float) -> None:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    parameter.grad.add_(grad, alpha=scale)


def _quantised(layer: nn.Module) -> bool:
    return type(layer).__name__ == "Linear4bit" and type(layer).__module__.startswith("bitsandbytes")


def _in_features(layer: Any) -> int:
    return int(layer.nx if isinstance(layer, Conv1D) else layer.in_features)


def _out_features(layer: Any) -> int:
    return int(layer.nf if isinstance(layer, Conv1D) else layer.out_features)


def _matrix(layer: Any) -> Tensor:
    """The weight as (out, in)."""
    weight: Tensor = layer.weight.detach()
    return weight.t() if isinstance(layer, Conv1D) else weight


def _unpack(layer: Any, out: Tensor) -> None:
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        out.copy_(_matrix(layer))
    elif state.quant_type == "nf4":
        kernels.unpack_nf4(layer.weight.data, state, out)
    else:
        from bitsandbytes.functional import dequantize_4bit

        out.copy_(dequantize_4bit(layer.weight.data, state))


class LeanLinear(torch.autograd.Function):
    """A group by itself: x (..., K) to (..., N), keeping x and x A' alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, group: Group) -> Tensor:  # noqa: ARG004 (asks for gradients)
        flat = x.reshape(-1, group.inputs)
        room = group.room(flat.shape[0])
        room[:, : group.inputs] = flat
        inner, out = group.forward(room)
        ctx.save_for_backward(flat, inner)
        ctx.group = group
        return out.view(*x.shape[:-1], group.outputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        x, inner = ctx.saved_tensors
        group: Group = ctx.group
        flat = grad.reshape(-1, group.outputs)
        wanted = ctx.needs_input_grad[0]
        to_x, inner_grad = group.into(flat, wanted)
        group.learn(flat, inner_grad, x, inner)
        return (to_x.view(*grad.shape[:-1], group.inputs) if wanted else None), None, None


def make_lean(layer: nn.Module, anchor: Tensor, dtype: torch.dtype, scratch: Scratch) -> Group:
    """Let `layer`, one of peft's, compute as a group of its own for as long as its adapter is active."""
    group = Group([layer], dtype, scratch)
    plain: Callable[..., Tensor] = layer.forward

    def forward(x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        if getattr(layer, "disable_adapters", False) or getattr(layer, "merged", False) or x.dtype != dtype:
            return plain(x, *arguments, **options)
        out: Tensor = LeanLinear.apply(x, anchor, group)  # type: ignore[no-untyped-call]
        return out

    layer.forward = forward
    return group
