"""Small files that claim or hold much: bounded memory, a refusal by name, and no refusal of data that compress well."""

from __future__ import annotations

import io
import json
import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from nerd_onnx.errors import InputError
from nerd_onnx.formats.parquet.encoded import RowSizes
from nerd_onnx.formats.parquet.footer import MAGIC
from nerd_onnx.formats.parquet.pages import Pages
from nerd_onnx.formats.parquet.thrift import I32, Struct, ThriftError
from tests.conftest import ROOT
from tests.support.failures import fails
from tests.support.parquet_pages import (
    DICTIONARY,
    FIXED,
    LENGTH_DELTA,
    OPTIONAL,
    PREFIX_DELTA,
    Column,
    Page,
    varint,
    write_pages,
)

MB = 10**6
# Reads each file twice: only the texts, and all columns. At most 20 batches, because some have a billion rows.
PROGRAM = """
import json, sys
from itertools import islice
from nerd_onnx.errors import NerdError
from nerd_onnx.formats.open_input import open_reader
from nerd_onnx.machine.memory import peak_rss_bytes

found = {}
for path in sys.argv[1:]:
    for added in (("entities",), None):
        try:
            column = "text[]" if "/list" in path else "text"
            with open_reader(path, format=None, text_column=column, typed="jsonl" not in path, batch_rows=2048,
                             batch_bytes=1 << 19, limit=None, added_columns=added) as reader:
                said = sum(batch.num_rows for batch in islice(reader.batches(), 20))
        except NerdError as err:
            said = [err.reason, err.fields.get("row_group"), err.fields.get("column")]
        found.setdefault(path, []).append(said)
        print(path, peak_rss_bytes(), file=sys.stderr)
print(json.dumps([found, peak_rss_bytes()]))
"""


