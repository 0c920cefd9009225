"""Models in stores: fetched once, checked like any."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest

from nerd_onnx.errors import ModelError
from nerd_onnx.inference.remote_bundle import load_bundle
from nerd_onnx.tagger import Tagger
from tests.support.failures import fails
from tests.support.processes import command
from tests.support.runs import tree
from tests.support.s3_server import S3, Link


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_model_in_a_store_is_checked_like_any(
    s3: S3, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, content in tree(tiny_bundle).items():
        s3.put(f"tiny/{name}", content)
    load_bundle(s3.uri("tiny"))
    network = (tiny_bundle / "model.onnx").read_bytes()
    s3.put("tiny/model.onnx", network[:-1] + bytes([network[-1] ^ 1]))
    with fails(ModelError, "altered"):
        load_bundle(s3.uri("tiny"))
    with fails(ModelError, "missing-model", file="s3://corpora/nowhere"):
        load_bundle(s3.uri("nowhere"))
    with Link(s3.address) as link:
        link.cut()
        with fails(ModelError, "cannot-fetch", file="s3://corpora/tiny"):
            load_bundle(f"s3://corpora/tiny?endpoint_override=http://{link.address}")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.name.startswith(".")]
