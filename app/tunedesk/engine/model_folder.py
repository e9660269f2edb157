"""A folder of safetensors, config and tokenizer: what is wrong with it, and what model it holds.

Only JSON and tensor headers are read, so that the answer comes in milliseconds; neither torch nor transformers is
imported.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import math
import re
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunedesk.core.describe import LinearShape, ModelInfo
from tunedesk.core.matching import tasks_of
from tunedesk.core.problems import Problem, ProblemError, did_you_mean, raise_if_any

Kind = Literal["decoder", "encoder", "seq2seq", "other"]
Origin = Literal["starter", "folder", "gguf", "hub"]

_HEADER_LIMIT = 100_000_000
"""The largest header that the safetensors format allows, in bytes."""

_BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "I64": 64,
    "I32": 32,
    "I16": 16,
    "I8": 8,
    "U64": 64,
    "U32": 32,
    "U16": 16,
    "U8": 8,
    "BOOL": 8,
}
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
_FAMILIES = {
    "llama": "LLaMA",
    "gpt2": "GPT-2",
    "gpt_neox": "GPT-NeoX",
    "gptj": "GPT-J",
    "gpt_oss": "GPT-OSS",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "smollm3": "SmolLM3",
    "phi3": "Phi-3",
    "opt": "OPT",
    "bert": "BERT",
    "roberta": "RoBERTa",
    "distilbert": "DistilBERT",
    "modernbert": "ModernBERT",
    "mpnet": "MPNet",
    "t5": "T5",
    "mt5": "mT5",
    "umt5": "UMT5",
    "bart": "BART",
    "olmo2": "OLMo 2",
    "stablelm": "StableLM",
    "starcoder2": "StarCoder2",
    "deepseek_v3": "DeepSeek-V3",
}
_CONV1D_FAMILIES = ("gpt2", "gpt-sw3", "openai-gpt", "decision_transformer", "imagegpt")
"""Families whose linear layers are transformers' Conv1D: their weights are stored (in, out)."""

_NOT_LINEAR = re.compile(r"embed|wte|wpe|lm_head|shared|relative_attention_bias|norm|^ln_|^score$|^classifier$|^conv")
_PRETRAINING_HEAD = re.compile(r"(cls|lm_head|vocab_\w+|predictions|generator_\w+|discriminator_\w+)\.")
"""Begins the names of an encoder's output layers for pretraining, which no task of ours uses."""

_TAKES_PAST = (
    "bert",
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "electra",
    "ernie",
    "megatron-bert",
    "roberta-prelayernorm",
    "data2vec-text",
    "rembert",
    "roc_bert",
    "xmod",
    "t5",
    "mt5",
    "umt5",
    "bart",
)
"""Encoders and seq2seq models whose attention takes keys and values from before, tried with transformers 5.23.

Other encoders have no argument for them (DistilBERT, MPNet, ALBERT, DeBERTa, ModernBERT) or fail (BigBird, RoFormer).
"""

_RECURRENT = ("mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm")
"""Families without any attention."""

_PARTLY_RECURRENT = (
    "bamba",
    "falcon_h1",
    "granitemoehybrid",
    "jamba",
    "kimi_linear",
    "nemotron_h",
    "qwen3_5_text",
    "qwen3_next",
    "recurrent_gemma",
    "zamba",
    "zamba2",
)
"""Families that mix attention with recurrent layers and need not say so in `layer_types`."""

_PARTLY_SLIDING = ("cohere2", "gemma2", "gemma3_text", "gpt_oss")
"""Families in which every few layers see the whole text, where `layer_types` is not stated."""

_ATTENTION = {"attention", "full_attention", "sliding_attention", "chunked_attention"}

_BUFFERS = re.compile(
    r"(\.attn\.(bias|masked_bias)|rotary_emb\.inv_freq|position_ids|final_logits_bias"
    r"|decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight)$"
)
"""What files hold beside weights; the last is in old T5 files, and transformers passes over it."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_TOKENIZERS = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("spiece.model",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("tekken.json",),
)


@dataclass(frozen=True)
class Tensor:
    """A tensor as its safetensors header states it; `size` in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


