"""The steps from checkpoint to bundle: export, rewrite, quantize, write, read back, judge, repair, describe."""

from __future__ import annotations

import json
import platform
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx_ir as ir

from nerd_export.config import (
    SEGMENT_TOKENS,
    Embeddings,
    Level,
    Quantization,
    VerifyLimits,
)
from nerd_export.conversion.bundle_writer import CARD, new_bundle_folder, write_model
from nerd_export.conversion.expected import write_expected
from nerd_export.conversion.gate import Gate, LabelledSplit, Verdict
from nerd_export.conversion.gate_data import labelled_splits
from nerd_export.conversion.model_card import bundle_card
from nerd_export.conversion.native_section import native_section
from nerd_export.conversion.repair import Repair
from nerd_export.conversion.sensitivity import fewest_kept, layer_costs, title
from nerd_export.data.sample import sample_texts
from nerd_export.graph.rewrite import folded, rewritten
from nerd_export.models.averaging import with_average_weights
from nerd_export.models.lineage import Origin
from nerd_export.models.networks import TorchNetwork, segment_batches
from nerd_export.models.onnx_export import OPSET, Checkpoint, export_onnx, load_checkpoint
from nerd_export.outputs import writing
from nerd_export.quantization.graph_builder import GraphBuilder, Plan
from nerd_export.quantization.recipes import recipe_named
from nerd_export.scoring.score_calibration import calibrated
from nerd_onnx.errors import OptionError, VerificationError
from nerd_onnx.inference.bundle import Bundle, longest_input, sees_case
from nerd_onnx.inference.description import Description
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.inference.kernels import chosen_kernel
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.inference.word_joints import Join
from nerd_onnx.inference.words import WordRule

_FOR_PEOPLE = frozenset({CARD})
_FOLDERS = re.compile(r"(?<![^\s,=])/(?:[^\s,=/]+/)+(?=[^\s,=/])")  # of an absolute path, where one begins
_VERSIONS = ("torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime", "tokenizers", "nerd-onnx")


@dataclass(frozen=True)
class ExportRequest:
    """
    The options of one export.

    :param model: hub id or folder of a token-classification checkpoint or bundle, or ``default`` for the default model
    :param average_with: further checkpoints or bundles, whose weights are averaged with the model's
    :param embeddings: form of the word embeddings; None for int8, or fp32 where nothing is quantized
    :param keep_fp32: names of linear layers that stay as they are
    :param level: whether label names have two levels (``person-actor``); None for what nerd-train recorded, or the
        bundle that is exported again
    :param segment_tokens: maximum length of a segment in tokens; None for the bundle's, or the default
    :param word_rule: what a word is; None for the bundle's, treebank for a model of nerd-train, else pretokens
    :param join: whether entities that are parts of one written word are joined; None for the bundle's, or what suits
        the word rule
    :param dataset: labelled data on which the bundle must not be worse: a file, a folder or a hub id
    :param evaluations: further labelled files to score original and bundle on, by the split's name; only reported
    :param calibrate_on: further labelled files, or folders of them, on which scores and thresholds are fitted together
        with ``dataset``
    :param notes: Markdown for the end of the card: data, attribution, limits
    :param texts: texts to compare on; None for the sample that comes with the program
    """

    model: str
    output: Path
    average_with: Sequence[str] = ()
    quantize: Quantization = "int8"
    embeddings: Embeddings | None = None
    keep_fp32: Sequence[str] = ()
    level: Level | None = None
    segment_tokens: int | None = None
    word_rule: WordRule | None = None
    join: Join | None = None
    dataset: str | None = None
    evaluations: Mapping[str, Path] = field(default_factory=dict)
    calibrate_on: Sequence[Path] = ()
    texts: Sequence[str] | None = None
    limits: VerifyLimits = field(default_factory=VerifyLimits)
    overwrite: bool = False
    licence: str | None = None
    notes: str = ""


@dataclass(frozen=True)
class ExportResult:
    """The measurements of an export: the verdict of the gate, the repair, and the size of the bundle."""

    verdict: Verdict
    repair: Repair | None
    size_bytes: int

    def summary(self) -> dict[str, Any]:
        """Return every figure as plain data."""
        return {
            "comparison": self.verdict.summary(),
            "metrics": self.verdict.metrics,
            "repair": self.repair.summary() if self.repair else None,
            "size_bytes": self.size_bytes,
        }


