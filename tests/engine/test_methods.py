"""Every method on every kind of model: it learns, changes what it should, and is the same after saving and loading."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoraConfig,
    PeftConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import gelu, linear
from transformers import (
    AlbertConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BloomConfig,
    CTRLConfig,
    DebertaV2Config,
    ElectraConfig,
    FalconConfig,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    MPNetConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from tests.engine.models import tiny_encoder
from tunedesk.core.describe import ModelInfo
from tunedesk.core.plan import Resolved
from tunedesk.core.problems import ProblemError
from tunedesk.core.runs import RunFolder
from tunedesk.core.spec import MethodSection, RunSpec
from tunedesk.engine import checkpoints, loading
from tunedesk.engine.batches import batch_loss
from tunedesk.engine.checkpoints import Progress
from tunedesk.engine.inference import attach_adapter
from tunedesk.engine.label_head import LabelHead
from tunedesk.engine.label_rows import LabelRow
from tunedesk.engine.learner import Learner
from tunedesk.engine.methods import (
    Setting,
    attach,
    attach_saved,
    compacter,
    houlsby,
    merge,
    put_saved,
    saved_weights,
    whole,
)
from tunedesk.engine.methods.through_peft import PeftTuned
from tunedesk.engine.render import TokenRow
from tunedesk.engine.sources import resolve
from tunedesk.engine.train import _load, room_for_text

CPU = torch.device("cpu")
LABELS = ("down", "flat", "up")
DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gpt2")
ENCODERS = ("bert", "distilbert", "roberta")
WIDTH, INNER, LAYERS, HEADS, KEYS, VOCABULARY = 32, 64, 2, 4, 2, 600

VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {"name": "lora", "rank": 4},
    "rslora": {"name": "lora", "rank": 4, "rslora": True},
    "dora": {"name": "lora", "rank": 4, "dora": True},
    "pissa": {"name": "lora", "rank": 4, "init": "pissa"},
    "lora_plus": {"name": "lora", "rank": 4, "lora_plus_ratio": 4.0},
    "qlora": {"name": "qlora", "rank": 4},
    "adalora": {"name": "adalora", "rank": 4},
    "ia3": {"name": "ia3"},
    "prefix": {"name": "prefix_tuning", "virtual_tokens": 6},
    "prefix_projected": {"name": "prefix_tuning", "virtual_tokens": 6, "prefix_projection": True},
    "prompt": {"name": "prompt_tuning", "virtual_tokens": 6},
    "prompt_text": {
        "name": "prompt_tuning", "virtual_tokens": 6, "prompt_init": "text", "prompt_text": "Good day, how may I help?",
    },
    "prompt_vocabulary": {"name": "prompt_tuning", "virtual_tokens": 6, "prompt_init": "vocabulary"},
    "p_mlp": {"name": "p_tuning", "virtual_tokens": 6},
    "p_lstm": {"name": "p_tuning", "virtual_tokens": 6, "encoder": "lstm", "encoder_hidden_size": 16},
    "houlsby": {"name": "houlsby", "bottleneck": 8},
    "compacter": {"name": "compacter", "bottleneck": 8},
    "bitfit": {"name": "bitfit"},
    "last_layer": {"name": "last_layer"},
    "full": {"name": "full"},
}  # fmt: skip

RATES = {"ia3": 3e-2, "prompt": 1e-1, "prompt_text": 1e-1, "prompt_vocabulary": 1e-1, "prefix": 1e-1, "bitfit": 2e-2,
         "p_mlp": 1e-2, "p_lstm": 2e-2, "full": 3e-3, "compacter": 2e-2, "adalora": 2e-2}  # fmt: skip


def rate_of(family: str, variant: str) -> float:
    """A rate at which a few steps teach a tiny model."""
    return RATES.get(variant, 1e-2) / (5 if family in ENCODERS and variant.startswith("pr") else 1)


SWITCHED = ("p_mlp", "p_lstm", "prefix_projected", "pissa", "adalora")
"""Saved in another form than trained in: the last bits may differ."""


def configs() -> dict[str, PretrainedConfig]:
    size = {
        "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KEYS, "max_position_embeddings": 128, "pad_token_id": 0,
        "bos_token_id": 0, "eos_token_id": 2,
    }  # fmt: skip
    return {
        "llama": LlamaConfig(**size, tie_word_embeddings=True),
        "mistral": MistralConfig(**size, head_dim=8, sliding_window=64),
        "qwen2": Qwen2Config(**size),
        "qwen3": Qwen3Config(**size, head_dim=16),
        "gemma": GemmaConfig(**size, head_dim=16),
        "gemma2": Gemma2Config(
            **size, head_dim=16, sliding_window=64, attn_logit_softcapping=5.0, query_pre_attn_scalar=16
        ),
        "ctrl": CTRLConfig(vocab_size=VOCABULARY, n_embd=WIDTH, dff=INNER, n_layer=1, n_head=HEADS),
        "gpt2": GPT2Config(
            vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=128, bos_token_id=0,
            eos_token_id=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        ),
    }  # fmt: skip


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Callable[[str], ModelInfo]:
    """Family to a tiny random model of it."""
    home = tmp_path_factory.mktemp("zoo")

    @cache
    def model(family: str) -> ModelInfo:
        folder = home / family
        if family in ENCODERS:
            tiny_encoder(folder, family)
        else:
            torch.manual_seed(1)
            made = AutoModelForCausalLM.from_config(configs()[family])
            with torch.no_grad():
                for name, parameter in made.named_parameters():
                    if name.endswith("bias"):
                        parameter.normal_(0, 0.02)
                    elif parameter.dim() > 1:
                        parameter.normal_(0, 0.3 if len(parameter) == VOCABULARY else 0.1)
            made.save_pretrained(folder)
            PreTrainedTokenizerFast.from_pretrained(tokenizer_folder).save_pretrained(folder)
        return resolve(str(folder), None, None)

    return model


def learner_for(
    info: ModelInfo, section: dict[str, Any], rate: float = 1e-2, steps: int = 15, precision: str = "fp32",
    checkpointing: bool = False, engine: str = "fast", seed: int = 3,
) -> Learner:  # fmt: skip
    """What training makes of `section`, through the engine's own code."""
    encoder = info.kind == "encoder"
    training = {"learning_rate": rate, "seed": seed, "engine": engine, "precision": precision}
    task = {"kind": "classification" if encoder else "completion"}
    spec = RunSpec.model_validate({"task": task, "method": section, "training": training})
    return learner_from(spec, info, rate, LabelHead(labels=LABELS) if encoder else None, (), steps, checkpointing)


