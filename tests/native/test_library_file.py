"""A library that is cut, of another machine, or no library: the program says so, and onnxruntime computes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nerd_onnx.native import library
from nerd_onnx.native.library import DEFAULT_FILE, Library, installed, missing_because
from tests.conftest import ROOT

_MACHINE = 18  # place of the machine's number in an ELF file
pytestmark = pytest.mark.skipif(not DEFAULT_FILE.is_file(), reason="the native library is not compiled")
WHOLE = DEFAULT_FILE.read_bytes() if DEFAULT_FILE.is_file() else b""


def cut(share: float) -> Callable[[], bytes]:
    return lambda: WHOLE[: int(len(WHOLE) * share)]


@pytest.mark.parametrize("content", [*map(cut, (0, 0.0001, 0.001, 0.1, 0.5, 0.8, 0.95)), lambda: WHOLE[:65]])
def test_a_file_that_was_cut_does_not_end_the_process(tmp_path: Path, content: Callable[[], bytes]) -> None:
    """Its segments are mapped, and a process that touches what is behind the end of the file gets SIGBUS."""
    (tmp_path / "cut.so").write_bytes(content())
    code = "import sys, pathlib; from nerd_onnx.native.library import Library; Library.load(pathlib.Path(sys.argv[1]))"
    program = [sys.executable, "-c", code, str(tmp_path / "cut.so")]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("OSError: ")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (WHOLE[: len(WHOLE) // 2], "damaged"),
        (WHOLE[:_MACHINE] + b"\xb7" + WHOLE[_MACHINE + 1 :], "another system"),  # of 64-bit ARM
        (b"no library", "damaged"),
        (None, "not installed"),
    ],
)
def test_why_there_is_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, why: str
) -> None:
    file = tmp_path / "library.so"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setattr(library, "DEFAULT_FILE", file)
    installed.cache_clear()
    try:
        assert installed() is None
        assert why in missing_because()
    finally:
        installed.cache_clear()


def test_a_whole_file_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "library.so").write_bytes(WHOLE)
    assert Library.load(tmp_path / "library.so").paths
