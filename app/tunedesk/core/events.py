"""The contract between window and engine: jobs and commands go in, events come out, one JSON line each.

Every job begins with `Started` and ends with exactly one `Finished`. Both unions are strict: a field that is not
declared here is refused on either side.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, TypeAdapter

from tunedesk.core.describe import DataInfo, ModelInfo, ProblemType, RenderedRow, TaskKind
from tunedesk.core.plan import Plan
from tunedesk.core.problems import Problem

PROTOCOL = 1

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _read_number(value: Any) -> Any:
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def _write_number(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


Number = Annotated[
    float,
    BeforeValidator(_read_number),
    PlainSerializer(_write_number, when_used="json", return_type=float | str),
]
"""A float whose NaN and infinities survive the trip as words."""


class Line(BaseModel):
    """One line of JSON in either direction."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# Jobs: the first line that the engine reads.


class InspectModel(Line):
    """Describe a model; fetch it first when `fetch` is true and it is not here yet."""

    job: Literal["inspect_model"] = "inspect_model"
    source: str
    revision: str | None = None
    fetch: bool = True


class InspectData(Line):
    """Describe a file of training data; with a model, also what that model would see of it."""

    job: Literal["inspect_data"] = "inspect_data"
    source: str
    model: str | None = None
    task: Literal["auto"] | TaskKind = "auto"
    problem_type: Literal["auto"] | ProblemType = "auto"
    preference_loss: Literal["dpo", "kto", "orpo"] = "dpo"
    columns: dict[str, str] = Field(default_factory=dict)
    max_length: int | None = None
    validation_fraction: float = 0.1
    seed: int = 0
    examples: int = 20


class MakePlan(Line):
    """Resolve every `auto` of the run file in `run_toml` (text) and estimate memory for `device`."""

    job: Literal["plan"] = "plan"
    run_toml: str
    device: str = "auto"


class Train(Line):
    """Train the run in the folder `run`; go on from its last checkpoint when `resume` is true."""

    job: Literal["train"] = "train"
    run: str
    resume: bool = False


class Chat(Line):
    """Load a model, or a run's base with its adapter, and answer `Ask` commands until `Close`.

    `adapter` is the folder of an adapter of the library, or of a run, to begin with; `UseAdapter` changes it.
    """

    job: Literal["chat"] = "chat"
    run: str | None = None
    model: str | None = None
    adapter: str | None = None


class Export(Line):
    """Save a run's adapter, or that in the folder `adapter` of the library, to the folder `to`, and read it back."""

    job: Literal["export"] = "export"
    run: str | None = None
    adapter: str | None = None
    kind: Literal["adapter"] = "adapter"
    to: str
    replace: bool = False


class ImportAdapter(Line):
    """Take the adapter in the folder `source`, made elsewhere for `model`, into the library as `name`."""

    job: Literal["import_adapter"] = "import_adapter"
    source: str
    model: str
    name: str | None = None


class CombineAdapters(Line):
    """Add up LoRA adapters (folders of one base) by `weights` to a new one, `name`, in the library."""

    job: Literal["combine_adapters"] = "combine_adapters"
    adapters: tuple[str, ...]
    weights: tuple[float, ...]
    name: str


Job = Annotated[
    InspectModel | InspectData | MakePlan | Train | Chat | Export | ImportAdapter | CombineAdapters,
    Field(discriminator="job"),
]


# Commands: the lines after the job.


class Stop(Line):
    """End the job after the step or token at hand, keeping what there is."""

    kind: Literal["stop"] = "stop"


class SaveNow(Line):
    """Write a checkpoint after the step at hand."""

    kind: Literal["save_now"] = "save_now"


class Message(Line):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Sampling(Line):
    """How the next token is chosen; `temperature` 0 is greedy."""

    temperature: float = Field(default=0.7, ge=0, le=5)
    top_p: float = Field(default=0.95, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    repetition_penalty: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=256, ge=1)
    seed: int = 0


Side = Literal["base", "tuned"]


class Ask(Line):
    """Answer each conversation in `conversations` with the side that is its key, one after the other."""

    kind: Literal["ask"] = "ask"
    id: int
    conversations: dict[Side, tuple[Message, ...]]
    sampling: Sampling = Sampling()


