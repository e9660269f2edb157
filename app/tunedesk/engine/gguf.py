"""A .gguf file, turned once into a folder of bfloat16 safetensors with config, tokenizer and chat template."""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tunedesk.core.events import Stage
from tunedesk.core.hardware import GIB, disk_free
from tunedesk.core.paths import cache_dir
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.core.runs import cannot_write

if TYPE_CHECKING:
    from tunedesk.engine.channel import Channel

_MAGIC = b"GGUF"
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_SAMPLES, _SAMPLE_BYTES = 32, 65536
_ALIGNMENT = 32
_FORM = 1
"""Counted up when the same file is to be converted anew because the conversion changed."""

_SINGLE_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva")
"""Values of `tokenizer.ggml.pre` whose merges were learned with every digit apart (as in llama.cpp's llama-vocab)."""


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says of itself. `metadata` leaves arrays out; `parameters` counts all weights."""

    version: int
    metadata: dict[str, Any]
    parameters: int
    expected_bytes: int

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))


def converted_folder(file: Path) -> Path:
    """The folder that `file` is or will be converted into; it exists only when it is whole."""
    return cache_dir() / "gguf" / f"{file.stem}-{_fingerprint(file)}"


def _fingerprint(file: Path) -> str:
    """Eight hex digits from size, time of change and evenly spread samples: a file of many GB is not read through."""
    status = file.stat()
    digest = hashlib.sha256(f"{_FORM} {status.st_size} {status.st_mtime_ns}".encode())
    with file.open("rb") as stream:
        for number in range(_SAMPLES):
            stream.seek(status.st_size * number // _SAMPLES)
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:8]


def convert(file: Path, channel: Channel | None) -> Path:
    """The converted folder of `file`, made now unless it was made before.

    Raises `ProblemError`: not a GGUF file, cut short, an architecture that cannot be converted, or no room on the disk
    or in memory.
    """
    try:
        target = converted_folder(file)
        if target.is_dir():
            return target
        header = read_header(file)
        _check_convertible(file, header)
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_room(file, header, target.parent)
    except OSError as error:
        raise ProblemError(_unreadable(file, error.strerror or str(error))) from error
    if channel:
        channel.emit(Stage(text=f"Unpacking {file.name} into 16-bit weights, once"))
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        _convert_into(scratch, file, header)
        scratch.chmod(0o755)
        with contextlib.suppress(OSError):  # another process was first: its copy serves
            scratch.rename(target)
        if not target.is_dir():
            scratch.rename(target)
    except OSError as error:
        raise ProblemError(cannot_write(target, error)) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _convert_into(folder: Path, file: Path, header: GgufHeader) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    place = {"gguf_file": file.name, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **place)
        model = AutoModelForCausalLM.from_pretrained(
            str(file.parent), quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16, **place
        )
    except (ValueError, NotImplementedError, KeyError, TypeError, RuntimeError) as error:
        raise ProblemError(_not_converted(file, header, error)) from error
    if header.metadata.get("tokenizer.ggml.pre") in _SINGLE_DIGITS:
        _split_digits(tokenizer)
    length = getattr(model.config, "max_position_embeddings", None)
    if isinstance(length, int):
        tokenizer.model_max_length = length
    model.config._name_or_path = str(header.metadata.get("general.name", file.stem))
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    for path in folder.iterdir():
        path.chmod(0o644)
    (folder / "README.md").write_text(_card(file, header), encoding="utf-8")


def _split_digits(tokenizer: Any) -> None:
    """transformers' reader leaves this part of the pre-tokenizer out."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    steps = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(steps)


def _card(file: Path, header: GgufHeader) -> str:
    licence = header.metadata.get("general.license")
    front = f"---\nlicense: {licence}\n---\n\n" if licence else ""
    name = header.metadata.get("general.name", file.stem)
    return f"{front}# {name}\n\nMade by TuneDesk from {file.name}: the same weights, unpacked to bfloat16.\n"


def _check_convertible(file: Path, header: GgufHeader) -> None:
    size = file.stat().st_size
    if header.expected_bytes > size:
        raise ProblemError(
            Problem(
                code="gguf.truncated",
                what=f"{file.name} is not finished.",
                where=str(file),
                found=f"It should have at least {header.expected_bytes:,} bytes and has {size:,}.",
                fix="Download the file again.",
            )
        )
    if header.metadata.get("split.count", 1) not in (0, 1):
        raise ProblemError(
            Problem(
                code="gguf.split",
                what=f"{file.name} is one part of a model that is split over several files.",
                where=str(file),
                fix="Join the parts with llama.cpp's `llama-gguf-split --merge`, or choose the model's safetensors.",
            )
        )


