"""Set up, run and test TuneDesk from a fresh clone, with nothing but Python.

    python3 packaging/dev.py run  [-- ARGS]          set up what is missing, then `tunedesk ARGS`
    python3 packaging/dev.py test [-- PYTEST ARGS]   set up, then every check and the tests
    python3 packaging/dev.py setup                   set up, and stop there

Standard library only. The file parses on Python 3.7, so that an old interpreter gets a sentence, not a
traceback; modules newer than that are imported where they are used. Everything that the set-up says goes
to standard error: standard output belongs to the app.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterable, Sequence  # noqa: UP035  (an old Python must get this far)

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
WINDOWS = os.name == "nt"
PYTHON = VENV / ("Scripts/python.exe" if WINDOWS else "bin/python")
LOG = VENV / "setup.log"
STAMP = VENV / "tunedesk-setup.json"
CONSTRAINTS = ROOT / "packaging" / "constraints.txt"
STARTER_SOURCE = ROOT / "app" / "tunedesk" / "core" / "starter.py"

OLDEST_PYTHON = (3, 11)
TORCH_HOST = "download.pytorch.org"
GIB = 1 << 30
USAGE = "\n".join(__doc__.splitlines()[2:5])


class SetupError(Exception):
    """What is wrong and what to do about it, for a person. Ends the script with exit status 2."""


# --- Decisions: pure, and tested as such ----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Gpu:
    """The best NVIDIA GPU here, and the newest CUDA that its driver speaks."""

    cuda: tuple[int, int]
    capability: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class TorchBuild:
    """Which torch to install. `index` is a folder of the PyTorch index, or None for pip's own sources."""

    name: str
    index: str | None
    reason: str

    @property
    def wants_cuda(self) -> bool:
        return self.name.startswith("cu")


def torch_build(system: str, gpu: Gpu | None) -> TorchBuild:
    """torch 2.13 comes for CUDA 12.6 (compute 5.0 to 9.0) and for CUDA 13.0 (compute 7.5 and up)."""
    if system == "Darwin":
        return TorchBuild("plain", None, "macOS has one build")
    cpu_index = "cpu" if system == "Linux" else None  # elsewhere the default build is the CPU's
    if gpu is None:
        return TorchBuild("cpu", cpu_index, "no NVIDIA driver answers")
    driver = f"the NVIDIA driver speaks CUDA {gpu.cuda[0]}.{gpu.cuda[1]}"
    if gpu.cuda >= (13, 0) and gpu.capability >= (7, 5):
        return TorchBuild("cu130", "cu130", driver)
    if gpu.cuda >= (12, 0) and gpu.capability < (10, 0):
        return TorchBuild("cu126", "cu126", driver)
    newest = "580" if gpu.capability >= (10, 0) else "560"
    return TorchBuild("cpu", cpu_index, f"{driver}, too old for this GPU's torch: update it to {newest} or newer")


def must_replace_torch(installed: str | None, build: TorchBuild) -> bool:
    """pip takes 2.13.0+cpu for 2.13.0, so the change to a CUDA build has to be forced."""
    if installed is None or not build.wants_cuda:
        return False
    local = installed.partition("+")[2]
    return local == "cpu" or (local.startswith("cu") and local != build.name)


def lacks_cuda(installed: str, system: str) -> bool:
    """The plain wheel has CUDA on Linux, and has none on Windows."""
    local = installed.partition("+")[2]
    return local == "cpu" or (system == "Windows" and not local)


def parse_nvidia_smi(banner: str, capabilities: str) -> Gpu | None:
    cuda = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", banner)
    found = [(int(a), int(b)) for a, b in re.findall(r"^\s*(\d+)\.(\d+)\s*$", capabilities, re.MULTILINE)]
    if cuda is None or not found:
        return None
    return Gpu((int(cuda.group(1)), int(cuda.group(2))), max(found))


