"""IA³ through peft: trained factors on keys, values and the inner activations of the feed-forward (Liu et al. 2022)."""

from __future__ import annotations

from peft import IA3Config
from peft.tuners.ia3 import IA3Layer
from peft.tuners.ia3 import Linear as IA3Linear
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunedesk.core.problems import ProblemError
from tunedesk.engine.loading import new_parts
from tunedesk.engine.methods.base import Setting, task_type, unknown_architecture
from tunedesk.engine.methods.through_peft import PeftTuned, heads, wrapped

_PLACES = (
    (r".*\.self_attn\.[kv]_proj", r".*\.mlp\.down_proj"),  # LLaMA, Mistral, Qwen, Gemma
    (r".*\.self_attn\.qkv_proj", r".*\.mlp\.down_proj"),  # Phi-3
    (r".*\.self_attn\.[kv]_proj", r".*\.mlp\.fc2"),  # Phi
    (r".*\.(self|encoder)_attn\.[kv]_proj", r".*\.\d+\.fc2"),  # OPT, BART
    (r".*\.(SelfAttention|EncDecAttention)\.[kv]", r".*\.DenseReluDense\.wo"),  # T5
    (r".*\.attn\.[kv]_proj", r".*\.mlp\.fc_out"),  # GPT-J
    (r".*\.attn\.c_attn", r".*\.mlp\.c_proj"),  # GPT-2
    (r".*\.(self_)?attention\.query_key_value", r".*\.mlp\.dense_4h_to_h"),  # GPT-NeoX, Falcon, BLOOM
    (r".*\.attention\.self\.(key|value)(_proj)?", r".*\.\d+\.output\.dense"),  # BERT, RoBERTa, ELECTRA, DeBERTa-v2
    (r".*\.attention\.attn\.[kv]", r".*\.\d+\.output\.dense"),  # MPNet
    (r".*\.attention\.(key|value)", r".*\.ffn_output"),  # ALBERT
    (r".*\.attention\.[kv]_lin", r".*\.ffn\.lin2"),  # DistilBERT
    (r".*\.attn\.Wqkv", r".*\.mlp\.Wo"),  # ModernBERT
)
"""Layers whose outputs, and layers whose inputs are scaled.

Where one matrix gives queries, keys and values at once, all its outputs are.
"""


def attach(model: PreTrainedModel, setting: Setting) -> PeftTuned:
    """`model` with factors of 1 in fp32. Raises `ProblemError` for a model whose layers have other names."""
    import re

    names = [name for name, _ in model.named_modules()]
    fitting = [pair for pair in _PLACES if all(any(re.fullmatch(part, name) for name in names) for part in pair)]
    if not fitting:
        raise ProblemError(unknown_architecture(model, "ia3", "has no keys, values and feed-forward that it can tell."))
    outputs, inputs = fitting[0]
    new = new_parts(model)
    config = IA3Config(
        task_type=task_type(model),
        modules_to_save=heads(new),
        target_modules=f"{outputs}|{inputs}",
        feedforward_modules=inputs,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    tuned = wrapped(model, config, setting)
    keep_format(tuned)
    return PeftTuned(tuned)


def keep_format(model: nn.Module) -> None:
    """Let layers packed in 4 bits give the number format that came in; peft gives fp32, which attention refuses."""
    for module in model.modules():
        if isinstance(module, IA3Layer) and not isinstance(module, IA3Linear):
            module.register_forward_hook(_as_it_came)


def _as_it_came(_: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
    return out.to(inputs[0].dtype)
