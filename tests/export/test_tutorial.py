"""The tutorial, walked as it is written: every shell block in turn, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent.parent


def test_every_block_of_the_tutorial_runs(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    blocks = re.findall(
        r"^```sh\n(.*?)^```$", (ROOT / "docs" / "tutorial.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 7
    environment = {**os.environ, "NERD_TRAIN_MODEL": str(checkpoint("bert"))}  # random weights for bert-base
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    for block in blocks:
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    assert pq.read_table(tmp_path / "tagged.parquet")["entities"].to_pylist()[2] is None
    assert pq.read_table(tmp_path / "again.parquet").num_rows == 3
    assert "<html" in (tmp_path / "report" / "eval.html").read_text("utf-8")
    assert "Berlin" in (tmp_path / "tagged.parquet.html").read_text("utf-8")
