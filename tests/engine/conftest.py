"""Tiny models with a real tokenizer, made once per test session; nothing is downloaded."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: see engine/__main__.py

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from tunedesk.core.events import Event, read_event
from tunedesk.core.paths import starter_data
from tunedesk.engine import token_cache
from tunedesk.engine.channel import Channel

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] }}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VOCABULARY = 600


@pytest.fixture(autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the developer's runs or settings; the cache, with its starter model, is shared."""
    monkeypatch.setenv("TUNEDESK_HOME", str(tmp_path_factory.mktemp("home")))
    tokens = tmp_path_factory.mktemp("tokens")
    monkeypatch.setattr(token_cache, "_folder", lambda: tokens)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer with ChatML, trained on the starter conversations."""
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(folder)
    return folder


def make_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    texts = []
    for line in starter_data("support").read_text(encoding="utf-8").splitlines()[:60]:
        texts += [turn["content"] for turn in json.loads(line)["messages"]]
    core = Tokenizer(models.BPE(byte_fallback=False))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=512
    )
    tokenizer.chat_template = template
    return tokenizer


def _sizes() -> dict[str, int]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }


def configs() -> dict[str, PretrainedConfig]:
    return {
        "llama": LlamaConfig(**_sizes(), tie_word_embeddings=True),
        "qwen2": Qwen2Config(**_sizes()),
        "mistral": MistralConfig(**_sizes(), head_dim=8, sliding_window=64),
        "gemma2": Gemma2Config(
            **_sizes(), head_dim=8, sliding_window=16, attn_logit_softcapping=5.0, query_pre_attn_scalar=8
        ),
        "gpt2": GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=512, bos_token_id=0, eos_token_id=2,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        ),
    }  # fmt: skip


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> dict[str, Path]:
    """Family to the folder of a random model of that shape, with tokenizer and chat template."""
    folders = {}
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    for name, config in configs().items():
        folder = tmp_path_factory.mktemp("models") / f"tiny-{name}"
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders[name] = folder
    return folders


@pytest.fixture(scope="session")
def tiny_llama(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["llama"]


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A random BERT: reads, writes nothing."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(tokenizer_folder).save_pretrained(folder)
    return folder


@pytest.fixture
def tokenizer(tokenizer_folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)


class _Lines(io.BytesIO):
    def __init__(self, events: list[Event]) -> None:
        super().__init__()
        self._events = events

    def write(self, line: bytes) -> int:
        self._events.append(read_event(line))
        return len(line)


class Recorder(Channel):
    """A channel that keeps what is emitted. `on_event` may ask for a stop, as a user would."""

    def __init__(self, on_event: Callable[[Recorder, Event], None] | None = None) -> None:
        self.events: list[Event] = []
        self._on_event = on_event
        super().__init__(_Lines(self.events), io.BytesIO())

    def emit(self, event: Event) -> None:
        super().emit(event)
        if self._on_event:
            self._on_event(self, event)

    def ask_stop(self) -> None:
        self._stopping.set()

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def channel() -> Recorder:
    return Recorder()


@pytest.fixture
def conversations(tmp_path: Path) -> Path:
    """40 short conversations of the starter data, as JSONL."""
    path = tmp_path / "talk.jsonl"
    rows = [json.loads(line) for line in starter_data("support").read_text(encoding="utf-8").splitlines()[:40]]
    path.write_text("".join(json.dumps({"messages": row["messages"][:2]}) + "\n" for row in rows), encoding="utf-8")
    return path