class GateRefusalError(VerificationError):
    """
    A bundle that the gate refused.

    :ivar result: what was measured
    """

    def __init__(self, message: str, result: ExportResult) -> None:
        super().__init__(message, reason="gate-refused")
        self.result = result


def export_bundle(request: ExportRequest, note: Callable[[str], None]) -> ExportResult:
    """
    Export a checkpoint as a bundle that passed the gate.

    :param note: receives one line per step
    :raises ModelError: when the checkpoint cannot be loaded or exported
    :raises GateRefusalError: when the result differs too much; nothing is written then
    :raises OptionError: when an option does not fit the model or another option
    :raises TrainingDataError: when labelled data cannot be read, or has none of the model's types
    :raises OutputError: when the output cannot be written
    """
    # Before anything is loaded: an export takes minutes.
    if request.keep_fp32 and not recipe_named(request.quantize).record:
        raise OptionError(
            "--keep-fp32 cannot be combined with --quantize none, which keeps every layer in fp32; leave one of them "
            "out",
            reason="keep-without-quantize",
            option="--keep-fp32",
        )

    origin = Origin.of(request.model)
    if origin.bundle is not None and not request.notes:
        note(f"the notes on the card of {request.model} (data, licence, limits) are not copied; give them with --notes")

    checkpoint = with_average_weights(load_checkpoint(request.model, note), request.average_with, note)
    labels = origin.labels(checkpoint.names, request.level)
    # Read before the export, so that a mistake in the data costs no minutes of work.
    splits = labelled_splits(request.dataset, request.evaluations, labels, note, calibrate_on=request.calibrate_on)

    with (
        new_bundle_folder(request.output, overwrite=request.overwrite) as folder,
        tempfile.TemporaryDirectory() as scratch,
    ):
        job = _Job(request, checkpoint, labels, origin, folder=folder, scratch=Path(scratch), note=note)
        return job.run(splits)


