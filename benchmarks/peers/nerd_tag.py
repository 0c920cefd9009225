"""This project: ``nerd-tag`` as users call it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import PeerRun, check_output, output_of
from benchmarks.peers.process import run_process
from benchmarks.workloads import Workload


class NerdTag:
    """
    The command line, with its defaults.

    :param model: bundle folder; None for the model inside
    """

    name = "nerd_tag"

    def __init__(self, model: Path | None) -> None:
        self._model = model

    def available(self) -> str | None:
        """Say why it cannot run here: it always can."""
        return None

    def prepare(self, workload: Workload) -> dict[str, Any]:
        """Read program and model into the disk cache."""
        run_process([*self.command(workload), "--limit", "1"], workload.path.parent)
        return {}

    def command(self, workload: Workload) -> list[str | Path]:
        """Give the command line of a run."""
        model: list[str | Path] = ["--model", self._model] if self._model else []
        target = output_of(workload, self.name)
        return [
            sys.executable,
            "-m",
            "nerd_onnx.cli",
            workload.path,
            target,
            *model,
            "--overwrite",
            "--quiet",
            "--json",
        ]

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
