"""Model files made for the benchmarks, kept for later runs under the name of what they were made from."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nerd_export
from nerd_export.config import Level, Quantization, VerifyLimits
from nerd_export.conversion.export import ExportRequest, export_bundle
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.description import sha256_of

# What the bundle scores is measured later, and a twin's random weights have many near ties.
_ANY = VerifyLimits(min_entity_agreement=0.0, max_labels_changed=1.0, max_f1_drop=1.0)


def made(models: Path, name: str, make: Callable[[Path], Any]) -> Path:
    """Give a folder that an earlier run made, or make it, whole or not at all."""
    folder = models.absolute() / name
    if not folder.is_dir():
        beside = folder.with_name(f".{name}.new")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        make(beside)
        beside.rename(folder)
    return folder


def exported_bundle(checkpoint: Path, models: Path, quantize: Quantization, *, like: Bundle) -> Path:
    """
    Export a bundle of a checkpoint.

    :param like: has the levels and the segment length to take
    """
    level: Level = "fine" if like.labels.has_fine_level else "coarse"
    name = f"bundle-{name_of(checkpoint)}-{_conversion()}-{quantize}-{level}-{like.segment_tokens}"

    def make(folder: Path) -> None:
        request = ExportRequest(
            str(checkpoint),
            folder,
            quantize=quantize,
            level=level,
            segment_tokens=like.segment_tokens,
            limits=_ANY,
            overwrite=True,
        )
        export_bundle(request, lambda _: None)

    return made(models, name, make)


def name_of(checkpoint: Path) -> str:
    """Name a checkpoint by what is in it."""
    files = sorted(checkpoint.glob("*.safetensors")) or sorted(checkpoint.glob("*.bin"))
    parts = [sha256_of(path) for path in (*files, checkpoint / "config.json") if path.is_file()]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]


def _conversion() -> str:
    """Name the code that exports: other code makes another bundle."""
    root = Path(next(iter(nerd_export.__path__)))
    folders = ("conversion", "graph", "models", "quantization")
    parts = [path.read_bytes() for folder in folders for path in sorted((root / folder).glob("*.py"))]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:8]
