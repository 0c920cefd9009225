"""Several files, globs, folders and partitioned data sets to a folder that mirrors them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from nerd_onnx.errors import InputError, InterruptedRunError, NerdError, OptionError, OutputError
from nerd_onnx.formats.interfaces import Format, Reader
from nerd_onnx.storage.location import Location
from nerd_onnx.tagger import Tagger, TagOptions
from nerd_onnx.tagging.file_pairs import FilePair, file_pairs, is_folder_output, suffix_for
from nerd_onnx.tagging.job import TagJob, TagReport
from nerd_onnx.tagging.run import tag_files
from tests.support.failures import fails
from tests.support.runs import interrupt, texts, tree, write_lines, write_parquet


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Make a partitioned data set with what else lies in such folders."""
    folder = tmp_path / "data"
    for year, part in ((2024, 0), (2024, 1), (2025, 0)):
        (folder / f"year={year}").mkdir(parents=True, exist_ok=True)
        write_parquet(folder / f"year={year}" / f"part-{part}.parquet", texts(60)[part * 30 :][:30], 12)
    write_lines(folder / "more.jsonl.gz", texts(10))
    for name in ("_SUCCESS", ".part-0.parquet.crc", "readme.txt", "_metadata.parquet"):
        (folder / name).write_text("no rows")
    return folder


def tag(tagger: Tagger, inputs: list[Path | str], output: Path, **options: Any) -> TagReport:
    return tag_files(tagger, TagJob([str(path) for path in inputs], str(output), **options))


def names(inputs: list[Path | str], output: Path | str, asked: Format | None = None) -> dict[str, str]:
    pairs = file_pairs(
        [Location.of(path) for path in inputs], Location.of(output), lambda path: suffix_for(path, asked)
    )
    return {pair.name: os.path.relpath(pair.output, output) for pair in pairs}


def test_a_partitioned_folder_is_mirrored(tagger: Tagger, data: Path, tmp_path: Path) -> None:
    report = tag(tagger, [data], tmp_path / "out")
    files = ["more.jsonl.gz", "year=2024/part-0.parquet", "year=2024/part-1.parquet", "year=2025/part-0.parquet"]
    assert list(tree(tmp_path / "out")) == files
    assert (report.files, report.rows) == (4, 100)
    before = ds.dataset(data, format="parquet", partitioning="hive", exclude_invalid_files=True).to_table()
    after = ds.dataset(tmp_path / "out", format="parquet", partitioning="hive", exclude_invalid_files=True).to_table()

    assert after.drop_columns("entities").select(before.schema.names).equals(before)
    for name in files[1:]:
        old, new = pq.ParquetFile(data / name).metadata, pq.ParquetFile(tmp_path / "out" / name).metadata
        assert [old.row_group(i).num_rows for i in range(old.num_row_groups)] == [
            new.row_group(i).num_rows for i in range(new.num_row_groups)
        ]
        assert old.row_group(0).column(0).compression == new.row_group(0).column(0).compression
        assert new.metadata[b"owner"] == b"us"


def test_each_file_is_tagged_as_alone(tagger: Tagger, data: Path, tmp_path: Path) -> None:
    tag(tagger, [data], tmp_path / "out")
    tag(tagger, [data / "year=2024" / "part-1.parquet"], tmp_path / "alone.parquet")
    assert tree(tmp_path / "out")["year=2024/part-1.parquet"] == (tmp_path / "alone.parquet").read_bytes()


