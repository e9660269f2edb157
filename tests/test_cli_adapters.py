"""`tunedesk adapters` and `tunedesk chat --adapter` as a script and a person at a terminal see them."""

from __future__ import annotations

import itertools
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.engine.adapters import MOODS, of, saved, say, tell
from tests.engine.jobs import do
from tests.engine.models import tiny_adapter, tiny_model, tiny_run
from tests.test_cli import tunedesk
from tunedesk.core.events import Chat, ChatAnswer


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a model, and in the library two adapters for chat and one that gives labels."""
    home = tmp_path_factory.mktemp("home")
    model = tiny_model(home / "model")
    for seed, name in enumerate(("Polite", "Short"), start=1):
        tell(tiny_adapter(model, home / "adapters" / name.lower(), seed=seed), model, name=name)
    tell(saved(model, home / "adapters" / "moods", "houlsby", MOODS), model, "classification", "Moods")
    return home


def rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_that_adapters_are_listed_renamed_and_deleted(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    (tmp_path / "home" / "runs").mkdir(parents=True)
    run = tiny_run(tmp_path / "home" / "runs" / "the-run", model)
    place = tell(tiny_adapter(model, tmp_path / "home" / "adapters" / "polite"), model, name="Polite")

    def adapters(*arguments: str) -> subprocess.CompletedProcess[str]:
        return tunedesk("adapters", *arguments, home=tmp_path / "home")

    found = rows(adapters("--json"))
    assert [(row["id"], row["name"], row["origin"]) for row in found] == [
        ("the-run", "A tiny run", "run"),
        ("polite", "Polite", "imported"),
    ]
    table = adapters("--model", str(model)).stdout
    assert all(words in table for words in ("Polite", "A tiny run", "LoRA", "chat", "MB", "imported"))
    assert "No adapters yet" in adapters("--model", "starter:chat").stdout
    (renamed,) = rows(adapters("rename", "polite", "Kind", "--json"))
    assert renamed["name"] == "Kind"
    assert adapters("rename", "Kind", "a tiny RUN").returncode == 2
    assert "Did you mean 'Kind'" in adapters("rename", "Kidn", "x").stderr
    kept = adapters("delete", "Kind")
    assert (kept.returncode, place.exists()) == (2, True)
    assert "--yes" in kept.stderr
    assert rows(adapters("delete", "Kind", "--yes", "--json"))[0]["deleted"]["id"] == "polite"
    assert "Its run, with checkpoints and report, stays" in adapters("delete", str(run.path), "--yes").stdout
    assert (run.spec_file.exists(), run.adapter.exists(), place.exists()) == (True, False, False)


def test_that_deleting_asks_on_a_terminal(home: Path) -> None:
    for answer, status in ((b"n\n", 130), (b"\x04", 130)):
        controller, terminal = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "tunedesk", "adapters", "delete", "Polite"],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, "TUNEDESK_HOME": str(home)},
        )
        os.close(terminal)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(controller, 1000)
        os.write(controller, answer)
        assert process.wait(30) == status
        os.close(controller)
    assert (home / "adapters" / "polite").is_dir()


@pytest.mark.slow
def test_that_an_adapter_is_imported_combined_and_exported(home: Path, tmp_path: Path) -> None:
    model = home / "model"
    source = tiny_adapter(model, tmp_path / "made elsewhere", seed=7)
    imported = tunedesk("adapters", "import", str(source), "--model", str(model), "--name", "From afar", home=home)
    assert (imported.returncode, "Added From afar" in imported.stdout) == (0, True), imported.stderr
    events = rows(tunedesk("adapters", "combine", "From afar=0.5", "Short=0.25", "--name", "Mix", "--json", home=home))
    added = next(event for event in events if event["kind"] == "adapter_added")
    weights = load_file(Path(added["path"]) / "adapter_model.safetensors")
    assert {tuple(tensor.shape) for name, tensor in weights.items() if "q_proj.lora_A" in name} == {(8, 64)}
    exported = tunedesk("adapters", "export", "Mix", "--to", str(tmp_path / "out"), home=home)
    assert (exported.returncode, "✓ Same answers" in exported.stdout) == (0, True), exported.stderr
    wrong = tunedesk("adapters", "combine", "Short", "Polite=x", "--name", "N", home=home)
    assert (wrong.returncode, "Short is not of the form" in wrong.stderr) == (2, True)


@pytest.mark.slow
def test_that_every_prompt_is_answered_by_each_adapter(home: Path) -> None:
    model = str(home / "model")
    asked = ("--prompt", "Where is my order?", "--prompt", "Hello", "--max-new-tokens", "8")
    chosen = ("--adapter", "Polite", "--adapter", "moods", "--adapter", str(home / "adapters" / "short"))
    done = tunedesk("chat", model, *chosen, *asked, home=home)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line in ("Polite:", "Moods:", "Short:")] == ["Polite:", "Moods:", "Short:"] * 2
    assert all("good" in line and "%" in line for before, line in itertools.pairwise(lines) if before == "Moods:")
    alone = do(Chat(model=model, adapter=str(home / "adapters" / "short")), [say(1, "Hello", tokens=8)])
    assert done.stdout.rstrip("\n").endswith(f"Short:\n{of(alone, ChatAnswer)[0].text}".rstrip("\n"))
    missing = tunedesk("chat", model, "--adapter", "Polit", "--adapter", "Nobody", *asked, home=home)
    assert (missing.returncode, missing.stderr.count("There is no adapter")) == (2, 2)


@pytest.mark.slow
def test_that_a_conversation_switches_adapters_on_command(home: Path) -> None:
    typed = "Hello\n/use Moods\nHello\n/use nobody\n/adapters\n/use base\nHello\n"
    done = subprocess.run(
        [sys.executable, "-m", "tunedesk", "chat", str(home / "model"), "--adapter", "Short", "--max-new-tokens", "4"],
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "TUNEDESK_HOME": str(home), "COLUMNS": "200"},
    )
    assert done.returncode == 2  # nobody was not there
    assert "Moods answers now" in done.stderr
    assert "without an adapter" in done.stderr
    assert "There is no adapter 'nobody'" in done.stderr
    assert "• Moods" in done.stdout
    assert "good" in done.stdout
