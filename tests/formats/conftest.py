"""Fixtures of the tests of file formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tables_io import Writer, writer


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Return a function that makes files."""
    return writer(tmp_path)
