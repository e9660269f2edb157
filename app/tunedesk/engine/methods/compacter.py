'''Compacter: bottleneck adapters made of Kronecker products (Karimi Mahabadi et al. 2021, arXiv:2106.04647).

A matrix of k x d is the sum over i of A_i (n x n) times, by Kronecker, s_i t_i' (k/n x d/n). The A_i are the same in
all adapters: n³ weights in all and k + d a matrix, with biases of k and d. To load a saved one with torch and
transformers alone:

```python
def load_compacter(model, folder):
    """`model`, fresh from `from_pretrained`, with the adapters in `folder`."""
    with open(f"{folder}/adapter_config.json", encoding="utf-8") as file:
        places = json.load(file)["places"]
    weights = load_file(f"{folder}/adapter_model.safetensors", device=str(model.device))
    shared = weights.pop("shared")
    for number, place in enumerate(places):
        parts = [f"adapters.{number}.{side}_{part}" for side in ("down", "up") for part in ("s", "t", "bias")]
        s, t, b, u, v, d = (weights.pop(part) for part in parts)
        a = sum(torch.kron(each, torch.outer(s[i], t[i])) for i, each in enumerate(shared))
        c = sum(torch.kron(each, torch.outer(u[i], v[i])) for i, each in enumerate(shared))
        add = lambda _, inputs, out, a=a, b=b, c=c, d=d: out + linear(gelu(linear(out, a, b)), c, d)
        model.get_submodule(place).register_forward_hook(add)
    model.load_state_dict(weights, strict=False)  # a classifier's head
    return model
```
'''

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear
from transformers import PreTrainedModel

from tunedesk.core.problems import Problem, ProblemError
from tunedesk.engine.methods.base import OwnTuned, Setting
from tunedesk.engine.methods.bottleneck import BottleneckModel, common_config, prepare


class KroneckerBottleneck(nn.Module):
    """One adapter: (..., hidden) to what is added to it, (..., hidden), by matrices of rank-1 parts over `pieces`.

    At first the narrowing matrix has the spread of a usual linear layer, 1 / hidden, and the widening one is zero: an
    untrained adapter changes nothing. The paper leaves the scale open.
    """

    def __init__(self, hidden: int, waist: int, pieces: int) -> None:
        super().__init__()
        self.down_s = nn.Parameter(torch.randn(pieces, waist // pieces))
        self.down_t = nn.Parameter(torch.randn(pieces, hidden // pieces) / hidden**0.5)
        self.down_bias = nn.Parameter(torch.zeros(waist))
        self.up_s = nn.Parameter(torch.zeros(pieces, hidden // pieces))
        self.up_t = nn.Parameter(torch.randn(pieces, waist // pieces) / waist**0.5)
        self.up_bias = nn.Parameter(torch.zeros(hidden))

    def forward(self, x: Tensor, shared: Tensor) -> Tensor:
        """What the adapter adds to `x`; `shared` are the A_i, (pieces, pieces, pieces)."""
        inner = gelu(linear(x, product(shared, self.down_s, self.down_t), self.down_bias))
        return linear(inner, product(shared, self.up_s, self.up_t), self.up_bias)


def product(shared: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """The sum over i of shared_i by s_i t_i', a matrix of (n * s, n * t) from (n, n, n), (n, s) and (n, t), in fp32."""
    with torch.autocast(shared.device.type, enabled=False):
        parts = torch.einsum("ijk,ia,ib->jakb", shared, s, t)
    return parts.reshape(shared.shape[1] * s.shape[1], shared.shape[2] * t.shape[1])


def attach(model: PreTrainedModel, setting: Setting) -> OwnTuned:
    """`model` with fresh adapters in fp32. Raises `ProblemError` when the sizes do not divide or layers are unknown."""
    prepare(model, setting)
    config, section = common_config(model, "compacter"), setting.section
    hidden, pieces = config["hidden_size"], section.hypercomplex
    if hidden % pieces:
        raise ProblemError(
            Problem(
                code="method.hypercomplex",
                what="The model's width cannot be cut into so many equal parts.",
                where="RUN.toml, key 'hypercomplex' in [method].",
                found=f"The hidden size is {hidden:,}, hypercomplex is {pieces}.",
                fix="Choose one of " + ", ".join(str(size) for size in (2, 3, 4, 6, 8, 12) if hidden % size == 0) + ".",
            )
        )
    return OwnTuned(rebuild(model, {**config, "bottleneck": section.waist(hidden), "hypercomplex": pieces}))


def rebuild(model: PreTrainedModel, config: dict[str, Any]) -> BottleneckModel:
    """`model` with adapters as `config` says, ready for saved weights."""
    pieces = config["hypercomplex"]
    shared = nn.Parameter(torch.randn(pieces, pieces, pieces) / pieces**0.5)
    adapters = [KroneckerBottleneck(config["hidden_size"], config["bottleneck"], pieces) for _ in config["places"]]
    return BottleneckModel(model, config, adapters, shared)
