"""Each layer, imported in a fresh interpreter, brings in only what it may."""

import json
import pkgutil
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "peft", "datasets", "bitsandbytes", "accelerate"}


def modules_after(code: str) -> set[str]:
    """The top-level packages that are loaded after `code` ran."""
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def every_module(package: str) -> str:
    import importlib

    found = importlib.import_module(f"tunedesk.{package}")
    names = [item.name for item in pkgutil.walk_packages(found.__path__, f"tunedesk.{package}.")]
    return "\n".join(f"import {name}" for name in names if not name.endswith("__main__"))


def test_that_the_core_brings_in_neither_qt_nor_torch() -> None:
    assert modules_after(every_module("core")).isdisjoint(HEAVY | {"PySide6", "pyqtgraph", "numpy"})


def test_that_the_window_brings_in_no_training_library() -> None:
    assert modules_after(every_module("gui")).isdisjoint(HEAVY)


@pytest.mark.slow
def test_that_the_engine_brings_in_no_qt() -> None:
    assert modules_after(every_module("engine")).isdisjoint({"PySide6", "pyqtgraph", "shiboken6"})


def test_that_the_command_line_starts_without_qt_and_torch() -> None:
    loaded = modules_after("import tunedesk.cli, tunedesk.__main__")
    assert loaded.isdisjoint(HEAVY | {"PySide6"})
