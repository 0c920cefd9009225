"""Arrow IPC: other columns stay as they are, in files and streams that pyarrow, Polars, pandas and datasets read."""

from __future__ import annotations

import decimal
import gzip
import io
import json
import os
import random
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather as pf
import pyarrow.parquet as pq
import pytest

from nerd_onnx.errors import InputError, NerdError, OutputError
from nerd_onnx.formats.arrow import ARROW
from nerd_onnx.formats.arrow import opened as opened_batches
from nerd_onnx.formats.arrow.joined import joined
from nerd_onnx.formats.layouts import Layout
from nerd_onnx.formats.tagged_file import TaggedRow, tagged_rows
from nerd_onnx.storage.location import Location
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from tests.support.damage import flip
from tests.support.failures import fails
from tests.support.processes import command
from tests.support.quick_tagger import quick_tagger
from tests.support.runs import texts
from tests.support.tables_io import ENTITIES, all_texts, converted, invalid_utf8, opened, read, refused

ROWS = 50
CONTAINERS: dict[str, Any] = {"file": pa.ipc.new_file, "stream": pa.ipc.new_stream}
WORDS = ["Angela Merkel met Bob.", None, "", "東京 😀"]


def table(rows: int = ROWS) -> pa.Table:
    """Make rows with columns of several types."""
    return pa.table(
        {
            "text": [WORDS[i % 4] for i in range(rows)],
            "kind": pa.array(["a", "b", "a", None, "c"] * (rows // 5)).dictionary_encode(),
            "tags": [[None, ["x"], [], ["y", None]][i % 4] for i in range(rows)],
            "n": pa.array(range(rows), pa.uint8()),
        },
        metadata={"owner": "us"},
    )


def write(path: Path, rows: pa.Table, container: str = "file", **options: Any) -> Path:
    """Write an Arrow file or stream with record batches of 20 rows."""
    with CONTAINERS[container](str(path), rows.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(rows, max_chunksize=20)
    return path


def content(path: Path) -> pa.Table:
    """Return what pyarrow reads of a file or stream."""
    is_file = path.read_bytes().startswith(b"ARROW1")
    with (pa.ipc.open_file if is_file else pa.ipc.open_stream)(str(path)) as found:
        rows = found.read_all()
    rows.validate(full=True)
    return rows


def places(row: TaggedRow) -> list[tuple[int, int, str]] | None:
    """Return where the entities of a row are: scores have fewer digits in JSON."""
    return None if row.entities is None else [(one.start, one.end, one.label) for one in row.entities]


def container_of(path: Path) -> str:
    return "file" if path.read_bytes().startswith(b"ARROW1") else "stream"


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_an_output_has_the_columns_batches_compression_and_container_of_its_input(
    tmp_path: Path, container: str, codec: str | None
) -> None:
    source = write(tmp_path / "in.arrow", table(), container, compression=codec)
    output = converted(source, tmp_path / "o.arrow", source={"batch_rows": 7})
    found = content(output)
    assert found.drop_columns("entities").equals(table())
    assert found.schema.metadata == {b"owner": b"us", b"nerd_onnx.entities.offset_unit": b"codepoint"}
    assert found.schema.field("kind").type == table().schema.field("kind").type
    assert [len(chunk) for chunk in found.column(0).chunks] == [20, 20, 10]
    assert container_of(output) == container
    with closing(opened(output, typed=True)) as again:
        assert again.contents.codec == codec  # type: ignore[attr-defined]
        assert again.num_rows == ROWS


ODD: dict[str, pa.Array] = {
    "dense union": pa.UnionArray.from_dense(
        pa.array([0, 1, 0, 1], pa.int8()), pa.array([0, 0, 1, 1], pa.int32()), [pa.array(["a", "b"]), pa.array([1, 2])]
    ),
    "run-end encoded": pa.RunEndEncodedArray.from_arrays(pa.array([2, 4], pa.int32()), pa.array(["x", "y"])),
    "interval": pa.array([(1, 2, 3), None] * 2, pa.month_day_nano_interval()),
    "list view": pa.array([["a"], [], None, ["b"]], pa.list_view(pa.string())),
    "string view": pa.array(["a" * 20, "b", None, ""], pa.string_view()),
    "map": pa.array([[("k", "v")], None, [], [("q", None)]], pa.map_(pa.string(), pa.string())),
    "uuid": pa.array([b"0" * 16, None, b"1" * 16, b"2" * 16], pa.uuid()),
    "tensor": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int32(), [2]), pa.array([[1, 2]] * 4, pa.list_(pa.int32(), 2))
    ),
    "opaque dictionary": pa.ExtensionArray.from_storage(
        pa.opaque(pa.dictionary(pa.int32(), pa.string()), "a", "b"), pa.array(["a", "b", None, "a"]).dictionary_encode()
    ),
    "ordered dictionary": pa.DictionaryArray.from_arrays(
        pa.array([0, 1, None, 0], pa.int8()), ["b", "a"], ordered=True
    ),
    "list of dictionaries": pa.ListArray.from_arrays(
        pa.array([0, 1, 1, 2, 2], pa.int32()), pa.array(["a", "b"]).dictionary_encode()
    ),
    "decimal": pa.array([decimal.Decimal("1.20"), None] * 2, pa.decimal32(5, 2)),
    "null": pa.nulls(4),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_column_of_any_type_stays_as_it_is(tmp_path: Path, container: str, kind: str) -> None:
    rows = pa.table({"text": WORDS, "odd": ODD[kind]})
    source = write(tmp_path / "in.arrow", pa.concat_tables([rows, rows]), container)
    found = content(converted(source, tmp_path / "o.arrow", source={"batch_rows": 3}))
    assert found.schema.field("odd").equals(rows.schema.field("odd"))
    assert found.column("odd").combine_chunks().equals(pa.chunked_array([ODD[kind]] * 2).combine_chunks())


@pytest.mark.parametrize("kind", ["text", *ODD])
def test_where_chunks_end_changes_no_byte_of_a_column(kind: str) -> None:
    column = pa.concat_arrays([pa.array(WORDS) if kind == "text" else ODD[kind]] * 4)
    if "dictionar" not in kind:  # as a file gives it: with padding behind the values
        batch = pa.record_batch([column], ["x"])
        column = pa.ipc.read_record_batch(batch.serialize(), batch.schema).column(0)

    found = set()
    for size in (3, 5, len(column)):
        chunks = pa.chunked_array([column.slice(i, size) for i in range(0, len(column), size)], column.type)
        one = joined(chunks)
        assert one.equals(column)
        one.validate(full=True)
        found.add(pa.record_batch([one], ["x"]).serialize().to_pybytes())
    assert len(found) == 1


def test_a_null_in_a_dictionary_becomes_a_null_of_parquet(tmp_path: Path) -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 2], pa.int8()), ["x", None, "y"], ordered=True)
    source = write(tmp_path / "in.arrow", pa.table({"text": WORDS, "odd": column}))
    found = pq.read_table(converted(source, tmp_path / "o.parquet")).column("odd")
    assert found.type == column.type
    assert found.to_pylist() == ["x", None, None, "y"]