@dataclasses.dataclass(frozen=True)
class Stamp:
    """What a finished step was finished for. Each field is written after its step, never before."""

    install: str = ""
    extras: tuple[str, ...] = ()
    torch: str = ""
    qt: str = ""
    starter: str = ""


def parse_stamp(text: str) -> Stamp:
    """A stamp that cannot be read is no stamp: the steps are then done again, which is harmless."""
    try:
        raw = json.loads(text)
        known = {f.name: raw[f.name] for f in dataclasses.fields(Stamp) if f.name in raw}
        return Stamp(**{**known, "extras": tuple(known.get("extras", ()))})
    except (ValueError, TypeError, AttributeError):
        return Stamp()


def install_digest(pyproject: str, constraints: str, python: str, torch: str, root: str) -> str:
    """Of all that decides what is installed; `root` too, since an editable install knows its folder."""
    import tomllib

    project = tomllib.loads(pyproject).get("project", {})
    parts = [project.get(key) for key in ("dependencies", "optional-dependencies", "scripts")]
    content = json.dumps([parts, constraints, python, torch, root], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def torch_requirement(pyproject: str) -> str:
    import tomllib

    dependencies: list[str] = tomllib.loads(pyproject)["project"]["dependencies"]
    return next(d for d in dependencies if re.match(r"torch\b(?!-)", d))


def pending_steps(stamp: Stamp, want: Stamp, system: str) -> list[str]:
    steps = []
    if stamp.install != want.install or not set(want.extras) <= set(stamp.extras):
        steps.append("install")
    if system == "Linux" and stamp.qt != want.qt:
        steps.append("qt")
    if stamp.starter != want.starter:
        steps.append("starter")
    return steps


def venv_python_version(config: str) -> tuple[int, int] | None:
    """From the text of pyvenv.cfg."""
    found = re.search(r"^version(?:_info)?\s*=\s*(\d+)\.(\d+)", config, re.MULTILINE)
    return (int(found.group(1)), int(found.group(2))) if found else None


SIZE_UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9}
WORTH_SAYING = 5e6  # bytes; smaller downloads are only counted


def pip_download(line: str) -> tuple[str, float] | None:
    """(name and version, bytes) if this line of pip's output begins a download of a package."""
    found = re.match(r"\s*(?:Downloading|Using cached) (?:\S*/)?(\S+)\.(?:whl|tar\.gz) \(([\d.]+) (\w+)\)", line)
    if not found:
        return None
    name, version = [*found.group(1).split("-"), ""][:2]
    return f"{name} {version}".rstrip(), float(found.group(2)) * SIZE_UNITS.get(found.group(3), 1.0)


