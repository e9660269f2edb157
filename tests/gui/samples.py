"""Ready-made descriptions for the tests of the window. Plain functions; nothing is read or loaded."""

from __future__ import annotations

import re
from dataclasses import replace

from tunedesk.core.describe import (
    DataInfo,
    Finding,
    LinearShape,
    ModelInfo,
    RenderedRow,
    RenderedTurn,
    Span,
    TokenStats,
)
from tunedesk.core.hardware import GIB, Gpu, Hardware, choose_device
from tunedesk.core.plan import Plan, make_plan
from tunedesk.core.problems import Problem
from tunedesk.core.settings import Settings
from tunedesk.core.spec import RunSpec
from tunedesk.gui.session import Session


def linears(
    hidden: int, inner: int, layers: int, heads: int, kv_heads: int, head: int | None = None
) -> tuple[LinearShape, ...]:
    """The linear layers of a Llama-like model."""
    head = head or hidden // heads
    shapes = {
        "q_proj": (hidden, heads * head),
        "k_proj": (hidden, kv_heads * head),
        "v_proj": (hidden, kv_heads * head),
        "o_proj": (heads * head, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }
    return tuple(LinearShape(name=n, in_features=i, out_features=o, count=layers) for n, (i, o) in shapes.items())


def smollm(**changes: object) -> ModelInfo:
    """The starter chat model."""
    info = ModelInfo(
        source="starter:chat",
        path="/home/ana/.cache/tunedesk/models/smollm2-135m-instruct",
        name="SmolLM2-135M-Instruct",
        family="Llama",
        architecture="LlamaForCausalLM",
        kind="decoder",
        parameters=134_515_008,
        weight_bytes=269_030_016,
        dtype="bf16",
        context_length=8192,
        vocabulary=49_152,
        hidden_size=576,
        intermediate_size=1536,
        layers=30,
        attention_heads=9,
        key_value_heads=3,
        tied_embeddings=True,
        linears=linears(576, 1536, 30, 9, 3),
        licence="apache-2.0",
        has_chat_template=True,
        tasks=("chat", "completion", "classification", "preference"),
        origin="starter",
    )
    return info.model_copy(update=changes)


def qwen(**changes: object) -> ModelInfo:
    """A model of 4 billion weights from a folder."""
    info = ModelInfo(
        source="/models/Qwen3-4B-Instruct-2507",
        path="/models/Qwen3-4B-Instruct-2507",
        name="Qwen3-4B-Instruct-2507",
        family="Qwen3",
        architecture="Qwen3ForCausalLM",
        kind="decoder",
        parameters=4_022_468_096,
        weight_bytes=8_044_936_192,
        dtype="bf16",
        context_length=262_144,
        vocabulary=151_936,
        hidden_size=2560,
        intermediate_size=9728,
        layers=36,
        attention_heads=32,
        key_value_heads=8,
        tied_embeddings=True,
        linears=linears(2560, 9728, 36, 32, 8, 128),
        licence="apache-2.0",
        has_chat_template=True,
        tasks=("chat", "completion", "classification", "preference"),
        origin="folder",
    )
    return info.model_copy(update=changes)


def base_model() -> ModelInfo:
    """A model without a chat template."""
    return smollm(
        source="/models/SmolLM2-135M",
        path="/models/SmolLM2-135M",
        name="SmolLM2-135M",
        has_chat_template=False,
        tasks=("completion", "classification", "preference"),
        origin="folder",
    )


def token_stats(**changes: object) -> TokenStats:
    """Lengths of the support data under the starter model's tokenizer."""
    counts = (2, 31, 74, 88, 61, 42, 24, 13, 8, 4, 1, 1)
    stats = TokenStats(
        tokens=58_310,
        trained_tokens=31_860,
        median=152,
        p90=264,
        longest=371,
        bin_width=32,
        histogram=counts,
        max_length=384,
        cut_rows=0,
        mean_trained=91.3,
    )
    return stats.model_copy(update=changes)


def findings() -> tuple[Finding, ...]:
    """Three findings, one of each kind that matters on the page."""
    return (
        Finding(
            code="data.no_answer",
            level="warn",
            text="6 conversations have no answer to learn from",
            detail="They end with the user and are left out.",
            count=6,
            rows=(137, 290, 291, 305, 311, 340),
        ),
        Finding(
            code="data.duplicates",
            level="warn",
            text="2 are exact copies of another",
            detail="The model would learn these twice as hard.",
            count=2,
            rows=(88, 214),
        ),
        Finding(
            code="data.system",
            level="info",
            text="No conversation has a system prompt",
            detail="The model answers without instructions.",
            count=349,
        ),
    )


def support_data(**changes: object) -> DataInfo:
    """The starter data as the starter model sees it."""
    info = DataInfo(
        source="starter:support",
        path="/opt/tunedesk/resources/datasets/support.jsonl",
        name="support.jsonl",
        file_format="jsonl",
        bytes=170_384,
        rows=349,
        layout="messages",
        task="chat",
        columns={"messages": "messages"},
        all_columns=("messages",),
        train_rows=314,
        eval_rows=35,
        tokens=token_stats(),
        findings=(),
        sha256="9f2c81d0" * 8,
    )
    return info.model_copy(update=changes)


def long_data() -> DataInfo:
    """Long conversations: with `qwen` they do not fit on `gpu_hardware` as asked for."""
    counts = (280, 1500, 1280, 760, 440, 220, 140, 80, 40, 26, 14, 9, 7, 4, 3, 3, 2, 2, 1, 1)
    stats = token_stats(
        tokens=1_980_000,
        trained_tokens=752_400,
        median=343,
        p90=980,
        longest=2911,
        bin_width=160,
        histogram=counts,
        max_length=2048,
        cut_rows=37,
        mean_trained=156.4,
    )
    return support_data(
        source="/home/ana/support-2025.jsonl",
        path="/home/ana/support-2025.jsonl",
        name="support-2025.jsonl",
        bytes=11_400_000,
        rows=4812,
        train_rows=4331,
        eval_rows=481,
        tokens=stats,
        findings=findings(),
    )


def _pieces(text: str, kind: str) -> list[Span]:
    return [Span(text=piece, kind=kind) for piece in re.findall(r"\s?[\w']{1,6}|\s?[^\w\s]|\s", text)]  # type: ignore[arg-type]


def _turn(role: str, text: str) -> RenderedTurn:
    trained = role == "assistant"
    kind = "trained" if trained else "context"
    head = [Span(text=part, kind="template") for part in ("<|im_start|>", role, "\n")]
    tail = Span(text="<|im_end|>", kind="trained" if trained else "template")
    return RenderedTurn(role=role, spans=(*head, *_pieces(text, kind), tail, Span(text="\n", kind="template")))


def rendered_row(row: int = 1) -> RenderedRow:
    """One conversation as tokens."""
    order = f"HF-204{row:02d}"
    turns = (
        _turn("system", "You answer the customers of Harbour & Finch. Be brief and exact."),
        _turn("user", f"My parcel {order} says delivered, but there is nothing here. What now?"),
        _turn(
            "assistant",
            "Ahoy. Gannet Post left it with a neighbour at number 14, says the driver's note. Ask there first; "
            "if it is not with them by tomorrow noon, write back and a new lamp leaves the same day.",
        ),
        _turn("user", "It was there, thank you. Can I still return the Skerry?"),
        _turn(
            "assistant",
            "You can, for forty days, used or not. Put the card from the box in the parcel and print the label "
            'under "My orders". The refund lands three working days after it is back. Fair winds, Marlow',
        ),
    )
    spans = [span for turn in turns for span in turn.spans]
    trained = sum(span.kind == "trained" for span in spans)
    return RenderedRow(row=row, turns=turns, tokens=len(spans), trained_tokens=trained)


def plain_row(row: int = 1) -> RenderedRow:
    """One conversation without a model: one piece of text for each turn, nothing counted."""
    turns = (
        RenderedTurn(role="user", spans=(Span(text="Where is my order?", kind="context"),)),
        RenderedTurn(role="assistant", spans=(Span(text="Ahoy. On its way. Fair winds, Marlow", kind="trained"),)),
    )
    return RenderedRow(row=row, turns=turns, tokens=0, trained_tokens=0)


def rendered_rows(count: int = 20) -> tuple[RenderedRow, ...]:
    """The first rows of the data as tokens."""
    return tuple(rendered_row(row) for row in range(1, count + 1))


def cpu_hardware(**changes: object) -> Hardware:
    """A computer without a GPU."""
    info = Hardware(
        gpus=(),
        gpu_note="No NVIDIA driver is installed.",
        cpu="AMD Ryzen 7 7840U",
        physical_cores=8,
        fast_bf16=True,
        memory_total=32 * GIB,
        memory_free=int(25.9 * GIB),
        disk_free=214_000_000_000,
        system="Linux 6.12 x86_64",
    )
    return info.model_copy(update=changes)


def gpu_hardware(free_gib: float = 11.2) -> Hardware:
    """A computer with an RTX 3060 of 12 GiB."""
    gpu = Gpu(
        index=0,
        name="NVIDIA GeForce RTX 3060",
        total_bytes=12 * GIB,
        free_bytes=int(free_gib * GIB),
        driver="580.65",
        compute_capability=(8, 6),
    )
    return cpu_hardware(gpus=(gpu,), gpu_note="")


def plan(
    spec: RunSpec | None = None,
    model: ModelInfo | None = None,
    data: DataInfo | None = None,
    hardware: Hardware | None = None,
) -> Plan:
    """A real plan of the samples; the starter model on a computer without a GPU unless told otherwise."""
    device = choose_device(hardware or cpu_hardware())
    return make_plan(spec or RunSpec(), model or smollm(), data or support_data(), device)


def problem(code: str = "model.gated") -> Problem:
    """A problem with all its parts."""
    return Problem(
        code=code,
        what="meta-llama/Llama-3.2-1B is gated.",
        where="Hugging Face Hub.",
        found="Its owner wants you to accept the licence first.",
        fix="Accept it on the model's page, then fetch it again.",
    )


class QuietSession(Session):
    """A session that starts no engine: `started` lists the jobs that it would have run."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.started: list[tuple[str, object]] = []

    def _start(self, key: str, job: object, slot: object) -> None:  # noqa: ARG002
        self.started.append((key, job))


def settle(
    session: Session,
    model: ModelInfo | None = None,
    data: DataInfo | None = None,
    hardware: Hardware | None = None,
    examples: tuple[RenderedRow, ...] | None = None,
) -> None:
    """Put the session where inspections of `model` and `data` have just ended well, and make the real plan."""
    model, data = model or smollm(), data or support_data()
    session.hardware = hardware or cpu_hardware()
    session.examples = rendered_rows() if examples is None else examples
    session.model_activity = session.model_progress = session.data_activity = None
    spec = session.project.spec
    spec = spec.model_copy(
        update={
            "model": spec.model.model_copy(update={"source": model.source}),
            "data": spec.data.model_copy(update={"train": data.source}),
        }
    )
    session.project = replace(session.project, spec=spec, model=model, data=data, model_problems=(), data_problems=())
    session.replan()
    session.activity_changed.emit()
