"""The code that CUDA and MPS run, on the processor against plain peft and transformers; and on a GPU where one is."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.attention import varlen
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig
from transformers.models.llama import modeling_llama

from tests.engine.test_fast_gradients import FAMILIES, assert_same, gradients, one_by_one, some_rows, tuned
from tunedesk.core.spec import MethodSection
from tunedesk.engine.batches import batch_loss, micro_batches
from tunedesk.engine.fast import attention, liger
from tunedesk.engine.fast.flat_adamw import FlatAdamW
from tunedesk.engine.fast.model import make_fast
from tunedesk.engine.fast.packing import pack, packs
from tunedesk.engine.loading import _keep_packed
from tunedesk.engine.methods.base import trainable
from tunedesk.engine.methods.lora import attach_plain as attach
from tunedesk.engine.render import TokenRow

Gradients = dict[str, Tensor]
LAYERS = 2


def on_gpu(test: Callable[..., None]) -> Callable[..., None]:
    """Marks what needs a CUDA device."""
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")(test))


def plain_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """What `torch.nn.attention.varlen.varlen_attn` documents, segment by segment: (T, Q, D) from (T, Q or K, D).

    A query sees the keys from `window_size[0]` before it to `window_size[1]` behind it, -1 for all. Shared heads must
    be asked for. Boundaries are int32 as its kernel has them, and no segment is longer than it was told.
    """
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert int(cu_seq_q.diff().max()) <= max_q
    assert int(cu_seq_k.diff().max()) <= max_k
    group = query.shape[1] // key.shape[1]
    assert group == 1 or enable_gqa
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    left, right = window_size
    parts = []
    for start, end in pairwise(cu_seq_q.tolist()):
        q, k, v = (part[start:end].transpose(0, 1).float() for part in (query, key, value))
        k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
        ahead = torch.arange(end - start)[None] - torch.arange(end - start)[:, None]  # places from the query to the key
        seen = torch.ones_like(ahead, dtype=torch.bool)
        if left >= 0:
            seen &= ahead >= -left
        if right >= 0:
            seen &= ahead <= right
        scores = (q @ k.transpose(1, 2) * scale).masked_fill(~seen.to(q.device), -torch.inf)
        parts.append((scores.softmax(-1) @ v).transpose(0, 1).to(query.dtype))
    return torch.cat(parts)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[inspect.BoundArguments]:
    """The calls of torch's variable-length attention, which works on CUDA alone; `plain_varlen` answers them."""
    made: list[inspect.BoundArguments] = []
    real = inspect.signature(varlen.varlen_attn)

    def stand_in(query: Tensor, *arguments: Any, enable_gqa: bool = False, scale: Any = None, **options: Any) -> Tensor:
        options |= {"enable_gqa": enable_gqa, "scale": scale}
        made.append(real.bind(query, *arguments, **options))
        return plain_varlen(query, *arguments, **options)

    stand_in.__signature__ = real  # type: ignore[attr-defined]
    monkeypatch.setattr(varlen, "varlen_attn", stand_in)
    return made


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let variable-length attention take fp32 too, so that a mistake cannot pass for rounding."""
    monkeypatch.setattr(attention, "_NARROW", (torch.float32,))


def in_packs(
    model: PeftModel, rows: list[TokenRow], kind: str, budget: int = 4096, scale: float = 1.0
) -> tuple[float, Gradients]:
    """The mean loss of all trained tokens and its gradients, as `kind` computes them, the loss scaled on the way."""
    fast = make_fast(model, kind)
    assert fast is not None
    count = sum(sum(row.trained[1:]) for row in rows)
    device = model.get_base_model().device
    total = 0.0
    for part in packs(rows, budget):
        loss = fast.loss(part.to(device)) / count
        (loss * scale).backward()
        total += loss.item()
    return total, {name: grad / scale for name, grad in gradients(model).items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize("budget", [4096, 80])
def test_that_what_other_devices_run_has_the_gradients_of_rows_one_by_one(
    tiny_models: dict[str, Path], calls: list[Any], exact: None, family: str, kind: str, budget: int
) -> None:
    rows = some_rows()
    other = one_by_one(tuned(tiny_models[family]), rows)
    assert_same(in_packs(tuned(tiny_models[family]), rows, kind, budget), other)
    # Gemma 2 caps its scores softly, which torch's attention cannot.
    assert len(calls) == (LAYERS * len(packs(rows, budget)) if kind == "cuda" and family != "gemma2" else 0)


def test_that_sliding_windows_count_the_token_itself(
    tiny_models: dict[str, Path], calls: list[inspect.BoundArguments], exact: None
) -> None:
    rows = some_rows((230, 100, 64))
    assert_same(in_packs(tuned(tiny_models["mistral"]), rows, "cuda"), one_by_one(tuned(tiny_models["mistral"]), rows))
    assert {call.arguments["window_size"] for call in calls} == {(63, 0)}


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_that_checkpointing_changes_nothing_there(
    tiny_models: dict[str, Path], calls: list[Any], exact: None, family: str
) -> None:
    rows = some_rows()
    model = tuned(tiny_models[family])
    model.get_base_model().gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    assert_same(in_packs(model, rows, "cuda"), one_by_one(tuned(tiny_models[family]), rows))
    assert len(calls) == (2 * LAYERS if family == "llama" else 0)


def test_that_packed_weights_give_what_peft_gives_there(
    tiny_models: dict[str, Path], calls: list[Any], exact: None
) -> None:
    rows = some_rows()
    assert_same(in_packs(packed(tiny_models["llama"]), rows, "cuda"), one_by_one(packed(tiny_models["llama"]), rows))
    assert calls


def packed(folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> PeftModel:
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    model = tuned(folder, quantization_config=nf4, device_map={"": device})
    _keep_packed(model, for_training=True)
    return model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dropout", [0.0, 1e-12])
def test_that_rounding_costs_no_more_than_in_the_reference(
    tiny_models: dict[str, Path], calls: list[Any], family: str, dtype: torch.dtype, dropout: float
) -> None:
    rows = some_rows()
    truth = in_packs(learning(tiny_models[family], torch.float32), rows, "mps")
    scale = 2.0**10 if dtype == torch.float16 else 1.0
    mine = in_packs(learning(tiny_models[family], dtype, dropout), rows, "cuda", scale=scale)
    other = padded(learning(tiny_models[family], dtype), rows, dtype, scale)
    assert bool(calls) == (family != "gemma2")
    assert mine[1].keys() == truth[1].keys()
    assert abs(mine[0] - truth[0]) <= abs(other[0] - truth[0]) + 2e-3 * truth[0]
    assert distance(mine[1], truth[1]) <= 1.6 * distance(other[1], truth[1])


def test_that_a_scaler_drives_the_optimiser(tiny_models: dict[str, Path], calls: list[Any]) -> None:
    model = learning(tiny_models["llama"], torch.float16)
    parameters = trainable(model)
    optimiser = FlatAdamW(parameters, 5e-3, 0.0)
    fast = make_fast(model, "cuda")
    assert fast is not None
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    part, losses = pack(some_rows()), []
    for _ in range(40):
        optimiser.zero_grad()
        loss = fast.loss(part) / part.trained
        losses.append(loss.item())
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        optimiser.clip(1.0)
        scaler.step(optimiser)
        scaler.update()
    assert scaler.get_scale() < 2.0**30
    assert losses[0] == losses[1]  # the overflow changed nothing
    assert losses[-1] < losses[0] - 0.2
    assert all(parameter.isfinite().all() for parameter in parameters)


def learning(folder: Path, dtype: torch.dtype, dropout: float = 0.0, device: str = "cpu") -> PeftModel:
    """A model as the engine loads it, its adapter as if it had learned already."""
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").to(device)
    base.requires_grad_(False)
    model = attach(base, MethodSection(rank=4, dropout=dropout), 8.0, False, 0)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trainable(model):
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.1)
    return model.train()


def padded(model: PeftModel, rows: list[TokenRow], dtype: torch.dtype, scale: float = 1.0) -> tuple[float, Gradients]:
    """The same by the reference engine: padded rows, autocast."""
    device = model.get_base_model().device
    count = sum(sum(row.trained[1:]) for row in rows)
    total = 0.0
    for batch in micro_batches(rows, 2, 0):
        with torch.autocast(device.type, dtype=dtype):
            loss = batch_loss(model, batch.to(device)) / count
        (loss * scale).backward()
        total += loss.item()
    return total, {name: grad / scale for name, grad in gradients(model).items()}


def distance(mine: Gradients, truth: Gradients) -> float:
    """|mine - truth| / |truth| over all gradients together."""
    apart = sum(float((mine[name].cpu() - grad.cpu()).square().sum()) for name, grad in truth.items())
    return float((apart / sum(float(grad.square().sum()) for grad in truth.values())) ** 0.5)


def test_that_an_older_torch_does_without(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, exact: None
) -> None:

    def older(query: Tensor, key: Tensor, value: Tensor, *lengths: Any, is_causal: bool = False) -> Tensor:
        raise AssertionError

    monkeypatch.setattr(varlen, "varlen_attn", older)
    rows = some_rows()
    assert_same(in_packs(tuned(tiny_models["llama"]), rows, "cuda"), one_by_one(tuned(tiny_models["llama"]), rows))


@pytest.mark.parametrize("width", [256, 36])
def test_that_heads_it_cannot_take_are_worked_on_in_segments(calls: list[Any], width: int) -> None:
    rows = some_rows((9, 20))
    part = pack(rows)
    q, k, v = (torch.randn(1, heads, 64, width, dtype=torch.bfloat16) for heads in (4, 2, 2))
    result, _ = attention.attend(nn.Identity(), q, k, v, None, segments=part, varlen=True)
    assert not calls
    plain = plain_varlen(
        *(tensor[0].transpose(0, 1) for tensor in (q, k, v)), part.starts, part.starts, part.longest, part.longest,
        window_size=(-1, 0), enable_gqa=True,
    )  # fmt: skip
    torch.testing.assert_close(result[0], plain, rtol=2e-2, atol=2e-2)


class FakeLiger:
    """A stand-in for the package: it notes what is asked for and changes what the real one changes of a LLaMA."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.forwards = 0
        self.broken = False

    def module(self) -> ModuleType:
        found = ModuleType("liger_kernel.transformers")
        found.LigerRMSNorm = lambda width: nn.RMSNorm(width)  # type: ignore[attr-defined]
        found._apply_liger_kernel_to_instance = self.apply  # type: ignore[attr-defined]
        return found

    def apply(self, model: Any, **options: Any) -> None:
        if self.broken:
            raise TypeError("unknown model")
        self.options = options
        modeling_llama.LlamaRMSNorm = nn.RMSNorm  # type: ignore[misc, assignment]
        modeling_llama.apply_rotary_pos_emb = self.turned
        for layer in model.model.layers:
            layer.mlp.forward = self.feed(layer.mlp)
            layer.mlp._get_name = lambda: "LigerSwiGLUMLP"

    def feed(self, mlp: Any) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            self.forwards += 1
            return mlp.down_proj(nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x))

        return forward

    def turned(self, *_: Any) -> Any:
        raise AssertionError("Liger's rotary positions, on a processor")


