"""Graphs and bundles that several tests only read, exported once per session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nerd_export.config import Quantization
from nerd_export.conversion.export import ExportRequest, export_bundle
from nerd_export.models.onnx_export import export_onnx, load_checkpoint
from tests.support import make_models
from tests.support.bundles import LIMITS, TEXTS, WIDE, labelled, silent
from tests.support.shared import made_once


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the tiny int8 bundle afresh: these tests are about what an export writes now."""
    return made_once(tmp_path_factory, "export/tiny", lambda folder: make_models.make("int8", folder))


@pytest.fixture(scope="session")
def plain_graph(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that exports a family's checkpoint with optimum, and returns the graph's file."""

    def export(family: str) -> Path:
        folder = made_once(
            tmp_path_factory,
            f"export/plain/{family}",
            lambda folder: export_onnx(load_checkpoint(str(checkpoint(family))), folder),
        )
        return folder / "model.onnx"

    return export


@pytest.fixture(scope="session")
def exported_bundle(
    checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Quantization], Path]:
    """Return a function that exports a family's checkpoint by a recipe, with the word rule ``treebank``."""

    def export(family: str, quantize: Quantization) -> Path:
        def write(folder: Path) -> None:
            request = ExportRequest(
                str(checkpoint(family)),
                folder,
                quantize=quantize,
                level="fine",
                texts=TEXTS[:20],
                limits=WIDE,
                word_rule="treebank",
            )
            export_bundle(request, silent)

        return made_once(tmp_path_factory, f"export/{quantize}/{family}", write)

    return export


@pytest.fixture(scope="session")
def fp32(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the tiny BERT without quantization."""

    def write(folder: Path) -> None:
        request = ExportRequest(str(checkpoint("bert")), folder, quantize="none", level="fine", texts=TEXTS)
        export_bundle(request, silent)

    return made_once(tmp_path_factory, "export/fp32", write)


@pytest.fixture(scope="session")
def data(fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write sentences that are labelled with what the fp32 bundle finds in them."""

    def write(folder: Path) -> None:
        folder.mkdir()
        labelled(folder / "validation.jsonl", fp32)

    return made_once(tmp_path_factory, "export/data", write) / "validation.jsonl"


@pytest.fixture(scope="session")
def bundle(checkpoint: Callable[..., Path], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export an int8 bundle, judged on labelled data."""

    def write(folder: Path) -> None:
        request = ExportRequest(
            str(checkpoint("bert")),
            folder,
            level="fine",
            dataset=str(data),
            evaluations={"again": data},
            texts=TEXTS,
            limits=LIMITS,
            licence="apache-2.0",
        )
        assert export_bundle(request, silent).repair is None

    return made_once(tmp_path_factory, "export/judged", write)
