"""The native library, compiled once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from nerd_onnx.native.build import LIBRARY, build, compilers
from nerd_onnx.native.library import Library
from tests.support.shared import made_once


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Return the library, compiled from the sources as they are."""
    if not compilers():
        pytest.skip("no C++ compiler is here")

    def make(folder: Path) -> None:
        folder.mkdir()
        build(folder / LIBRARY)

    return Library.load(made_once(tmp_path_factory, "native", make) / LIBRARY)
