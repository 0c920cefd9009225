"""Files of other programs with entities added to a copy, read by the same program again."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nerd_onnx.formats.foreign_metadata import SPARK_KEY
from tests.formats.test_parquet_copy import check_copied
from tests.support.make_parquet_files import FOLDER, MOMENTS, PRICES, TEXTS, WRITERS
from tests.support.tables_io import query, with_entities

FIRST_WORDS = [None if text is None else [text[:3]] if text else [] for text in TEXTS]
DUCKDB_COLUMNS = """
    SELECT unnest(['Ada Lovelace was born in London.', NULL, '', '東京 🙂 São Paulo']) AS text, unnest(range(4)) AS n,
    INTERVAL 3 MONTHS AS span, TIMETZ '12:00:00+02' AS clock, 1.5::DECIMAL(4, 1) AS price, uuid() AS id,
    MAP {'a': 1} AS counts, 'small'::ENUM ('small', 'large') AS size, 170141183460469231731687303715884105727 AS huge
"""


def first_words(found: list[list[dict[str, str]] | None]) -> list[list[str] | None]:
    return [None if row is None else [entity["text"] for entity in row] for row in found]


@pytest.mark.parametrize("name", WRITERS)
def test_files_that_were_written_elsewhere(tmp_path: Path, name: str) -> None:
    path = FOLDER / f"{name}.parquet"
    output = with_entities(path, tmp_path / "out.parquet", source={"batch_rows": 2})
    check_copied(path, output)

    for read in (polars_table, duckdb_table, pq.read_table):
        before, after = read(path), read(output)
        assert after.select(before.schema.names).equals(before)
        assert first_words(after["entities"].to_pylist()) == FIRST_WORDS


def polars_table(path: Path) -> pa.Table:
    return pl.read_parquet(path).to_arrow()


def duckdb_table(path: Path) -> pa.Table:
    return query(f"FROM '{path}'").to_arrow_table()


def test_spark_keeps_its_timestamps_and_its_schema_has_the_entities(tmp_path: Path) -> None:
    output = with_entities(FOLDER / "spark.parquet", tmp_path / "out.parquet")
    assert pq.read_metadata(output).schema.column(2).physical_type == "INT96"
    found = pq.read_table(output, coerce_int96_timestamp_unit="us")
    moments = [value and value.replace(tzinfo=None) for value in found["moment"].to_pylist()]
    assert moments == MOMENTS
    assert found["price"].to_pylist() == PRICES
    told = pq.read_metadata(output).metadata[SPARK_KEY]
    assert b'"name":"entities"' in told
    assert b'"name":"moment"' in told


def test_bloom_filters_of_rust_are_where_they_were(tmp_path: Path) -> None:
    path = FOLDER / "rust.parquet"
    output = with_entities(path, tmp_path / "out.parquet")
    old, new = (pq.read_metadata(name).row_group(0) for name in (path, output))
    places = [(old.column(i).bloom_filter_offset, old.column(i).bloom_filter_length) for i in range(4)]
    assert all(offset and length for offset, length in places)
    assert [(new.column(i).bloom_filter_offset, new.column(i).bloom_filter_length) for i in range(4)] == places
    assert all(new.column(i).has_offset_index for i in range(new.num_columns))


@pytest.mark.parametrize("codec", ["zstd", "snappy", "uncompressed", "lz4", "lz4_raw", "gzip", "brotli"])
def test_duckdb(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "in.parquet"
    duckdb.sql(f"COPY ({DUCKDB_COLUMNS}) TO '{path}' (CODEC '{codec}', KV_METADATA {{owner: 'us'}})")
    output = with_entities(path, tmp_path / "out.parquet")
    check_copied(path, output)

    before, after = query(f"FROM '{path}'"), query(f"FROM '{output}'")
    assert after.columns == [*before.columns, "entities"]
    assert after.types[:-1] == before.types
    assert [row[:-1] for row in after.fetchall()] == before.fetchall()
    assert first_words([row[-1] for row in after.fetchall()]) == FIRST_WORDS
    described = "SELECT * FROM parquet_{}('{}')"
    for facts in ("schema", "kv_metadata"):
        old = query(described.format(facts, path)).fetchall()
        new = query(described.format(facts, output)).fetchall()
        known = {row[1:] for row in new}
        assert all(row[1:] in known for row in old[1:] if row[1] != "duckdb_schema"), facts


@pytest.mark.parametrize("codec", ["zstd", "snappy", "uncompressed", "lz4"])
def test_polars(tmp_path: Path, codec: str) -> None:
    frame = pl.DataFrame(
        {
            "text": TEXTS,
            "n": range(4),
            "size": pl.Series(["s", "m", None, "s"], dtype=pl.Enum(["s", "m"])),
            "word": pl.Series(["a", "b", "a", None], dtype=pl.Categorical),
            "span": pl.Series([dt.timedelta(1), None, dt.timedelta(2), dt.timedelta(3)]),
            "lists": [[1], [], None, [2, None]],
            "pair": pl.Series([[1, 2]] * 4, dtype=pl.Array(pl.Int8, 2)),
            "clock": [dt.time(12, 30)] * 4,
        }
    )
    path = tmp_path / "in.parquet"
    frame.write_parquet(path, compression=codec, row_group_size=3, metadata={"owner": "us"})  # type: ignore[arg-type]
    output = with_entities(path, tmp_path / "out.parquet")
    check_copied(path, output)
    found = pl.read_parquet(output)
    assert found.schema == {**frame.schema, "entities": found.schema["entities"]}
    assert found.drop("entities").equals(frame)
    assert first_words(found["entities"].to_list()) == FIRST_WORDS
    assert pl.read_parquet_metadata(output)["owner"] == "us"


def test_pandas(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"text": TEXTS, "n": pd.array([1, None, 3, 4], "Int64"), "word": pd.Categorical(["a", "b", "a", None])},
        index=pd.Index([9, 8, 7, 6], name="key"),
    )
    path = tmp_path / "in.parquet"
    frame.to_parquet(path)
    output = with_entities(path, tmp_path / "out.parquet")
    check_copied(path, output)
    found = pd.read_parquet(output)
    pd.testing.assert_frame_equal(found.drop(columns="entities"), pd.read_parquet(path))
    assert [row is None for row in found["entities"]] == [False, True, False, False]


def test_hugging_face_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = datasets.Dataset.from_dict({"text": TEXTS, "label": [0, 1, 1, 0]}, features=features)
    path = tmp_path / "in.parquet"
    rows.to_parquet(str(path))
    output = with_entities(path, tmp_path / "out.parquet")
    check_copied(path, output)


SCHEMES: dict[str, Callable[[Path], object]] = {"pyarrow": pq.read_schema, "polars": pl.read_parquet_schema}


@pytest.mark.parametrize("reader", SCHEMES)
def test_schemas_without_the_rows(tmp_path: Path, reader: str) -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": pa.array(TEXTS, pa.string_view())}), file)
    path = tmp_path / "in.parquet"
    path.write_bytes(file.getvalue())
    found = SCHEMES[reader](with_entities(path, tmp_path / "out.parquet"))
    assert "entities" in str(found)
