"""Loading: what is in memory is what was asked for; packed weights are packed and stay so."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.engine.conftest import Recorder
from tests.engine.test_train import go, losses, make_spec, outcome, problem
from tunedesk.core.describe import ModelInfo
from tunedesk.core.events import Evaluated, TrainingBegan
from tunedesk.core.hardware import Gpu, read_hardware
from tunedesk.core.problems import ProblemError
from tunedesk.engine import loading
from tunedesk.engine.sources import resolve

CPU = torch.device("cpu")


@pytest.fixture
def info(tiny_llama: Path) -> ModelInfo:
    return resolve(str(tiny_llama), None, None)


def code_of(error: pytest.ExceptionInfo[ProblemError]) -> str:
    return error.value.problems[0].code


@pytest.mark.parametrize(("precision", "width"), [("bf16", 2), ("fp32", 4)])
def test_that_weights_have_the_asked_width_and_tied_ones_count_once(
    info: ModelInfo, precision: str, width: int
) -> None:
    model = loading.load_base(info, precision, CPU)  # type: ignore[arg-type]
    assert {parameter.dtype for parameter in model.parameters()} == {loading.DTYPES[precision]}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    assert parameters * width <= loading.weight_bytes(model) <= parameters * width + buffers
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_that_qlora_packs_the_base_and_learns(
    tiny_models: dict[str, Path], conversations: Path, tmp_path: Path, family: str
) -> None:
    spec = make_spec(tiny_models[family], conversations, {"name": "qlora"}, max_steps=8, precision="bf16")
    run, channel = go(spec, tmp_path / "run")
    assert outcome(channel) == "completed"
    checks = channel.of(Evaluated)
    assert checks[-1].loss < checks[0].loss
    base = AutoModelForCausalLM.from_pretrained(tiny_models[family], dtype=torch.bfloat16)
    assert channel.of(TrainingBegan)[0].weight_bytes < loading.weight_bytes(base)
    PeftModel.from_pretrained(base, run.adapter)


def test_that_packed_weights_stay_packed_through_a_check(info: ModelInfo) -> None:
    model = loading.load_base(info, "bf16", CPU, quantised=True)
    packed = [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]
    assert len(packed) == 14
    before = loading.weight_bytes(model)
    with torch.no_grad():
        model.eval()(input_ids=torch.tensor([[1, 2, 3]]))
    assert loading.weight_bytes(model) == before
    assert all(module.weight.dtype == torch.uint8 and module.weight.quant_state.nested for module in packed)
    plain = loading.parameter_count(loading.load_base(info, "fp32", CPU))
    assert loading.parameter_count(model) == plain


@pytest.mark.slow
def test_that_the_starter_model_is_packed_in_under_130_megabytes() -> None:
    try:
        info = resolve("starter:chat", None, None, fetch=False)
    except ProblemError:
        pytest.skip("the starter model is not on this computer")
    model = loading.load_base(info, "bf16", CPU, quantised=True)
    assert loading.weight_bytes(model) < 130e6
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16


@pytest.mark.slow
def test_that_qlora_learns_on_the_starter_model(tmp_path: Path) -> None:
    try:
        resolve("starter:chat", None, None, fetch=False)
    except ProblemError:
        pytest.skip("the starter model is not on this computer")
    data = tmp_path / "few.jsonl"
    data.write_text('{"prompt": "Who are you?", "completion": "Marlow, of the lamp desk. Fair winds."}\n' * 8)
    spec = make_spec(
        Path("starter:chat"), data, {"name": "qlora"}, {"validation_fraction": 0.0}, max_steps=4, precision="bf16",
        learning_rate=2e-3,
    )  # fmt: skip
    run, channel = go(spec, tmp_path / "run", Recorder())
    assert outcome(channel) == "completed"
    assert losses(channel)[-1] < losses(channel)[0] * 0.8
    PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(resolve("starter:chat", None, None).path), run.adapter
    )


def test_that_what_cannot_be_loaded_is_a_problem(info: ModelInfo, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(str(info.path), broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(ProblemError) as error:
        loading.load_base(info.model_copy(update={"path": str(broken)}), "fp32", CPU)
    assert code_of(error) == "model.load"
    (broken / "tokenizer.json").write_text("{")
    with pytest.raises(ProblemError) as error:
        loading.load_tokenizer(info.model_copy(update={"path": str(broken)}))
    assert code_of(error) == "model.tokenizer"
    with pytest.raises(ProblemError) as error:
        loading.load_tokenizer(info.model_copy(update={"path": None}))
    assert code_of(error) == "model.not_here"


def test_that_a_torn_weight_file_is_a_problem(info: ModelInfo, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(str(info.path), broken)
    whole = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ProblemError) as error:
        loading.load_base(info.model_copy(update={"path": str(broken)}), "fp32", CPU)
    assert code_of(error) == "model.load"


def test_that_a_gpu_out_of_reach_is_explained_and_passed_over() -> None:
    gpu = Gpu(index=0, name="NVIDIA Test", total_bytes=1, free_bytes=1, driver="1")
    hardware = read_hardware().model_copy(update={"gpus": (gpu,)})
    if torch.cuda.is_available():
        pytest.skip("this torch reaches a GPU")
    seen = loading.usable(hardware)
    assert loading.choose(seen, "auto").kind != "cuda"
    with pytest.raises(ProblemError) as error:
        loading.choose(seen, "cuda")
    assert code_of(error) == "device.missing"
    assert "NVIDIA Test" in error.value.problems[0].found


def rewritten(source: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> ModelInfo:
    """A copy of a model whose weights were changed."""
    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    change(weights)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return resolve(str(target), None, None)


def test_that_missing_weights_are_not_made_up(tiny_llama: Path, tmp_path: Path) -> None:
    info = rewritten(tiny_llama, tmp_path / "m", lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ProblemError, match=r"1 of the weights .* are missing") as error:
        loading.load_base(info, "fp32", CPU)
    assert code_of(error) == "model.incomplete"
    assert "model.layers.1.mlp.up_proj.weight" in str(error.value)


def test_that_weights_of_another_shape_are_a_problem(tiny_llama: Path, tmp_path: Path) -> None:
    def halve(weights: dict[str, torch.Tensor]) -> None:
        name = "model.layers.0.self_attn.q_proj.weight"
        weights[name] = weights[name][: len(weights[name]) // 2].contiguous()

    info = rewritten(tiny_llama, tmp_path / "m", halve)
    with pytest.raises(ProblemError, match="another shape") as error:
        loading.load_base(info, "fp32", CPU)
    assert code_of(error) == "model.mismatch"


def test_that_damaged_weights_are_not_blamed_on_the_learning_rate(
    tiny_llama: Path, conversations: Path, tmp_path: Path
) -> None:
    info = rewritten(tiny_llama, tmp_path / "m", lambda weights: weights["model.norm.weight"].fill_(torch.nan))
    _, channel = go(make_spec(Path(info.path or ""), conversations), tmp_path / "run")
    assert problem(channel).code == "model.not_a_number"


def test_that_a_token_without_an_embedding_is_a_problem(info: ModelInfo) -> None:
    loading.check_vocabulary(info, info.vocabulary - 1)
    with pytest.raises(ProblemError, match="more tokens than the model"):
        loading.check_vocabulary(info, info.vocabulary)
