"""A run of the benchmarks, from the preparation of models and workloads to the finished report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.inputs.labelled import labelled_file
from benchmarks.inputs.workloads import KINDS, Workload, build_workload
from benchmarks.machine import commit, machine_facts
from benchmarks.measurements.accuracy import neighbour_texts, score_bundle, score_peers
from benchmarks.measurements.growth import growth_with_length, growth_with_rows, growth_with_threads, start_up
from benchmarks.measurements.measure import measure
from benchmarks.measurements.model_only import measure_networks
from benchmarks.measurements.operators import operator_profile
from benchmarks.measurements.ratios import ratios
from benchmarks.models.shapes import ModelShape, ShapeMaker, write_calibration
from benchmarks.paths import without_folders
from benchmarks.peers import PEERS, SUBJECT
from benchmarks.processes.process import run_process
from benchmarks.processes.ready_peers import Team, gather
from benchmarks.processes.versions import versions
from benchmarks.report.checks import run_checks
from benchmarks.report.saved import FORMAT_VERSION
from benchmarks.settings import NEIGHBOUR_TEXTS, Settings
from benchmarks.steps import Steps
from nerd_export.conversion.batch_independence import neighbour_check
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.machine.cpu import available_cpus

# Needs of peers for which no checkpoint has to be exported: the run has them in any case, or the user gave them.
_NOT_MADE_FROM_CHECKPOINT = {"calibration", "other_bundle"}


def run_suite(settings: Settings, command: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """
    Measure everything that the settings ask for, and check the results.

    :param command: the command of this run, for the report
    :param tell: called with one line per step
    :return: the report as plain data
    :raises NerdError: if the model cannot be loaded, or the labelled data is invalid
    """
    report: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "form": settings.form,
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine_facts(),
        "versions": versions(settings.pythons),
        "notes": [],
        "shapes": {},
    }
    suite = _Suite(settings, tell)
    for name in settings.model_shapes:
        found = suite.shape(name, report["notes"])
        # A shape that failed is in failed_steps; the report keeps the other one.
        if found is not None:
            report["shapes"][name] = found

    report |= suite.bundle(report["notes"])
    report["failed_steps"] = suite.steps.failed
    report["step_seconds"] = suite.steps.seconds
    report["checks"] = [asdict(check) for check in run_checks(report)]
    return report


class _Suite:
    """The steps of one run."""

    def __init__(self, settings: Settings, tell: Callable[[str], None]) -> None:
        self._settings, self._tell = settings, tell
        self._work = settings.out / "work"
        self._work.mkdir(parents=True, exist_ok=True)
        self._threads = available_cpus()
        self._setups: dict[str, Any] | None = None

        bundles = {"bundle": settings.model}
        if settings.other_model:
            bundles["other_bundle"] = settings.other_model
        about = settings.about() | {"commit": commit()}
        # The same path can have another bundle by now.
        about |= {name: Bundle.load(folder).model_sha256 for name, folder in bundles.items()}
        self.steps = Steps(self._work / "steps", about, resume=settings.resume, tell=tell)

    def shape(self, name: str, notes: list[str]) -> dict[str, Any] | None:
        """Prepare and measure a shape; None if it fails. The run continues, and the error is in ``steps.failed``."""
        try:
            return self._measure(self._prepare(name), notes)
        except Exception as err:  # noqa: BLE001 - the report must keep the other results
            self.steps.failed[name] = without_folders(f"{type(err).__name__}: {err}")
            self._tell(f"{name} failed: {err}")
            return None

    def _prepare(self, name: str) -> ModelShape:
        """Return the shape with the model files that its peers need."""
        settings = self._settings
        self._tell(f"{name}: preparing the model")
        calibration = write_calibration(settings.shared, self._work / "calibration.parquet")

        # Only what the chosen peers need: an export of bert-base takes minutes.
        needed = {field for peer in settings.peer_names for field in PEERS[peer].needs} - _NOT_MADE_FROM_CHECKPOINT
        maker = ShapeMaker(self._work, calibration, needed, settings.seed, self._threads)

        if name == "small":
            return maker.small(settings.model, settings.checkpoint, settings.other_model)
        return maker.base(settings.base_model, settings.base_checkpoint, Bundle.load(settings.model))

    def _measure(self, shape: ModelShape, notes: list[str]) -> dict[str, Any]:
        """Return everything that is measured of a shape and its peers."""
        settings, name = self._settings, shape.sources.shape
        notes += shape.notes
        folder = self._work / name
        folder.mkdir(exist_ok=True)

        # Setups that were chosen on one workload are used for the others, unless each workload has its own.
        self._setups = None if settings.amounts.probes_each else {}
        result: dict[str, Any] = {"model": shape.summary()}
        result |= {part: {} for part in ("workloads", "speed", "ratios", "stages", "operators")}

        # One process per peer for all workloads of a shape, because loading a model takes longer than some workloads.
        with self._team(shape, folder) as team:
            result |= {"peers": dict(team.facts), "skipped_peers": dict(team.skipped), "left_out": {}, "alone": {}}

            for kind in settings.kinds(name):
                workload = self._workload(shape, kind, folder, notes)
                result["workloads"][kind] = workload.summary()
                self._measure_peers(team, shape, workload, result)
                self._measure_subject(shape, workload, result)

            # Random weights find almost no entities, so they have no F1.
            if "accuracy" in settings.parts and not shape.random:
                result["accuracy"] = self._accuracy(team, name, folder)

        return result

    def _measure_peers(self, team: Team, shape: ModelShape, workload: Workload, result: dict[str, Any]) -> None:
        """Add what is measured of all peers on one workload."""
        parts, name = self._settings.parts, shape.sources.shape
        if "speed" in parts:
            self._speed(team, workload, name, result)
        if "model" in parts and self._runs_alone(shape, workload):
            result["alone"][workload.name] = self._alone(team, workload, name)

    def _measure_subject(self, shape: ModelShape, workload: Workload, result: dict[str, Any]) -> None:
        """Add what is measured only of nerd-tag on one workload."""
        parts = self._settings.parts
        if "stages" in parts:
            result["stages"][workload.name] = self._stages(shape, workload)
        if "operators" in parts and self._runs_alone(shape, workload):
            result["operators"][workload.name] = self._operators(shape, workload)

    def _runs_alone(self, shape: ModelShape, workload: Workload) -> bool:
        """Whether the networks also run alone on a workload."""
        return workload.name in self._settings.amounts.alone[shape.sources.shape]

    @contextmanager
    def _team(self, shape: ModelShape, folder: Path) -> Iterator[Team]:
        settings = self._settings
        team = gather(settings.peer_names, shape.sources, settings.pythons, folder, self._tell)
        try:
            yield team
        finally:
            team.close()

    def _workload(self, shape: ModelShape, kind: str, folder: Path, notes: list[str]) -> Workload:
        settings = self._settings
        workload = build_workload(
            KINDS[kind],
            settings.tokens or settings.amounts.tokens[shape.sources.shape],
            shared=settings.shared,
            folder=folder,
            tokenizer_file=Bundle.load(shape.sources.bundle).tokenizer_file,
            seed=settings.seed,
        )

        # Both shapes use the same corpora, but one note is enough.
        note = f"{kind}: the corpus {KINDS[kind].file} is missing; the rows are {workload.source}."
        if workload.stand_in and note not in notes:
            notes.append(note)

        return workload

    def _speed(self, team: Team, workload: Workload, shape: str, result: dict[str, Any]) -> None:
        """Add the speed of the peers on one workload, and the ratios."""
        settings = self._settings
        done = self.steps.run(
            f"{shape}.{workload.name}.speed",
            lambda: measure(
                team.members,
                workload,
                settings.round_count,
                probe_tokens=settings.amounts.probe_tokens[shape],
                max_seconds=settings.amounts.max_seconds,
                setups=self._setups,
                tell=self._tell,
            ),
        )

        if done is not None:
            result["speed"][workload.name], result["left_out"][workload.name] = done
            result["ratios"][workload.name] = ratios(result["speed"][workload.name], SUBJECT)

    def _alone(self, team: Team, workload: Workload, shape: str) -> Any:
        settings = self._settings
        return self.steps.run(
            f"{shape}.{workload.name}.model",
            lambda: measure_networks(
                team.members,
                workload,
                settings.round_count,
                subject=SUBJECT,
                max_seconds=settings.amounts.max_seconds,
                work=workload.path.parent,
                tell=self._tell,
            ),
        )

    def _stages(self, shape: ModelShape, workload: Workload) -> Any:
        """Return the processor time of nerd-tag by stage, measured in a process of its own."""
        target = workload.path.with_suffix(".stages.parquet")

        # A process of its own, because the observer of the stages would stay in this one.
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "benchmarks.measurements.stages",
            workload.path,
            target,
            "--model",
            shape.sources.bundle,
        ]

        return self.steps.run(
            f"{shape.sources.shape}.{workload.name}.stages", lambda: run_process(command, workload.path.parent).message
        )

    def _operators(self, shape: ModelShape, workload: Workload) -> Any:
        """Return the time of the bundle's graph by operator."""
        return self.steps.run(
            f"{shape.sources.shape}.{workload.name}.operators",
            lambda: operator_profile(Path(shape.sources.bundle), workload.path),
        )

    def _accuracy(self, team: Team, shape: str, folder: Path) -> Any:
        settings = self._settings
        file = labelled_file(settings.shared, "test")
        if not file.is_file() or not team.members:
            return None

        return self.steps.run(
            f"{shape}.accuracy",
            lambda: score_peers(
                team.members,
                file,
                folder,
                limit=settings.sentence_count(shape),
                seed=settings.seed,
                tell=self._tell,
            ),
        )

    def bundle(self, notes: list[str]) -> dict[str, Any]:
        """Return what is measured only of the small bundle: neighbours, accuracy, start and growth."""
        settings, parts = self._settings, self._settings.parts
        bundle = Bundle.load(settings.model)
        result: dict[str, Any] = {}

        if "neighbours" in parts:
            texts, source = neighbour_texts(settings.shared, bundle.labels, NEIGHBOUR_TEXTS)
            result["neighbours"] = self.steps.run(
                "neighbours", lambda: {"source": source, **neighbour_check(bundle, texts, settings.seed)}
            )

        if "accuracy" in parts:
            result["accuracy"] = self.steps.run("accuracy", lambda: score_bundle(bundle, settings.shared, self._tell))
            if not result["accuracy"]:
                notes.append("Accuracy was not measured: the labelled sentences (../shared/data/few_nerd) are missing.")

        if "start" in parts:
            folder = bundle.model_file.parent
            result["start"] = self.steps.run("start", lambda: start_up(self._work, folder))

        if "growth" in parts:
            result["growth"] = self._growth(bundle)

        return result

    def _growth(self, bundle: Bundle) -> dict[str, Any]:
        settings, work, model = self._settings, self._work, bundle.model_file.parent
        amounts = settings.amounts
        rows = settings.growth_rows or amounts.growth_rows

        # One thread, powers of two, and all processors.
        threads = sorted({1, *(2**i for i in range(1, 8) if 2**i <= self._threads), self._threads})

        short = build_workload(
            KINDS["short"],
            amounts.tokens["small"],
            shared=settings.shared,
            folder=work,
            tokenizer_file=bundle.tokenizer_file,
            seed=settings.seed,
        )

        # Each curve is a step of its own, so a resumed run measures only the missing ones.
        curves: dict[str, Callable[[], Any]] = {
            "rows": lambda: growth_with_rows(rows, settings.shared, work, model, self._tell),
            "length": lambda: growth_with_length(amounts.growth_characters, settings.shared, work, model, self._tell),
            "threads": lambda: growth_with_threads(threads, short, settings.round_count, model, self._tell),
        }
        return {name: self.steps.run(f"growth.{name}", curve) for name, curve in curves.items()}
