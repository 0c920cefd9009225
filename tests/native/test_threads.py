"""Several threads in the native encoder at once, watched by the thread sanitizer of g++."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nerd_onnx.native.build import SOURCES, compile_sources, run
from nerd_onnx.native.library import PORTABLE
from tests.support.encoders import RandomEncoder, Sizes

PROGRAM = Path(__file__).with_name("run_threads.cpp")
_FLAGS = ("-g", "-O1", "-fsanitize=thread")
_FOUND = 66  # the exit code of a race
_SIZES = Sizes(layers=1, heads=4, embedding=32, padding=1, relative=True)  # all that an encoder may have

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not here")]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Compile the program and the native encoder with the sanitizer."""
    folder = tmp_path_factory.mktemp("threads")
    objects = compile_sources(folder, ["g++"], flags=_FLAGS)
    target = str(folder / "program")
    flags = ("-std=c++17", "-pthread", *_FLAGS)
    run(["g++", "-xc++", f"-I{SOURCES}", *flags, str(PROGRAM), "-xnone", *objects, "-o", target])
    return target


def _run(program: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the program on a random encoder, until the first race."""
    path, *rest = options
    file = RandomEncoder.make(_SIZES).to_file(folder / "encoder", 2, 17)
    # The sanitizer needs memory where it expects it: no random addresses.
    command = ["setarch", "-R"] if shutil.which("setarch") else []
    command += [program, path, str(file), *rest]
    environment = os.environ | {"TSAN_OPTIONS": f"halt_on_error=1:exitcode={_FOUND}"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)


@pytest.mark.parametrize("path", ["", PORTABLE])
def test_threads_do_not_race(program: str, tmp_path: Path, path: str) -> None:
    done = _run(program, tmp_path, path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_sanitizer_finds_memory_that_threads_share(program: str, tmp_path: Path) -> None:
    done = _run(program, tmp_path, "", "one-scratch")
    assert done.returncode == _FOUND
    assert "data race" in done.stderr
