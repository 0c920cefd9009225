"""
Fuzzing that follows coverage: ``python -m tests.hostile.coverage_fuzz TARGET CORPUS -max_total_time=600``.

atheris changes bytes where that reaches new lines of the program. TARGET is one of :mod:`fuzz`, such as
``plain.jsonl``; CORPUS a folder that keeps what reached something new; the rest goes to libFuzzer. For ``journal`` and
``work-folder``, the bytes choose the damages and their places, so that coverage leads to structures as well.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

# atheris sees the coverage only of modules that are imported inside of this block.
with atheris.instrument_imports(include=["nerd_onnx"]):
    from tests.hostile.fuzz import SHARES, read_file
    from tests.hostile.originals import originals
    from tests.hostile.work_folders import CASES_PER_RUN, WorkFolders

RUNS = 8  # different interrupted runs; the first byte chooses one


class BytesAsRandom(random.Random):
    """
    Random numbers that are read from bytes; zeros when these are used up.

    :param content: the bytes
    """

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._content = content
        self._at = 0

    # random.Random makes all its choices from this method and random().
    def getrandbits(self, k: int, /) -> int:
        """Return a number of k bits, from which the other methods make theirs."""
        size = (k + 7) // 8
        found = int.from_bytes(self._content[self._at : self._at + size], "little")
        self._at += size
        return found & (1 << k) - 1

    def random(self) -> float:
        """Return a number from 0 to 1."""
        return self.getrandbits(8) / 256


def file_target(name: str, folder: Path) -> Callable[[bytes], None]:
    """Return a function that reads bytes as a file of a kind."""

    def one(content: bytes) -> None:
        read_file(folder / name, content, random.Random(len(content)), "atheris")

    return one


def work_folder_target(name: str, folder: Path) -> Callable[[bytes], None]:
    """Return a function that damages a journal or a work folder as bytes say."""
    # One place for each, because they are made once.
    runs = [WorkFolders(folder / str(number)) for number in range(RUNS)]

    def one(content: bytes) -> None:
        rng = BytesAsRandom(content)

        number = rng.randrange(RUNS)
        run = runs[number].run_of(number * CASES_PER_RUN)
        (runs[number].journal if name == "journal" else runs[number].work_folder)(run, rng)

    return one


def main() -> None:
    """Run from the command line."""
    target, corpus = sys.argv[1], Path(sys.argv[2])
    if target not in SHARES:
        sys.exit(f"TARGET must be one of: {', '.join(SHARES)}")

    corpus.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="nerd-fuzz-"))
    files = originals()

    if target in files:
        for path in (Path(__file__).parent.parent / "golden").glob("*.jsonl"):
            (corpus / path.name).write_bytes(path.read_bytes())
        (corpus / "original").write_bytes(files[target])
        one = file_target(target, folder)
    else:
        # Damages and their places are chosen by bytes, so any bytes are a beginning.
        for number in range(RUNS):
            (corpus / f"run{number}").write_bytes(random.Random(number).randbytes(64))
        one = work_folder_target(target, folder)

    atheris.Setup([sys.argv[0], str(corpus), *sys.argv[3:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