def learner_from(
    spec: RunSpec, info: ModelInfo, rate: float, head: LabelHead | None, rows: Sequence[TokenRow], steps: int = 15,
    checkpointing: bool = False,
) -> Learner:  # fmt: skip
    """What training makes of `spec`; an `auto` precision is fp32."""
    asked = spec.training.precision
    resolved = Resolved(
        learning_rate=rate, alpha=2.0 * spec.method.rank, micro_batch_size=4, gradient_accumulation_steps=1,
        max_length=48, gradient_checkpointing=checkpointing, precision="fp32" if asked == "auto" else asked,
        device="cpu", total_steps=steps, steps_per_epoch=steps, eval_steps=steps, save_steps=steps,
    )  # fmt: skip
    return _load(spec, info, resolved, CPU, 0, head, rows)


def rows_for(info: ModelInfo) -> list[TokenRow]:
    """Eight rows of several lengths: sequences that count by a step, or labels that one token decides."""
    if info.kind == "encoder":
        return [
            LabelRow(n, array("i", [2, *[40 + (7 * n + k) % 60 for k in range(n % 5)], 30 + n % 3, 3]), b"\1",
                     n % 3, bytes(3 + n % 5), 1)
            for n in range(8)
        ]  # fmt: skip
    lengths = [9, 14, 11, 17, 9, 14, 11, 17]
    return [
        TokenRow(n, array("i", [20 + (n % 4 + k) % 7 for k in range(size)]), b"\0\0" + b"\1" * (size - 2))
        for n, size in enumerate(lengths)
    ]


def step_once(learner: Learner, rows: list[TokenRow], step: int, rate: float) -> float:
    """One update as the training loop makes it; gives the mean loss before it."""
    batches = learner.objective.batches(rows)
    count = sum(batch.trained for batch in batches)
    total = 0.0
    learner.model.train()
    learner.optimiser.zero_grad(set_to_none=True)
    for batch in batches:
        loss = learner.objective.loss(batch)
        total += loss.item()
        torch.autograd.backward(loss / count)
    if (penalty := learner.tuned.penalty()) is not None:
        torch.autograd.backward(penalty)
    learner.clip(1.0)
    for group in learner.optimiser.param_groups:
        group["lr"] = rate * group.get("ratio", 1.0)
    learner.optimiser.step()
    learner.tuned.after_step(step)
    return total / count


def train(learner: Learner, rows: list[TokenRow], rate: float, steps: range = range(1, 16)) -> list[float]:
    return [step_once(learner, rows, step, rate) for step in steps]


