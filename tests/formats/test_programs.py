"""Files of other programs, tagged and read back by the same program: all other columns as before, and the entities."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import polars.testing
import pytest

from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files

FIRST = "Ada Lovelace was born in London."
TEXTS = [FIRST, None, "Angela Merkel visited Paris.", ""]
TIMES = [dt.datetime(9999, 12, 31, 23, 59, 59, 999999), dt.datetime(1, 1, 1), None, dt.datetime(2020, 1, 1)]  # noqa: DTZ001
PRICES = [Decimal("1.20"), None, Decimal("-0.01"), Decimal("9.99")]


def write_pandas(path: Path) -> None:
    frame = pd.DataFrame(
        {
            "text": pd.array(TEXTS, dtype="string"),
            "count": pd.array([1, None, 3, 4], dtype="Int16"),
            "kind": pd.Categorical(["a", "b", "a", None]),
            "time": pd.to_datetime(["2020-01-01"] * 4).tz_localize("Europe/Paris"),
        },
        index=pd.MultiIndex.from_product([["x", "y"], [1, 2]], names=["group", None]),
    )
    frame.attrs = {"source": "us"}
    frame.to_parquet(path)


def same_in_pandas(before: Path, after: Path) -> list[Any]:
    expected, found = pd.read_parquet(before), pd.read_parquet(after)
    entities = found.pop("entities")
    pd.testing.assert_frame_equal(found, expected)
    assert found.attrs == expected.attrs
    return [None if row is None else row.tolist() for row in entities]


def write_polars(path: Path) -> None:
    frame = pl.DataFrame(
        {
            "text": TEXTS,
            "time": TIMES,
            "price": pl.Series(PRICES, dtype=pl.Decimal(9, 2)),
            "kind": pl.Series(["a", "b", "a", None], dtype=pl.Enum(["a", "b"])),
            "place": pl.Series([dt.time(12), None, dt.time(0), dt.time(23)]),
            "list": [[1, 2], [], None, [3]],
            "pair": [{"a": 1, "b": "x"}] * 4,
        }
    )
    frame.write_parquet(path, metadata={"owner": "us"})


def same_in_polars(before: Path, after: Path) -> list[Any]:
    expected, found = pl.read_parquet(before), pl.read_parquet(after)
    polars.testing.assert_frame_equal(found.drop("entities"), expected)
    kept = pl.read_parquet_metadata(before)
    assert pl.read_parquet_metadata(after).items() >= {key: kept[key] for key in kept if key != "ARROW:schema"}.items()
    return found["entities"].to_list()


def write_duckdb(path: Path) -> None:
    columns = """
        text, ts, ts::timestamptz AS tz, price::decimal(9, 2) AS small, price::decimal(18, 2) AS middle,
        price::decimal(38, 2) AS large, 'a'::enum('a', 'b') AS kind, uuid() AS id, '{"a": 1}'::json AS j,
        map {'k': 1} AS m, [1, NULL] AS l, {'x': 1, 'y': 'z'} AS s, 1::utinyint AS tiny, 1::hugeint AS huge,
        '12:00:00+00'::timetz AS clock, '\\x00'::blob AS bytes
    """
    rows = "SELECT unnest(?) AS text, unnest(?) AS price, unnest(?::timestamp[]) AS ts"
    query = f"COPY (SELECT {columns} FROM ({rows})) TO '{path}' (KV_METADATA {{owner: 'us'}})"  # noqa: S608
    duckdb.execute(query, [TEXTS, PRICES, TIMES])


def relation(query: str) -> Any:
    return duckdb.sql(query)


def same_in_duckdb(before: Path, after: Path) -> list[Any]:
    read = "SELECT {} FROM '{}'"
    expected = relation(read.format("*", before))
    found = relation(read.format("* EXCLUDE entities", after))
    assert (found.columns, found.types) == (expected.columns, expected.types)
    # In SQL: for times with a zone, Python would need another package.
    assert found.except_(expected).fetchall() == expected.except_(found).fetchall() == []
    metadata = f"SELECT key, value FROM parquet_kv_metadata('{after}') WHERE key = 'owner'"  # noqa: S608
    assert relation(metadata).fetchall() == [(b"owner", b"us")]
    return [row for (row,) in relation(read.format("entities", after)).fetchall()]


def write_datasets(path: Path) -> None:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["no", "yes"]),
            "grid": datasets.Array2D((1, 2), "int32"),
        }
    )
    rows = {"text": TEXTS, "label": [0, 1, 1, 0], "grid": [[[1, 2]]] * 4}
    datasets.Dataset.from_dict(rows, features).to_parquet(str(path))


def same_in_datasets(before: Path, after: Path) -> list[Any]:
    cache = str(before.parent / "cache")
    expected, found = (datasets.Dataset.from_parquet(str(path), cache_dir=cache) for path in (before, after))
    assert {name: found.features[name] for name in expected.features} == expected.features
    assert found.remove_columns("entities").to_list() == expected.to_list()
    return [row["entities"] for row in found.to_list()]


PROGRAMS: dict[str, tuple[Callable[[Path], None], Callable[[Path, Path], list[Any]]]] = {
    "pandas": (write_pandas, same_in_pandas),
    "Polars": (write_polars, same_in_polars),
    "DuckDB": (write_duckdb, same_in_duckdb),
    "datasets": (write_datasets, same_in_datasets),
}
# With a limit, no column can be copied: all of them are written again.
WAYS: dict[str, dict[str, Any]] = {"all rows": {}, "limit": {"limit": 100}}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_program_reads_its_own_columns_again(tagger: Tagger, tmp_path: Path, program: str, way: str) -> None:
    write, same = PROGRAMS[program]
    before, after = tmp_path / "in.parquet", tmp_path / "out.parquet"
    write(before)
    tag_files(tagger, TagJob([str(before)], str(after), **WAYS[way]))
    entities = same(before, after)
    assert [row is None for row in entities] == [text is None for text in TEXTS]
    assert entities[0]
    assert all(FIRST[entity["start"] : entity["end"]] == entity["text"] for entity in entities[0])
