"""Files that Spark wrote, tagged and read back by Spark: all other columns as before, and the entities."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files

# Spark's defaults: INT96 timestamps, here from the first year to the last, and decimals as integers.
ROWS = """
    SELECT id, concat('Ada Lovelace was born in London, row ', id) AS text, id % 2 AS part,
           CASE id % 3 WHEN 0 THEN timestamp'0001-01-01 00:00:00'
                       WHEN 1 THEN timestamp'9999-12-31 23:59:59.999999' END AS ts,
           cast(id AS decimal(5, 2)) AS small, cast(id AS decimal(15, 2)) AS middle, map('k', id) AS counts,
           array(struct(id, timestamp'2020-01-01 00:00:00' AS seen)) AS nested
    FROM range(6)
"""
LOCAL = ", timestamp_ntz'2020-01-01 12:00:00' AS local"


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        from pyspark.sql import SparkSession

        session = (
            SparkSession.builder.master("local[1]")
            .config("spark.task.cpus", "1")  # the session of another test may have left another number
            .config("spark.ui.enabled", "false")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .getOrCreate()
        )
        yield session
        session.stop()


def written(frame: Any, folder: Path, *partitions: str) -> Path:
    frame.coalesce(1).write.partitionBy(*partitions).parquet(str(folder))
    return folder


def rows_of(frame: Any) -> list[dict[str, Any]]:
    # As text: Python's clock has a zone of its own, and no year 10,000.
    found = frame.selectExpr("id", "to_json(struct(*)) AS whole").collect()
    return [row.asDict() for row in sorted(found, key=lambda row: row["id"])]


def check(spark: Any, before: Path, after: Path, new: list[str], **options: Any) -> Any:
    """Check that Spark sees the same columns in both, and the new ones; return what it reads."""
    expected = spark.read.options(**options).parquet(str(before))
    found = spark.read.options(**options).parquet(str(after))
    assert sorted(found.columns) == sorted([*expected.columns, *new])
    kept = found.select(*expected.columns)
    assert kept.dtypes == expected.dtypes
    assert rows_of(kept) == rows_of(expected)
    return found


def tag(source: Path, output: Path, **options: Any) -> None:
    tag_files(Tagger.load(threads=1), TagJob([str(source)], str(output), **options))


# With a limit, no column can be copied: all of them are written again.
@pytest.mark.parametrize("limit", [None, 100])
@pytest.mark.parametrize("merge", ["false", "true"])
@pytest.mark.parametrize("partitions", [[], ["part"]])
def test_a_folder(spark: Any, tmp_path: Path, limit: int | None, merge: str, partitions: list[str]) -> None:
    source = written(spark.sql(ROWS), tmp_path / "in", *partitions)
    tag(source, tmp_path / "out", limit=limit)
    found = check(spark, source, tmp_path / "out", ["entities"], mergeSchema=merge)
    names = [part.name for part in found.schema["entities"].dataType.elementType]
    assert names[:3] == ["start", "end", "label"]
    assert [row[0] for row in found.selectExpr("entities[0].text").collect()] == ["Ada Lovelace"] * 6


@pytest.mark.parametrize("limit", [None, 100])
def test_timestamps_with_and_without_a_zone(spark: Any, tmp_path: Path, limit: int | None) -> None:
    source = written(spark.sql(f"SELECT * {LOCAL} FROM ({ROWS})"), tmp_path / "in")  # noqa: S608
    tag(source, tmp_path / "out", limit=limit)
    check(spark, source, tmp_path / "out", ["entities"])


def test_wide_columns(spark: Any, tmp_path: Path) -> None:
    source = written(spark.sql(ROWS), tmp_path / "in")
    tag(source, tmp_path / "out", layout="wide")
    found = check(spark, source, tmp_path / "out", list(Tagger.load(threads=1).kept_types))
    assert [row[0] for row in found.selectExpr("person[0].text").collect()] == ["Ada Lovelace"] * 6


def test_a_replaced_column_of_another_type(spark: Any, tmp_path: Path) -> None:
    source = written(spark.sql(f"SELECT *, id AS entities FROM ({ROWS})"), tmp_path / "in")  # noqa: S608
    tag(source, tmp_path / "out", overwrite_column=True)
    found = spark.read.parquet(str(tmp_path / "out"))
    assert found.columns == spark.read.parquet(str(source)).columns
    assert [row[0] for row in found.selectExpr("entities[0].text").collect()] == ["Ada Lovelace"] * 6
