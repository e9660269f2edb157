"""The job that takes an adapter made elsewhere into the library, once it is known to fit its model."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Literal

from tunedesk.core.adapters import (
    ABOUT_FILE,
    CONFIG_FILE,
    LONGEST_NAME,
    WEIGHTS_FILE,
    About,
    about_of,
    check_name,
    library_dir,
    list_adapters,
    run_of,
    run_title,
)
from tunedesk.core.describe import ModelInfo, TaskKind
from tunedesk.core.events import AdapterAdded, ImportAdapter, ModelDescribed, Notice, Stage
from tunedesk.core.problems import Problem, ProblemError, raise_if_any
from tunedesk.core.runs import cannot_write
from tunedesk.engine.channel import Channel, Stopped
from tunedesk.engine.label_head import LABELS_FILE, LabelHead
from tunedesk.engine.saved import Saved, is_named, misfits, origin_of, read_saved
from tunedesk.engine.sources import resolve

_BESIDE = (".json", ".jinja", ".txt", ".md", ".model")
_LARGEST_BESIDE = 50_000_000
"""Bytes of a file beside the weights that is still taken along; the largest tokenizers have 35 million."""

_HEADS = re.compile(r"(^|\.)(score|classifier|classifier\.out_proj|classifier\.dense)\.weight$")
"""The last matrix of a classifier's head in transformers."""


def import_adapter(job: ImportAdapter, channel: Channel) -> Literal["completed", "stopped"]:
    """Check the adapter in `job.source` against `job.model` and copy it into the library.

    Emits `AdapterAdded`. Raises `ProblemError` with everything that is wrong; the library is then as it was.
    """
    folder = Path(job.source).expanduser().absolute()
    channel.emit(Stage(text="Reading the adapter"))
    saved, problems = _read(folder)
    named = check_name(job.name) if job.name is not None else None
    raise_if_any([*problems, *([named] if named else [])])
    assert saved is not None
    info = resolve(job.model, None, channel)
    channel.emit(ModelDescribed(info=info))
    channel.emit(Stage(text="Checking it against the model"))
    head = saved.head or _outputs(saved, info)
    raise_if_any(misfits(saved.config, saved.shapes, head, info) or _not_finite(folder))
    _remark(saved, head, info, channel)
    if channel.stop_asked:
        raise Stopped
    files = _files(folder)
    if head and LABELS_FILE not in files:
        files[LABELS_FILE] = head.content()
    made = about_of(folder)
    about = About(
        name=job.name.strip() if job.name else _free_name(folder),
        base=_absolute(job.model),
        method=(made and made.method) or saved.method,
        task=_task(head, info, folder),
        origin="imported",
        created=time.time(),
    )
    add_to_library(files, about, channel)
    return "completed"


def add_to_library(files: dict[str, bytes], about: About, channel: Channel) -> Path:
    """Write a new adapter into the library, whole or not at all, and tell. Raises `ProblemError`."""
    from tunedesk.engine.checkpoints import write_folder

    channel.emit(Stage(text="Saving it in the library"))
    place = _free_place(about.name)
    whole = {**files, ABOUT_FILE: about.text().encode()}
    write_folder(place, whole, "adapter")
    channel.emit(AdapterAdded(path=str(place), name=about.name, bytes=sum(len(data) for data in whole.values())))
    return place


def _read(folder: Path) -> tuple[Saved | None, list[Problem]]:
    try:
        return read_saved(folder), []
    except ProblemError as error:
        return None, list(error.problems)


def _outputs(saved: Saved, info: ModelInfo) -> LabelHead | None:
    """The head of a classifier that peft saved, which has no names for its labels: those of the base, or numbers."""
    if saved.config.get("task_type") != "SEQ_CLS":
        return None
    counts = [shape[0] for name, shape in saved.shapes.items() if _HEADS.search(name)]
    if not counts:
        return None
    count = counts[-1]
    if count == 1:
        return LabelHead("regression")
    named = _labels_of(info)
    return LabelHead(labels=named if len(named) == count else tuple(f"LABEL_{number}" for number in range(count)))


def _labels_of(info: ModelInfo) -> tuple[str, ...]:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(info.path, trust_remote_code=False)
    return tuple(str(label) for label in config.id2label.values())


