"""The adapters that there are: those of finished runs and those in the library, each for one base model.

The library is a folder of folders, one for each adapter: PEFT's files and `about.json`. A run's adapter stays in its
run.
"""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import tomli_w

from tunedesk.core.describe import TaskKind
from tunedesk.core.methods import method as method_entry
from tunedesk.core.paths import data_dir
from tunedesk.core.problems import Problem, ProblemError, did_you_mean
from tunedesk.core.runs import RunFolder, cannot_write, list_runs, write_atomic, write_json
from tunedesk.core.spec import MethodName, RunSpec, looks_local

Origin = Literal["run", "imported", "combined"]

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
ABOUT_FILE = "about.json"

LONGEST_NAME = 80
"""Characters of a name: what a list shows in one line."""


@dataclass(frozen=True)
class Adapter:
    """One adapter. `id` is the name of its run or of its folder in the library, `name` what people call it.

    `base` is the source of the model it belongs to, as a run file has it. `method` and `task` are None where an
    imported adapter does not tell. `created` is in seconds since the epoch.
    """

    id: str
    name: str
    path: Path
    base: str
    method: str | None
    task: TaskKind | None
    origin: Origin
    bytes: int
    created: float


@dataclass(frozen=True)
class About:
    """What `about.json` says: `Adapter`'s fields, and the `revision` of a base from the Hub."""

    name: str
    base: str
    method: MethodName | None
    task: TaskKind | None
    origin: Origin
    created: float
    revision: str | None = None

    def text(self) -> str:
        """The content of the file."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def library_dir() -> Path:
    """The folder that holds one folder per adapter of the library."""
    return data_dir() / "adapters"


def list_adapters(base: str | None = None) -> list[Adapter]:
    """Every whole adapter of a run or in the library, the newest first; with `base` those of that model alone.

    What cannot be read is left out.
    """
    library = library_dir()
    folders = sorted(library.iterdir()) if library.is_dir() else []
    found = [read_adapter(path) for path in [*(run.adapter for run in list_runs()), *folders]]
    fitting = [item for item in found if item and (base is None or same_base(item.base, base))]
    return sorted(fitting, key=lambda item: item.created, reverse=True)


def read_adapter(folder: Path) -> Adapter | None:
    """The adapter in `folder`, a run's ``adapter/`` or one of the library; None when there is none to be read."""
    if folder.name.startswith(".") or not is_whole(folder):
        return None
    with suppress(OSError, ValueError, KeyError, TypeError, ProblemError):
        run = run_of(folder)
        return _of_run(run) if run else _of_library(folder)
    return None


def is_whole(folder: Path) -> bool:
    """Whether `folder` holds both files of PEFT's format."""
    with suppress(OSError, ValueError):
        return (folder / CONFIG_FILE).is_file() and (folder / WEIGHTS_FILE).stat().st_size > 0
    return False


def run_of(folder: Path) -> RunFolder | None:
    """The run whose adapter is in `folder`, which is its ``adapter/``; None of any other folder."""
    run = RunFolder(folder.parent)
    with suppress(OSError, ValueError):
        if folder.name == run.adapter.name and run.spec_file.is_file():
            return run
    return None


def run_title(spec: RunSpec) -> str:
    """What the adapter of a run is called: the run's name, or one made of data and method."""
    stem = Path(spec.data.train.removeprefix("starter:")).stem.replace("_", " ").replace("-", " ").strip()
    return spec.name or f"{stem[:1].upper() + stem[1:] or 'Run'} {method_entry(spec.method.name).title}"


def _of_run(run: RunFolder) -> Adapter:
    spec = run.spec()
    return Adapter(
        id=run.id,
        name=run_title(spec),
        path=run.adapter,
        base=spec.model.source,
        method=spec.method.name,
        task=spec.task.kind,
        origin="run",
        bytes=_size(run.adapter),
        created=(run.adapter / WEIGHTS_FILE).stat().st_mtime,
    )


