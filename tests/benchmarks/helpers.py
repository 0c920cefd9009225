"""Invented figures, and the worker of a peer that records its jobs."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow.parquet as pq

from benchmarks.machine import machine_facts
from benchmarks.measurements.measure import figures, summary_of
from benchmarks.measurements.ratios import paired, ratios
from benchmarks.peers.peer import PeerError, PeerRun
from benchmarks.processes.ready_peers import Member
from benchmarks.processes.versions import versions
from benchmarks.report.checks import run_checks

LEVELS = ("words", "fine_words", "raw", "fine_raw")


def scores(f1: float, **others: float) -> dict[str, Any]:
    return {"sentences": 10} | {level: {"f1": others.get(level, f1)} for level in LEVELS}


def accuracy(bundle: dict[str, Any], recorded: float | None = 0.7, original: float = 0.701) -> dict[str, Any]:
    split = {
        "file": "../shared/data/few_nerd/test.parquet",
        "sentences": 10,
        "bundle": bundle,
        "recorded": None if recorded is None else {"bundle": scores(recorded), "original": scores(original)},
    }
    return {"accuracy": {"test": split}}


def run(tagging_s: float, number: int = 0) -> PeerRun:
    return PeerRun(number, tagging_s, start_s=0.5, cpu_s=3.0, peak_rss_bytes=200_000_000, entities=7)


def failed(report: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    return [check.name for check in run_checks(report, old) if not check.passed]


def peer_scores(f1: float, low: float | None = None) -> dict[str, Any]:
    by_label = {"person": {"f1": f1, "expected": 50}, "rare": {"f1": 0.1, "expected": 1}}
    result: dict[str, Any] = {
        "f1": dict.fromkeys(LEVELS, f1),
        "f1_by_label": by_label,
        "f1_by_fine_label": {"person-actor": {"f1": f1, "expected": 30}},
        "texts_changed_by_order": 3,
    }
    if low is not None:
        difference = {"value": f1 - 0.702, "low": low, "high": 0.002}
        result |= {"against_pytorch": dict.fromkeys(LEVELS, difference), "labels_changed": 0.0123}
    return result


def planted_shape() -> dict[str, Any]:
    """Return figures of a shape. The pipeline shares three rounds with nerd-tag, and PyTorch two."""
    speed = {
        "nerd_tag": {
            "command": "python -m nerd_onnx.cli",
            "setup": {},
            **summary_of([run(1.0), run(2.0, 1), run(4.0, 2)], 100, 3000),
        },
        "transformers_pipeline": {
            "command": "python -m benchmarks.processes.serve transformers_pipeline",
            "setup": {"batch_size": 8},
            **summary_of([run(8.0), run(10.0, 1), run(24.0, 2)], 100, 3000),
        },
        "pytorch_fp32": {"command": "python x", "setup": {}, **summary_of([run(5.0), run(6.0, 1)], 100, 3000)},
    }
    alone = {
        name: {
            "tokens_per_s": figures([rate] * 3),
            "operations_per_s": figures([rate * 1e6] * 3),
            "peak_share": paired(dict.fromkeys(range(3), rate * 1e6), dict.fromkeys(range(3), 1e9)),
            "runs": [{"round": i, "seconds": 100 / rate, "operations_per_s": rate * 1e6} for i in range(3)],
        }
        for name, rate in (("nerd_tag", 800.0), ("pytorch_fp32", 100.0))
    }
    stages = {"read": 0.1, "tokenize": 0.4, "model": 9.0, "decode": 0.3, "write": 0.1, "other": 0.1}

    return {
        "model": {
            "bundle": "b",
            "quantization": "none",
            "size_bytes": 5_000_000,
            "labels": 9,
            "segment_tokens": 64,
            "checkpoint": "c",
            "random_weights": False,
            "architecture": {"model_type": "bert"},
        },
        "peers": {
            "nerd_tag": {"title": "nerd-tag, int8", "size_bytes": 5_000_000},
            "transformers_pipeline": {"title": "transformers <pipeline>", "size_bytes": 9_000_000},
            "pytorch_fp32": {"title": "PyTorch fp32", "size_bytes": 9_000_000},
        },
        "skipped_peers": {"openvino_int8": "openvino not installed"},
        "left_out": {"short": {"spacy_small": "it failed"}},
        "workloads": {"short": {"rows": 100, "tokens": 3000, "characters": 9000, "source": "a corpus"}},
        "speed": {"short": speed},
        "ratios": {"short": ratios(speed, "nerd_tag")},
        "alone": {
            "short": {
                "peers": alone,
                "ratios": ratios(alone, "nerd_tag", "seconds"),
                "failed": {},
                "peak": {"operations_per_s": figures([1e9] * 3), "product": "a by b", "threads": 2},
            }
        },
        "operators": {
            "short": {"operators": {"Gelu": {"seconds": 1.0, "nodes": 6}, "others": {"seconds": 3.0, "nodes": 9}}}
        },
        "stages": {"short": {"stages_s": stages, "cpu_s": 10.0, "wall_s": 5.5, "threads": 2}},
        "accuracy": {
            "file": "f",
            "sentences": 10,
            "words": 100,
            "entities": 30,
            "shuffled_texts": 5,
            "failed": {"other": "why"},
            "peers": {
                "nerd_tag": peer_scores(0.7, -0.004),
                "transformers_pipeline": peer_scores(0.4, -0.4),
                "pytorch_fp32": peer_scores(0.702),
            },
        },
    }


def full_report() -> dict[str, Any]:
    grown = {"seconds": 2.0, "tokens": 900, "peak_rss_bytes": 2e8}
    report = {
        "format_version": 3,
        "form": "short",
        "command": "python -m benchmarks --short",
        "started": "2026-01-01T00:00:00+00:00",
        "commit": "abc1234",
        "machine": machine_facts(),
        "versions": versions(),
        "notes": ["something to know."],
        "shapes": {"small": planted_shape()},
        "neighbours": {"source": "a file", "texts": 300, "entities": 400, "changed": {"alone": 0, "shuffled": 0}},
        "start": {
            "help_s": figures([0.1, 0.2]),
            "first_entity_s": figures([1.6]),
            "commands": {"help_s": "nerd-tag --help", "first_entity_s": "nerd-tag a b"},
        },
        "growth": {
            "rows": [{"rows": n, **grown} for n in (1_000, 10_000, 100_000)],
            "length": [{"characters": n, **grown} for n in (1_000, 10_000)],
            "threads": [{"threads": n, "tokens_per_s": figures([900.0 * n]), "peak_rss_bytes": 2e8} for n in (1, 2)],
        },
        "failed_steps": {},
        **accuracy(scores(0.7001)),
    }
    return report | {"checks": [vars(check) for check in run_checks(report)]}


class FakeWorker:
    """A worker that records its jobs, copies its input, and reports the given seconds for each setup."""

    def __init__(self, seconds: dict[int, float], *, start_s: float = 0.5) -> None:
        self.facts = {"setups": [{"size": size} for size in seconds]}
        self.seconds, self.start_s = seconds, start_s
        self.setup: dict[str, Any] = {}
        self.jobs: list[str] = []
        self.broken = False

    def configure(self, setup: dict[str, Any]) -> None:
        """Store the setup."""
        self.setup = setup

    def do(self, job: str, *, source: Path, target: Path) -> dict[str, Any]:
        """Copy a file."""
        if self.broken:
            raise PeerError("worker: no luck")
        self.jobs.append(f"{job} {source.name} {self.setup['size']}")
        pq.write_table(pq.read_table(source), target)
        return {"seconds": self.seconds[self.setup["size"]], "cpu_s": 1.0, "peak_rss_bytes": 1e8, "entities": 7}


def member(name: str, worker: FakeWorker) -> Member:
    def command(source: Path, target: Path) -> list[str | Path]:
        return [sys.executable, name, source, target]

    return cast("Member", SimpleNamespace(name=name, worker=worker, command=command))
