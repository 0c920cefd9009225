"""Which runs copy the other columns of a Parquet file, how they say so, and that an interruption changes no byte."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nerd_onnx.cli.dry_run import plan_facts
from nerd_onnx.cli.messages import summary_line
from nerd_onnx.formats.parquet import copying_writer
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from tests.formats.test_parquet_copy import check_copied
from tests.support.runs import interrupt, job, resumed, texts, write_lines, write_parquet
from tests.support.tables_io import invalid_utf8


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, None),
        ({"layout": "wide"}, None),
        ({"on_error": "null"}, None),
        ({"overwrite_column": True}, None),
        ({"chunk_rows": 3, "max_memory": 1 << 40}, None),
        ({"layout": "long"}, "--layout long has other rows"),
        ({"limit": 5}, "--limit may leave rows out"),
        ({"on_error": "skip", "rejects": "{}/rejects.jsonl"}, "--on-error skip may leave rows out"),
        ({"retry_rejects": "{}/old.jsonl"}, "--retry-rejects may leave rows out"),
    ],
)
def test_the_summary_and_the_plan_say_which_way(
    tagger: Tagger, tmp_path: Path, options: dict[str, Any], reason: str | None
) -> None:
    path = write_parquet(tmp_path / "in.parquet", texts(10))
    (tmp_path / "old.jsonl").write_text(f'{{"file": "{path.name}", "row": 1, "reason": "?"}}\n')
    options = {name: value.format(tmp_path) if isinstance(value, str) else value for name, value in options.items()}
    work = TagJob([str(path)], str(tmp_path / "out.parquet"), **options)

    expected = {"copied_files": int(reason is None), "rewritten_because": [] if reason is None else [reason]}
    assert plan_facts(tagger, work).items() >= expected.items()
    summary = tag_files(tagger, work).summary()
    assert summary.items() >= expected.items()
    told = "; other columns copied" if reason is None else f"; columns rewritten because {reason}"
    assert summary_line(summary).endswith(told)
    if reason is None:
        check_copied(path, tmp_path / "out.parquet")


def test_a_replaced_column_is_rewritten(tagger: Tagger, tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"entities": [1, 2], "text": texts(2)}), path)
    report = tag_files(tagger, TagJob([str(path)], str(tmp_path / "out.parquet"), overwrite_column=True))
    assert (report.copied_files, report.rewritten_because) == (0, ["a column is replaced"])
    assert pq.read_schema(tmp_path / "out.parquet").names == ["entities", "text"]


def test_the_files_of_a_folder_are_counted(tagger: Tagger, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        write_parquet(folder / f"{i}.parquet", texts(5 * i))
    write_lines(folder / "more.jsonl", texts(5))
    content = io.BytesIO()
    pq.write_table(pa.table({"text": texts(3), "entities": [1, 2, 3]}), content)
    (folder / "replaced.parquet").write_bytes(content.getvalue())
    report = tag_files(tagger, TagJob([str(folder)], str(tmp_path / "out"), overwrite_column=True))
    assert (report.files, report.copied_files, report.rewritten_because) == (5, 3, ["a column is replaced"])


def test_lines_that_become_parquet_are_no_copies(tagger: Tagger, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", texts(5))
    report = tag_files(tagger, TagJob([str(path)], str(tmp_path / "out.parquet")))
    assert (report.copied_files, report.rewritten_because) == (0, [])
    back = tag_files(
        tagger, TagJob([str(tmp_path / "out.parquet")], str(tmp_path / "out.jsonl"), overwrite_column=True)
    )
    assert (back.copied_files, back.rewritten_because) == (0, [])


def test_rejected_rows_keep_their_texts(tagger: Tagger, tmp_path: Path) -> None:
    """A text that is not valid UTF-8 is copied like any other."""
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"n": range(4), "text": invalid_utf8()}), path, write_statistics=False)
    report = tag_files(tagger, TagJob([str(path)], str(tmp_path / "out.parquet"), on_error="null"))
    assert (report.rejected, report.nulled, report.copied_files) == (1, 1, 1)
    check_copied(path, tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet", columns=["n", "entities", "entities_error"]).to_pylist()
    assert [row["entities"] is None for row in found] == [False, False, True, False]
    assert "UTF-8" in found[2]["entities_error"]


def test_a_damaged_page_of_another_column_stays_what_it_was(tagger: Tagger, tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pa.table({"x": [f"value-{i:04}" for i in range(50)], "text": texts(50)})
    pq.write_table(table, path, compression="NONE", use_dictionary=False, write_page_checksum=True)
    path.write_bytes(path.read_bytes().replace(b"value-0007", b"value-9007"))
    assert tag_files(tagger, TagJob([str(path)], str(tmp_path / "out.parquet"))).copied_files == 1
    check_copied(path, tmp_path / "out.parquet")
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(tmp_path / "out.parquet", page_checksum_verification=True)


@pytest.mark.parametrize("batches", [1, 2, 4])
def test_a_resumed_copy_has_the_same_bytes(
    tagger: Tagger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    """Also where the row group is encoded in pieces, some of them from stored results."""
    monkeypatch.setattr(copying_writer, "PIECE_ROWS", 90)
    path = write_parquet(tmp_path / "in.parquet", texts(300), row_group_size=250)
    whole, output = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    tag_files(tagger, job(path, whole))
    interrupt(tagger, job(path, output), batches)
    report = resumed(tagger, path, output)
    assert report.resumed_rows > 0
    assert report.copied_files == 1
    assert output.read_bytes() == whole.read_bytes()
    check_copied(path, output)
