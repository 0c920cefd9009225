"""
Memory over a long run: ``python -m tests.durability.leaks --minutes 20 --log leaks.json``.

Two processes at once: one tags real text from a pipe, again and again, the other a folder of many small files. Their
resident size is sampled every second, and a line fitted through the samples after the warm-up may not rise. A run keeps
the name and the fingerprint of each finished file until its end: that much it may rise.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow.parquet as pq

from tests.conftest import SHARED
from tests.support.processes import command
from tests.support.runs import texts, write_lines

MB = 10**6
CORPORA = ("wikipedia_sentences.parquet", "novels_paragraphs.parquet", "speeches_and_masc.jsonl.gz")
WARM_UP = 0.25  # share of the samples, until buffers and heaps have their size
MOST_GROWTH_BYTES_PER_S = MB / 60
FILE_BYTES = 4000  # kept of a finished file; about 2,000 were measured
FILES_A_MINUTE = 6000  # more than are tagged
FILE_ROWS = 5


def rows() -> Iterator[str]:
    """Yield the texts of the corpora, or generated texts if they are missing, again and again."""
    found: list[str] = []
    for path in (SHARED / "corpora" / name for name in CORPORA):
        if path.suffix == ".parquet" and path.is_file():
            found += pq.read_table(path, columns=["text"])["text"].slice(0, 20_000).to_pylist()
        elif path.is_file():
            found += [json.loads(line)["text"] for line in gzip.decompress(path.read_bytes()).splitlines()]

    return cycle(text for text in found or texts(2000) if text)


def feed(pipe: IO[bytes]) -> None:
    """Write rows until the reader closes the pipe."""
    with suppress(BrokenPipeError):
        for text in rows():
            pipe.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")


def small_files(folder: Path, count: int) -> Path:
    """Write many files of a few short rows."""
    folder.mkdir()
    chosen = texts(2000)
    for i in range(count):
        # Never so near the end that a file would have fewer rows.
        at = i * FILE_ROWS % (len(chosen) - FILE_ROWS)
        write_lines(folder / f"{i:06}.jsonl", chosen[at : at + FILE_ROWS])
    return folder


def sampled(process: subprocess.Popen[bytes], seconds: float) -> list[tuple[float, int]]:
    """
    Sample the resident size of a process, and end it with a signal.

    :return: seconds since its start, and bytes
    :raises RuntimeError: when it ended before
    """
    samples: list[tuple[float, int]] = []
    begin = time.monotonic()
    while (now := time.monotonic() - begin) < seconds:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended after {now:.0f} s with exit code {process.returncode}")

        pages = Path(f"/proc/{process.pid}/statm").read_text("ascii").split()[1]
        samples.append((now, int(pages) * os.sysconf("SC_PAGE_SIZE")))
        time.sleep(1)

    process.terminate()
    process.wait()
    return samples


def growth(samples: list[tuple[float, int]], files: int = 0) -> dict[str, Any]:
    """
    Fit a line through the samples after the warm-up, and say whether it rises too much.

    :param files: number of files that were finished in all the time
    """
    seconds, sizes = np.array(samples[int(len(samples) * WARM_UP) :], dtype=np.float64).T
    slope = float(np.polyfit(seconds, sizes, 1)[0])
    allowed = MOST_GROWTH_BYTES_PER_S + FILE_BYTES * files / float(seconds[-1])

    return {
        "seconds": round(float(seconds[-1])),
        "least_mb": round(sizes.min() / MB),
        "most_mb": round(sizes.max() / MB),
        "growth_mb_per_minute": round(slope * 60 / MB, 3),
        "files": files,
        "leaks": slope > allowed,
        "mb_every_minute": [round(size / MB) for _, size in samples[::60]],
    }


def watched(minutes: float, model: str | None) -> dict[str, dict[str, Any]]:
    """Run both for so long, and tell how the memory of each went."""
    options = ["--quiet", "--threads", "1", *(["--model", model] if model else [])]
    with tempfile.TemporaryDirectory(prefix="nerd-leaks-") as name, ThreadPoolExecutor() as pool:
        folder = Path(name)
        files = small_files(folder / "in", int(minutes * FILES_A_MINUTE))
        kinds = {
            "stream": subprocess.Popen(
                command("-", "-", *options), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ),
            "small files": subprocess.Popen(command(files, folder / "out", *options), stderr=subprocess.DEVNULL),
        }

        try:
            # A thread of its own: the process stops reading while it tags, and the pipe is full then.
            threading.Thread(target=feed, args=[kinds["stream"].stdin], daemon=True).start()
            futures = {kind: pool.submit(sampled, process, minutes * 60) for kind, process in kinds.items()}
            samples = {kind: future.result() for kind, future in futures.items()}
        finally:
            for process in kinds.values():
                process.kill()
                process.wait()

        done = sum(1 for path in (folder / "out").rglob("*.jsonl") if path.parent.name != ".nerd-work")

    return {"stream": growth(samples["stream"]), "small files": growth(samples["small files"], done)}


def main() -> None:
    """Run from the command line; exit code 1 when memory grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--model", help="model folder  [default: the default model]")
    parser.add_argument("--log", type=Path)
    asked = parser.parse_args()

    found = watched(asked.minutes, asked.model)
    text = json.dumps(found, indent=1)
    print(text)
    if asked.log:
        asked.log.write_text(text + "\n")
    sys.exit(any(facts["leaks"] for facts in found.values()))


if __name__ == "__main__":
    main()
