"""The fast path against plain peft and transformers: one packed step, row by row, in fp32."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from tests.engine.conftest import VOCABULARY
from tunedesk.engine.fast import native
from tunedesk.engine.fast.model import FastModel, make_fast
from tunedesk.engine.fast.packing import groups, pack, packs
from tunedesk.engine.loading import _keep_packed
from tunedesk.engine.render import TokenRow

FAMILIES = ["llama", "qwen2", "mistral", "gemma2", "gpt2"]
FUSED = {"llama", "qwen2", "mistral"}


@pytest.fixture(params=["native", "torch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of computing what lies between matrix products."""
    if request.param == "torch":
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("no C compiler here")
    return str(request.param)


def some_rows(lengths: tuple[int, ...] = (9, 40, 70, 33, 3), seed: int = 5) -> list[TokenRow]:
    draw = torch.Generator().manual_seed(seed)
    rows = []
    for number, length in enumerate(lengths):
        ids = torch.randint(3, VOCABULARY, (length,), generator=draw).tolist()
        trained = torch.rand(length, generator=draw) < 0.6
        trained[-1] = True
        rows.append(TokenRow(number, array("i", ids), bytes(trained.int().tolist())))
    return rows


def tuned(folder: Path, targets: object = "all-linear", **options: object) -> PeftModel:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **options)
    conv = any(isinstance(module, Conv1D) for module in model.modules())
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=targets, init_lora_weights=False, fan_in_fan_out=conv)
    return get_peft_model(model, config)


def one_by_one(model: PeftModel, rows: list[TokenRow]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the mean over all trained tokens, each row alone, transformers' own loss."""
    count = sum(sum(row.trained[1:]) for row in rows)
    total = 0.0
    for row in rows:
        labels = torch.tensor([[token if mark else -100 for token, mark in zip(row.ids, row.trained, strict=True)]])
        part = model(input_ids=torch.tensor([list(row.ids)]), labels=labels).loss * sum(row.trained[1:]) / count
        part.backward()
        total += part.item()
    return total, gradients(model)


def in_packs(model: PeftModel, rows: list[TokenRow], budget: int = 4096) -> tuple[float, dict[str, torch.Tensor]]:
    fast = make_fast(model)
    assert fast is not None
    count = sum(sum(row.trained[1:]) for row in rows)
    total = 0.0
    for part in packs(rows, budget):
        loss = fast.loss(part) / count
        loss.backward()
        total += loss.item()
    return total, gradients(model)


def gradients(model: PeftModel) -> dict[str, torch.Tensor]:
    found = {name: item.grad.clone() for name, item in model.named_parameters() if item.grad is not None}
    model.zero_grad()
    return found


def assert_same(mine: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert mine[0] == pytest.approx(other[0], rel=1e-5)
    assert mine[1].keys() == other[1].keys()
    for name, grad in mine[1].items():
        assert (grad - other[1][name]).norm() <= 1e-5 * other[1][name].norm() + 1e-9, name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [4096, 80])
def test_that_a_packed_step_has_the_gradients_of_its_rows_one_by_one(
    tiny_models: dict[str, Path], kernels: str, family: str, budget: int
) -> None:
    rows = some_rows()
    assert_same(in_packs(tuned(tiny_models[family]), rows, budget), one_by_one(tuned(tiny_models[family]), rows))


@pytest.mark.parametrize("family", FAMILIES)
def test_that_known_families_run_fused(tiny_models: dict[str, Path], family: str) -> None:
    fast = make_fast(tuned(tiny_models[family]))
    assert isinstance(fast, FastModel)
    assert bool(fast._blocks) == (family in FUSED)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["down_proj"], r".*layers\.1\..*up_proj"])
def test_that_any_choice_of_layers_may_learn(tiny_llama: Path, kernels: str, targets: object) -> None:
    rows = some_rows()
    assert_same(in_packs(tuned(tiny_llama, targets), rows), one_by_one(tuned(tiny_llama, targets), rows))


def test_that_long_segments_are_worked_on_in_blocks(
    tiny_models: dict[str, Path], kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunedesk.engine.fast.attention._BLOCK", 64)
    rows = some_rows((230, 100, 64))
    for family in ("llama", "mistral"):
        assert_same(in_packs(tuned(tiny_models[family]), rows), one_by_one(tuned(tiny_models[family]), rows))


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_that_checkpointing_changes_nothing(tiny_models: dict[str, Path], kernels: str, family: str) -> None:
    model = tuned(tiny_models[family])
    model.get_base_model().gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    rows = some_rows()
    assert_same(in_packs(model, rows), one_by_one(tuned(tiny_models[family]), rows))


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_that_packed_weights_give_what_peft_gives(tiny_models: dict[str, Path], kernels: str, family: str) -> None:
    def packed() -> PeftModel:
        nf4 = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )  # fmt: skip
        model = tuned(tiny_models[family], quantization_config=nf4, device_map={"": "cpu"})
        _keep_packed(model, for_training=True)
        return model

    rows = some_rows()
    assert_same(in_packs(packed(), rows), one_by_one(packed(), rows))


def test_that_the_adapter_can_be_switched_off_and_saved(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    for family in ("llama", "gpt2"):
        model = tuned(tiny_models[family])
        ids = torch.arange(3, 30)[None]
        with torch.no_grad():
            before, plain = model(input_ids=ids).logits, model.get_base_model()
            with model.disable_adapter():
                base = model(input_ids=ids).logits
        make_fast(model)
        plain.set_attn_implementation("eager")
        with torch.no_grad():
            torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=1e-4, atol=1e-4)
            with model.disable_adapter():
                torch.testing.assert_close(model(input_ids=ids).logits, base, rtol=1e-4, atol=1e-4)
        model.save_pretrained(tmp_path / family)
        again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_models[family]), tmp_path / family)
        with torch.no_grad():
            torch.testing.assert_close(again(input_ids=ids).logits, before, rtol=1e-4, atol=1e-4)


def test_that_packs_hold_every_row_once_in_few_even_parts() -> None:
    rows = some_rows((100, 200, 50, 70, 120, 400, 30))
    parts = groups(rows, 512)
    assert sorted(row.number for part in parts for row in part) == list(range(7))
    sizes = [sum(len(row.ids) for row in part) for part in parts]
    assert len(sizes) == 2
    assert max(sizes) <= 512
    whole = pack(rows)
    assert whole.tokens == 970
    assert whole.input_ids.shape[1] % 64 == 0
    assert whole.trained == sum(sum(row.trained[1:]) for row in rows)
    assert [len(row.ids) for part in groups(rows, 10) for row in part] == [400, 200, 120, 100, 70, 50, 30]
