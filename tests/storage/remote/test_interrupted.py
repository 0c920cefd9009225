"""Runs to and from a store that are killed, stopped or cut off: whole or not at all, and gone on with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from nerd_onnx.errors import InputError, OutputError, StoreError
from nerd_onnx.formats.interfaces import Reader
from nerd_onnx.storage import uploads
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob, TagReport
from nerd_onnx.tagging.run import tag_files
from tests.storage.remote.helpers import ROWS, Run, events, fail, local, start, wait_until
from tests.support.failures import fails
from tests.support.marks import slow_but
from tests.support.processes import KILLED, command, start_and_stop
from tests.support.runs import in_child, kill, tree
from tests.support.s3_server import S3, Link


@pytest.mark.parametrize(
    ("source", "target", "old"),
    slow_but(
        [("a.parquet", "o.parquet", None)],
        [("a.parquet", "o.parquet", None), ("a.jsonl.gz", "o.jsonl.gz", b"an older output")],
    ),
)
def test_killed_while_tagging(
    s3: S3,
    tiny_bundle: Path,
    run: Run,
    tagger: Tagger,
    data: Path,
    tmp_path: Path,
    source: str,
    target: str,
    old: bytes | None,
) -> None:
    expected = local(tagger, data / source, tmp_path / target)
    s3.put(source, (data / source).read_bytes())
    if old is not None:
        s3.put(target, old)
    options = ["--chunk-rows", 30, *(["--overwrite"] if old else [])]
    job = [s3.uri(source), s3.uri(target)]
    options += ["--model", tiny_bundle, "--batch-tokens", 16, "--work-dir", tmp_path / "work"]
    process = start_and_stop(2, *job, *options, environment=s3.environment())
    process.kill()
    process.communicate()
    assert process.returncode == KILLED
    assert s3.get(target) == old
    if old is None:
        fail(run(*job, "--chunk-rows", 30, environment=s3.environment()), "--resume", job[1])
    done = run(*job, "--chunk-rows", 30, "--resume", "--json", environment=s3.environment())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr)["resumed_rows"] >= 60
    assert s3.get(target) == expected
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "old"),
    slow_but([("large.parquet", b"an older output")], [("large.parquet", b"an older output"), ("large.jsonl", None)]),
)
def test_killed_while_uploading(
    s3: S3, tiny_bundle: Path, run: Run, tagger: Tagger, data: Path, tmp_path: Path, source: str, old: bytes | None
) -> None:
    expected = local(tagger, data / source, tmp_path / source)
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


@pytest.mark.slow
def test_two_interrupts_while_uploading(
    s3: S3, tiny_bundle: Path, run: Run, tagger: Tagger, data: Path, tmp_path: Path
) -> None:
    expected = local(tagger, data / "large.parquet", tmp_path / "o.parquet")
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
from nerd_onnx.storage.uploads import upload

class Failing(io.BytesIO):
    def read(self, size):
        if self.tell() > 12 << 20:
            raise {{error}}
        return super().read(size)

upload(Failing(bytes(20 << 20)), {s3.uri("o.bin")!r})
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


@pytest.mark.slow
def test_an_uploaded_file_is_not_done_again(
    s3: S3, tagger: Tagger, tiny_bundle: Path, data: Path, tmp_path: Path
) -> None:
    s3.put("set/a.jsonl", (data / "a.jsonl").read_bytes())
    s3.put("set/b.jsonl", (data / "a.jsonl").read_bytes())
    job = TagJob([s3.uri("set/")], s3.uri("out/"), work_dir=str(tmp_path / "work"))

    def dies_when_uploaded() -> None:
        copied = uploads.copy_to

        def copies(*arguments: Any) -> None:
            copied(*arguments)
            kill()

        uploads.copy_to = copies  # type: ignore[assignment]
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
        with fails(OutputError, "exists-elsewhere", file="s3://corpora/o.jsonl"):
            tag_files(tagger, again, meanwhile)
    assert s3.get("o.jsonl") == b"theirs"


@pytest.mark.slow
def test_the_network_goes_away_while_uploading(s3: S3, run: Run, tagger: Tagger, data: Path, tmp_path: Path) -> None:
    expected = local(tagger, data / "large.jsonl", tmp_path / "o.jsonl")
    job = [data / "large.jsonl", s3.uri("o.jsonl")]
    with Link(s3.address, cut_after=len(expected) // 2) as link:
        done = run(*job, environment=s3.environment(link.address))
        said = fail(done, f"{job[1]}: ", "(200 rows are safe: ")
        assert "NETWORK_CONNECTION" in said
    assert s3.get("o.jsonl") is None
    done = run(*job, "--resume", "--json", environment=s3.environment())
    assert json.loads(done.stderr)["resumed_rows"] == ROWS
    assert s3.get("o.jsonl") == expected


@pytest.mark.slow
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
        assert f"{s3.uri(source)}: " in err
        assert not (tmp_path / source).exists()
        done = subprocess.run(
            command(s3.uri(source), tmp_path / source, "--chunk-rows", 20, "--resume"), check=False, capture_output=True
        )
        assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "large.parquet").drop_columns("entities") == pq.read_table(data / "large.parquet")


def cut_in_the_third(link: Link, report: TagReport, _: Reader) -> None:
    if report.files == 2:
        link.cut()


@pytest.mark.slow
def test_a_lost_network_is_no_fault_of_the_files(s3: S3, tagger: Tagger, data: Path, tmp_path: Path) -> None:
    for name, content in tree(data / "set").items():
        s3.put(f"in/{name}", content)
    job = partial(TagJob, on_error="skip", rejects=str(tmp_path / "rejects"), work_dir=str(tmp_path / "work"))
    with Link(s3.address) as link:
        source = s3.uri(f"in/?endpoint_override=http://{link.address}")
        with fails(StoreError, "storage-failed", safe_rows=60):
            tag_files(tagger, job([source], str(tmp_path / "out")), partial(cut_in_the_third, link))
    s3.put("in/year=2024/a.parquet", (data / "a.parquet").read_bytes())
    with fails(InputError, "input-changed"):
        tag_files(tagger, job([s3.uri("in/")], str(tmp_path / "out"), resume=True))
    assert not (tmp_path / "rejects").exists()
