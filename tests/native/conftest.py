"""The native library, compiled once per session."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from nerd_onnx.native.build import LIBRARY, build, compilers
from nerd_onnx.native.library import Library
from tests.support.shared import made_once


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Return the library, compiled from the sources as they are; ``make native-sanitize`` adds flags."""
    if not compilers():
        pytest.skip("no C++ compiler is here")

    def make(folder: Path) -> None:
        folder.mkdir()
        build(folder / LIBRARY, flags=shlex.split(os.environ.get("NERD_TEST_NATIVE_FLAGS", "")))

    return Library.load(made_once(tmp_path_factory, "native", make) / LIBRARY)