def check_folder(folder: Path) -> list[Problem]:
    """Everything that keeps `folder` from being loaded as a model; empty when it can be."""
    if not folder.is_dir():
        return [
            Problem(
                code="model.missing",
                what=f"There is no folder {folder}." if not folder.exists() else f"{folder} is not a folder.",
                fix="Choose a folder with config.json, *.safetensors and a tokenizer.",
            )
        ]
    if not (folder / "config.json").is_file():
        return [_no_config(folder)]
    config, problem = _read_json(folder / "config.json")
    problems = [problem] if problem else check_config(config, folder / "config.json")
    problems += _check_weights(folder)
    return problems + _check_tokenizer(folder)


def _no_config(folder: Path) -> Problem:
    names = sorted(path.name for path in folder.iterdir())
    there = _listing(names)
    if "adapter_config.json" in names:
        adapter, _ = _read_json(folder / "adapter_config.json")
        base = adapter.get("base_model_name_or_path") or "a model that it does not name"
        return Problem(
            code="model.is_adapter",
            what="This folder holds an adapter, not a model.",
            where=str(folder),
            found=f"It was trained on {base}.",
            fix=f"Choose its base as the model: {base}.",
        )
    ggufs = [name for name in names if name.lower().endswith(".gguf")]
    if ggufs:
        fix = f"Choose the file itself: {folder / ggufs[0]}"
    elif any((folder / name / "config.json").is_file() for name in names):
        inner = next(name for name in names if (folder / name / "config.json").is_file())
        fix = f"Did you mean the folder in it? {folder / inner}"
    else:
        fix = "Choose a folder with config.json, *.safetensors and a tokenizer."
    return Problem(
        code="model.not_a_model",
        what="This folder is no model: config.json is missing.",
        where=str(folder),
        found=there,
        fix=fix,
    )


def _listing(names: list[str]) -> str:
    if not names:
        return "The folder is empty."
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return f"There is: {', '.join(names[:6])}{more}."


def _read_json(path: Path) -> tuple[dict[str, Any], Problem | None]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        return {}, _unreadable(path, str(error))
    if not isinstance(value, dict):
        return {}, _unreadable(path, "It holds no JSON object.")
    return value, None


def _unreadable(path: Path, found: str) -> Problem:
    return Problem(
        code="model.unreadable",
        what=f"{path.name} cannot be read.",
        where=str(path),
        found=found,
        fix="Download the model again; the file is damaged or not finished.",
    )


