"""The C kernels, built once with the compiler that is there and kept in the cache. Without one torch does the work."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from tunedesk.core.paths import cache_dir

_SOURCES = tuple(Path(__file__).with_name(name) for name in ("kernels.c", "matmul.c", "attention.c"))
_HEADERS = (Path(__file__).with_name("tiles.h"),)
_FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-fopenmp", "-fPIC", "-shared")
_MATHS = ("-fno-math-errno", "-fno-trapping-math", "-fno-thread-jumps")
"""Without jump threading: it would divide by e^88 for lanes that are not asked for, and denormals cost five times."""
_SECONDS = 60
_log = logging.getLogger(__name__)

SUFFIXES = {torch.float32: "f32", torch.bfloat16: "bf16"}
"""Number formats that kernels.c knows, with the endings of its names; matmul.c and attention.c know bf16 alone."""


@cache
def library() -> ctypes.CDLL | None:
    """The built kernels, or None where they cannot be had (no compiler, not Linux on x86-64, or TUNEDESK_NATIVE=0)."""
    compiler = _compiler()
    if compiler is None:
        return None
    try:
        return ctypes.CDLL(str(_built(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning("The kernels were not built, training is slower without them: %s", error)
        return None


def tiles() -> ctypes.CDLL | None:
    """The library where its products on AMX tiles can be used: compiler, processor and system know them."""
    built = library()
    return built if built is not None and _ready(built) else None


@cache
def _ready(built: ctypes.CDLL) -> bool:
    return bool(built.tiles_ready())


_traced = "meta"


def trace_as(kind: str) -> None:
    """Let meta tensors stand for those of a device of this kind from now on."""
    global _traced
    _traced = kind


def of_processor(tensor: Tensor) -> bool:
    """Whether a processor holds `tensor`, or it stands on meta for one that is held so."""
    return (_traced if tensor.is_meta else tensor.device.type) == "cpu"


def nothing(*_: object) -> None:
    """What any function of the library does on meta: the tensors that it writes to were made before."""


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where the numbers of `tensor` begin, for C."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def whole(value: int) -> ctypes.c_int64:
    """An int64 for C."""
    return ctypes.c_int64(value)


def real(value: float) -> ctypes.c_float:
    """A float for C."""
    return ctypes.c_float(value)


def _compiler() -> str | None:
    """torch's own OpenMP is GNU's on Linux alone, and a second pool of threads would fight with it."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or os.environ.get("TUNEDESK_NATIVE") == "0":
        return None
    return next((found for name in ("gcc", "cc") if (found := shutil.which(name))), None)


def _built(compiler: str) -> Path:
    """The library for these sources, compiler and processor, built if it is not in the cache."""
    version = subprocess.run([compiler, "--version"], capture_output=True, timeout=_SECONDS, check=True).stdout
    parts = (
        *(file.read_bytes() for file in _SOURCES + _HEADERS),
        version,
        _processor(),
        " ".join(_FLAGS + _MATHS).encode(),
    )
    place = cache_dir() / "kernels" / f"{hashlib.sha256(b'|'.join(parts)).hexdigest()[:24]}.so"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            part = Path(folder) / place.name
            command = [compiler, *_FLAGS, *_MATHS, *map(str, _SOURCES), "-o", str(part), "-lm"]
            done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False, text=True)
            if done.returncode:
                raise OSError(done.stderr.strip()[-500:])
            part.rename(place)
    return place


def _processor() -> bytes:
    """What -march=native depends on: model and features of the processor."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return "".join(next((line for line in lines if line.startswith(key)), "") for key in ("model", "flags")).encode()
