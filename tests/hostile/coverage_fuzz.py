"""
Fuzzing that follows coverage: ``python -m tests.hostile.coverage_fuzz KIND CORPUS -max_total_time=600``.

atheris (``pip install atheris``) changes bytes where that reaches new lines of the program. KIND is a file name of
:mod:`fuzz`, such as ``plain.jsonl``; CORPUS a folder that keeps what reached something new; the rest goes to libFuzzer.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["nerd_onnx"]):
    from tests.hostile.fuzz import originals, read_file


def main() -> None:
    """Run from the command line."""
    kind, corpus = sys.argv[1], Path(sys.argv[2])
    corpus.mkdir(parents=True, exist_ok=True)
    for path in (Path(__file__).parent.parent / "golden").glob("*.jsonl"):
        (corpus / path.name).write_bytes(path.read_bytes())
    (corpus / "original").write_bytes(originals()[kind])
    folder = Path(tempfile.mkdtemp(prefix="nerd-fuzz-"))

    def one(content: bytes) -> None:
        read_file(folder / kind, content, random.Random(len(content)), "atheris")

    atheris.Setup([sys.argv[0], str(corpus), *sys.argv[3:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
