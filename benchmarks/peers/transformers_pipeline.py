"""transformers' token-classification pipeline on PyTorch in fp32, in the script that a user would write around it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.paths import ROOT
from benchmarks.peers.peer import PeerRun, check_output, output_of
from benchmarks.peers.process import run_process
from benchmarks.workloads import Workload

SCRIPT = ROOT / "benchmarks" / "scripts" / "transformers_pipeline.py"
BATCH_SIZES = (1, 8, 32)


class TransformersPipeline:
    """
    The pipeline with all processors, and the batch size that was fastest on the workload's first rows.

    :param checkpoint: folder with PyTorch weights and tokenizer; None when there is none
    :param threads: threads of PyTorch
    :param probe_tokens: tokens on which the batch sizes are compared, or the rows of the largest batch if they are more
    """

    name = "transformers_pipeline"

    def __init__(self, checkpoint: Path | None, threads: int, probe_tokens: int) -> None:
        self._options: list[str | Path] = ["--checkpoint", checkpoint or "", "--threads", str(threads)]
        self._has_weights = checkpoint is not None
        self._probe_tokens = probe_tokens
        self._batch_sizes: dict[str, int] = {}

    def available(self) -> str | None:
        """Say why it cannot run here, or None."""
        missing = missing_packages()
        if missing:
            return f"{' and '.join(missing)} not installed"
        if not self._has_weights:
            return "no PyTorch weights: no --checkpoint given, and the model folder has no config.json for a twin"
        return None

    def prepare(self, workload: Workload) -> dict[str, Any]:
        """Find the fastest batch size; this also warms the disk cache."""
        rows = max(*BATCH_SIZES, self._probe_tokens * workload.rows // max(1, workload.tokens))
        sizes = ["--probe", ",".join(map(str, BATCH_SIZES)), "--rows", str(rows)]
        done = run_process([sys.executable, SCRIPT, workload.path, *sizes, *self._options], workload.path.parent)
        rates = {int(size): float(rate) for size, rate in done.message["rows_per_s"].items()}
        self._batch_sizes[workload.name] = fastest(rates)
        return {
            "batch_size": fastest(rates),
            "probe_rows": int(done.message["rows"]),
            "probe_rows_per_s": {str(size): round(rate, 2) for size, rate in rates.items()},
        }

    def command(self, workload: Workload) -> list[str | Path]:
        """Give the command line of a run."""
        files = [workload.path, output_of(workload, self.name)]
        size = self._batch_sizes.get(workload.name, BATCH_SIZES[0])
        return [sys.executable, SCRIPT, *files, "--batch-size", str(size), *self._options]

    def run(self, workload: Workload) -> PeerRun:
        """Tag the workload once."""
        done = run_process(self.command(workload), workload.path.parent)
        check_output(workload, self.name)
        return PeerRun(
            wall_s=done.wall_s,
            tagging_s=float(done.message["seconds"]),
            load_s=float(done.message["load_seconds"]),
            cpu_s=done.cpu_s,
            peak_rss_bytes=done.peak_rss_bytes,
            entities=int(done.message["entities"]),
        )


def missing_packages() -> list[str]:
    """List what the pipeline needs and is not installed."""
    return [name for name in ("torch", "transformers") if find_spec(name) is None]


def fastest(rates: Mapping[int, float]) -> int:
    """Choose the batch size with the highest rate."""
    return max(rates, key=lambda size: rates[size])