@pytest.fixture
def fake_liger(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLiger]:
    fake = FakeLiger()
    kept = modeling_llama.LlamaRMSNorm, modeling_llama.apply_rotary_pos_emb
    monkeypatch.setitem(sys.modules, "liger_kernel", ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", fake.module())
    monkeypatch.setattr(liger, "find_spec", lambda name: SimpleNamespace(name=name))
    yield fake
    modeling_llama.LlamaRMSNorm, modeling_llama.apply_rotary_pos_emb = kept  # type: ignore[misc, assignment]


def test_that_liger_is_asked_for_on_cuda_alone(
    fake_liger: FakeLiger, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def patch(base: nn.Module, device: torch.device) -> None:
        asked.append(device.type)
        base._get_name = lambda: "LigerModel"  # type: ignore[method-assign]

    monkeypatch.setattr(liger, "_patch", patch)
    for kind in ("cpu", "cuda", "mps"):
        make_fast(tuned(tiny_llama), kind)  # what another device would run, yet it runs here
    assert not asked
    assert not liger.apply(Elsewhere("mps"))
    assert not liger.apply(Elsewhere("meta"))
    assert not asked
    assert liger.apply(Elsewhere("cuda"))
    assert asked == ["cuda"]
    monkeypatch.setattr(liger, "find_spec", lambda _: None)
    assert not liger.apply(Elsewhere("cuda"))
    assert asked == ["cuda"]


def test_that_families_unknown_to_liger_are_told_apart(monkeypatch: pytest.MonkeyPatch, fake_liger: FakeLiger) -> None:
    monkeypatch.setattr(liger, "_patch", lambda *_: None)
    assert not liger.apply(Elsewhere("cuda"))


def test_that_loss_and_head_stay_ours(fake_liger: FakeLiger, tiny_llama: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    forward = base.forward
    liger._patch(base, torch.device("cpu"))
    assert base.forward == forward
    assert fake_liger.options == {
        "rms_norm": True, "swiglu": True, "geglu": True, "rope": True, "cross_entropy": False,
        "fused_linear_cross_entropy": False,
    }  # fmt: skip


def test_that_other_models_of_the_process_keep_transformers_code(fake_liger: FakeLiger, tiny_llama: Path) -> None:
    norm = modeling_llama.LlamaRMSNorm
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama)
    ids = torch.arange(3, 40)[None]
    before = plain(input_ids=ids).logits
    liger._patch(AutoModelForCausalLM.from_pretrained(tiny_llama), torch.device("cpu"))
    assert modeling_llama.LlamaRMSNorm is norm
    assert modeling_llama.apply_rotary_pos_emb.__module__ == liger.__name__  # Liger's, for tensors on CUDA
    torch.testing.assert_close(plain(input_ids=ids).logits, before)


def test_that_layers_stay_lean_under_it(
    fake_liger: FakeLiger, tiny_llama: Path, calls: list[Any], exact: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liger, "apply", lambda base: liger._patch(base, torch.device("cpu")))
    rows = some_rows()
    model = tuned(tiny_llama)
    mine = in_packs(model, rows, "cuda")
    assert fake_liger.forwards == LAYERS
    assert_same(mine, one_by_one(tuned(tiny_llama), rows))


def test_that_a_failure_is_logged_and_changes_nothing(
    fake_liger: FakeLiger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(base: nn.Module, device: torch.device) -> None:
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(liger, "_patch", fail)
    with caplog.at_level(logging.WARNING):
        assert not liger.apply(Elsewhere("cuda"))
    assert "no C compiler" in caplog.text


def test_that_half_a_change_is_undone_in_the_module(fake_liger: FakeLiger, tiny_llama: Path) -> None:
    norm = modeling_llama.LlamaRMSNorm
    fake_liger.broken = True
    with pytest.raises(TypeError):
        liger._patch(AutoModelForCausalLM.from_pretrained(tiny_llama), torch.device("cpu"))
    assert modeling_llama.LlamaRMSNorm is norm


class Elsewhere(nn.Module):
    """A model that says it is on another device."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        assert recurse
        yield SimpleNamespace(device=torch.device(self.kind))


@pytest.mark.parametrize("window", [0, 16])
@on_gpu
def test_that_torch_attends_as_it_documents_on_a_gpu(window: int) -> None:
    torch.manual_seed(0)
    part = pack(some_rows()).to(torch.device("cuda"))
    count = part.input_ids.shape[1]
    tensors = [torch.randn(count, heads, 64, device="cuda", dtype=torch.bfloat16) for heads in (4, 2, 2)]
    mine, other = ([tensor.clone().requires_grad_() for tensor in tensors] for _ in range(2))
    out = attention._flash(*mine, part, 0.2, window)
    reach = (window - 1, 0) if window else (-1, 0)
    plain = plain_varlen(
        *other, part.starts, part.starts, part.longest, part.longest, scale=0.2, window_size=reach, enable_gqa=True
    )
    torch.testing.assert_close(out, plain, rtol=2e-2, atol=2e-2)
    grad = torch.randn_like(out)
    out.backward(grad)
    plain.backward(grad)
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("family", FAMILIES)
@on_gpu
def test_that_rounding_costs_no_more_on_a_gpu(tiny_models: dict[str, Path], family: str) -> None:
    rows = some_rows()
    folder = tiny_models[family]
    truth = in_packs(learning(folder, torch.float32), rows, "mps")
    mine = in_packs(learning(folder, torch.bfloat16, device="cuda"), rows, "cuda")
    other = padded(learning(folder, torch.bfloat16, device="cuda"), rows, torch.bfloat16)
    assert abs(mine[0] - truth[0]) <= abs(other[0] - truth[0]) + 2e-3 * truth[0]
    assert distance(mine[1], truth[1]) <= 1.6 * distance(other[1], truth[1])


@on_gpu
def test_that_packed_weights_are_the_same_on_a_gpu(tiny_models: dict[str, Path]) -> None:
    rows = some_rows()
    folder = tiny_models["llama"]
    truth = in_packs(packed(folder), rows, "mps")
    mine = in_packs(packed(folder, torch.bfloat16, "cuda"), rows, "cuda")
    assert mine[0] == pytest.approx(truth[0], rel=5e-3)
    assert distance(mine[1], truth[1]) <= 0.05


@on_gpu
def test_that_a_step_needs_less_memory_than_the_reference_on_a_gpu(tmp_path: Path) -> None:
    """As many tokens at once, of a model large enough that the allocator's rounding does not count."""
    sizes = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8}
    config = LlamaConfig(**sizes, num_key_value_heads=4, vocab_size=8000)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path)
    rows = some_rows((512, 500, 480, 470))
    peaks = {}
    for name in ("fast", "reference"):
        model = learning(tmp_path, torch.bfloat16, device="cuda")
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        if name == "fast":
            in_packs(model, rows, "cuda", budget=1024)
        else:
            padded(model, rows, torch.bfloat16)
        peaks[name] = torch.cuda.max_memory_allocated() - before
        del model
    print(f"Peak of a step on {torch.cuda.get_device_name()}:", {name: f"{peak:,} B" for name, peak in peaks.items()})
    assert peaks["fast"] < peaks["reference"]
