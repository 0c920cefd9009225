"""What the tests of the engines share: rows, the local run to compare with, runs of the program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nerd_onnx.storage.location import Location
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.file_pairs import file_pairs
from nerd_onnx.tagging.job import TagJob, TagReport
from nerd_onnx.tagging.run import tag_files
from tests.support.runs import texts, write_lines, write_parquet

ROWS = 240


def table(rows: int = ROWS) -> pa.Table:
    """Make rows with an empty text, missing ones, and columns of several kinds beside it."""
    found: list[str | None] = [None, "", *texts(rows - 3), None]
    return pa.table(
        {
            "key": pa.array(range(rows), pa.int64()),
            "text": found,
            "part": pa.array([["a", "ß"] if i % 3 else None for i in range(rows)], pa.list_(pa.string())),
        }
    )


def local_rows(rows: pa.Table, folder: Path, model: str | None = None, **options: Any) -> list[dict[str, Any]]:
    """Return what the local run makes of rows, through files."""
    source, output = folder / "rows.parquet", folder / "tagged.parquet"
    pq.write_table(rows, source)
    tag_files(Tagger.load(model, threads=2, **options), TagJob([str(source)], str(output), overwrite=True))
    found: list[dict[str, Any]] = pq.read_table(output).to_pylist()
    return found


def tag(source: Path | str, output: Path, **options: Any) -> TagReport:
    """Tag files with the default model."""
    return tag_files(Tagger.load(threads=1), TagJob([str(source)], str(output), **options))


def pairs(path: Path | str) -> list[str]:
    """Return the names of the files that a run over a folder tags."""
    return [pair.name for pair in file_pairs([Location.of(path)], Location("out/"), lambda _: None)]


def corpus(folder: Path, rows: int = 60) -> Path:
    """Make a folder of Parquet and JSON Lines files, one of them in a folder of its own."""
    (folder / "deep").mkdir(parents=True)
    found = texts(4 * rows)
    write_parquet(folder / "a.parquet", found[:rows], row_group_size=25)
    write_parquet(folder / "deep" / "b.parquet", found[rows : 2 * rows], row_group_size=1000)
    write_lines(folder / "c.jsonl", [*found[2 * rows : 3 * rows], "São Paulo, “Łódź” and 東京 \U0001f600"])
    write_lines(folder / "d.jsonl.gz", found[3 * rows :])
    return folder


def command(*arguments: object) -> list[str]:
    """Return the command line of the program under test."""
    return [sys.executable, "-m", "nerd_onnx.cli", *map(str, arguments), "--json"]


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=900, **options)


def summary(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the summary, or the error: the last line, after what the engine itself says."""
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout == ""
    found: dict[str, Any] = json.loads(done.stderr.strip().splitlines()[-1])
    return found
