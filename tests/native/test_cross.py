"""The library for other systems: compiled here, with the functions that Python calls, in the format of that system."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from nerd_onnx.native.build import BuildError
from nerd_onnx.native.cross import TARGETS, cross_build
from tests.conftest import ROOT
from tests.native.test_other_processors import ZIG

FUNCTIONS = ("nerd_open", "nerd_path", "nerd_paths", "nerd_scratch_open", "nerd_function")
# The first bytes of a file, and where its processor is named: ELF's e_machine, Mach-O's cputype.
_ELF, _MACH, _PE = b"\x7fELF", b"\xcf\xfa\xed\xfe", b"MZ"
EXPECTED = {
    "manylinux_2_17_x86_64": (_ELF, 18, "<H", 62),
    "manylinux_2_17_aarch64": (_ELF, 18, "<H", 183),
    "macosx_11_0_arm64": (_MACH, 4, "<I", 0x0100000C),
    "win_amd64": (_PE, None, "<H", 0x8664),
}


def test_make_wheels_makes_all_targets() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    line = re.search(r"^WHEELS \?= (.*)$", makefile, re.MULTILINE)
    assert line is not None
    assert line[1].split() == list(TARGETS)


@pytest.mark.slow
@pytest.mark.skipif(not ZIG, reason="NERD_TEST_ZIG names no interpreter that has the package ziglang")
@pytest.mark.parametrize("platform", TARGETS)
def test_a_library_of_another_system(platform: str, tmp_path: Path) -> None:
    library = cross_build(platform, tmp_path / "new", str(ZIG))
    content = library.read_bytes()
    magic, place, layout, machine = EXPECTED[platform]

    assert content.startswith(magic)
    if place is None:  # behind the header whose place is in the header before
        place = struct.unpack_from("<I", content, 0x3C)[0] + 4
    assert struct.unpack_from(layout, content, place)[0] == machine
    assert all(name.encode() in content for name in FUNCTIONS)


def test_an_interpreter_without_the_compiler_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError):
        cross_build("win_amd64", tmp_path, str(tmp_path / "python"))
