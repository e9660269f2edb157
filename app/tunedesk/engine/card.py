"""The model card of an exported adapter: what it was made from, how, and how to load it. Pure text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tunedesk import __version__
from tunedesk.core.describe import ModelInfo
from tunedesk.core.measures import measures_in
from tunedesk.core.methods import method
from tunedesk.core.plan import Resolved
from tunedesk.core.spec import RunSpec, fields_of
from tunedesk.core.state import RunState
from tunedesk.engine.label_head import LabelHead


@dataclass(frozen=True)
class CardFacts:
    """Everything that a card states.

    `base` is what loads the base on this computer, `hub_id` its name on the Hub where it has one. `data_sha256` is
    that of the training file when it was trained on; `step` is the checkpoint that the adapter is, or None for the
    run's result. `loader` is the function that loads what peft does not know, and its name.
    """

    title: str
    spec: RunSpec
    state: RunState
    info: ModelInfo
    base: str
    hub_id: str | None
    data_sha256: str | None
    versions: dict[str, str]
    step: int | None
    head: LabelHead | None = None
    loader: tuple[str, str] | None = None


def model_card(facts: CardFacts) -> str:
    """The README.md of the export, with front matter in the Hub's form."""
    parts = [
        _front_matter(facts),
        f"# {_one_line(facts.title)}",
        _opening(facts),
        _loading(facts),
        _data(facts),
        _settings(facts),
        _results(facts),
        _licence(facts),
        _made_with(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def library_card(facts: CardFacts) -> str:
    """The README.md of an adapter of the library: without the data, settings and results of a run, which it has not."""
    parts = [
        _front_matter(facts),
        f"# {_one_line(facts.title)}",
        _opening(facts),
        _loading(facts),
        _licence(facts),
        _made_with(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _front_matter(facts: CardFacts) -> str:
    lines = ["---"]
    tags = [facts.spec.method.name.replace("_", "-"), "tunedesk"]
    if facts.hub_id:
        lines.append(f"base_model: {json.dumps(facts.hub_id)}")
        tags.insert(0, f"base_model:adapter:{facts.hub_id}")
    if facts.info.licence:
        lines.append(f"license: {json.dumps(facts.info.licence)}")
    writes = "text2text-generation" if facts.info.kind == "seq2seq" else "text-generation"
    pipeline = "text-classification" if facts.head else writes
    library = "transformers" if facts.loader else "peft"
    lines += [f"library_name: {library}", f"pipeline_tag: {pipeline}", "tags:"]
    lines += [f"- {json.dumps(tag)}" for tag in tags]
    return "\n".join([*lines, "---"])


def _base_name(facts: CardFacts) -> str:
    return f"[{facts.hub_id}](https://huggingface.co/{facts.hub_id})" if facts.hub_id else facts.info.name


def _opening(facts: CardFacts) -> str:
    section = facts.spec.task
    task = {
        "chat": "to answer in conversations",
        "completion": "to go on with texts",
        "seq2seq": "to turn one text into another",
        "classification": _labelling(facts.head),
        "preference": f"to prefer better answers ({section.preference_loss.upper()}, beta {section.strictness:g})",
    }[facts.spec.task.kind]
    text = f"An adapter for {_base_name(facts)}, tuned with {method(facts.spec.method.name).title} {task}."
    if facts.info.origin in ("starter", "gguf"):
        text += " The base was read from a GGUF file: its weights are rounded, so the original may answer a little"
        text += " differently."
    if facts.step is not None:
        text += f" The run did not finish; this is its checkpoint of step {facts.step}."
    return text


def _labelling(head: LabelHead | None) -> str:
    if head is None or head.problem_type == "regression":
        return "to give texts a number"
    return f"to give texts {'any' if head.problem_type == 'multi_label' else 'one'} of {len(head.labels)} labels"


def _loading(facts: CardFacts) -> str:
    writes = "AutoModelForSeq2SeqLM" if facts.info.kind == "seq2seq" else "AutoModelForCausalLM"
    kind = "AutoModelForSequenceClassification" if facts.head else writes
    names = ""
    if facts.head:
        kind_of = f', problem_type="{facts.head.options()["problem_type"]}"'
        names = f", id2label={facts.head.names}{kind_of if facts.head.problem_type != 'single_label' else ''}"
    base = f"base = {kind}.from_pretrained({json.dumps(facts.base)}{names})\n"
    tokenizer = 'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")'
    if facts.loader:
        function, name = facts.loader
        code = f"from transformers import {kind}, AutoTokenizer\n{function}\n\n\n{base}"
        code += f'model = {name}(base, "path/to/this/folder")\n{tokenizer}'
    else:
        code = f"from peft import PeftModel\nfrom transformers import {kind}, AutoTokenizer\n\n{base}"
        code += f'model = PeftModel.from_pretrained(base, "path/to/this/folder")\n{tokenizer}'
    if facts.head:
        code += f"\n\n{_asking(facts.head, facts.info)}"
    elif facts.info.kind == "seq2seq":
        code += f"\n\n{_TURNING}"
    note = _batches(facts) if facts.head and facts.info.kind == "decoder" else ""
    if facts.hub_id and facts.hub_id != facts.base:
        note += f"\n\nOn another computer, load the base as `{facts.hub_id}`."
    elif not facts.hub_id:
        note += "\n\nOn another computer, name the folder of the same base model there."
    return f"## Load it\n\n```python\n{code}\n```{note}"


_TURNING = """\
inputs = tokenizer("A text to turn into another.", return_tensors="pt", return_token_type_ids=False)
written = model.eval().generate(**inputs, max_new_tokens=100)
print(tokenizer.decode(written[0], skip_special_tokens=True))"""


def _asking(head: LabelHead, info: ModelInfo) -> str:
    """The lines that put a text to a classifier and print what it says of it."""
    lines = []
    text = '"A text.", "Its pair."' if head.pair else '"A text.", return_token_type_ids=False'
    if info.kind == "decoder":
        lines = ["base.config.get_text_config().pad_token_id = None  # what counts is the last token, whatever it is"]
        text = '"A text.\\nIts pair."' if head.pair else '"A text."'
        text += ", return_token_type_ids=False"
    lines += [f'scores = model.eval()(**tokenizer({text}, return_tensors="pt")).logits[0]']
    match head.problem_type:
        case "single_label":
            lines.append("print(base.config.id2label[int(scores.argmax())])")
        case "multi_label":
            lines.append("print([name for place, name in base.config.id2label.items() if scores[place] > 0])")
        case "regression":
            lines.append(f"print(float(scores[0]) * {head.std!r} + {head.mean!r})  # back to the data's own units")
    return "\n".join(lines)


def _batches(facts: CardFacts) -> str:
    """How a decoder is given more than one text."""
    note = "\n\nGive it one text at a time."
    if facts.spec.method.places_taken:
        return f"{note} With texts of several lengths at once, transformers would look at padding."
    return f"{note} For several at once, pad at the right and set `pad_token_id` to a token that no text ends in."


def _data(facts: CardFacts) -> str:
    name = Path(facts.spec.data.train).name
    lines = [f"- File: `{name}`"]
    if facts.data_sha256:
        lines.append(f"- SHA-256: `{facts.data_sha256}`")
    began = facts.state.began
    if began:
        lines.append(f"- Rows: {began.train_rows:,} to learn from, {began.eval_rows:,} held out")
    return "## Data\n\n" + "\n".join(lines)


def _settings(facts: CardFacts) -> str:
    spec = facts.spec
    rows: list[tuple[str, object]] = [
        ("Method", method(spec.method.name).title),
        *[(key.replace("_", " ").capitalize(), _plain(getattr(spec.method, key))) for key in _own_fields(spec)],
        ("Schedule", f"{spec.training.lr_scheduler}, warm-up {spec.training.warmup_ratio:.0%} of the steps"),
        ("Weight decay", spec.training.weight_decay),
        ("Longest gradient", spec.training.max_grad_norm),
        ("Seed", spec.training.seed),
    ]
    if facts.state.plan:
        resolved = _resolved(facts.state.plan.resolved)
        rows[1:1] = resolved if "alpha" in fields_of(spec.method.name) else resolved[1:]
    began = facts.state.began
    if began:
        rows += [("Trainable weights", f"{began.trainable_parameters:,} of {began.total_parameters:,}")]
        rows += [("Device", f"{began.device}, {began.precision}")]
    return "## Settings\n\n" + _table(("Setting", "Value"), rows)


def _own_fields(spec: RunSpec) -> list[str]:
    """The method's own settings that say something: what is off or left to TuneDesk does not; alpha is resolved."""
    return [key for key in fields_of(spec.method.name) if key != "alpha" and _plain(getattr(spec.method, key)) != ""]


def _plain(value: object) -> object:
    if value is None or value is False or value == "auto":
        return ""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else value


def _resolved(values: Resolved) -> list[tuple[str, object]]:
    return [
        ("Alpha", f"{values.alpha:g}"),
        ("Learning rate", f"{values.learning_rate:g}"),
        ("Rows per update", values.micro_batch_size * values.gradient_accumulation_steps),
        ("Micro-batch", values.micro_batch_size),
        ("Longest row", f"{values.max_length:,} tokens"),
        ("Gradient checkpointing", "on" if values.gradient_checkpointing else "off"),
    ]


def _results(facts: CardFacts) -> str:
    state = facts.state
    rows: list[tuple[str, object]] = []
    if state.base_loss is not None:
        rows.append(("Base, held out", f"{state.base_loss:.4f}"))
    if state.best:
        rows.append((f"Best, held out (step {state.best.step:,})", f"{state.best.loss:.4f}"))
        rows += [(f"{item.title}, held out", item.words(value)) for item, value in measures_in(state.best.metrics)]
    if state.evaluations:
        last = state.evaluations[-1]
        rows.append((f"Last, held out (step {last.step:,})", f"{last.loss:.4f}"))
    if state.steps:
        rows.append((f"Last, training (step {state.step:,})", f"{state.steps[-1].loss:.4f}"))
    if not rows:
        return ""
    intro = "Loss in nats per row." if facts.head else "Loss in nats per trained token."
    if facts.spec.task.kind == "preference":
        kto = facts.spec.task.preference_loss == "kto"
        intro = "Loss per answer, between 0 and its weight." if kto else "Loss in nats per pair."
        intro += " The reward margin is in nats."
    if facts.head and facts.head.problem_type == "regression":
        intro = "Loss as squared error, in squared standard deviations of the numbers that were trained on."
    if state.began:
        intro += f" {state.step:,} of {state.began.total_steps:,} steps were trained."
    if state.adapter and facts.step is None:
        intro += f" The adapter holds the weights of step {state.adapter.step:,}."
    return f"## Results\n\n{intro}\n\n" + _table(("Loss", "Value"), rows)


def _licence(facts: CardFacts) -> str:
    if facts.info.licence:
        return f"## Licence\n\nThe base model is under `{facts.info.licence}`; the adapter inherits its terms."
    return "## Licence\n\nThe base model does not state its licence. Find out before you pass the adapter on."


def _made_with(facts: CardFacts) -> str:
    versions = {"TuneDesk": __version__, **facts.versions}
    return "Made with " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."


def _table(head: tuple[str, str], rows: list[tuple[str, object]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {value} |" for name, value in rows])
