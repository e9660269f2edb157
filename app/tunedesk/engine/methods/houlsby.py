'''Bottleneck adapters: two small networks in every layer (Houlsby et al. 2019, arXiv:1902.00751).

Each adapter narrows H features to a waist of m, applies GELU, widens them again and adds them to what came in: 2Hm + m
+ H weights, twice a layer. To load a saved one with torch and transformers alone:

```python
def load_houlsby(model, folder):
    """`model`, fresh from `from_pretrained`, with the adapters in `folder`."""
    with open(f"{folder}/adapter_config.json", encoding="utf-8") as file:
        places = json.load(file)["places"]
    weights = load_file(f"{folder}/adapter_model.safetensors")
    for number, place in enumerate(places):
        parts = [f"adapters.{number}.{part}" for part in ("down.weight", "down.bias", "up.weight", "up.bias")]
        a, b, c, d = (weights.pop(part).to(model.device) for part in parts)
        add = lambda _, inputs, out, a=a, b=b, c=c, d=d: out + linear(gelu(linear(out, a, b)), c, d)
        model.get_submodule(place).register_forward_hook(add)
    model.load_state_dict(weights, strict=False)  # a classifier's head
    return model
```
'''

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import PreTrainedModel

from tunedesk.engine.methods.base import OwnTuned, Setting
from tunedesk.engine.methods.bottleneck import BottleneckModel, common_config, prepare

_SPREAD = 1e-2
"""Standard deviation of the first weights, cut at two of them (Houlsby et al. 2019, section 3.6)."""


class Bottleneck(nn.Module):
    """One adapter: (..., hidden) to what is added to it, (..., hidden).

    The paper draws both matrices near zero. Here the second is zero, so that an untrained adapter changes nothing at
    all and the loss before training is that of the untouched model.
    """

    def __init__(self, hidden: int, waist: int) -> None:
        super().__init__()
        self.down = nn.Linear(hidden, waist)
        self.up = nn.Linear(waist, hidden)
        nn.init.trunc_normal_(self.down.weight, std=_SPREAD, a=-2 * _SPREAD, b=2 * _SPREAD)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """What the adapter adds to `x`."""
        out: Tensor = self.up(gelu(self.down(x)))
        return out


def attach(model: PreTrainedModel, setting: Setting) -> OwnTuned:
    """`model` with fresh adapters in fp32. Raises `ProblemError` for a model whose layers it does not know."""
    prepare(model, setting)
    config = common_config(model, "houlsby")
    return OwnTuned(rebuild(model, {**config, "bottleneck": setting.section.waist(config["hidden_size"])}))


def rebuild(model: PreTrainedModel, config: dict[str, Any]) -> BottleneckModel:
    """`model` with adapters as `config` says, ready for saved weights."""
    adapters = [Bottleneck(config["hidden_size"], config["bottleneck"]) for _ in config["places"]]
    return BottleneckModel(model, config, adapters)
