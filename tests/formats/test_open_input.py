"""Inputs: the format told, standard input, bad files, and the real corpora."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from nerd_onnx.errors import InputError
from nerd_onnx.formats.interfaces import Format
from nerd_onnx.formats.open_input import detect_format, guessed_format
from tests.support.failures import fails
from tests.support.marks import slow_but
from tests.support.tables_io import (
    ODD_NAME,
    Writer,
    all_lines,
    all_texts,
    corpus,
    opened,
    parquet_bytes,
    read,
    refused,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.parquet", "parquet"),
        ("a.PQ", "parquet"),
        ("a.jsonl", "jsonl"),
        ("a.v2.ndjson", "jsonl"),
        ("a.json.gz", "jsonl"),
        ("a.jsonl.zst", "jsonl"),
        ("a.jsonl.xz", "jsonl"),
        ("a.CSV.BZ2", "csv"),
    ],
)
def test_format_by_suffix(write: Writer, name: str, expected: Format) -> None:
    assert detect_format(str(write(name, b"?")), None) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (parquet_bytes(pa.table({"text": ["a"]})), "parquet"),
        (b'{"text": "a"}', "jsonl"),
        (b'\xef\xbb\xbf\n {"text": "a"}', "jsonl"),
        (gzip.compress(b'{"text": "a"}'), "jsonl"),
        (zstandard.compress(b'{"text": "a"}'), "jsonl"),
    ],
    ids=["parquet", "plain", "marked", "gzip", "zstd"],  # gzip writes the time: workers would name the test differently
)
def test_format_by_content(write: Writer, content: bytes, expected: Format) -> None:
    path = write("data", content)
    assert detect_format(str(path), None) == expected
    assert all_texts(read(path)) == ["a"]


def test_format_as_asked(write: Writer) -> None:
    assert all_texts(read(write("a.parquet", '{"text": "a"}'), format="jsonl")) == ["a"]


def test_format_unknown(write: Writer) -> None:
    refused(write("a.xls", "text\nhello"), "unknown-format", option="--format")


def test_format_pipe_needs_to_be_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "unknown-format", option="--format")


def test_only_the_last_suffix_is_that_of_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv.bak").write_text('{"text": "Paris"}\n')
    (batch,) = read(tmp_path / "a.csv.bak")
    assert batch.texts.to_pylist() == ["Paris"]
    (tmp_path / "a.odt").touch()
    refused(tmp_path / "a.odt", "unknown-format")


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.ndjson.zst"])
def test_a_file_without_a_line_is_one_without_rows(tmp_path: Path, name: str, *, typed: bool) -> None:
    (tmp_path / name).touch()
    assert read(tmp_path / name, typed=typed) == []
    with opened(tmp_path / name, typed=typed) as source:
        assert source.schema == (pa.schema([("text", pa.string())]) if typed else None)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz", "a"])
def test_file_missing_folder_and_empty(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    refused(path, "missing-file")
    if "jsonl" not in name:
        path.write_bytes(b"")
        refused(path, "empty-file" if name == "a.parquet" else "unknown-format")
        path.unlink()
    path.mkdir()
    refused(path, "is-folder")


def test_file_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n')
    path.chmod(0)
    result = run_reader(str(path), as_nobody=True)
    assert "InputError" in result.stderr
    assert "ermission denied" in result.stderr


READER = """
import os, sys
from nerd_onnx.formats.open_input import open_reader
if sys.argv[3] == "nobody":
    os.setuid(65534)
with open_reader(sys.argv[1], format=None, text_column="text", typed=sys.argv[2] == "typed", batch_rows=2,
                 batch_bytes=1 << 20, limit=None) as source:
    progress = source.progress()
    print([text for rows in source.batches() for text in rows.texts.to_pylist()], source.schema, progress)