@pytest.mark.parametrize("kind", ["dense union", "interval"])
def test_a_type_that_another_format_does_not_have_is_named(tmp_path: Path, kind: str) -> None:
    source = write(tmp_path / "in.arrow", pa.table({"text": WORDS, "odd": ODD[kind]}))
    with fails(OutputError, "no-parquet-type", column="odd", file=tmp_path / "o.parquet"):
        converted(source, tmp_path / "o.parquet")
    with fails(OutputError, "not-json-type", column="odd"):
        converted(source, tmp_path / "o.jsonl")


def test_all_conversions_have_the_same_entities(tmp_path: Path) -> None:
    write(tmp_path / "a.arrow", table(), "stream")
    pq.write_table(table(), tmp_path / "a.parquet", row_group_size=15)
    lines = [json.dumps({"text": WORDS[i % 4], "n": i}) for i in range(ROWS)]
    (tmp_path / "a.jsonl").write_text("".join(f"{line}\n" for line in lines))

    expected = None
    for source in ("a.arrow", "a.parquet", "a.jsonl"):
        for output in ("o.arrow", "o.parquet", "o.jsonl", "o.csv"):
            path = converted(tmp_path / source, tmp_path / f"{source}.{output}")
            rows = [(row.text or None, places(row) or None) for row in tagged_rows(path)]
            expected = expected or rows
            assert rows == expected
    assert pq.read_metadata(tmp_path / "a.arrow.o.parquet").num_row_groups == 1  # and not one for each record batch
    assert content(tmp_path / "a.parquet.o.arrow").drop_columns("entities").equals(table())


