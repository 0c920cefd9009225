"""Bundles for several tests, made once per session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nerd_export.conversion.export import ExportRequest, export_bundle
from tests.support.bundles import LIMITS, TEXTS, labelled, silent


@pytest.fixture(scope="session")
def fp32(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("fp32") / "bundle"
    export_bundle(ExportRequest(str(checkpoint("bert")), output, quantize="none", level="fine", texts=TEXTS), silent)
    return output


@pytest.fixture(scope="session")
def data(fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tmp_path_factory.mktemp("data") / "validation.jsonl", fp32)


@pytest.fixture(scope="session")
def bundle(checkpoint: Callable[..., Path], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 bundle that passed the gate on labelled data."""
    output = tmp_path_factory.mktemp("int8") / "bundle"
    request = ExportRequest(
        str(checkpoint("bert")),
        output,
        level="fine",
        dataset=str(data),
        evaluations={"again": data},
        texts=TEXTS,
        limits=LIMITS,
        licence="apache-2.0",
    )
    assert export_bundle(request, silent).repair is None
    return output