def in_words(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


# What a failing pip, venv or apt prints, what that means, and what to do. The first match counts: a full
# disk or a lost network makes other complaints follow.
CAUSES: list[tuple[str, str, str]] = [
    (
        r"No space left on device|Errno 28|not enough space on the disk|WinError 112",
        "The disk is full.",
        "Free some space (5 GB is plenty, 10 GB with CUDA).",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerificationError",
        "A server's certificate was not accepted.",
        "Check the clock of this computer; behind a company proxy, give pip its certificate (`pip config set"
        " global.cert FILE`).",
    ),
    (
        r"Temporary failure in name resolution|Name or service not known|NewConnectionError"
        r"|getaddrinfo failed"
        r"|NameResolutionError|Network is unreachable|No route to host|Connection refused|ConnectTimeout"
        r"|Read timed out|ReadTimeout|ProxyError|Connection aborted|Connection reset|IncompleteRead"
        r"|Failed to fetch",
        "The network did not answer.",
        "Check the connection, and behind a proxy set HTTPS_PROXY.",
    ),
    (
        r"Read-only file system|Permission denied|Errno 13|Errno 30|WinError 5\b|Access is denied",
        "There is no permission to write there.",
        "Move the project to a folder of your own, or give yourself write permission on it.",
    ),
    (
        r"No matching distribution found for torch\b",
        "torch has no build for this Python and this kind of computer.",
        "Delete .venv and set up with Python 3.11, 3.12 or 3.13, 64 bit.",
    ),
    (
        r"No matching distribution found|ResolutionImpossible",
        "A package that TuneDesk needs is not to be had where pip looks.",
        "Look at `pip config list`: another index or a constraint may be in the way.",
    ),
]
UNKNOWN_CAUSE = ("A step of the set-up failed.", "The lines above say why.")


def explain(output: str) -> tuple[str, str]:
    """(what is wrong, what to do), from the output of a failed command."""
    return next(((what, do) for pattern, what, do in CAUSES if re.search(pattern, output)), UNKNOWN_CAUSE)


def telling_lines(output: str, count: int = 6) -> list[str]:
    """The first line that shows the cause, where it is not among the last ones, and the last ones."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    patterns = (pattern for pattern, _, _ in CAUSES if re.search(pattern, output))
    cause = next(patterns, "(?!)")
    last = lines[-count:]
    if any(re.search(cause, line) for line in last):
        return last
    return [line for line in lines if re.search(cause, line)][:1] + last


def missing_sonames(output: str) -> set[str]:
    """The libraries that ldd, or the error of an import, says are not there."""
    by_ldd = re.findall(r"^\s*(\S+\.so[.\d]*) => not found", output, re.MULTILINE)
    by_import = re.findall(r"(\S+\.so[.\d]*): cannot open shared object file", output)
    return {Path(name).name for name in by_ldd + by_import}


# soname -> package of Debian and Ubuntu (newer name first where it changed with 64-bit time), of Arch
QT_LIBRARIES: dict[str, tuple[tuple[str, ...], str]] = {
    "libEGL.so.1": (("libegl1",), "libglvnd"),
    "libGL.so.1": (("libgl1",), "libglvnd"),
    "libGLX.so.0": (("libglx0",), "libglvnd"),
    "libOpenGL.so.0": (("libopengl0",), "libglvnd"),
    "libGLdispatch.so.0": (("libglvnd0",), "libglvnd"),
    "libX11.so.6": (("libx11-6",), "libx11"),
    "libX11-xcb.so.1": (("libx11-xcb1",), "libx11"),
    "libdbus-1.so.3": (("libdbus-1-3",), "dbus"),
    "libexpat.so.1": (("libexpat1",), "expat"),
    "libfontconfig.so.1": (("libfontconfig1",), "fontconfig"),
    "libfreetype.so.6": (("libfreetype6",), "freetype2"),
    "libgcc_s.so.1": (("libgcc-s1",), "gcc-libs"),
    "libglib-2.0.so.0": (("libglib2.0-0t64", "libglib2.0-0"), "glib2"),
    "libgthread-2.0.so.0": (("libglib2.0-0t64", "libglib2.0-0"), "glib2"),
    "libpng16.so.16": (("libpng16-16t64", "libpng16-16"), "libpng"),
    "libstdc++.so.6": (("libstdc++6",), "gcc-libs"),
    "libwayland-client.so.0": (("libwayland-client0",), "wayland"),
    "libwayland-cursor.so.0": (("libwayland-cursor0",), "wayland"),
    "libwayland-egl.so.1": (("libwayland-egl1",), "wayland"),
    "libxcb.so.1": (("libxcb1",), "libxcb"),
    "libxcb-cursor.so.0": (("libxcb-cursor0",), "xcb-util-cursor"),
    "libxcb-glx.so.0": (("libxcb-glx0",), "libxcb"),
    "libxcb-icccm.so.4": (("libxcb-icccm4",), "xcb-util-wm"),
    "libxcb-image.so.0": (("libxcb-image0",), "xcb-util-image"),
    "libxcb-keysyms.so.1": (("libxcb-keysyms1",), "xcb-util-keysyms"),
    "libxcb-randr.so.0": (("libxcb-randr0",), "libxcb"),
    "libxcb-render.so.0": (("libxcb-render0",), "libxcb"),
    "libxcb-render-util.so.0": (("libxcb-render-util0",), "xcb-util-renderutil"),
    "libxcb-shape.so.0": (("libxcb-shape0",), "libxcb"),
    "libxcb-shm.so.0": (("libxcb-shm0",), "libxcb"),
    "libxcb-sync.so.1": (("libxcb-sync1",), "libxcb"),
    "libxcb-util.so.1": (("libxcb-util1",), "xcb-util"),
    "libxcb-xfixes.so.0": (("libxcb-xfixes0",), "libxcb"),
    "libxcb-xinerama.so.0": (("libxcb-xinerama0",), "libxcb"),
    "libxcb-xkb.so.1": (("libxcb-xkb1",), "libxcb"),
    "libxkbcommon.so.0": (("libxkbcommon0",), "libxkbcommon"),
    "libxkbcommon-x11.so.0": (("libxkbcommon-x11-0",), "libxkbcommon-x11"),
    "libz.so.1": (("zlib1g",), "zlib"),
    "libzstd.so.1": (("libzstd1",), "zstd"),
}


def debian_packages(sonames: Iterable[str], known: Callable[[str], bool]) -> list[str]:
    """Of a library's several names the first that this release knows, else the last, which is the oldest."""
    packages = set()
    for soname in sonames:
        names = QT_LIBRARIES.get(soname, ((), ""))[0]
        if names:
            packages.add(next((name for name in names[:-1] if known(name)), names[-1]))
    return sorted(packages)


def distribution_family(os_release: str) -> str:
    """debian, fedora, arch, suse or "" from the text of /etc/os-release."""
    words = set()
    for value in re.findall(r"^(?:ID|ID_LIKE)=(.*)$", os_release, re.MULTILINE):
        words.update(value.strip("\"'").split())
    families = {"debian": "debian", "ubuntu": "debian", "fedora": "fedora", "rhel": "fedora", "arch": "arch"}
    families.update({word: "suse" for word in words if "suse" in word})
    return next((families[word] for word in sorted(words) if word in families), "")


def install_command(family: str, sonames: Iterable[str], known: Callable[[str], bool]) -> str:
    """The line a person can paste. Fedora and openSUSE find the package by the library's own name."""
    ordered = sorted(sonames)
    if family == "debian":
        return "sudo apt-get install " + " ".join(debian_packages(ordered, known))
    if family == "arch":
        packages = sorted({QT_LIBRARIES[s][1] for s in ordered if s in QT_LIBRARIES})
        return "sudo pacman -S --needed " + " ".join(packages)
    tool = {"fedora": "sudo dnf install", "suse": "sudo zypper install"}.get(family)
    if tool is None:
        return "install these libraries with your package manager: " + " ".join(ordered)
    return " ".join([tool, *(f"'{soname}()(64bit)'" for soname in ordered)])


# --- Talking to the person ------------------------------------------------------------------------


STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"{clock(time.monotonic() - STARTED):>6}  {text}", file=sys.stderr, flush=True)


