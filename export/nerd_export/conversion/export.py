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

import onnx_ir as ir

from nerd_export.config import SEGMENT_TOKENS, Embeddings, Level, Quantization, VerifyLimits
from nerd_export.conversion.bundle_writer import new_folder, write_description, write_model
from nerd_export.conversion.graph import simplified
from nerd_export.conversion.model_card import bundle_card
from nerd_export.conversion.onnx_export import OPSET, Checkpoint, export_onnx, load_checkpoint
from nerd_export.conversion.quantize import quantize_embeddings, quantize_per_token
from nerd_export.conversion.verify import Comparison, TorchNetwork, compare, sample_texts
from nerd_export.outputs import writing
from nerd_export.training.checks import Findings, Sentence, check_split
from nerd_export.training.corpus import TAG_COLUMNS, read_file
from nerd_export.training.evaluation import evaluate
from nerd_export.training.trainer import STATE_FILE
from nerd_onnx.errors import ModelError, OptionError, first_line
from nerd_onnx.inference.bundle import Bundle, longest_input
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.tagger import Tagger, TagOptions

_VERSIONS = ("torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime", "tokenizers", "nerd-onnx")


@dataclass(frozen=True)
class ExportRequest:
    """
    What to export and how.

    :param model: hub id or folder of a token-classification checkpoint
    :param embeddings: form of the word embeddings; None for that of the rest
    :param keep_fp32: names of linear layers that int8 leaves as they are
    :param level: whether label names have two levels (``person-actor``); None for what nerd-train recorded
    :param evaluations: labelled files to score original and bundle on, by the split's name
    :param notes: Markdown for the end of the card: data, attribution, limits
    :param texts: texts to compare on; None for the sample that comes with the program
    """

    model: str
    output: Path
    quantize: Quantization = "int8"
    embeddings: Embeddings | None = None
    keep_fp32: Sequence[str] = ()
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
    :raises OptionError: when an option does not fit the model or another option
    :raises OutputError: when the output cannot be written
    """
    if request.keep_fp32 and request.quantize == "none":
        raise OptionError("--keep-fp32: with --quantize none every layer stays fp32; leave one of them out")
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
        with writing(request.output):
            write_description(folder, labels, **facts)
        bundle = Bundle.load(folder)
        original = TorchNetwork(checkpoint.model)
        tell(f"comparing with PyTorch on {len(texts)} texts")
        comparison = compare(bundle, original, texts)
        comparison.check(request.limits)
        if comparison.note:
            tell(comparison.note)
        metrics = _scores(splits, bundle, original, tell)
        card = bundle_card(
            request.output.name, bundle, lineage=facts["lineage"], comparison=comparison, metrics=metrics
        )
        size = bundle.model_file.stat().st_size
        notes = f"\n{request.notes.strip()}\n" if request.notes.strip() else ""
        with writing(request.output):
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
        exported = export_onnx(request.model, Path(scratch))
        _require_positions(request.segment_tokens, Path(scratch))
        model = simplified(exported)
        quantization = _quantized(model, request, tell)
        with writing(request.output):
            write_model(folder, model, Path(scratch))
    return quantization


def _require_positions(segment_tokens: int, exported: Path) -> None:
    """Refuse segments longer than the model's positions: short texts would pass, and long ones crash."""
    limit = longest_input(json.loads((exported / "config.json").read_text("utf-8")), exported)
    if segment_tokens > limit:
        raise OptionError(f"--segment-tokens {segment_tokens}: the model takes {limit} tokens at most; give up to that")


def _quantized(model: ir.Model, request: ExportRequest, tell: Callable[[str], None]) -> dict[str, Any]:
    """
    Quantize what the request asks for, in place.

    :return: how it was quantized
    """
    record: dict[str, Any] = {"method": "none"}
    if request.quantize == "int8":
        layers = quantize_per_token(model, request.keep_fp32)
        record = _per_token(len(layers), request.keep_fp32)
        tell(f"per-token int8: {len(layers)} linear layers")
    wanted = request.embeddings or ("int8" if request.quantize == "int8" else "fp32")
    tables = quantize_embeddings(model) if wanted == "int8" else []
    if tables and request.quantize == "none":
        record["method"] = "int8 embeddings"
    elif wanted == "int8" and not tables:
        tell("found no table of word embeddings to quantize; they stay fp32")
    record["embeddings"] = f"signed 8 bits, one scale a row: {', '.join(tables)}" if tables else "fp32"
    return record


def _labels(checkpoint: Checkpoint, level: Level | None, training: Mapping[str, Any]) -> LabelSet:
    if level == "fine" or (level is None and training.get("coarse")):
        return LabelSet.hierarchical(checkpoint.names)
    return LabelSet(checkpoint.names)


def _per_token(layers: int, kept: Sequence[str]) -> dict[str, Any]:
    return {
        "method": "per-token int8",
        "activations": "unsigned 8 bits, one scale a token, computed at run time",
        "weights": "signed 8 bits, one scale an output channel",
        "layers": layers,
        "fp32": "attention products, layer norms, classifier",
        **({"kept_fp32": list(kept)} if kept else {}),
    }


def _training_record(model: str) -> dict[str, Any]:
    """
    Read what nerd-train left beside the checkpoint; empty for other checkpoints.

    :raises ModelError: when it is not what nerd-train writes
    """
    path = Path(model) / STATE_FILE
    if not path.is_file():
        return {}
    remedy = "train again with nerd-train, or remove the file to export without its record"
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as err:
        raise ModelError(f"{path}: not readable as JSON: {first_line(err)}; {remedy}") from err
    if not _is_training_record(record):
        raise ModelError(f"{path}: not the record that nerd-train writes; {remedy}")
    return dict(record)


def _is_training_record(record: object) -> bool:
    """Check the parts of a training record that the bundle and its card name."""
    if not isinstance(record, dict):
        return False
    recipe, data = record.get("recipe", {}), record.get("data", {})
    if not isinstance(recipe, dict) or not isinstance(data, dict):
        return False
    named = isinstance(recipe.get("model", ""), str)
    counted = isinstance(data.get("train"), str) and isinstance(data.get("train_sentences"), int)
    return named and (counted or not data)


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
