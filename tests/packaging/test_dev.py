"""packaging/dev.py: its decisions one by one, and its commands with the outside world replaced."""

import ast
import ctypes
import dataclasses
import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "packaging" / "dev.py"


def load_dev() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tunedesk_dev", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


dev = load_dev()
Gpu = dev.Gpu
LOGGED = dev.logged  # the fixture below takes it away


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project folder of its own, set up for all but what a test takes away; nothing outside may be run."""
    (tmp_path / "packaging").mkdir()
    for name in ("pyproject.toml", "packaging/constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("version = 3.11.7\n")
    starter = tmp_path / "starter.py"
    starter.write_text("PINNED = 1\n")
    places = {
        "ROOT": tmp_path,
        "VENV": tmp_path / ".venv",
        "PYTHON": python,
        "LOG": tmp_path / ".venv" / "setup.log",
        "STAMP": tmp_path / ".venv" / "stamp.json",
        "CONSTRAINTS": tmp_path / "packaging" / "constraints.txt",
        "STARTER_SOURCE": starter,
    }
    for name, place in places.items():
        monkeypatch.setattr(dev, name, place)
    monkeypatch.setattr(dev.platform, "system", lambda: "Linux")
    monkeypatch.setattr(dev, "ask_nvml", lambda: None)
    monkeypatch.setattr(dev, "ask_nvidia_smi", lambda: None)
    for name in ("logged", "quiet"):
        monkeypatch.setattr(dev, name, lambda *a, **_: pytest.fail(f"would run {a[0]}"))
    return tmp_path


def stamp_everything(extras=()) -> None:
    dev.write_stamp(dev.wanted_stamp(extras, dev.choose_torch(dev.Stamp())))


def replace_steps(monkeypatch, done: list[str]) -> None:
    """The steps only note that they ran."""
    monkeypatch.setattr(dev, "venv_is_sound", lambda: True)
    monkeypatch.setattr(dev, "check_space", lambda _: None)
    monkeypatch.setattr(dev, "install_torch", lambda build: done.append(f"torch {build.name}"))
    monkeypatch.setattr(dev, "install_app", lambda extras: done.append(f"app {list(extras)}"))
    monkeypatch.setattr(dev, "check_qt", lambda **_: not done.append("qt"))
    monkeypatch.setattr(dev, "fetch_starter", lambda: not done.append("starter"))


# --- the torch build


@pytest.mark.parametrize(
    ("system", "gpu", "name", "index"),
    [
        ("Darwin", None, "plain", None),
        ("Linux", None, "cpu", "cpu"),
        ("Windows", None, "cpu", None),
        ("Linux", Gpu((13, 0), (8, 6)), "cu130", "cu130"),
        ("Windows", Gpu((13, 2), (12, 0)), "cu130", "cu130"),
        ("Windows", Gpu((12, 8), (8, 9)), "cu126", "cu126"),
        ("Linux", Gpu((13, 0), (6, 1)), "cu126", "cu126"),  # CUDA 13 dropped Pascal
        ("Linux", Gpu((12, 8), (12, 0)), "cpu", "cpu"),  # CUDA 12.6 does not know Blackwell
        ("Windows", Gpu((11, 8), (7, 5)), "cpu", None),
    ],
)
def test_that_the_torch_build_fits_system_driver_and_gpu(system, gpu, name, index):
    build = dev.torch_build(system, gpu)
    assert (build.name, build.index) == (name, index)


def test_that_a_driver_that_is_too_old_is_named_with_the_version_to_update_to():
    assert "CUDA 11.8, too old" in dev.torch_build("Linux", Gpu((11, 8), (7, 5))).reason
    assert "update it to 580" in dev.torch_build("Linux", Gpu((12, 8), (12, 0))).reason


@pytest.mark.parametrize(
    ("installed", "build", "replace"),
    [
        (None, "cu130", False),
        ("2.13.0+cpu", "cu130", True),
        ("2.13.0+cu126", "cu130", True),
        ("2.13.0+cu130", "cu130", False),
        ("2.13.0", "cu130", False),
        ("2.13.0", "cpu", False),
        ("2.13.0+cu130", "cpu", False),
    ],
)
def test_that_only_a_change_to_cuda_forces_torch_to_be_replaced(installed, build, replace):
    assert dev.must_replace_torch(installed, dev.TorchBuild(build, build, "")) is replace


@pytest.mark.parametrize(
    ("installed", "system", "lacks"),
    [
        ("2.13.0+cpu", "Linux", True),
        ("2.13.0", "Linux", False),
        ("2.13.0", "Windows", True),
        ("2.13.0+cu130", "Windows", False),
    ],
)
def test_that_a_build_without_cuda_is_recognised(installed, system, lacks):
    assert dev.lacks_cuda(installed, system) is lacks


def test_that_nvidia_smi_is_read_for_the_best_gpu():
    banner = "| NVIDIA-SMI 580.65.06    Driver Version: 580.65.06    CUDA Version: 13.0     |"
    assert dev.parse_nvidia_smi(banner, "6.1\n8.9\n") == Gpu((13, 0), (8, 9))
    assert dev.parse_nvidia_smi("NVIDIA-SMI has failed", "") is None


class FakeNvml:
    """Answers as the library does: through the pointers it is given."""

    def nvmlInit_v2(self):
        return 0

    def nvmlSystemGetCudaDriverVersion_v2(self, version):
        version._obj.value = 12080

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = 2

    def nvmlDeviceGetHandleByIndex_v2(self, index, device):
        device._obj.value = index + 1

    def nvmlDeviceGetCudaComputeCapability(self, device, major, minor):
        major._obj.value, minor._obj.value = {1: (7, 5), 2: (8, 6)}[device.value]

    def nvmlShutdown(self):
        return 0


def test_that_nvml_gives_the_cuda_of_the_driver_and_the_best_capability(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: FakeNvml())
    assert dev.ask_nvml() == Gpu((12, 8), (8, 6))


def test_that_no_nvml_library_means_no_gpu(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert dev.ask_nvml() is None


def test_that_an_installed_cuda_build_stays_when_the_driver_is_away(project):
    assert dev.choose_torch(dev.Stamp(torch="cu126")).name == "cu126"
    assert dev.choose_torch(dev.Stamp(torch="cpu")).name == "cpu"


def test_that_the_requirement_of_torch_comes_from_pyproject():
    requirement = Requirement(dev.torch_requirement((ROOT / "pyproject.toml").read_text()))
    assert requirement.name == "torch"
    assert requirement.specifier.contains("2.13.0")


# --- stamp and steps


def test_that_a_stamp_survives_being_written_and_read(project):
    stamp = dev.Stamp("a", ("dev",), "cpu", "b", "c")
    dev.write_stamp(stamp)
    assert dev.read_stamp() == stamp


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"extras": 3}', '{"unknown": 1}'])
def test_that_an_unreadable_stamp_means_that_nothing_is_done(text):
    assert dev.parse_stamp(text) == dev.Stamp()


def test_that_a_stamp_counts_for_nothing_without_its_interpreter(project):
    stamp_everything()
    dev.PYTHON.unlink()
    assert dev.read_stamp() == dev.Stamp()


def test_that_the_digest_changes_with_each_thing_that_decides_the_install():
    pyproject = '[project]\ndependencies = ["torch>=2.10"]\ndescription = "x"\n[tool.ruff]\nline-length = 1\n'
    base = [pyproject, "torch==2.13.0", "3.11", "cpu", "/a"]
    digest = dev.install_digest(*base)
    for place, other in enumerate([pyproject.replace("2.10", "2.11"), "torch==2.12.0", "3.12", "cu130", "/b"]):
        assert dev.install_digest(*base[:place], other, *base[place + 1 :]) != digest
    unrelated = pyproject.replace('"x"', '"y"').replace("= 1", "= 2")
    assert dev.install_digest(unrelated, *base[1:]) == digest


@pytest.mark.parametrize(
    ("stamp", "system", "steps"),
    [
        (dev.Stamp(), "Linux", ["install", "qt", "starter"]),
        (dev.Stamp(), "Windows", ["install", "starter"]),
        (dev.Stamp("i", ("dev",), "cpu", "i", "s"), "Linux", []),
        (dev.Stamp("i", (), "cpu", "i", "s"), "Linux", ["install"]),
        (dev.Stamp("i", ("dev",), "cpu", "", "s"), "Linux", ["qt"]),
        (dev.Stamp("i", ("dev",), "cpu", "", "s"), "Darwin", []),
        (dev.Stamp("i", ("dev",), "cpu", "i", "old"), "Linux", ["starter"]),
        (dev.Stamp("old", ("dev",), "cpu", "old", "s"), "Linux", ["install", "qt"]),
    ],
)
def test_that_only_the_steps_that_are_not_stamped_are_pending(stamp, system, steps):
    assert dev.pending_steps(stamp, dev.Stamp("i", ("dev",), "cpu", "i", "s"), system) == steps


def test_that_run_asks_for_no_extras_where_test_has_installed_them():
    assert (
        dev.pending_steps(dev.Stamp("i", ("dev",), "cpu", "i", "s"), dev.Stamp("i", (), "cpu", "i", "s"), "Linux") == []
    )


def test_that_a_first_set_up_does_every_step_and_a_second_none(project, monkeypatch):
    done: list[str] = []
    replace_steps(monkeypatch, done)
    dev.set_up()
    assert done == ["torch cpu", "app []", "qt", "starter"]
    dev.set_up()
    assert len(done) == 4


def test_that_the_tests_extra_is_added_without_touching_torch(project, monkeypatch):
    stamp_everything()
    done: list[str] = []
    replace_steps(monkeypatch, done)
    dev.set_up(["dev"])
    dev.set_up()
    assert done == ["app ['dev']"]


def test_that_a_set_up_interrupted_in_the_install_leaves_no_stamp(project, monkeypatch):
    replace_steps(monkeypatch, [])

    def interrupted(extras):
        raise KeyboardInterrupt

    monkeypatch.setattr(dev, "install_app", interrupted)
    assert dev.main(["setup"]) == 130
    assert not dev.STAMP.exists()


def test_that_a_starter_that_did_not_come_is_asked_for_again(project, monkeypatch):
    done: list[str] = []
    replace_steps(monkeypatch, done)
    monkeypatch.setattr(dev, "fetch_starter", lambda: bool(done.append("starter")))
    dev.set_up()
    dev.set_up()
    assert done.count("starter") == 2
    assert done.count("app []") == 1


def test_that_new_pins_of_the_starter_fetch_it_again(project, monkeypatch):
    stamp_everything()
    done: list[str] = []
    replace_steps(monkeypatch, done)
    dev.STARTER_SOURCE.write_text("PINNED = 2\n")
    dev.set_up()
    assert done == ["starter"]


def test_that_the_set_up_leaves_standard_output_to_the_app(project, monkeypatch, capsys):
    replace_steps(monkeypatch, [])
    dev.set_up()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Ready" in captured.err


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("home = /usr/bin\nversion = 3.11.7\n", (3, 11)),
        ("version_info = 3.12.1.final.0\n", (3, 12)),
        ("home = x", None),
    ],
)
def test_that_the_version_of_an_environment_is_read_from_its_config(text, version):
    assert dev.venv_python_version(text) == version


# --- pip's output


@pytest.mark.parametrize(
    ("line", "download"),
    [
        ("  Downloading torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl (191.8 MB)\n", ("torch 2.13.0+cpu", 191.8e6)),
        ("Downloading pyarrow-26.0.1-cp311-cp311-manylinux_2_28_x86_64.whl (55.4 MB)\n", ("pyarrow 26.0.1", 55.4e6)),
        ("  Using cached idna-3.20-py3-none-any.whl (68 kB)\n", ("idna 3.20", 68e3)),
        ("  Downloading https://download.pytorch.org/whl/cpu/torch-2.13.0-x.whl (1.1 GB)\n", ("torch 2.13.0", 1.1e9)),
        ("  Downloading antlr4-4.9.3.tar.gz (117 kB)\n", ("antlr4 4.9.3", 117e3)),
        ("  Downloading idna-3.20-py3-none-any.whl.metadata (8.4 kB)\n", None),
        ("Collecting torch<2.14,>=2.10\n", None),
    ],
)
def test_that_downloads_are_recognised_in_the_output_of_pip(line, download):
    assert dev.pip_download(line) == download


def test_that_progress_names_large_downloads_and_counts_all(capsys):
    progress = dev.PipProgress()
    progress("  Downloading pyarrow-26.0.1-cp311.whl (55.4 MB)\n")
    progress("  Downloading idna-3.20-py3-none-any.whl (600 kB)\n")
    progress("Installing collected packages: idna, pyarrow\n")
    said = capsys.readouterr().err
    assert "pyarrow 26.0.1, 55 MB" in said
    assert "idna" not in said
    assert "unpacking 2 packages, 56 MB downloaded" in said


@pytest.mark.parametrize(
    ("output", "what"),
    [
        (
            "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError('<HTTPSConnection>:"
            " Failed to establish a new connection: [Errno -3] Temporary failure in name resolution')'\n"
            "ERROR: No matching distribution found for torch<2.14,>=2.10",
            "The network did not answer.",
        ),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "The disk is full.",
        ),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/srv/x/.venv'",
            "There is no permission to write there.",
        ),
        ("[Errno 30] Read-only file system: '/mnt/x/.venv'", "There is no permission to write there."),
        ("[WinError 5] Access is denied", "There is no permission to write there."),
        (
            "SSLError(SSLCertVerificationError(1, 'CERTIFICATE_VERIFY_FAILED'))",
            "A server's certificate was not accepted.",
        ),
        (
            "ERROR: No matching distribution found for torch<2.14,>=2.10",
            "torch has no build for this Python and this kind of computer.",
        ),
        (
            "ERROR: No matching distribution found for torchlight==9",
            "A package that TuneDesk needs is not to be had where pip looks.",
        ),
        ("Segmentation fault", "A step of the set-up failed."),
    ],
)
def test_that_a_failure_is_put_in_words(output, what):
    assert dev.explain(output)[0] == what


def test_that_the_line_with_the_cause_is_shown_however_much_follows_it():
    cause = "WARNING: Retrying after NewConnectionError(Network is unreachable)"
    output = "\n".join(["Collecting torch", cause, cause, *(f"hint {n}" for n in range(20))])
    assert dev.telling_lines(output, 3) == [cause, "hint 17", "hint 18", "hint 19"]
    assert dev.telling_lines("one\n\ntwo\n" + cause, 2) == ["two", cause]
    assert dev.telling_lines("one\ntwo\n", 5) == ["one", "two"]


def test_that_a_failing_command_ends_in_its_last_lines_and_what_to_do(project, monkeypatch):
    command = [sys.executable, "-c", "print('one'); print('[Errno 28] No space left on device'); raise SystemExit(1)"]
    monkeypatch.setattr(dev, "logged", LOGGED)
    with pytest.raises(dev.SetupError, match="The disk is full") as caught:
        dev.logged(command)
    assert "No space left on device" in str(caught.value)
    assert str(dev.LOG) in str(caught.value)
    assert "Free some space" in str(caught.value)
    assert "one\n" in dev.LOG.read_text()


def test_that_a_full_disk_is_told_before_the_download(project, monkeypatch):
    monkeypatch.setattr(dev.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 30))
    with pytest.raises(dev.SetupError, match=r"3\.2 GB .*1\.1 GB are free"):
        dev.check_space(dev.TorchBuild("cpu", "cpu", ""))


# --- Qt's libraries


def test_that_missing_libraries_are_read_from_ldd_and_from_an_import():
    ldd = (
        "libqxcb.so:\n\tlinux-vdso.so.1 (0x00007ffc)\n\tlibxcb-icccm.so.4 => not found\n"
        "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\tlibxcb-icccm.so.4 => not found\n"
    )
    assert dev.missing_sonames(ldd) == {"libxcb-icccm.so.4"}
    trouble = "ImportError: libEGL.so.1: cannot open shared object file: No such file or directory"
    assert dev.missing_sonames(trouble) == {"libEGL.so.1"}


def test_that_renamed_packages_are_taken_by_the_name_that_the_release_knows():
    wanted = ["libgthread-2.0.so.0", "libglib-2.0.so.0", "libxcb-cursor.so.0"]
    assert dev.debian_packages(wanted, lambda _: True) == ["libglib2.0-0t64", "libxcb-cursor0"]
    assert dev.debian_packages(wanted, lambda _: False) == ["libglib2.0-0", "libxcb-cursor0"]


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("ID=debian\n", "debian"),
        ('NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n', "debian"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "debian"),
        ("ID=fedora\n", "fedora"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "fedora"),
        ("ID=manjaro\nID_LIKE=arch\n", "arch"),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', "suse"),
        ("ID=nixos\n", ""),
    ],
)
def test_that_the_distribution_is_told_by_its_family(text, family):
    assert dev.distribution_family(text) == family


@pytest.mark.parametrize(
    ("family", "command"),
    [
        ("debian", "sudo apt-get install libegl1 libxcb-icccm4"),
        ("fedora", "sudo dnf install 'libEGL.so.1()(64bit)' 'libxcb-icccm.so.4()(64bit)'"),
        ("suse", "sudo zypper install 'libEGL.so.1()(64bit)' 'libxcb-icccm.so.4()(64bit)'"),
        ("arch", "sudo pacman -S --needed libglvnd xcb-util-wm"),
        ("", "install these libraries with your package manager: libEGL.so.1 libxcb-icccm.so.4"),
    ],
)
def test_that_the_command_to_install_can_be_pasted(family, command):
    assert dev.install_command(family, {"libxcb-icccm.so.4", "libEGL.so.1"}, lambda _: False) == command


def qt_lacks(monkeypatch, *sonames: str) -> None:
    monkeypatch.setattr(dev, "missing_for_qt", lambda: (set(sonames), set()))
    monkeypatch.setattr(dev, "family_here", lambda: "debian")
    monkeypatch.setattr(dev, "apt_knows", lambda _: False)


def test_that_missing_libraries_are_installed_when_root_on_debian(monkeypatch):
    there: list[str] = []
    qt_lacks(monkeypatch, "libEGL.so.1")
    monkeypatch.setattr(dev, "missing_for_qt", lambda: (set() if there else {"libEGL.so.1"}, set()))
    monkeypatch.setattr(dev, "can_install_with_apt", lambda: True)
    monkeypatch.setattr(dev, "apt_update", lambda: None)
    monkeypatch.setattr(dev, "apt_install", there.extend)
    monkeypatch.setattr(dev, "probe_qt", lambda: (True, "offscreen"))
    assert dev.check_qt(window_wanted=True)
    assert there == ["libegl1"]


def test_that_others_get_the_command_and_no_window(monkeypatch):
    qt_lacks(monkeypatch, "libEGL.so.1")
    monkeypatch.setattr(dev, "can_install_with_apt", lambda: False)
    with pytest.raises(dev.SetupError, match="sudo apt-get install libegl1"):
        dev.check_qt(window_wanted=True)


def test_that_without_a_display_missing_libraries_stop_nothing(monkeypatch, capsys):
    qt_lacks(monkeypatch, "libEGL.so.1")
    monkeypatch.setattr(dev, "can_install_with_apt", lambda: False)
    assert not dev.check_qt(window_wanted=False)
    assert "sudo apt-get install libegl1" in capsys.readouterr().err


# --- the commands


def test_that_run_becomes_the_app_with_the_arguments_after_the_dashes(project, monkeypatch):
    stamp_everything()
    started = []
    monkeypatch.setattr(dev.os, "execv", lambda _, command: started.append(command) or sys.exit(0))
    with pytest.raises(SystemExit):
        dev.main(["run", "--", "plan", "run.toml", "--", "x"])
    assert started == [[str(dev.PYTHON), "-m", "tunedesk", "plan", "run.toml", "--", "x"]]


def test_that_on_windows_the_exit_status_of_the_app_is_passed_on(project, monkeypatch):
    stamp_everything()
    monkeypatch.setattr(dev, "WINDOWS", True)
    monkeypatch.setattr(dev.subprocess, "run", lambda _, **__: SimpleNamespace(returncode=7))
    assert dev.main(["run"]) == 7


def run_checks(monkeypatch, *arguments: str, failing: str = "") -> tuple[int, list[str]]:
    names: list[str] = []
    monkeypatch.setattr(dev, "check", lambda name, _: names.append(name) or name != failing)
    return dev.main(["test", *arguments]), names


def test_that_test_runs_every_check_and_pytest_last(project, monkeypatch):
    stamp_everything(["dev"])
    everything = ["ruff check", "ruff format", "mypy", "mypy packaging", "import contracts", "pytest"]
    assert run_checks(monkeypatch) == (0, everything)
    for name in everything:
        assert run_checks(monkeypatch, failing=name) == (1, everything)


def test_that_test_with_arguments_runs_pytest_alone(project, monkeypatch):
    stamp_everything(["dev"])
    assert run_checks(monkeypatch, "--", "-k", "core") == (0, ["pytest"])


def test_that_a_check_runs_without_a_display(project, monkeypatch):
    seen = []
    monkeypatch.setattr(dev.subprocess, "run", lambda _, **k: seen.append(k["env"]) or SimpleNamespace(returncode=0))
    monkeypatch.setenv("QT_QPA_PLATFORM", "xcb")
    assert dev.check("pytest", ["-m", "pytest"])
    assert seen[0]["QT_QPA_PLATFORM"] == "offscreen"


def test_that_an_os_error_is_told_without_a_traceback(project, monkeypatch, capsys):
    def full(*a, **k):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dev, "set_up", full)
    assert dev.main(["setup"]) == 2
    assert "The disk is full." in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["--help"], 0), (["fly"], 2), (["setup", "now"], 2)])
def test_that_a_wrong_command_line_is_answered_with_words(arguments, status):
    answer = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert answer.returncode == status
    assert "Traceback" not in answer.stderr
    assert answer.stderr


# --- old interpreters, and the pins


def test_that_an_old_python_gets_a_sentence_and_status_2(monkeypatch, capsys):
    monkeypatch.setattr(dev, "OLDEST_PYTHON", (99, 0))
    monkeypatch.setattr(dev, "newer_python", lambda: "python99.1")
    assert dev.main(["run"]) == 2
    assert "python99.1 packaging/dev.py" in capsys.readouterr().err


def test_that_the_oldest_python_is_3_11():
    assert dev.too_old((3, 11), None) is None
    assert "needs Python 3.11 or newer, and this is 3.10" in dev.too_old((3, 10), None)


def test_that_the_script_parses_on_python_3_7_and_uses_the_standard_library_only():
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 7))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= set(sys.stdlib_module_names)


def pins() -> dict[str, str]:
    lines = (ROOT / "packaging" / "constraints.txt").read_text().splitlines()
    pinned = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {name: version for name, _, version in pinned}


def test_that_every_direct_dependency_is_pinned_within_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = pins()
    for text in project["dependencies"] + project["optional-dependencies"]["dev"]:
        requirement = Requirement(text)
        version = pinned.get(requirement.name.lower().replace("_", "-"))
        assert version is not None, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(version), text


def test_that_no_pin_is_for_one_platform_only():
    assert [version for version in pins().values() if not version or "+" in version] == []


def test_that_the_stamp_file_is_plain_json(project):
    dev.write_stamp(dev.Stamp(extras=("dev",)))
    assert json.loads(dev.STAMP.read_text()) == {**dataclasses.asdict(dev.Stamp()), "extras": ["dev"]}


def test_that_ci_is_valid_bash_and_runs_the_two_commands_of_the_readme():
    script = ROOT / ".ci" / "run"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    text = script.read_text()
    assert "packaging/dev.py run" in text
    assert "packaging/dev.py test" in text