class _Job:
    """One export, from the loaded checkpoint to the filled folder."""

    def __init__(
        self,
        request: ExportRequest,
        checkpoint: Checkpoint,
        labels: LabelSet,
        origin: Origin,
        *,
        folder: Path,
        scratch: Path,
        note: Callable[[str], None],
    ) -> None:
        self._request, self._checkpoint, self._labels = request, checkpoint, labels
        self._folder, self._scratch, self._note = folder, scratch, note
        self._texts = sample_texts() if request.texts is None else request.texts
        self._exported = scratch / "onnx"
        self._origin, self._lineage = origin, _lineage(request, origin)
        self._word_rule = request.word_rule or origin.word_rule
        self._segment_tokens = request.segment_tokens or origin.segment_tokens or SEGMENT_TOKENS
        self._letter_case = sees_case(checkpoint.model.config.to_dict())

    def run(self, splits: Mapping[str, LabelledSplit]) -> ExportResult:
        """Run all steps; the folder then holds the bundle."""
        checkpoint = self._checkpoint
        self._note(f"exporting {self._request.model} with optimum, opset {OPSET}")
        exported = export_onnx(checkpoint, self._exported)
        # After the export: only its config.json states how many positions the exported graph has.
        _require_positions(self._segment_tokens, self._exported)

        plain = folded(exported, letter_case=self._letter_case)
        graph = rewritten(plain)
        fp32 = self._write_fp32(graph)

        # The same segments serve the means, the ranges, the rounding and the cost of layers, so they are made once.
        batches = segment_batches(fp32, self._texts)
        builder = GraphBuilder(graph, partial(rewritten, plain), batches)

        original = TorchNetwork(checkpoint.model)

        plan = self._plan()
        bundle = self._write(builder, plan)
        kernel = chosen_kernel(bundle, "auto")
        self._note(f"comparing {kernel} with PyTorch on {len(self._texts)} texts{_and_splits(splits)}")
        # Of a bundle that is exported again: it is used where there is no data to fit another one.
        kept = self._origin.calibration(self._labels, self._word_rule)
        gate = Gate(
            original,
            fp32,
            original_bytes=checkpoint.size_bytes,
            texts=self._texts,
            splits=splits,
            calibration=kept,
        )

        verdict, repair = gate.judge(bundle), None
        faults = verdict.faults(self._request.limits)

        # An fp32 graph that the gate refuses has another fault, which no layer in fp32 can repair.
        if faults and recipe_named(plan.recipe).record:
            bundle, verdict, repair = self._repaired(gate, builder, plan, batches, refused=bundle, verdict=verdict)

        # Measured last: the speed of the bundles that a repair tries does not matter.
        verdict = replace(verdict, speed=gate.speed(calibrated(bundle, verdict.calibration)))
        result = ExportResult(verdict, repair, bundle.model_file.stat().st_size)

        if still := verdict.faults(self._request.limits):
            raise GateRefusalError(_refusal(still, verdict, plan, repair), result)

        # By identity: one that was fitted again may have the same numbers.
        if kept is not None and verdict.calibration is kept:
            self._note_kept_calibration()
        if verdict.comparison.note:
            self._note(verdict.comparison.note)

        self._describe(bundle, original, result)
        return result

    def _note_kept_calibration(self) -> None:
        """Print that no scores and thresholds were fitted, and why."""
        reason = (
            "--dataset has too few entities to fit new ones"
            if self._request.dataset
            else "there is no --dataset to fit new ones"
        )
        self._note(f"scores and thresholds stay those of {self._request.model}: {reason}")

    def _plan(self) -> Plan:
        request = self._request
        embeddings: Embeddings = request.embeddings or ("int8" if recipe_named(request.quantize).record else "fp32")
        return Plan(request.quantize, embeddings, tuple(request.keep_fp32))

    def _write_fp32(self, graph: ir.Model) -> Bundle:
        """Write the fp32 graph to a folder of its own, to compare the bundle with it."""
        folder = self._scratch / "fp32"
        folder.mkdir()
        with writing(folder):
            write_model(folder, graph, self._exported)
            self._description({"method": "none", "integer_products": False}).write(folder, _FOR_PEOPLE)
        return Bundle.load(folder)

    def _write(self, builder: GraphBuilder, plan: Plan) -> Bundle:
        """Write the graph of a plan with its description, and read the bundle back as users will."""
        with writing(self._request.output):
            model, record = builder.build(plan)
            write_model(self._folder, model, self._exported)
            self._description(record).write(self._folder, _FOR_PEOPLE)
            # Before anything is measured, because the bundle is judged with the kernel that its users get.
            self._write_native_section()

        if plan.embeddings == "int8" and record["embeddings"] == "fp32":
            self._note("found no table of word embeddings to quantize; they stay fp32")
        return Bundle.load(self._folder)

    def _write_native_section(self) -> None:
        """Add the native section to the description, where the native encoder can compute the graph."""
        bundle = Bundle.load(self._folder)
        layout = native_section(bundle, segment_batches(bundle, sample_texts()))
        if layout is not None:
            replace(Description.read(self._folder), native=layout).write(self._folder, _FOR_PEOPLE)

    def _repaired(
        self,
        gate: Gate,
        builder: GraphBuilder,
        plan: Plan,
        batches: Sequence[EncodedBatch],
        *,
        refused: Bundle,
        verdict: Verdict,
    ) -> tuple[Bundle, Verdict, Repair]:
        """Keep the costliest layers in fp32 until the gate passes; return the refused bundle if it never does."""
        faults = verdict.faults(self._request.limits)
        self._note(f"refused: {'; '.join(faults)}. Measuring what each layer costs")

        # Timed before the repair writes other graphs over this one.
        speed_before = gate.speed(calibrated(refused, verdict.calibration))
        costs = layer_costs(builder, plan, batches, self._scratch)
        verdicts: dict[int, Verdict] = {}

        def passes(names: Sequence[str]) -> bool:
            self._note(f"keeping {len(names)} of {len(costs)} in fp32: {', '.join(map(title, names[-3:]))}")
            # Judged as a folder on disk, as users will load it, and not as a graph in memory.
            verdicts[len(names)] = gate.judge(self._write(builder, plan.keeping(names)))
            return not verdicts[len(names)].faults(self._request.limits)

        kept = fewest_kept(costs, passes)
        # The bisection may have ended on another number of layers, so the bundle is written again.
        bundle = self._write(builder, plan.keeping(kept or []))
        found = verdicts[len(kept)] if kept else verdict

        return bundle, found, Repair(costs, kept or [], faults, speed_before)

    def _describe(self, bundle: Bundle, original: TorchNetwork, result: ExportResult) -> None:
        """Write the entities that the original finds, the card, and the description with every figure."""
        request, verdict = self._request, result.verdict
        card = bundle_card(
            request.output.name,
            bundle,
            lineage=self._lineage,
            verdict=verdict,
            repair=result.repair,
            texts=len(self._texts),
            calibration=verdict.calibration,
        )
        notes = f"\n{request.notes.strip()}\n" if request.notes.strip() else ""
        described = calibrated(bundle, verdict.calibration)

        with writing(request.output):
            write_expected(self._folder, described, original)
            (self._folder / CARD).write_text(card + notes, "utf-8")
            # Last, because the description has the fingerprints of the other files.
            replace(
                Description.read(self._folder),
                verification=_verification(result, request),
                calibration=verdict.calibration,
                metrics=verdict.metrics,
            ).write(self._folder, _FOR_PEOPLE)

    def _description(self, quantization: Mapping[str, Any]) -> Description:
        """Return the description of a bundle before anything was measured."""
        return Description(
            labels=self._labels,
            segment_tokens=self._segment_tokens,
            word_rule=self._word_rule,
            letter_case=self._letter_case,
            quantization=quantization,
            opset=OPSET,
            lineage=self._lineage,
            join=self._request.join or self._origin.join,
        )


