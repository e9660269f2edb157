"""The methods, each declared once: words, fields, defaults and their sources.

The command line, the Method page, the planner and the model card all read from here. How many weights a method trains
is in `tunedesk.core.counts`, which models it works on in `tunedesk.core.matching`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunedesk.core.describe import TaskKind
from tunedesk.core.spec import MethodName

Group = Literal["inside", "virtual", "parts", "whole"]

TRAINABLE: tuple[MethodName, ...] = (
    "lora", "qlora", "adalora", "ia3", "houlsby", "compacter", "prefix_tuning", "prompt_tuning", "p_tuning", "bitfit",
    "last_layer", "full",
)  # fmt: skip
"""The methods that the engine trains: those that may be offered for a run."""

GROUPS: dict[Group, str] = {
    "inside": "Adapters inside the network",
    "virtual": "Virtual tokens before the text",
    "parts": "Parts of the model",
    "whole": "All of it",
}


@dataclass(frozen=True)
class MethodField:
    """A setting of a method and what it does to memory, time and quality.

    `choices` are numbers worth offering, `options` the words that the setting may be.
    """

    key: str
    label: str
    help: str
    choices: tuple[int, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """What a person should know of a method before choosing it.

    `changes` says what it changes in the network, and `drawing` names its schematic. `quantised` methods hold the base
    in 4 bits; `four_bit` ones can. `merges` says whether what was learned becomes part of the model's own weights,
    `virtual` that it takes places from the context. `rates` says where its learning rate comes from.
    """

    name: MethodName
    group: Group
    title: str
    summary: str
    suits: str
    changes: str
    good: tuple[str, ...]
    poor: tuple[str, ...]
    drawing: str
    source: str
    rates: str
    fields: tuple[MethodField, ...]
    quantised: bool = False
    four_bit: bool = True
    merges: bool = False
    virtual: bool = False


RANK = MethodField(
    "rank",
    "Rank",
    "Room to learn. A higher rank learns more detail; the adapter and its optimiser grow in step, time hardly.",
    (4, 8, 16, 32, 64),
)
ALPHA = MethodField(
    "alpha",
    "Strength (alpha)",
    "How loud the adapter is. Twice the rank suits most runs. No effect on memory or time.",
)
DROPOUT = MethodField(
    "dropout",
    "Dropout",
    "Switches off a share of the adapter at random in each step. A little (0.05) helps against memorising small data.",
)
TARGETS = MethodField(
    "target_modules",
    "Where",
    "Which layers get an adapter. All linear layers learn best; attention only is smaller and a little faster.",
)
LORA_FIELDS = (RANK, ALPHA, DROPOUT, TARGETS)

RSLORA = MethodField(
    "rslora",
    "Steady scale (rsLoRA)",
    "Divides by the root of the rank, so that ranks of 64 and more keep learning. No effect on memory or time.",
)
DORA = MethodField(
    "dora",
    "Length apart (DoRA)",
    "Learns how long each weight column is apart from where it points. Often better at low ranks; slower, more memory.",
)
INIT = MethodField(
    "init",
    "Start",
    "pissa starts from the principal parts of each matrix and may learn faster. Takes longer to begin; not in 4 bits.",
    options=("default", "pissa"),
)
LORA_PLUS = MethodField(
    "lora_plus_ratio",
    "Faster second matrix (LoRA+)",
    "How many times larger the steps of the second matrix are; 16 is usual. May learn faster. Costs nothing.",
    (4, 8, 16),
)
QUANTISED = MethodField(
    "quantised",
    "4-bit weights",
    "Holds the frozen weights in 4 bits: a quarter of their memory, slower steps, perhaps slightly weaker answers.",
)
VIRTUAL_TOKENS = MethodField(
    "virtual_tokens",
    "Virtual tokens",
    "Room to learn. Each takes a place from the context and makes every answer a little slower. Many train slowly.",
    (5, 10, 20, 50, 100),
)
PREFIX_PROJECTION = MethodField(
    "prefix_projection",
    "By way of a network",
    "A small network makes the prefix: steadier, with far more to train and to hold. It is dropped at the end.",
)
PROMPT_INIT = MethodField(
    "prompt_init",
    "Start",
    "What the virtual tokens start as. A text that names the task learns faster than random numbers. Costs nothing.",
    options=("random", "text", "vocabulary"),
)
PROMPT_TEXT = MethodField(
    "prompt_text",
    "Text to start from",
    "The task in a sentence, as you would prompt it. Costs nothing; a good one saves steps.",
)
ENCODER = MethodField(
    "encoder",
    "Network",
    "What makes the virtual tokens while training. An LSTM ties them together and is slower than plain layers.",
    options=("mlp", "lstm"),
)
ENCODER_WIDTH = MethodField(
    "encoder_hidden_size",
    "Width of the network",
    "A wider one can learn more and takes more memory while training. It is dropped at the end.",
    (128, 256, 512),
)
BOTTLENECK = MethodField(
    "bottleneck",
    "Width of the waist",
    "Room to learn. A wider waist learns more; the adapter and its optimiser grow in step, and answers slow down.",
    (8, 16, 32, 64, 128, 256),
)
HYPERCOMPLEX = MethodField(
    "hypercomplex",
    "Pieces",
    "How many products each matrix is made of. More can express more, at next to no memory and a little time.",
    (2, 4, 8, 12),
)
_LORA_KINDS = (*LORA_FIELDS, RSLORA, DORA, INIT, LORA_PLUS, QUANTISED)

CATALOGUE: tuple[Method, ...] = (
    Method(
        name="lora",
        group="inside",
        title="LoRA",
        summary="Adds two thin matrices beside each frozen one.",
        suits="most tasks",
        changes="Beside a frozen matrix W runs a second path: down to a few numbers (the rank), up again, added to W's "
        "output.",
        good=(
            "Merges into the model without a trace",
            "One small file per task",
            "Keeps what the model knew",
        ),
        poor=("A model that does not fit in memory at 16 bits", "Teaching a wholly new language or domain"),
        drawing="lora",
        source="Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685",
        rates="Dettmers et al. 2023 (table 9) from 3 billion weights up; below, about ten times that of full "
        "fine-tuning (Schulman et al. 2025)",
        fields=_LORA_KINDS,
        merges=True,
    ),
    Method(
        name="qlora",
        group="inside",
        title="QLoRA",
        summary="LoRA over weights held in 4 bits.",
        suits="a large model, little memory",
        changes="As LoRA, and the frozen matrices are rounded to 4 bits, with a scale for every 64 weights.",
        good=("About a quarter of the memory for weights", "Large models on one small card"),
        poor=("Slower than LoRA when the model fits anyway", "Answers may be slightly weaker"),
        drawing="qlora",
        source="Dettmers et al. 2023, QLoRA: Efficient Finetuning of Quantized LLMs, arXiv:2305.14314",
        rates="Dettmers et al. 2023 (table 9), as LoRA",
        fields=_LORA_KINDS,
        quantised=True,
        merges=True,
    ),
    Method(
        name="adalora",
        group="inside",
        title="AdaLoRA",
        summary="LoRA that moves its rank to where it helps.",
        suits="the best use of a small rank",
        changes="As LoRA, with a factor on each rank; the least useful ranks are set to zero as training goes on.",
        good=("Spends a small rank where it matters most", "Merges into the model"),
        poor=("Starts at one and a half times the rank, so it needs more memory than LoRA", "Very short runs"),
        drawing="adalora",
        source="Zhang et al. 2023, Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning, arXiv:2303.10512",
        rates="as LoRA; Zhang et al. 2023 use 5e-4 to 2e-3 on DeBERTaV3-base",
        fields=(*LORA_FIELDS, QUANTISED),
        merges=True,
    ),
    Method(
        name="ia3",
        group="inside",
        title="IA³",
        summary="Scales keys, values and inner activations.",
        suits="tiny files, little data",
        changes="Each key, each value and each inner activation of the feed-forward is multiplied by a trained factor.",
        good=("A few thousand to a few hundred thousand weights", "Merges into the model", "Little room to memorise"),
        poor=("Learning much that is new", "Saving memory: it takes about as much as LoRA while training"),
        drawing="ia3",
        source="Liu et al. 2022, Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context "
        "Learning, arXiv:2205.05638",
        rates="Liu et al. 2022 (section 3.6): 3e-3",
        fields=(QUANTISED,),
        merges=True,
    ),
    Method(
        name="houlsby",
        group="inside",
        title="Bottleneck adapters",
        summary="Two small networks in every block.",
        suits="many tasks on one encoder",
        changes="After attention and after the feed-forward of each block, a small network narrows, bends and widens "
        "the signal and adds it.",
        good=("Near full fine-tuning on classification", "One small file per task, swapped on one model"),
        poor=("Speed: its layers cannot be merged and stay in every answer", "Tools that read LoRA only"),
        drawing="houlsby",
        source="Houlsby et al. 2019, Parameter-Efficient Transfer Learning for NLP, arXiv:1902.00751",
        rates="3e-4, the middle of the sweep of Houlsby et al. 2019 (3e-5 to 3e-3) and the value of Karimi Mahabadi et "
        "al. 2021",
        fields=(BOTTLENECK, QUANTISED),
    ),
    Method(
        name="compacter",
        group="inside",
        title="Compacter",
        summary="The same networks, woven from shared pieces.",
        suits="very many tasks, tiny files",
        changes="As bottleneck adapters, with each matrix a sum of Kronecker products of small ones, partly shared by "
        "all blocks.",
        good=("Adapters of well under a tenth of a per cent of the model", "One tiny file per task"),
        poor=("Speed: its layers cannot be merged and stay in every answer", "Learning much that is new"),
        drawing="compacter",
        source="Karimi Mahabadi et al. 2021, Compacter: Efficient Low-Rank Hypercomplex Adapter Layers, "
        "arXiv:2106.04647",
        rates="Karimi Mahabadi et al. 2021, in their own settings: 3e-3",
        fields=(BOTTLENECK, HYPERCOMPLEX, QUANTISED),
    ),
    Method(
        name="prefix_tuning",
        group="virtual",
        title="Prefix tuning",
        summary="Trained keys and values before each layer's own.",
        suits="a steady manner, such as an assistant's",
        changes="In every layer, attention finds a few trained keys and values before those of the text.",
        good=("A steady manner or persona from little data", "The model's own weights stay as they are"),
        poor=(
            "Recomputing activations to save memory",
            "Skills that must stay: a prefix that is trained hard drowns them while it is on",
            "Long contexts: it takes places from them",
        ),
        drawing="prefix",
        source="Li and Liang 2021, Prefix-Tuning: Optimizing Continuous Prompts for Generation, arXiv:2101.00190",
        rates="1e-2, as in peft's own example, and 5e-3 from 3 billion weights up, as in peft's comparison of methods",
        fields=(VIRTUAL_TOKENS, PREFIX_PROJECTION, ENCODER_WIDTH, QUANTISED),
        virtual=True,
    ),
    Method(
        name="prompt_tuning",
        group="virtual",
        title="Prompt tuning",
        summary="Trained embeddings before the input.",
        suits="one narrow task on a large model",
        changes="A few trained vectors stand before the text, where the embeddings of words would be.",
        good=("Some ten thousand weights in all", "Hundreds of tasks on one model in memory"),
        poor=("Small models: it comes level with full fine-tuning near 10 billion weights", "Broad tasks"),
        drawing="prompt",
        source="Lester et al. 2021, The Power of Scale for Parameter-Efficient Prompt Tuning, arXiv:2104.08691",
        rates="3e-2 with AdamW, as in peft's own example, and 1e-2 from 3 billion weights up; Lester et al. 2021 use "
        "0.3 with Adafactor",
        fields=(VIRTUAL_TOKENS, PROMPT_INIT, PROMPT_TEXT, QUANTISED),
        virtual=True,
    ),
    Method(
        name="p_tuning",
        group="virtual",
        title="P-tuning",
        summary="Prompt tuning by way of a small network.",
        suits="a narrow task, little data",
        changes="As prompt tuning, and a small network makes the vectors while training; only the vectors are kept.",
        good=("Steadier to train than prompt tuning", "A tiny file: the network is dropped"),
        poor=("Small models", "Broad tasks"),
        drawing="p_tuning",
        source="Liu et al. 2021, GPT Understands, Too, arXiv:2103.10385",
        rates="1e-3, as in peft's own example",
        fields=(VIRTUAL_TOKENS, ENCODER, ENCODER_WIDTH, QUANTISED),
        virtual=True,
    ),
    Method(
        name="bitfit",
        group="parts",
        title="BitFit",
        summary="Trains the biases alone.",
        suits="small data on an encoder",
        changes="The bias of each layer and norm moves; every matrix stays as it is.",
        good=("About a thousandth of the weights", "Nothing added: answers are as fast as before"),
        poor=("Models without biases: LLaMA, Mistral, Gemma, Qwen3, T5", "Large data"),
        drawing="bitfit",
        source="Ben Zaken et al. 2022, BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked "
        "Language-models, arXiv:2106.10199",
        rates="1e-3, the upper end of Ben Zaken et al. 2022 (1e-4 to 1e-3) and their own example",
        fields=(),
        four_bit=False,
        merges=True,
    ),
    Method(
        name="last_layer",
        group="parts",
        title="Last layer only",
        summary="Trains the output layer and nothing else.",
        suits="a yardstick",
        changes="The head that gives labels, or the matrix that scores the vocabulary, moves; all below is frozen.",
        good=("The fastest to train", "Shows how much the other methods gain"),
        poor=("Quality: what lies below cannot adapt, and that is usually not enough", "Models that write"),
        drawing="last_layer",
        source="Peters et al. 2019, To Tune or Not to Tune? Adapting Pretrained Representations to Diverse Tasks, "
        "arXiv:1903.05987",
        rates="1e-3, the default step of Adam (Kingma and Ba 2015)",
        fields=(QUANTISED,),
        merges=True,
    ),
    Method(
        name="full",
        group="whole",
        title="Full fine-tuning",
        summary="Trains every weight.",
        suits="small models, the last point of quality",
        changes="Every weight of the network moves.",
        good=(
            "The highest quality that the data allows",
            "A new language or domain",
            "Small models, where it costs little",
        ),
        poor=(
            "Memory: 16 bytes a weight for weight, gradient and two moments in fp32",
            "Disk: a whole model per task",
            "Forgetting: nothing holds the old skills",
        ),
        drawing="full",
        source="Devlin et al. 2018, BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding, "
        "arXiv:1810.04805",
        rates="5e-5 below half a billion weights (Devlin et al. 2018), 2e-5 at 7 billion and 1e-5 at 13 billion (Taori "
        "et al. 2023, Alpaca)",
        fields=(),
        four_bit=False,
        merges=True,
    ),
)
"""Every method, in the order of the guide.