@pytest.mark.parametrize(
    ("made", "name", "container"),
    [
        ("stream", "o.arrow", "stream"),
        ("stream", "o.ipc", "stream"),
        ("stream", "o.feather", "file"),
        ("file", "o.arrow", "file"),
        ("file", "o.arrows", "stream"),
    ],
)
def test_an_output_is_what_its_input_is_unless_its_name_says_another(
    tmp_path: Path, made: str, name: str, container: str
) -> None:
    source = write(tmp_path / "in.arrow", table(), made)
    assert container_of(converted(source, tmp_path / name)) == container


def test_other_programs_read_what_is_written(tmp_path: Path) -> None:
    source = write(tmp_path / "in.arrow", table(), compression="zstd")
    output = converted(source, tmp_path / "o.feather")
    assert pf.read_table(output).column("n").to_pylist() == list(range(ROWS))
    assert pl.read_ipc(output)["n"].to_list() == list(range(ROWS))
    assert pd.read_feather(output)["kind"].dtype == "category"
    stream = converted(write(tmp_path / "s.arrow", table(), "stream"), tmp_path / "o.arrow")
    assert pl.read_ipc_stream(stream)["text"].to_list() == table()["text"].to_pylist()


def test_what_polars_and_pandas_write_is_read(tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": WORDS, "n": [1, 2, 3, 4]}).with_columns(
        pl.col("text").cast(pl.Categorical).alias("c")
    )
    for codec in ("uncompressed", "lz4", "zstd"):
        frame.write_ipc(tmp_path / f"{codec}.arrow", compression=codec)
        output = converted(tmp_path / f"{codec}.arrow", tmp_path / f"o-{codec}.arrow")
        assert pl.read_ipc(output).drop("entities").equals(frame)
    indexed = pd.DataFrame({"text": WORDS}, index=pd.Index([3, 5, 7, 9], name="key")).reset_index()
    indexed.to_feather(tmp_path / "pandas.feather")
    output = converted(tmp_path / "pandas.feather", tmp_path / "o.feather")
    assert pd.read_feather(output)["key"].tolist() == [3, 5, 7, 9]
    columns = json.loads(content(output).schema.metadata[b"pandas"])["columns"]
    assert columns[-1]["field_name"] == "entities"


