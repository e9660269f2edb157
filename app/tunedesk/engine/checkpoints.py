"""Checkpoints and adapters on disk: whole or not there at all."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from transformers import PreTrainedTokenizerBase

from tunedesk.core.problems import Problem, ProblemError
from tunedesk.core.runs import RunFolder, cannot_write
from tunedesk.engine.label_head import LABELS_FILE
from tunedesk.engine.loading import head_of
from tunedesk.engine.methods import Tuned

ADAPTER_FILE = "adapter_model.safetensors"
_PROGRESS_FILE = "trainer.json"
_STATE_FILE = "trainer.pt"
_ROOM = 2**20


@dataclass(frozen=True)
class Progress:
    """Where a run stands after `step`; losses in nats per trained token, `seconds` of training so far.

    `rises` counts the checks in a row whose held-out loss was above the one before. `metrics` and
    `confusion` are the best check's.
    """

    step: int = 0
    base_loss: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    last_eval: float | None = None
    rises: int = 0
    last_loss: float | None = None
    tokens: int = 0
    trained_tokens: int = 0
    seconds: float = 0.0
    peak_memory: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class RandomState:
    """Every source of chance, as it stands."""

    python: tuple[Any, ...]
    cpu: torch.Tensor
    cuda: list[torch.Tensor]


def random_state() -> RandomState:
    """The present state of the generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return RandomState(random.getstate(), torch.get_rng_state(), cuda)


def restore_random(state: RandomState) -> None:
    """Set the generators back to `state`."""
    random.setstate(state.python)
    torch.set_rng_state(state.cpu)
    if state.cuda and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state.cuda[: torch.cuda.device_count()])


def save_checkpoint(
    run: RunFolder,
    tuned: Tuned,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    progress: Progress,
    chance: RandomState,
) -> tuple[Path, int]:
    """Write ``checkpoints/step-N`` and give (folder, bytes). Raises `ProblemError` when the disk is full."""
    place = run.checkpoints / f"step-{progress.step}"
    version, state, gauss = chance.python
    trainer = {
        "optimiser": optimiser.state_dict(),
        "scaler": scaler.state_dict(),
        "cpu": chance.cpu,
        "cuda": chance.cuda,
        "method": tuned.rest(),
    }
    files = {**adapter_files(tuned), _STATE_FILE: _torch_bytes(trainer)}
    about = {
        "progress": asdict(progress),
        "python_random": [version, list(state), gauss],
        "files": {name: len(data) for name, data in files.items()},
    }
    files[_PROGRESS_FILE] = json.dumps(about).encode()
    write_folder(place, files, f"checkpoint at step {progress.step:,}")
    return place, sum(len(data) for data in files.values())


def _torch_bytes(value: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def adapter_files(tuned: Tuned) -> dict[str, bytes]:
    """The adapter in peft's own format, or in the like of it for methods that peft does not have: name to content."""
    weights = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tuned.weights().items()}
    text = json.dumps(tuned.config(), indent=2, sort_keys=True, default=str)
    files = {ADAPTER_FILE: save(weights, metadata={"format": "pt"}), "adapter_config.json": text.encode()}
    head = head_of(tuned.model.get_base_model())
    return {**files, LABELS_FILE: head.content()} if head else files