def _lineage(request: ExportRequest, origin: Origin) -> dict[str, Any]:
    """Return where the model comes from; folders are named by their last part, never by a path."""
    training = origin.training
    recipe = training.get("recipe", {})
    return {
        # Names only: a path would reveal the folders of the machine to everybody who gets the bundle.
        "checkpoint": Path(request.model).name,
        "bundle": origin.bundle
        and {
            "sha256": origin.bundle.model_sha256,
            "lineage": dict(origin.bundle.description.lineage) if origin.bundle.description else {},
        },
        "averaged_with": [Path(name).name for name in request.average_with],
        "base_model": Path(recipe["model"]).name if "model" in recipe else None,
        "training": without_folders({k: training[k] for k in ("recipe", "command", "data", "best") if k in training})
        or None,
        "licence": request.licence or origin.licence,
        "versions": {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()},
    }


def without_folders(record: Any) -> Any:
    """Return a record in which each absolute path in a text is the name of its file."""
    if isinstance(record, Mapping):
        return {key: without_folders(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [without_folders(value) for value in record]
    return _FOLDERS.sub("", record) if isinstance(record, str) else record


def _and_splits(splits: Mapping[str, LabelledSplit]) -> str:
    counts = [f"{name} ({len(split.labelled.sentences)} sentences)" for name, split in splits.items()]
    return f" and on {', '.join(counts)}" if counts else ""


def _refusal(faults: Sequence[str], verdict: Verdict, plan: Plan, repair: Repair | None) -> str:
    """Return one line on why there is no bundle and what to do."""
    tried = "; keeping layers in fp32 did not help" if repair else ""

    wider = "--min-agreement, --max-labels-changed and --max-f1-drop"
    safer = recipe_named(plan.recipe).safer
    other = "" if safer is None else f"Export with --quantize {safer}, or allow"
    return (
        f"the exported model differs too much from its PyTorch original: {'; '.join(faults)} (largest logit difference "
        f"{verdict.comparison.max_logit_difference:.3g}, on {verdict.comparison.texts} texts{tried}). No bundle was "
        f"written. {other or 'Allow'} more with {wider}"
    )


def _require_positions(segment_tokens: int, exported: Path) -> None:
    """Refuse segments longer than the model's positions: short texts would work, and long ones would crash."""
    limit = longest_input(json.loads((exported / "config.json").read_text("utf-8")), exported)
    if segment_tokens > limit:
        raise OptionError(
            f"--segment-tokens {segment_tokens}: the model takes at most {limit} tokens; give at most that number",
            reason="too-many-tokens",
            option="--segment-tokens",
            found=segment_tokens,
            maximum=limit,
        )


def _verification(result: ExportResult, request: ExportRequest) -> dict[str, Any]:
    source = "sample texts that come with the program" if request.texts is None else "texts given by the user"
    return {
        "against": "the PyTorch original",
        "on": source,
        **result.verdict.summary(),
        "limits": asdict(request.limits),
        "repair": result.repair.summary() if result.repair else None,
    }
