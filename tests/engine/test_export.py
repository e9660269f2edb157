from __future__ import annotations

import errno
import hashlib
import shutil
from pathlib import Path

import pytest
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.engine.jobs import do, files_under
from tests.engine.models import tiny_adapter, tiny_model, tiny_run
from tunedesk.core.events import Checked, Event, Export, Exported, Notice
from tunedesk.core.runs import RunFolder
from tunedesk.engine import export as exporting


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("export")
    model = tiny_model(root / "model")
    (model / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n", encoding="utf-8")
    return tiny_run(root / "run", model)


def code(events: list[Event]) -> str:
    (problem,) = events[-1].problems
    return problem.code


def test_that_an_export_is_checked_and_loads_with_plain_peft(run: RunFolder, tmp_path: Path) -> None:
    to = tmp_path / "new" / "deeper" / "adapter"
    events = do(Export(run=str(run.path), to=str(to)))
    assert events[-1].outcome == "completed"
    checks = [event for event in events if isinstance(event, Checked)]
    assert [check.name for check in checks] == [
        "Written",
        "Same base",
        "Same weights",
        "Tokenizer and chat template",
        "Licence and card",
        "Reopened by peft",
        "Same answers",
    ]
    assert all(check.passed for check in checks)
    (exported,) = (event for event in events if isinstance(event, Exported))
    assert Path(exported.path) == to
    assert exported.sha256 == hashlib.sha256((run.adapter / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert exported.bytes == sum(len(data) for data in files_under(to).values())
    tokenizer = AutoTokenizer.from_pretrained(str(to))
    assert tokenizer.chat_template
    base = AutoModelForCausalLM.from_pretrained(run.spec().model.source)
    prompt = tokenizer("Where is", return_tensors="pt")
    here = PeftModel.from_pretrained(base, str(to)).generate(**prompt, do_sample=False, max_new_tokens=8)
    there = AutoPeftModelForCausalLM.from_pretrained(str(to)).generate(**prompt, do_sample=False, max_new_tokens=8)
    assert here.tolist() == there.tolist()
    assert [path.name for path in to.parent.iterdir()] == ["adapter"]


def test_that_the_cards_code_runs(run: RunFolder, tmp_path: Path) -> None:
    to = tmp_path / "adapter"
    do(Export(run=str(run.path), to=str(to)))
    card = (to / "README.md").read_text(encoding="utf-8")
    program = card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(to))
    names: dict[str, object] = {}
    exec(compile(program, "README.md", "exec"), names)
    assert isinstance(names["model"], PeftModel)
    assert 'license: "mit"' in card
    assert "library_name: peft" in card
    assert "A tiny run" in card


def test_that_a_folder_in_use_is_left_alone(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    before = files_under(tmp_path)
    assert code(do(Export(run=str(run.path), to=str(tmp_path)))) == "export.not_empty"
    assert code(do(Export(run=str(run.path), to=str(tmp_path), replace=True))) == "export.not_empty"
    assert files_under(tmp_path) == before


def test_that_an_older_export_is_replaced_only_when_asked(run: RunFolder, tmp_path: Path) -> None:
    to = tmp_path / "adapter"
    do(Export(run=str(run.path), to=str(to)))
    (to / "README.md").write_text("old", encoding="utf-8")
    assert code(do(Export(run=str(run.path), to=str(to)))) == "export.not_empty"
    assert (to / "README.md").read_text(encoding="utf-8") == "old"
    assert do(Export(run=str(run.path), to=str(to), replace=True))[-1].outcome == "completed"
    assert (to / "README.md").read_text(encoding="utf-8") != "old"
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize("inside", ["", "adapter", "sub/folder", ".."])
def test_that_a_run_is_never_its_own_target(run: RunFolder, inside: str) -> None:
    before = files_under(run.path)
    assert code(do(Export(run=str(run.path), to=str(run.path / inside), replace=True))) == "export.inside_run"
    assert files_under(run.path) == before


def test_that_a_place_that_cannot_be_written_is_a_problem(run: RunFolder, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    assert code(do(Export(run=str(run.path), to=str(file)))) == "export.not_a_folder"
    assert code(do(Export(run=str(run.path), to=str(file / "below")))) == "disk.unwritable"
    assert code(do(Export(run=str(run.path), to="/proc/tunedesk/adapter"))) == "disk.unwritable"


def test_that_a_full_disk_leaves_nothing_behind(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporting.shutil, "copyfile", full)
    assert code(do(Export(run=str(run.path), to=str(tmp_path / "a" / "b")))) == "disk.full"
    assert list(tmp_path.iterdir()) == []


def test_that_a_changed_weight_fails_the_check_and_leaves_nothing_behind(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tiny_adapter(Path(run.spec().model.source), tmp_path / "other", seed=9)
    copy = shutil.copyfile
    monkeypatch.setattr(exporting.shutil, "copyfile", lambda _, to: copy(other / "adapter_model.safetensors", to))
    events = do(Export(run=str(run.path), to=str(tmp_path / "adapter")))
    assert code(events) == "export.check_failed"
    assert [event.name for event in events if isinstance(event, Checked) and not event.passed] == ["Same weights"]
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_that_an_adapter_of_another_model_is_a_problem(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", tiny_model(tmp_path / "model"), adapter=False)
    tiny_adapter(tiny_model(tmp_path / "gpt2", "gpt2"), run.adapter)
    events = do(Export(run=str(run.path), to=str(tmp_path / "adapter")))
    assert events[-1].outcome == "failed"
    assert code(events) in ("model.not_loaded", "export.check_failed")
    assert not (tmp_path / "adapter").exists()


def test_that_a_run_that_broke_off_exports_its_newest_checkpoint(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    run = tiny_run(tmp_path / "run", model, adapter=False)
    tiny_adapter(model, run.checkpoints / "step-3")
    events = do(Export(run=str(run.path), to=str(tmp_path / "adapter")))
    assert [event.step for event in events if isinstance(event, Notice)] == [3]
    assert "checkpoint of step 3" in (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")


def test_that_a_run_without_adapter_is_a_problem(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", tiny_model(tmp_path / "model"), adapter=False)
    assert code(do(Export(run=str(run.path), to=str(tmp_path / "adapter")))) == "run.no_adapter"


def test_that_a_base_that_lacks_weights_fails_as_in_training(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    run = tiny_run(tmp_path / "run", model)
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    assert code(do(Export(run=str(run.path), to=str(tmp_path / "adapter")))) == "model.incomplete"
    assert not (tmp_path / "adapter").exists()
