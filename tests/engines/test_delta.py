"""Delta tables: the files of the current version are tagged, and no others. Needs the extra ``delta``."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from tests.engines.helpers import pairs, tag
from tests.support.failures import fails
from tests.support.runs import interrupt, texts
from tests.support.s3_server import S3, serving


def delta_table(path: Path) -> Any:
    """Open a table. The package is an extra, and these tests are collected without it too."""
    from deltalake import DeltaTable

    return DeltaTable(path)


def write_delta(path: Path, table: pa.Table, **options: Any) -> None:
    """Write or extend a table."""
    from deltalake import write_deltalake

    write_deltalake(path, table, **options)


_DIGITS = b"0123456789"
_LOWER, _UPPER = b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# The alphabets of base 85, of Python and of ZeroMQ.
_B85 = _DIGITS + _UPPER + _LOWER + b"!#$%&()*+-;<=>?@^_`{|}~"
_Z85 = _DIGITS + _LOWER + _UPPER + b".-:+=^!/*?&<>()[]{}@%$#"
CITIES = ["São Paulo", "a b", "x%20y", "a/b", "c=d", None]


def rows(first: int, count: int) -> pa.Table:
    numbers = range(first, first + count)
    found = texts(first + count)[first:]
    return pa.table({"id": numbers, "text": found, "city": [CITIES[i % len(CITIES)] for i in numbers]})


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Make a table with partitions whose names need escapes, from which rows and files were removed."""
    path = tmp_path / "lake" / "users"
    write_delta(path, rows(0, 30), partition_by=["city"])
    write_delta(path, rows(30, 30), mode="append")
    delta_table(path).delete("id < 10")
    delta_table(path).delete("city = 'a b'")
    return path


def by_id(found: pa.Table) -> list[dict[str, Any]]:
    return sorted(found.select(["id", "text", "city"]).to_pylist(), key=lambda row: row["id"])


@pytest.mark.parametrize("where", ["", "..", "../*"])
def test_the_rows_of_the_table_are_tagged(table: Path, tmp_path: Path, where: str) -> None:
    expected = by_id(delta_table(table).to_pyarrow_table())
    assert 0 < len(expected) < 60
    report = tag(f"{table}/{where}".rstrip("/"), tmp_path / "out")
    assert report.rows == len(expected)

    # The partition column is in the names of the folders, as in the table.
    kind = ds.partitioning(pa.schema([("city", pa.string())]), flavor="hive")
    found = ds.dataset(tmp_path / "out" / ("users" if where else ""), partitioning=kind).to_table()
    assert by_id(found) == expected


@pytest.fixture
def s3(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """Run a server that has the table in ``lake/users``."""
    with serving(tmp_path / "log") as server:
        server.use(monkeypatch)
        for path in table.rglob("*"):
            if path.is_file():
                server.put(f"lake/users/{path.relative_to(table)}", path.read_bytes())
        yield server


@pytest.mark.parametrize("where", ["lake/users", "lake/", "lake/us*", "lake"])
def test_a_table_in_remote_storage(s3: S3, table: Path, tmp_path: Path, where: str) -> None:
    expected = by_id(delta_table(table).to_pyarrow_table())
    report = tag(s3.uri(where), tmp_path / "out")
    assert report.rows == len(expected)
    kind = ds.partitioning(pa.schema([("city", pa.string())]), flavor="hive")
    found = ds.dataset(tmp_path / "out" / ("" if where == "lake/users" else "users"), partitioning=kind).to_table()
    assert by_id(found) == expected


def test_the_endpoint_of_a_remote_table_may_be_in_its_name(
    s3: S3, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    found = pairs(f"{s3.uri('lake/users')}?endpoint_override={s3.address}&scheme=http&region=us-east-1")
    assert found == pairs(table)


def test_what_is_refused_of_a_remote_table(s3: S3) -> None:
    for path in ("lake/users/city=a%2Fb", "lake/users/city=a%2Fb/*.parquet"):
        with fails(InputError, "inside-table", table=s3.uri("lake/users")):
            pairs(s3.uri(path))
    for path in ("lake/users/*", "lake/**/*.parquet"):
        with fails(InputError, "table-folder", found="Delta"):
            pairs(s3.uri(path))
    s3.put(f"lake/users/_delta_log/{0:020}.json", b"{")
    with fails(InputError, "damaged-table", file=s3.uri("lake/users")):
        pairs(s3.uri("lake/users"))


def test_a_changed_table_is_not_resumed(table: Path, tmp_path: Path) -> None:
    """The outputs of files that the table no longer has would stay."""
    output = tmp_path / "out"
    interrupt(Tagger.load(threads=1), TagJob([str(table)], str(output)), batches=1)
    delta_table(table).optimize.compact()
    with fails(OutputError, "run-changed"):
        tag(table, output, resume=True)


def test_part_of_a_table_is_refused(table: Path) -> None:
    for path in (table / "city=a%2Fb", f"{table}/city=*", f"{table}/*/*.parquet"):
        with fails(InputError, "inside-table", table=str(table)):
            pairs(path)


def test_damaged_log(table: Path) -> None:
    (table / "_delta_log" / "00000000000000000000.json").write_text("{")
    with fails(InputError, "damaged-table", file=str(table)):
        pairs(table)


def test_mapped_columns_are_refused(tmp_path: Path) -> None:
    write_delta(tmp_path / "t", rows(0, 9), configuration={"delta.columnMapping.mode": "name"})
    with fails(InputError, "table-beyond-files"):
        pairs(tmp_path / "t")


def test_deletion_vectors_are_refused(tmp_path: Path) -> None:
    """A table that may have them is read while it has none."""
    path = tmp_path / "t"
    write_delta(path, rows(0, 9).drop_columns("city"), configuration={"delta.enableDeletionVectors": "true"})
    (file,) = pairs(path)

    delete_first_row(path, file)
    assert delta_table(path).deletion_vectors().read_all().num_rows == 1
    with fails(InputError, "table-beyond-files"):
        pairs(path)


def delete_first_row(table: Path, file: str) -> None:
    """Commit a deletion vector as Delta's protocol describes it: a bitmap with the number of the deleted row."""
    log = table / "_delta_log"
    added = next(
        action["add"]
        for line in (log / f"{0:020}.json").read_text().splitlines()
        if "add" in (action := json.loads(line))
    )
    # One array container with one value, 0; it starts 16 bytes after the begin of the bitmap.
    bitmap = struct.pack("<IIHHIH", 12346, 1, 0, 0, 16, 0)
    vector = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    vector += bytes(-len(vector) % 4)
    inline = base64.b85encode(vector).translate(bytes.maketrans(_B85, _Z85)).decode()
    where = {"storageType": "i", "pathOrInlineDv": inline, "sizeInBytes": len(vector), "cardinality": 1}
    removed = {"path": file, "deletionTimestamp": 1, "dataChange": True}
    actions = [{"remove": removed}, {"add": {**added, "deletionVector": where}}]
    (log / f"{1:020}.json").write_text("".join(json.dumps(action) + "\n" for action in actions))