def check_config(config: dict[str, Any], path: Path) -> list[Problem]:
    """What keeps a model of this configuration from being tuned, whatever its weights."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        return [
            Problem(
                code="model.no_type",
                what="config.json does not say which family of model this is.",
                where=str(path),
                found="The key 'model_type' is missing.",
                fix="Choose a model in the format of Hugging Face transformers.",
            )
        ]
    if model_type not in known_model_types():
        return [_foreign_code(config, path) if "auto_map" in config else _unknown_type(model_type, path)]
    if "quantization_config" in config:
        return [_already_quantised(config["quantization_config"], path)]
    return []


def _foreign_code(config: dict[str, Any], path: Path) -> Problem:
    classes = config["auto_map"]
    names = ", ".join(map(str, classes.values())) if isinstance(classes, dict) else str(classes)
    return Problem(
        code="model.remote_code",
        what="This model brings program code of its own (trust_remote_code), which TuneDesk does not run.",
        where=str(path),
        found=f"auto_map names {names}; transformers itself has no model type '{config['model_type']}'.",
        fix="Choose a model of a family that transformers knows.",
    )


def _unknown_type(model_type: str, path: Path) -> Problem:
    from importlib.metadata import version

    close = did_you_mean(model_type, known_model_types())
    hint = close if close.startswith("Did you mean") else ""
    return Problem(
        code="model.unknown_type",
        what=f"transformers {version('transformers')} does not know the model type '{model_type}'.",
        where=str(path),
        found=hint,
        fix="It may need a newer TuneDesk, or the file may have been edited.",
    )


def _already_quantised(settings: Any, path: Path) -> Problem:
    method = str(settings.get("quant_method", "")) if isinstance(settings, dict) else ""
    return Problem(
        code="model.quantised",
        what="The weights of this model are already squeezed into few bits, which cannot be trained on as they are.",
        where=str(path),
        found=f"They are stored as {method or 'quantised weights'}.",
        fix="Choose the original 16-bit model; QLoRA squeezes it while loading.",
    )


def _check_weights(folder: Path) -> list[Problem]:
    try:
        files = weight_files(folder)
    except ValueError as error:
        return [_unreadable(folder / "model.safetensors.index.json", str(error))]
    if not files:
        return [_no_weights(folder)]
    missing = [path.name for path in files if not path.is_file()]
    problems = [_missing_shards(folder, missing, len(files))] if missing else []
    for path in files:
        if path.is_file():
            try:
                read_header(path)
            except (ValueError, OSError) as error:
                problems.append(_damaged(path, str(error)))
    return problems


def _no_weights(folder: Path) -> Problem:
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        return Problem(
            code="model.pickle",
            what="The weights are stored as pickle files, which can run code when they are opened.",
            where=str(folder),
            found=f"There is {_listing(pickles).removeprefix('There is: ')} No .safetensors file.",
            fix="TuneDesk opens safetensors only. Choose a version of the model that has .safetensors files.",
        )
    return Problem(
        code="model.no_weights",
        what="The weights are missing.",
        where=str(folder),
        found=_listing(sorted(path.name for path in folder.iterdir())),
        fix="Put the model's .safetensors files into this folder.",
    )


def _missing_shards(folder: Path, missing: list[str], count: int) -> Problem:
    return Problem(
        code="model.missing_shards",
        what=f"{len(missing)} of {count} weight files are missing.",
        where=str(folder),
        found=f"Not there: {', '.join(missing[:4])}{' and more' if len(missing) > 4 else ''}.",
        fix="Download the missing files into this folder.",
    )


def _damaged(path: Path, found: str) -> Problem:
    return Problem(
        code="model.damaged",
        what=f"{path.name} is damaged or not finished.",
        where=str(path),
        found=found,
        fix="Download this file again.",
    )


def _check_tokenizer(folder: Path) -> list[Problem]:
    files = [folder / name for name in ("tokenizer.json", "tokenizer_config.json") if (folder / name).is_file()]
    problems = [problem for path in files if (problem := _read_json(path)[1])]
    if any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS):
        return problems
    return [
        *problems,
        Problem(
            code="model.no_tokenizer",
            what="The tokenizer is missing: without it, text cannot be turned into tokens.",
            where=str(folder),
            found=_listing(sorted(path.name for path in folder.iterdir())),
            fix="Put the model's tokenizer.json (or tokenizer.model) and tokenizer_config.json into this folder.",
        ),
    ]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the model, whether or not they are there; empty when none is named.

    Raises `ValueError` when the index of shards cannot be read.
    """
    single = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        return [folder / name for name in _shards(index)]
    others = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter_"))
    return others if len(others) == 1 else []


def has_weights(folder: Path) -> bool:
    """Whether any weights are in `folder`, usable or not."""
    return any(path.suffix in (".safetensors", *_PICKLES) for path in folder.iterdir())


def _shards(index: Path) -> list[str]:
    value, problem = _read_json(index)
    names = value.get("weight_map")
    if problem or not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(problem.found if problem else "It has no 'weight_map'.")
    if any("/" in name or "\\" in name or name.startswith("..") for name in names.values()):
        raise ValueError("It names files outside the folder.")
    return sorted(set(names.values()))


