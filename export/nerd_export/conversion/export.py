"""The road from checkpoint to bundle: export, simplify, quantize, write, read back, compare, score."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nerd_export.config import SEGMENT_TOKENS, Embeddings, Level, Quantization, VerifyLimits
from nerd_export.conversion.bundle_writer import new_folder, write_description, write_model
from nerd_export.conversion.graph import simplified
from nerd_export.conversion.model_card import bundle_card
from nerd_export.conversion.onnx_export import OPSET, Checkpoint, export_onnx, load_checkpoint
from nerd_export.conversion.quantize import quantize_embeddings, quantize_per_token
from nerd_export.conversion.verify import Comparison, TorchNetwork, compare, sample_texts
from nerd_export.training.checks import Findings, Sentence, check_split
from nerd_export.training.corpus import TAG_COLUMNS, read_file
from nerd_export.training.evaluation import evaluate
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.tagger import Tagger, TagOptions

_VERSIONS = ("torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime", "tokenizers", "nerd-onnx")


@dataclass(frozen=True)
class ExportRequest:
    """
    What to export and how.

    :param model: hub id or folder of a token-classification checkpoint
    :param embeddings: form of the word embeddings; None for that of the rest
    :param level: whether label names have two levels (``person-actor``); None for what nerd-train recorded
    :param evaluations: labelled files to score original and bundle on, by the split's name
    :param notes: Markdown for the end of the card: data, attribution, limits
    :param texts: texts to compare on; None for the sample that comes with the program
    """

    model: str
    output: Path
    quantize: Quantization = "int8"
    embeddings: Embeddings | None = None
    level: Level | None = None
    segment_tokens: int = SEGMENT_TOKENS
    evaluations: Mapping[str, Path] = field(default_factory=dict)
    texts: Sequence[str] | None = None
    limits: VerifyLimits = field(default_factory=VerifyLimits)
    overwrite: bool = False
    licence: str | None = None
    notes: str = ""


@dataclass(frozen=True)
class ExportResult:
    """What was measured on the way: comparison with the original, scores by split, and the bundle's size."""

    comparison: Comparison
    metrics: Mapping[str, Any]
    size_bytes: int


def export_bundle(request: ExportRequest, tell: Callable[[str], None]) -> ExportResult:
    """
    Export a checkpoint as a verified bundle.

    :param tell: receives a line a step
    :raises ModelError: when the checkpoint cannot be loaded or exported
    :raises VerificationError: when the result differs too much; nothing is written then
    :raises OutputError: when the output cannot be written
    """
    checkpoint = load_checkpoint(request.model)
    training = _training_record(request.model)
    labels = _labels(checkpoint, request.level, training)
    splits = {name: (path.name, _labelled(path, labels)) for name, path in request.evaluations.items()}
    texts = sample_texts() if request.texts is None else request.texts
    with new_folder(request.output, overwrite=request.overwrite) as folder:
        facts: dict[str, Any] = {
            "segment_tokens": request.segment_tokens,
            "opset": OPSET,
            "quantization": _write_graph(request, folder, tell),
            "lineage": _lineage(request, training),
        }
        write_description(folder, labels, **facts)
        bundle = Bundle.load(folder)
        original = TorchNetwork(checkpoint.model)
        tell(f"comparing with PyTorch on {len(texts)} texts")
        comparison = compare(bundle, original, texts)
        comparison.check(request.limits)
        metrics = _scores(splits, bundle, original, tell)
        card = bundle_card(
            request.output.name, bundle, lineage=facts["lineage"], comparison=comparison, metrics=metrics
        )
        size = bundle.model_file.stat().st_size
        notes = f"\n{request.notes.strip()}\n" if request.notes.strip() else ""
        (folder / "README.md").write_text(card + notes, "utf-8")
        write_description(folder, labels, **facts, verification=_verification(comparison, request), metrics=metrics)
    return ExportResult(comparison, metrics, size)


def _write_graph(request: ExportRequest, folder: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """
    Export, simplify and quantize the graph, and write it with its tokenizer.

    :return: how it was quantized
    """
    with tempfile.TemporaryDirectory() as scratch:
        tell(f"exporting {request.model} with optimum, opset {OPSET}")
        model = simplified(export_onnx(request.model, Path(scratch)))
        quantization: dict[str, Any] = {"method": "none"}
        if request.quantize == "int8":
            layers = quantize_per_token(model)
            quantization = _per_token(len(layers))
            tell(f"per-token int8: {len(layers)} linear layers")
        if (request.embeddings or ("int8" if request.quantize == "int8" else "fp32")) == "int8":
            quantization["embeddings"] = f"signed 8 bits, one scale a row: {', '.join(quantize_embeddings(model))}"
        write_model(folder, model, Path(scratch))
    return quantization


def _labels(checkpoint: Checkpoint, level: Level | None, training: Mapping[str, Any]) -> LabelSet:
    if level == "fine" or (level is None and training.get("coarse")):
        return LabelSet.hierarchical(checkpoint.names)
    return LabelSet(checkpoint.names)


def _per_token(layers: int) -> dict[str, Any]:
    return {
        "method": "per-token int8",
        "activations": "unsigned 8 bits, one scale a token, computed at run time",
        "weights": "signed 8 bits, one scale an output channel",
        "layers": layers,
        "fp32": "attention products, layer norms, classifier",
    }


def _training_record(model: str) -> dict[str, Any]:
    """Read what nerd-train left beside the checkpoint; empty for other checkpoints."""
    path = Path(model) / "training.json"
    record = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return record if isinstance(record, dict) else {}


def _lineage(request: ExportRequest, training: Mapping[str, Any]) -> dict[str, Any]:
    """Say where the model comes from; folders are named by their last part, never by a path."""
    recipe = training.get("recipe", {})
    return {
        "checkpoint": Path(request.model).name,
        "base_model": Path(recipe["model"]).name if "model" in recipe else None,
        "training": {k: training[k] for k in ("recipe", "command", "data", "best") if k in training} or None,
        "licence": request.licence,
        "versions": {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()},
    }


def _verification(comparison: Comparison, request: ExportRequest) -> dict[str, Any]:
    source = "sample texts that come with the program" if request.texts is None else "texts given by the user"
    return {"against": "the PyTorch original", "on": source, **comparison.summary(), "limits": asdict(request.limits)}


def _labelled(path: Path, labels: LabelSet) -> list[Sentence]:
    """Read a labelled file at the model's level, every row of it, with tags the model may not know."""
    findings = Findings()
    sentences = check_split(read_file(path, TAG_COLUMNS["fine" if labels.has_fine_level else "coarse"]), None, findings)
    findings.raise_problems()
    return sentences


def _scores(
    splits: Mapping[str, tuple[str, Sequence[Sentence]]],
    bundle: Bundle,
    original: TorchNetwork,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Score original and bundle on every labelled split that was given."""
    metrics: dict[str, Any] = {}
    for name, (source, sentences) in splits.items():
        tell(f"scoring original and bundle on {name}: {len(sentences)} sentences")
        metrics[name] = {
            "source": source,
            "original": evaluate(Tagger(bundle, TagOptions(threads=1), network=original), sentences).summary(),
            "bundle": evaluate(Tagger(bundle), sentences).summary(),
        }
    return metrics
