"""Fixtures for tests of stores: a real S3 server, inputs, the small model."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nerd_onnx.cli.tag import main
from nerd_onnx.storage import remote
from nerd_onnx.tagging.job import TagJob
from tests.storage.remote.helpers import ROWS, write_large
from tests.support.commands import runner
from tests.support.runs import texts, write_lines, write_parquet
from tests.support.s3_server import S3, serving
from tests.support.shared import made_once


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """Run a server for all tests."""
    with serving(tmp_path_factory.mktemp("server") / "log") as running:
        yield running


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """Return the server, emptied; this process can use it too."""
    server.use(monkeypatch)
    server.clear()
    return server


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the inputs: small ones, and some of over 10 MB, most of it in a column that nobody looks at."""
    return made_once(tmp_path_factory, "storage/data", _write_inputs)


def _write_inputs(folder: Path) -> None:
    folder.mkdir()
    rows = texts(ROWS)
    write_parquet(folder / "a.parquet", rows, 50)
    write_lines(folder / "a.jsonl.gz", rows)
    write_lines(folder / "a.jsonl", rows)
    write_large(folder, rows)
    for part, name in enumerate(("year=2024/a.parquet", "year=2024/b c%20.parquet", "year=2025/ü.jsonl")):
        (folder / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        write = write_lines if name.endswith("jsonl") else write_parquet
        write(folder / "set" / name, rows[part * 30 :][:30])


@pytest.fixture
def run(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the program to its end, in this process, and returns what a process would."""
    nerd_tag = runner("nerd-tag", main, monkeypatch, capfd)

    def runs(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        asked = (*arguments, "--model", tiny_bundle, "--work-dir", tmp_path / "work")
        before = dict(os.environ)
        try:
            os.environ.update(environment or {})
            remote.arrow_filesystem.cache_clear()  # clients keep the address and the keys that they were made with
            return subprocess.CompletedProcess([*map(str, asked)], *nerd_tag(*asked))
        finally:
            os.environ.clear()
            os.environ.update(before)
            remote.arrow_filesystem.cache_clear()

    return runs


@pytest.fixture
def job(data: Path, tmp_path: Path) -> Callable[..., TagJob]:
    """Return a function that makes a job of the small file."""

    def makes(output: str, source: str | None = None, **options: Any) -> TagJob:
        return TagJob([source or str(data / "a.jsonl")], output, work_dir=str(tmp_path / "work"), **options)

    return makes
