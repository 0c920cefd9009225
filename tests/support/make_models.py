"""
The tiny models in ``tests/data/models``, which tests use instead of exporting their own, and their tokenizer.

``python -m tests.support.make_models`` writes them again, after a change of the bundle format or of the graphs.
``tests/export/models/test_committed_models.py`` compares the committed models with models made afresh.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.models import FAMILIES, FINE_LABELS, TOKENIZER, make_checkpoint, trained_tokenizer

MODELS = Path(__file__).parent.parent / "data" / "models"


def silent(_: str) -> None:
    """Drop a line of progress."""


def make_cased_checkpoint(folder: Path, family: str, sizes: Mapping[str, Any] | None = None) -> Path:
    """Make a tiny encoder that sees letter case, with random weights."""
    import torch
    import transformers

    from nerd_export.models.letter_case import with_letter_case

    make_checkpoint(folder, family, FINE_LABELS, sizes=sizes)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder)
    torch.manual_seed(1)
    with_letter_case(model, "tiny")
    model.save_pretrained(folder)
    return folder


def export(checkpoint: Path, output: Path, **options: Any) -> None:
    """Export a bundle; its limits are wide, because random weights have many near ties."""
    from nerd_export.config import VerifyLimits
    from nerd_export.conversion.export import ExportRequest, export_bundle

    limits = VerifyLimits(min_entity_agreement=0.5, max_labels_changed=0.2, max_f1_drop=1)
    export_bundle(ExportRequest(str(checkpoint), output, level="fine", limits=limits, **options), silent)


def make_int8(output: Path, scratch: Path) -> None:
    """Export the tiny two-level BERT as an int8 bundle."""
    export(make_checkpoint(scratch / "checkpoint", "bert", FINE_LABELS), output, segment_tokens=48)


def make_plain(output: Path, scratch: Path) -> None:
    """Export the same network with optimum alone, as a plain Hugging Face folder."""
    from nerd_export.models.onnx_export import export_onnx, load_checkpoint

    export_onnx(load_checkpoint(str(make_checkpoint(scratch / "checkpoint", "bert", FINE_LABELS))), output)


def make_cased(output: Path, scratch: Path) -> None:
    """Export a tiny BERT that sees letter case as an int8 bundle."""
    export(make_cased_checkpoint(scratch / "checkpoint", "bert"), output, segment_tokens=48)


MAKERS: dict[str, Callable[[Path, Path], None]] = {"int8": make_int8, "cased": make_cased, "plain": make_plain}


def make(name: str, output: Path) -> None:
    """Make one of the models in a folder that does not exist yet."""
    with tempfile.TemporaryDirectory() as scratch:
        MAKERS[name](output, Path(scratch))


def main() -> None:
    """Write the tokenizer and all models again."""
    TOKENIZER.parent.mkdir(parents=True, exist_ok=True)
    trained_tokenizer(FAMILIES["bert"]).save(str(TOKENIZER))

    for name in MAKERS:
        shutil.rmtree(MODELS / name, ignore_errors=True)
        MODELS.mkdir(parents=True, exist_ok=True)
        make(name, MODELS / name)


if __name__ == "__main__":
    main()
