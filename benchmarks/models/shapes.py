"""The two model shapes: the bundle to measure, and the model files from which its peers are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.models.exports import exported_bundle, made, name_of
from benchmarks.models.random_checkpoint import base_config, can_make_checkpoint, make_random_checkpoint
from benchmarks.paths import shown
from benchmarks.peers.peer import Sources
from nerd_export.data.sample import sample_texts
from nerd_export.models.onnx_export import export_onnx, load_checkpoint
from nerd_onnx.errors import NerdError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.description import sha256_of

SHAPES = ("small", "base")
CALIBRATION_TEXTS = 300


@dataclass(frozen=True)
class ModelShape:
    """
    One shape, ready to be measured.

    :param sources: the model files of its peers
    :param random: the PyTorch weights are random; such a model measures only speed
    :param notes: notes for the report
    """

    sources: Sources
    random: bool
    notes: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Return the facts as plain data; ``other`` describes the bundle of ``--other-model``, or is None."""
        bundle = Bundle.load(self.sources.bundle)
        described = bundle.model_file.parent / "config.json"
        config = json.loads(described.read_text("utf-8")) if described.is_file() else {}

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
            "other": _described(self.sources.other_bundle) if self.sources.other_bundle else None,
        }


def _described(folder: Path) -> dict[str, Any]:
    """Return the facts that identify a bundle."""
    bundle = Bundle.load(folder)
    return {
        "bundle": shown(folder),
        "quantization": bundle.quantization,
        "size_bytes": bundle.model_file.stat().st_size,
        "sha256": bundle.model_sha256,
    }


@dataclass(frozen=True)
class ShapeMaker:
    """
    Makes the shapes.

    :param work: folder for model files
    :param calibration: see :class:`Sources`
    :param needed: the fields of :class:`Sources` that the peers need, of ``checkpoint`` and the files made from it; the
        others are not made
    :param seed: of random weights
    :param threads: see :class:`Sources`
    """

    work: Path
    calibration: Path
    needed: Collection[str]
    seed: int
    threads: int

    def small(self, model: Path | None, checkpoint: Path | None, other: Path | None = None) -> ModelShape:
        """
        Return the shape of the bundle to measure.

        :param model: the bundle; None for the default model
        :param checkpoint: its PyTorch original; None for random weights, if the bundle describes its architecture
        :param other: another bundle to compare it with
        """
        bundle = Bundle.load(model)
        folder = bundle.model_file.parent
        notes: list[str] = []

        # nerd-tag alone needs no checkpoint, and then none is made.
        random = checkpoint is None and bool(self.needed) and can_make_checkpoint(folder)

        if random:
            notes.append(
                "small: no --checkpoint was given, so peers other than nerd_tag ran random weights in the bundle's "
                "architecture. These find almost no entities and measure only speed."
            )
            # The architecture and the seed decide the weights, so they are the name under which later runs find them.
            name = f"random-{self.seed}-{sha256_of(folder / 'config.json')[:12]}"
            checkpoint = made(self._models, name, lambda target: make_random_checkpoint(bundle, target, self.seed))

        shape = self._shape("small", folder, checkpoint, random=random, notes=notes)
        if other is None:
            return shape

        return replace(shape, sources=replace(shape.sources, other_bundle=other.absolute()))

    def base(self, model: Path | None, checkpoint: Path | None, like: Bundle) -> ModelShape:
        """
        Return the BERT-base shape.

        :param model: an int8 bundle; None to export one from the checkpoint
        :param checkpoint: its PyTorch original; None for a bert-base with random weights
        :param like: bundle whose segment length is used; with random weights also its tokenizer and labels
        """
        notes: list[str] = []
        random = checkpoint is None
        if checkpoint is None:
            notes.append(
                "base: no --base-checkpoint was given, so a bert-base with random weights ran. It measures only speed."
            )
            config = base_config(like)
            key = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
            checkpoint = made(
                self._models,
                f"base-{self.seed}-{key}",
                lambda target: make_random_checkpoint(like, target, self.seed, config),
            )

        if model is None:
            model = exported_bundle(checkpoint, self._models, "int8", like=like)
        return self._shape("base", model, checkpoint, random=random, notes=notes)

    @property
    def _models(self) -> Path:
        return self.work / "models"

    def _shape(self, name: str, bundle: Path, checkpoint: Path | None, *, random: bool, notes: list[str]) -> ModelShape:
        """Return a shape, with the exports of its checkpoint that the peers need."""
        plain = exported = None
        key = f"{name}-{name_of(checkpoint)}" if checkpoint else name

        if checkpoint is not None:
            try:
                if "exported" in self.needed:
                    exported = made(
                        self._models,
                        f"{key}-onnx",
                        lambda target: export_onnx(load_checkpoint(str(checkpoint), _silent), target),
                    )
                if "plain_bundle" in self.needed:
                    plain = exported_bundle(checkpoint, self._models, "none", like=Bundle.load(bundle))
            # Peers that use the checkpoint itself can still run.
            except NerdError as err:
                notes.append(
                    f"{name}: the checkpoint could not be exported, so peers that need the export did not run: {err}"
                )

        sources = Sources(
            shape=name,
            # Named by the content of the checkpoint: peers reuse the files in it, and must not reuse those of other
            # weights.
            folder=(self._models / f"{key}-peers").absolute(),
            bundle=bundle.absolute(),
            plain_bundle=plain,
            checkpoint=checkpoint.absolute() if checkpoint else None,
            exported=exported,
            calibration=self.calibration.absolute(),
            threads=self.threads,
        )
        return ModelShape(sources, random, tuple(notes))


def _silent(line: str) -> None:
    """Ignore a line of the exporter."""
    del line


def write_calibration(shared: Path, file: Path) -> Path:
    """Write texts for peers that calibrate: training sentences, or the sample texts if these are missing."""
    train = shared / "few_nerd" / "train.parquet"
    # Training sentences, because calibration on validation or test would be an unfair advantage.
    if train.is_file():
        words = next(pq.ParquetFile(train).iter_batches(batch_size=CALIBRATION_TEXTS, columns=["tokens"]))["tokens"]
        texts = [" ".join(sentence) for sentence in words.to_pylist()]
    else:
        texts = sample_texts()[:CALIBRATION_TEXTS]
    pq.write_table(pa.table({"text": texts}), file)
    return file