def _not_finite(folder: Path) -> list[Problem]:
    """The problem of numbers that are none, by the tensors that hold them."""
    import torch
    from safetensors import SafetensorError, safe_open

    bad = []
    try:
        with safe_open(folder / WEIGHTS_FILE, "pt") as file:
            names = file.keys()
            bad = [name for name in names if not bool(torch.isfinite(file.get_tensor(name)).all())]
    except (OSError, RuntimeError, SafetensorError) as error:
        return [_unreadable(folder, str(error).splitlines()[0])]
    if not bad:
        return []
    more = f" and {len(bad) - 3:,} more" if len(bad) > 3 else ""
    return [
        Problem(
            code="adapter.not_finite",
            what="The adapter holds values that are no numbers (NaN or infinite).",
            where=str(folder / WEIGHTS_FILE),
            found=f"{', '.join(bad[:3])}{more}.",
            fix="Its training diverged: take an earlier checkpoint, or train again.",
        )
    ]


def _unreadable(folder: Path, found: str) -> Problem:
    return Problem(
        code="adapter.weights",
        what=f"{WEIGHTS_FILE} cannot be read.",
        where=str(folder / WEIGHTS_FILE),
        found=found,
        fix="Copy or save the adapter again.",
    )


def _remark(saved: Saved, head: LabelHead | None, info: ModelInfo, channel: Channel) -> None:
    """Say what a person should know and need not mend."""
    base = origin_of(saved.path).base
    if base and not is_named(info, base):
        text = f"The adapter says that it was made for {base}. Its shapes fit {info.name}, so it is taken for that."
        channel.emit(Notice(level="warn", text=text))
    if head and not saved.head:
        names = ", ".join(head.labels) or "one number, taken as it is"
        channel.emit(Notice(level="warn", text=f"The adapter does not say what its outputs are called: {names}."))


def _files(folder: Path) -> dict[str, bytes]:
    """The adapter, and the small files of text beside it, such as its tokenizer: name to content."""
    try:
        names = [WEIGHTS_FILE, CONFIG_FILE, *sorted(path.name for path in folder.iterdir() if _is_beside(path))]
        return {name: (folder / name).read_bytes() for name in dict.fromkeys(names)}
    except OSError as error:
        raise ProblemError(_unreadable(folder, error.strerror or str(error))) from error


def _is_beside(path: Path) -> bool:
    small = path.is_file() and path.stat().st_size <= _LARGEST_BESIDE
    return small and path.suffix in _BESIDE and not path.name.startswith(".") and path.name != ABOUT_FILE


def _task(head: LabelHead | None, info: ModelInfo, folder: Path) -> TaskKind:
    known = origin_of(folder).task
    if known:
        return known
    if head:
        return "classification"
    if info.kind == "seq2seq":
        return "seq2seq"
    return "chat" if info.has_chat_template else "completion"


def _absolute(source: str) -> str:
    """A model source that means the same from any folder."""
    path = Path(source).expanduser()
    return str(path.absolute()) if not source.startswith("starter:") and path.exists() else source


def _free_name(folder: Path) -> str:
    """What the adapter was called, or its folder is, with a number where that is taken."""
    about, run = about_of(folder), run_of(folder)
    name = (about.name if about else run_title(run.spec()) if run else folder.name).strip()
    clean = "".join(character for character in name if character.isprintable())[: LONGEST_NAME - 4] or "Adapter"
    taken = {text.casefold() for item in list_adapters() for text in (item.id, item.name)}
    names = (clean if number == 1 else f"{clean} {number}" for number in range(1, len(taken) + 3))
    return next(item for item in names if item.casefold() not in taken)


def _free_place(name: str) -> Path:
    """A folder of the library that is not there yet, called as nearly as `name` as a folder can be."""
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "adapter"
    root = library_dir()
    try:
        root.mkdir(parents=True, exist_ok=True)
        there = {path.name.casefold() for path in root.iterdir()}
    except OSError as error:
        raise ProblemError(cannot_write(root, error)) from error
    names = (stem if number == 1 else f"{stem}-{number}" for number in range(1, len(there) + 3))
    return root / next(item for item in names if item not in there)
