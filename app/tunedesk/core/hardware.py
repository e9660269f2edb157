"""What this computer has: GPUs by NVML, memory and disk by psutil. Nothing here needs torch."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict

GIB = 1024**3


class Gpu(BaseModel):
    """One GPU as its driver describes it; sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    driver: str
    compute_capability: tuple[int, int] | None = None


class Hardware(BaseModel):
    """A reading of this computer. `gpu_note` says in words why there is no usable GPU, or is empty."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    gpus: tuple[Gpu, ...]
    gpu_note: str
    cpu: str
    physical_cores: int
    fast_bf16: bool
    memory_total: int
    memory_free: int
    disk_free: int
    system: str


class Device(BaseModel):
    """Where a run would be computed, and the memory there; sizes in bytes. `owned` is false for a made-up card."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["cpu", "cuda", "mps"]
    name: str
    total_bytes: int
    free_bytes: int
    fast_bf16: bool
    owned: bool = True


def read_hardware(disk: Path | None = None) -> Hardware:
    """Read everything now; a part that cannot be read is explained, never raised."""
    gpus, note = read_gpus()
    memory = psutil.virtual_memory()
    return Hardware(
        gpus=gpus,
        gpu_note=note,
        cpu=cpu_name(),
        physical_cores=psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        fast_bf16=cpu_has_bf16(),
        memory_total=memory.total,
        memory_free=memory.available,
        disk_free=disk_free(disk or Path.home()),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
    )


def read_gpus() -> tuple[tuple[Gpu, ...], str]:
    """Every NVIDIA GPU, and a sentence that says why there is none."""
    try:
        import pynvml
    except ImportError:
        return (), "The NVIDIA management library for Python is not installed."
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return (), "No NVIDIA driver is installed."
    except pynvml.NVMLError as error:
        return (), f"The NVIDIA driver does not answer: {error}."
    try:
        return _read_gpus()
    except pynvml.NVMLError as error:
        return (), f"The NVIDIA driver gave no full answer: {error}."
    finally:
        pynvml.nvmlShutdown()


def _read_gpus() -> tuple[tuple[Gpu, ...], str]:
    import pynvml

    driver = _text(pynvml.nvmlSystemGetDriverVersion())
    gpus = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        gpus.append(
            Gpu(
                index=index,
                name=_text(pynvml.nvmlDeviceGetName(handle)),
                total_bytes=int(memory.total),
                free_bytes=int(memory.free),
                driver=driver,
                compute_capability=tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
            )
        )
    return tuple(gpus), "" if gpus else "An NVIDIA driver is installed, but it sees no GPU."


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def cpu_name() -> str:
    """The processor's name as people know it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(errors="replace"), re.MULTILINE)
        if found:
            return short_cpu_name(found.group(1))
    return short_cpu_name(platform.processor() or platform.machine())


def short_cpu_name(name: str) -> str:
    """`name` without marks, clock and filler: ``Intel(R) Core(TM) i7 CPU @ 2.60GHz`` is ``Intel Core i7``."""
    name = re.sub(r"\((R|TM|C)\)|®|™|@.*$|\b\d+-Core\b|\b(CPU|Processor)\b", " ", name, flags=re.IGNORECASE)
    return re.sub(r"\s+", " ", name).strip() or "Processor"


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX on x86-64, BF16 on Arm)."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return False
    flags = info.read_text(errors="replace")
    return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags) is not None


def disk_free(path: Path) -> int:
    """Free bytes on the disk that holds `path`, or its nearest folder that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return psutil.disk_usage(str(path)).free


def choose_device(hardware: Hardware, wanted: str = "auto") -> Device:
    """The device a run would use: the GPU with most free memory, else Apple's, else the CPU.

    `wanted` is ``auto``, ``cpu``, ``cuda``, ``mps`` or a made-up card such as ``RTX 3060:12GiB``. Raises `ValueError`
    with a sentence when it cannot be had.
    """
    if ":" in wanted:
        return _imagined(wanted)
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    if wanted == "cuda" and not hardware.gpus:
        raise ValueError(hardware.gpu_note)
    if wanted == "mps" and not apple:
        raise ValueError("There is no Apple GPU in this computer.")
    if wanted in ("auto", "cuda") and hardware.gpus:
        gpu = max(hardware.gpus, key=lambda item: item.free_bytes)
        return Device(
            kind="cuda",
            name=gpu.name.removeprefix("NVIDIA "),
            total_bytes=gpu.total_bytes,
            free_bytes=gpu.free_bytes,
            fast_bf16=(gpu.compute_capability or (0, 0)) >= (8, 0),
        )
    if wanted in ("auto", "mps") and apple:
        return Device(
            kind="mps",
            name=hardware.cpu,
            total_bytes=hardware.memory_total,
            free_bytes=hardware.memory_free,
            fast_bf16=True,
        )
    if wanted not in ("auto", "cpu"):
        raise ValueError("It is not a device of this computer, nor a card with its memory.")
    return Device(
        kind="cpu",
        name=hardware.cpu,
        total_bytes=hardware.memory_total,
        free_bytes=hardware.memory_free,
        fast_bf16=hardware.fast_bf16,
    )


def _imagined(wanted: str) -> Device:
    name, _, size = wanted.rpartition(":")
    found = re.fullmatch(r"\s*([\d.]+)\s*(GiB|GB|G)?\s*", size, re.IGNORECASE)
    if not found or not 0 < float(found.group(1)) < 10_000:
        raise ValueError(f"'{size}' is not a memory size. Write it as in 'RTX 3060:12GiB'.")
    total = int(float(found.group(1)) * GIB)
    return Device(
        kind="cuda",
        name=name.strip(),
        total_bytes=total,
        free_bytes=int(total * 0.94),
        fast_bf16=True,
        owned=False,
    )
