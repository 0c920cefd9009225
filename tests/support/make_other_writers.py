"""
Write the files in ``tests/data/other_writers`` with programs that the tests do not install.

``python -m tests.support.make_other_writers`` needs pyspark with Java, fastparquet and datafusion.
Files that exist stay.
"""

from __future__ import annotations

import datetime as dt
import decimal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "data" / "other_writers"
TEXTS = ["Ada Lovelace was born in London.", None, "", "東京 🙂 São Paulo"]
MOMENTS = [dt.datetime(9999, 12, 31, 23, 59, 59), dt.datetime(1, 1, 1), None, dt.datetime(2020, 2, 29, 12)]  # noqa: DTZ001
PRICES = [decimal.Decimal("1.20"), None, decimal.Decimal("-0.01"), decimal.Decimal("9999.99")]


def spark(path: Path) -> None:
    """Write with Spark: INT96 timestamps, decimals in INT32, a list, a map, and Spark's own schema."""
    from pyspark.sql import SparkSession

    session: Any = SparkSession.builder.master("local[1]").config("spark.sql.session.timeZone", "UTC").getOrCreate()
    session.conf.set("spark.sql.parquet.outputTimestampType", "INT96")
    kinds = "text string, n int, moment timestamp, price decimal(6,2), tags array<string>, counts map<string,int>"
    rows = [
        (text, i, moment, price, ["a", None], {"k": i})
        for i, (text, moment, price) in enumerate(zip(TEXTS, MOMENTS, PRICES, strict=True))
    ]
    with tempfile.TemporaryDirectory() as folder:
        session.createDataFrame(rows, kinds).coalesce(1).write.parquet(f"{folder}/out")
        (part,) = Path(folder, "out").glob("*.parquet")
        path.write_bytes(part.read_bytes())
    session.stop()


def fastparquet(path: Path) -> None:
    """Write with fastparquet: no Arrow schema, categories, and two row groups."""
    import fastparquet
    import pandas as pd

    frame = pd.DataFrame({"text": TEXTS, "n": range(4), "word": pd.Categorical(["a", "b", "a", None])})
    fastparquet.write(str(path), frame, row_group_offsets=[0, 2], compression="GZIP")


def rust(path: Path) -> None:
    """Write with Rust's parquet crate: page indexes, bloom filters, Zstandard."""
    import datafusion
    import pyarrow as pa

    context = datafusion.SessionContext()
    prices = pa.array(PRICES, pa.decimal128(6, 2))
    table = pa.table({"text": TEXTS, "n": range(4), "price": prices, "day": pa.array([1, 2, None, 4], pa.date32())})
    options = datafusion.ParquetWriterOptions(
        compression="zstd(3)", bloom_filter_on_write=True, statistics_enabled="page", max_row_group_size=3
    )
    context.from_arrow(table).write_parquet_with_options(str(path), options)


WRITERS: dict[str, Callable[[Path], None]] = {"spark": spark, "fastparquet": fastparquet, "rust": rust}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, write in WRITERS.items():
        if not (FOLDER / f"{name}.parquet").exists():
            write(FOLDER / f"{name}.parquet")
