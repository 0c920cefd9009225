"""The native library is compiled with what is here; where nothing is, that is said in one line."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from pathlib import Path

import pytest

from nerd_onnx.native import build as building
from nerd_onnx.native.build import BuildError, build, compilers
from nerd_onnx.native.library import Library, OtherSourcesError


def test_the_compiler_of_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "ccache my-compiler")
    assert compilers()[0] == ("ccache", "my-compiler")


def test_without_a_compiler_the_build_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "compilers", list)
    with pytest.raises(BuildError, match=r"g\+\+ or clang"):
        build(tmp_path / "library.so")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("compiler", "environment", "machine", "expected"),
    [
        ("g++", {}, "x86_64", []),
        ("g++", {"NERD_BUILD_NATIVE": "1"}, "x86_64", []),
        ("", {}, "x86_64", ["ziglang>=0.13"]),
        ("", {}, "arm64", ["ziglang>=0.13"]),
        ("", {}, "riscv64", []),
        ("", {"NERD_BUILD_NATIVE": "1"}, "riscv64", ["ziglang>=0.13"]),
        ("", {"NERD_BUILD_NATIVE": "0"}, "x86_64", []),
        ("", {"PIP_NO_INDEX": "1"}, "x86_64", []),
        ("", {"PIP_NO_INDEX": "1", "NERD_BUILD_NATIVE": "1"}, "x86_64", ["ziglang>=0.13"]),
    ],
)
def test_a_compiler_is_required_only_where_none_is_and_one_can_be_fetched(
    monkeypatch: pytest.MonkeyPatch, compiler: str, environment: dict[str, str], machine: str, expected: list[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == compiler else None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("CXX", "NERD_BUILD_NATIVE", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert building.requirements() == expected


@pytest.mark.parametrize("compiler", [("/nowhere/c++",), ("false",)])
def test_a_compiler_that_fails_is_named(tmp_path: Path, compiler: tuple[str, ...]) -> None:
    with pytest.raises(BuildError, match=compiler[0]):
        build(tmp_path / "library.so", compiler)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_library_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "library.so").write_bytes(b"\x7fELF")
    with pytest.raises(OSError, match="library"):
        Library.load(tmp_path / "library.so")


@pytest.mark.slow
def test_a_library_of_other_sources_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "library.so").write_bytes(b"in use")
    with monkeypatch.context() as before, (tmp_path / "library.so").open("rb") as used:
        before.setattr(building, "sources_digest", lambda: "0123456789abcdef")
        build(tmp_path / "library.so")
        assert used.read() == b"in use"  # it was replaced, and not written over
    assert [path.name for path in tmp_path.iterdir()] == ["library.so"]
    with pytest.raises(OtherSourcesError):
        Library.load(tmp_path / "library.so")
