"""What stores refuse, and runs at them: one line each, without secrets."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from urllib.error import HTTPError

import pytest

from nerd_onnx.errors import NerdError, StoreError
from nerd_onnx.storage import remote
from nerd_onnx.storage.location import Location
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from tests.storage.remote.helpers import Run, fail, journals
from tests.support.failures import fails
from tests.support.processes import command, continue_with, start_and_stop
from tests.support.s3_server import S3, Link, serving


@pytest.mark.slow
def test_what_is_not_there(s3: S3, run: Run, tagger: Tagger, data: Path, tmp_path: Path) -> None:
    s3.put("empty.parquet", b"")
    s3.put("a.jsonl", (data / "a.jsonl").read_bytes())
    here, there = str(data / "a.parquet"), str(tmp_path / "o.parquet")
    for source, target, reason, file in [
        (s3.uri("no.parquet"), there, "missing-file", "s3://corpora/no.parquet"),
        ("s3://no-such/a.parquet", there, "missing-file", "s3://no-such/a.parquet"),
        (here, "s3://no-such/o.parquet", "missing-bucket", "s3://no-such/o.parquet"),
        (str(data / "set"), "s3://no-such/o/", "missing-bucket", "s3://no-such/o/year=2024/a.parquet"),
        (here, "http://127.0.0.1/o.parquet", "read-only-storage", "http://127.0.0.1/o.parquet"),
        ("nowhere://x/a.parquet", there, "storage-failed", "nowhere://x/a.parquet"),
        (here, "nowhere://x/o.parquet", "storage-failed", "nowhere://x/o.parquet"),
        (
            s3.uri("x.parquet?no=option"),
            there,
            "storage-failed",
            "s3://corpora/x.parquet",
        ),
        (s3.uri("empty.parquet"), there, "empty-file", "s3://corpora/empty.parquet"),
        (s3.uri("a.jsonl"), s3.uri("a.jsonl"), "output-is-input", "s3://corpora/a.jsonl"),
        (s3.uri(""), s3.uri(""), "output-contains-input", "s3://corpora/"),
    ]:
        with fails(NerdError, reason, file=file) as raised:
            tag_files(tagger, TagJob([source], target, work_dir=str(tmp_path / "work"), overwrite=True))
        assert raised.value.exit_code == 1
        assert "\n" not in str(raised.value)
    fail(run("s3://no-such/a.parquet", there, environment=s3.environment()), "s3://no-such/a.parquet: ")
    with Link(s3.address) as link:
        link.cut()
        done = run(s3.uri("a.jsonl"), s3.uri("o.jsonl"), environment=s3.environment(link.address))
        fail(done, "s3://corpora/a.jsonl: ", "NETWORK_CONNECTION")
    assert s3.keys() == ["a.jsonl", "empty.parquet"]


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


@pytest.mark.slow
def test_keys_in_the_uri_are_never_shown(s3: S3, tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    output = f"s3://me:hush@corpora/o.jsonl?endpoint_override={s3.url}"
    options = ["--model", tiny_bundle, "--work-dir", tmp_path / "work", "--chunk-rows", 30, "--batch-tokens", 16]
    process = start_and_stop(1, data / "a.jsonl", output, *options)
    err = continue_with(process, signal.SIGINT).decode()
    assert process.returncode == 130
    assert "s3://***@corpora/o.jsonl?endpoint_override=" in err  # the command that goes on
    assert "hush" not in err + journals(tmp_path)[0].read_text()
    done = subprocess.run(command(data / "a.jsonl", output, *options, "--resume", "--json"), capture_output=True)  # noqa: PLW1510
    assert json.loads(done.stderr)["output"] == "s3://***@corpora/o.jsonl"


def test_two_runs_at_one_object(s3: S3, tiny_bundle: Path, run: Run, data: Path, tmp_path: Path) -> None:
    options = ["--model", tiny_bundle, "--work-dir", tmp_path / "work", "--chunk-rows", 30, "--batch-tokens", 16]
    first = start_and_stop(1, data / "a.jsonl", s3.uri("o.jsonl"), *options, environment=s3.environment())
    done = run(data / "a.jsonl", s3.uri("o.jsonl"), "--resume", environment=s3.environment())
    fail(done, f"{s3.uri('o.jsonl')}: ", f"(process {first.pid}")
    first.kill()
    first.communicate()


@pytest.mark.slow
def test_an_input_that_changed_is_refused(s3: S3, tiny_bundle: Path, run: Run, data: Path, tmp_path: Path) -> None:
    content = (data / "large.jsonl").read_bytes()
    s3.put("a.jsonl", content)
    job = [s3.uri("a.jsonl"), s3.uri("o.jsonl")]
    options = ["--chunk-rows", 20, "--model", tiny_bundle, "--batch-tokens", 16, "--work-dir", tmp_path / "work"]
    process = start_and_stop(1, *job, *options, environment=s3.environment())
    process.kill()
    process.communicate()
    half = len(content) // 2  # where no fingerprint of its ends looks
    s3.put("a.jsonl", content[:half] + (b"x" if content[half : half + 1] != b"x" else b"y") + content[half + 1 :])
    done = run(*job, "--chunk-rows", 20, "--resume", environment=s3.environment())
    fail(done, s3.uri("a.jsonl"), "changed")
    assert s3.get("o.jsonl") is None


def test_no_password_is_shown() -> None:
    for uri, shown in [
        ("s3://key:se/cret@bucket/a?x=y", "s3://***@bucket/a"),
        ("sftp://me:hush@host:22/a@b", "sftp://***@host:22/a@b"),
        ("http://host:9000/a@b", "http://host:9000/a@b"),
        ("hf://datasets/owner/name@main/a", "hf://datasets/owner/name@main/a"),
        ("gs://anonymous@bucket/a", "gs://anonymous@bucket/a"),
        ("/home/me:a@b?", "/home/me:a@b?"),
    ]:
        assert Location.of(uri).without_secrets == shown
    with pytest.raises(StoreError) as raised:
        remote.find("s3://key:hu sh@bucket/a")
    assert "hu sh" not in str(raised.value)
