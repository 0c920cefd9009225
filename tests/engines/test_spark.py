"""``nerd_onnx.engines.spark.tag``: the rows of the local run, in one JVM and on a cluster, also when workers die."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nerd_onnx.engines.spark import tag
from nerd_onnx.errors import InputError, OptionError, OutputError
from nerd_onnx.inference.bundle import DEFAULT_FOLDER
from tests.engines.helpers import (
    corpus,
    executor_of,
    local_rows,
    run,
    run_with_kills,
    standalone,
    summary,
    table,
    worker_killed,
)
from tests.faults.helpers import tree


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        from pyspark.sql import SparkSession

        session = (
            SparkSession.builder.master("local[2,4]")  # two tasks at a time, four attempts each
            .config("spark.ui.enabled", "false")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.sql.execution.arrow.maxRecordsPerBatch", "50")
            .getOrCreate()
        )
        yield session
        session.stop()


def frame(spark: Any, rows: pa.Table, folder: Path, parts: int = 4) -> Any:
    folder.mkdir()
    size = -(-len(rows) // parts)
    for i in range(parts):
        pq.write_table(rows.slice(i * size, size), folder / f"{i}.parquet")
    return spark.read.parquet(str(folder)).repartition(parts)


def taken(tagged: Any) -> list[dict[str, Any]]:
    return sorted((row.asDict(recursive=True) for row in tagged.collect()), key=lambda row: row["key"])


def test_tasks_give_the_rows_of_the_local_run(spark: Any, tmp_path: Path) -> None:
    rows = table()
    found = tag(frame(spark, rows, tmp_path / "in"), labels=["person", "location"], min_score=0.3)
    assert taken(found) == local_rows(rows, tmp_path, labels=("person", "location"), min_score=0.3)


def test_read_and_written_by_spark(spark: Any, tmp_path: Path) -> None:
    rows = table()
    tag(frame(spark, rows, tmp_path / "in"), offset_unit="utf16").write.parquet(str(tmp_path / "out"))
    written = pq.read_table(tmp_path / "out").sort_by("key").to_pylist()
    assert written == local_rows(rows, tmp_path, offset_unit="utf16")


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(spark: Any, tmp_path: Path) -> None:
    rows = table(1000)
    found = tag(frame(spark, rows, tmp_path / "in"))
    with worker_killed("pyspark.daemon") as killed:
        rows_found = taken(found)
    assert len(killed) == 1
    assert rows_found == local_rows(rows, tmp_path)


def test_two_models_are_sent_along_and_do_not_mix(spark: Any, tmp_path: Path) -> None:
    rows = table(40)
    source = frame(spark, rows, tmp_path / "in", parts=1)
    models = [tmp_path / "one" / "model", tmp_path / "other" / "model"]  # of one name
    for model in models:
        shutil.copytree(DEFAULT_FOLDER, model)
    (models[1] / "nerd.json").write_text((models[1] / "nerd.json").read_text().replace('"person"', '"human"'))
    expected = [local_rows(rows, tmp_path, str(model)) for model in models]
    found = [tag(source, model=str(model)) for model in models]
    for model in models:
        shutil.rmtree(model)  # now the workers can only have what was sent
    assert [taken(tagged) for tagged in found] == expected
    assert expected[0] != expected[1]


def test_an_existing_column_is_replaced_when_told(spark: Any, tmp_path: Path) -> None:
    rows = table(20)
    source = frame(spark, rows.append_column("entities", pa.array([1] * 20)).select([0, 3, 1, 2]), tmp_path / "in")
    found = taken(tag(source, replace_column=True))
    assert list(found[0]) == ["key", "entities", "text", "part"]
    assert [row["entities"] for row in found] == [row["entities"] for row in local_rows(rows, tmp_path)]


def test_mistakes_are_found_before_any_task_runs(spark: Any, tmp_path: Path) -> None:
    rows = frame(spark, table(5), tmp_path / "in", parts=1)
    with pytest.raises(InputError, match="no column 'body'; it has: key, text, part"):
        tag(rows, text_column="body")
    with pytest.raises(OutputError, match="already has a column 'key'"):
        tag(rows, column="key")
    with pytest.raises(OptionError, match="the model has no label planet"):
        tag(rows, labels=["planet"])


def test_a_standalone_cluster_that_loses_an_executor_gives_the_files_of_the_local_run(tmp_path: Path) -> None:
    source, local = corpus(tmp_path / "in"), tmp_path / "local"
    assert run(source, local).returncode == 0
    with standalone(tmp_path) as master:
        options = ["--engine", "spark", "--engine-address", master, "--chunk-rows", 10, source, tmp_path / "out"]
        killed = run_with_kills(tmp_path / "out", *options, kills=1, victim=executor_of)
        assert killed.done.returncode == 0, killed.done.stderr
        assert len(killed.workers) == 1
        assert tree(tmp_path / "out") == tree(local)
        assert summary(killed.done)["rows"] == 241

        job = tmp_path / "job.py"
        job.write_text("from nerd_onnx.cli import main\n\nmain()\n")
        submit = [Path(sys.executable).with_name("spark-submit"), "--master", master, job, "--engine", "spark"]
        submitted = subprocess.run(
            [*map(str, submit), str(source), str(tmp_path / "submitted")], capture_output=True, text=True, check=False
        )
        assert submitted.returncode == 0, submitted.stderr
        assert tree(tmp_path / "submitted") == tree(local)