def read_header(path: Path) -> list[Tensor]:
    """The tensors that a safetensors file declares. Raises `ValueError` in words when the file is not whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
            raise ValueError(f"It has {size:,} bytes and no safetensors header.")
        try:
            header = json.loads(file.read(length))
            items = {name: item for name, item in header.items() if name != "__metadata__"}
            tensors = [_tensor(name, item) for name, item in items.items()]
            ends = [int(item["data_offsets"][1]) for item in items.values()]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"Its header cannot be read ({error}).") from error
    expected = 8 + length + max(ends, default=0)
    if expected != size:
        raise ValueError(f"It should have {expected:,} bytes and has {size:,}.")
    return tensors


def _tensor(name: str, item: dict[str, Any]) -> Tensor:
    shape = tuple(int(side) for side in item["shape"])
    begin, end = item["data_offsets"]
    bits = _BITS.get(item["dtype"])
    if bits is not None and math.prod(shape) * bits // 8 != end - begin:
        raise ValueError(f"{name}: {end - begin} bytes for shape {shape}")
    return Tensor(name, item["dtype"], shape, end - begin)


@functools.cache
def known_model_types() -> frozenset[str]:
    """The model types that the installed transformers can load with its own code."""
    types = set(_mapping_names("auto_mappings.py", "CONFIG_MAPPING_NAMES"))
    return frozenset(types | {"gpt-sw3"})


@functools.cache
def _mapping_names(file: str, variable: str) -> frozenset[str]:
    """The keys of the literal mapping `variable` in a file of transformers, read without importing it."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None
    assert spec.origin is not None
    text = (Path(spec.origin).parent / "models" / "auto" / file).read_text(encoding="utf-8")
    found = re.search(rf"^{variable} = OrderedDict\(\s*(\[.*?^    \])", text, re.MULTILINE | re.DOTALL)
    return frozenset(key for key, *_ in ast.literal_eval(found.group(1))) if found else frozenset()


def describe_folder(folder: Path, source: str, name: str, origin: Origin) -> ModelInfo:
    """Describe the model in `folder`. Raises `ProblemError` with everything that is wrong with it."""
    raise_if_any(check_folder(folder))
    config, _ = _read_json(folder / "config.json")
    tensors = [tensor for path in weight_files(folder) for tensor in read_header(path)]
    return _describe(config, tensors, folder, source, name, origin)


def describe_config(folder: Path, source: str, name: str, origin: Origin) -> ModelInfo:
    """Describe the model that `config.json` in `folder` speaks of, without weights; `path` is None.

    Sizes come from the model built on torch's meta device, which takes no memory. Raises `ProblemError`.
    """
    if not (folder / "config.json").is_file():
        raise_if_any(check_folder(folder) or [_no_config(folder)])
    config, problem = _read_json(folder / "config.json")
    raise_if_any([problem] if problem else check_config(config, folder / "config.json"))
    info = _describe(config, _meta_tensors(folder, _kind(config)), folder, source, name, origin)
    return info.model_copy(update={"path": None})


def _meta_tensors(folder: Path, kind: Kind) -> list[Tensor]:
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    names = {f"torch.{torch_name}": ours for ours, torch_name in _DTYPES.items()}
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
        with torch.device("meta"):
            model = (AutoModelForCausalLM if kind == "decoder" else AutoModel).from_config(config, dtype=dtype)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ProblemError(_unreadable(folder / "config.json", str(error).splitlines()[0])) from error
    return [
        Tensor(name, names.get(str(item.dtype), "F32"), tuple(item.shape), item.numel() * item.element_size())
        for name, item in model.named_parameters()
    ]