def test_a_data_set_of_hugging_face_keeps_its_features(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    made = datasets.Dataset.from_dict({"text": WORDS, "label": [0, 1, 1, 0]}, features=features)
    made.save_to_disk(tmp_path / "saved")
    (source,) = (tmp_path / "saved").glob("*.arrow")
    output = converted(source, tmp_path / "o.arrow")

    found = datasets.Dataset.from_file(str(output))
    assert found.features["label"] == features["label"]
    assert found["text"] == WORDS
    assert found[0]["entities"][0]["text"] == "Ang"
    described = json.loads(content(output).schema.metadata[b"huggingface"])
    assert datasets.Features.from_dict(described["info"]["features"]) == found.features


def test_a_fingerprint_of_hugging_face_is_not_kept(tmp_path: Path) -> None:
    info = {"info": {"features": {"text": {"dtype": "string", "_type": "Value"}}}, "fingerprint": "abc"}
    rows = pa.table({"text": WORDS}, metadata={"huggingface": json.dumps(info)})
    for name in ("o.arrow", "o.parquet"):
        output = converted(write(tmp_path / "in.arrow", rows), tmp_path / name)
        schema = pq.read_schema(output) if name == "o.parquet" else content(output).schema
        assert list(json.loads(schema.metadata[b"huggingface"])) == ["info"]


def test_a_folder_that_datasets_saved_is_tagged(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": texts(30)}).save_to_disk(tmp_path / "saved")
    with closing(quick_tagger()) as tagger:
        report = tag_files(tagger, TagJob([str(tmp_path / "saved")], str(tmp_path / "out")))
    assert (report.files, report.rows) == (1, 30)
    (made,) = (tmp_path / "out").glob("*.arrow")
    assert datasets.Dataset.from_file(str(made)).column_names == ["text", "entities"]


# -- dictionaries ------------------------------------------------------------------------------------------------------


def changing(*dictionaries: list[str], index: pa.DataType | None = None) -> list[pa.RecordBatch]:
    """Make record batches whose second column has another dictionary in each."""
    schema = pa.schema([("text", pa.string()), ("word", pa.dictionary(index or pa.int8(), pa.string()))])
    return [
        pa.record_batch(
            [
                pa.array(["Angela"] * len(words)),
                pa.DictionaryArray.from_arrays(
                    pa.array(range(len(words)), schema.field("word").type.index_type), words
                ),
            ],
            schema=schema,
        )
        for words in dictionaries
    ]


def write_batches(path: Path, container: str, batches: list[pa.RecordBatch], *, deltas: bool) -> Path:
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
    with CONTAINERS[container](str(path), batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return path


@pytest.mark.parametrize("name", ["o.arrow", "o.feather", "o.parquet", "o.jsonl"])
@pytest.mark.parametrize("deltas", [False, True])
@pytest.mark.parametrize("container", CONTAINERS)
def test_dictionaries_that_grow_or_change(tmp_path: Path, container: str, name: str, *, deltas: bool) -> None:
    batches = changing(["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"])
    if container == "stream" and not deltas:
        batches += changing(["z", "b"], ["q"])
    elif not deltas:
        batches = changing(["a", "b"], ["a", "b"])
    source = write_batches(tmp_path / "in.arrow", container, batches, deltas=deltas)
    output = converted(source, tmp_path / name)
    expected = [word for batch in batches for word in batch.column(1).to_pylist()]
    if name == "o.jsonl":
        assert [json.loads(line)["word"] for line in output.read_text().splitlines()] == expected
    else:
        found = pq.read_table(output) if name == "o.parquet" else content(output)
        assert found["word"].to_pylist() == expected
        assert found.schema.field("word").type == batches[0].schema.field("word").type


def test_a_dictionary_that_outgrows_its_indices(tmp_path: Path) -> None:
    batches = changing([f"a{i}" for i in range(100)], [f"b{i}" for i in range(100)])
    source = write_batches(tmp_path / "in.arrow", "stream", batches, deltas=False)
    assert content(converted(source, tmp_path / "o.arrow"))["word"].to_pylist()[150] == "b50"
    with fails(OutputError, "dictionary-too-large", file=tmp_path / "o.feather"):
        converted(source, tmp_path / "o.feather")
    assert not (tmp_path / "o.feather").exists()


def test_a_text_column_that_is_a_dictionary(tmp_path: Path) -> None:
    rows = pa.table({"text": pa.array(WORDS).dictionary_encode()})
    output = converted(write(tmp_path / "in.arrow", rows), tmp_path / "o.arrow")
    assert content(output).drop_columns("entities").equals(rows)
    assert [row.text for row in tagged_rows(output)] == WORDS


# -- damaged, cut and other files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_file_that_is_cut_anywhere_is_refused_before_any_row(tmp_path: Path, container: str) -> None:
    whole = write(tmp_path / "in.arrow", table(), container).read_bytes()
    cut = tmp_path / "cut.arrow"
    for size in [*range(1, len(whole), 97), len(whole) - 8, len(whole) - 1]:
        cut.write_bytes(whole[:size])
        with pytest.raises(InputError) as caught:
            opened(cut, typed=True)
        assert caught.value.reason in {"damaged-arrow", "other-format"}


@pytest.mark.parametrize("options", [{}, {"compression": "lz4"}])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_gives_rows_or_one_line(
    tmp_path: Path, container: str, options: dict[str, str], seed: int
) -> None:
    source = write(tmp_path / "in.arrow", table(), container, **options)
    rng = random.Random(seed)
    for _ in range(rng.randint(1, 3)):
        flip(source, rng)
    for name in ("o.arrow", "o.jsonl"):
        said = ""
        try:
            converted(source, tmp_path / name, source={"lenient": True})
        except NerdError as err:
            said = str(err)
        assert "\n" not in said


def test_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "in.feather"
    path.write_bytes(b"")
    refused(path, "empty-file")
    path.write_bytes(b"ARROW1\0\0")
    refused(path, "damaged-arrow")
    path.write_bytes(b'{"text": "a"}\n')
    refused(path, "damaged-arrow")
    pq.write_table(table(), path)
    refused(path, "other-format", found="Parquet")
    path.write_bytes(b"FEA1\0\0\0\0" + bytes(100) + b"FEA1")
    refused(path, "other-format", found="Feather version 1")
    path.rename(tmp_path / "unnamed")
    refused(tmp_path / "unnamed", "other-format", found="Feather version 1")


def test_a_file_that_is_compressed_as_a_whole_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "in.arrow", table())
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert "decompress it first" in str(refused(path, "other-format", found="gzip"))
    path.rename(tmp_path / "in.arrow.gz")
    assert "decompress it first" in str(refused(tmp_path / "in.arrow.gz", "other-format", found="Arrow"))


def test_two_streams_in_one_file_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "in.arrow", table(), "stream")
    path.write_bytes(path.read_bytes() * 2)
    assert "several streams" in str(refused(path, "damaged-arrow"))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_file_is_known_by_its_first_bytes(tmp_path: Path, container: str) -> None:
    path = write(tmp_path / "unnamed", table(), container)
    assert all_texts(read(path)) == table()["text"].to_pylist()
    path.rename(tmp_path / "in.jsonl")
    refused(tmp_path / "in.jsonl", "other-format", found="Arrow" if container == "file" else "Arrow stream")


def test_streams_of_programs_before_2019_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "in.arrow", table(), "stream", use_legacy_format=True)
    assert path.read_bytes()[:4] != b"\xff\xff\xff\xff"
    assert all_texts(read(path)) == table()["text"].to_pylist()
    path.write_bytes(path.read_bytes()[:-4])
    refused(path, "damaged-arrow")


