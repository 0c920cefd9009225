"""What arrives in a store: the bytes of a local run, under the right names."""

from __future__ import annotations

import json
import os
import random
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nerd_onnx.errors import InputError
from nerd_onnx.storage.location import Location
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.file_pairs import file_pairs
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from tests.storage.remote.helpers import Run, fail, local
from tests.support.failures import fails
from tests.support.marks import slow_but
from tests.support.runs import texts, tree
from tests.support.s3_server import KEYS, S3, Link


@pytest.mark.parametrize(
    ("source", "target"),
    slow_but(
        [("a.parquet", "o.parquet"), ("large.jsonl", "o.jsonl")],
        [
            ("a.parquet", "o.parquet"),
            ("a.jsonl.gz", "o.jsonl.gz"),
            ("a.jsonl.gz", "o.parquet"),
            ("a.parquet", "o.jsonl.zst"),
            ("large.parquet", "o.parquet"),
            ("large.jsonl", "o.jsonl"),
        ],
    ),
)
def test_a_store_gets_the_bytes_of_a_local_run(
    s3: S3, tagger: Tagger, data: Path, tmp_path: Path, source: str, target: str
) -> None:
    tag_files(tagger, TagJob([str(data / source)], str(tmp_path / target)))
    expected = (tmp_path / target).read_bytes()
    s3.put(f"in/{source}", (data / source).read_bytes())
    work = tmp_path / "work"
    tag_files(tagger, TagJob([s3.uri(f"in/{source}")], s3.uri(f"out/{target}"), work_dir=str(work)))
    assert s3.get(f"out/{target}") == expected
    assert s3.keys() == [f"in/{source}", f"out/{target}"]
    assert (s3.parts(f"out/{target}") > 1) == (len(expected) > 10 << 20)
    assert s3.unfinished_uploads() == []
    assert list(work.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("opener", [pa.ipc.new_file, pa.ipc.new_stream])
def test_arrow_in_a_store(s3: S3, tagger: Tagger, tmp_path: Path, opener: Any) -> None:
    rows = pa.table({"text": texts(50)})
    source, target = tmp_path / "a.arrow", tmp_path / "o.arrow"
    with opener(str(source), rows.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(rows, max_chunksize=20)
    expected = local(tagger, source, target)
    s3.put("a.arrow", source.read_bytes())
    tag_files(tagger, TagJob([s3.uri("a.arrow")], s3.uri("o.arrow"), work_dir=str(tmp_path / "work")))
    assert s3.get("o.arrow") == expected

    for damaged in (source.read_bytes()[:-9], source.read_bytes() * 2):
        s3.put("a.arrow", damaged)
        job = TagJob([s3.uri("a.arrow")], s3.uri("p.arrow"), work_dir=str(tmp_path / "work"), overwrite=True)
        if opener is pa.ipc.new_stream or len(damaged) < source.stat().st_size:
            with fails(InputError, "damaged-arrow"):
                tag_files(tagger, job)


@pytest.mark.slow
def test_a_store_at_one_end_only(s3: S3, run: Run, tagger: Tagger, data: Path, tmp_path: Path) -> None:
    expected = local(tagger, data / "a.parquet", tmp_path / "o.parquet")
    assert run(data / "a.parquet", s3.uri("o.parquet"), environment=s3.environment()).returncode == 0
    assert s3.get("o.parquet") == expected
    s3.put("a.parquet", (data / "a.parquet").read_bytes())
    endpoint = f"?endpoint_override={s3.url}"
    environment = {**os.environ, **KEYS}
    assert run(s3.uri("a.parquet") + endpoint, tmp_path / "p.parquet", environment=environment).returncode == 0
    assert (tmp_path / "p.parquet").read_bytes() == expected
    assert run(data / "a.parquet", s3.uri("out/") + endpoint, environment=environment).returncode == 0
    assert s3.get("out/a.parquet") == expected


@pytest.mark.slow
def test_a_folder_is_mirrored(s3: S3, run: Run, data: Path, tmp_path: Path) -> None:
    assert run(data / "set", tmp_path / "out").returncode == 0
    for name, content in tree(data / "set").items():
        s3.put(f"in/{name}", content)
    for name in ("_SUCCESS", "_temporary/x.parquet", ".a.parquet.crc", "readme.txt"):
        s3.put(f"in/{name}", b"no rows")
    for source in ("in", "in/year=*"):
        done = run(s3.uri(source), s3.uri("out/"), "--overwrite", environment=s3.environment())
        assert done.returncode == 0, done.stderr
        assert s3.tree("out/") == tree(tmp_path / "out")
    again = run(s3.uri("in"), s3.uri("out"), "--resume", "--json", environment=s3.environment())
    assert json.loads(again.stderr)["finished_before"] == 3
    fail(run(s3.uri("in"), s3.uri(""), environment=s3.environment()), s3.uri("in"))


def test_what_goes_where(s3: S3) -> None:
    for key in ("a/x=1/p.parquet", "a/x=2/p.parquet", "a/x=2/deep/q.jsonl", "a/r.txt", "b/s.jsonl"):
        s3.put(key, b"{}")

    def names(*sources: str) -> dict[str, str]:
        pairs = file_pairs(
            [Location(s3.uri(source)) for source in sources], Location("s3://corpora/out?region=x"), lambda _: None
        )
        assert all(pair.output.text == f"s3://corpora/out/{pair.name}?region=x" for pair in pairs)
        return {pair.name: pair.input.text.removeprefix(s3.uri("")) for pair in pairs}

    assert list(names("a")) == ["x=1/p.parquet", "x=2/deep/q.jsonl", "x=2/p.parquet"]
    assert list(names("a/x=2")) == ["deep/q.jsonl", "p.parquet"]
    assert list(names("a/*/p.parquet")) == ["x=1/p.parquet", "x=2/p.parquet"]
    assert list(names("a/x=[2-9]")) == ["x=2/deep/q.jsonl", "x=2/p.parquet"]
    assert list(names("a/**/*.jsonl")) == ["x=2/deep/q.jsonl"]
    assert list(names("a/*.txt")) == ["r.txt"]
    assert names("a/x=1/p.parquet", "b/s.jsonl") == {"a/x=1/p.parquet": "a/x=1/p.parquet", "b/s.jsonl": "b/s.jsonl"}
    for nothing in ("a/*.parquet", "c/*"):
        with fails(InputError, "no-files"):
            names(nothing)


@pytest.mark.slow
def test_parquet_is_read_in_place(s3: S3, run: Run, tmp_path: Path) -> None:
    rows = texts(40)
    payload = pa.array([random.Random(row).randbytes(1 << 20) for row in range(40)], pa.binary())
    pq.write_table(pa.table({"payload": payload, "text": rows}), tmp_path / "a.parquet", row_group_size=1)
    s3.put("a.parquet", (tmp_path / "a.parquet").read_bytes())
    with Link(s3.address) as link:
        done = run(s3.uri("a.parquet"), tmp_path / "o.parquet", "--limit", 2, environment=s3.environment(link.address))
        assert done.returncode == 0, done.stderr
        fetched = link.received_bytes
    assert pq.read_metadata(tmp_path / "o.parquet").num_rows == 2
    assert fetched < 10 << 20  # of 40: two fingerprints of 2, two row groups, and one of them to know the codecs


def test_rejects_in_a_store(s3: S3, run: Run, data: Path) -> None:
    lines = (data / "a.jsonl").read_bytes().splitlines(keepends=True)
    s3.put("in/a.jsonl", b"".join([lines[0], b"{broken\n", *lines[2:9]]))
    asked = partial(run, environment=s3.environment())
    done = asked(s3.uri("in/"), s3.uri("out/"), "--on-error", "skip", "--rejects", s3.uri("rejects.jsonl"))
    assert done.returncode == 3, done.stderr
    rejects = s3.get("rejects.jsonl")
    assert rejects is not None
    assert json.loads(rejects)["raw"] == "{broken"
    s3.put("in/a.jsonl", b"".join(lines[:9]))
    again = asked(s3.uri("in/"), s3.uri("again/"), "--retry-rejects", s3.uri("rejects.jsonl"), "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stderr)["rows"] == 1
