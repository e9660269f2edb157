from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tunedesk.core.adapters import (
    About,
    delete_adapter,
    find_adapter_called,
    library_dir,
    list_adapters,
    rename_adapter,
    same_base,
)
from tunedesk.core.events import Started, write_line
from tunedesk.core.problems import ProblemError
from tunedesk.core.runs import RunFolder, create_run
from tunedesk.core.spec import parse_spec


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEDESK_HOME", str(tmp_path / "home"))
    return tmp_path


def files(folder: Path, age: float = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(b"12345678")
    os.utime(weights, (1000 - age, 1000 - age))
    return folder


def a_run(name: str | None = "Support desk", source: str = "starter:chat", age: float = 0) -> RunFolder:
    text = f"[model]\nsource = '{source}'\n[method]\nname = 'ia3'\n"
    run = create_run(parse_spec(f"name = '{name}'\n{text}" if name else text))
    files(run.adapter, age)
    return run


def in_library(folder: str, name: str, base: str = "starter:chat", created: float = 500.0, **more: Any) -> Path:
    place = files(library_dir() / folder)
    fields = {"method": "lora", "task": "chat", "origin": "imported", **more}
    (place / "about.json").write_text(About(name=name, base=base, created=created, **fields).text())
    return place


def codes(caught: pytest.ExceptionInfo[ProblemError]) -> list[str]:
    return [problem.code for problem in caught.value.problems]


def test_that_adapters_of_runs_and_of_the_library_are_listed_the_newest_first() -> None:
    run = a_run(None, age=100)
    in_library("sum", "Sum", created=2000.0, origin="combined", method=None, task=None)
    in_library("old", "Old", created=5.0)
    create_run(parse_spec("name = 'Never trained'"))
    (library_dir() / "torn").mkdir()
    (library_dir() / ".half.x1").mkdir()
    in_library("about.bad", "x")
    (library_dir() / "about.bad" / "about.json").write_text("[]")
    found = list_adapters()
    assert [(item.id, item.name, item.origin, item.method, item.task) for item in found] == [
        ("sum", "Sum", "combined", None, None),
        (run.id, "Support IA³", "run", "ia3", "chat"),
        ("old", "Old", "imported", "lora", "chat"),
    ]
    assert found[1].bytes == 10
    assert (found[1].path, found[1].created) == (run.adapter, 900.0)


def test_that_a_base_is_the_same_by_starter_name_real_path_or_hub_id(home: Path) -> None:
    model = home / "model"
    model.mkdir()
    (home / "link").symlink_to(model)
    a_run("By path", str(model))
    a_run("By starter")
    in_library("hub", "By hub", "Owner/Model")
    in_library("link", "By link", str(home / "link"))
    assert {item.name for item in list_adapters(str(model))} == {"By path", "By link"}
    assert [item.name for item in list_adapters("starter:chat")] == ["By starter"]
    assert [item.name for item in list_adapters("owner/model")] == ["By hub"]
    assert list_adapters("starter:encoder") == []
    assert not same_base(str(home / "gone"), str(model))


def test_that_an_adapter_is_found_by_id_name_and_folder() -> None:
    run, place = a_run(), in_library("tone", "Kind tone")
    for text in (run.id, "support DESK", str(run.adapter), str(run.path)):
        assert find_adapter_called(text).id == run.id
    for text in ("tone", "Kind tone", str(place), os.path.relpath(place)):
        assert find_adapter_called(text, "starter:chat").path == place


def test_that_an_unknown_name_is_answered_with_the_nearest() -> None:
    in_library("tone", "Kind tone")
    with pytest.raises(ProblemError, match="Did you mean 'Kind tone'"):
        find_adapter_called("Kind tne")
    with pytest.raises(ProblemError) as caught:
        find_adapter_called("tone", "starter:encoder")
    assert codes(caught) == ["adapter.other_base"]
    in_library("other", "Kind tone")
    with pytest.raises(ProblemError) as caught:
        find_adapter_called("kind tone")
    assert codes(caught) == ["adapter.several"]
    assert "tone, other" in str(caught.value) or "other, tone" in str(caught.value)


def test_that_a_run_is_renamed_in_its_run_file_and_nothing_else_changes() -> None:
    run = a_run()
    text = "# mine\n" + run.spec_file.read_text() + "\n[training]\nseed = 7\n"
    tree = tomllib.loads(text.replace("\n[training]\nseed = 7\n", ""))
    run.spec_file.write_text(run.spec_file.read_text())
    os.utime(run.spec_file, (123, 123))
    renamed = rename_adapter(find_adapter_called(run.id), '  Nightly "desk" ')
    assert renamed.name == 'Nightly "desk"'
    assert tomllib.loads(run.spec_file.read_text()) == {**tree, "name": 'Nightly "desk"'}
    assert run.spec().name == find_adapter_called(run.id).name == 'Nightly "desk"'
    assert run.spec_file.stat().st_mtime == 123
    assert sorted(path.name for path in run.path.iterdir()) == ["adapter", "run.toml"]


def test_that_a_library_adapter_is_renamed_and_may_keep_its_own_name() -> None:
    place = in_library("tone", "Kind tone", revision="v2")
    adapter = rename_adapter(find_adapter_called("tone"), "Gruff")
    rename_adapter(adapter, "GRUFF")
    about = json.loads((place / "about.json").read_text())
    assert (about["name"], about["revision"], about["created"]) == ("GRUFF", "v2", 500.0)


@pytest.mark.parametrize("name", ["", "  ", "x" * 81, "two\nlines", "support desk", "tone"])
def test_that_a_name_that_cannot_be_is_refused(name: str) -> None:
    a_run()
    in_library("tone", "Kind")
    place = in_library("mine", "Mine")
    before = (place / "about.json").read_bytes()
    with pytest.raises(ProblemError) as caught:
        rename_adapter(find_adapter_called("mine"), name)
    assert codes(caught)[0] in ("adapter.name", "adapter.name_taken")
    assert (place / "about.json").read_bytes() == before


def test_that_deleting_takes_the_librarys_folder_but_of_a_run_the_adapter_alone() -> None:
    run, place = a_run(), in_library("tone", "Kind tone")
    (run.checkpoints / "step-5").mkdir(parents=True)
    run.report_file.write_text("{}")
    (place.with_name(".tone.deleted")).mkdir()  # what a crash left of an earlier one
    for name in (run.id, "tone"):
        delete_adapter(find_adapter_called(name))
    assert list_adapters() == []
    assert list(library_dir().iterdir()) == []
    assert sorted(path.name for path in run.path.iterdir()) == ["checkpoints", "report.json", "run.toml"]


def test_that_the_adapter_of_a_run_in_training_is_kept() -> None:
    run = a_run()
    engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "tunedesk.engine"])
    try:
        run.events_file.write_text(write_line(Started(job="train", pid=engine.pid, version="0")))
        with pytest.raises(ProblemError) as caught:
            delete_adapter(find_adapter_called(run.id))
    finally:
        engine.kill()
        engine.wait()
    assert codes(caught) == ["adapter.training"]
    delete_adapter(find_adapter_called(run.id))
    assert not run.adapter.exists()


def test_that_what_is_gone_meanwhile_is_a_problem() -> None:
    in_library("tone", "Kind tone")
    adapter = find_adapter_called("tone")
    delete_adapter(adapter)
    actions: list[Any] = [delete_adapter, lambda item: rename_adapter(item, "New")]
    for action in actions:
        with pytest.raises(ProblemError) as caught:
            action(adapter)
        assert codes(caught) == ["adapter.missing"]


def test_that_a_deletion_that_fails_in_the_middle_leaves_no_half_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    in_library("tone", "Kind tone")

    def fail(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("shutil.rmtree", fail)
    with pytest.raises(ProblemError) as caught:
        delete_adapter(find_adapter_called("tone"))
    assert codes(caught) == ["disk.unwritable"]
    assert list_adapters() == []
