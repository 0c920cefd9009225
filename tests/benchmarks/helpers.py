"""Planted figures and a peer that echoes, for the tests of the benchmarks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.checks import run_checks
from benchmarks.machine import machine_facts, versions
from benchmarks.measure import ratios, summary_of
from benchmarks.peers.peer import PeerRun
from benchmarks.workloads import Workload

LEVELS = ("words", "fine_words", "raw", "fine_raw")


def scores(f1: float, **others: float) -> dict[str, Any]:
    return {"sentences": 10} | {level: {"f1": others.get(level, f1)} for level in LEVELS}


def accuracy(bundle: dict[str, Any], recorded: float | None = 0.7, pytorch: float | None = None) -> dict[str, Any]:
    split = {
        "file": "../shared/data/few_nerd/test.parquet",
        "sentences": 10,
        "bundle": bundle,
        "pytorch": None if pytorch is None else scores(pytorch),
        "recorded": None if recorded is None else {"bundle": scores(recorded), "original": scores(0.701)},
    }
    return {"accuracy": {"test": split}}


def run(tagging_s: float, wall_s: float = 10.0) -> PeerRun:
    return PeerRun(wall_s, tagging_s, load_s=0.5, cpu_s=3.0, peak_rss_bytes=200_000_000, entities=7)


def failed(report: dict[str, Any]) -> list[str]:
    return [check.name for check in run_checks(report) if not check.passed]


def full_report() -> dict[str, Any]:
    speed = {
        "nerd_tag": {"command": "python -m nerd_onnx.cli", "setup": {}, **summary_of([run(1.0), run(2.0)], 100, 3000)},
        "transformers_pipeline": {
            "command": "python benchmarks/scripts/transformers_pipeline.py",
            "setup": {"batch_size": 8, "probe_rows": 9, "probe_rows_per_s": {"1": 8.0, "8": 9.0}},
            **summary_of([run(8.0, 20.0), run(10.0, 20.0)], 100, 3000),
        },
    }
    report = {
        "form": "short",
        "command": "python -m benchmarks --short",
        "started": "2026-01-01T00:00:00+00:00",
        "commit": "abc1234",
        "machine": machine_facts(),
        "versions": versions(),
        "model": {"bundle": "b", "quantization": "none", "size_bytes": 5_000_000, "labels": 9, "checkpoint": "c"},
        "notes": ["something to know."],
        "skipped_peers": {"other": "not installed"},
        "workloads": {"short": {"rows": 100, "tokens": 3000, "characters": 9000, "source": "a corpus"}},
        "speed": {"short": speed},
        "ratios": {"short": ratios(speed, "nerd_tag")},
        "neighbours": {"source": "a file", "texts": 300, "entities": 400, "changed": {"alone": 0, "shuffled": 0}},
        **accuracy(scores(0.7001), pytorch=0.702),
    }
    return report | {"checks": [vars(check) for check in run_checks(report)]}


class Echo:
    """A peer that only remembers when it was called."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self._calls = name, calls

    def available(self) -> str | None:
        """Can always run."""
        return None

    def prepare(self, workload: Workload) -> dict[str, Any]:
        """Remember the call."""
        self._calls.append(f"prepare {self.name} for {workload.name}")
        return {"size": 3}

    def command(self, workload: Workload) -> list[str | Path]:
        """Give a command that nobody runs."""
        return [sys.executable, self.name, workload.path]

    def run(self, workload: Workload) -> PeerRun:
        """Remember the call; each takes longer than the one before."""
        self._calls.append(f"{self.name} {workload.name}")
        return run(float(len(self._calls)))