def by_name(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@dataclass
class Trained:
    """A learner after 15 steps, and its parameters before."""

    learner: Learner
    before: dict[str, Tensor]
    losses: list[float]
    folder: Path


@pytest.fixture(scope="session")
def trained(zoo: Callable[[str], ModelInfo], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Trained]:
    """Family and variant to what 15 steps made of them, saved."""

    @cache
    def make(family: str, variant: str) -> Trained:
        info, rate = zoo(family), rate_of(family, variant)
        lora = VARIANTS[variant]["name"] in ("lora", "qlora")  # whose fast path rearranges the model for packs alone
        learner = learner_for(info, VARIANTS[variant], rate, engine="reference" if lora else "fast")
        before = by_name(learner.model)
        losses = train(learner, rows_for(info), rate)
        folder = tmp_path_factory.mktemp("adapter")
        save(learner, folder)
        return Trained(learner, before, losses, folder)

    return make


def save(learner: Learner, folder: Path) -> None:
    for name, data in checkpoints.adapter_files(learner.tuned).items():
        (folder / name).write_bytes(data)


def fresh(info: ModelInfo, section: dict[str, Any], precision: str = "fp32") -> Any:
    packed = MethodSection.model_validate(section).packed
    head = LabelHead(labels=LABELS) if info.kind == "encoder" else None
    # bitsandbytes rounds otherwise when it only answers
    return loading.load_base(info, precision, CPU, packed, for_training=packed, head=head)  # type: ignore[arg-type]


@torch.no_grad()
def scores(model: Any) -> Tensor:
    """What `model` makes of two texts, the second padded."""
    ids = torch.tensor([[2, 31, 45, 52, 23, 3], [2, 33, 21, 3, 0, 0]])
    out: Tensor = model(input_ids=ids, attention_mask=(ids > 0).long()).logits
    return out if out.dim() == 2 else out[:, -6:][ids > 0]


def refused(family: str, variant: str) -> bool:
    section = VARIANTS[variant]
    if section["name"] == "bitfit":
        return family in ("llama", "mistral", "qwen3", "gemma", "gemma2")
    return section["name"] == "prefix_tuning" and family == "distilbert"


BROAD = {section["name"]: variant for variant, section in reversed(VARIANTS.items())}
"""The first variant of each method. The others are tried on three models; so is LoRA, which whole runs try on all."""

CELLS = [
    (family, variant)
    for family in (*DECODERS, *ENCODERS)
    for variant in VARIANTS
    if variant in set(BROAD.values()) - {"lora", "qlora"} or family in ("llama", "gpt2", "bert")
]


@pytest.mark.parametrize(("family", "variant"), [cell for cell in CELLS if not refused(*cell)])
def test_that_a_method_learns_and_is_the_same_after_loading(
    trained: Callable[[str, str], Trained], zoo: Callable[[str], ModelInfo], family: str, variant: str
) -> None:
    done, info = trained(family, variant), zoo(family)
    assert all(math.isfinite(loss) for loss in done.losses)
    assert sum(done.losses[-3:]) / 3 < 0.97 * done.losses[0], done.losses

    learning = {name for name, item in done.learner.model.named_parameters() if item.requires_grad}
    after = by_name(done.learner.model)
    wrong = [name for name in after if torch.equal(after[name], done.before[name]) == (name in learning)]
    assert not [name for name in wrong if "lora_E" not in name or after[name].any()]  # AdaLoRA may give a layer up

    model = done.learner.model.eval()
    again = attach_saved(fresh(info, VARIANTS[variant]), done.folder)
    if variant in SWITCHED:
        torch.testing.assert_close(scores(again), scores(model), rtol=1e-4, atol=1e-4)
    else:
        assert torch.equal(scores(again), scores(model))
    if info.kind == "decoder":
        with again.disable_adapter():
            untouched = scores(again)
        assert torch.equal(untouched, scores(fresh(info, VARIANTS[variant])))
        assert not torch.allclose(untouched, scores(again))


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("variant", ["ia3", "prefix", "prompt", "p_mlp", "houlsby", "compacter", "last_layer"])
def test_that_answers_are_the_same_before_and_after_saving_and_are_the_likeliest_tokens(
    trained: Callable[[str, str], Trained], zoo: Callable[[str], ModelInfo], family: str, variant: str
) -> None:
    done = trained(family, variant)
    models = [done.learner.model.eval(), attach_saved(fresh(zoo(family), VARIANTS[variant]), done.folder)]
    start = torch.tensor([[22, 23, 24]])
    said = [
        model.generate(
            input_ids=start, attention_mask=torch.ones_like(start), max_new_tokens=6, min_new_tokens=6, do_sample=False,
            use_cache=True, pad_token_id=0, eos_token_id=VOCABULARY - 1,
        )
        for model in models
    ]  # fmt: skip
    assert torch.equal(said[0], said[1])
    ids = start
    with torch.no_grad():
        for _ in range(6):  # token by token, without a cache
            following = models[1](input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -1]
            following[:, VOCABULARY - 1] = -math.inf
            ids = torch.cat([ids, following.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(said[1], ids)


# What is trained, by number.


def count_of(variant: str, kind: str) -> int:
    """Trained parameters by the papers' formulas, of a model of `kind`: llama, gpt2 or bert."""
    section = VARIANTS[variant]
    h, f, n = (WIDTH, INNER, LAYERS) if kind == "llama" else (WIDTH, 4 * WIDTH, LAYERS)
    h, f = (64, 128) if kind == "bert" else (h, f)
    keys = h // HEADS * KEYS if kind == "llama" else h
    q, wide = (h, h), (h, f)
    linears = {
        "llama": [q, (h, keys), (h, keys), q, wide, wide, (f, h)],
        "gpt2": [(h, 3 * h), q, wide, (f, h)],
        "bert": [q, q, q, q, wide, (f, h)],
    }[kind]
    sites = linears * n + ([q] if kind == "bert" else [])  # the pooler
    head = len(LABELS) * (h + 1) if kind == "bert" else 0
    tokens, depth = section.get("virtual_tokens", 0), 2 * n * keys
    match section["name"]:
        case "lora" | "qlora":
            rank = section["rank"]
            directions = sum(b for _, b in sites) if section.get("dora") else 0
            return sum(rank * (a + b) for a, b in sites) + directions + head
        case "adalora":
            rank = 6  # 1.5 times as many at first
            return sum(rank * (a + b + 1) for a, b in sites) + head
        case "ia3":
            return n * ((3 * h if kind == "gpt2" else 2 * keys) + f) + head
        case "prefix_tuning" if section.get("prefix_projection"):
            return tokens * keys + (keys + 1) * keys + (keys + 1) * depth + head
        case "prefix_tuning":
            return tokens * depth + head
        case "prompt_tuning":
            return tokens * h + head
        case "p_tuning" if section.get("encoder") == "lstm":
            w = section["encoder_hidden_size"]
            first, second = (2 * 4 * w * (inner + w + 2) for inner in (h, 2 * w))
            return tokens * h + first + second + (2 * w + 1) * 2 * w + (2 * w + 1) * h + head
        case "p_tuning":
            return tokens * h + 3 * (h + 1) * h + head
        case "houlsby":
            m = section["bottleneck"]
            return 2 * n * (2 * h * m + m + h) + head
        case "compacter":
            m = section["bottleneck"]
            return 4 * n * (m + h) + 4**3 + 2 * n * (m + h) + head
        case "bitfit":
            outputs = n * sum(b for _, b in linears)
            return outputs + (n * 2 + 1) * h + (h + head if kind == "bert" else 0)
        case "last_layer":
            return head or VOCABULARY * h
        case _:
            raise ValueError(variant)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "full"])
def test_that_as_much_is_trained_as_the_papers_say(
    trained: Callable[[str, str], Trained], family: str, variant: str
) -> None:
    if refused(family, variant):
        pytest.skip("refused")
    learner = trained(family, variant).learner
    assert sum(item.numel() for item in learner.parameters) == count_of(variant, family)


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_that_full_trains_every_weight_in_fp32(
    trained: Callable[[str, str], Trained], zoo: Callable[[str], ModelInfo], family: str
) -> None:
    learner = trained(family, "full").learner
    assert sum(item.numel() for item in learner.parameters) == learner.base_parameters
    assert all(item.requires_grad for item in learner.model.parameters())


# The same as others make of it.


def matrix_of(shared: Tensor, s: Tensor, t: Tensor) -> Tensor:
    return sum(torch.kron(a, torch.outer(s[i], t[i])) for i, a in enumerate(shared))  # type: ignore[return-value]


def naive_adapter(weights: dict[str, Tensor], number: int, x: Tensor) -> Tensor:
    """One adapter written out from the paper's equations; `weights` have the names of the file."""
    mine = {name.removeprefix(f"adapters.{number}."): item for name, item in weights.items()}
    if "shared" in weights:
        down = matrix_of(weights["shared"], mine["down_s"], mine["down_t"])
        up = matrix_of(weights["shared"], mine["up_s"], mine["up_t"])
        down_bias, up_bias = mine["down_bias"], mine["up_bias"]
    else:
        names = ("down.weight", "down.bias", "up.weight", "up.bias")
        down, down_bias, up, up_bias = (mine[name] for name in names)
    inner = x @ down.T + down_bias
    inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    return x + inner @ up.T + up_bias


def naive_bert(base: Any, weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """A BERT classifier written out, with an adapter before each of a layer's two additions."""
    bert, p = base.bert, dict(base.named_parameters())
    x = bert.embeddings(input_ids=ids)
    for number in range(LAYERS):
        name = f"bert.encoder.layer.{number}"

        def through(part: str, x: Tensor, name: str = name) -> Tensor:
            return x @ p[f"{name}.{part}.weight"].T + p[f"{name}.{part}.bias"]

        def norm(part: str, x: Tensor, name: str = name) -> Tensor:
            x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-12).sqrt()
            return x * p[f"{name}.{part}.LayerNorm.weight"] + p[f"{name}.{part}.LayerNorm.bias"]

        q, k, v = (
            through(f"attention.self.{part}", x).unflatten(-1, (4, 16)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        seen = ((q @ k.transpose(-1, -2) / 4).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = norm("attention.output", naive_adapter(weights, 2 * number, through("attention.output.dense", seen)) + x)
        inner = through("intermediate.dense", x)
        inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        x = norm("output", naive_adapter(weights, 2 * number + 1, through("output.dense", inner)) + x)
    first = x[:, 0] @ p["bert.pooler.dense.weight"].T + p["bert.pooler.dense.bias"]
    return first.tanh() @ weights["classifier.weight"].T + weights["classifier.bias"]


@pytest.mark.parametrize("variant", ["houlsby", "compacter"])
def test_that_adapters_equal_their_equations_in_outputs_and_gradients(
    trained: Callable[[str, str], Trained], zoo: Callable[[str], ModelInfo], variant: str
) -> None:
    model = trained("bert", variant).learner.model.eval()
    weights = {name: item.clone().requires_grad_() for name, item in model.state().items()}
    ids = torch.tensor([[2, 31, 45, 52, 23, 3]])
    mine, naive = model(input_ids=ids).logits, naive_bert(fresh(zoo("bert"), VARIANTS[variant]), weights, ids)
    torch.testing.assert_close(mine, naive, rtol=1e-5, atol=1e-5)
    model.zero_grad()
    mine.square().sum().backward()
    naive.square().sum().backward()
    grads = {
        {"common": "shared"}.get(name, name.removeprefix("base_model.")): item.grad
        for name, item in model.named_parameters()
        if item.requires_grad
    }
    assert grads.keys() == weights.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, weights[name].grad, rtol=1e-4, atol=1e-5 * float(grad.abs().max() + 1))


def test_that_bitfit_takes_the_same_gradients_as_a_model_whose_biases_alone_are_free(
    zoo: Callable[[str], ModelInfo],
) -> None:
    learner = learner_for(zoo("gpt2"), VARIANTS["bitfit"])
    plain = AutoModelForCausalLM.from_pretrained(zoo("gpt2").path)
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(name.endswith(".bias"))
    ids = torch.tensor([[20, 21, 22, 23, 24]])
    for model in (learner.model, plain):
        model(input_ids=ids, labels=ids).loss.backward()
    mine = {name.removeprefix("base_model."): item.grad for name, item in learner.model.named_parameters()}
    for name, parameter in plain.named_parameters():
        assert (mine[name] is None) == (parameter.grad is None)
        if parameter.grad is not None:
            torch.testing.assert_close(mine[name], parameter.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("variant", ["houlsby", "compacter", "bitfit", "last_layer", "full"])
def test_that_a_fresh_method_of_our_own_changes_nothing(
    zoo: Callable[[str], ModelInfo], family: str, variant: str
) -> None:
    if refused(family, variant):
        pytest.skip("refused")
    learner = learner_for(zoo(family), VARIANTS[variant])
    torch.manual_seed(3)  # of a classifier's head
    assert torch.equal(scores(learner.model.eval()), scores(fresh(zoo(family), VARIANTS[variant]).eval()))


def plain_config(variant: str) -> PeftConfig:
    """What somebody who uses peft alone would write."""
    task = {"task_type": "CAUSAL_LM"}
    lora = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **task}
    tokens = {"num_virtual_tokens": 6, **task}
    return {
        "rslora": lambda: LoraConfig(**lora, use_rslora=True),
        "dora": lambda: LoraConfig(**lora, use_dora=True),
        "pissa": lambda: LoraConfig(**lora, init_lora_weights="pissa_niter_16"),
        "adalora": lambda: AdaLoraConfig(
            target_r=4, init_r=6, lora_alpha=8, tinit=1, tfinal=7, total_step=15, target_modules="all-linear", **task
        ),
        "ia3": lambda: IA3Config(
            target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], **task
        ),
        "prefix": lambda: PrefixTuningConfig(**tokens, init_weights="zero"),
        "prefix_projected": lambda: PrefixTuningConfig(**tokens, prefix_projection=True),
        "prompt": lambda: PromptTuningConfig(**tokens),
        "prompt_vocabulary": lambda: PromptTuningConfig(**tokens, prompt_tuning_init="SAMPLE_VOCAB"),
        "p_mlp": lambda: PromptEncoderConfig(**tokens, encoder_hidden_size=WIDTH),
        "p_lstm": lambda: PromptEncoderConfig(**tokens, encoder_reparameterization_type="LSTM", encoder_hidden_size=16),
    }[variant]()


@pytest.mark.parametrize(
    "variant",
    ["rslora", "dora", "pissa", "adalora", "ia3", "prefix", "prefix_projected", "prompt", "prompt_vocabulary", "p_mlp",
     "p_lstm"],
)  # fmt: skip
def test_that_what_peft_has_equals_plain_peft_to_the_bit(zoo: Callable[[str], ModelInfo], variant: str) -> None:
    info = zoo("llama")
    learner = learner_for(info, VARIANTS[variant], engine="reference")
    base = AutoModelForCausalLM.from_pretrained(info.path)
    torch.manual_seed(3)
    plain = get_peft_model(base, plain_config(variant))
    ours, theirs = (PeftTuned(model).weights() for model in (learner.model, plain))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    optimiser = torch.optim.AdamW([item for item in plain.parameters() if item.requires_grad], weight_decay=0.0)
    rows = rows_for(info)
    for step in range(1, 4):
        step_once(learner, rows, step, 1e-2)
        plain.train()
        parts = learner.objective.batches(rows)
        for part in parts:
            (batch_loss(plain, part) / sum(item.trained for item in parts)).backward()  # type: ignore[arg-type]
        if variant == "adalora":
            regulariser(plain).backward()
        torch.nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], 1.0)
        optimiser.param_groups[0]["lr"] = 1e-2
        optimiser.step()
        if variant == "adalora":
            plain.base_model.update_and_allocate(step)
        optimiser.zero_grad()
    for mine, other in zip(learner.parameters, optimiser.param_groups[0]["params"], strict=True):
        assert torch.equal(mine, other)


