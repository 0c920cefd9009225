"""Shared fixtures: small real models and bundles, made once a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nerd_onnx.tagger import Tagger
from tests.support.models import FINE_LABELS, make_checkpoint

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, tuple[str, ...]], Path]:
    """Give a function that makes, once each, the checkpoint of a family with some labels."""
    made: dict[tuple[str, tuple[str, ...]], Path] = {}

    def make(family: str, labels: tuple[str, ...] = FINE_LABELS) -> Path:
        if (family, labels) not in made:
            made[family, labels] = make_checkpoint(tmp_path_factory.mktemp(family) / "checkpoint", family, labels)
        return made[family, labels]

    return make


@pytest.fixture(scope="session")
def tiny_bundle(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the tiny two-level BERT as an int8 bundle; its limits are wide, for random weights have many near ties."""
    from nerd_export.config import VerifyLimits
    from nerd_export.conversion.export import ExportRequest, export_bundle

    output = tmp_path_factory.mktemp("bundle") / "tiny"
    limits = VerifyLimits(min_entity_agreement=0.5, max_labels_changed=0.2, max_f1_drop=1)
    request = ExportRequest(str(checkpoint("bert")), output, level="fine", segment_tokens=48, limits=limits)
    export_bundle(request, lambda _: None)
    return output


@pytest.fixture(scope="session")
def tagger(tiny_bundle: Path) -> Iterator[Tagger]:
    """Load the small model: labels location and person, with fine ones."""
    tagger = Tagger.load(tiny_bundle)
    yield tagger
    tagger.close()
