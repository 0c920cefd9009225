"""Stores other than S3: file systems of fsspec, file:// and http://."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from nerd_onnx.errors import InputError, NerdError, OutputError
from nerd_onnx.inference.remote_bundle import load_bundle
from nerd_onnx.storage import uploads
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from tests.storage.remote.helpers import ROWS
from tests.support.failures import fails, failure_of
from tests.support.processes import KILLED, command
from tests.support.runs import in_child, kill, tree


def test_any_filesystem_of_fsspec(
    tagger: Tagger, data: Path, tmp_path: Path, job: Callable[..., TagJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(type(memory), "store", {})  # all instances share it
    memory.pipe("/in/set/a.jsonl", (data / "a.jsonl").read_bytes())
    memory.pipe("/in/set/b.parquet", (data / "a.parquet").read_bytes())
    tag_files(tagger, job(str(tmp_path / "o.jsonl")))
    tag_files(tagger, job(str(tmp_path / "o.parquet"), str(data / "a.parquet")))
    tag_files(tagger, job("memory://out/", "memory://in/set"))
    assert memory.cat("/out/a.jsonl") == (tmp_path / "o.jsonl").read_bytes()
    assert memory.cat("/out/b.parquet") == (tmp_path / "o.parquet").read_bytes()
    assert memory.find("/out") == ["/out/a.jsonl", "/out/b.parquet"]
    tag_files(tagger, job("memory://out/a.jsonl", overwrite=True, limit=3))
    assert memory.cat("/out/a.jsonl").count(b"\n") == 3
    with fails(OutputError, "output-exists", file="memory://out/a.jsonl"):
        tag_files(tagger, job("memory://out/a.jsonl"))
    memory.pipe("/models/tiny/x", b"")
    with fails(NerdError, "missing-model"):
        load_bundle("memory://models/tiny")


def test_a_store_without_whole_writes_shows_no_part(tagger: Tagger, tmp_path: Path, job: Callable[..., TagJob]) -> None:
    # Local files of fsspec grow under their name.
    output = tmp_path / "out" / "o.jsonl"
    going = job(f"local://{output}")

    def dies_in_the_middle() -> None:
        uploads.WRITE_BYTES = 1000
        read = uploads.StoredFile.commit

        def commits(self: uploads.StoredFile) -> None:
            whole = self.file

            class Dying:
                def read(self, size: int) -> bytes:
                    if whole.tell() > 5000:
                        kill()
                    return whole.read(size)

                def __getattr__(self, name: str) -> Any:
                    return getattr(whole, name)

            self.file = Dying()  # type: ignore[assignment]
            read(self)

        uploads.StoredFile.commit = commits  # type: ignore[method-assign]
        tag_files(tagger, going)

    assert in_child(dies_in_the_middle) == KILLED
    assert [path.name for path in output.parent.iterdir()] == [".o.jsonl.nerd-part"]
    report = tag_files(tagger, job(going.output, resume=True))
    assert report.resumed_rows == ROWS
    tag_files(tagger, job(str(tmp_path / "o.jsonl")))
    assert tree(output.parent) == {"o.jsonl": (tmp_path / "o.jsonl").read_bytes()}


def test_file_uris_are_files(tiny_bundle: Path, data: Path, tmp_path: Path, job: Callable[..., TagJob]) -> None:
    tag_files(Tagger.load(f"file://{tiny_bundle}"), job(f"file://{tmp_path}/o%20o.jsonl", f"file://{data}/a.jsonl"))
    assert [path.name for path in tmp_path.iterdir()] == ["o o.jsonl"]


def test_inputs_over_http(tagger: Tagger, data: Path, tmp_path: Path, job: Callable[..., TagJob]) -> None:
    pytest.importorskip("aiohttp")
    handler = partial(SimpleHTTPRequestHandler, directory=str(data))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        Thread(target=web.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{web.server_address[1]}"
        tag_files(tagger, job(str(tmp_path / "o.jsonl"), f"{url}/a.jsonl?signature=hush"))
        with fails(InputError, "missing-file"):
            tag_files(tagger, job(str(tmp_path / "p.jsonl"), f"{url}/no.jsonl?signature=hush"))
        web.shutdown()
    tag_files(tagger, job(str(tmp_path / "p.jsonl")))
    assert (tmp_path / "o.jsonl").read_bytes() == (tmp_path / "p.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "uri"),
    [
        ("fsspec.core", "hf://datasets/us/x/a.jsonl"),
        ("huggingface_hub", "hf://us/x/a.jsonl"),
        ("aiohttp", "http://x/a"),
    ],
)
def test_a_package_that_is_missing_is_said(missing: str, uri: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from nerd_onnx.cli.tag import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, uri, str(tmp_path / "o.jsonl")], capture_output=True, text=True, check=False
    )
    scheme = uri.partition(":")[0]
    said = f"{uri}: a package that {scheme}:// needs is missing: pip install 'nerd-onnx[stores]'"
    assert (done.returncode, done.stderr) == (1, f"nerd-tag: error: {said}\n")


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_is_said(tmp_path: Path) -> None:
    uri = "hf://datasets/us/x/a.jsonl"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    done = subprocess.run(
        command(uri, tmp_path / "o.jsonl", "--json"),
        env={**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{closed}"},
        capture_output=True,
        text=True,
        check=False,
    )
    failure = failure_of(done.stderr)
    assert (done.returncode, failure["reason"], failure["file"]) == (1, "unreachable", uri)