def about_of(folder: Path) -> About | None:
    """What `about.json` in `folder` says; None where there is none that can be read."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        tree = json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))
        method, task, revision = tree.get("method"), tree.get("task"), tree.get("revision")
        return About(
            name=str(tree["name"]),
            base=str(tree["base"]),
            method=method if method in get_args(MethodName) else None,
            task=task if task in get_args(TaskKind) else None,
            origin="combined" if tree.get("origin") == "combined" else "imported",
            created=float(tree["created"]),
            revision=revision if isinstance(revision, str) else None,
        )
    return None


def _of_library(folder: Path) -> Adapter | None:
    about = about_of(folder)
    if about is None:
        return None
    return Adapter(
        id=folder.name,
        name=about.name,
        path=folder,
        base=about.base,
        method=about.method,
        task=about.task,
        origin=about.origin,
        bytes=_size(folder),
        created=about.created,
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def same_base(left: str, right: str) -> bool:
    """Whether two model sources, as run files have them, name the same model; nothing is downloaded to find out."""
    return left == right or _identity(left) == _identity(right)


def _identity(source: str) -> str:
    if source.startswith("starter:"):
        return source
    with suppress(OSError, ValueError, RuntimeError):
        path = Path(source).expanduser()
        if looks_local(source) or path.exists():
            return str(path.resolve())
    return source.casefold()  # names on the Hub mean the same in capitals


def find_adapter_called(text: str, base: str | None = None) -> Adapter:
    """The adapter whose id, name or folder is `text`; with `base` among those of that model.

    Raises `ProblemError` when there is none, or several of that name.
    """
    everything = list_adapters()
    there = [item for item in everything if base is None or same_base(item.base, base)]
    named = [item for item in there if item.id == text] or [item for item in there if _in_folder(item, text)]
    named = named or [item for item in there if item.name.casefold() == text.strip().casefold()]
    if len(named) == 1:
        return named[0]
    raise ProblemError(_several(text, named) if named else _unknown(text, there, everything))


def _in_folder(adapter: Adapter, text: str) -> bool:
    """Whether `text` is the folder of `adapter`, or that of its run."""
    with suppress(OSError, ValueError, RuntimeError):
        path = Path(text).expanduser().resolve()
        run = run_of(adapter.path)
        return path == adapter.path.resolve() or (run is not None and path == run.path.resolve())
    return False


def _several(text: str, named: Iterable[Adapter]) -> Problem:
    return Problem(
        code="adapter.several",
        what=f"Several adapters are called '{text}'.",
        found=f"Their ids: {', '.join(item.id for item in named)}.",
        fix="Say which by its id, or rename one.",
    )


def _unknown(text: str, there: list[Adapter], everything: list[Adapter]) -> Problem:
    others = [item for item in everything if text in (item.id, item.name) or _in_folder(item, text)]
    if others:
        return Problem(
            code="adapter.other_base",
            what=f"The adapter '{text}' belongs to another model.",
            found=f"It was made for {others[0].base}.",
            fix="Choose that model, or another adapter.",
        )
    names = [name for item in there for name in dict.fromkeys((item.name, item.id))]
    return Problem(
        code="adapter.missing",
        what=f"There is no adapter '{text}'.",
        found="" if there else "There are none yet.",
        fix=did_you_mean(text, names) or "Train a run, or import an adapter that was made elsewhere.",
    )


def check_name(name: str, but: Adapter | None = None) -> Problem | None:
    """Why no adapter can be called `name`; `but` is the one that is to get it."""
    clean = name.strip()
    if not clean:
        return Problem(code="adapter.name", what="A name has at least one character.", fix="Type a name.")
    if len(clean) > LONGEST_NAME:
        return Problem(
            code="adapter.name",
            what="The name is too long.",
            found=f"It has {len(clean)} characters; {LONGEST_NAME} are shown.",
            fix="Choose a shorter one.",
        )
    if not clean.isprintable():
        return Problem(
            code="adapter.name",
            what="A name is one line of characters that can be seen.",
            found=f"There is {clean!r}.",
            fix="Leave line breaks and tabs out.",
        )
    others = [item for item in list_adapters() if but is None or item.path != but.path]
    taken = {text.casefold() for item in others for text in (item.id, item.name)}
    if clean.casefold() in taken:
        return Problem(
            code="adapter.name_taken", what=f"There is an adapter called '{clean}' already.", fix="Choose another name."
        )
    return None


def rename_adapter(adapter: Adapter, name: str) -> Adapter:
    """Call `adapter` by `name`; of a run the run is called so. Raises `ProblemError`."""
    problem = check_name(name, adapter)
    if problem:
        raise ProblemError(problem)
    clean = name.strip()
    run = run_of(adapter.path)
    try:
        if run:
            _name_run(run, clean)
        else:
            file = adapter.path / ABOUT_FILE
            write_json(file, {**json.loads(file.read_text(encoding="utf-8")), "name": clean})
    except OSError as error:
        raise ProblemError(
            _gone(adapter) if not is_whole(adapter.path) else cannot_write(adapter.path, error)
        ) from error
    except ValueError as error:
        raise ProblemError(_unreadable(adapter, error)) from error
    return replace(adapter, name=clean)


def _name_run(run: RunFolder, name: str) -> None:
    """Write `name` into the run file, whose time stays as it was: runs are listed by it."""
    stamp = run.spec_file.stat()
    tree = tomllib.loads(run.spec_file.read_text(encoding="utf-8"))
    write_atomic(run.spec_file, tomli_w.dumps({**tree, "name": name}))
    os.utime(run.spec_file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def delete_adapter(adapter: Adapter) -> None:
    """Delete `adapter`: its folder in the library, or of a run its ``adapter/`` alone.

    It is moved aside first, so that nothing half deleted is ever found. Raises `ProblemError`, also while its run is
    training.
    """
    run = run_of(adapter.path)
    if run and _training(run):
        raise ProblemError(
            Problem(
                code="adapter.training",
                what=f"The adapter of '{adapter.name}' cannot be deleted: its run is still training.",
                where=str(run.path),
                fix="Stop the run, or wait until it is done.",
            )
        )
    aside = adapter.path.with_name(f".{adapter.path.name}.deleted")
    try:
        if aside.exists():
            shutil.rmtree(aside)
        adapter.path.rename(aside)
        shutil.rmtree(aside)
    except FileNotFoundError as error:
        raise ProblemError(_gone(adapter)) from error
    except OSError as error:
        raise ProblemError(cannot_write(adapter.path, error)) from error


def _training(run: RunFolder) -> bool:
    """Whether a process works on `run`. Raises `ProblemError` when its record cannot be read."""
    run.state()
    return run.alive()


def _gone(adapter: Adapter) -> Problem:
    return Problem(
        code="adapter.missing",
        what=f"The adapter '{adapter.name}' is not there any more.",
        where=str(adapter.path),
        fix="`tunedesk adapters` lists those that there are.",
    )


def _unreadable(adapter: Adapter, error: ValueError) -> Problem:
    return Problem(
        code="adapter.unreadable",
        what=f"What is known of the adapter '{adapter.name}' cannot be read.",
        where=str(adapter.path),
        found=str(error).splitlines()[0],
        fix="The file is damaged; delete the adapter, or put the file back.",
    )
