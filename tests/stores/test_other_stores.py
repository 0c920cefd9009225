"""Stores other than S3: file systems of fsspec, file:// and http://."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from nerd_onnx.errors import InputError, NerdError, OutputError
from nerd_onnx.job import TagJob
from nerd_onnx.run import tag_files
from nerd_onnx.stored_models import load_bundle
from nerd_onnx.tables import uploads
from nerd_onnx.tagger import Tagger
from tests.faults.helpers import in_child, kill, tree
from tests.faults.processes import KILLED
from tests.stores.helpers import ROWS


def test_any_filesystem_of_fsspec(
    tagger: Tagger, data: Path, tmp_path: Path, job: Callable[..., TagJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(memory, "store", {})
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
    with pytest.raises(OutputError, match=r"^memory://out/a.jsonl: exists already"):
        tag_files(tagger, job("memory://out/a.jsonl"))
    memory.pipe("/models/tiny/x", b"")
    with pytest.raises(NerdError, match="no such model folder"):
        load_bundle("memory://models/tiny")


def test_a_store_without_whole_writes_shows_no_part(tagger: Tagger, tmp_path: Path, job: Callable[..., TagJob]) -> None:
    # Local files of fsspec grow under their name.
    output = tmp_path / "out" / "o.jsonl"
    going = job(f"local://{output}")

    def dies_in_the_middle() -> None:
        uploads._WRITE_BYTES = 1000
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
        with pytest.raises(InputError, match=r"^http://127.0.0.1:\d+/no.jsonl: no such file$"):
            tag_files(tagger, job(str(tmp_path / "p.jsonl"), f"{url}/no.jsonl?signature=hush"))
        web.shutdown()
    tag_files(tagger, job(str(tmp_path / "p.jsonl")))
    assert (tmp_path / "o.jsonl").read_bytes() == (tmp_path / "p.jsonl").read_bytes()