def regulariser(model: Any) -> Tensor:
    """What peft adds to the loss of AdaLoRA: all of it, where the model's own loss is 0."""
    inner = model.base_model.model
    forward, inner.forward = inner.forward, lambda: SimpleNamespace(loss=torch.zeros(()))
    term: Tensor = model.base_model().loss
    inner.forward = forward
    return term


@pytest.mark.parametrize("family", ["llama", "gemma", "gpt2"])
@pytest.mark.parametrize("variant", ["prefix", "prompt", "p_mlp"])
def test_that_the_loss_is_taken_at_the_right_places_beside_virtual_tokens_and_padding(
    zoo: Callable[[str], ModelInfo], family: str, variant: str
) -> None:
    info = zoo(family)
    learner, rows = learner_for(info, VARIANTS[variant]), rows_for(info)
    batches = learner.objective.batches(rows)
    assert any(batch.tokens < batch.input_ids.numel() for batch in batches)  # padded
    mine = sum(learner.objective.loss(batch) for batch in batches)
    learner.optimiser.zero_grad()
    mine.backward()  # type: ignore[union-attr]
    grads = [item.grad.clone() for item in learner.parameters]  # type: ignore[union-attr]
    learner.optimiser.zero_grad()
    total = 0.0
    for row in rows:  # one by one, no padding, transformers' own loss at peft's own places
        labels = torch.tensor([[token if mark else -100 for token, mark in zip(row.ids, row.trained, strict=True)]])
        loss = learner.model(input_ids=torch.tensor([list(row.ids)]), labels=labels).loss * row.trained_count
        loss.backward()
        total += loss.item()
    assert float(mine) == pytest.approx(total, rel=1e-5)
    for grad, parameter in zip(grads, learner.parameters, strict=True):
        torch.testing.assert_close(grad, parameter.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize("variant", ["prefix", "prompt", "houlsby"])
def test_that_padding_says_nothing_to_a_classifier(
    trained: Callable[[str, str], Trained], family: str, variant: str
) -> None:
    if refused(family, variant):
        pytest.skip("refused")
    model = trained(family, variant).learner.model.eval()
    ids = torch.tensor([[2, 33, 21, 3]])
    with torch.no_grad():
        torch.testing.assert_close(
            model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits, scores(model)[1:], rtol=1e-4, atol=1e-5
        )


# Cut short, in other number formats, on packed weights.


@pytest.mark.parametrize(
    ("family", "variant"), [*(("gpt2", name) for name in VARIANTS), ("bert", "p_mlp"), ("llama", "houlsby")]
)
def test_that_a_resumed_method_goes_on_bitwise(
    zoo: Callable[[str], ModelInfo], tmp_path: Path, family: str, variant: str
) -> None:
    info, rate, run = zoo(family), rate_of(family, variant), RunFolder(tmp_path)
    rows = rows_for(info)
    whole, first, second = (learner_for(info, VARIANTS[variant], rate, steps=8) for _ in range(3))
    train(whole, rows, rate, range(1, 8))
    train(first, rows, rate, range(1, 5))
    chance = checkpoints.random_state()
    place, _ = checkpoints.save_checkpoint(run, first.tuned, first.optimiser, first.scaler, Progress(step=4), chance)
    checkpoints.load_checkpoint(place, second.tuned, second.optimiser, second.scaler)
    train(second, rows, rate, range(5, 8))
    for one, other in zip(whole.parameters, second.parameters, strict=True):
        assert torch.equal(one, other)
    assert checkpoints.adapter_files(whole.tuned) == checkpoints.adapter_files(second.tuned)


@pytest.mark.parametrize("family", ["gpt2", "bert"])
@pytest.mark.parametrize("variant", [*BROAD.values(), "dora", "p_lstm"])
def test_that_16_bits_keep_what_is_trained_in_32(
    zoo: Callable[[str], ModelInfo], tmp_path: Path, family: str, variant: str
) -> None:
    info, rate = zoo(family), rate_of(family, variant)
    learner = learner_for(info, VARIANTS[variant], rate, precision="bf16")
    losses = train(learner, rows_for(info), rate)
    assert losses[-1] < losses[0], losses
    assert {item.dtype for item in learner.parameters} == {torch.float32}
    kept = [item for item in learner.model.parameters() if not item.requires_grad and item.dim() > 1]
    assert {item.dtype for item in kept} <= {torch.bfloat16, torch.uint8}
    save(learner, tmp_path)
    again = attach_saved(fresh(info, VARIANTS[variant], "bf16"), tmp_path)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mine = scores(learner.model.eval()) if learner.objective.fast is None else None  # type: ignore[attr-defined]
    if mine is not None:
        torch.testing.assert_close(scores(again).float(), mine.float(), rtol=0.1, atol=0.3)


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize(
    "variant",
    ["lora", "dora", "adalora", "ia3", "prefix", "prompt", "p_mlp", "houlsby", "compacter", "last_layer"],
)
def test_that_a_method_learns_on_packed_weights(
    zoo: Callable[[str], ModelInfo], tmp_path: Path, family: str, variant: str
) -> None:
    info, section, rate = zoo(family), {**VARIANTS[variant], "quantised": True}, rate_of(family, variant)
    learner = learner_for(info, section, rate, precision="bf16", engine="reference")
    losses = train(learner, rows_for(info), rate)
    assert losses[-1] < losses[0], losses
    assert any(item.dtype == torch.uint8 for item in learner.model.parameters())
    save(learner, tmp_path)
    again = attach_saved(fresh(info, section, "bf16"), tmp_path)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mine = scores(learner.model.eval())
    torch.testing.assert_close(scores(again).float(), mine.float(), rtol=0.1, atol=0.3)


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("variant", [*BROAD.values(), "dora"])
def test_that_recomputing_activations_changes_no_loss(
    trained: Callable[[str, str], Trained], zoo: Callable[[str], ModelInfo], family: str, variant: str
) -> None:
    if refused(family, variant):
        pytest.skip("refused")
    info, rate = zoo(family), rate_of(family, variant)
    if variant.startswith("prefix"):
        with pytest.raises(ProblemError) as error:
            learner_for(info, VARIANTS[variant], checkpointing=True)
        assert error.value.problems[0].code == "method.checkpointing"
        return
    learner = learner_for(info, VARIANTS[variant], rate, checkpointing=True, engine="reference")
    losses = train(learner, rows_for(info), rate, range(1, 3))
    assert losses == pytest.approx(trained(family, variant).losses[:2], rel=1e-5)


# What is in the files, and what becomes of it.


def loader(module: Any) -> Any:
    """The function in the docstring of `module`, as a reader would run it."""
    text = re.search(r"```python\n(.*?)```", module.__doc__, re.DOTALL)
    assert text is not None
    names: dict[str, Any] = {"json": json, "torch": torch, "load_file": load_file, "gelu": gelu, "linear": linear}
    exec(text.group(1), names)
    return next(value for name, value in names.items() if name.startswith("load_") and name != "load_file")


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize(
    ("variant", "module"),
    [("houlsby", houlsby), ("compacter", compacter), ("bitfit", whole), ("last_layer", whole), ("full", whole)],
)
def test_that_the_documented_function_loads_what_was_saved(
    trained: Callable[[str, str], Trained], zoo: Callable[[str], ModelInfo], family: str, variant: str, module: Any
) -> None:
    if refused(family, variant):
        pytest.skip("refused")
    done = trained(family, variant)
    plain = loader(module)(fresh(zoo(family), VARIANTS[variant]), str(done.folder)).eval()
    torch.testing.assert_close(scores(plain), scores(done.learner.model.eval()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("variant", [*BROAD.values(), "dora", "pissa"])
def test_that_a_merged_model_gives_the_same_and_needs_no_adapter(
    trained: Callable[[str, str], Trained], zoo: Callable[[str], ModelInfo], tmp_path: Path, family: str, variant: str
) -> None:
    if refused(family, variant) or variant == "qlora":
        pytest.skip("refused, or merged as LoRA")
    done, info = trained(family, variant), zoo(family)
    model = attach_saved(fresh(info, VARIANTS[variant]), done.folder)
    before, merged = scores(model), merge(model)
    if VARIANTS[variant]["name"] in ("prefix_tuning", "prompt_tuning", "p_tuning", "houlsby", "compacter"):
        assert merged is None
        return
    assert merged is not None
    merged.save_pretrained(tmp_path)
    kind = AutoModelForSequenceClassification if info.kind == "encoder" else AutoModelForCausalLM
    torch.testing.assert_close(scores(kind.from_pretrained(tmp_path).eval()), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in ("full", "bitfit")])
def test_that_saved_weights_can_be_exchanged_in_a_loaded_model(
    trained: Callable[[str, str], Trained], zoo: Callable[[str], ModelInfo], variant: str
) -> None:
    done = trained("llama", variant)
    model = attach_saved(fresh(zoo("llama"), VARIANTS[variant]), done.folder)
    before, held = scores(model), saved_weights(model)
    stored = load_file(done.folder / "adapter_model.safetensors")
    assert held.keys() == stored.keys()
    assert all(torch.equal(held[name].cpu(), stored[name]) for name in stored)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("lora_", "ia3_", "prompt_encoder", "adapters", "lm_head")):
                parameter.add_(1.0)
    assert not torch.allclose(scores(model), before)
    put_saved(model, done.folder)
    assert torch.equal(scores(model), before)


def test_that_weights_of_another_shape_are_refused(
    trained: Callable[[str, str], Trained], zoo: Callable[[str], ModelInfo], tmp_path: Path
) -> None:
    for variant, problem in (("houlsby", "shape"), ("full", "alone")):
        folder = tmp_path / variant
        shutil.copytree(trained("llama", variant).folder, folder)
        weights = load_file(folder / "adapter_model.safetensors")
        name = sorted(weights)[0]
        weights = {**weights, name: weights[name][:1]} if problem == "shape" else {"other": weights[name]}
        save_file(weights, folder / "adapter_model.safetensors")
        with pytest.raises(ProblemError) as error:
            attach_adapter(fresh(zoo("llama"), VARIANTS[variant]), folder)
        assert problem in error.value.problems[0].found


# What makes each method itself.


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora", "pissa", "lora_plus"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_that_the_fast_loop_takes_the_same_steps_with_every_option_of_lora(
    zoo: Callable[[str], ModelInfo], family: str, variant: str
) -> None:
    curves = []
    for engine in ("fast", "reference"):
        learner = learner_for(zoo(family), VARIANTS[variant], engine=engine)
        curves.append(train(learner, rows_for(zoo(family)), 1e-2, range(1, 9)))
    assert curves[0] == pytest.approx(curves[1], rel=2e-4)


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_that_the_fast_loop_is_for_lora_alone(zoo: Callable[[str], ModelInfo], family: str, variant: str) -> None:
    if refused(family, variant):
        pytest.skip("refused")
    objective: Any = learner_for(zoo(family), VARIANTS[variant]).objective
    lora = VARIANTS[variant]["name"] in ("lora", "qlora")
    assert (objective.fast is not None) == (lora and not (family == "bert" and variant == "dora"))
    assert objective.grouped == (objective.fast is None or family == "bert")


