"""The fast path of one model: which of its layers run fused, and the loss of a pack through them."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import AttentionInterface

from tunedesk.engine.fast import attention, liger, native
from tunedesk.engine.fast.block import Block, BlockFunction, fits
from tunedesk.engine.fast.lean_linear import Group, Scratch, lean, make_lean
from tunedesk.engine.fast.packing import Pack
from tunedesk.engine.fast.token_loss import PLAIN, Head, RowNorm, TokenLoss, TokenLosses, plain_head
from tunedesk.engine.pooling import head_name

_LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers that may read a pack; others look across the boundaries of rows."""


class FastModel:
    """`model` made ready for packs. The base is rearranged in place, the adapter stays peft's.

    `kind` is the kind of device whose code runs, the model's own by default: what runs on CUDA can be tried on a
    processor, and traced on meta. A classifier has no `head` that scores the vocabulary.
    """

    def __init__(self, model: PeftModel, head: Head | None, kind: str | None = None) -> None:
        base: Any = model.get_base_model()
        self._base, self._head = base, head
        self._kind: str = kind or base.device.type
        self._dtype: torch.dtype = base.dtype
        self._anchor = torch.zeros((), requires_grad=True)
        self._again = any(getattr(module, "gradient_checkpointing", False) for module in base.modules())
        if base.device.type == "meta":
            native.trace_as(self._kind)
        scratch: Scratch = {}
        self._mixed = self._varlen = False
        self._blocks = self._fuse(scratch)
        if self._blocks:
            self._groups = [group for block in self._blocks for group in block.groups]
        else:
            liger.apply(base)
            self._groups = self._make_lean(scratch)
            self._mixed = any(isinstance(module, LoraLayer) and not lean(module) for module in base.modules())
            self._varlen = self._kind == "cuda" and _has_varlen(base.device)
            AttentionInterface.register(attention.NAME, attention.attend)
            base.set_attn_implementation(attention.NAME)

    def _fuse(self, scratch: Scratch) -> list[Block]:
        layers = getattr(self._base.model, "layers", None) if hasattr(self._base, "model") else None
        fused = self._kind == "cpu" and layers is not None and all(fits(layer) for layer in layers)
        return [Block(layer, self._dtype, scratch) for layer in layers] if fused and layers is not None else []

    def _make_lean(self, scratch: Scratch) -> list[Group]:
        layers = [module for module in self._base.modules() if isinstance(module, LoraLayer) and lean(module)]
        return [make_lean(layer, self._anchor, self._dtype, scratch) for layer in layers]

    def loss(self, pack: Pack) -> Tensor:
        """The sum of the cross entropies of the pack's trained tokens, in nats, an fp32 scalar with gradient."""
        loss: Tensor = TokenLoss.apply(self._predicting(pack), pack.targets, self._head)  # type: ignore[no-untyped-call]
        return loss

    def token_losses(self, pack: Pack) -> Tensor:
        """The cross entropy of each of the pack's trained tokens, in nats, fp32 (trained,) with gradient."""
        losses: Tensor = TokenLosses.apply(self._predicting(pack), pack.targets, self._head)  # type: ignore[no-untyped-call]
        return losses

    def scores(self, pack: Pack) -> Tensor:
        """What the head of a classifier gives at the places that predict, fp32 (predicts, outputs), with gradient."""
        out: Tensor = self._base.get_submodule(head_name(self._base))(self._predicting(pack).float())
        return out

    def _predicting(self, pack: Pack) -> Tensor:
        """The last hidden state of the places that predict, (trained, H), with the adapters as they are now."""
        for group in self._groups:
            group.refresh()
        return self._hidden(pack) if self._blocks else self._plain_hidden(pack)

    def _hidden(self, pack: Pack) -> Tensor:
        """The normed last hidden state of the places that predict, (trained, H), through the fused layers."""
        inner: Any = self._base.model
        h = inner.embed_tokens(pack.input_ids)[0]
        cosine, sine = inner.rotary_emb(torch.empty((), device=h.device), pack.positions)
        half = cosine.shape[-1] // 2
        turn = cosine[0, :, :half].contiguous(), sine[0, :, :half].contiguous()
        learning = False
        for block in self._blocks:
            learning = learning or block.learns
            anchor = self._anchor if learning else self._anchor.detach()
            h = BlockFunction.apply(h, anchor, block, turn, pack.slots, self._again)  # type: ignore[no-untyped-call]
        norm = inner.norm
        out: Tensor = RowNorm.apply(h[pack.predicts], norm.weight.detach(), norm.variance_epsilon)  # type: ignore[no-untyped-call]
        return out

    def _plain_hidden(self, pack: Pack) -> Tensor:
        """The same through transformers' own layers, with lean adapters and attention within segments.

        Layers left to peft (with dropout, say) hold fp32 weights and need autocast.
        """
        with self._arithmetic():
            out = self._base.base_model(
                input_ids=pack.input_ids,
                position_ids=pack.positions,
                use_cache=False,
                segments=pack,
                varlen=self._varlen,
            )
        hidden: Tensor = out.last_hidden_state[0][pack.predicts]
        return hidden

    def _arithmetic(self) -> AbstractContextManager[Any]:
        mixed = self._mixed and self._dtype != torch.float32
        return torch.autocast(self._base.device.type, dtype=self._dtype) if mixed else nullcontext()


def _has_varlen(device: torch.device) -> bool:
    """Whether torch's variable-length flash attention can be had on `device`: from Ampere on.

    Its first versions (torch 2.10) know neither scale nor shared heads. A device other than CUDA stands for one that
    has it.
    """
    from torch.nn.attention import varlen

    known = inspect.signature(varlen.varlen_attn).parameters
    recent = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
    return recent and {"scale", "window_size", "enable_gqa"} <= known.keys()


def make_fast(model: PeftModel, kind: str | None = None) -> FastModel | None:
    """The fast path of `model`, or None when its architecture is not known to allow packs. `kind`: see `FastModel`."""
    base: Any = model.get_base_model()
    head = plain_head(base)
    return FastModel(model, head, kind) if head is not None and _packable(base) else None


def make_fast_classifier(model: PeftModel) -> FastModel | None:
    """The fast path of the classifier `model`, or None when it is no decoder that is known to allow packs."""
    base: Any = model.get_base_model()
    plain = base.config.model_type in PLAIN and getattr(base, head_name(base), None) is not None
    return FastModel(model, None) if plain and _packable(base, f"{head_name(base)}.") else None


def _packable(base: Any, trained: str = "lora_") -> bool:
    """Whether the layers of `base` may read a pack, and nothing in it learns but adapters and what is `trained`."""
    kinds = set(getattr(base.config, "layer_types", None) or ())
    allowed = ("lora_", trained)
    learning = [name for name, parameter in base.named_parameters() if parameter.requires_grad]
    alone = all(any(part in name for part in allowed) for name in learning)
    return bool(getattr(base, "_supports_attention_backend", False)) and kinds <= _LAYERS and alone
