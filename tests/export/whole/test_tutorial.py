"""The tutorial, walked as it is written: every shell block in turn, in one folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from tests.support.pages import blocks, run_blocks


def test_every_block_of_the_tutorial_runs(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    found = blocks("tutorial.md", "sh")
    assert len(found) == 7
    environment = {**os.environ, "NERD_TRAIN_MODEL": str(checkpoint("bert"))}  # random weights for bert-base
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    run_blocks(found, tmp_path, environment)
    assert pq.read_table(tmp_path / "tagged.parquet")["entities"].to_pylist()[2] is None
    assert pq.read_table(tmp_path / "again.parquet").num_rows == 3
    assert "<html" in (tmp_path / "report" / "eval.html").read_text("utf-8")
    assert "Berlin" in (tmp_path / "tagged.parquet.html").read_text("utf-8")
