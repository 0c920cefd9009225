"""``nerd_onnx.engines.spark.tag``: the rows of the local run, also when workers die."""

from __future__ import annotations

import shutil
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
from tests.engines.helpers import local_rows, table
from tests.engines.kills import workers_killed
from tests.support.failures import fails


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        from pyspark.sql import SparkSession

        session = (
            SparkSession.builder.master("local[4,4]")  # two tasks at a time, four attempts each
            .config("spark.task.cpus", "2")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.sql.execution.arrow.maxRecordsPerBatch", "50")
            .config("spark.sql.files.openCostInBytes", str(128 << 20))  # as much as a task reads: a file a task
            .getOrCreate()
        )
        yield session
        session.stop()


def frame(spark: Any, rows: pa.Table, folder: Path, parts: int = 4) -> Any:
    """Return rows as Spark reads them, a file a task."""
    folder.mkdir()
    size = -(-len(rows) // parts)
    for i in range(parts):
        pq.write_table(rows.slice(i * size, size), folder / f"{i}.parquet")
    return spark.read.parquet(str(folder))


class Tasks:
    """What becomes of the tasks of a session's jobs from now on."""

    def __init__(self, context: Any) -> None:
        self._tracker = context.statusTracker()
        context.setJobGroup("counted", "")

    @property
    def done(self) -> int:
        """Number of tasks that succeeded."""
        return sum(stage.numCompletedTasks for stage in self._stages())

    @property
    def failed(self) -> int:
        """Number of attempts that failed."""
        return sum(stage.numFailedTasks for stage in self._stages())

    def _stages(self) -> Iterator[Any]:
        for job in map(self._tracker.getJobInfo, self._tracker.getJobIdsForGroup("counted")):
            yield from filter(None, map(self._tracker.getStageInfo, job.stageIds if job else ()))


def taken(tagged: Any) -> list[dict[str, Any]]:
    return sorted((row.asDict(recursive=True) for row in tagged.collect()), key=lambda row: row["key"])


def test_tasks_give_the_rows_of_the_local_run(spark: Any, tmp_path: Path) -> None:
    rows = table()
    found = tag(frame(spark, rows, tmp_path / "in"), labels=["person", "location"], min_score=0.3)
    assert taken(found) == local_rows(rows, tmp_path, labels=("person", "location"), min_score=0.3)


def test_a_process_has_one_model_and_the_threads_of_a_task(spark: Any, tmp_path: Path) -> None:
    def look(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        list(batches)
        from nerd_onnx.engines.worker import taggers  # of a worker that has done tasks before

        threads = [tagger.threads for tagger in taggers.values() if tagger.options.min_score == 0.9]
        yield pa.RecordBatch.from_pydict({"threads": [threads]})

    source = frame(spark, table(), tmp_path / "in")
    for _ in range(2):
        taken(tag(source, min_score=0.9))
    found = [row["threads"] for row in source.mapInArrow(look, "threads array<bigint>").collect()]
    assert found == [[2]] * 4


def test_read_and_written_by_spark(spark: Any, tmp_path: Path) -> None:
    rows = table()
    tag(frame(spark, rows, tmp_path / "in"), offset_unit="utf16").write.parquet(str(tmp_path / "out"))
    written = pq.read_table(tmp_path / "out").sort_by("key").to_pylist()
    assert written == local_rows(rows, tmp_path, offset_unit="utf16")


def test_workers_that_are_killed_are_replaced_and_nothing_is_lost(spark: Any, tmp_path: Path) -> None:
    rows = table(3000)
    source = frame(spark, rows, tmp_path / "in", parts=12)
    tasks = Tasks(spark.sparkContext)
    found = tag(source)
    # Ten of twelve tasks are time enough to be seen in, on a quick machine too.
    with workers_killed("pyspark.daemon", when=lambda: 0 < tasks.done < 11) as killed:
        rows_found = taken(found)
    assert len(killed) == 2
    assert tasks.failed in {1, 2}  # one may have been between two tasks
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
    with fails(InputError, "column-missing", column="body", found="key, text, part"):
        tag(rows, text_column="body")
    with fails(OutputError, "column-exists", column="key"):
        tag(rows, column="key")
    with fails(OptionError, "unknown-label", found="planet"):
        tag(rows, labels=["planet"])


def test_several_text_columns(spark: Any, tmp_path: Path) -> None:
    rows = table(60)
    rows = rows.append_column("title", rows["text"].combine_chunks().take(pa.array(range(59, -1, -1))))
    columns = ("title", "text")
    found = tag(frame(spark, rows, tmp_path / "in"), text_column=columns)
    expected = local_rows(rows, tmp_path, text_column=columns)
    assert taken(found) == expected
    assert sum(len(row["title_entities"] or ()) for row in expected) > 20
