"""A whole training step on meta tensors, and its peak beside that of the same step in earnest.

So what a step allocates can be known before any weight is read. Both are counted in the same way, from the operations
that torch dispatches.
"""

from __future__ import annotations

import inspect
import weakref
from typing import Any

import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.nn import Params4bit
from peft import PeftModel
from torch import nn
from torch.nn.attention import varlen
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedModel, Qwen3Config
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

from tests.engine.conftest import _sizes, configs
from tests.engine.test_fast_gradients import some_rows
from tunedesk.core.spec import MethodSection
from tunedesk.engine.fast import native
from tunedesk.engine.fast.flat_adamw import FlatAdamW
from tunedesk.engine.fast.model import FastModel, make_fast
from tunedesk.engine.fast.packing import pack
from tunedesk.engine.loading import nf4
from tunedesk.engine.methods.base import trainable
from tunedesk.engine.methods.lora import attach_plain as attach

META, CPU = torch.device("meta"), torch.device("cpu")
FAMILIES = ["llama", "wide llama", "qwen2", "qwen3", "mistral", "gemma2", "gpt2"]
TOKENS = 256
FUSED = ["llama", "wide llama", "qwen2", "mistral"]


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made under it that are still alive: `now`, and at most, `peak`.

    Room that an operation takes and gives back within itself is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._held: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._held | before:
                self._take(storage)
        return result

    def _take(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._held.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._give, key, size)

    def _give(self, key: int, size: int) -> None:
        self._held.discard(key)
        self.now -= size


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Step:
    """A model of random weights, or of none, and one step of its training."""

    def __init__(
        self, family: str, device: torch.device, kind: str, checkpointing: bool = False, packed: bool = False
    ) -> None:
        self.device = device
        model = tuned(family, device, checkpointing, packed)
        self.optimiser = FlatAdamW(trainable(model), 1e-3, 0.0)
        fast = make_fast(model, kind)
        assert fast is not None
        self.fast: FastModel = fast
        model.train()

    def __call__(self) -> LiveBytes:
        part = pack(some_rows((9, 140, 70, 33, 3))).to(self.device)
        assert part.input_ids.numel() == TOKENS
        with LiveBytes() as live:
            self.optimiser.zero_grad()
            loss = self.fast.loss(part) / part.trained
            loss.backward()
            self.optimiser.step()
            del loss
        return live


def config(family: str) -> PretrainedConfig:
    if family == "qwen3":
        return Qwen3Config(**_sizes(), head_dim=8)
    if family == "wide llama":  # heads as wide as the tiles of attention.c take them
        return LlamaConfig(**_sizes() | {"hidden_size": 128, "intermediate_size": 256})
    return configs()[family]


def tuned(family: str, device: torch.device, checkpointing: bool, packed: bool) -> PeftModel:
    with device:
        base = AutoModelForCausalLM.from_config(config(family), dtype=torch.bfloat16)
    if packed:
        base = in_nf4(base, device)
    base.requires_grad_(False)
    return attach(base, MethodSection(rank=4), 8.0, checkpointing, 0)


def in_nf4(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """`model` with other linear layers, packed. `Params4bit.to` leaves meta alone, yet what it calls works there.

    bitsandbytes keeps the table of its second quantisation where it was first used: on meta it would be lost.
    """
    functional.name2qmap.setdefault("dynamic", functional.create_dynamic_map())
    model = replace_with_bnb_linear(model, ["lm_head"], quantization_config=nf4(torch.bfloat16))
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            values = torch.randn(module.weight.shape, dtype=torch.bfloat16, device=device)
            module.weight = Params4bit(values, quant_type="nf4", module=module)._quantize(device)
    return model


@pytest.fixture(params=["kernels.c", "cpu", "mps"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a processor runs, with kernels.c and without, and what other devices run, here on a processor without it."""
    if request.param != "kernels.c":
        monkeypatch.setattr(native, "library", lambda: None)
        return str(request.param)
    if native.library() is None:
        pytest.skip("no C compiler here")
    return "cpu"


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_that_a_traced_step_has_the_peak_of_a_real_one(family: str, kind: str, checkpointing: bool) -> None:
    """To the byte, but for torch's layer norm: it keeps its two numbers a token in fp32 on meta, as on CUDA."""
    traced, real = (Step(family, device, kind, checkpointing) for device in (META, CPU))
    assert bool(traced.fast._blocks) == (kind == "cpu" and family in FUSED)
    norms = sum(isinstance(module, nn.LayerNorm) for module in traced.fast._base.modules())
    assert 0 <= traced().peak - real().peak <= norms * 2 * 2 * TOKENS


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", ["llama", "wide llama", "gemma2"])
def test_that_a_traced_step_with_packed_weights_has_the_peak_of_a_real_one(
    family: str, kind: str, checkpointing: bool
) -> None:
    traced, real = (Step(family, device, kind, checkpointing, packed=True) for device in (META, CPU))
    assert all(group._packed for group in traced.fast._groups)
    assert traced().peak == real().peak


def test_that_the_trace_knows_where_kernels_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    if native.library() is None:
        pytest.skip("no C compiler here")
    built = [Step("llama", META, kind)().peak for kind in ("cpu", "mps")]
    monkeypatch.setattr(native, "library", lambda: None)
    plain = [Step("llama", META, kind)().peak for kind in ("cpu", "mps")]
    assert built[0] < 0.6 * plain[0]
    assert built[1] == plain[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_that_what_cuda_runs_can_be_traced(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's own variable-length attention, whose shapes it knows on meta; in earnest it needs a GPU."""
    real = varlen.varlen_attn
    calls = []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments[0].device.type)
        return real(*arguments, **options)

    counted.__signature__ = inspect.signature(real)  # type: ignore[attr-defined]
    monkeypatch.setattr(varlen, "varlen_attn", counted)
    in_segments, by_varlen = (Step(family, META, kind)().peak for kind in ("mps", "cuda"))
    if family == "gemma2":  # caps its scores
        assert not calls
        assert by_varlen == in_segments
    else:
        assert calls == ["meta"] * 2
        assert by_varlen < in_segments


def test_that_the_trace_shows_what_checkpointing_saves() -> None:
    whole, again = (Step("llama", META, "cpu", checkpointing)().peak for checkpointing in (False, True))
    assert again < whole
