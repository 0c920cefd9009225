"""The two model shapes: what is measured, and everything that the peers are made from."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import nerd_export.conversion
from benchmarks.paths import shown
from benchmarks.peers.peer import Sources
from benchmarks.twin import base_config, can_have_twin, make_twin
from nerd_export.config import Level, VerifyLimits
from nerd_export.conversion.export import ExportRequest, export_bundle
from nerd_export.conversion.onnx_export import export_onnx
from nerd_export.conversion.verify import sample_texts
from nerd_onnx.errors import NerdError
from nerd_onnx.inference.bundle import Bundle, sha256_of

SHAPES = ("small", "base")
CALIBRATION_TEXTS = 300
_ANY = VerifyLimits(min_entity_agreement=0.0, max_labels_changed=1.0)  # a twin's random weights have many near ties


@dataclass(frozen=True)
class ModelShape:
    """
    One shape, ready to be measured.

    :param sources: what its peers are made from
    :param random: its weights are random: good for speed alone
    :param notes: what a reader must know of it
    """

    sources: Sources
    random: bool
    notes: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Give the facts as plain data."""
        bundle = Bundle.load(self.sources.bundle)
        config = _config(bundle.model_file.parent)
        return {
            "bundle": shown(self.sources.bundle),
            "checkpoint": shown(self.sources.checkpoint) if self.sources.checkpoint else None,
            "random_weights": self.random,
            "quantization": bundle.quantization,
            "size_bytes": bundle.model_file.stat().st_size,
            "sha256": bundle.model_sha256,
            "segment_tokens": bundle.segment_tokens,
            "labels": len(bundle.labels.names),
            "architecture": {key: config.get(key) for key in ("model_type", "num_hidden_layers", "hidden_size")},
        }


def small_shape(
    model: Path | None, checkpoint: Path | None, work: Path, calibration: Path, *, seed: int, threads: int
) -> ModelShape:
    """
    Give the shape of the bundle to measure.

    :param model: the bundle; None for the model inside
    :param checkpoint: its PyTorch original; None for a random twin of its architecture, where that is known
    """
    bundle = Bundle.load(model)
    folder = bundle.model_file.parent
    notes: list[str] = []
    twin = checkpoint is None and can_have_twin(folder)
    if twin:
        notes.append(
            "small: no --checkpoint was given: peers other than nerd_tag ran a twin of the bundle's architecture with "
            "random weights that finds almost no entities. It serves for speed alone."
        )
        name = f"twin-{seed}-{sha256_of(folder / 'config.json')[:12]}"
        checkpoint = _made(work / "models", name, lambda made: make_twin(bundle, made, seed))
    return _shape("small", folder, checkpoint, work, calibration, random=twin, notes=notes, threads=threads)


def base_shape(
    model: Path | None, checkpoint: Path | None, small: ModelShape, work: Path, *, seed: int
) -> ModelShape:
    """
    Give a BERT-base shape.

    :param model: an int8 bundle; None to export one from the checkpoint
    :param checkpoint: PyTorch weights of that shape; None for bert-base with random weights and the small shape's
        tokenizer and labels
    """
    sources = small.sources
    notes = []
    random = checkpoint is None
    if checkpoint is None:
        notes.append("base: no --base-checkpoint was given: a bert-base with random weights serves for speed alone.")
        described = Bundle.load(sources.bundle)
        config = base_config(described)
        name = f"base-{seed}-{hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]}"
        checkpoint = _made(work / "models", name, lambda folder: make_twin(described, folder, seed, config))
    if model is None:
        model = _bundle(checkpoint, work / "models", "int8", like=Bundle.load(sources.bundle))
    return _shape(
        "base", model, checkpoint, work, Path(sources.calibration or ""), random=random, notes=notes, threads=sources.threads
    )


def _shape(
    name: str,
    bundle: Path,
    checkpoint: Path | None,
    work: Path,
    calibration: Path,
    *,
    random: bool,
    notes: list[str],
    threads: int,
) -> ModelShape:
    """Export the checkpoint for the peers that want ONNX."""
    plain = exported = None
    models = work / "models"
    key = name
    if checkpoint is not None:
        key = f"{name}-{_weights(checkpoint)}"
        try:
            exported = _made(models, f"{key}-onnx", lambda folder: export_onnx(str(checkpoint), folder))
            plain = _bundle(checkpoint, models, "none", like=Bundle.load(bundle))
        except NerdError as err:
            notes.append(f"{name}: the checkpoint could not be exported, so peers on ONNX did not run: {err}")
    sources = Sources(
        shape=name,
        folder=(models / f"{key}-peers").absolute(),
        bundle=bundle.absolute(),
        plain_bundle=plain,
        checkpoint=checkpoint.absolute() if checkpoint else None,
        exported=exported,
        calibration=calibration.absolute(),
        threads=threads,
    )
    return ModelShape(sources, random, tuple(notes))


def write_calibration(shared: Path, file: Path) -> Path:
    """Write texts for peers that calibrate: training sentences, or the program's sample where they are missing."""
    train = shared / "few_nerd" / "train.parquet"
    if train.is_file():
        words = next(pq.ParquetFile(train).iter_batches(batch_size=CALIBRATION_TEXTS, columns=["tokens"]))["tokens"]
        texts = [" ".join(sentence) for sentence in words.to_pylist()]
    else:
        texts = sample_texts()[:CALIBRATION_TEXTS]
    pq.write_table(pa.table({"text": texts}), file)
    return file


def _bundle(checkpoint: Path, models: Path, quantize: Any, *, like: Bundle) -> Path:
    """
    Export a bundle of a checkpoint. What it scores is measured later, so it may differ from its original as it likes.

    :param like: has the levels and the segment length to take
    """
    segment_tokens = like.segment_tokens
    level: Level = "fine" if like.labels.has_fine_level else "coarse"
    name = f"bundle-{_weights(checkpoint)}-{_conversion()}-{quantize}-{level}-{segment_tokens}"

    def make(folder: Path) -> None:
        request = ExportRequest(
            str(checkpoint),
            folder,
            quantize=quantize,
            level=level,
            segment_tokens=segment_tokens,
            limits=_ANY,
            overwrite=True,
        )
        export_bundle(request, lambda _: None)

    return _made(models, name, make)


def _made(models: Path, name: str, make: Callable[[Path], Any]) -> Path:
    """Give a folder that a run before this made, or make it, whole or not at all."""
    folder = models.absolute() / name
    if not folder.is_dir():
        beside = folder.with_name(f".{name}.new")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        make(beside)
        beside.rename(folder)
    return folder


def _weights(checkpoint: Path) -> str:
    """Name a checkpoint by what is in it."""
    files = sorted(checkpoint.glob("*.safetensors")) or sorted(checkpoint.glob("*.bin"))
    parts = [sha256_of(path) for path in (*files, checkpoint / "config.json") if path.is_file()]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]


def _conversion() -> str:
    """Name the code that exports: other code makes another bundle."""
    folder = Path(next(iter(nerd_export.conversion.__path__)))
    parts = [path.read_bytes() for path in sorted(folder.glob("*.py"))]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:8]


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found
