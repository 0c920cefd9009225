"""
Make the Parquet files in ``tests/data/parquet`` with the programs that users have, which the tests do not install.

Needs ``pyspark`` with Java, ``fastparquet`` and ``datafusion``, which has Rust's writer. Usage:
``python make_parquet_files.py FOLDER``.
"""

from __future__ import annotations

import datetime as dt
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

TEXTS = ["Ada Lovelace was born in London.", None, "Angela Merkel visited Paris.", ""]
# As far from 1970 as Spark's timestamps go, and as near as nanoseconds do not reach.
FAR, NEAR = dt.datetime(9999, 12, 31, 23, 59, 59, 999999, dt.UTC), dt.datetime(1, 1, 1, tzinfo=dt.UTC)
SPARK_QUERY = """
    select id, text, ts, struct(id as id, array(ts) as seen) as nested, cast(id as decimal(5, 2)) as small,
           cast(id as decimal(15, 2)) as middle, cast(id as decimal(30, 2)) as large, map('k', id) as counts
    from rows
"""
SPARK_TYPES = {
    "spark_ntz": "select text, ts, timestamp_ntz'2020-01-01 12:00:00' as local from rows",
    "spark_variant": "select text, parse_json('{\"a\": 1}') as v from rows",
    "spark_geometry": "select text, ST_GeomFromWKB(X'0101000000000000000000F03F0000000000000040') as place from rows",
    "spark_geography": "select text, ST_GeogFromWKB(X'0101000000000000000000F03F0000000000000040') as place from rows",
}


def make_spark(folder: Path) -> None:
    """Write what Spark writes by default: INT96 timestamps, decimals as integers, its schema in the metadata."""
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    times = [FAR, NEAR, None, dt.datetime(2020, 1, 1, tzinfo=dt.UTC)]
    rows: list[tuple[Any, ...]] = [(i, text, time) for i, (text, time) in enumerate(zip(TEXTS, times, strict=True))]
    session.createDataFrame(rows, "id long, text string, ts timestamp").createOrReplaceTempView("rows")
    for name, query in {"spark": SPARK_QUERY, **SPARK_TYPES}.items():
        _save(session.sql(query), folder / f"{name}.parquet")
    session.stop()


def _save(frame: Any, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        frame.coalesce(1).write.mode("overwrite").parquet(f"{folder}/out")
        shutil.copy(next(Path(folder, "out").glob("*.parquet")), path)


def make_fastparquet(folder: Path) -> None:
    """Write what fastparquet writes: an index, categories, INT96 timestamps with nanoseconds."""
    import fastparquet
    import pandas as pd

    frame = pd.DataFrame(
        {
            "text": TEXTS,
            "kind": pd.Categorical(["a", "b", "a", None]),
            "time": pd.to_datetime(
                ["2020-01-01 00:00:00.000000001", None, "1999-12-31", "1970-01-01"], format="ISO8601"
            ),
        },
        index=pd.Index([3, 1, 2, 0], name="id"),
    )
    fastparquet.write(str(folder / "fastparquet.parquet"), frame, times="int96", write_index=True)


def make_rust(folder: Path) -> None:
    """Write what Rust's parquet crate writes, with Bloom filters, through DataFusion."""
    import pyarrow as pa
    from datafusion import SessionContext

    context = SessionContext()
    table = pa.table({"id": pa.array(range(len(TEXTS)), pa.int64()), "text": pa.array(TEXTS, pa.string())})
    context.from_arrow(table, "rows")
    context.sql(
        f"COPY (SELECT * FROM rows ORDER BY id) TO '{folder / 'rust.parquet'}' STORED AS PARQUET "  # noqa: S608
        "OPTIONS ('format.bloom_filter_on_write' 'true', 'format.bloom_filter_ndv' '100', "
        "'format.metadata::owner' 'us')"
    ).collect()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for make in (make_spark, make_fastparquet, make_rust):
        make(target)
