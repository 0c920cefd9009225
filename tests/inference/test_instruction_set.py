"""The same entities on an emulated processor without VNNI. This needs Debian's qemu-user and is skipped without it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.models import SAMPLE

QEMU = os.environ.get("NERD_TEST_QEMU") or shutil.which("qemu-x86_64")
RUN = """
import json, sys
from pathlib import Path
import nerd_onnx.machine.cpu as cpu
cpu.CPUINFO = Path(sys.argv[1])
from nerd_onnx import Tagger
texts = [json.loads(line)["text"] for line in open(sys.argv[2], encoding="utf-8")][:6]
tagger = Tagger.load(threads=1)
found = [[(e.start, e.end, e.label) for e in row] for row in tagger.tag(texts)]
print(json.dumps([found, tagger.bundle.kernels]))
"""


@pytest.mark.slow
@pytest.mark.skipif(QEMU is None, reason="qemu-x86_64 (Debian: qemu-user) is not installed, or NERD_TEST_QEMU not set")
def test_without_vnni_the_default_model_finds_the_same_entities(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags : avx2\n")
    arguments = ["-c", RUN, str(tmp_path / "cpuinfo"), str(SAMPLE)]
    here = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    emulated = subprocess.run(
        [
            str(QEMU),
            "-cpu",
            "Haswell",
            "-E",
            "LD_LIBRARY_PATH=",
            "-0",
            sys.executable,
            os.path.realpath(sys.executable),
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    expected, _ = json.loads(here.stdout)
    found, kernels = json.loads(emulated.stdout)
    assert sum(map(len, expected)) > 5
    assert kernels == "int8, AVX2"
    same = sum(one == other for one, other in zip(found, expected, strict=True))
    assert same >= len(expected) - 1  # fp32 kernels differ in their last bits, so one near tie may fall
