"""Kept tokens: the same rows come back bit for bit, and nothing that goes wrong with the cache ends a run."""

from __future__ import annotations

import logging
import os
import shutil
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tunedesk.core import runs
from tunedesk.core.problems import Problem, ProblemError
from tunedesk.engine import token_cache
from tunedesk.engine.label_rows import LabelRow
from tunedesk.engine.render import Renderer, TokenRow
from tunedesk.engine.rows import Row, Turn, read_dataset
from tunedesk.engine.token_cache import cached, key_of

ROWS = [
    TokenRow(7, array("i", [1, 2, 70_000]), b"\x00\x00\x01"),
    TokenRow(9, array("i", [5]), b"\x00"),
    TokenRow(12, array("i", range(500)), bytes(200) + b"\x01" * 300),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own for each test."""
    place = tmp_path / "cache" / "tokens"
    monkeypatch.setattr(token_cache, "_folder", lambda: place)
    return place


class Maker:
    """Makes `rows`, and counts how often."""

    def __init__(self, rows: list[TokenRow]) -> None:
        self.rows = rows
        self.calls = 0

    def __call__(self) -> list[TokenRow]:
        self.calls += 1
        return self.rows


def never() -> list[TokenRow]:
    raise AssertionError("The rows were made again.")


@pytest.mark.parametrize(
    "rows",
    [ROWS, [LabelRow(3, array("i", [101, 8, 102]), b"\x01", label=2, types=b"\x00\x00\x01", tail=1)] * 2],
)
def test_that_the_same_rows_come_back_bit_for_bit(rows: list[TokenRow]) -> None:
    assert cached("key", Maker(rows)) is rows
    back = cached("key", never)
    assert back == rows
    assert [type(row) for row in back] == [type(row) for row in rows]
    assert {row.ids.typecode for row in back} == {"i"}
    assert {type(row.trained) for row in back} == {bytes}
    assert [row.cut(2) for row in back] == [row.cut(2) for row in rows]


def test_that_a_real_dataset_is_rendered_once(tiny_llama: Path, conversations: Path) -> None:
    data = read_dataset(str(conversations))
    renderer = Renderer(AutoTokenizer.from_pretrained(tiny_llama), "chat", "m")
    first = cached(key_of(data.rows, tiny_llama, "chat"), lambda: renderer.render(data.rows, data.path))
    again = read_dataset(str(conversations))
    assert cached(key_of(again.rows, tiny_llama, "chat"), never) == first == renderer.render(data.rows, data.path)


def test_that_no_rows_are_no_file(folder: Path) -> None:
    assert cached("key", list) == []
    assert not folder.exists()


def talk(number: int = 1, role: str = "user", said: str = "Hello") -> Row:
    return Row(number, (Turn(role, said), Turn("assistant", "Good day.")))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([talk()], [talk(said="Hullo")]),
        ([talk()], [talk(role="system")]),
        ([talk()], [talk(number=2)]),
        ([talk(1), talk(2)], [talk(2), talk(1)]),
        ([talk()], [talk(), talk(2)]),
        ([Row(1, prompt="a", text="b\0c")], [Row(1, prompt="a\0b", text="c")]),
    ],
)
def test_that_other_rows_have_another_key(tiny_llama: Path, one: list[Row], other: list[Row]) -> None:
    assert key_of(one, tiny_llama, "chat") == key_of(list(one), tiny_llama, "chat")
    assert key_of(one, tiny_llama, "chat") != key_of(other, tiny_llama, "chat")


def test_that_another_task_or_other_labels_have_another_key(tiny_llama: Path) -> None:
    rows = [Row(1, text="Splendid")]
    keys = {
        key_of(rows, tiny_llama, "completion"),
        key_of(rows, tiny_llama, "chat"),
        key_of(rows, tiny_llama, "completion", ("good", "bad")),
        key_of(rows, tiny_llama, "completion", ("bad", "good")),
    }
    assert len(keys) == 4


@pytest.mark.parametrize(
    "name",
    [
        "chat_template.jinja",
        "additional_chat_templates/tool_use.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "config.json",
    ],
)
def test_that_another_template_or_tokenizer_has_another_key(tiny_llama: Path, tmp_path: Path, name: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_llama, model)
    before = key_of([talk()], model, "chat")
    assert before == key_of([talk()], tiny_llama, "chat")  # whatever the folder is called
    changed = model / name
    changed.parent.mkdir(exist_ok=True)
    changed.write_text((changed.read_text(encoding="utf-8") if changed.exists() else "") + " ", encoding="utf-8")
    assert key_of([talk()], model, "chat") != before


def test_that_other_code_or_another_version_has_another_key(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of([talk()], tiny_llama, "chat")
    content = token_cache._content
    with monkeypatch.context() as patch:
        edited = {"render.py": b"# changed"}
        patch.setattr(token_cache, "_content", lambda path: content(path) + edited.get(path.name, b""))
        assert key_of([talk()], tiny_llama, "chat") != before
    with monkeypatch.context() as patch:
        patch.setattr(token_cache, "version", "0.0.{}".format)
        assert key_of([talk()], tiny_llama, "chat") != before
    assert key_of([talk()], tiny_llama, "chat") == before


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_the_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swap(path: Path) -> None:
    """What was kept under another key stands there."""
    cached("other", Maker(ROWS[:1]))
    (path.parent / "other.safetensors").replace(path)


@pytest.mark.parametrize("damage", [halve, flip_the_last_bit, empty, swap])
def test_that_a_damaged_file_is_made_again(
    folder: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    cached("key", Maker(ROWS))
    (file,) = folder.iterdir()
    damage(file)
    maker = Maker(ROWS)
    with caplog.at_level(logging.WARNING, logger=token_cache.__name__):
        assert cached("key", maker) == ROWS
    assert maker.calls == 1
    assert "made again" in caplog.text
    assert cached("key", never) == ROWS


def test_that_rows_that_cannot_be_made_are_not_kept(folder: Path) -> None:
    def refuse() -> list[TokenRow]:
        raise ProblemError(Problem(code="template.refuses", what="No.", fix="None."))

    with pytest.raises(ProblemError, match="No"):
        cached("key", refuse)
    assert not folder.exists()
    assert cached("key", Maker(ROWS)) == ROWS


def test_that_a_full_disk_costs_only_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs.os, "fsync", full)
    maker = Maker(ROWS)
    assert cached("key", maker) == cached("key", maker) == ROWS
    assert maker.calls == 2
    assert "No space left" in caplog.text
    assert list(folder.iterdir()) == []


def test_that_a_cache_that_cannot_be_written_costs_only_time(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("a file, not a folder", encoding="utf-8")
    assert cached("key", Maker(ROWS)) == ROWS


def test_that_the_least_recently_used_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, key in enumerate(("first", "second", "third")):
        cached(key, Maker(ROWS))
        os.utime(folder / f"{key}.safetensors", (place, place))
    size = (folder / "first.safetensors").stat().st_size
    cached("first", never)  # now the last that was used
    monkeypatch.setattr(token_cache, "LIMIT", 3 * size + size // 2)
    cached("fourth", Maker(ROWS))
    assert {path.stem for path in folder.iterdir()} == {"first", "third", "fourth"}
    monkeypatch.setattr(token_cache, "LIMIT", size + size // 2)
    cached("fifth", Maker(ROWS))
    assert {path.stem for path in folder.iterdir()} == {"fifth"}
    monkeypatch.setattr(token_cache, "LIMIT", 100)
    assert cached("sixth", Maker(ROWS)) == ROWS
    assert {path.stem for path in folder.iterdir()} == {"fifth"}  # what is too large pushes nothing out
