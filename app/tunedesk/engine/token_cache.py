"""Rows in tokens, kept on disk: the same rows for the same tokenizer are turned into tokens once.

A key is a hash of all that decides the tokens, so nothing here ever grows stale; it is only forgotten, the least
recently used first. Whatever goes wrong with the cache costs the time to tokenise again, and never a run.
"""

from __future__ import annotations

import hashlib
import logging
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import tunedesk
from tunedesk.core.describe import TaskKind
from tunedesk.core.paths import cache_dir
from tunedesk.core.runs import write_atomic
from tunedesk.engine.label_rows import LabelRow
from tunedesk.engine.preference_rows import PreferenceRow
from tunedesk.engine.render import TokenRow
from tunedesk.engine.rows import Row
from tunedesk.engine.seq2seq_rows import Seq2SeqRow

LIMIT = 2 * 1024**3
"""Bytes that all kept tokens may take together."""

_CODE = ("render.py", "rows.py", "label_rows.py", "preference_rows.py", "seq2seq_rows.py", "token_cache.py")
"""What makes tokens of rows, and how they are kept."""

_LIBRARIES = ("transformers", "tokenizers", "jinja2")
_TOKENIZER_FILES = (".json", ".jinja", ".txt", ".model", ".tiktoken")
_KINDS: dict[str, type[TokenRow]] = {kind.__name__: kind for kind in (TokenRow, LabelRow, PreferenceRow, Seq2SeqRow)}
_log = logging.getLogger(__name__)

Columns = dict[str, NDArray[Any]]


def cached(key: str, make: Callable[[], list[TokenRow]]) -> list[TokenRow]:
    """The rows kept under `key`, or those of `make`, which are kept from then on. What `make` raises passes through."""
    place = _folder() / f"{key}.safetensors"
    rows = _load(place)
    if rows is None:
        rows = make()
        _store(place, rows)
    return rows


def key_of(rows: Sequence[Row], model: Path, task: TaskKind, labels: Sequence[str] = ()) -> str:
    """The key of `rows` in tokens of the tokenizer in the folder `model`.

    Rows enter with all they hold, so it does not matter which file, columns or split they came from. `labels` are
    those of the task classification, in their order.
    """
    digest = hashlib.sha256()
    about = [tunedesk.__version__, *(version(name) for name in _LIBRARIES), task, list(labels)]
    digest.update(repr(about).encode())
    for path in (*(Path(__file__).with_name(name) for name in _CODE), *_tokenizer_files(model)):
        digest.update(f"\0{path.name}\0".encode() + hashlib.sha256(_content(path)).digest())
    for row in rows:
        digest.update(repr(row).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _tokenizer_files(model: Path) -> list[Path]:
    """All small files of a model: which of them a tokenizer reads depends on its class, and config.json names that."""
    inside = (model, model / "additional_chat_templates")
    found = [path for folder in inside if folder.is_dir() for path in folder.iterdir()]
    return sorted(path for path in found if path.suffix in _TOKENIZER_FILES and path.is_file())


def _content(path: Path) -> bytes:
    """What `path` holds; nothing when it cannot be read, since then it decides nothing either."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _folder() -> Path:
    return cache_dir() / "tokens"


def _load(place: Path) -> list[TokenRow] | None:
    """The rows in `place`, or None when they are not there or damaged."""
    try:
        with safe_open(place, "np") as file:
            about = file.metadata() or {}
            columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        if about.get("sha256") != _digest(place.stem, columns):
            raise ValueError("It is not what was written.")
        rows = _rows(_KINDS[about["kind"]], columns)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        _log.warning("Tokens in %s cannot be read and are made again: %s", place, error)
        return None
    with suppress(OSError):  # the time of the last use; a cache that is only to be read keeps none
        os.utime(place)
    return rows


def _store(place: Path, rows: Sequence[TokenRow]) -> None:
    if not rows:
        return
    columns = _columns(rows)
    size = sum(column.nbytes for column in columns.values())
    if size > LIMIT:
        return
    about = {"kind": type(rows[0]).__name__, "sha256": _digest(place.stem, columns)}
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        content = save(columns, about)
        _make_room(place.parent, len(content))
        write_atomic(place, content)
    except OSError as error:
        _log.warning("Tokens are not kept in %s: %s", place.parent, error)


def _make_room(folder: Path, needed: int) -> None:
    """Delete what was not used for longest until `needed` bytes more are within the limit."""
    found = sorted((about.st_mtime_ns, about.st_size, path) for path in folder.iterdir() if (about := path.stat()))
    excess = sum(size for _, size, _ in found) + needed - LIMIT
    for _, size, path in found:
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= size


def _digest(key: str, columns: Columns) -> str:
    """Of everything in a file, and the key that it is kept under."""
    digest = hashlib.sha256(key.encode())
    for name, column in sorted(columns.items()):
        digest.update(f"\0{name} {column.dtype} {column.shape}\0".encode())
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


def _columns(rows: Sequence[TokenRow]) -> Columns:
    """Each field of all rows as one array; of fields with a length, the lengths beside."""
    columns: Columns = {}
    for item in fields(rows[0]):
        values = [getattr(row, item.name) for row in rows]
        if isinstance(values[0], int | float):
            columns[item.name] = np.array(values, dtype=np.int64 if isinstance(values[0], int) else np.float64)
        else:
            joined = b"".join(values)
            columns[item.name] = np.frombuffer(joined, dtype=np.int32 if isinstance(values[0], array) else np.uint8)
            columns[f"{item.name}.lengths"] = np.array([len(value) for value in values], dtype=np.int64)
    return columns


def _rows(kind: type[TokenRow], columns: Columns) -> list[TokenRow]:
    """What `_columns` was made of."""
    parts: list[Iterable[Any]] = []
    for item in fields(kind):
        lengths = columns.get(f"{item.name}.lengths")
        column = columns[item.name]
        parts.append(column.tolist() if lengths is None else _pieces(column, lengths))
    return [kind(*values) for values in zip(*parts, strict=True)]


def _pieces(column: NDArray[Any], lengths: NDArray[Any]) -> Iterable[array[int] | bytes]:
    ends = (lengths.cumsum() * column.itemsize).tolist()
    content = column.tobytes()
    for start, end in zip([0, *ends], ends, strict=False):
        piece = content[start:end]
        yield array("i", piece) if column.dtype == np.int32 else piece
