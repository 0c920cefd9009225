"""What the tests of tables share: inputs opened with usual options, their rows gathered, files made."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from hypothesis import strategies as st

from nerd_onnx.errors import InputError, NerdError
from nerd_onnx.formats.columns import entities_array, entities_type
from nerd_onnx.formats.interfaces import Reader, RowBatch
from nerd_onnx.formats.layouts import Layout
from nerd_onnx.formats.open_input import format_of_name, open_reader
from nerd_onnx.formats.open_output import open_writer
from nerd_onnx.formats.registry import format_named
from tests.support.failures import fails

CORPORA = Path(__file__).parents[3] / "shared" / "data" / "corpora"
Writer = Callable[[str, bytes | str], Path]
# A file name that is not UTF-8, and how messages show it.
ODD_NAME, SHOWN_NAME = os.fsdecode(b"caf\xe9\xff"), r"caf\xe9\xff"


def opened(path: Path | str, **options: Any) -> Reader:
    """Open an input; options not given have usual values."""
    defaults: dict[str, Any] = {
        "format": None,
        "text_column": "text",
        "typed": False,
        "batch_rows": 1000,
        "batch_bytes": 1 << 20,
        "limit": None,
    }
    return open_reader(str(path), **{**defaults, **options})


def read(path: Path | str, **options: Any) -> list[RowBatch]:
    """Read an input whole."""
    with opened(path, **options) as source:
        return list(source.batches())


def all_texts(batches: list[RowBatch]) -> list[str | None]:
    """Gather the texts."""
    return [text for rows in batches for text in rows.texts.to_pylist()]


def all_lines(batches: list[RowBatch]) -> list[bytes]:
    """Gather the raw lines."""
    return [line for rows in batches for line in rows.lines or ()]


def refused(path: Path | str, reason: str, options: Mapping[str, Any] | None = None, **fields: object) -> NerdError:
    """
    Return the error that a bad input leads to, after checks that it is one line and names the input.

    :param options: how the input is read
    """
    with fails(InputError, reason, **fields) as caught:
        read(path, **(options or {}))

    text = str(caught.value)
    text.encode()  # a lone surrogate in it could not be printed

    name = (
        str(path).replace(ODD_NAME, SHOWN_NAME).replace("\ud800", r"\ud800") if str(path) != "-" else "standard input"
    )

    assert text.startswith(name)
    assert caught.value.fields["file"] == name
    return caught.value


def invalid_utf8() -> pa.Array:
    """Make four texts of which the third (number 2) is not valid UTF-8."""
    offsets = pa.py_buffer(np.array([0, 2, 4, 6, 8], np.int32))
    return pa.Array.from_buffers(pa.string(), 4, [None, offsets, pa.py_buffer(b"okokn\xffok")])


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    """Return the bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def writer(folder: Path) -> Writer:
    """Return a function that makes files in a folder."""

    def make(name: str, content: bytes | str) -> Path:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


def corpus(tmp_path: Path, name: str) -> Iterator[Path]:
    """Yield the corpus where it is there, and one that is made up in its shape."""
    if (CORPORA / name).is_file():
        yield CORPORA / name

    rng = np.random.default_rng(7)
    words = ["Fellow", "citizens", "of", "São", "Paulo", "“and”", "Łódź", "😀", "\n"]
    texts = [" ".join(rng.choice(words, size)) for size in rng.integers(1, 400, 300)]

    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"id": range(300), "text": texts}), path, row_group_size=100)
    else:
        path.write_bytes(gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in texts).encode()))

    yield path


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
JSON_ROWS = st.lists(
    st.builds(
        lambda others, text: {**others, "text": text},
        st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4),
        st.none() | st.text(max_size=20),
    ),
    min_size=1,
    max_size=8,
)

ENTITIES = pa.field("entities", entities_type(with_fine=False))
METADATA = {"nerd_onnx.entities.offset_unit": "codepoint"}


def words_as_entities(texts: pa.Array) -> pa.ListArray:
    """Call the first characters of each text an entity, so that every row has something of its own."""
    values = texts.to_pylist()
    row = np.array([i for i, text in enumerate(values) if text], np.int64)

    return entities_array(
        values,
        row=row,
        start=np.zeros(len(row), np.int64),
        end=np.array([min(3, len(values[i])) for i in row], np.int64),
        label=np.zeros(len(row), np.int64),
        labels=["person"],
        score=np.linspace(0, 1, len(row), dtype=np.float32),
    )


def copy(source: Reader, output: Path | str, **options: Any) -> None:
    """Write a source's rows with entities to an output; its name tells the format."""
    options = {"format": None, "replace": False, "overwrite": False, "layout": Layout(ENTITIES), **options}
    options["format"] = options["format"] or format_of_name(str(output)) or "jsonl"

    with open_writer(str(output), source=source, entities_metadata=METADATA, **options) as writer:
        for rows in source.batches():
            writer.write(rows, words_as_entities(rows.texts))


def converted(path: Path | str, output: Path, *, source: dict[str, Any] | None = None, **options: Any) -> Path:
    """Read an input and write it with entities to an output."""
    typed = format_named(options.get("format") or format_of_name(str(output)) or "jsonl").has_types

    with opened(path, **{"typed": typed, **(source or {})}) as rows:
        copy(rows, output, **options)
    return output


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of an output; lists that CSV has as JSON text are lists."""
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    if path.suffix == ".arrow":
        with pa.ipc.open_file(str(path)) as file:
            found: list[dict[str, Any]] = file.read_all().to_pylist()
            return found
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]

    parsed = pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)).to_pylist()
    return [{k: json.loads(v) if isinstance(v, str) and v[:1] == "[" else v for k, v in row.items()} for row in parsed]


def query(sql: str) -> duckdb.DuckDBPyRelation:
    """Ask DuckDB something that has an answer."""
    found = duckdb.sql(sql)
    assert found is not None
    return found


def with_entities(path: Path | str, output: Path, *, source: dict[str, Any] | None = None, **options: Any) -> Path:
    """Write a Parquet file with entities added to a copy of it; fail if its columns would be rewritten."""
    layout = options.get("layout", Layout(ENTITIES))
    reasons = [] if options.get("reasons_field") is None else [options["reasons_field"]]
    added = tuple(field.name for field in (*layout.fields, *reasons))

    with opened(path, **{"typed": True, "added_columns": added, **(source or {})}) as rows:
        assert rows.copied is not None, rows.rewritten_because
        copy(rows, output, **options)
    return output


def column_chunks(path: Path | str) -> list[dict[str, tuple[dict[str, Any], bytes]]]:
    """Return what pyarrow knows of each column chunk, and its bytes: one dictionary by path per row group."""
    metadata, content = pq.read_metadata(path), Path(path).read_bytes()
    found = []
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        chunks = [group.column(j) for j in range(group.num_columns)]
        found.append({chunk.path_in_schema: (chunk.to_dict(), pages(chunk, content)) for chunk in chunks})
    return found


def pages(chunk: Any, content: bytes) -> bytes:
    """Return the bytes of a column chunk."""
    # A dictionary page comes before the data pages, and not every chunk has one.
    begin = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)), default=0)
    return content[begin : begin + chunk.total_compressed_size]


def footer_length(content: bytes) -> int:
    """Return the size of a Parquet file's footer with what follows it."""
    # Behind the footer are its length and the magic bytes.
    return int.from_bytes(content[-8:-4], "little") + 8