What is said of memory and of old skills rests on peft's comparison of methods (method_comparison/MetaMathQA, Llama 3.2
3B): at its peak LoRA takes 20.8 GiB, IA³ 21.6, prefix tuning 20.5, prompt tuning 22.7 and full fine-tuning 36.2; the
loss on other text rises by 0.05 with LoRA, 0.74 with prompt tuning and 1.79 with prefix tuning.
"""


def offered() -> tuple[Method, ...]:
    """The methods that may be chosen for a run."""
    return tuple(item for item in CATALOGUE if item.name in TRAINABLE)


METHODS = offered()


def method(name: str) -> Method:
    """The method called `name`; raises `KeyError`."""
    return {item.name: item for item in CATALOGUE}[name]  # type: ignore[index]


_LORA_RATES = ((30e9, 1e-4), (3e9, 2e-4), (0.5e9, 5e-4), (0, 1e-3))

_RATES: dict[MethodName, tuple[tuple[float, float], ...]] = {
    "lora": _LORA_RATES,
    "qlora": _LORA_RATES,
    "adalora": ((30e9, 2e-4), (3e9, 5e-4), (0.5e9, 1e-3), (0, 2e-3)),
    "ia3": ((0, 3e-3),),
    "houlsby": ((0, 3e-4),),
    "compacter": ((0, 3e-3),),
    "prefix_tuning": ((3e9, 5e-3), (0, 1e-2)),
    "prompt_tuning": ((3e9, 1e-2), (0, 3e-2)),
    "p_tuning": ((0, 1e-3),),
    "bitfit": ((0, 1e-3),),
    "last_layer": ((0, 1e-3),),
    "full": ((10e9, 1e-5), (0.5e9, 2e-5), (0, 5e-5)),
}
"""By method: (weights of the model from which on, learning rate), the largest first."""


_LABELS_RATE = 5e-4
_T5_RATE = 1e-4
_PREFERENCE_SHARE = 0.05
_ORPO_SHARE = 0.4


def default_learning_rate(name: MethodName, parameters: int, task: TaskKind = "chat", preference: str = "dpo") -> float:
    """Peak learning rate of the method `name`, with AdamW, for a model of `parameters` weights.

    For preferences their loss is `preference`.

    LoRA, QLoRA and AdaLoRA: 2e-4 for 7B to 13B and 1e-4 above is the setting of Dettmers et al. 2023 (table 9). Smaller
    models take larger steps: the best LoRA rate lies near ten times that of full fine-tuning (Schulman et al. 2025,
    LoRA Without Regret), which grows as models shrink. Zhang et al. 2023 train AdaLoRA on DeBERTaV3-base (184M) with
    5e-4 to 2e-3. For classification Hu et al. 2021 (table 9) take 4e-4 to 5e-4 on RoBERTa-base; with twice that the
    starter encoder's held-out loss jumps about.

    Full: Devlin et al. 2018 use 2e-5 to 5e-5 on 110M and 340M; Taori et al. 2023 (Alpaca) 2e-5 on 7B, 1e-5 on 13B. A
    T5 wants more: 1e-4 to 3e-4 by transformers' own guide, 3e-4 in Karimi Mahabadi et al. 2021.

    IA³: 3e-3 (Liu et al. 2022, section 3.6, with Adafactor). Bottleneck adapters: Houlsby et al. 2019 sweep 3e-5, 3e-4
    and 3e-3; Karimi Mahabadi et al. 2021 use 3e-4 for them and 3e-3 for Compacter (their seq2seq/configs). BitFit:
    1e-4 to 1e-3 (Ben Zaken et al. 2022), whose own example takes 1e-3.

    Prompt tuning: 0.3 with Adafactor and 30,000 steps in Lester et al. 2021; with AdamW peft's example takes 3e-2 on
    560M and its comparison of methods 1e-3 on 3B, so it is lower for large models here. Prefix tuning: 5e-5 by way of
    the network in Li and Liang 2021; trained directly 1e-2 in peft's example (RoBERTa-large) and 1e-3 to 5e-3 in its
    comparison on 3B. P-tuning: 1e-3 in peft's example. Last layer: Adam's own default (Kingma and Ba 2015).

    Preferences: a twentieth of all of these with DPO and KTO. For full fine-tuning from half a billion to 10 billion
    that is 1e-6, TRL's default, and 5e-7 above (Zephyr, Tunstall et al. 2023); for LoRA it lies between 5e-6, as in
    TRL's own example on 0.5B and in Zephyr's recipe, and 5e-5 for small models, with which the starter model prefers
    the better answer of all held-out starter pairs within an epoch. ORPO learns the better answers themselves as well:
    8e-6 on 7B in Hong et al. 2024, two fifths of the usual.
    """
    rate = next(rate for least, rate in _RATES[name] if parameters >= least)
    if task == "seq2seq" and name == "full":
        return max(rate, _T5_RATE)
    if task == "preference":
        return rate * (_ORPO_SHARE if preference == "orpo" else _PREFERENCE_SHARE)
    return min(rate, _LABELS_RATE) if task == "classification" and name in ("lora", "qlora") else rate