@pytest.mark.parametrize("container", CONTAINERS)
def test_files_without_rows(tmp_path: Path, container: str) -> None:
    source = write(tmp_path / "in.arrow", table(0), container)
    output = converted(source, tmp_path / "o.arrow")
    assert content(output).schema.names == ["text", "kind", "tags", "n", "entities"]
    assert content(output).num_rows == 0
    converted(source, tmp_path / "o.parquet")
    converted(source, tmp_path / "o.jsonl")


def test_invalid_utf8_in_texts_and_elsewhere(tmp_path: Path) -> None:
    source = write(tmp_path / "in.arrow", pa.table({"text": invalid_utf8(), "other": invalid_utf8()}))
    refused(source, "not-utf8", row=2, column="text")
    (rows,) = read(source, typed=True, lenient=True)
    assert all_texts([rows]) == ["ok", "ok", None, "ok"]
    assert [(row.row, row.index) for row in rows.rejected] == [(2, 2)]
    output = converted(source, tmp_path / "o.arrow", source={"lenient": True})
    with pa.ipc.open_file(str(output)) as found:  # the bytes stay, although they are no UTF-8
        assert found.read_all().column("other").cast(pa.binary()).to_pylist() == [b"ok", b"ok", b"n\xff", b"ok"]


def test_binary_texts(tmp_path: Path) -> None:
    rows = pa.table({"text": pa.array([b"Angela", None, b"\xff"])})
    source = write(tmp_path / "in.arrow", rows)
    output = converted(source, tmp_path / "o.arrow", source={"lenient": True})
    assert content(output).drop_columns("entities").equals(rows)


# -- large files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_large_record_batch_is_mapped_and_split(
    tmp_path: Path, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened_batches, "MAPPED_BYTES", 100)
    source = write(tmp_path / "in.arrow", table(), container)
    whole = converted(source, tmp_path / "o.arrow", source={"batch_rows": 3})
    assert content(whole).drop_columns("entities").equals(table())
    parts = converted(source, tmp_path / "parts.arrow", source={"batch_rows": 3}, group_bytes=200)
    assert max(len(chunk) for chunk in content(parts).column(0).chunks) < 10
    assert content(parts).equals(content(whole))


