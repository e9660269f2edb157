"""AdamW over one flat buffer: the adapter's few hundred small matrices are updated and clipped as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class FlatAdamW(torch.optim.AdamW):
    """`torch.optim.AdamW`, same numbers and same state, for fp32 parameters of one device.

    Parameters, gradients and both moments become views of flat buffers. Checkpoints of the two are interchangeable.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, lr=lr, weight_decay=weight_decay, fused=True)
        self._step_supports_amp_scaling = False  # a step is left out, not told of gradients that are not finite
        size = sum(parameter.numel() for parameter in parameters)
        device = parameters[0].device
        self.value, self.grad, self._mean, self._square = (
            torch.zeros(size, dtype=torch.float32, device=device) for _ in range(4)
        )
        self._steps = torch.zeros((), dtype=torch.float32, device=device)
        self._flatten(parameters)

    @torch.no_grad()
    def _flatten(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        start = 0
        for parameter in parameters:
            value, grad, mean, square = (
                flat[start : start + parameter.numel()].view(parameter.shape)
                for flat in (self.value, self.grad, self._mean, self._square)
            )
            value.copy_(parameter)
            parameter.data = value
            parameter.grad = grad
            self.state[parameter] = {"step": self._steps, "exp_avg": mean, "exp_avg_sq": square}
            start += parameter.numel()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Zero the gradients; they stay views of the flat buffer."""
        del set_to_none
        self.grad.zero_()

    def clip(self, longest: float) -> float:
        """Shorten the gradient to `longest` and give its length before that."""
        length = float(self.grad.norm())
        if length > longest:
            self.grad.mul_(longest / (length + 1e-6))
        return length

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update, with the rate and decay of the only parameter group."""
        del closure
        group = self.param_groups[0]
        beta1, beta2 = group["betas"]
        self._steps += 1
        torch._fused_adamw_(
            [self.value], [self.grad], [self._mean], [self._square], [], [self._steps],
            lr=group["lr"], beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"],
            amsgrad=False, maximize=False,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """As `torch.optim.AdamW` gives it: each parameter counts its own steps."""
        whole = super().state_dict()
        states = {key: {**item, "step": item["step"].clone()} for key, item in whole["state"].items()}
        return {**whole, "state": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put a state of this class or of `torch.optim.AdamW` in place."""
        kept = [self.state[parameter] for parameter in self.param_groups[0]["params"]]
        super().load_state_dict(state_dict)
        for parameter, views in zip(self.param_groups[0]["params"], kept, strict=True):
            loaded = self.state[parameter]
            for name, view in views.items():
                if name in loaded:
                    _copy(view, loaded[name])
            self.state[parameter] = views


def _copy(view: Tensor, value: Any) -> None:
    view.copy_(torch.as_tensor(value))