def _describe(
    config: dict[str, Any], tensors: list[Tensor], folder: Path, source: str, name: str, origin: Origin
) -> ModelInfo:
    text = _text_part(config)
    model_type = str(text.get("model_type") or config["model_type"])
    kept, tied = _real_parameters(tensors, {**config, **text})
    kind = _kind(config)
    template = has_chat_template(folder)
    hidden = _number(text, "hidden_size", "n_embd", "d_model", "dim", "hidden_dim") or 0
    heads = _number(text, "num_attention_heads", "n_head", "num_heads", "n_heads", "encoder_attention_heads") or 1
    info = ModelInfo(
        source=source,
        path=str(folder),
        name=name,
        family=_FAMILIES.get(model_type, model_type.replace("_", " ").title()),
        architecture=_architecture(config),
        kind=kind,
        parameters=sum(math.prod(tensor.shape) for tensor in kept),
        weight_bytes=sum(tensor.size for tensor in kept),
        dtype=_main_dtype(kept),
        context_length=_context_length(text, model_type),
        vocabulary=_number(text, "vocab_size") or _number(config, "vocab_size") or 0,
        hidden_size=hidden,
        intermediate_size=_number(text, "intermediate_size", "n_inner", "d_ff", "ffn_dim", "encoder_ffn_dim")
        or (_number(text, "hidden_dim") if model_type == "distilbert" else None)
        or 4 * hidden,
        layers=_number(text, "num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers") or 0,
        attention_heads=heads,
        key_value_heads=1 if text.get("multi_query") else _number(text, "num_key_value_heads") or heads,
        tied_embeddings=tied,
        linears=_linears(kept, model_type),
        licence=read_licence(folder),
        has_chat_template=template,
        tasks=(),
        origin=origin,
        **_method_facts(text, model_type, kind, kept),
    )
    return info.model_copy(update={"tasks": tasks_of(info)})