def _check_room(file: Path, header: GgufHeader, place: Path) -> None:
    needed = 2 * header.parameters
    free, memory = disk_free(place), psutil.virtual_memory().available
    if free < needed + GIB // 8:
        raise ProblemError(
            Problem(
                code="disk.full",
                what=f"There is no room to unpack {file.name}.",
                where=str(place),
                found=f"It needs {needed / GIB:.1f} GiB; {free / GIB:.1f} GiB are free.",
                fix="Free some space, or set TUNEDESK_CACHE to a folder on another disk.",
            )
        )
    if memory < needed:
        raise ProblemError(
            Problem(
                code="memory.full",
                what=f"There is not enough memory to unpack {file.name}.",
                found=f"It needs {needed / GIB:.1f} GiB; {memory / GIB:.1f} GiB are free.",
                fix="Close other programs, or choose the model's own safetensors.",
            )
        )


def _not_converted(file: Path, header: GgufHeader, error: Exception) -> Problem:
    return Problem(
        code="gguf.unsupported",
        what=f"GGUF files of the architecture '{header.architecture}' cannot be unpacked for training.",
        where=str(file),
        found=str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__,
        fix="Choose the same model as safetensors.",
    )


def _unreadable(file: Path, found: str) -> Problem:
    return Problem(
        code="gguf.unreadable",
        what=f"{file.name} cannot be read as a GGUF file.",
        where=str(file),
        found=found,
        fix="Choose a .gguf file that was downloaded to its end.",
    )


def read_header(file: Path) -> GgufHeader:
    """Read metadata and tensor sizes. Raises `ProblemError` when `file` is no GGUF file, `OSError` when unreadable."""
    if file.stat().st_size < 24:
        raise ProblemError(_unreadable(file, f"It has {file.stat().st_size} bytes."))
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != _MAGIC:
            raise ProblemError(_unreadable(file, f"It starts with {bytes(data[:4])!r}, not with 'GGUF'."))
        try:
            return _Reader(data).header()
        except (struct.error, IndexError, ValueError, KeyError, OverflowError, RecursionError) as error:
            raise ProblemError(_unreadable(file, f"Its header is damaged or cut short ({error}).")) from error


class _Reader:
    """Walks a GGUF header: little-endian, version 2 or 3."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4

    def header(self) -> GgufHeader:
        version = int(self._number("I"))
        if version not in (2, 3):
            raise ValueError(f"version {version}")
        tensors, pairs = int(self._number("Q")), int(self._number("Q"))
        metadata = {}
        for _ in range(pairs):
            key = self._string()
            value = self._value(int(self._number("I")))
            if value is not None:
                metadata[key] = value
        sizes = [self._tensor() for _ in range(tensors)]
        alignment = int(metadata.get("general.alignment", _ALIGNMENT))
        start = -(-self._at // alignment) * alignment
        expected = start + max((offset + size for _, offset, size in sizes), default=0)
        return GgufHeader(version, metadata, sum(count for count, _, _ in sizes), expected)

    def _number(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._data, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value

    def _string(self) -> str:
        length = int(self._number("Q"))
        if self._at + length > len(self._data):
            raise ValueError("a text runs past the end")
        text = self._data[self._at : self._at + length].decode("utf-8", "replace")
        self._at += length
        return text

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            self._skip_array()
            return None
        return self._number(_SCALARS[kind])

    def _skip_array(self) -> None:
        kind, count = int(self._number("I")), int(self._number("Q"))
        if kind in _SCALARS:
            self._at += count * struct.calcsize(f"<{_SCALARS[kind]}")
            return
        for _ in range(count):
            if kind == _ARRAY:
                self._skip_array()
            else:
                length = int(self._number("Q"))
                self._at += length

    def _tensor(self) -> tuple[int, int, int]:
        """(weights, offset, bytes) of the next tensor."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        self._string()
        count = math.prod(int(self._number("Q")) for _ in range(int(self._number("I"))))
        kind, offset = int(self._number("I")), int(self._number("Q"))
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        return count, offset, count // block * size