def write_folder(place: Path, files: dict[str, bytes], name: str) -> None:
    """Write `files` beside `place`, flush them to the disk, and rename the folder into place, over an older one.

    Raises `ProblemError` when it cannot be written; nothing half written is left. `name` says in words what it is.
    """
    part = Path()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _check_room(place, sum(len(data) for data in files.values()), name)
        part = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}."))
        part.chmod(0o755)
        for file_name, data in files.items():
            with (part / file_name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _swap(part, place)
    except OSError as error:
        if part.name:
            shutil.rmtree(part, ignore_errors=True)
        raise ProblemError(_not_saved(place, name, error)) from error


def _swap(part: Path, place: Path) -> None:
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    part.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _check_room(place: Path, size: int, name: str) -> None:
    free = shutil.disk_usage(place.parent).free
    if free < size + _ROOM:
        raise OSError(errno.ENOSPC, f"The {name} needs {megabytes(size)}, {megabytes(free)} is free", str(place))


def _not_saved(place: Path, name: str, error: OSError) -> Problem:
    problem = cannot_write(place, error)
    kept = "What was saved before is whole. Resume goes on from there."
    return problem.model_copy(
        update={"what": f"{problem.what} The {name} was not saved.", "fix": f"{problem.fix} {kept}"}
    )


def megabytes(size: int) -> str:
    """A file's size in words, decimal: `5.2 MB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def checkpoint_step(place: Path) -> int | None:
    """The step of the checkpoint folder `place`, or None when it is torn or no checkpoint."""
    number = place.name.removeprefix("step-")
    if not place.name.startswith("step-") or not number.isdigit():
        return None
    try:
        about = json.loads((place / _PROGRESS_FILE).read_text(encoding="utf-8"))
        whole = all((place / name).stat().st_size == size for name, size in about["files"].items())
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return int(number) if whole else None


def whole_checkpoints(run: RunFolder) -> list[tuple[int, Path]]:
    """(step, folder) of every whole checkpoint, the oldest first."""
    if not run.checkpoints.is_dir():
        return []
    found = [(checkpoint_step(place), place) for place in run.checkpoints.iterdir() if place.is_dir()]
    return sorted((step, place) for step, place in found if step is not None)


def put_weights(place: Path, tuned: Tuned) -> None:
    """Put what was learned up to the checkpoint in `place`, one of this very run, back in place."""
    trainer = torch.load(place / _STATE_FILE, map_location="cpu", weights_only=True)
    tuned.restore(load_file(place / ADAPTER_FILE), trainer["method"])


def load_checkpoint(
    place: Path, tuned: Tuned, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> tuple[Progress, RandomState]:
    """Put the checkpoint's weights and optimiser state in place.

    Raises `ProblemError` when it is damaged or comes from another method or model.
    """
    try:
        about = json.loads((place / _PROGRESS_FILE).read_text(encoding="utf-8"))
        trainer = torch.load(place / _STATE_FILE, map_location="cpu", weights_only=True)
        weights = load_file(place / ADAPTER_FILE)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ProblemError(
            Problem(
                code="run.checkpoint",
                what="The checkpoint is damaged.",
                where=str(place),
                found=str(error).splitlines()[0],
                fix="Delete this folder; Resume then goes on from the checkpoint before it.",
            )
        ) from error
    try:
        tuned.restore(weights, trainer.get("method", {}))
        optimiser.load_state_dict(trainer["optimiser"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise ProblemError(
            Problem(
                code="run.other_method",
                what="The checkpoint does not fit the model and method of this run.",
                where=str(place),
                found=str(error).splitlines()[0],
                fix="Put run.toml back as it was when the run began, or start a new run.",
            )
        ) from error
    scaler.load_state_dict(trainer["scaler"])
    version, state, gauss = about["python_random"]
    chance = RandomState((version, tuple(state), gauss), trainer["cpu"], trainer["cuda"])
    return Progress(**about["progress"]), chance


def prune(run: RunFolder, keep: int, best: int | None) -> None:
    """Delete all but the last `keep` checkpoints and the one of step `best`, and what a crash left half written."""
    whole = whole_checkpoints(run)
    kept = {step for step, _ in whole[-keep:]} | {best}
    for step, place in whole:
        if step not in kept:
            shutil.rmtree(place, ignore_errors=True)
    for place in run.checkpoints.glob(".step-*"):
        shutil.rmtree(place, ignore_errors=True)


def save_adapter(run: RunFolder, files: dict[str, bytes], tokenizer: PreTrainedTokenizerBase) -> int:
    """Write the run's ``adapter/`` with the tokenizer and chat template beside it; gives its size in bytes.

    Raises `ProblemError` when the disk is full.
    """
    whole = {**files, **tokenizer_files(tokenizer)}
    write_folder(run.adapter, whole, "adapter")
    return sum(len(data) for data in whole.values())


def tokenizer_files(tokenizer: PreTrainedTokenizerBase) -> dict[str, bytes]:
    """What `save_pretrained` writes for the tokenizer: file name to content."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}


def read_adapter_files(place: Path) -> dict[str, bytes]:
    """The adapter inside a checkpoint: file name to content."""
    names = (ADAPTER_FILE, "adapter_config.json", LABELS_FILE)
    return {name: (place / name).read_bytes() for name in names if (place / name).exists()}


def after(progress: Progress, **changes: Any) -> Progress:
    """`progress` with `changes`."""
    return replace(progress, **changes)
