"""A Parquet column of bytes can be the text column: Impala, and old Spark and Hive, write texts so."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nerd_onnx.errors import InputError
from nerd_onnx.formats.text_arrays import is_text
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import OnError, TagJob
from nerd_onnx.tagging.run import tag_files
from tests.support.failures import fails
from tests.support.runs import interrupt, texts

ROWS = [*texts(19), "", "São Paulo 😀"]
BINARY = [pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())]


def write(path: Path, values: list[bytes | None], kind: pa.DataType) -> Path:
    """Write a column of bytes, and another one beside it."""
    other = [bytes([i]) for i in range(len(values))]
    pq.write_table(pa.table({"text": pa.array(values, kind), "other": other}), path, row_group_size=8)
    return path


def encoded(rows: list[str | None]) -> list[bytes | None]:
    return [None if row is None else row.encode() for row in rows]


@pytest.mark.parametrize("kind", BINARY, ids=str)
def test_bytes_get_the_entities_of_their_text(tagger: Tagger, kind: pa.DataType, tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", [*encoded([*ROWS]), None], kind)
    pq.write_table(pa.table({"text": [*ROWS, None]}), tmp_path / "b.parquet")
    for name in ("a", "b"):
        tag_files(tagger, TagJob([str(tmp_path / f"{name}.parquet")], str(tmp_path / f"{name}.out.parquet")))

    ours, plain = (pq.read_table(tmp_path / f"{name}.out.parquet") for name in ("a", "b"))
    assert ours["entities"] == plain["entities"]
    assert ours["text"].to_pylist() == pq.read_table(source)["text"].to_pylist()


@pytest.mark.parametrize("kind", BINARY, ids=str)
def test_in_json_the_text_is_a_string(tagger: Tagger, kind: pa.DataType, tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", [*encoded([*ROWS]), None], kind)
    tag_files(tagger, TagJob([str(source)], str(tmp_path / "o.jsonl")))
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_bytes().splitlines()]
    assert [row["text"] for row in rows] == [*ROWS, None]
    assert rows[1]["other"] == "AQ=="


def test_bytes_that_are_not_utf8_are_an_error(tagger: Tagger, tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", [b"ok", b"ok", b"n\xff", b"ok"], pa.binary())
    with fails(InputError, "not-utf8", file=source, row=2, column="text"):
        tag_files(tagger, TagJob([str(source)], str(tmp_path / "o.parquet")))


@pytest.mark.parametrize(("suffix", "on_error"), [("parquet", "null"), ("parquet", "skip"), ("jsonl", "skip")])
def test_bytes_that_are_not_utf8_make_a_rejected_row(
    tagger: Tagger, suffix: str, on_error: OnError, tmp_path: Path
) -> None:
    values = [*encoded([*ROWS]), b"n\xff", b"Paris"]
    source = write(tmp_path / "a.parquet", values, pa.binary())
    output, rejects = tmp_path / f"o.{suffix}", tmp_path / "r.jsonl"
    report = tag_files(tagger, TagJob([str(source)], str(output), on_error=on_error, rejects=str(rejects)))
    assert (report.rows, report.rejected) == (len(values), 1)
    assert json.loads(rejects.read_text())["row"] == len(ROWS)

    if suffix == "parquet":
        kept = values if on_error == "null" else [value for value in values if value != b"n\xff"]
        assert pq.read_table(output)["text"].to_pylist() == kept
    else:
        assert [json.loads(line)["text"] for line in output.read_bytes().splitlines()] == [*ROWS, "Paris"]


def test_a_stopped_run_resumes_to_the_same_bytes(tagger: Tagger, tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", encoded([*ROWS]), pa.binary())
    whole, output = tmp_path / "whole.jsonl", tmp_path / "o.jsonl"
    tag_files(tagger, TagJob([str(source)], str(whole), chunk_rows=4))
    interrupt(tagger, TagJob([str(source)], str(output), chunk_rows=4), 2)
    report = tag_files(tagger, TagJob([str(source)], str(output), chunk_rows=4, resume=True, verify=True))
    assert report.resumed_rows > 0
    assert output.read_bytes() == whole.read_bytes()


def test_bytes_of_an_extension_are_no_text() -> None:
    assert is_text(pa.binary())
    assert is_text(pa.binary_view())
    assert not is_text(pa.opaque(pa.binary(), "point", "a database"))
    assert not is_text(pa.binary(4))