def read_in_a_process(paths: list[Path]) -> tuple[dict[str, list[object]], int]:
    """Return what reading each file gave, by its name, and the peak of the memory in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (3000 * MB,) * 2),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found, peak = json.loads(done.stdout)
    return {Path(path).stem: said for path, said in found.items()}, peak


def text(size: int) -> bytes:
    """Make a text as Parquet stores it."""
    return struct.pack("<I", size) + b"a" * size


def packed(content: bytes) -> bytes:
    return bytes(pa.compress(content, "zstd", asbytes=True))


def page(content: bytes, values: int, encoding: int | None = 0) -> Page:
    """Make a page that says the truth."""
    return Page(packed(content), len(content), values, encoding)


def indices(rows: int) -> Page:
    """Make a page in which all rows have the first value of the dictionary."""
    return page(bytes([1]) + varint(rows << 1) + b"\0", rows, DICTIONARY)


def levels(*runs: tuple[int, int]) -> bytes:
    """Make the levels of a page of runs: their length, and their level."""
    content = b"".join(varint(count << 1) + bytes([level]) for count, level in runs)
    return struct.pack("<I", len(content)) + content


def deltas(count: int, block: int = 128) -> bytes:
    """Make integers that are all 0, as differences, in one block."""
    return varint(block) + varint(1) + varint(count) + b"\0" + b"\0\0"


def elements(values: int, *, begins: bool = True) -> Page:
    """Make a page of one list of null elements, or of more elements of the list before."""
    first = [(1, 0), (values - 1, 1)] if begins else [(values, 1)]
    return page(levels(*first) + levels((values, 2)), values)


REFUSED = {
    "claim": Column([Page(packed(text(10)), 2**31 - 1, 1)]),
    "uncompressed_claim": Column([Page(text(10), 2**31 - 1, 1)], codec="none"),
    "large_page": Column([page(text(150 * MB), 1)]),
    "dictionary_claim": Column([Page(packed(text(10)), 14, 2**31 - 1, None), indices(10)]),
    "lengths_claim": Column([page(deltas(2**31 - 1), 2**31 - 1, LENGTH_DELTA)]),
    "list": Column([elements(100 * MB)], repetition=OPTIONAL, is_list=True),
    "list_over_pages": Column(
        [elements(10 * MB), *[elements(10 * MB, begins=False)] * 9], repetition=OPTIONAL, is_list=True
    ),
}
DAMAGED = {
    "lengths": Column([page(deltas(2**31 - 1), 1000, LENGTH_DELTA)]),
    "prefixes": Column([page(deltas(100) + deltas(2**31 - 1), 100, PREFIX_DELTA)]),
    "negative": Column([Page(b"", -1, 1)]),
}


def accepted(folder: Path) -> dict[Path, int]:
    """Write honest files that compress very well, and return their rows, as far as they are read."""
    constant = pa.array(["Anna Bell met Row in Berlin."]).take(pa.array(np.zeros(1_000_000, np.int32)))
    pq.write_table(pa.table({"text": constant}), folder / "constant.parquet", compression="zstd")
    ones = pa.array([1]).take(pa.array(np.zeros(20_000_000, np.int32)))
    lists = pa.FixedSizeListArray.from_arrays(ones, 400).cast(pa.list_(pa.int64()))
    pq.write_table(pa.table({"text": pa.nulls(50_000, pa.string()), "mask": lists}), folder / "mask.parquet")

    files = {folder / "constant.parquet": 20 * 2048, folder / "mask.parquet": 20 * 2048}
    for name, column, rows in (
        ("hundred_megabytes", Column([page(text(100 * MB), 1)]), 1),
        # The footer says that a row has a byte.
        ("large_rows", Column([page(text(30 * MB), 1)] * 30, size=30), 20),
        ("repeated_value", Column([page(text(10 * MB), 1, None), indices(1000)]), 20),
        ("all_null", Column([page(levels((2**31 - 1, 0)), 2**31 - 1)], repetition=OPTIONAL), 20 * 2048),
    ):
        pages = [found for found in column.pages if found.encoding is not None]
        files[write_pages(folder / f"{name}.parquet", [column], sum(found.values for found in pages))] = rows
    wide = Column([page(levels((1000, 0)), 1000)], "wide", kind=FIXED, type_length=MB, repetition=OPTIONAL)
    plain = Column([page(text(1) * 1000, 1000)])
    files[write_pages(folder / "wide_null.parquet", [plain, wide], 1000)] = 1000
    return files


def other_formats(folder: Path) -> dict[Path, object]:
    """Write small files of Arrow and JSON Lines, and return what reading them gives."""
    large = pa.array(["a" * 10 * MB], pa.string_view())
    views = pa.py_buffer(bytes(large.buffers()[1])[:16] * 2000)
    same = pa.array(np.zeros(2000, np.int32))
    columns = {
        "grown": pa.array(["a" * 300 * MB]),
        "words": pa.DictionaryArray.from_arrays(same, pa.array(["a" * 10 * MB])),
        "views": pa.Array.from_buffers(pa.string_view(), 2000, [None, views, *large.buffers()[2:]]),
        "list_views": pa.ListViewArray.from_arrays(same, pc.add(same, 1000), pa.array(["a" * 10_000] * 1000)),
    }
    for name, column in columns.items():
        batch = pa.record_batch([column], ["text"])
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(folder / f"{name}.arrow", batch.schema, options=options) as writer:
            writer.write_batch(batch)

    for name, size in (("long", 300 * MB), ("hundred", 100 * MB)):
        (folder / f"{name}.jsonl.zst").write_bytes(packed(b'{"text": "' + b"a" * size + b'"}'))
    found: dict[Path, object] = {folder / f"{name}.arrow": 20 for name in columns}
    found[folder / "grown.arrow"] = ["damaged-arrow", None, None]
    return found | {folder / "long.jsonl.zst": ["line-too-long", None, None], folder / "hundred.jsonl.zst": 1}


@pytest.mark.slow
def test_small_files_of_other_formats(tmp_path: Path) -> None:
    expected = other_formats(tmp_path)
    found, peak = read_in_a_process([*expected])
    assert found == {path.stem: [said] * 2 for path, said in expected.items()}
    assert peak < 900 * MB


@pytest.mark.parametrize("name", REFUSED | DAMAGED)
def test_what_is_too_large_is_refused_by_name(tmp_path: Path, name: str) -> None:
    column = (REFUSED | DAMAGED)[name]
    path = write_pages(tmp_path / "in.parquet", [column], 1)
    reason = "damaged-parquet" if name in DAMAGED else "page-too-large"
    with path.open("rb") as file, fails(InputError, reason, file="in.parquet", row_group=0):
        Pages(file, "in.parquet").rows_at_once(0, None, 1)


def test_fewer_rows_are_read_at_once_where_they_are_large(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "in.parquet", [Column([page(text(MB), 1)] * 3 + [page(text(1) * 9000, 9000)])], 9003)
    with path.open("rb") as file:
        assert Pages(file, "in.parquet").rows_at_once(0, ["text"], 2048) == 67
        assert Pages(file, "in.parquet").rows_at_once(0, ["other"], 2048) == 2048


@pytest.mark.slow
def test_small_files_that_claim_or_hold_much(tmp_path: Path) -> None:
    refused = [
        write_pages(tmp_path / f"{name}.parquet", [column], 1 if column.is_list else column.pages[-1].values)
        for name, column in (REFUSED | DAMAGED).items()
    ]
    honest = accepted(tmp_path)
    found, peak = read_in_a_process([*refused, *honest])

    for name, column in (REFUSED | DAMAGED).items():
        path = "text.list.element" if column.is_list else "text"
        reason = "damaged-parquet" if name in DAMAGED else "page-too-large"
        assert found[name] == [[reason, 0, path]] * 2, name
    assert {path.stem: found[path.stem] for path in honest} == {path.stem: [rows] * 2 for path, rows in honest.items()}
    assert peak < 800 * MB


def test_a_page_header_that_is_none(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "in.parquet", [Column([page(text(1), 1)])], 1)
    path.write_bytes(path.read_bytes().replace(MAGIC, MAGIC + b"\xff", 1)[: len(MAGIC) + 1] + path.read_bytes()[5:])
    with path.open("rb") as file, fails(InputError, "damaged-parquet", row_group=0, column="text"):
        Pages(file, "in.parquet").rows_at_once(0, ["text"], 1)


def test_a_footer_with_a_million_chunks() -> None:
    """Each takes three bytes there, and 800 in pyarrow."""
    root = Struct().set_binary(4, b"schema").set_integer(5, 1, I32)
    leaf = Struct().set_integer(1, 6, I32).set_binary(4, b"text")
    group = Struct().set_items(1, [b"\x26\0\0"] * 1_000_000)
    footer = bytes(Struct().set_items(2, map(bytes, (root, leaf))).set_items(4, [bytes(group)]))
    content = MAGIC + footer + struct.pack("<I", len(footer)) + MAGIC
    with pytest.raises(ThriftError):
        Pages(io.BytesIO(content), "in.parquet")


@pytest.mark.parametrize("with_prefixes", [False, True])
def test_lengths_of_texts(tmp_path: Path, with_prefixes: bool) -> None:  # noqa: FBT001 - a value of the parametrization
    """As pyarrow writes them."""
    encoding = "DELTA_BYTE_ARRAY" if with_prefixes else "DELTA_LENGTH_BYTE_ARRAY"
    texts = pa.table({"text": [f"text {i % 7} " * (i % 50) for i in range(5000)]})
    pq.write_table(texts, tmp_path / "in.parquet", use_dictionary=False, column_encoding={"text": encoding})
    with (tmp_path / "in.parquet").open("rb") as file:
        assert 1 <= Pages(file, "in.parquet").rows_at_once(0, None, 5000) <= 5000


@pytest.mark.parametrize("runs", [[(1, 0), (999, 1)], [(500, 0), (100, 1), (3, 0)], [(1, 1), (1, 0), (1, 1), (1, 0)]])
def test_the_largest_row_of_lists(runs: list[tuple[int, int]]) -> None:
    """A page that pyarrow wrote has its runs packed or not; the bound is never below the truth."""
    row_sizes: list[int] = []
    flat = [level for count, level in runs for _ in range(count)]
    for level in flat:
        if level and row_sizes:
            row_sizes[-1] += 1
        else:
            row_sizes.append(1)
    found = RowSizes()
    found.add(levels(*runs)[4:], len(flat), 1, 1000)
    assert max(row_sizes) <= found.values <= max(row_sizes) + 1