class StopAnswer(Line):
    """Cut the answer at hand short; the chat goes on."""

    kind: Literal["stop_answer"] = "stop_answer"


class UseAdapter(Line):
    """Put the adapter in the folder `path` on the base in place of the one at work; None leaves the base alone.

    Takes effect after the questions that came before it; answered by `AdapterUsed`.
    """

    kind: Literal["use_adapter"] = "use_adapter"
    path: str | None


class Close(Line):
    """End a chat."""

    kind: Literal["close"] = "close"


Command = Annotated[Stop | SaveNow | Ask | StopAnswer | UseAdapter | Close, Field(discriminator="kind")]


# Events.


class _Event(Line):
    seq: int = 0
    time: Number = 0.0


class Started(_Event):
    """The first event of every job."""

    kind: Literal["started"] = "started"
    protocol: int = PROTOCOL
    job: str
    pid: int
    version: str


class Stage(_Event):
    """What the engine is doing now, as a sentence without a full stop: `Loading the model`."""

    kind: Literal["stage"] = "stage"
    text: str


class Progress(_Event):
    """How far the current stage is; `total` is None while unknown."""

    kind: Literal["progress"] = "progress"
    done: int
    total: int | None = None
    unit: Literal["bytes", "rows", "files", "tokens"] = "rows"


class Notice(_Event):
    """A sentence for the plain-words log."""

    kind: Literal["notice"] = "notice"
    level: Literal["info", "good", "warn"] = "info"
    text: str
    step: int | None = None


class ModelDescribed(_Event):
    """The answer to `InspectModel`; also sent by other jobs that load a model."""

    kind: Literal["model"] = "model"
    info: ModelInfo


class DataDescribed(_Event):
    """The answer to `InspectData`."""

    kind: Literal["data"] = "data"
    info: DataInfo
    examples: tuple[RenderedRow, ...] = ()


class PlanMade(_Event):
    """The answer to `MakePlan`; also sent by `Train` before it starts."""

    kind: Literal["plan"] = "plan"
    plan: Plan


class TrainingBegan(_Event):
    """Everything is loaded and the first step is next."""

    kind: Literal["training_began"] = "training_began"
    first_step: int
    total_steps: int
    steps_per_epoch: int
    train_rows: int
    eval_rows: int
    trainable_parameters: int
    total_parameters: int
    weight_bytes: int
    peak_learning_rate: float
    warmup_steps: int
    scheduler: str
    device: str
    precision: str


class StepDone(_Event):
    """One optimiser step. `loss` is the mean over the step's trained tokens, before the update."""

    kind: Literal["step"] = "step"
    step: int
    epoch: float
    loss: Number
    learning_rate: float
    gradient_norm: Number
    tokens: int
    trained_tokens: int
    seconds: float
    memory_bytes: int


class Evaluated(_Event):
    """Loss on the held-out rows; `step` 0 is the untouched base model.

    `metrics` are those that suit the task, by name; `core.measures` says what each is. `confusion` of a classifier
    counts rows by right label (rows) and given label (columns), in the order of the data's labels.
    """

    kind: Literal["evaluated"] = "evaluated"
    step: int
    loss: Number
    best: bool
    trained_tokens: int
    seconds: float
    metrics: dict[str, Number] = Field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] = ()


class ForgettingChecked(_Event):
    """What the kept adapter made of `tokens` tokens of general text, against the untouched model.

    `measure` is ``loss`` (nats per token) or, where a model predicts no text, ``drift``: 1 minus the cosine between
    what it makes of a passage before and after, 0 before by definition.
    """

    kind: Literal["forgetting"] = "forgetting"
    measure: Literal["loss", "drift"]
    before: Number
    after: Number
    tokens: int
    step: int


class CheckpointSaved(_Event):
    """A checkpoint is whole on disk."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: int
    path: str
    bytes: int


class AdapterSaved(_Event):
    """The run's `adapter/` is whole on disk and holds the weights of `step`."""

    kind: Literal["adapter"] = "adapter"
    path: str
    bytes: int
    step: int


