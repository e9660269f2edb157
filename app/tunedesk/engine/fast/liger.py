"""Liger's kernels for CUDA, where they are installed: RMS norm, the gated activations and the rotary positions.

They are no dependency: `pip install liger-kernel` (BSD 2-Clause, Hsu et al. 2024, arXiv 2410.10989). Its losses are
left out, `token_loss` has its own.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_OPTIONS = {
    "rms_norm": True, "swiglu": True, "geglu": True, "rope": True, "cross_entropy": False,
    "fused_linear_cross_entropy": False,
}  # fmt: skip
"""Of these Liger passes over what a family does not have. Its defaults replace the loss and the model's forward."""

_ROPE = "apply_rotary_pos_emb"

_log = logging.getLogger(__name__)


def apply(base: nn.Module) -> bool:
    """Let `base`, a causal LM of transformers, use Liger's kernels; gives whether it does.

    Only on CUDA, for they are written in Triton, and in the families that Liger knows. Linear layers stay the modules
    that they are.
    """
    device = next(base.parameters()).device
    if device.type != "cuda" or find_spec("liger_kernel") is None:
        return False
    try:
        _patch(base, device)
    except Exception as error:  # noqa: BLE001 (whatever a foreign package raises, plain torch does the same)
        _log.warning("Liger's kernels are not used: %s", error)
        return False
    used = any(module._get_name().startswith("Liger") for module in base.modules())  # type: ignore[no-untyped-call]
    _log.info("Liger's kernels are used." if used else "Liger does not know this model.")
    return used


def _patch(base: nn.Module, device: torch.device) -> None:
    kernels = import_module("liger_kernel.transformers")
    # Triton compiles when first called, and needs a C compiler: better to find out here than in the first step.
    kernels.LigerRMSNorm(64).to(device)(torch.ones(2, 64, device=device))
    code = sys.modules[type(base).__module__]
    before = dict(vars(code))
    try:
        kernels._apply_liger_kernel_to_instance(model=base, **_OPTIONS)
    finally:
        _keep_to_cuda(code, before)


def _keep_to_cuda(code: ModuleType, before: dict[str, Any]) -> None:
    """Undo what Liger did to transformers' module `code` for all models of this process, wherever they compute.

    The norms and activations of `base` itself are bound to it. Rotary positions are a function of the module, so that
    one stays, for tensors on CUDA.
    """
    for name, plain in before.items():
        fast = getattr(code, name)
        if fast is not plain:
            setattr(code, name, _on_cuda(fast, plain) if name == _ROPE else plain)


def _on_cuda(fast: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    def turned(q: Tensor, *arguments: Any, **options: Any) -> Any:
        return (fast if q.is_cuda else plain)(q, *arguments, **options)

    return turned
