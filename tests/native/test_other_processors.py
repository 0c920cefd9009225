"""The same bits on processors that are not here: NEON under qemu; AVX-512, VNNI and AMX through SIMDe."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from nerd_onnx.native.build import FLAGS, SOURCES, compile_sources, compilers, run
from nerd_onnx.native.library import Library
from tests.native.test_encoder import GOLDEN
from tests.support.encoders import RandomEncoder

RUNNER, MORE_SIMDE = (Path(__file__).with_name(name) for name in ("run_encoder.cpp", "more_simde.h"))
QEMU = os.environ.get("NERD_TEST_QEMU_AARCH64") or shutil.which("qemu-aarch64")
ZIG = os.environ.get("NERD_TEST_ZIG")  # an interpreter that has the package ziglang
SIMDE = Path(os.environ.get("NERD_TEST_SIMDE", "/usr/include"))  # the folder that has simde/


def cross_compiler() -> list[str]:
    """Return the command of a compiler for aarch64; empty without one."""
    if gcc := shutil.which("aarch64-linux-gnu-g++"):
        return [gcc, "-static"]
    zig = [command for command in compilers() if "ziglang" in command]
    if ZIG or zig:
        return [*([ZIG, "-m", "ziglang", "cc"] if ZIG else zig[0]), "-target", "aarch64-linux-musl"]
    return []


def _digests(program: Sequence[str], folder: Path, path: str) -> dict[str, str]:
    """Run all encoders of the golden values in a program with one instruction set."""
    found = {}
    for name, (sizes, largest, _) in GOLDEN.items():
        encoder = RandomEncoder.make(sizes, seed=4, largest_weights=largest)
        file = encoder.to_file(folder / "input", 7, 13)
        subprocess.run([*program, path, str(file), str(folder / "output")], check=True)
        found[name] = hashlib.sha256((folder / "output").read_bytes()).hexdigest()
    return found


@pytest.mark.slow
@pytest.mark.skipif(QEMU is None or not cross_compiler(), reason="no qemu-aarch64 or no compiler for aarch64 is here")
@pytest.mark.parametrize("path", ["neon", "portable"])
def test_arm_gives_the_committed_bits(tmp_path: Path, path: str) -> None:
    compiler = cross_compiler()
    objects = compile_sources(tmp_path, compiler, machine="aarch64")
    runner = str(tmp_path / "runner.o")
    run([*compiler, "-xc++", f"-I{SOURCES}", "-c", str(RUNNER), "-o", runner])
    run([*compiler, runner, *objects, "-lm", "-o", str(tmp_path / "program")])
    expected = {name: digest for name, (_, _, digest) in GOLDEN.items()}
    assert _digests([str(QEMU), str(tmp_path / "program")], tmp_path, path) == expected


@pytest.mark.slow
@pytest.mark.skipif(not (SIMDE / "simde").is_dir() or not shutil.which("g++"), reason="SIMDe or g++ is not here")
@pytest.mark.parametrize("path", ["amx", "avx512vnni", "avxvnni"])
def test_emulated_instructions_give_the_committed_bits(library: Library, tmp_path: Path, path: str) -> None:
    if "avx2" not in library.paths:
        pytest.skip("the emulation itself needs AVX2")
    flags = [
        "-mavx2",
        "-mfma",
        "-DNERD_EMULATED",
        f"-I{SIMDE}",
        f"-DNERD_{path.upper()}",
        "-w",
        "-include",
        str(MORE_SIMDE),
    ]
    objects = [str(tmp_path / f"{name}.o") for name in ("library", "path")]
    for name, target in zip(("library", "path"), objects, strict=True):
        run(["g++", *FLAGS, *flags, "-c", str(SOURCES / f"{name}.cpp"), "-o", target])
    run(["g++", "-xc++", f"-I{SOURCES}", str(RUNNER), "-xnone", *objects, "-o", str(tmp_path / "program")])
    expected = {name: digest for name, (_, _, digest) in GOLDEN.items()}
    assert _digests([str(tmp_path / "program")], tmp_path, path) == expected
