"""The profile by operator counts the nodes of the graph."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.measurements.operators import operator_profile
from nerd_onnx.inference.bundle import DEFAULT_FOLDER
from nerd_onnx.inference.description import Description
from nerd_onnx.tagger import Tagger
from tests.support.models import sample_texts


@pytest.mark.slow
def test_integer_products_are_counted_and_timed(tmp_path: Path) -> None:
    texts = sample_texts()[:6]
    pq.write_table(pa.table({"text": [*texts, None, ""]}), tmp_path / "texts.parquet")
    profile = operator_profile(DEFAULT_FOLDER, tmp_path / "texts.parquet")
    operators = profile["operators"]
    layers = Description.read(DEFAULT_FOLDER).quantization["layers"]

    assert operators["MatMulIntegerToFloat"]["nodes"] == layers
    assert next(iter(operators)) == "MatMulIntegerToFloat"  # matrix products take the most time
    assert all(found["seconds"] > 0 for found in operators.values())
    assert profile["tokens"] > 3 * Tagger.load().tag_arrays(texts).tokens  # three runs, with special tokens
    assert not list(Path.cwd().glob("profile*.json"))