MEMORY = """
import sys
import numpy as np
from nerd_onnx.machine.memory import peak_rss_bytes
from tests.support.tables_io import opened
before = peak_rss_bytes()
with opened(sys.argv[1], typed=True, batch_rows=1000) as source:
    for rows in source.batches():
        column = rows.table.column(1)
        begin, end = column.offset * 40_000, (column.offset + len(column)) * 40_000
        assert not np.frombuffer(column.buffers()[1], np.uint8)[begin:end].any()
print(peak_rss_bytes() - before)
"""


class Holes(io.FileIO):
    """A file in which large pieces become holes: the test writes nothing but zeros in them."""

    def write(self, data: Any) -> int:
        """Write bytes, or leave as much out."""
        view = memoryview(data)
        if view.nbytes > 1 << 20:
            self.seek(view.nbytes, os.SEEK_CUR)
            return view.nbytes
        return super().write(view)


@pytest.mark.slow
def test_a_record_batch_larger_than_the_memory_that_is_used(tmp_path: Path) -> None:
    rows, width = 10_000, 40_000
    images = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), rows, [None, pa.py_buffer(np.zeros(rows * width, np.uint8))]
    )
    batch = pa.record_batch([pa.array([""] * rows), images], ["text", "image"])
    path = tmp_path / "in.arrow"
    with Holes(str(path), "w") as sink, pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    assert path.stat().st_size > rows * width

    done = subprocess.run([sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150 << 20


@pytest.mark.slow
def test_standard_input_and_output(tmp_path: Path, tiny_bundle: Path) -> None:
    for container in CONTAINERS:
        source = write(tmp_path / "in.arrow", table(), container)
        arguments = command("-", "-", "--model", tiny_bundle, "--quiet")
        done = subprocess.run(arguments, input=source.read_bytes(), capture_output=True, check=True)
        with pa.ipc.open_stream(io.BytesIO(done.stdout)) as found:
            assert found.read_all().drop_columns("entities").equals(table())


def test_a_run_that_fails_leaves_no_end_in_its_stream(tmp_path: Path, capfdbinary: Any) -> None:
    source = write(
        tmp_path / "in.arrow", pa.table({"text": [*["Paris"] * 20, b"\xff"]}, pa.schema([("text", pa.binary())]))
    )
    with fails(InputError, "not-utf8"):
        converted(source, Path("-"), format="arrow")
    written = capfdbinary.readouterr().out
    assert len(written) > 8
    assert not written.endswith(struct.pack("<iI", -1, 0))


# -- finished outputs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_finished_output_is_checked(tmp_path: Path, container: str) -> None:
    output = converted(write(tmp_path / "in.arrow", table(), container), tmp_path / "o.arrow")
    path, check, metadata = Location(str(output)), ARROW.check_complete, ARROW.read_metadata
    assert check is not None
    assert metadata is not None
    assert metadata(path)[b"nerd_onnx.entities.offset_unit"] == b"codepoint"
    check(path, True)  # noqa: FBT003 - as FileFormat calls it

    whole = output.read_bytes()
    output.write_bytes(whole[:-1])
    for verify in (False, True):
        with fails(OutputError, "incomplete-output", file=output):
            check(path, verify)
    damaged = bytearray(whole)
    at = whole.index(b"Angela") - 8  # the offset before the values
    damaged[at - 200 : at] = b"\xff" * 200
    output.write_bytes(damaged)
    with fails(OutputError, "incomplete-output", file=output):
        check(path, True)  # noqa: FBT003


def test_the_long_layout_has_one_row_per_entity(tmp_path: Path) -> None:
    source = write(tmp_path / "in.arrow", table())
    long = converted(source, tmp_path / "o.arrow", layout=Layout(ENTITIES, "long", key="n"))
    assert content(long).schema.names == ["n", "start", "end", "label", "score", "text"]
    assert content(long)["n"].to_pylist() == [i for i in range(ROWS) if WORDS[i % 4]]
    assert len(content(long).column(0).chunks) == 1
