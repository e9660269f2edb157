"""Reading data files: each format and layout ends in the right rows, each fault in a problem that names its place."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunedesk.core.problems import Problem, ProblemError
from tunedesk.engine.rows import Row, Turn, read_dataset, split_rows

TALK = (Turn("user", "Hi"), Turn("assistant", "Ahoy"))


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)


def jsonl(folder: Path, *rows: object, name: str = "data.jsonl") -> str:
    return write(folder, name, "".join(json.dumps(row) + "\n" for row in rows))


def turns(*said: tuple[str, object]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in said]}


def problems_of(source: str, **options: object) -> dict[str, Problem]:
    with pytest.raises(ProblemError) as caught:
        read_dataset(source, **options)  # type: ignore[arg-type]
    return {problem.code: problem for problem in caught.value.problems}


GOOD = turns(("user", "Hi"), ("assistant", "Ahoy"))


@pytest.mark.parametrize(
    ("row", "layout"),
    [
        (GOOD, "messages"),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ahoy"}]}, "sharegpt"),
        ({"conversations": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ahoy"}]}, "messages"),
        ({"instruction": "Hi", "input": "", "output": "Ahoy"}, "alpaca"),
        ({"prompt": "Hi", "completion": "Ahoy"}, "prompt_completion"),
        ({"Question": "Hi", "Answer": "Ahoy"}, "prompt_completion"),
        ({"input": "Hi", "output": "Ahoy"}, "prompt_completion"),
        ({"prompt": "Hi", "response": "Ahoy", "id": 7}, "prompt_completion"),
        (
            turns(("user", [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]), ("assistant", "Ahoy")),
            "messages",
        ),
    ],
)
def test_that_each_layout_becomes_the_same_conversation(tmp_path: Path, row: dict[str, object], layout: str) -> None:
    data = read_dataset(jsonl(tmp_path, row))
    assert data.layout == layout
    assert data.task == "chat"
    assert data.rows == [Row(1, TALK)]


def test_that_alpaca_input_and_system_column_are_kept(tmp_path: Path) -> None:
    source = jsonl(tmp_path, {"instruction": "Sort", "input": "b a", "output": "a b", "system": "Be brief."})
    said = read_dataset(source).rows[0].turns
    assert said == (Turn("system", "Be brief."), Turn("user", "Sort\n\nb a"), Turn("assistant", "a b"))


def test_that_stated_columns_are_used(tmp_path: Path) -> None:
    source = write(tmp_path, "t.csv", "frage,antwort\nHi,Ahoy\n")
    data = read_dataset(source, {"prompt": "frage", "completion": "antwort"})
    assert data.rows == [Row(1, TALK)]


def test_that_completion_joins_prompt_and_completion_with_a_seam(tmp_path: Path) -> None:
    source = jsonl(tmp_path, {"prompt": "One", "completion": "Two"}, {"prompt": "One ", "completion": "Two"})
    rows = read_dataset(source, task="completion").rows
    assert [(row.prompt, row.text) for row in rows] == [("One\n", "Two"), ("One ", "Two")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_that_tables_of_any_delimiter_and_encoding_are_read(tmp_path: Path, encoding: str, delimiter: str) -> None:
    text = f'question{delimiter}answer\r\n"Où est, la; lampe?"{delimiter}"Là-bas\nà quai"\r\n'
    data = read_dataset(write(tmp_path, "t.csv", text.encode(encoding)))
    assert data.rows[0].turns == (Turn("user", "Où est, la; lampe?"), Turn("assistant", "Là-bas\nà quai"))


def test_that_json_is_found_as_a_list_nested_or_as_lines(tmp_path: Path) -> None:
    forms = [json.dumps([GOOD]), json.dumps({"version": 1, "data": [GOOD]}), json.dumps(GOOD) + "\n" + json.dumps(GOOD)]
    for form in forms:
        assert read_dataset(write(tmp_path, "d.json", form)).rows[0] == Row(1, TALK)
    assert read_dataset(write(tmp_path, "d.jsonl", json.dumps([GOOD], indent=1))).rows == [Row(1, TALK)]


def test_that_jsonl_keeps_line_separators_inside_text_and_real_line_numbers(tmp_path: Path) -> None:
    row = turns(("user", "a\u2028b"), ("assistant", "c"))
    source = write(tmp_path, "d.jsonl", "\n" + json.dumps(row, ensure_ascii=False) + "\n\n")
    assert read_dataset(source).rows == [Row(2, (Turn("user", "a\u2028b"), Turn("assistant", "c")))]


def test_that_parquet_and_nested_cells_are_read(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([GOOD]), tmp_path / "d.parquet")
    assert read_dataset(str(tmp_path / "d.parquet")).rows == [Row(1, TALK)]
    cell = json.dumps(GOOD["messages"]).replace('"', '""')
    assert read_dataset(write(tmp_path, "d.csv", f'messages\n"{cell}"\n')).rows == [Row(1, TALK)]


def test_that_text_is_parted_by_blank_lines(tmp_path: Path) -> None:
    data = read_dataset(write(tmp_path, "t.txt", "\n\nOne\nmore\n \nTwo\n"), task="completion")
    assert [(row.number, row.text) for row in data.rows] == [(3, "One\nmore"), (6, "Two")]


def test_that_starter_data_is_whole() -> None:
    assert len(read_dataset("starter:support").rows) >= 300
    finance = read_dataset("starter:finance")
    assert finance.task == "classification"
    assert finance.labels == ("negative", "neutral", "positive")


# What is wrong.


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("a.jsonl", b"", "data.empty", "empty"),
        ("a.jsonl", b"\n \n", "data.empty", "empty"),
        ("a.csv", b"prompt,completion\n", "data.empty", "no rows"),
        ("a.json", b"[]", "data.empty", "no rows"),
        ("a.jsonl", b'{"prompt": "a", "completion": "b"}\n{"prompt": \n', "data.not_json", "line 2, column 12"),
        ("a.json", b'[{"a": 1},\n {"a" 2}]', "data.not_json", "line 2, column 7"),
        ("a.json", b'{"a": 1}', "data.not_rows", "'a'"),
        ("a.jsonl", b'"text"\n', "data.not_rows", "line 1"),
        ("a.xyz", b"x", "data.format", ".xyz"),
        ("a.parquet", b"nothing", "data.parquet", "Parquet"),
        ("a.jsonl", b'{"text": "a\0"}\n', "data.binary", "line 1"),
        ("a.txt", b"PK\x03\x04" + bytes(range(256)) * 4, "data.binary", "text file"),
        ("a.csv", b"prompt,prompt\na,b\n", "data.header", "prompt"),
        ("a.csv", b"prompt,completion\na,b\nc,d,e\n", "data.ragged", "row 2"),
        ("a.csv", b'prompt,completion\na,"b\nc,d\n', "data.csv", "line 2"),
        ("a.jsonl", b'{"prompt": ' + b"9" * 5000 + b', "completion": "b"}\n', "data.not_json", "thousands of digits"),
        ("a.json", b'[{"prompt": ' + b"9" * 5000 + b"}]", "data.not_json", "thousands of digits"),
        ("a", b"x", "data.format", "no ending"),
    ],
)
def test_that_a_broken_file_says_what_and_where(
    tmp_path: Path, name: str, content: bytes, code: str, words: str
) -> None:
    found = problems_of(write(tmp_path, name, content))
    assert list(found) == [code]
    assert words in str(found[code])


def test_that_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    assert "data.missing" in problems_of(str(tmp_path / "no.jsonl"))
    assert "data.folder" in problems_of(str(tmp_path))
    assert "starter:support" in problems_of("starter:suport")["data.starter"].fix


def test_that_wrong_columns_are_listed_with_what_is_needed(tmp_path: Path) -> None:
    problem = problems_of(jsonl(tmp_path, {"mesages": [], "colour": "red"}), task="chat")["data.columns"]
    assert "'mesages', 'colour'" in problem.found
    assert "Did you mean 'messages'?" in problem.fix
    problem = problems_of(jsonl(tmp_path, {"a": "x", "answers": "y"}), columns={"prompt": "a", "completion": "answer"})
    assert "Did you mean 'answers'?" in problem["data.columns"].fix
    problem = problems_of(jsonl(tmp_path, {"text": "x"}), task="chat")["data.columns"]
    assert "Did you mean" not in problem.fix  # 'text' is there already
    assert "data.task" in problems_of(jsonl(tmp_path, GOOD), task="completion")


def test_that_faults_of_rows_are_gathered_by_kind_with_their_lines(tmp_path: Path) -> None:
    no_answer = turns(("user", "Hi"))
    rows = [
        GOOD,
        no_answer,
        no_answer,
        GOOD,
        *[no_answer] * 5,
        turns(("robot", "x")),
        turns(("asistant", "x")),
        turns(("user", " "), ("assistant", "y")),
    ]
    rows += [{"messages": "text"}, turns(("user", "Hi"), ("assistant", 3))]
    found = problems_of(jsonl(tmp_path, *rows))
    assert found["data.no_answer"].what.startswith("7 conversations")
    assert "lines 2, 3, 5, 6 and 3 more" in found["data.no_answer"].where
    assert "lines 10 and 11" in found["data.role"].where
    assert "'robot'" in found["data.role"].found
    assert "line 12" in found["data.empty_text"].where
    assert "lines 13 and 14" in found["data.type"].where


def test_that_half_a_surrogate_is_named(tmp_path: Path) -> None:
    source = write(tmp_path, "d.jsonl", '{"prompt": "a", "completion": "b\\ud800"}\n')
    assert "line 1" in problems_of(source)["data.broken_text"].where


# The split.


def test_that_the_split_keeps_copies_together_and_follows_the_text() -> None:
    rows = [Row(number, text=f"text {number % 150}") for number in range(1, 301)]
    train, held = split_rows(rows, 0.2, seed=3)
    assert not {row.text for row in train} & {row.text for row in held}
    assert 30 <= len(held) <= 90
    some = split_rows(rows[:100], 0.2, seed=3)[1]
    assert {row.text for row in some} <= {row.text for row in held}
    assert split_rows(rows, 0.2, seed=4)[1] != held


@pytest.mark.parametrize(("count", "fraction"), [(2, 0.01), (2, 0.99), (5, 0.001), (1, 0.5), (3, 0.0)])
def test_that_neither_side_is_empty_when_it_need_not_be(count: int, fraction: float) -> None:
    train, held = split_rows([Row(number, text=f"text {number}") for number in range(count)], fraction, seed=0)
    assert train
    assert bool(held) == (count > 1 and fraction > 0)
    assert len(train) + len(held) == count
