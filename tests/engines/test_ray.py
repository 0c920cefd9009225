"""``nerd_onnx.engines.ray.tag``: the rows of the local run, in order, also when workers are killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nerd_onnx.engines.ray import tag
from nerd_onnx.errors import InputError, OptionError, OutputError
from nerd_onnx.inference.bundle import DEFAULT_FOLDER
from tests.engines.helpers import local_rows, table
from tests.engines.kills import kill_workers
from tests.support.failures import fails


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    import ray
    import ray.data

    ray.init(num_cpus=4, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


def parts(ray: Any, rows: pa.Table, size: int = 40) -> Any:
    return ray.data.from_arrow([rows.slice(i, size) for i in range(0, len(rows), size)])


def test_workers_give_the_rows_of_the_local_run_in_their_order(ray: Any, tmp_path: Path) -> None:
    rows = table()

    found = tag(parts(ray, rows), workers=2, batch_rows=30, labels=["person", "location"], min_score=0.3)
    assert found.take_all() == local_rows(rows, tmp_path, labels=("person", "location"), min_score=0.3)


def test_read_and_written_by_ray_with_the_file_of_each_row(ray: Any, tmp_path: Path) -> None:
    rows = table()
    for i in range(4):
        pq.write_table(rows.slice(i * 60, 60), tmp_path / f"{i}.parquet")
    read = ray.data.read_parquet([str(tmp_path / f"{i}.parquet") for i in range(4)], include_paths=True)
    tag(read, batch_rows=20).write_parquet(str(tmp_path / "out"))
    written = pq.read_table(tmp_path / "out").sort_by("key").to_pylist()
    assert [Path(row.pop("path")).name for row in written] == [f"{i // 60}.parquet" for i in range(240)]
    assert written == local_rows(rows, tmp_path)


def test_workers_that_are_killed_are_replaced_and_nothing_is_lost(ray: Any, tmp_path: Path) -> None:
    rows = table(1000)
    found = tag(parts(ray, rows, 50), workers=2, batch_rows=50)
    blocks = iter(found.iter_batches(batch_size=None, batch_format="pyarrow"))
    first = next(blocks)
    assert len(kill_workers("ray::MapWorker")) in {1, 2}  # as many as the pool has by now
    taken = [row for block in (first, *blocks) for row in block.to_pylist()]
    assert len(first) == 50
    assert taken == local_rows(rows, tmp_path)


def test_a_model_is_sent_along(ray: Any, tmp_path: Path) -> None:
    model, rows = tmp_path / "model", table(40)
    shutil.copytree(DEFAULT_FOLDER, model)
    found = tag(parts(ray, rows), model=str(model), workers=1)
    shutil.rmtree(model)  # now the workers can only have what was sent
    assert found.take_all() == local_rows(rows, tmp_path)


def test_mistakes_are_found_before_any_worker_starts(ray: Any) -> None:
    rows = parts(ray, table(10))
    with fails(InputError, "column-missing", column="body", found="key, text, part"):
        tag(rows, text_column="body")
    with fails(OutputError, "column-exists", column="key"):
        tag(rows, column="key")
    with fails(OptionError, "unknown-label", found="planet"):
        tag(rows, labels=["planet"])


def test_several_text_columns(ray: Any, tmp_path: Path) -> None:
    rows = table(60)
    rows = rows.append_column("title", rows["text"].combine_chunks().take(pa.array(range(59, -1, -1))))
    columns = ("title", "text")
    found = tag(parts(ray, rows), text_column=columns)
    expected = local_rows(rows, tmp_path, text_column=columns)
    assert found.take_all() == expected
    assert sum(len(row["title_entities"] or ()) for row in expected) > 20