def _method_facts(text: dict[str, Any], model_type: str, kind: Kind, tensors: list[Tensor]) -> dict[str, Any]:
    """What decides which methods work on the model."""
    kinds = _layer_kinds(text, model_type)
    window = _number(text, "sliding_window")
    return {
        "biases": _count_biases(tensors, kind),
        "layer_kinds": kinds,
        "sliding_window": window if "sliding_attention" in kinds else None,
        "takes_past": _takes_past(kinds, model_type, kind),
        "classifies": model_type
        in _mapping_names("modeling_auto.py", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES"),
        "embedding_size": _number(text, "embedding_size", "input_embedding_size", "word_embed_proj_dim"),
    }


def _count_biases(tensors: list[Tensor], kind: Kind) -> int:
    """Biases of layers and norms; old BERT files call those of norms ``beta``."""
    mine = (item for item in tensors if kind != "encoder" or not _PRETRAINING_HEAD.match(item.name))
    return sum(math.prod(item.shape) for item in mine if item.name.rpartition(".")[2] in ("bias", "beta"))


def _layer_kinds(text: dict[str, Any], model_type: str) -> tuple[str, ...]:
    """The kinds of layers, each once; what is not stated is full attention."""
    stated = text.get("layer_types") or text.get("layers_block_type") or text.get("block_types")
    if isinstance(stated, list):
        return tuple(dict.fromkeys(map(str, stated)))
    if model_type in _RECURRENT:
        return ("recurrent",)
    if model_type in _PARTLY_RECURRENT:
        return ("full_attention", "recurrent")
    if _number(text, "kv_lora_rank"):
        return ("latent_attention",)
    if model_type in _PARTLY_SLIDING:
        return ("sliding_attention", "full_attention")
    slides = _number(text, "sliding_window") and text.get("use_sliding_window", not model_type.startswith("qwen"))
    return ("sliding_attention",) if slides else ("full_attention",)


def _takes_past(kinds: tuple[str, ...], model_type: str, kind: Kind) -> bool | None:
    if kind == "decoder":
        return _ATTENTION.issuperset(kinds)
    if model_type in _TAKES_PAST:
        return True
    return False if kind == "encoder" else None


def _text_part(config: dict[str, Any]) -> dict[str, Any]:
    for key in ("text_config", "llm_config", "language_config"):
        if isinstance(config.get(key), dict):
            return dict(config[key])
    return config


def _number(config: dict[str, Any], *keys: str) -> int | None:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _context_length(text: dict[str, Any], model_type: str) -> int | None:
    length = _number(text, "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length")
    if length is None or model_type in ("t5", "mt5", "umt5"):  # relative positions: no fixed limit
        return None
    # RoBERTa and kin count positions from the padding index + 1.
    return length - 2 if model_type in ("roberta", "xlm-roberta", "camembert", "mpnet") else length


def _architecture(config: dict[str, Any]) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _kind(config: dict[str, Any]) -> Kind:
    name, model_type = _architecture(config), str(config["model_type"])
    if config.get("is_encoder_decoder") or model_type in ("t5", "mt5", "umt5", "bart", "mbart", "pegasus"):
        return "seq2seq"
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "decoder"
    if any(isinstance(config.get(key), dict) for key in ("text_config", "vision_config", "audio_config")):
        return "other"
    if model_type in _mapping_names("modeling_auto.py", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"):
        return "encoder"
    if model_type in _mapping_names("modeling_auto.py", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"):
        return "decoder"
    return "other"


def _real_parameters(tensors: list[Tensor], config: dict[str, Any]) -> tuple[list[Tensor], bool]:
    """The tensors that are weights, each once, and whether input and output embeddings are one matrix."""
    weights = [item for item in tensors if item.dtype in _DTYPES and not _BUFFERS.search(item.name)]
    if any(item.name.endswith("shared.weight") for item in weights):  # the embeddings of both stacks of a T5 or BART
        weights = [item for item in weights if not item.name.endswith("coder.embed_tokens.weight")]
    heads = [item for item in weights if item.name.rsplit(".", 2)[-2:-1] in (["lm_head"], ["embed_out"])]
    stated = config.get("tie_word_embeddings")
    tied = stated if isinstance(stated, bool) else not heads
    if config.get("model_type") in ("t5", "mt5", "umt5"):  # transformers 5 writes that they are tied when they are not
        tied = not heads
    if tied:
        weights = [item for item in weights if item not in heads or not item.name.endswith("weight")]
    return weights, tied


def _main_dtype(tensors: list[Tensor]) -> str:
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.dtype] += tensor.size
    return _DTYPES[sizes.most_common(1)[0][0]] if sizes else "float32"


def _linears(tensors: list[Tensor], model_type: str) -> tuple[LinearShape, ...]:
    """Linear layers by leaf name and shape. Experts are left out: transformers keeps them as one stacked tensor."""
    counts: Counter[tuple[str, int, int]] = Counter()
    for tensor in tensors:
        path = tensor.name.split(".")
        if len(tensor.shape) != 2 or path[-1] != "weight" or len(path) < 2 or "experts" in path:
            continue
        if _NOT_LINEAR.search(path[-2].lower()):
            continue
        out_features, in_features = tensor.shape
        if model_type in _CONV1D_FAMILIES:
            in_features, out_features = out_features, in_features
        counts[path[-2], in_features, out_features] += 1
    return tuple(
        LinearShape(name=name, in_features=i, out_features=o, count=count) for (name, i, o), count in counts.items()
    )


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer in `folder` brings a chat template."""
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    config, _ = _read_json(folder / "tokenizer_config.json")
    return bool(config.get("chat_template"))


def read_licence(folder: Path) -> str | None:
    """The licence by the README's front matter, or by the first words of a licence file; None when neither tells."""
    readme = folder / "README.md"
    if readme.is_file():
        text = readme.read_text(encoding="utf-8", errors="replace")
        front = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
        if front:
            named = _front_value(front.group(1), "license_name")
            stated = _front_value(front.group(1), "license")
            if stated:
                return named if stated == "other" and named else stated
    return _licence_by_text(folder)


def _front_value(front: str, key: str) -> str | None:
    found = re.search(rf"^{key}:\s*(?:\n\s*-\s*)?['\"]?([^'\"\n#]+)", front, re.MULTILINE)
    return found.group(1).strip() if found else None


def _licence_by_text(folder: Path) -> str | None:
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING"):
        path = folder / name
        if not path.is_file():
            continue
        start = path.read_text(encoding="utf-8", errors="replace")[:2000]
        if "Apache License" in start and "2.0" in start:
            return "apache-2.0"
        if "Permission is hereby granted, free of charge" in start or re.match(r"\s*(The )?MIT License", start):
            return "mit"
        return next((line.strip()[:80] for line in start.splitlines() if line.strip()), None)
    return None
