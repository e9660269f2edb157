"""Plain descriptions of a model and of a dataset, as the engine reports them and everyone else reads them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

TaskKind = Literal["chat", "completion", "classification", "seq2seq", "preference"]
ProblemType = Literal["single_label", "multi_label", "regression"]
"""What a classifier says of a text: one label, any number of them, or a measured number."""


class _Description(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LinearShape(_Description):
    """`count` weight matrices named `name` (``q_proj``) of shape `out_features` x `in_features`."""

    name: str
    in_features: int
    out_features: int
    count: int


class ModelInfo(_Description):
    """A model read from its configuration, tokenizer files and tensor headers; no weights are loaded.

    `path` is the local folder of safetensors that is loaded, or None while the model is not on this computer.
    `kind` is ``decoder`` (writes text), ``encoder`` (reads text) or ``seq2seq``.

    The last fields say what methods need to know; None is not known, as in descriptions made by older versions.
    `biases` counts the biases, of norms too. `layer_kinds` are the kinds of layers that there are, in transformers'
    words (``full_attention``, ``sliding_attention``, ``conv``), or ``recurrent`` and ``latent_attention``; with
    `sliding_window` a sliding one sees that many tokens. `takes_past`: whether attention takes keys and values that
    were there before the text. `classifies`: whether transformers has a classifier of this family.
    """

    source: str
    path: str | None
    name: str
    family: str
    architecture: str
    kind: Literal["decoder", "encoder", "seq2seq", "other"]
    parameters: int
    weight_bytes: int
    dtype: str
    context_length: int | None
    vocabulary: int
    hidden_size: int
    intermediate_size: int
    layers: int
    attention_heads: int
    key_value_heads: int
    tied_embeddings: bool
    linears: tuple[LinearShape, ...]
    licence: str | None
    has_chat_template: bool
    tasks: tuple[TaskKind, ...]
    origin: Literal["starter", "folder", "gguf", "hub"]
    biases: int | None = None
    layer_kinds: tuple[str, ...] = ()
    sliding_window: int | None = None
    takes_past: bool | None = None
    classifies: bool | None = None
    embedding_size: int | None = None


class Finding(_Description):
    """Something about the data that the user should know. `rows` are 1-based line or row numbers (the first few)."""

    code: str
    level: Literal["info", "warn"]
    text: str
    detail: str = ""
    count: int
    rows: tuple[int, ...] = ()


class TokenStats(_Description):
    """Lengths in tokens, template included. `histogram` counts rows in bins of `bin_width` tokens from 0 on."""

    tokens: int
    trained_tokens: int
    median: int
    p90: int
    longest: int
    bin_width: int
    histogram: tuple[int, ...]
    max_length: int
    cut_rows: int
    mean_trained: float


class LabelCount(_Description):
    """A label of classification data and how many rows have it."""

    name: str
    rows: int


class DataInfo(_Description):
    """A file of training data. `layout` is how a row holds its text; `columns` maps roles to column names.

    `labels` are those of classification data in the order of the model's outputs; of other data there are none. Its
    `problem_type` says whether a text has one label, several or a number, which lies within `span`.
    """

    source: str
    path: str
    name: str
    file_format: str
    bytes: int
    rows: int
    layout: Literal["messages", "sharegpt", "alpaca", "prompt_completion", "text", "labelled", "preference", "rated"]
    task: TaskKind
    columns: dict[str, str]
    all_columns: tuple[str, ...]
    train_rows: int
    eval_rows: int
    tokens: TokenStats | None
    findings: tuple[Finding, ...]
    sha256: str
    labels: tuple[LabelCount, ...] = ()
    problem_type: ProblemType | None = None
    span: tuple[float, float] | None = None


SpanKind = Literal["trained", "context", "template", "cut"]


class Span(_Description):
    """A run of text of one kind. With a model each span is one token; without, one piece of a turn."""

    text: str
    kind: SpanKind


class RenderedTurn(_Description):
    """One turn as the model sees it."""

    role: str
    spans: tuple[Span, ...]


class RenderedRow(_Description):
    """One row of the data as the model sees it; `row` is 1-based."""

    row: int
    turns: tuple[RenderedTurn, ...]
    tokens: int
    trained_tokens: int
