"""Inputs, outputs and models in stores: S3 against a real server, others through fsspec."""

from __future__ import annotations

import base64
import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nerd_onnx.errors import InputError, ModelError, NerdError, OutputError, StoreError
from nerd_onnx.job import TagJob, TagReport
from nerd_onnx.run import tag_files
from nerd_onnx.stored_models import load_bundle
from nerd_onnx.tables import stores, uploads
from nerd_onnx.tables.file_pairs import file_pairs
from nerd_onnx.tables.rows import Source
from nerd_onnx.tagger import Tagger
from tests.faults.helpers import in_child, kill, texts, tree, write_lines, write_parquet
from tests.faults.processes import KILLED, command
from tests.s3_server import KEYS, S3, Link, serving

ROWS = 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """Run a server for all tests."""
    with serving(tmp_path_factory.mktemp("server") / "log") as running:
        yield running


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """Give the server, empty, also to this process."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(name, value)
    stores._arrow_filesystem.cache_clear()
    server.clear()
    return server


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the inputs: small ones, and some of over 10 MB, most of it in a column that nobody looks at."""
    folder = tmp_path_factory.mktemp("data")
    rows = texts(ROWS)
    write_parquet(folder / "a.parquet", rows, 50)
    write_lines(folder / "a.jsonl.gz", rows)
    write_lines(folder / "a.jsonl", rows)
    write_large(folder, rows)
    for part, name in enumerate(("year=2024/a.parquet", "year=2024/b c%20.parquet", "year=2025/ü.jsonl")):
        (folder / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        write = write_lines if name.endswith("jsonl") else write_parquet
        write(folder / "set" / name, rows[part * 30 :][:30])
    return folder


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


@pytest.fixture(scope="module")
def tagger(tiny_bundle: Path) -> Tagger:
    """Load the small model."""
    return Tagger.load(tiny_bundle)


@pytest.fixture
def run(tiny_bundle: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Give a function that runs the program to its end."""

    def runs(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        asked = command(*arguments, "--model", tiny_bundle, "--work-dir", tmp_path / "work")
        return subprocess.run(asked, capture_output=True, text=True, check=False, env=environment, timeout=120)

    return runs


Run = Callable[..., subprocess.CompletedProcess[str]]


def start(environment: dict[str, str], *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True, env=environment)


def local(run: Run, source: Path, target: Path) -> bytes:
    """Tag a file to a file, as every other test knows it."""
    done = run(source, target)
    assert done.returncode == 0, done.stderr
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


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("a.parquet", "o.parquet"),
        ("a.jsonl.gz", "o.jsonl.gz"),
        ("a.jsonl.gz", "o.parquet"),
        ("a.parquet", "o.jsonl.zst"),
        ("large.parquet", "o.parquet"),
        ("large.jsonl", "o.jsonl"),
    ],
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


def test_a_store_at_one_end_only(s3: S3, run: Run, data: Path, tmp_path: Path) -> None:
    expected = local(run, data / "a.parquet", tmp_path / "o.parquet")
    assert run(data / "a.parquet", s3.uri("o.parquet"), environment=s3.environment()).returncode == 0
    assert s3.get("o.parquet") == expected
    s3.put("a.parquet", (data / "a.parquet").read_bytes())
    endpoint = f"?endpoint_override={s3.url}"
    environment = {**os.environ, **KEYS}
    assert run(s3.uri("a.parquet") + endpoint, tmp_path / "p.parquet", environment=environment).returncode == 0
    assert (tmp_path / "p.parquet").read_bytes() == expected
    assert run(data / "a.parquet", s3.uri("out/") + endpoint, environment=environment).returncode == 0
    assert s3.get("out/a.parquet") == expected


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
    fail(run(s3.uri("in"), s3.uri(""), environment=s3.environment()), "holds the input")


def test_what_goes_where(s3: S3) -> None:
    for key in ("a/x=1/p.parquet", "a/x=2/p.parquet", "a/x=2/deep/q.jsonl", "a/r.txt", "b/s.jsonl"):
        s3.put(key, b"{}")

    def names(*sources: str) -> dict[str, str]:
        pairs = file_pairs([s3.uri(source) for source in sources], "s3://corpora/out?region=x", lambda _: None)
        assert all(pair.output == f"s3://corpora/out/{pair.name}?region=x" for pair in pairs)
        return {pair.name: pair.input.removeprefix(s3.uri("")) for pair in pairs}

    assert list(names("a")) == ["x=1/p.parquet", "x=2/deep/q.jsonl", "x=2/p.parquet"]
    assert list(names("a/x=2")) == ["deep/q.jsonl", "p.parquet"]
    assert list(names("a/*/p.parquet")) == ["x=1/p.parquet", "x=2/p.parquet"]
    assert list(names("a/x=[2-9]")) == ["x=2/deep/q.jsonl", "x=2/p.parquet"]
    assert list(names("a/**/*.jsonl")) == ["x=2/deep/q.jsonl"]
    assert list(names("a/*.txt")) == ["r.txt"]
    assert names("a/x=1/p.parquet", "b/s.jsonl") == {"a/x=1/p.parquet": "a/x=1/p.parquet", "b/s.jsonl": "b/s.jsonl"}
    for nothing in ("a/*.parquet", "c/*"):
        with pytest.raises(InputError, match="no Parquet or JSON Lines file there"):
            names(nothing)


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


@pytest.mark.parametrize(
    ("source", "target", "old"), [("a.parquet", "o.parquet", None), ("a.jsonl.gz", "o.jsonl.gz", b"an older output")]
)
def test_killed_while_tagging(
    s3: S3, tiny_bundle: Path, run: Run, data: Path, tmp_path: Path, source: str, target: str, old: bytes | None
) -> None:
    expected = local(run, data / source, tmp_path / target)
    s3.put(source, (data / source).read_bytes())
    if old is not None:
        s3.put(target, old)
    options = ["--chunk-rows", 30, *(["--overwrite"] if old else [])]
    job = [s3.uri(source), s3.uri(target)]
    process = start(
        s3.environment(), *job, *options, "--model", tiny_bundle, "--batch-tokens", 16, "--work-dir", tmp_path / "work"
    )
    wait_until(lambda: events(tmp_path, "chunk") >= 2, process)
    process.kill()
    process.communicate()
    assert process.returncode == KILLED
    assert s3.get(target) == old
    if old is None:
        fail(run(*job, "--chunk-rows", 30, environment=s3.environment()), "an unfinished run was found", job[1])
    done = run(*job, "--chunk-rows", 30, "--resume", "--json", environment=s3.environment())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr)["resumed_rows"] >= 60
    assert s3.get(target) == expected
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(("source", "old"), [("large.parquet", b"an older output"), ("large.jsonl", None)])
def test_killed_while_uploading(
    s3: S3, tiny_bundle: Path, run: Run, data: Path, tmp_path: Path, source: str, old: bytes | None
) -> None:
    expected = local(run, data / source, tmp_path / source)
    if old is not None:
        s3.put("o." + source, old)
    job = [data / source, s3.uri("o." + source)]
    with Link(s3.address, hold_after=len(expected) - (1 << 20)) as link:
        options = ["--model", tiny_bundle, "--work-dir", tmp_path / "work", *(["--overwrite"] if old else [])]
        process = start(s3.environment(link.address), *job, *options)
        assert link.held.wait(60)
        assert s3.unfinished_uploads() == ["o." + source]
        assert s3.get("o." + source) == old
        process.kill()
        process.communicate()
    assert s3.get("o." + source) == old
    assert (events(tmp_path, "commit"), events(tmp_path, "done")) == (1, 0)
    done = run(*job, "--resume", "--json", environment=s3.environment())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr)["resumed_rows"] == ROWS
    assert s3.get("o." + source) == expected


def test_two_interrupts_while_uploading(s3: S3, tiny_bundle: Path, run: Run, data: Path, tmp_path: Path) -> None:
    expected = local(run, data / "large.parquet", tmp_path / "o.parquet")
    job = [data / "large.parquet", s3.uri("o.parquet")]
    with Link(s3.address, hold_after=len(expected) // 2) as link:
        process = start(
            s3.environment(link.address), *job, "--model", tiny_bundle, "--work-dir", tmp_path / "work", "--quiet"
        )
        assert link.held.wait(60)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        link.cut()
        _, err = process.communicate(timeout=60)
    assert process.returncode in (1, 130), err
    assert err.strip().count("\n") == 0
    assert s3.get("o.parquet") is None
    assert run(*job, "--resume", environment=s3.environment()).returncode == 0
    assert s3.get("o.parquet") == expected


def test_a_failed_upload_never_gets_its_name(s3: S3) -> None:
    """Pyarrow completes the upload of a stream that is dropped, also when the process ends in good order."""
    code = f"""
import io
from nerd_onnx.tables.uploads import _upload

class Failing(io.BytesIO):
    def read(self, size):
        if self.tell() > 12 << 20:
            raise {{error}}
        return super().read(size)

_upload(Failing(bytes(20 << 20)), {s3.uri("o.bin")!r})
"""
    for error in ("OSError(5, 'the disk fails')", "KeyboardInterrupt"):
        process = subprocess.run(
            [sys.executable, "-c", code.format(error=error)],
            capture_output=True,
            check=False,
            env=s3.environment(),
            timeout=60,
        )
        assert error.partition("(")[0].encode() in process.stderr
        assert s3.get("o.bin") is None
        assert s3.unfinished_uploads()


def test_an_uploaded_file_is_not_done_again(
    s3: S3, tagger: Tagger, tiny_bundle: Path, data: Path, tmp_path: Path
) -> None:
    s3.put("set/a.jsonl", (data / "a.jsonl").read_bytes())
    s3.put("set/b.jsonl", (data / "a.jsonl").read_bytes())
    job = TagJob([s3.uri("set/")], s3.uri("out/"), work_dir=str(tmp_path / "work"))

    def dies_when_uploaded() -> None:
        copied = uploads._copy

        def copies(*arguments: Any) -> None:
            copied(*arguments)
            kill()

        uploads._copy = copies  # type: ignore[assignment]
        tag_files(tagger, job)

    assert in_child(dies_when_uploaded) == KILLED
    uploaded = s3.get("out/a.jsonl")
    assert uploaded is not None
    assert (events(tmp_path, "commit"), events(tmp_path, "done")) == (1, 0)
    with Link(s3.address) as link:
        environment = s3.environment(link.address)
        options = ["--model", tiny_bundle, "--work-dir", tmp_path / "work", "--resume", "--json"]
        done = subprocess.run(
            command(job.inputs[0], job.output, *options), capture_output=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert link.sent_bytes < 1.5 * len(uploaded)
    assert json.loads(done.stderr)["resumed_rows"] == ROWS
    assert s3.tree("out/") == {"a.jsonl": uploaded, "b.jsonl": uploaded}


def test_somebody_elses_object_is_not_overwritten(s3: S3, tagger: Tagger, data: Path, tmp_path: Path) -> None:
    job = TagJob([str(data / "a.jsonl")], s3.uri("o.jsonl"), work_dir=str(tmp_path / "work"))

    def meanwhile(report: Any, _: Any) -> None:
        if report.rows == ROWS:
            s3.put("o.jsonl", b"theirs")

    for resume in (False, True):
        again = TagJob(job.inputs, job.output, work_dir=job.work_dir, resume=resume)
        with pytest.raises(OutputError, match=r"s3://corpora/o.jsonl: was made by another program meanwhile"):
            tag_files(tagger, again, meanwhile)
    assert s3.get("o.jsonl") == b"theirs"


def test_the_network_goes_away_while_uploading(s3: S3, run: Run, data: Path, tmp_path: Path) -> None:
    expected = local(run, data / "large.jsonl", tmp_path / "o.jsonl")
    job = [data / "large.jsonl", s3.uri("o.jsonl")]
    with Link(s3.address, cut_after=len(expected) // 2) as link:
        done = run(*job, environment=s3.environment(link.address))
        said = fail(done, f"{job[1]}: cannot be written: ", "(200 rows are safe: go on with --resume)")
        assert "NETWORK_CONNECTION" in said
    assert s3.get("o.jsonl") is None
    done = run(*job, "--resume", "--json", environment=s3.environment())
    assert json.loads(done.stderr)["resumed_rows"] == ROWS
    assert s3.get("o.jsonl") == expected


def test_the_network_goes_away_while_reading(s3: S3, data: Path, tmp_path: Path) -> None:
    for source in ("large.parquet", "large.jsonl"):
        s3.put(source, (data / source).read_bytes())
        with Link(s3.address) as link:
            environment = s3.environment(link.address)
            process = start(environment, s3.uri(source), tmp_path / source, "--chunk-rows", 20)
            wait_until(lambda: link.received_bytes > 6 << 20, process)
            link.cut()
            _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert err.count("\n") == 1
        assert f"{s3.uri(source)}: its store cannot be read: " in err
        assert not (tmp_path / source).exists()
        done = subprocess.run(
            command(s3.uri(source), tmp_path / source, "--chunk-rows", 20, "--resume"), check=False, capture_output=True
        )
        assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "large.parquet").drop_columns("entities") == pq.read_table(data / "large.parquet")


def cut_in_the_third(link: Link, report: TagReport, _: Source) -> None:
    if report.files == 2:
        link.cut()


def test_a_lost_network_is_no_fault_of_the_files(s3: S3, tagger: Tagger, data: Path, tmp_path: Path) -> None:
    for name, content in tree(data / "set").items():
        s3.put(f"in/{name}", content)
    job = partial(TagJob, on_error="skip", rejects=str(tmp_path / "rejects"), work_dir=str(tmp_path / "work"))
    with Link(s3.address) as link:
        source = s3.uri(f"in/?endpoint_override=http://{link.address}")
        with pytest.raises(StoreError, match=r"2025/ü.jsonl: its store .*\(60 rows are safe: go on with --resume\)"):
            tag_files(tagger, job([source], str(tmp_path / "out")), partial(cut_in_the_third, link))
    s3.put("in/year=2024/a.parquet", (data / "a.parquet").read_bytes())
    with pytest.raises(InputError, match=r"its size .* changed after it was tagged"):
        tag_files(tagger, job([s3.uri("in/")], str(tmp_path / "out"), resume=True))
    assert not (tmp_path / "rejects").exists()


def test_what_is_not_there(s3: S3, run: Run, tagger: Tagger, data: Path, tmp_path: Path) -> None:
    s3.put("empty.jsonl", b"")
    s3.put("a.jsonl", (data / "a.jsonl").read_bytes())
    here, there = str(data / "a.parquet"), str(tmp_path / "o.parquet")
    for source, target, said in [
        (s3.uri("no.parquet"), there, "s3://corpora/no.parquet: no such file"),
        ("s3://no-such/a.parquet", there, "s3://no-such/a.parquet: no such file"),
        (here, "s3://no-such/o.parquet", "s3://no-such/o.parquet: there is no such bucket; make it first"),
        (str(data / "set"), "s3://no-such/o/", "s3://no-such/o/year=2024/a.parquet: there is no such bucket"),
        (here, "http://127.0.0.1/o.parquet", "http://127.0.0.1/o.parquet: can only be read"),
        ("nowhere://x/a.parquet", there, "nowhere://x/a.parquet: its store cannot be read: Protocol not known"),
        (here, "nowhere://x/o.parquet", "nowhere://x/o.parquet: its store cannot be read: Protocol not known"),
        (
            s3.uri("x.parquet?no=option"),
            there,
            "s3://corpora/x.parquet: its store cannot be read: Unexpected query parameter",
        ),
        (s3.uri("empty.jsonl"), there, "s3://corpora/empty.jsonl: the file is empty"),
        (s3.uri("a.jsonl"), s3.uri("a.jsonl"), "s3://corpora/a.jsonl: is the input itself"),
        (s3.uri(""), s3.uri(""), "s3://corpora/: holds the input s3://corpora/a.jsonl"),
    ]:
        with pytest.raises(NerdError, match=re.escape(said)) as raised:
            tag_files(tagger, TagJob([source], target, work_dir=str(tmp_path / "work"), overwrite=True))
        assert raised.value.exit_code == 1
        assert "\n" not in str(raised.value)
    fail(run("s3://no-such/a.parquet", there, environment=s3.environment()), "s3://no-such/a.parquet: no such file")
    with Link(s3.address) as link:
        link.cut()
        done = run(s3.uri("a.jsonl"), s3.uri("o.jsonl"), environment=s3.environment(link.address))
        fail(done, "s3://corpora/a.jsonl: its store cannot be read: ", "NETWORK_CONNECTION")
    assert s3.keys() == ["a.jsonl", "empty.jsonl"]


def test_wrong_keys_are_one_line_without_them(data: Path, run: Run, tmp_path: Path) -> None:
    with serving(tmp_path / "log", INITIAL_NO_AUTH_ACTION_COUNT="1") as strict:
        environment = strict.environment(AWS_ACCESS_KEY_ID="wrong", AWS_SECRET_ACCESS_KEY="hush")
        said = fail(run("s3://corpora/a.jsonl", tmp_path / "o.jsonl", environment=environment), "s3://corpora/a.jsonl")
        assert "hush" not in said
        fail(run(data / "a.jsonl", "s3://corpora/o.jsonl", environment=environment), "s3://corpora/o.jsonl")
        inside = "s3://wrong:hush%2F@corpora/o.jsonl?region=us-east-1"
        said = fail(run(data / "a.jsonl", inside, environment=environment), "s3://***@corpora/o.jsonl: ")
        assert "hush" not in said
        with pytest.raises(HTTPError):
            strict.get("o.jsonl")


def test_keys_in_the_uri_are_never_shown(s3: S3, tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    output = f"s3://me:hush@corpora/o.jsonl?endpoint_override={s3.url}"
    options = ["--model", tiny_bundle, "--work-dir", tmp_path / "work", "--chunk-rows", 30, "--batch-tokens", 16]
    process = start({**os.environ}, data / "a.jsonl", output, *options)
    wait_until(lambda: events(tmp_path, "chunk") >= 1, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "s3://***@corpora/o.jsonl?endpoint_override=" in err  # the command that goes on
    assert "hush" not in err + journals(tmp_path)[0].read_text()
    done = subprocess.run(command(data / "a.jsonl", output, *options, "--resume", "--json"), capture_output=True)  # noqa: PLW1510
    assert json.loads(done.stderr)["output"] == "s3://***@corpora/o.jsonl"


def test_two_runs_at_one_object(s3: S3, tiny_bundle: Path, run: Run, data: Path, tmp_path: Path) -> None:
    options = ["--model", tiny_bundle, "--work-dir", tmp_path / "work", "--chunk-rows", 30, "--batch-tokens", 16]
    first = start(s3.environment(), data / "a.jsonl", s3.uri("o.jsonl"), *options)
    wait_until(lambda: events(tmp_path, "chunk") >= 1, first)
    first.send_signal(signal.SIGSTOP)
    done = run(data / "a.jsonl", s3.uri("o.jsonl"), "--resume", environment=s3.environment())
    fail(done, f"{s3.uri('o.jsonl')}: is being written by another run (process {first.pid}")
    first.kill()
    first.communicate()


def test_an_input_that_changed_is_refused(s3: S3, tiny_bundle: Path, run: Run, data: Path, tmp_path: Path) -> None:
    content = (data / "large.jsonl").read_bytes()
    s3.put("a.jsonl", content)
    options = ["--chunk-rows", 20]
    job = [s3.uri("a.jsonl"), s3.uri("o.jsonl"), *options]
    process = start(
        s3.environment(), *job, "--model", tiny_bundle, "--batch-tokens", 16, "--work-dir", tmp_path / "work"
    )
    wait_until(lambda: events(tmp_path, "chunk") >= 1, process)
    process.kill()
    process.communicate()
    half = len(content) // 2  # where no fingerprint of its ends looks
    s3.put("a.jsonl", content[:half] + (b"x" if content[half : half + 1] != b"x" else b"y") + content[half + 1 :])
    done = run(*job, "--resume", environment=s3.environment())
    fail(done, s3.uri("a.jsonl"), "changed since the run was begun")
    assert s3.get("o.jsonl") is None


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


def test_a_model_in_a_store(
    s3: S3, tiny_bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, content in tree(tiny_bundle).items():
        s3.put(f"models/tiny/{name}", content)
    s3.put("models/tiny/pytorch_model.bin", b"not fetched")
    s3.put("models/tiny/deeper/still/x.onnx", b"not fetched")
    done = subprocess.run(
        command(data / "a.jsonl", tmp_path / "o.jsonl", "--model", s3.uri("models/tiny/"), "--json"),
        capture_output=True,
        check=True,
        env=s3.environment(),
    )
    assert json.loads(done.stderr)["model"] == s3.uri("models/tiny/")
    subprocess.run(command(data / "a.jsonl", tmp_path / "p.jsonl", "--model", tiny_bundle), check=True)
    assert (tmp_path / "o.jsonl").read_bytes() == (tmp_path / "p.jsonl").read_bytes()
    models = tmp_path / "cache" / "nerd-onnx" / "models"
    (kept,) = models.iterdir()
    assert tree(kept) == tree(tiny_bundle)
    made = (kept / "model.onnx").stat().st_mtime_ns
    tagger = Tagger.load(s3.uri("models/tiny"))
    assert pickle.loads(pickle.dumps(tagger)).bundle.name == s3.uri("models/tiny")  # noqa: S301
    shutil.rmtree(models)
    assert pickle.loads(pickle.dumps(tagger)).tag(["Paris"]) == tagger.tag(["Paris"])  # noqa: S301
    (kept / "model.onnx").write_bytes(b"")
    assert load_bundle(s3.uri("models/tiny")).model_sha256 == tagger.bundle.model_sha256
    assert (kept / "model.onnx").stat().st_mtime_ns != made


def test_a_model_in_a_store_is_checked_like_any(
    s3: S3, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, content in tree(tiny_bundle).items():
        s3.put(f"tiny/{name}", content)
    load_bundle(s3.uri("tiny"))
    network = (tiny_bundle / "model.onnx").read_bytes()
    s3.put("tiny/model.onnx", network[:-1] + bytes([network[-1] ^ 1]))
    with pytest.raises(ModelError, match="altered since export"):
        load_bundle(s3.uri("tiny"))
    with pytest.raises(ModelError, match=r"^s3://corpora/nowhere: no such model folder"):
        load_bundle(s3.uri("nowhere"))
    with Link(s3.address) as link:
        link.cut()
        with pytest.raises(ModelError, match=r"^the model cannot be fetched: s3://corpora/tiny: .*NETWORK_CONN"):
            load_bundle(f"s3://corpora/tiny?endpoint_override=http://{link.address}")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.name.startswith(".part")]


@pytest.fixture
def job(data: Path, tmp_path: Path) -> Callable[..., TagJob]:
    """Give a function that makes a job of the small file."""

    def makes(output: str, source: str | None = None, **options: Any) -> TagJob:
        return TagJob([source or str(data / "a.jsonl")], output, work_dir=str(tmp_path / "work"), **options)

    return makes


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


def test_no_password_is_shown() -> None:
    for uri, shown in [
        ("s3://key:se/cret@bucket/a?x=y", "s3://***@bucket/a"),
        ("sftp://me:hush@host:22/a@b", "sftp://***@host:22/a@b"),
        ("http://host:9000/a@b", "http://host:9000/a@b"),
        ("hf://datasets/owner/name@main/a", "hf://datasets/owner/name@main/a"),
        ("gs://anonymous@bucket/a", "gs://anonymous@bucket/a"),
        ("/home/me:a@b?", "/home/me:a@b?"),
    ]:
        assert stores.without_secrets(uri) == shown
    with pytest.raises(StoreError) as raised:
        stores.find("s3://key:hu sh@bucket/a")
    assert "hu sh" not in str(raised.value)


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
