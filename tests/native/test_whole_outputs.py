"""Texts to entities with the default model: the committed fingerprint, whatever the processor, threads and batches."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from nerd_onnx.inference import kernels
from nerd_onnx.inference.kernels import Kernel
from nerd_onnx.native.library import Library
from nerd_onnx.tagger import Tagger
from tests.support.models import sample_texts

# SHA-256 of all entities of the first sample texts, with every digit of their scores. It changes with the model.
TEXTS = 24
ENTITIES = "2e8e6578d9fdb3d0e4b92972cab726d041ee73622522cb91860bca69d7680f34"
PROGRAM = """
import sys
from pathlib import Path
from nerd_onnx.inference import kernels
from nerd_onnx.native.library import Library
from tests.native.test_whole_outputs import digest
library = Library.load(Path(sys.argv[1]))
kernels.installed = lambda: library
print(digest())
"""


def digest(kernel: Kernel = "native", threads: int | None = None, batch_tokens: int = 512) -> str:
    """Return the fingerprint of the entities that the native encoder finds."""
    tagger = Tagger.load(kernel=kernel, threads=threads, batch_tokens=batch_tokens)
    found = tagger.tag(sample_texts()[:TEXTS])
    tagger.close()

    rows = [[(e.start, e.end, e.label, e.fine_label, e.score.hex()) for e in row or []] for row in found]
    assert sum(map(len, rows)) > TEXTS
    return hashlib.sha256(repr(rows).encode()).hexdigest()


@pytest.mark.parametrize(("threads", "batch_tokens"), [(None, 512), (1, 512), (3, 70)])
def test_entities_are_those_that_are_committed(
    library: Library, monkeypatch: pytest.MonkeyPatch, threads: int | None, batch_tokens: int
) -> None:
    monkeypatch.setattr(kernels, "installed", lambda: library)
    assert digest(threads=threads, batch_tokens=batch_tokens) == ENTITIES


def test_entities_do_not_depend_on_the_code_that_numpy_chooses(library: Library) -> None:
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": "FMA3 AVX2 AVX512F AVX512_SKX X86_V3 X86_V4"}
    program = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(library.file)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == ENTITIES, done.stderr


@pytest.mark.slow
def test_plain_code_finds_the_committed_entities(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "installed", lambda: library)
    assert digest("portable") == ENTITIES