class ChatReady(_Event):
    """The model is loaded; `Ask` may be sent.

    A classifier has `labels`, in the order of its outputs, and one side; it gives the last message one of them, or with
    the `problem_type` ``multi_label`` any number of them; with ``regression`` it has no labels and gives a number.
    `adapter` is the folder of the adapter on the base.
    """

    kind: Literal["chat_ready"] = "chat_ready"
    sides: tuple[Side, ...]
    device: str
    precision: str
    model: str
    weight_bytes: int
    context_length: int | None = None
    has_chat_template: bool = True
    labels: tuple[str, ...] = ()
    problem_type: ProblemType | None = None
    adapter: str | None = None


class AdapterUsed(_Event):
    """The answer to `UseAdapter`: what answers now, in the words of `ChatReady`; with `problems` nothing changed."""

    kind: Literal["adapter_used"] = "adapter_used"
    path: str | None
    sides: tuple[Side, ...]
    context_length: int | None = None
    has_chat_template: bool = True
    labels: tuple[str, ...] = ()
    problem_type: ProblemType | None = None
    problems: tuple[Problem, ...] = ()


class AdapterAdded(_Event):
    """A new adapter is whole in the library, in the folder `path`."""

    kind: Literal["adapter_added"] = "adapter_added"
    path: str
    name: str
    bytes: int


class LabelShare(Line):
    """A label, and how likely the classifier finds it, 0 to 1."""

    name: str
    share: float


class ChatDelta(_Event):
    """More text of an answer."""

    kind: Literal["chat_delta"] = "chat_delta"
    id: int
    side: Side
    text: str


class ChatAnswer(_Event):
    """An answer is whole. `token_ids` are the generated ones, the closing token included.

    A classifier's `text` is the likeliest label (of several: all that are likelier than not, with commas); `labels` are
    all of them, the likeliest first. A regression's `text` is `number`, as it is written.
    """

    kind: Literal["chat_answer"] = "chat_answer"
    id: int
    side: Side
    text: str
    token_ids: tuple[int, ...]
    seconds: float
    ended: Literal["stop_token", "length", "stopped"]
    labels: tuple[LabelShare, ...] = ()
    number: Number | None = None


class Asked(_Event):
    """Every side of the question `id` is answered, or it could not be (`problems`); the chat goes on."""

    kind: Literal["asked"] = "asked"
    id: int
    problems: tuple[Problem, ...] = ()


class Checked(_Event):
    """One check of an export."""

    kind: Literal["checked"] = "checked"
    name: str
    passed: bool
    detail: str


class Exported(_Event):
    """The export is in its place and every check passed."""

    kind: Literal["exported"] = "exported"
    path: str
    bytes: int
    sha256: str


class Finished(_Event):
    """The last event of every job."""

    kind: Literal["finished"] = "finished"
    outcome: Literal["completed", "stopped", "failed"]
    problems: tuple[Problem, ...] = ()


Event = Annotated[
    Started
    | Stage
    | Progress
    | Notice
    | ModelDescribed
    | DataDescribed
    | PlanMade
    | TrainingBegan
    | StepDone
    | Evaluated
    | ForgettingChecked
    | CheckpointSaved
    | AdapterSaved
    | ChatReady
    | AdapterUsed
    | AdapterAdded
    | ChatDelta
    | ChatAnswer
    | Asked
    | Checked
    | Exported
    | Finished,
    Field(discriminator="kind"),
]

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)
_COMMAND: TypeAdapter[Command] = TypeAdapter(Command)
_JOB: TypeAdapter[Job] = TypeAdapter(Job)


def read_event(line: str | bytes) -> Event:
    """Parse one line; raises `pydantic.ValidationError` when it is not an event of this protocol."""
    return _EVENT.validate_json(line)


def read_command(line: str | bytes) -> Command:
    """Parse one line; raises `pydantic.ValidationError`."""
    return _COMMAND.validate_json(line)


def read_job(line: str | bytes) -> Job:
    """Parse the first line; raises `pydantic.ValidationError`."""
    return _JOB.validate_json(line)


def read_events_file(path: Path) -> list[Event]:
    """All whole events of a run's `events.jsonl`; a last line that a crash cut short is left out."""
    events: list[Event] = []
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            events.append(read_event(line))
    return events


def write_line(item: Line) -> str:
    """One line of JSON with its line feed."""
    return item.model_dump_json() + "\n"
