"""Time and memory of ``nerd-tag`` by number of rows, length of a text and number of threads; and its start."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.inputs.workloads import KINDS, Workload
from benchmarks.measurements.measure import Tell, figures
from benchmarks.processes.process import run_process
from nerd_export.data.sample import sample_texts

_SHORT_ROW = 40  # characters; short, so that many rows take little time
_STARTS = 5


def growth_with_rows(rows: Sequence[int], shared: Path, folder: Path, model: Path, tell: Tell) -> list[dict[str, Any]]:
    """Tag files with increasing numbers of rows. Each row is the start of a text with a number, so all differ."""
    # Different rows: equal ones would be tagged once, and time would hardly grow.
    texts = _corpus_texts(shared)
    points = []

    for count in rows:
        path = folder / "growth.rows.parquet"
        rows_of_file = [
            f"{text[:_SHORT_ROW]} {i}" for i, text in zip(range(count), itertools.cycle(texts), strict=False)
        ]
        pq.write_table(pa.table({"text": rows_of_file}), path)
        points.append({"rows": count, **_run(path, model)})
        tell(f"growth: {count:,} rows, {points[-1]['seconds']:.1f} s, {points[-1]['peak_rss_bytes'] / 1e6:.0f} MB")

    return points


def growth_with_length(
    lengths: Sequence[int], shared: Path, folder: Path, model: Path, tell: Tell
) -> list[dict[str, Any]]:
    """Tag one text with increasing numbers of characters."""
    # Prefixes of one text, so that the points differ in length alone.
    whole = _long_text(shared, max(lengths))
    points = []
    for length in lengths:
        path = folder / "growth.length.parquet"
        pq.write_table(pa.table({"text": [whole[:length]]}), path)
        points.append({"characters": length, **_run(path, model)})
        tell(f"growth: a text of {length:,} characters, {points[-1]['seconds']:.1f} s")
    return points


def growth_with_threads(
    threads: Sequence[int], workload: Workload, rounds: int, model: Path, tell: Tell
) -> list[dict[str, Any]]:
    """Tag a workload with increasing numbers of threads, in interleaved rounds."""
    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in threads}
    # Interleaved, so that a slow phase of the machine affects all thread counts.
    for _ in range(rounds):
        for count, done in runs.items():
            done.append(_run(workload.path, model, "--threads", str(count)))

    points = [
        {
            "threads": count,
            "tokens_per_s": figures([workload.tokens / run["seconds"] for run in done]),
            "peak_rss_bytes": max(run["peak_rss_bytes"] for run in done),
        }
        for count, done in runs.items()
    ]
    for point in points:
        tell(f"growth: {point['threads']} threads, {point['tokens_per_s']['median']:,.0f} tokens/s")
    return points


def start_up(folder: Path, model: Path) -> dict[str, Any]:
    """Measure the process of ``nerd-tag --help`` and of tagging one row, both after a run that is not counted."""
    path = folder / "start.parquet"
    pq.write_table(pa.table({"text": sample_texts()[:1]}), path)
    target = path.with_suffix(".out.parquet")
    nerd_tag: list[str | Path] = [sys.executable, "-m", "nerd_onnx.cli"]
    tag: list[str | Path] = [*nerd_tag, path, target, "--model", model, "--overwrite", "--quiet", "--json"]

    return {
        "help_s": figures(_times(lambda: run_process([*nerd_tag, "--help"], folder, prints_json=False).wall_s)),
        "first_entity_s": figures(_times(lambda: run_process(tag, folder).wall_s)),
        "commands": {"help_s": "nerd-tag --help", "first_entity_s": "nerd-tag one-row.parquet out.parquet"},
    }


def _times(action: Callable[[], float]) -> list[float]:
    action()  # fills the disk cache
    return [action() for _ in range(_STARTS)]


def _corpus_texts(shared: Path) -> list[str]:
    """Return sentences of the real corpus, or the sample texts if it is missing."""
    corpus = shared / "corpora" / KINDS["short"].file
    if not corpus.is_file():
        return sample_texts()
    texts: list[str] = next(pq.ParquetFile(corpus).iter_batches(columns=["text"]))["text"].to_pylist()
    return texts


def _long_text(shared: Path, length: int) -> str:
    """Return a text with at least ``length`` characters."""
    corpus = shared / "corpora" / KINDS["novels"].file
    parts = pq.read_table(corpus, columns=["text"])["text"].to_pylist() if corpus.is_file() else sample_texts()

    text = ""
    for part in itertools.cycle(parts):
        text += f"{part}\n\n"
        if len(text) >= length:
            return text
    raise AssertionError  # a cycle does not end


def _run(path: Path, model: Path, *options: str) -> dict[str, Any]:
    """Tag a file with the command, and return its seconds and tokens, and the peak memory of the process."""
    target = path.with_suffix(".out.parquet")
    command: list[str | Path] = [sys.executable, "-m", "nerd_onnx.cli", path, target, "--model", model, *options]

    done = run_process([*command, "--overwrite", "--quiet", "--json"], path.parent)
    return {
        "seconds": float(done.message["seconds"]),
        "tokens": int(done.message["tokens"]),
        "peak_rss_bytes": done.peak_rss_bytes,
    }
