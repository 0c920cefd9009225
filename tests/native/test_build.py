"""The native library is compiled with what is here; where nothing is, that is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from nerd_onnx.native import build as building
from nerd_onnx.native.build import BuildError, build, compilers
from nerd_onnx.native.library import Library


def test_the_compiler_of_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "ccache my-compiler")
    assert compilers()[0] == ("ccache", "my-compiler")


def test_without_a_compiler_the_build_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "compilers", list)
    with pytest.raises(BuildError, match=r"g\+\+ or clang"):
        build(tmp_path / "library.so")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("compiler", [("/nowhere/c++",), ("false",)])
def test_a_compiler_that_fails_is_named(tmp_path: Path, compiler: tuple[str, ...]) -> None:
    with pytest.raises(BuildError, match=compiler[0]):
        build(tmp_path / "library.so", compiler)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_library_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "library.so").write_bytes(b"\x7fELF")
    with pytest.raises(OSError, match="library"):
        Library.load(tmp_path / "library.so")