def failed(command: str, output: str) -> SetupError:
    what, do = explain(output)
    last = "\n".join("    " + line for line in telling_lines(output))
    log = f"; the whole log is in {LOG}" if LOG.exists() else ""
    return SetupError(
        f"{what}\n{last}\n  ({command} failed{log})\n{do} Then run the same command again: it goes on where it stopped."
    )


# --- Running things -------------------------------------------------------------------------------


def logged(command: Sequence[str], on_line: Callable[[str], None] | None = None, **env: str) -> str:
    """Run a command with its output in the log; returns the output, raises SetupError if it fails."""
    lines: list[str] = []
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"\n$ {' '.join(command)}\n")
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
        )
        for line in process.stdout or ():
            lines.append(line)
            log.write(line)
            log.flush()
            if on_line:
                on_line(line)
    if process.wait() != 0:
        raise failed(" ".join(command[:4]), "".join(lines))
    return "".join(lines)


def quiet(command: Sequence[str], **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command that only answers a question; a command that is not there answers no."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=120,
            env={**os.environ, **env},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


class PipProgress:
    """Says the large downloads as they begin and counts the rest."""

    def __init__(self) -> None:
        self.downloaded = 0.0

    def __call__(self, line: str) -> None:
        download = pip_download(line)
        if download:
            self.downloaded += download[1]
            if download[1] >= WORTH_SAYING:
                say(f"  {download[0]}, {in_words(download[1])}")
        elif line.startswith("Installing collected packages:"):
            count = line.count(",") + 1
            downloaded = f", {in_words(self.downloaded)} downloaded" if self.downloaded else ""
            say(f"  unpacking {count} package{'s' * (count > 1)}{downloaded}")


def pip_install(*arguments: str) -> None:
    options = ["--progress-bar", "off", "--disable-pip-version-check", "--no-input", "-c", str(CONSTRAINTS)]
    logged([str(PYTHON), "-m", "pip", "install", *options, *arguments], PipProgress())


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def family_here() -> str:
    try:
        return distribution_family(Path("/etc/os-release").read_text(encoding="utf-8"))
    except OSError:
        return ""


def can_install_with_apt() -> bool:
    return is_root() and family_here() == "debian" and shutil.which("apt-get") is not None


def apt_update() -> None:
    """Its failure is not the end: one foreign source that is away must not stop the set-up."""
    quiet(["apt-get", "update"], DEBIAN_FRONTEND="noninteractive")


def apt_install(packages: Sequence[str]) -> None:
    say(f"  apt-get install {' '.join(packages)}")
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=120", "install", "-y", "--no-install-recommends"]
    LOG.parent.mkdir(exist_ok=True)
    logged([*command, *packages], DEBIAN_FRONTEND="noninteractive")


def apt_knows(package: str) -> bool:
    return bool(quiet(["apt-cache", "show", package]).stdout.strip())


# --- What is here ---------------------------------------------------------------------------------


def ask_nvml() -> Gpu | None:
    """NVML is part of the driver; asking it takes milliseconds and no CUDA."""
    import ctypes

    try:
        nvml = ctypes.CDLL("nvml.dll" if WINDOWS else "libnvidia-ml.so.1")
        if nvml.nvmlInit_v2() != 0:
            return None
        cuda, count = ctypes.c_int(), ctypes.c_uint()
        nvml.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(cuda))
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        capabilities = []
        for index in range(count.value):
            device, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
            nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device))
            nvml.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor))
            capabilities.append((major.value, minor.value))
        nvml.nvmlShutdown()
    except (OSError, AttributeError):  # no library, or one too old to have these functions
        return None
    return Gpu((cuda.value // 1000, cuda.value % 1000 // 10), max(capabilities)) if capabilities else None


def ask_nvidia_smi() -> Gpu | None:
    if shutil.which("nvidia-smi") is None:
        return None
    capabilities = quiet(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"])
    return parse_nvidia_smi(quiet(["nvidia-smi"]).stdout, capabilities.stdout)


def choose_torch(stamp: Stamp) -> TorchBuild:
    """A CUDA build that is installed stays: it runs on the CPU too, and a driver may be away for a while."""
    system = platform.system()
    if stamp.torch.startswith("cu") and system != "Darwin":
        return TorchBuild(stamp.torch, stamp.torch, "as before")
    return torch_build(system, None if system == "Darwin" else ask_nvml() or ask_nvidia_smi())


def answers(host: str, seconds: float = 2.0) -> bool:
    """Whether the host takes a connection. In a thread, since looking up a name obeys no timeout."""
    import socket
    import threading

    connected = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host, 443), timeout=seconds).close()
        except OSError:
            return
        connected.set()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return connected.is_set()


def site_packages() -> Path | None:
    places = [VENV / "Lib" / "site-packages", *VENV.glob("lib/python3*/site-packages")]
    return next((place for place in places if place.is_dir()), None)


def installed_torch() -> str | None:
    folder = site_packages()
    found = [entry.name.split("-")[1] for entry in folder.glob("torch-*.dist-info")] if folder else []
    return found[0].removesuffix(".dist") if found else None


def read_stamp() -> Stamp:
    if not PYTHON.exists():  # the interpreter that it was made with is gone
        return Stamp()
    try:
        return parse_stamp(STAMP.read_text(encoding="utf-8"))
    except OSError:
        return Stamp()


def write_stamp(stamp: Stamp) -> None:
    beside = STAMP.with_suffix(".new")
    beside.write_text(json.dumps(dataclasses.asdict(stamp), indent=1), encoding="utf-8")
    beside.replace(STAMP)


def venv_version() -> tuple[int, int] | None:
    try:
        return venv_python_version((VENV / "pyvenv.cfg").read_text(encoding="utf-8"))
    except OSError:
        return None


def wanted_stamp(extras: Sequence[str], build: TorchBuild) -> Stamp:
    python = venv_version()
    if python is None or python < OLDEST_PYTHON:
        python = (sys.version_info[0], sys.version_info[1])
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    constraints = CONSTRAINTS.read_text(encoding="utf-8")
    digest = install_digest(pyproject, constraints, f"{python[0]}.{python[1]}", build.name, str(ROOT))
    starter = hashlib.sha256(STARTER_SOURCE.read_bytes()).hexdigest() if STARTER_SOURCE.exists() else ""
    return Stamp(digest, tuple(extras), build.name, digest, starter)


# --- The steps of the set-up ----------------------------------------------------------------------


def venv_is_sound() -> bool:
    version = venv_version()
    if version is None or version < OLDEST_PYTHON or not PYTHON.exists():
        return False
    return quiet([str(PYTHON), "-m", "pip", "--version"]).returncode == 0


def ensure_venv_module() -> None:
    from importlib.util import find_spec

    if find_spec("venv") and find_spec("ensurepip"):
        return
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    if can_install_with_apt():
        say("Python's venv module, which Debian packs apart")
        apt_update()
        apt_install([package])
        return
    advice = f"sudo apt-get install {package}" if family_here() == "debian" else "install a complete Python"
    raise SetupError(
        f"{sys.executable} cannot make virtual environments: venv or ensurepip is missing.\nDo this: {advice}"
    )


def make_venv() -> None:
    ensure_venv_module()
    say("Python environment in .venv")
    interpreter: str = getattr(sys, "_base_executable", sys.executable)
    made = quiet([interpreter, "-m", "venv", "--clear", str(VENV)])
    if made.returncode != 0 or not PYTHON.exists():
        raise failed("python -m venv", made.stdout + made.stderr)


def check_space(build: TorchBuild) -> None:
    need = (9 if build.wants_cuda else 3) * GIB
    free = shutil.disk_usage(ROOT).free
    if installed_torch() is None and free < need:
        raise SetupError(
            f"The set-up needs about {in_words(need)} on the disk of {ROOT}, and {in_words(free)} are free.\n"
            "Free some space, then run the same command again."
        )


def install_torch(build: TorchBuild) -> None:
    """torch alone and first, so that the PyTorch index is asked for nothing else."""
    kind = "CUDA " + build.name[2:4] + "." + build.name[4:] if build.wants_cuda else "the CPU"
    say(f"torch for {kind} ({build.reason})")
    requirement = torch_requirement((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    arguments = ["--no-deps", requirement]
    if must_replace_torch(installed_torch(), build):
        arguments.append("--force-reinstall")
    if build.index is not None:
        if answers(TORCH_HOST):
            arguments += ["--extra-index-url", f"https://{TORCH_HOST}/whl/{build.index}"]
        else:
            say(f"  {TORCH_HOST} does not answer: taking the build that pip finds elsewhere")
    pip_install(*arguments)
    if build.wants_cuda and lacks_cuda(installed_torch() or "", platform.system()):
        say("  pip found only a build for the CPU: the GPU stays idle. To try again, delete .venv first")


def install_app(extras: Sequence[str]) -> None:
    say("TuneDesk and what it needs" + (" to be tested" if extras else ""))
    pip_install("-e", str(ROOT) + (f"[{','.join(extras)}]" if extras else ""))


def install(stamp: Stamp, want: Stamp, build: TorchBuild) -> Stamp:
    """Both calls of pip are safe to repeat; the stamp comes after the second."""
    if stamp.install != want.install:
        say("Setting up TuneDesk: once, a few minutes; the log is .venv/setup.log")
        check_space(build)
    if not venv_is_sound():
        stamp = Stamp()
        make_venv()
    LOG.write_text("", encoding="utf-8")
    extras = tuple(sorted({*stamp.extras, *want.extras}))
    if stamp.install != want.install:
        install_torch(build)
    install_app(extras)
    return dataclasses.replace(stamp, install=want.install, extras=extras, torch=want.torch)


QT_PROBE = (
    "from PySide6 import QtGui, QtNetwork, QtSvg, QtWidgets; print(QtWidgets.QApplication(['tunedesk']).platformName())"
)
QT_FILES = ("Qt*.abi3.so", "Qt/plugins/platforms/libqxcb.so", "Qt/plugins/xcbglintegrations/*.so")
QT_WAYLAND_FILES = (
    "Qt/plugins/platforms/libqwayland.so",
    "Qt/plugins/wayland-graphics-integration-client/*wayland-egl.so",
)
QT_MODULES_USED = {
    "QtCore.abi3.so",
    "QtGui.abi3.so",
    "QtWidgets.abi3.so",
    "QtSvg.abi3.so",
    "QtNetwork.abi3.so",
}


def missing_by_ldd(patterns: Sequence[str]) -> set[str]:
    folder = (site_packages() or VENV) / "PySide6"
    files = [file for pattern in patterns for file in folder.glob(pattern)]
    files = [file for file in files if file.parent != folder or file.name in QT_MODULES_USED]
    return missing_sonames(quiet(["ldd", *map(str, files)]).stdout) if files else set()


def probe_qt() -> tuple[bool, str]:
    """Whether Qt can open an application here, without a display, and what it printed."""
    answer = quiet([str(PYTHON), "-c", QT_PROBE], QT_QPA_PLATFORM="offscreen")
    return answer.returncode == 0, answer.stdout + answer.stderr


def missing_for_qt() -> tuple[set[str], set[str]]:
    """(what Qt cannot do without, what only a Wayland session needs)."""
    needed = missing_by_ldd(QT_FILES) | missing_sonames(probe_qt()[1])
    return needed, missing_by_ldd(QT_WAYLAND_FILES) - needed


def install_qt_libraries(sonames: set[str]) -> None:
    apt_update()
    packages = debian_packages(sonames, apt_knows)
    if packages:
        apt_install(packages)


def check_qt(*, window_wanted: bool) -> bool:
    """False where Qt is not whole but nobody is going to open a window; to be asked again next time."""
    say("Qt and the system libraries it needs")
    needed, for_wayland = missing_for_qt()
    if (needed or for_wayland) and can_install_with_apt():
        install_qt_libraries(needed | for_wayland)
        needed, for_wayland = missing_for_qt()
    if needed:
        advice = f"Qt misses system libraries. Do this: {install_command(family_here(), needed, apt_knows)}"
        if window_wanted:
            raise SetupError(advice)
        say("  no window can open here. " + advice)
        return False
    if for_wayland:
        say(f"  for Wayland sessions also: {install_command(family_here(), for_wayland, apt_knows)}")
    fine, output = probe_qt()
    if not fine:
        raise failed("Starting Qt", output)
    return True


def fetch_starter() -> bool:
    """The app unpacks the models itself, so a failure here costs nothing but the wait later."""
    say("Starter models (about 180 MB, once)")
    done = subprocess.run([str(PYTHON), "-m", "tunedesk", "starter", "--fetch-only"], stdout=sys.stderr, check=False)
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode != 0:
        say("  they did not come; TuneDesk will fetch them when they are first used")
    return done.returncode == 0


def has_display() -> bool:
    return WINDOWS or sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def set_up(extras: Sequence[str] = (), *, window_wanted: bool = True) -> None:
    stamp = read_stamp()
    build = choose_torch(stamp)
    want = wanted_stamp(extras, build)
    steps = pending_steps(stamp, want, platform.system())
    if not steps:
        return
    if "install" in steps:
        stamp = install(stamp, want, build)
        write_stamp(stamp)
    if "qt" in steps and check_qt(window_wanted=window_wanted):
        stamp = dataclasses.replace(stamp, qt=want.qt)
        write_stamp(stamp)
    if "starter" in steps and fetch_starter():
        stamp = dataclasses.replace(stamp, starter=want.starter)
        write_stamp(stamp)
    say("Ready")


# --- The commands ---------------------------------------------------------------------------------


def run(arguments: Sequence[str]) -> int:
    set_up(window_wanted=has_display())
    command = [str(PYTHON), "-m", "tunedesk", *arguments]
    if not WINDOWS:  # there execv returns to the shell before the app has ended
        os.execv(command[0], command)
    try:
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:  # the app got it too, and has said what there is to say
        return 130


CHECKS: list[tuple[str, list[str]]] = [
    ("ruff check", ["-m", "ruff", "check", "."]),
    ("ruff format", ["-m", "ruff", "format", "--check", "."]),
    ("mypy", ["-m", "mypy"]),
    ("mypy packaging", ["-m", "mypy", "packaging/dev.py"]),
    ("import contracts", ["-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-logo"]),
]


def check(name: str, arguments: Sequence[str]) -> bool:
    print(f"== {name}", flush=True)
    env = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    return subprocess.run([str(PYTHON), *arguments], cwd=ROOT, env=env, check=False).returncode == 0


def test(arguments: Sequence[str]) -> int:
    """All checks run even if one fails; pytest is last, so that its closing line is the last one too."""
    set_up(["dev"])
    checks = [] if arguments else CHECKS
    bad = [name for name, command in checks if not check(name, command)]
    if bad:
        print(f"== not clean: {', '.join(bad)} (pytest follows all the same)", flush=True)
    return 0 if check("pytest", ["-m", "pytest", *arguments]) and not bad else 1


def setup(arguments: Sequence[str]) -> int:
    if arguments:
        raise SetupError(f"setup takes no arguments, and got: {' '.join(arguments)}")
    set_up(window_wanted=has_display())
    return 0


def too_old(version: Sequence[int], other: str | None) -> str | None:
    """What to say to a Python that is too old; None if it is not."""
    if tuple(version) >= OLDEST_PYTHON:
        return None
    advice = "Install it (python.org, or your package manager)."
    if other is not None:
        advice = f"There is one here: {other} packaging/dev.py"
    return f"TuneDesk needs Python 3.11 or newer, and this is {version[0]}.{version[1]}. {advice}"


def newer_python() -> str | None:
    names = [f"python3.{minor}" for minor in (13, 12, 11, 14)]
    return next((name for name in names if quiet([name, "--version"]).returncode == 0), None)


def main(argv: Sequence[str]) -> int:
    if sys.version_info < OLDEST_PYTHON:
        print(too_old(sys.version_info[:2], newer_python()), file=sys.stderr)
        return 2
    commands = {"run": run, "test": test, "setup": setup}
    command = commands.get(argv[0]) if argv else None
    if command is None:
        print(USAGE, file=sys.stderr)
        return 0 if argv[:1] in (["-h"], ["--help"]) else 2
    arguments = list(argv[1:])
    if arguments[:1] == ["--"]:
        del arguments[0]
    try:
        return command(arguments)
    except SetupError as problem:
        print(f"\n{problem}", file=sys.stderr)
    except OSError as error:
        what, do = explain(str(error))
        print(f"\n{what}\n    {error}\n{do} Then run the same command again.", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nStopped. Nothing is broken: run the same command again and it goes on.", file=sys.stderr)
        return 130
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
