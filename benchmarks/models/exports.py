"""Model files made for the benchmarks. Their names contain hashes of their inputs, so later runs can reuse them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nerd_export
from nerd_export.config import Level, Quantization, VerifyLimits
from nerd_export.conversion.export import ExportRequest, export_bundle
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.description import sha256_of
from nerd_onnx.storage.atomic_folder import AtomicFolder

# The benchmarks measure the bundle themselves, and the near ties of random weights would fail the gate.
_NO_LIMITS = VerifyLimits(min_entity_agreement=0.0, max_labels_changed=1.0, max_f1_drop=1.0)


def made(models: Path, name: str, make: Callable[[Path], Any]) -> Path:
    """Return the folder ``name`` of an earlier run, or make it atomically."""
    folder = models.absolute() / name
    if not folder.is_dir():
        with AtomicFolder(folder) as beside:
            make(beside.path)
            beside.commit(replace=False)
    return folder


def exported_bundle(checkpoint: Path, models: Path, quantize: Quantization, *, like: Bundle) -> Path:
    """
    Return a bundle of a checkpoint, exported now or by an earlier run.

    :param like: bundle whose label levels and segment length are used
    """
    level: Level = "fine" if like.labels.has_fine_level else "coarse"
    name = f"bundle-{name_of(checkpoint)}-{_export_code_hash()}-{quantize}-{level}-{like.segment_tokens}"

    def make(folder: Path) -> None:
        request = ExportRequest(
            str(checkpoint),
            folder,
            quantize=quantize,
            level=level,
            segment_tokens=like.segment_tokens,
            limits=_NO_LIMITS,
            overwrite=True,
        )
        export_bundle(request, lambda _: None)

    return made(models, name, make)


def name_of(checkpoint: Path) -> str:
    """Return a name for a checkpoint that depends only on its content."""
    files = sorted(checkpoint.glob("*.safetensors")) or sorted(checkpoint.glob("*.bin"))

    # By content: a path may hold another checkpoint at the next run.
    parts = [sha256_of(path) for path in (*files, checkpoint / "config.json") if path.is_file()]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]


def _export_code_hash() -> str:
    """Return a hash of the code that exports, so that other code exports again."""
    root = Path(next(iter(nerd_export.__path__)))
    # The code that makes graphs; a benchmark gives no labelled data, so no calibration is fitted.
    folders = ("conversion", "graph", "models", "quantization")
    parts = [path.read_bytes() for folder in folders for path in sorted((root / folder).glob("*.py"))]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:8]