def test_that_adalora_ends_with_the_mean_rank_that_was_asked_for(trained: Callable[[str, str], Trained]) -> None:
    done = trained("llama", "adalora")
    ranks = [int(item.count_nonzero()) for name, item in done.learner.model.named_parameters() if "lora_E" in name]
    assert sum(ranks) == 4 * len(ranks)
    assert len(set(ranks)) > 1
    stored = load_file(done.folder / "adapter_model.safetensors")
    assert sorted(ranks) == sorted(len(item) for name, item in stored.items() if name.endswith("lora_E"))


def test_that_lora_plus_gives_the_second_matrix_a_rate_of_its_own(zoo: Callable[[str], ModelInfo]) -> None:
    learner = learner_for(zoo("llama"), VARIANTS["lora_plus"])
    step_once(learner, rows_for(zoo("llama")), 1, 1e-3)
    slow, fast = learner.optimiser.param_groups
    assert (slow["lr"], fast["lr"]) == (1e-3, 4e-3)
    names = {id(item): name for name, item in learner.model.named_parameters()}
    assert all("lora_B" in names[id(item)] for item in fast["params"])
    assert all("lora_A" in names[id(item)] for item in slow["params"])


def test_that_pissa_begins_with_the_untouched_model_and_is_saved_as_plain_lora(
    trained: Callable[[str, str], Trained], zoo: Callable[[str], ModelInfo]
) -> None:
    learner = learner_for(zoo("llama"), VARIANTS["pissa"], engine="reference")
    base = fresh(zoo("llama"), VARIANTS["pissa"])
    torch.testing.assert_close(scores(learner.model.eval()), scores(base), rtol=1e-4, atol=1e-4)
    config = json.loads((trained("llama", "pissa").folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 16, True)


def test_that_a_prompt_starts_as_its_text_or_as_words(zoo: Callable[[str], ModelInfo]) -> None:
    info = zoo("llama")
    words = fresh(info, VARIANTS["prompt"]).get_input_embeddings().weight
    ids = PreTrainedTokenizerFast.from_pretrained(info.path)(VARIANTS["prompt_text"]["prompt_text"])["input_ids"]
    started = learner_for(info, VARIANTS["prompt_text"]).parameters[0]
    assert torch.equal(started, words[torch.tensor(list(itertools.islice(itertools.cycle(ids), 6)))])
    drawn = learner_for(info, VARIANTS["prompt_vocabulary"]).parameters[0]
    assert all((words == row).all(-1).any() for row in drawn)


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("variant", ["prefix", "prompt", "p_mlp"])
def test_that_virtual_tokens_can_be_left_out_to_ask_the_untouched_model(
    trained: Callable[[str, str], Trained], zoo: Callable[[str], ModelInfo], family: str, variant: str
) -> None:
    learner = trained(family, variant).learner
    before = scores(learner.model.eval())
    base = learner.model.get_base_model()
    with learner.tuned.untouched():
        assert torch.equal(scores(learner.model), scores(base))
    assert torch.equal(scores(learner.model), before)


@pytest.mark.parametrize(
    ("family", "section", "code"),
    [
        ("llama", {"name": "bitfit"}, "method.no_biases"),
        ("distilbert", {"name": "prefix_tuning"}, "method.architecture"),
        ("ctrl", {"name": "houlsby"}, "method.architecture"),
        ("ctrl", {"name": "compacter"}, "method.architecture"),
        ("ctrl", {"name": "ia3"}, "method.architecture"),
        ("llama", {"name": "compacter", "hypercomplex": 5}, "method.hypercomplex"),
    ],
)
def test_that_a_method_that_cannot_work_on_a_model_says_why(
    zoo: Callable[[str], ModelInfo], family: str, section: dict[str, Any], code: str
) -> None:
    with pytest.raises(ProblemError) as error:
        learner_for(zoo(family), section)
    (problem,) = error.value.problems
    assert problem.code == code
    assert problem.found
    assert problem.fix


def test_that_room_is_left_for_text_beside_virtual_tokens(zoo: Callable[[str], ModelInfo]) -> None:
    info = zoo("bert")
    assert room_for_text(info, 0).context_length == 64
    assert room_for_text(info, 20).context_length == 40
    assert room_for_text(zoo("llama"), 20).context_length == 96
    with pytest.raises(ProblemError) as error:
        room_for_text(info, 60)
    assert error.value.problems[0].code == "method.virtual_tokens"


def other_kinds() -> dict[str, PretrainedConfig]:
    """Models that nobody trains here, for the names of their layers."""
    size = {
        "vocab_size": 90, "hidden_size": 16, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 0,
        "eos_token_id": 2, "embedding_size": 16,
    }  # fmt: skip
    short = {"vocab_size": 90, "n_layer": 2, "n_head": 2, "n_embd": 16, "bos_token_id": 0, "eos_token_id": 2}
    return {
        "phi3": Phi3Config(**size),
        "phi": PhiConfig(**size),
        "opt": OPTConfig(**size, ffn_dim=48, word_embed_proj_dim=16),
        "gptj": GPTJConfig(**short, rotary_dim=8, n_inner=48, n_positions=32),
        "neox": GPTNeoXConfig(**size),
        "falcon": FalconConfig(**size, ffn_hidden_size=48),
        "bloom": BloomConfig(**{**short, "hidden_size": 16}),
        "electra": ElectraConfig(**size),
        "deberta": DebertaV2Config(**size),
        "mpnet": MPNetConfig(**size),
        "albert": AlbertConfig(**size),
        "modernbert": ModernBertConfig(**size, cls_token_id=1, sep_token_id=1),
    }


@pytest.mark.parametrize("family", other_kinds())
@pytest.mark.parametrize("section", [{"name": "houlsby"}, {"name": "compacter", "hypercomplex": 2}, {"name": "ia3"}])
def test_that_other_families_are_known_and_every_part_learns(family: str, section: dict[str, Any]) -> None:
    encoder = family in ("electra", "deberta", "mpnet", "albert", "modernbert")
    torch.manual_seed(0)
    base = (AutoModelForSequenceClassification if encoder else AutoModelForCausalLM).from_config(other_kinds()[family])
    base.requires_grad_(False)
    setattr(base, loading._NEW, ["classifier"] if encoder else [])
    model = attach(base, Setting(MethodSection.model_validate(section), 1.0, False, 0)).model
    ids = torch.tensor([[5, 6, 7, 8]])
    model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.square().sum().backward()
    last = {"houlsby": "up.weight", "compacter": "up_s", "ia3": "ia3_l"}[section["name"]]
    parts = [item for name, item in model.named_parameters() if last in name]
    layers = 1 if family == "albert" else 2
    fused = family in ("phi3", "neox", "falcon", "bloom", "modernbert")
    assert len(parts) == layers * (3 if section["name"] == "ia3" and not fused else 2)
    assert all(item.grad is not None and item.grad.abs().max() > 0 for item in parts)
