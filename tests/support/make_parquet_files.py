"""
Write the files in ``tests/data/parquet`` with the programs that users have, which the tests do not install.

``python -m tests.support.make_parquet_files`` needs pyspark with Java, fastparquet and datafusion, which has Rust's
writer. Files that exist stay.
"""

from __future__ import annotations

import datetime as dt
import decimal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "data" / "parquet"
TEXTS = ["Ada Lovelace was born in London.", None, "", "東京 🙂 São Paulo"]
# As far from 1970 as Spark's timestamps go, and as near as nanoseconds do not reach.
FAR, NEAR = dt.datetime(9999, 12, 31, 23, 59, 59, 999999), dt.datetime(1, 1, 1)  # noqa: DTZ001
MOMENTS = [FAR, NEAR, None, dt.datetime(2020, 2, 29, 12)]  # noqa: DTZ001
PRICES = [decimal.Decimal("1.20"), None, decimal.Decimal("-0.01"), decimal.Decimal("9999.99")]

SPARK_QUERY = """
    select id, text, moment, price, array('a', null) as tags, map('k', id) as counts,
           struct(id as id, array(moment) as seen) as nested,
           cast(id as decimal(15, 2)) as middle, cast(id as decimal(30, 2)) as large
    from rows
"""
SPARK_TYPES = {
    "spark_ntz": "select text, moment, timestamp_ntz'2020-01-01 12:00:00' as local from rows",
    "spark_variant": "select text, parse_json('{\"a\": 1}') as v from rows",
    "spark_geometry": "select text, ST_GeomFromWKB(X'0101000000000000000000F03F0000000000000040') as place from rows",
    "spark_geography": "select text, ST_GeogFromWKB(X'0101000000000000000000F03F0000000000000040') as place from rows",
}
RUST_OPTIONS = {
    "compression": "zstd(3)",
    "bloom_filter_on_write": "true",
    "bloom_filter_ndv": "100",
    "statistics_enabled": "page",
    "max_row_group_size": "3",
    "metadata::owner": "us",
}


def spark(path: Path, query: str = SPARK_QUERY) -> None:
    """Write with Spark: INT96 timestamps, decimals as integers, nested columns, and Spark's own schema."""
    from pyspark.sql import SparkSession

    session: Any = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.parquet.outputTimestampType", "INT96")
        .getOrCreate()
    )
    moments = [moment and moment.replace(tzinfo=dt.UTC) for moment in MOMENTS]
    rows = list(zip(range(len(TEXTS)), TEXTS, moments, PRICES, strict=True))

    kinds = "id long, text string, moment timestamp, price decimal(6,2)"
    session.createDataFrame(rows, kinds).createOrReplaceTempView("rows")

    with tempfile.TemporaryDirectory() as folder:
        # One file: Spark writes a folder with a file per partition.
        session.sql(query).coalesce(1).write.parquet(f"{folder}/out")
        (part,) = Path(folder, "out").glob("*.parquet")
        path.write_bytes(part.read_bytes())


def fastparquet(path: Path) -> None:
    """Write with fastparquet: an index, categories, INT96 with nanoseconds, two row groups, no Arrow schema."""
    import fastparquet
    import pandas as pd

    # Without a null: Polars cannot read the page that fastparquet writes for INT96 with one.
    times = ["2020-01-01 00:00:00.000000001", "2000-02-29", "1999-12-31", "1970-01-01"]

    frame = pd.DataFrame(
        {
            "text": TEXTS,
            "word": pd.Categorical(["a", "b", "a", None]),
            "time": pd.to_datetime(times, format="ISO8601"),
        },
        index=pd.Index([3, 1, 2, 0], name="id"),
    )

    options = {"times": "int96", "write_index": True, "row_group_offsets": [0, 2], "compression": "GZIP"}
    fastparquet.write(str(path), frame, **options)


def rust(path: Path) -> None:
    """Write with Rust's parquet crate: page indexes, Bloom filters, Zstandard, sorted rows, metadata of the file."""
    import datafusion
    import pyarrow as pa

    context = datafusion.SessionContext()
    columns = {"id": pa.array(range(len(TEXTS)), pa.int64()), "text": pa.array(TEXTS, pa.string())}
    columns |= {"price": pa.array(PRICES, pa.decimal128(6, 2)), "day": pa.array([1, 2, None, 4], pa.date32())}

    context.from_arrow(pa.table(columns), "rows")
    options = ", ".join(f"'format.{name}' '{value}'" for name, value in RUST_OPTIONS.items())
    query = f"COPY (SELECT * FROM rows ORDER BY id) TO '{path}' STORED AS PARQUET OPTIONS ({options})"  # noqa: S608
    context.sql(query).collect()


WRITERS: dict[str, Callable[[Path], None]] = {"spark": spark, "fastparquet": fastparquet, "rust": rust}


if __name__ == "__main__":
    for name, write in WRITERS.items():
        if not (FOLDER / f"{name}.parquet").exists():
            write(FOLDER / f"{name}.parquet")
    for name, query in SPARK_TYPES.items():
        if not (FOLDER / f"{name}.parquet").exists():
            spark(FOLDER / f"{name}.parquet", query)
