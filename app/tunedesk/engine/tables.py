"""Records out of files: csv, tsv, json, jsonl, parquet and txt, in whatever encoding they come."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunedesk.core.problems import Problem, ProblemError

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "txt",
}

_SHOWN = 4
_LONG_NUMBER = "A number has thousands of digits."
_DELIMITERS = ",;\t|"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Table:
    """What a file holds, not yet understood. `numbers` are the 1-based lines or rows of `records`."""

    file_format: str
    size: int
    sha256: str
    encoding: str
    unit: Literal["line", "row"]
    columns: tuple[str, ...]
    numbers: list[int]
    records: list[dict[str, Any]]


def read_table(path: Path) -> Table:
    """Read the whole file. Raises `ProblemError` when it is missing, empty, or not what its name says."""
    file_format = _format_of(path)
    data = _bytes_of(path)
    if not data.strip():
        raise _problem(path, "data.empty", "The file is empty.", f"It has {len(data)} bytes.", "Choose another file.")
    encoding = "binary"
    if file_format == "parquet":
        unit, numbers, records = "row", *_parquet(path, data)
    else:
        text, encoding = _decode(path, data)
        unit, numbers, records = _parse(path, file_format, text)
    columns = tuple(dict.fromkeys(key for record in records for key in record))
    if not records:
        raise _problem(path, "data.empty", "The file has no rows.", _header_only(columns), "Choose another file.")
    return Table(
        file_format=file_format,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        encoding=encoding,
        unit="line" if unit == "line" else "row",
        columns=columns,
        numbers=numbers,
        records=records,
    )


def _parse(path: Path, file_format: str, text: str) -> tuple[str, list[int], list[dict[str, Any]]]:
    match file_format:
        case "csv" | "tsv":
            return "row", *_delimited(path, text, file_format)
        case "json":
            return _json(path, text)
        case "jsonl":
            return _json(path, text) if text.lstrip()[:1] == "[" else ("line", *_json_lines(path, text))
        case _:
            return "line", *_paragraphs(text)


def _header_only(columns: tuple[str, ...]) -> str:
    return f"There is only a header: {', '.join(columns)}." if columns else ""


def _problem(path: Path, code: str, what: str, found: str = "", fix: str = "", place: str = "") -> ProblemError:
    where = f"{path}, {place}." if place else f"{path}."
    return ProblemError(Problem(code=code, what=what, where=where, found=found, fix=fix))


def _format_of(path: Path) -> str:
    if path.is_dir():
        raise _problem(path, "data.folder", "This is a folder, not a file of data.", fix="Choose a file in it.")
    if not path.exists():
        raise _problem(
            path,
            "data.missing",
            "There is no such file.",
            f"The folder {path.parent} {'has no file of that name' if path.parent.is_dir() else 'does not exist'}.",
            "Check the name; a relative path is taken from the folder of the run file.",
        )
    known = FORMATS.get(path.suffix.lower())
    if known is None:
        raise _problem(
            path,
            "data.format",
            f"'{path.suffix}' is not a format that can be read."
            if path.suffix
            else "The file's name has no ending that says what it holds.",
            fix="Formats: csv, tsv, json, jsonl, parquet and txt.",
        )
    return known


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _problem(
            path,
            "data.unreadable",
            "The file cannot be read.",
            (error.strerror or str(error)) + ".",
            "Choose a file that you may read.",
        ) from error


def _decode(path: Path, data: bytes) -> tuple[str, str]:
    """(text, encoding): a byte order mark decides, else UTF-8, else UTF-16 by its zeros, else Windows-1252."""
    encoding = next((name for mark, name in _BOMS if data.startswith(mark)), "")
    if not encoding and b"\0" in data[:4096]:
        head = data[:4096]
        odd, even = head[1::2].count(0), head[::2].count(0)
        if max(odd, even) >= len(head) // 5:
            encoding = "utf-16-le" if odd > even else "utf-16-be"
    for candidate in [encoding] if encoding else ["utf-8", "cp1252"]:
        try:
            text = data.decode(candidate)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            fault = f"Byte {error.start:,} on line {line:,} fits neither UTF-8 nor Windows-1252."
            continue
        if "\0" in text:
            line = text.count("\n", 0, text.index("\0")) + 1
            raise _problem(
                path,
                "data.binary",
                "This is not a text file.",
                "It holds zero bytes.",
                "Choose another file, or write this one again.",
                f"line {line:,}",
            )
        return text, candidate
    if b"\0" in data:
        raise _problem(path, "data.binary", "This is not a text file.", "It holds zero bytes.", "Choose another file.")
    raise _problem(path, "data.encoding", "The file's characters cannot be read.", fault, "Save it as UTF-8.")


def _delimited(path: Path, text: str, file_format: str) -> tuple[list[int], list[dict[str, Any]]]:
    csv.field_size_limit(2**31 - 1)
    delimiter = "\t" if file_format == "tsv" else _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        cells = [row for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise _problem(
            path, "data.csv", "The table cannot be read.", f"{error}.", "Check the quotes.", f"line {reader.line_num:,}"
        ) from error
    _check_quotes(path, text, delimiter)
    if not cells:
        return [], []
    header = [name.strip() or f"column {place}" for place, name in enumerate(cells[0], start=1)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise _problem(
            path, "data.header", f"Two columns are called '{twice[0]}'.", fix="Give each column a name.", place="row 1"
        )
    _check_width(path, header, cells)
    records: list[dict[str, Any]] = [dict(zip(header, row, strict=False)) for row in cells[1:]]
    if records:
        records[0] = {**dict.fromkeys(header), **records[0]}
    return list(range(1, len(records) + 1)), records


def _check_quotes(path: Path, text: str, delimiter: str) -> None:
    """Refuse a quote that is never closed: it takes every row after it into one cell."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 0
    try:
        for _ in reader:
            line = reader.line_num
    except csv.Error as error:
        if str(error) == "unexpected end of data":
            raise _problem(
                path,
                "data.csv",
                "A quote is opened and never closed.",
                "Everything after it would be one cell.",
                "Close it; inside a quoted cell, write each double quote twice.",
                f"line {line + 1:,}",
            ) from error


