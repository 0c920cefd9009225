"""A workload of a few rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.inputs.workloads import Workload


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    path = tmp_path / "short.parquet"
    pq.write_table(pa.table({"text": ["a", "b"]}), path)
    return Workload("short", path, rows=2, characters=2, tokens=2, source="here", stand_in=True)
