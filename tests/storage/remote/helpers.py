"""What tests of stores share: inputs over 10 MB, runs of the program, a look into its work."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from tests.support.processes import command

ROWS = 200


def write_large(folder: Path, rows: list[str]) -> None:
    noise = random.Random(3)
    payload = [noise.randbytes(70_000) for _ in rows]
    table = pa.table({"payload": pa.array(payload, pa.binary()), "text": rows})
    pq.write_table(table, folder / "large.parquet", row_group_size=50)
    lines = [
        json.dumps({"payload": base64.b64encode(noise).decode(), "text": text})
        for noise, text in zip(payload, rows, strict=True)
    ]
    (folder / "large.jsonl").write_text("\n".join(lines) + "\n")


Run = Callable[..., subprocess.CompletedProcess[str]]


def start(environment: dict[str, str], *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True, env=environment)


def local(tagger: Tagger, source: Path, target: Path) -> bytes:
    """Return what a run from file to file writes, made in this process."""
    tag_files(tagger, TagJob([str(source)], str(target)))
    return target.read_bytes()


def fail(done: subprocess.CompletedProcess[str], *said: str) -> str:
    """Check that a run failed in one line that names what it should."""
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    for part in said:
        assert part in done.stderr
    return done.stderr


def journals(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "work").glob("*/journal.jsonl"))


def events(tmp_path: Path, kind: str) -> int:
    return sum(path.read_text().count(f'"event": "{kind}"') for path in journals(tmp_path))


def wait_until(met: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not met():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