def _check_width(path: Path, header: list[str], cells: list[list[str]]) -> None:
    wide = [number for number, row in enumerate(cells[1:], start=1) if any(row[len(header) :])]
    if wide:
        listed = ", ".join(f"{number:,}" for number in wide[:_SHOWN])
        more = f" and {len(wide) - _SHOWN:,} more" if len(wide) > _SHOWN else ""
        raise _problem(
            path,
            "data.ragged",
            f"{'One row has' if len(wide) == 1 else f'{len(wide):,} rows have'} more cells than the header has names "
            f"({len(header)}).",
            f"Row {wide[0]:,} has {len(cells[wide[0]])} cells.",
            "Put texts that hold the delimiter in double quotes.",
            f"{'row' if len(wide) == 1 else 'rows'} {listed}{more}",
        )


def _delimiter(text: str) -> str:
    """The delimiter that the header and the first rows agree on; a comma when none does."""
    sample = text[:65536]
    counts = {}
    for candidate in _DELIMITERS:
        rows = [row for row in csv.reader(io.StringIO(sample, newline=""), delimiter=candidate) if row][:50]
        width = len(rows[0]) if rows else 1
        if width > 1:
            counts[candidate] = (
                sum(len(row) == width for row in rows[:-1] or rows) / max(1, len(rows[:-1] or rows)),
                width,
            )
    return max(counts, key=lambda item: counts[item]) if counts else ","


def _json(path: Path, text: str) -> tuple[str, list[int], list[dict[str, Any]]]:
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip()[:1] == "{":
            return "line", *_json_lines(path, text)
        raise _problem(
            path,
            "data.not_json",
            "The file is not valid JSON.",
            f"{error.msg}: {_around(error.doc, error.pos)}",
            "Mend it there, or make the file again with a program that writes JSON.",
            f"line {error.lineno:,}, column {error.colno:,}",
        ) from error
    except RecursionError:
        raise _problem(
            path, "data.not_json", "The file is nested too deeply.", fix="Write one list of objects."
        ) from None
    except ValueError as error:
        raise _problem(path, "data.not_json", _LONG_NUMBER, fix="Write such numbers as text, in quotes.") from error
    records = _list_in(path, tree)
    odd = [number for number, item in enumerate(records, start=1) if not isinstance(item, dict)]
    if odd:
        raise _not_objects(path, "row", odd, records[odd[0] - 1])
    return "row", list(range(1, len(records) + 1)), records