def test_each_input_has_its_output(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    parts = ["part-0.parquet", "part-1.parquet"]
    assert list(names([data / "year=2024"], out)) == parts
    assert names([f"{data}/year=2024/*.parquet"], out) == {name: name for name in parts}
    assert list(names([f"{data}/year=*/part-0.parquet"], out)) == [f"year={y}/part-0.parquet" for y in (2024, 2025)]
    assert list(names([f"{data}/year=*"], out)) == [
        "year=2024/part-0.parquet",
        "year=2024/part-1.parquet",
        "year=2025/part-0.parquet",
    ]
    assert len(names([f"{data}/**/*.parquet"], out)) == 3
    several = [data / "year=2024" / "part-0.parquet", data / "year=2025" / "part-0.parquet"]
    parts_of_years = ["year=2024/part-0.parquet", "year=2025/part-0.parquet"]

    assert list(names([*several], out)) == parts_of_years
    assert names([data], out, "jsonl")["year=2024/part-0.parquet"] == "year=2024/part-0.jsonl"
    assert names([data], out, "parquet")["more.jsonl.gz"] == "more.parquet"
    assert names([data / "more.jsonl.gz"], f"{out}/") == {"more.jsonl.gz": "more.jsonl.gz"}
    assert list(names([*several], f"{tmp_path}/o.parquet/")) == parts_of_years
    (tmp_path / "o.parquet").mkdir()

    assert list(names([*several], tmp_path / "o.parquet")) == parts_of_years
    source, target = Location.of(data / "more.jsonl.gz"), Location.of(out)
    single = file_pairs([source], target, lambda _: None)

    assert single == [FilePair("more.jsonl.gz", source, target)]


def test_a_name_with_brackets_is_no_glob(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a[1].parquet", texts(2))
    assert not is_folder_output([Location.of(tmp_path / "a[1].parquet")], Location.of(tmp_path / "o.parquet"))


def test_inputs_and_outputs_that_do_not_fit_are_refused(tagger: Tagger, data: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    out = tmp_path / "out"
    with fails(InputError, "no-files", file=tmp_path / "none"):
        tag(tagger, [tmp_path / "none"], out)
    with fails(InputError, "no-match", file=f"{data}/*.orc"):
        tag(tagger, [f"{data}/*.orc"], out)
    with fails(InputError, "missing-file", file=tmp_path / "gone.parquet"):
        tag(tagger, [data, tmp_path / "gone.parquet"], out)
    with fails(OptionError, "same-output"):
        tag(tagger, [data / "year=2024", data / "year=2025"], out)
    with fails(OptionError, "stream-with-files"):
        tag(tagger, [data, "-"], out)
    with fails(OptionError, "stream-with-files"):
        tag_files(tagger, TagJob([str(data)], "-"))
    with fails(OutputError, "output-contains-input"):
        tag(tagger, [data / "year=2024"], data, overwrite=True)
    (tmp_path / "file").write_text("")
    with fails(OptionError, "output-not-folder", file=tmp_path / "file"):
        tag(tagger, [data], tmp_path / "file")
    parts = [data / "year=2024" / "part-0.parquet", data / "year=2024" / "part-1.parquet"]
    for inputs, name in ((parts, "o.parquet"), (parts, "o.jsonl.gz"), ([data], "o.ndjson"), ([f"{data}/*.gz"], "o.pq")):
        with fails(OptionError, "output-named-like-file", file=tmp_path / name):
            tag(tagger, [*inputs], tmp_path / name)
        assert not (tmp_path / name).exists()

    assert not out.exists()


def test_finished_files_are_not_tagged_again(tagger: Tagger, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tag(tagger, [data], out)
    before = {name: (out / name).stat().st_mtime_ns for name in tree(out)}
    with fails(OutputError, "output-exists"):
        tag(tagger, [data], out)
    write_parquet(data / "year=2025" / "part-9.parquet", texts(7))
    report = tag(tagger, [data], out, resume=True)

    assert (report.finished_before, report.files, report.rows) == (4, 1, 7)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert tag(tagger, [data], out, overwrite=True).files == 5


def test_an_interrupted_folder_keeps_its_finished_files(tagger: Tagger, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped = interrupt(tagger, TagJob([str(data)], str(out), chunk_rows=10), 8, signal.SIGINT)
    assert stopped.safe_rows == 52  # batches end with row groups of 12
    assert "year=2024/part-0.parquet" in tree(out)
    with fails(OutputError, "interrupted-run", file=out, safe_rows=52):
        tag(tagger, [data], out, chunk_rows=10)
    report = tag(tagger, [data], out, resume=True, chunk_rows=10)

    assert (report.files, report.rows, report.resumed_rows) == (4, 100, 52)
    tag(tagger, [data], tmp_path / "whole")

    assert tree(out) == tree(tmp_path / "whole")


def test_a_finished_input_that_changed_is_refused(tagger: Tagger, data: Path, tmp_path: Path) -> None:
    interrupt(tagger, TagJob([str(data)], str(tmp_path / "out"), chunk_rows=10), 5, signal.SIGINT)
    write_lines(data / "more.jsonl.gz", texts(11))
    with fails(InputError, "input-changed", file=data / "more.jsonl.gz"):
        tag(tagger, [data], tmp_path / "out", resume=True, chunk_rows=10)


def test_one_file_with_rejects_for_all(tagger: Tagger, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b", "a", "c"):
        (tmp_path / "in" / f"{name}.jsonl").write_text('{"text": "Paris"}\n' + ("nothing\n" if name != "c" else ""))
    options: dict[str, Any] = {"on_error": "skip", "rejects": str(tmp_path / "r.jsonl")}
    report = tag(tagger, [tmp_path / "in"], tmp_path / "out", **options)

    assert (report.rows, report.rejected) == (5, 2)
    assert [line.split('"')[3] for line in (tmp_path / "r.jsonl").read_text().splitlines()] == ["a.jsonl", "b.jsonl"]
    retried = tag(
        tagger,
        [tmp_path / "in"],
        tmp_path / "again",
        retry_rejects=str(tmp_path / "r.jsonl"),
        **{**options, "rejects": str(tmp_path / "r2.jsonl")},
    )

    assert (retried.files, retried.rows, retried.rejected) == (2, 2, 2)
    with fails(InputError, "too-many-rejected", maximum=1):
        tag(
            tagger,
            [tmp_path / "in"],
            tmp_path / "limited",
            max_errors=1,
            **{**options, "rejects": str(tmp_path / "r3.jsonl")},
        )

    with pytest.raises(NerdError):
        tag(tagger, [tmp_path / "in"], tmp_path / "failing")


def damaged(data: Path) -> list[str]:
    """Damage three files of the data set in three ways. :return: their names"""
    (data / "year=2024/part-0.parquet").write_bytes((data / "year=2024/part-0.parquet").read_bytes()[:-40])
    packed = (data / "more.jsonl.gz").read_bytes()
    (data / "more.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    pq.write_table(pq.read_table(data / "year=2025/part-0.parquet").drop_columns("text"), data / "zz.parquet")
    return ["more.jsonl.gz", "year=2024/part-0.parquet", "zz.parquet"]


def test_a_file_that_cannot_be_read_is_left_out_whole(tagger: Tagger, data: Path, tmp_path: Path) -> None:
    whole = {path: (data / path).read_bytes() for path in ("more.jsonl.gz", "year=2024/part-0.parquet")}
    names = damaged(data)
    with fails(InputError, "damaged-compression", file=data / "more.jsonl.gz"):
        tag(tagger, [data], tmp_path / "out")
    options: dict[str, Any] = {"on_error": "skip", "rejects": str(tmp_path / "r.jsonl")}
    report = tag(tagger, [data], tmp_path / "out", **options)

    assert (report.files, report.refused_files, report.rows, report.rejected) == (2, 3, 60, 0)
    assert report.summary()["status"] == "done with rejects"
    assert list(tree(tmp_path / "out")) == ["year=2024/part-1.parquet", "year=2025/part-0.parquet"]
    rejects = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]

    assert [(reject["file"], reject["row"]) for reject in rejects] == [(name, None) for name in names]
    assert "'text'" in rejects[2]["reason"]
    for path, content in whole.items():
        (data / path).write_bytes(content)
    (data / "zz.parquet").unlink()
    again = tag(tagger, [data], tmp_path / "again", retry_rejects=str(tmp_path / "r.jsonl"))

    assert (again.files, again.rows) == (2, 40)


def test_a_refused_file_stays_refused_in_a_resumed_run(tagger: Tagger, data: Path, tmp_path: Path) -> None:
    damaged(data)
    options: dict[str, Any] = {"on_error": "null", "chunk_rows": 5, "rejects": str(tmp_path / "whole.jsonl")}
    tag(tagger, [data], tmp_path / "whole", **options)
    options["rejects"] = str(tmp_path / "r.jsonl")
    job = TagJob([str(data)], str(tmp_path / "out"), **options)
    with pytest.raises(InterruptedRunError):
        tag_files(tagger, job, stop=lambda: 15)
    report = tag(tagger, [data], tmp_path / "out", resume=True, **options)

    assert (report.files, report.refused_files) == (2, 3)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert (tmp_path / "r.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_refused_files_count_as_errors_and_not_all_may_be_refused(tagger: Tagger, data: Path, tmp_path: Path) -> None:
    damaged(data)
    options: dict[str, Any] = {"on_error": "skip", "rejects": str(tmp_path / "r.jsonl")}
    with fails(InputError, "too-many-rejected", maximum=1):
        tag(tagger, [data], tmp_path / "out", max_errors=1, **options)
    for path in data.rglob("part-*.parquet"):
        path.write_bytes(b"PAR1")
    with fails(InputError, "no-readable-file", found=5):
        tag(tagger, [data], tmp_path / "none", **options)
    assert not (tmp_path / "r.jsonl").exists()


def test_empty_and_missing_files_and_broken_links_are_refused(tagger: Tagger, data: Path, tmp_path: Path) -> None:
    (data / "aa.parquet").write_bytes(b"")
    (data / "bb.jsonl").symlink_to(tmp_path / "nowhere")
    gone = data / "year=2025/part-0.parquet"
    options: dict[str, Any] = {"on_error": "skip", "rejects": str(tmp_path / "r.jsonl"), "overwrite": True}
    (tmp_path / "out" / "year=2025").mkdir(parents=True)
    (tmp_path / "out" / "year=2025" / "part-0.parquet").write_bytes(b"of last week")
    job = TagJob([str(data)], str(tmp_path / "out"), **options)
    report = tag_files(tagger, job, lambda *_: gone.unlink(missing_ok=True))
    rejects = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]

    assert [reject["file"] for reject in rejects] == ["aa.parquet", "bb.jsonl", "year=2025/part-0.parquet"]
    assert rejects[2]["reason"].endswith("; an older output was left as it is")
    assert (report.files, report.refused_files) == (3, 3)
    del options["overwrite"]
    job = TagJob([str(data)], str(tmp_path / "out"), resume=True, **options | {"rejects": str(tmp_path / "again")})
    again = tag_files(tagger, job)

    assert (again.finished_before, again.refused_files) == (3, 2)


def test_a_refused_file_that_was_repaired_is_tagged_by_a_resumed_run(
    tagger: Tagger, data: Path, tmp_path: Path
) -> None:
    whole = (data / "more.jsonl.gz").read_bytes()
    (data / "more.jsonl.gz").write_bytes(whole[:-20])
    options: dict[str, Any] = {"on_error": "skip", "chunk_rows": 5, "rejects": str(tmp_path / "r.jsonl")}
    with pytest.raises(InterruptedRunError):
        tag_files(tagger, TagJob([str(data)], str(tmp_path / "out"), **options), stop=lambda: 15)
    (data / "more.jsonl.gz").write_bytes(whole)
    report = tag(tagger, [data], tmp_path / "out", resume=True, **options)

    assert (report.files, report.refused_files, report.rows) == (4, 0, 100)
    assert not (tmp_path / "r.jsonl").exists()


def test_stored_rows_of_a_file_that_is_refused_later_do_not_count(tagger: Tagger, data: Path, tmp_path: Path) -> None:
    path = data / "year=2025" / "part-0.parquet"
    footer = pq.ParquetFile(path).metadata
    names = [footer.schema.column(i).name for i in range(footer.num_columns)]
    content = bytearray(path.read_bytes())
    end = footer.row_group(2).column(names.index("text")).data_page_offset
    content[end : end + 40] = bytes(40)
    path.write_bytes(content)
    options: dict[str, Any] = {"on_error": "skip", "rejects": str(tmp_path / "r.jsonl"), "chunk_rows": 2}
    rows = 0

    def note(report: TagReport, _: Reader) -> None:
        nonlocal rows
        rows = report.rows

    job = TagJob([str(data)], str(tmp_path / "out"), **options)
    with pytest.raises(InterruptedRunError):
        tag_files(tagger, job, note, stop=lambda: 15 if rows > 75 else None)
    report = tag(tagger, [data], tmp_path / "out", resume=True, **options)

    assert (report.refused_files, report.rows, report.resumed_rows) == (1, 70, 70)


def test_wrong_options_for_all_files_leave_nothing_behind(tagger: Tagger, data: Path, tmp_path: Path) -> None:
    wrong = Tagger(tagger.bundle, TagOptions(text_column="body"))
    options: dict[str, Any] = {"on_error": "skip", "rejects": str(tmp_path / "r.jsonl")}
    with fails(InputError, "no-readable-file", found=4):
        tag(wrong, [data], tmp_path / "out", **options)
    assert tag(tagger, [data], tmp_path / "out", **options).files == 4