"""


def reader(path: str, *, typed: bool = False, as_nobody: bool = False) -> dict[str, Any]:
    """Return a command that reads an input in a process of its own."""
    user = "nobody" if as_nobody and os.geteuid() == 0 else "self"
    args = [sys.executable, "-c", READER, path, "typed" if typed else "raw", user]
    return {"args": args, "cwd": Path(__file__).parents[2], "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def run_reader(
    path: str, *, typed: bool = False, stdin: bytes = b"", as_nobody: bool = False
) -> subprocess.CompletedProcess[str]:
    """Read an input in a process of its own."""
    result = subprocess.run(**reader(path, typed=typed, as_nobody=as_nobody), input=stdin, check=False)
    return subprocess.CompletedProcess(result.args, result.returncode, result.stdout.decode(), result.stderr.decode())


STDIN_LINES = b'{"text": "a"}\n{"text": null}\n{"text": "c"}'


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_stdin_lines(pack: Callable[[bytes], bytes]) -> None:
    result = run_reader("-", stdin=pack(STDIN_LINES))
    assert result.stdout.strip() == "['a', None, 'c'] None None"


def test_stdin_typed_lines_are_read_twice() -> None:
    result = run_reader("-", typed=True, stdin=gzip.compress(STDIN_LINES))
    assert result.stdout.startswith("['a', None, 'c'] text: string")


def test_stdin_parquet_is_known_by_its_first_bytes() -> None:
    result = run_reader("-", stdin=parquet_bytes(pa.table({"text": ["a", None]})))
    assert result.stdout.startswith("['a', None] text: string"), result.stderr


def test_stdin_nothing_at_all_is_no_rows() -> None:
    assert run_reader("-").stdout.startswith("[]")


def test_stdin_cut_parquet() -> None:
    result = run_reader("-", stdin=parquet_bytes(pa.table({"text": ["a", None]}))[:-20])
    assert "InputError: standard input: " in result.stderr


GUESSES: list[tuple[bytes, str, object]] = [
    (b"Angela Merkel met Anna.\n", "txt", ["Angela Merkel met Anna."]),
    (b"He paid 1,000 euros", "txt", ["He paid 1,000 euros"]),
    ("\ufeff\r\nZoë\n{\n".encode(), "txt", ["", "Zoë", "{"]),
    (b'"Hello," said Anna.\n', "txt", ['"Hello," said Anna.']),
    (b"ORCID is a name\n", "txt", ["ORCID is a name"]),
    (b"PAR", "txt", ["PAR"]),
    (b"x" * 5000, "txt", ["x" * 5000]),
    ("é".encode() * 3000, "txt", ["é" * 3000]),
    (b"id,text\n1,Paris\n", "csv", ["Paris"]),
    (b'"id","text"\n1,"Paris\n"\n', "csv", ["Paris\n"]),
    (b"id\ttext\n1\tParis\n", "csv", ["Paris"]),
    (b"id;text\n1;Paris, Rome\n", "csv", ["Paris, Rome"]),
    (b"Anna met Bob; Carl left.\n", "txt", ["Anna met Bob; Carl left."]),
    (b"name,city\nAnna,Paris\n", "csv", "column-missing"),
    (b" \n", "jsonl", []),
    (b'\n {"text": "a"}\n', "jsonl", ["a"]),
    (b'{"text": "a"\n', "jsonl", "not-json"),
    (b"{text: Paris}\n", "jsonl", "not-json"),
    (b'[{"text": "a"}]\n', "jsonl", "not-object"),
    (b"[Anna met Bob]\n", "jsonl", "not-json"),
    (b'"a"\n', "jsonl", "not-object"),
    (b"PK\x03\x04 zipped\n", "jsonl", "other-format"),
    (b"Par\xffis\n", "jsonl", "not-utf8"),
    (b"a\0b\n", "jsonl", "not-json"),
]


class Pieces(io.RawIOBase):
    """Bytes as they come through a pipe: a piece per read."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def readable(self) -> bool:  # noqa: D102
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # noqa: D102
        piece = self._pieces.pop(0) if self._pieces else b""
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize(("content", "expected", "found"), GUESSES, ids=range(len(GUESSES)))
@pytest.mark.parametrize("size", [1, 5, 1 << 16])
def test_stdin_is_what_its_first_line_looks_like(
    content: bytes, expected: str, found: object, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken stream of JSON Lines is never taken for text, and nothing depends on the pieces that come."""
    pieces = [content[i : i + size] for i in range(0, len(content), size)]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Pieces(pieces))))
    assert detect_format("-", None) == expected
    assert guessed_format(None) == (None if expected == "jsonl" else expected)
    if isinstance(found, list):
        assert all_texts(read("-")) == found
    else:
        with fails(InputError, str(found)):
            read("-")


def drip(file: int, content: bytes) -> None:
    """Write into a pipe one byte alone, and later the rest."""
    with os.fdopen(file, "wb", 0) as pipe:
        pipe.write(content[:1])
        time.sleep(0.5)
        pipe.write(content[1:])


@pytest.mark.parametrize("typed", slow_but([False], [False, True]))
@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(STDIN_LINES),
        zstandard.compress(STDIN_LINES),
        parquet_bytes(pa.table({"text": ["a", None, "c"]})),
        STDIN_LINES,
    ],
    ids=["gzip", "zstd", "parquet", "plain"],
)
def test_pipe_whose_first_write_is_one_byte(tmp_path: Path, content: bytes, *, typed: bool) -> None:
    standard_input, ours = os.pipe()
    with os.fdopen(standard_input, "rb") as pipe:
        process = subprocess.Popen(**reader("-", typed=typed), stdin=pipe)
    drip(ours, content)
    out, err = process.communicate()
    assert out.startswith(b"['a', None, 'c']"), err
    os.mkfifo(tmp_path / "pipe")
    writes = Thread(target=lambda: drip(os.open(tmp_path / "pipe", os.O_WRONLY), content))
    writes.start()
    kind: Format = "parquet" if content.startswith(b"PAR1") else "jsonl"
    assert all_texts(read(tmp_path / "pipe", format=kind, typed=typed)) == ["a", None, "c"]
    writes.join()


@pytest.mark.parametrize("content", [b"", b"{", b"{}"])
def test_stdin_shorter_than_any_mark(content: bytes) -> None:
    result = run_reader("-", stdin=content)
    assert "standard input" in result.stderr or result.stdout.startswith("[]")


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("how", ["<&-", "0>/dev/null"], ids=["closed", "not for reading"])
def test_stdin_that_cannot_be_read_is_one_line(how: str, *, typed: bool) -> None:
    options = reader("-", typed=typed)
    options["args"] = ["/bin/sh", "-c", f'"$@" {how}', "sh", *options["args"]]
    result = subprocess.run(**options, check=False)
    last = result.stderr.decode().splitlines()[-1]
    assert last.startswith("nerd_onnx.errors.InputError: standard input: ")


def test_stdin_closed_by_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as closed:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", closed)
    refused("-", "closed-stream")
    refused("-", "closed-stream", {"format": "jsonl"})
    monkeypatch.setattr(sys, "stdin", None)
    refused("-", "closed-stream", {"format": "parquet"})


def test_stdin_that_does_not_wait_is_not_taken_for_its_end() -> None:
    standard_input, ours = os.pipe()
    os.set_blocking(standard_input, False)
    with os.fdopen(standard_input, "rb") as pipe, os.fdopen(ours, "wb"):
        result = subprocess.run(**reader("-"), stdin=pipe, check=False)
    assert b"InputError: standard input: cannot be read: it has no more without waiting" in result.stderr


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ""])
def test_name_that_is_not_utf8(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / (ODD_NAME + suffix)
    table = pa.table({"text": ["a", None]})
    path.write_bytes(b'{"text": "a"}\n{}' if suffix == ".jsonl" else parquet_bytes(table))
    assert all_texts(read(path)) == ["a", None]
    assert all_texts(read(path, typed=True)) == ["a", None]
    refused(path, "column-missing", {"text_column": "body"}, column="body")
    path.write_bytes(b"?")
    refused(path, {".parquet": "not-parquet", ".jsonl": "not-json", "": "unknown-format"}[suffix])
    path.unlink()
    refused(path, "missing-file")
    path.mkdir()
    refused(path, "is-folder")


def test_name_that_no_file_can_have() -> None:
    refused("\ud800", "cannot-read", file=r"\ud800")


@pytest.mark.parametrize(
    "name", ["wikipedia_sentences.parquet", "novels_paragraphs.parquet", "novels_documents.parquet"]
)
def test_real_parquet(tmp_path: Path, name: str) -> None:
    for path in corpus(tmp_path, name):
        expected = pq.ParquetFile(path).read_row_group(0)
        limit = min(expected.num_rows, 3000)
        batches = read(path, limit=limit, batch_bytes=1 << 19)
        tables = [rows.table for rows in batches if rows.table is not None]
        assert pa.Table.from_batches(tables).equals(expected.slice(0, limit), check_metadata=True)


def test_real_lines(tmp_path: Path) -> None:
    for path in corpus(tmp_path, "speeches_and_masc.jsonl.gz"):
        with gzip.open(path, "rb") as file:
            expected = [line.removesuffix(b"\n") for line, _ in zip(file, range(2000), strict=False)]
        batches = read(path, limit=2000)
        assert all_lines(batches) == expected
        assert all_texts(batches) == [json.loads(line)["text"] for line in expected]
        typed = read(path, limit=2000, typed=True)
        assert [r for b in typed if b.table for r in b.table.to_pylist()] == [json.loads(line) for line in expected]
