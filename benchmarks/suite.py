"""What a run of the benchmarks does, from workloads to the finished report."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.accuracy import labelled_file, neighbour_texts, score_splits
from benchmarks.checks import run_checks
from benchmarks.machine import commit, machine_facts, versions
from benchmarks.measure import measure, ratios
from benchmarks.paths import SHARED, shown
from benchmarks.peers.nerd_tag import NerdTag
from benchmarks.peers.peer import Peer
from benchmarks.peers.transformers_pipeline import TransformersPipeline, missing_packages
from benchmarks.peers.twin import can_have_twin, make_twin
from benchmarks.workloads import SHAPES, build_workload
from nerd_export.conversion.neighbours import neighbour_check
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.session import available_cpus

FORMAT_VERSION = 1
PARTS = ("speed", "neighbours", "accuracy")
NEIGHBOUR_TEXTS = 300


@dataclass(frozen=True)
class Settings:
    """
    What to measure.

    :param out: folder for the report; what the peers read and write lies in its ``work/``
    :param model: bundle folder; None for the model inside
    :param checkpoint: the bundle's PyTorch original; None for a random twin, which serves for speed alone
    :param short: fewer rows and repeats, for CI
    :param rows: rows of each workload; None for what the form says
    :param repeats: runs of each peer on each workload; None for what the form says
    """

    out: Path
    model: Path | None = None
    checkpoint: Path | None = None
    shared: Path = SHARED
    short: bool = False
    workloads: tuple[str, ...] = tuple(SHAPES)
    parts: tuple[str, ...] = PARTS
    rows: int | None = None
    repeats: int | None = None
    seed: int = 42

    @property
    def repeat_count(self) -> int:
        """Runs of each peer on each workload."""
        return self.repeats or (3 if self.short else 5)

    @property
    def probe_tokens(self) -> int:
        """Tokens on which the settings of a peer are compared, about."""
        return 5_000 if self.short else 30_000


def run_suite(settings: Settings, command: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """
    Measure, compare and judge.

    :param command: how this run was called, for the report
    :param tell: receives a line a step
    :return: the report as plain data
    :raises NerdError: when the model cannot be loaded or the labelled data is faulty
    :raises PeerError: when a peer fails
    """
    bundle = Bundle.load(settings.model)
    report: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "form": "short" if settings.short else "full",
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine_facts(),
        "versions": versions(),
        "model": _model_facts(bundle, settings),
        "notes": [],
    }
    if "speed" in settings.parts:
        report |= _speed(bundle, settings, report["notes"], tell)
    if "neighbours" in settings.parts:
        texts, source = neighbour_texts(settings.shared, bundle, NEIGHBOUR_TEXTS)
        tell(f"neighbours: {len(texts)} texts")
        report["neighbours"] = {"source": source, **neighbour_check(bundle, texts, settings.seed)}
    if "accuracy" in settings.parts:
        report["accuracy"] = _accuracy(bundle, settings, report["notes"], tell)
    report["checks"] = [asdict(check) for check in run_checks(report)]
    return report


def _model_facts(bundle: Bundle, settings: Settings) -> dict[str, Any]:
    return {
        "bundle": shown(bundle.model_file.parent),
        "quantization": bundle.quantization,
        "size_bytes": bundle.model_file.stat().st_size,
        "sha256": bundle.model_sha256,
        "segment_tokens": bundle.segment_tokens,
        "labels": len(bundle.labels.names),
        "checkpoint": shown(settings.checkpoint) if settings.checkpoint else None,
    }


def _speed(bundle: Bundle, settings: Settings, notes: list[str], tell: Callable[[str], None]) -> dict[str, Any]:
    """Run the peers on every workload."""
    work = settings.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    peers, skipped = _peers(bundle, settings, work, notes)
    result: dict[str, Any] = {"skipped_peers": skipped, "workloads": {}, "speed": {}, "ratios": {}}
    for name in settings.workloads:
        shape = SHAPES[name]
        rows = settings.rows or (shape.short_rows if settings.short else shape.full_rows)
        workload = build_workload(
            shape,
            rows,
            shared=settings.shared,
            folder=work,
            tokenizer_file=bundle.tokenizer_file,
            seed=settings.seed,
        )
        if workload.stand_in:
            notes.append(f"{name}: the corpus {shape.file} is not here; its rows are {workload.source}.")
        result["workloads"][name] = workload.summary()
        result["speed"][name] = measure(peers, workload, settings.repeat_count, tell)
        result["ratios"][name] = ratios(result["speed"][name], NerdTag.name)
    return result


def _peers(bundle: Bundle, settings: Settings, work: Path, notes: list[str]) -> tuple[list[Peer], dict[str, str]]:
    """Make the peers. :return: those that can run here, and why the others cannot"""
    weights = settings.checkpoint or _twin(bundle, settings, work, notes)
    everyone: list[Peer] = [
        NerdTag(settings.model),
        TransformersPipeline(weights, available_cpus(), settings.probe_tokens),
    ]
    skipped = {peer.name: reason for peer in everyone if (reason := peer.available()) is not None}
    return [peer for peer in everyone if peer.name not in skipped], skipped


def _twin(bundle: Bundle, settings: Settings, work: Path, notes: list[str]) -> Path | None:
    """Make PyTorch weights of the bundle's shape, where the packages and the shape are known."""
    if missing_packages() or not can_have_twin(bundle):
        return None
    notes.append(
        "No --checkpoint was given: PyTorch peers ran a twin of the bundle's architecture with random weights that "
        "finds almost no entities. It serves for speed alone."
    )
    shutil.rmtree(work / "twin", ignore_errors=True)
    return make_twin(bundle, work / "twin", settings.seed)


def _accuracy(
    bundle: Bundle, settings: Settings, notes: list[str], tell: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Score what is labelled, and note what could not be compared."""
    if not labelled_file(settings.shared, "validation").is_file():
        notes.append("Accuracy was not measured: the labelled sentences (../shared/data/few_nerd) are not here.")
        return {}
    scores = score_splits(bundle, settings.checkpoint, settings.shared, tell)
    for split, found in scores.items():
        if found["recorded"] is None:
            notes.append(f"{split}: the bundle records no F1 for these sentences, so none was compared.")
    return scores
