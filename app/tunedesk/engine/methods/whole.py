'''Methods that train the model's own weights: all of them, its biases, or its output layer.

The file holds the trained weights by the names that they have in the model. To load them with transformers alone:

```python
def load_trained(model, folder):
    """`model`, fresh from `from_pretrained`, with the weights trained by full, bitfit or last_layer."""
    with open(f"{folder}/adapter_config.json", encoding="utf-8") as file:
        config = json.load(file)
    if config["untied"]:
        model.config.tie_word_embeddings = False
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
    model.load_state_dict(load_file(f"{folder}/adapter_model.safetensors"), strict=False)
    return model
```
'''

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from tunedesk.core.problems import Problem, ProblemError
from tunedesk.engine.loading import new_parts
from tunedesk.engine.methods.base import (
    OwnModel,
    OwnTuned,
    Setting,
    Weights,
    checkpoint_activations,
    in_fp32,
    task_type,
)


class WholeModel(OwnModel):
    """A model some of whose own weights, those named in the configuration, were trained.

    `originals` are those weights as they were, by name, kept where the untouched model is to be asked too.
    """

    def __init__(self, base: PreTrainedModel, method_config: dict[str, Any], keep: bool) -> None:
        super().__init__(base, method_config)
        if method_config["untied"]:
            untie(base)
        there = dict(base.named_parameters())
        self._trained = {name: there[name] for name in method_config["trained"]}
        self._originals: dict[str, Tensor] = {}
        if keep:
            self._originals = {name: item.data for name, item in self._trained.items()}
            for parameter in self._trained.values():
                parameter.data = parameter.data.clone()

    def switch(self, on: bool) -> None:
        """Exchange the trained weights and the originals. Raises `RuntimeError` where these were not kept."""
        del on  # it was the other way before
        if not self._originals:
            raise RuntimeError("The original weights are not kept while training.")
        for name, parameter in self._trained.items():
            parameter.data, self._originals[name] = self._originals[name], parameter.data

    def state(self) -> Weights:
        return {name: parameter.detach() for name, parameter in self._trained.items()}

    def merge(self) -> PreTrainedModel:
        return self.get_base_model()


def untie(base: PreTrainedModel) -> None:
    """Give the output layer a weight of its own where it shares that of the embeddings."""
    base.config.tie_word_embeddings = False
    head: Any = base.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)


def attach_full(model: PreTrainedModel, setting: Setting) -> OwnTuned:
    """Every weight learns, held in fp32."""
    return _attach(model, setting, "FULL", [name for name, _ in model.named_parameters()])


def attach_bitfit(model: PreTrainedModel, setting: Setting) -> OwnTuned:
    """The biases learn, of norms too, and a classifier's head (Ben Zaken et al. 2022).

    Raises `ProblemError` for a model without biases.
    """
    head = _head(model)
    biases = [name for name, _ in model.named_parameters() if name.rpartition(".")[2] == "bias" and name not in head]
    if not biases:
        raise ProblemError(
            Problem(
                code="method.no_biases",
                what="This model has no biases, and they are all that BitFit trains.",
                where="RUN.toml, key 'name' in [method].",
                found=f"None of the weights of {type(model).__name__} is a bias.",
                fix='Choose name = "ia3", which is as small, or name = "lora".',
            )
        )
    tuned = _attach(model, setting, "BITFIT", [*biases, *head])
    for name in biases:  # a norm wants its weight and its bias in one number format
        owner = model.get_submodule(name.rpartition(".")[0])
        if not isinstance(owner, nn.Linear) and owner.weight.dim() == 1:
            owner.weight.data = owner.weight.data.float()
    return tuned


def attach_last_layer(model: PreTrainedModel, setting: Setting) -> OwnTuned:
    """The output layer learns: a classifier's head, or the matrix that scores the vocabulary.

    Where that matrix is also the embedding, a copy of it is trained and the embedding stays as it was.
    """
    if new_parts(model):
        return _attach(model, setting, "LAST_LAYER", _head(model))
    head: Any = model.get_output_embeddings()
    tied = head.weight is model.get_input_embeddings().weight
    place = next(name for name, module in model.named_modules() if module is head)
    names = [f"{place}.{name}" for name, _ in head.named_parameters()]
    return _attach(model, setting, "LAST_LAYER", names, untied=tied)


def _head(model: PreTrainedModel) -> list[str]:
    """The names of the weights in a classifier's new parts."""
    inside = tuple(f"{part}." for part in new_parts(model))
    return [name for name, _ in model.named_parameters() if inside and name.startswith(inside)]


def _attach(model: PreTrainedModel, setting: Setting, kind: str, trained: list[str], untied: bool = False) -> OwnTuned:
    checkpoint_activations(model, setting.checkpointing)
    config = {"peft_type": kind, "task_type": task_type(model), "trained": trained, "untied": untied}
    tuned = WholeModel(model, config, keep=False)
    model.requires_grad_(False)
    in_fp32(list(tuned._trained.values()))
    return OwnTuned(tuned)


def rebuild(model: PreTrainedModel, config: dict[str, Any]) -> WholeModel:
    """`model`, fresh, ready for the weights that were saved with `config`; they take its number format."""
    return WholeModel(model, config, keep=True)
