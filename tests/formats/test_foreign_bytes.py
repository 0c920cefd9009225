"""Files under the name of JSON Lines that are something else, as other programs write them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sqlite3
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.feather as pf
import pytest
import zstandard
from pyarrow import orc

from nerd_onnx.errors import InputError
from nerd_onnx.formats.jsonl import JSONL
from nerd_onnx.formats.open_input import detect_format
from tests.support.failures import fails
from tests.support.tables_io import Writer, all_texts, parquet_bytes, read, refused

LINES = '{"text": "Anna"}\n{"text": "Paris"}\n'
TABLE = pa.table({"text": ["Anna", "Paris"]})


def arrow_file(open_writer: Callable[..., pa.ipc.RecordBatchStreamWriter]) -> bytes:
    sink = pa.BufferOutputStream()
    with open_writer(sink, TABLE.schema) as target:
        target.write_table(TABLE)
    return bytes(sink.getvalue())


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.jsonl", LINES)
    return content.getvalue()


def tarred() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        entry = tarfile.TarInfo("a.jsonl")
        entry.size = len(LINES)
        archive.addfile(entry, io.BytesIO(LINES.encode()))
    return content.getvalue()


def orc_bytes() -> bytes:
    sink = io.BytesIO()
    orc.write_table(TABLE, sink)
    return sink.getvalue()


def feather_bytes(version: int) -> bytes:
    sink = io.BytesIO()
    pf.write_feather(TABLE, sink, version=version, compression="uncompressed")
    return sink.getvalue()


def codec(name: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, name) as stream:
        stream.write(LINES.encode())
    return bytes(sink.getvalue())


def database(connect: Callable[[str], object], folder: Path) -> bytes:
    path = folder / "database"
    connection = connect(str(path))
    connection.execute("CREATE TABLE t (text VARCHAR)")  # type: ignore[attr-defined]
    connection.commit()  # type: ignore[attr-defined]
    connection.close()  # type: ignore[attr-defined]
    return path.read_bytes()


FOREIGN: dict[str, Callable[[Path], bytes]] = {
    "Parquet": lambda _: parquet_bytes(TABLE),
    "Arrow": lambda _: arrow_file(pa.ipc.new_file),
    "Arrow stream": lambda _: arrow_file(pa.ipc.new_stream),
    "ORC": lambda _: orc_bytes(),
    "Avro": lambda _: b"Obj\x01\x04\x14avro.codec\x08null\x16avro.schema",
    "SQLite": lambda folder: database(sqlite3.connect, folder),
    "DuckDB": lambda folder: database(duckdb.connect, folder),
    "PDF": lambda _: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "bzip2": lambda _: bz2.compress(bz2.compress(LINES.encode())),
    "xz": lambda _: gzip.compress(lzma.compress(LINES.encode())),
    "LZ4": lambda _: codec("lz4"),
    "zip": lambda _: zipped(),
    "tar": lambda _: tarred(),
    "gzip": lambda _: gzip.compress(gzip.compress(LINES.encode())),
    "Zstandard": lambda _: gzip.compress(zstandard.compress(LINES.encode())),
    "UTF-16": lambda _: LINES.encode("utf-16"),
    "UTF-32": lambda _: LINES.encode("utf-32"),
}
MORE: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "gzip of tar": ("tar", lambda _: gzip.compress(tarred())),
    "Zstandard of Parquet": ("Parquet", lambda _: zstandard.compress(parquet_bytes(TABLE))),
    "UTF-16 BE": ("UTF-16", lambda _: b"\xfe\xff" + LINES.encode("utf-16-be")),
    "UTF-32 BE": ("UTF-32", lambda _: b"\0\0\xfe\xff" + LINES.encode("utf-32-be")),
    "UTF-16 without a mark": ("UTF-16", lambda _: LINES.encode("utf-16-le")),
    "UTF-16 BE without a mark": ("UTF-16", lambda _: LINES.encode("utf-16-be")),
    "Feather 2": ("Arrow", lambda _: feather_bytes(2)),
}
CASES = [(name, name, make) for name, make in FOREIGN.items()] + [
    (case, name, make) for case, (name, make) in MORE.items()
]


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize(("name", "make"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_error_says_what_the_bytes_are(
    name: str, make: Callable[[Path], bytes], write: Writer, tmp_path: Path, *, typed: bool
) -> None:
    path = write("in.jsonl", make(tmp_path))
    refused(path, "other-format", {"typed": typed}, found=name)
    # Not a row that is left out, but a file that cannot be read.
    refused(path, "other-format", {"typed": typed, "lenient": True}, found=name)


@pytest.mark.parametrize("name", ["LZ4", "zip", "ORC", "UTF-16", "SQLite"])
def test_a_file_without_a_known_suffix(name: str, write: Writer, tmp_path: Path) -> None:
    path = write("unnamed", FOREIGN[name](tmp_path))
    with fails(InputError, "other-format", file=path, found=name):
        detect_format(str(path), None)


@pytest.mark.parametrize("first", [0x50, 0x57, 0x5F])
@pytest.mark.parametrize("typed", [False, True])
def test_zstandard_frames_that_are_skipped(first: int, write: Writer, *, typed: bool) -> None:
    """As pzstd writes them: before each frame one that holds its compressed size; others may be anywhere."""
    begin, end = LINES.encode()[:20], LINES.encode()[20:]
    packed = [zstandard.compress(part) for part in (begin, end)]
    sized = [bytes([first]) + b"\x2a\x4d\x18" + struct.pack("<II", 4, len(part)) + part for part in packed]
    empty = bytes([first]) + b"\x2a\x4d\x18" + bytes(4)
    for content in (b"".join(sized), empty + empty + sized[0] + empty + sized[1] + empty, sized[0] + packed[1]):
        for name in ("a.jsonl", "a.jsonl.zst"):
            assert all_texts(read(write(name, content), typed=typed)) == ["Anna", "Paris"]
        assert JSONL.recognizes(content)
        unnamed = write("unnamed", content)
        assert detect_format(str(unnamed), None) == "jsonl"
    refused(write("a.jsonl.zst", sized[0] + sized[1][:-3]), "damaged-compression", {"typed": typed})
    refused(write("a.jsonl.zst", sized[0] + sized[1][:6]), "damaged-compression", {"typed": typed})


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("content", [LINES, " \n\t" + LINES, "\ufeff" + LINES, "\r\n" + LINES])
def test_json_lines_are_not_taken_for_something_else(content: str, write: Writer, *, typed: bool) -> None:
    assert all_texts(read(write("a.jsonl", content), typed=typed)) == ["Anna", "Paris"]