def _list_in(path: Path, tree: Any) -> list[Any]:
    """The rows of a JSON file: its list, or the only list of objects inside its object."""
    if isinstance(tree, list):
        return tree
    if isinstance(tree, dict):
        lists = {
            key: value
            for key, value in tree.items()
            if isinstance(value, list) and all(isinstance(i, dict) for i in value)
        }
        turns = {"messages", "conversations"} & set(lists)
        if len(lists) == 1 and not turns:
            return next(iter(lists.values()))
        if turns:
            return [tree]
        found = f"The object has the keys {', '.join(repr(key) for key in list(tree)[:8])}."
    else:
        found = f"There is {json.dumps(tree)[:40]}."
    raise _problem(path, "data.not_rows", "The file holds no list of rows.", found, "Write one list of objects.")


def _json_lines(path: Path, text: str) -> tuple[list[int], list[dict[str, Any]]]:
    numbers: list[int] = []
    records: list[dict[str, Any]] = []
    bad: list[tuple[int, int, str]] = []
    odd: list[tuple[int, Any]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            bad.append((number, error.colno, f"{error.msg}: {_around(error.doc, error.pos)}"))
            continue
        except RecursionError:
            bad.append((number, 1, "It is nested too deeply."))
            continue
        except ValueError:
            bad.append((number, 1, f"{_LONG_NUMBER} Write such numbers as text, in quotes."))
            continue
        if isinstance(value, dict):
            numbers.append(number)
            records.append(value)
        else:
            odd.append((number, value))
    if bad:
        raise _bad_lines(path, bad)
    if odd:
        raise _not_objects(path, "line", [number for number, _ in odd], odd[0][1])
    return numbers, records


def _bad_lines(path: Path, bad: list[tuple[int, int, str]]) -> ProblemError:
    places = [f"line {line:,}, column {column:,}" for line, column, _ in bad[:_SHOWN]]
    more = f" and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
    what = "One line is not valid JSON." if len(bad) == 1 else f"{len(bad):,} lines are not valid JSON."
    return _problem(
        path, "data.not_json", what, f"{bad[0][2]}", "Each line must be one JSON object.", "; ".join(places) + more
    )


def _not_objects(path: Path, unit: str, numbers: list[int], example: Any) -> ProblemError:
    listed = ", ".join(f"{number:,}" for number in numbers[:_SHOWN])
    more = f" and {len(numbers) - _SHOWN:,} more" if len(numbers) > _SHOWN else ""
    return _problem(
        path,
        "data.not_rows",
        f"{len(numbers):,} {unit}s are not objects with named columns.",
        f"There is {json.dumps(example)[:40]}.",
        'Write each as an object, for example {"prompt": "...", "completion": "..."}.',
        f"{unit}s {listed}{more}" if len(numbers) > 1 else f"{unit} {listed}",
    )


def _around(text: str, position: int) -> str:
    return repr(text[max(0, position - 10) : position + 15])


def _parquet(path: Path, data: bytes) -> tuple[list[int], list[dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        records = pq.read_table(pa.BufferReader(data)).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _problem(
            path,
            "data.parquet",
            "The file is not valid Parquet.",
            str(error).splitlines()[0].replace("Could not open Parquet input source '<Buffer>': ", ""),
            "Make it again, or choose another file.",
        ) from error
    return list(range(1, len(records) + 1)), records


def _paragraphs(text: str) -> tuple[list[int], list[dict[str, Any]]]:
    """Paragraphs are parted by blank lines; each is numbered by its first line."""
    numbers: list[int] = []
    records: list[dict[str, Any]] = []
    text = text.replace("\r\n", "\n")
    line = 1
    for piece in re.split(r"(\n[ \t]*\n\s*)", text):
        if piece.strip():
            lead = piece[: len(piece) - len(piece.lstrip())]
            numbers.append(line + lead.count("\n"))
            records.append({"text": piece.strip("\n").rstrip()})
        line += piece.count("\n")
    return numbers, records
