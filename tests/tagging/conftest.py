"""Fixtures of the tests of runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nerd_onnx.inference.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    """Load the tiny bundle, for taggers of which children are forked."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return Bundle.load(tiny_bundle)
