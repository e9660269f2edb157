"""Tiny models with random weights, adapters and finished runs, built in well under a second."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
    UMT5Config,
    UMT5ForConditionalGeneration,
)

from tunedesk.core.paths import starter_data
from tunedesk.core.runs import RunFolder, create_run
from tunedesk.core.spec import parse_spec

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_TEXT = [
    "system user assistant",
    "How do I send a parcel back? Put it into its box and take it to the post office; it is free of charge.",
    "Where is my order? It left our house on Monday and should be with you by Thursday at the latest.",
    "Grüße aus Köln, schöne Straße: naïve café, señor. 漢字かな交じり文 😀🚀",
]


@cache
def _trained_tokenizer() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(_TEXT, trainer)
    return str(tokenizer.to_str())


def tiny_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 400 tokens; with a template, `<|im_end|>` is EOS."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained_tokenizer()),
        eos_token="<|im_end|>" if template else "<|endoftext|>",
        pad_token="<|endoftext|>",
    )
    if template:
        tokenizer.chat_template = template
    return tokenizer


def tiny_model(
    folder: Path,
    family: str = "llama",
    template: str | None = CHATML,
    dtype: torch.dtype = torch.float32,
    context: int = 256,
    seed: int = 0,
) -> Path:
    """Write a random model of `family` (llama, qwen2, gpt2, bert) with its tokenizer into `folder`."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer(template)
    size = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    wide = {
        **size,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": context,
    }
    match family:
        case "llama":
            model = LlamaForCausalLM(LlamaConfig(**wide, num_key_value_heads=2, tie_word_embeddings=True))
        case "qwen2":
            model = Qwen2ForCausalLM(Qwen2Config(**wide, num_key_value_heads=2, tie_word_embeddings=False))
        case "gpt2":
            model = GPT2LMHeadModel(GPT2Config(**size, n_embd=64, n_layer=2, n_head=4, n_positions=context))
        case "bert":
            model = BertModel(BertConfig(**wide))
        case _:
            raise ValueError(family)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)  # far from zero, so that greedy answers vary
    model.to(dtype).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def tiny_adapter(model: Path, folder: Path, rank: int = 4, seed: int = 1) -> Path:
    """Write a random LoRA adapter for `model` that plainly changes its answers."""
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(str(model))
    config = LoraConfig(r=rank, lora_alpha=4 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    tuned.save_pretrained(str(folder))
    return folder


def tiny_run(folder: Path, model: Path, adapter: bool = True, task: str = "chat") -> RunFolder:
    """Write the folder of a run on `model`, with a random adapter as its result."""
    rows = folder.parent / f"{folder.name}.jsonl"
    turns = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Good day."}]
    rows.write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(4)), encoding="utf-8")
    text = (
        f"name = 'A tiny run'\n[model]\nsource = {json.dumps(str(model))}\n[task]\nkind = '{task}'\n"
        f"[data]\ntrain = {json.dumps(str(rows))}\n[training]\ndevice = 'cpu'\n"
    )
    run = create_run(parse_spec(text), folder)
    if adapter:
        tiny_adapter(model, run.adapter)
    return run


def tiny_encoder(folder: Path, family: str = "bert", pooled: bool = True, context: int = 64) -> Path:
    """Write a random encoder of `family` (bert, distilbert, roberta), without dropout, with a WordPiece tokenizer."""
    torch.manual_seed(0)
    tokenizer = wordpiece()
    size = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    wide = {
        **size,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    model: PreTrainedModel
    match family:
        case "bert":
            model = BertModel(BertConfig(**wide, max_position_embeddings=context), add_pooling_layer=pooled)
        case "distilbert":
            shape = {"dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 4, "max_position_embeddings": context,
                     "dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}  # fmt: skip
            model = DistilBertModel(DistilBertConfig(**size, **shape))
        case "roberta":
            config = RobertaConfig(**wide, max_position_embeddings=context + 2, type_vocab_size=1)
            model = RobertaModel(config, add_pooling_layer=False)
        case _:
            raise ValueError(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embeddings" not in name:
                parameter.normal_(0, 0.15)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@cache
def _wordpiece() -> str:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    texts = [json.loads(line)["text"] for line in starter_data("finance").read_text(encoding="utf-8").splitlines()]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=500, special_tokens=special))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.decoder = decoders.WordPiece()
    return str(tokenizer.to_str())


def wordpiece() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer of 500 tokens, trained on the starter finance texts."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_wordpiece()), unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]", model_max_length=64,
    )  # fmt: skip


@cache
def _pieces() -> tuple[tuple[str, float], ...]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    rows = [json.loads(line)["messages"] for line in starter_data("support").read_text(encoding="utf-8").splitlines()]
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([turn["content"] for row in rows[:100] for turn in row], trainer)
    return tuple((piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"])


def pieces() -> T5Tokenizer:
    """T5's own kind of tokenizer, of some 400 pieces, trained on the starter conversations."""
    return T5Tokenizer(vocab=list(_pieces()), extra_ids=0)


def tiny_seq2seq(folder: Path, family: str = "t5", dropout: float = 0.0, scale: float = 0.2) -> Path:
    """Write a random encoder-decoder of `family` (t5, flan, mt5, umt5, bart) into `folder`.

    In t5 the output layer is the embedding, in flan not; all heads together are wider than a T5 itself.
    """
    torch.manual_seed(0)
    tokenizer = pieces()
    size = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    shape = {"d_model": 32, "d_kv": 12, "num_heads": 4, "d_ff": 64, "num_layers": 3,
             "num_decoder_layers": 2, "dropout_rate": dropout}  # fmt: skip
    gated = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    model: PreTrainedModel
    match family:
        case "t5":
            model = T5ForConditionalGeneration(T5Config(**size, **shape))
        case "flan":
            model = T5ForConditionalGeneration(T5Config(**size, **shape, **gated))
        case "mt5":
            model = MT5ForConditionalGeneration(MT5Config(**size, **shape, **gated))
        case "umt5":
            model = UMT5ForConditionalGeneration(UMT5Config(**size, **shape, **gated))
        case "bart":
            stack = {"d_model": 32, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4,
                     "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "dropout": dropout,
                     "max_position_embeddings": 128, "bos_token_id": 2, "forced_eos_token_id": None}  # fmt: skip
            model = BartForConditionalGeneration(BartConfig(**size, **stack))
        case _:
            raise ValueError(family)
    if family in ("flan", "mt5", "umt5"):
        model.config.tie_word_embeddings = False
        model.get_output_embeddings().weight = torch.nn.Parameter(torch.randn(len(tokenizer), 32))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") and parameter.dim() == 1:
                parameter.normal_(0, 0.02)
            elif parameter.dim() > 1:
                parameter.normal_(0, 1.0 if "shared" in name or "lm_head" in name else scale)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder
