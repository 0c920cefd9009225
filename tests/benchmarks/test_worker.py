"""Peers in their own processes: with the tiny bundle, with missing packages, and with errors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.models.exports import made
from benchmarks.paths import ROOT
from benchmarks.peers import PEERS
from benchmarks.peers.peer import PeerError, Sources, interpreter_of
from benchmarks.processes.ready_peers import gather
from benchmarks.processes.serve import prepare
from benchmarks.processes.worker import Worker, missing_packages, write_sources
from nerd_export.data.sample import sample_texts
from nerd_onnx.tagger import Tagger
from tests.support.models import FINE_LABELS


@pytest.fixture
def sources(tmp_path: Path, tiny_bundle: Path, checkpoint: Callable[[str], Path]) -> Sources:
    return Sources(
        shape="small",
        folder=tmp_path / "made",
        bundle=tiny_bundle,
        plain_bundle=None,
        checkpoint=checkpoint("bert"),
        exported=None,
        calibration=None,
        threads=2,
    )


@pytest.fixture
def worker(tmp_path: Path, sources: Sources) -> Iterator[Worker]:
    file = write_sources(sources, tmp_path / "small.json")
    started = Worker(PEERS["nerd_tag"], sys.executable, file, tmp_path / "log")
    yield started
    started.close()


def test_sources_survive_the_way_to_another_process(sources: Sources) -> None:
    assert Sources.from_plain(json.loads(json.dumps(sources.plain()))) == sources


def test_worker_tags_as_the_tagger_does(worker: Worker, tmp_path: Path, tiny_bundle: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table({"text": sample_texts()[:5]}), source)
    answer = worker.do("tag", source=source, target=target)
    tagger = Tagger.load(tiny_bundle)
    expected = [[(e.start, e.end, e.label) for e in found or ()] for found in tagger.tag(sample_texts()[:5])]
    found = pq.read_table(target)["entities"].to_pylist()

    assert [[(e["start"], e["end"], e["label"]) for e in row] for row in found] == expected
    assert answer["entities"] == sum(map(len, expected)) > 0
    assert answer["seconds"] > 0
    assert worker.facts["size_bytes"] == (tiny_bundle / "model.onnx").stat().st_size


def test_worker_tags_given_words_and_runs_the_network_alone(worker: Worker, tmp_path: Path) -> None:
    words, texts, target = tmp_path / "words.parquet", tmp_path / "texts.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table({"tokens": [text.split() for text in sample_texts()[:5]]}), words)
    pq.write_table(pa.table({"text": sample_texts()[:5]}), texts)
    worker.do("words", source=words, target=target)
    rows = pq.read_table(target)["entities"].to_pylist()

    assert all(e["end"] <= len(t.split()) for row, t in zip(rows, sample_texts(), strict=False) for e in row)
    answer = worker.do("replay", source=texts)

    assert answer["positions"] > answer["tokens"] > 0
    assert answer["squares"] > answer["positions"]


def test_failing_job_is_an_answer_and_the_worker_goes_on(worker: Worker, tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="nerd_tag: InputError"):
        worker.do("tag", source=tmp_path / "missing.parquet", target=tmp_path / "out.parquet")
    assert worker.do("configure", setup=worker.setup)["seconds"] >= 0


def test_worker_that_ends_is_named_with_its_last_words(worker: Worker, tmp_path: Path, sources: Sources) -> None:
    worker.process.kill()
    with pytest.raises(PeerError, match="nerd_tag ended"):
        worker.do("tag", source=tmp_path / "a", target=tmp_path / "b")
    broken = write_sources(replace(sources, bundle=tmp_path / "nothing"), tmp_path / "broken.json")
    with pytest.raises(PeerError, match=r"nerd_tag ended: .*no such model folder"):
        Worker(PEERS["nerd_tag"], sys.executable, broken, tmp_path / "log")


def test_peers_that_cannot_run_are_named_with_the_reason(tmp_path: Path, sources: Sources) -> None:
    plain = replace(sources, calibration=tmp_path / "c", exported=tmp_path / "e")
    nothing = {"ctranslate2": "/nowhere/python", "spacy": sys.executable}
    names = ["nerd_tag", "nerd_tag_fp32", "nerd_tag_other", "openvino_int8", "ctranslate2_int8", "spacy_small"]
    team = gather(names, plain, nothing, tmp_path, lambda _: None)
    team.close()

    assert [member.name for member in team.members] == ["nerd_tag"]
    assert team.skipped["nerd_tag_fp32"] == "no fp32 bundle of the same weights"
    assert team.skipped["nerd_tag_other"] == "no other bundle (give --other-model; only the small shape has one)"
    assert "--python openvino=PATH" in team.skipped["openvino_int8"]
    assert "a working interpreter not installed" in team.skipped["ctranslate2_int8"]
    assert "spacy" in team.skipped["spacy_small"]


def test_another_bundle_runs_by_the_same_command(tmp_path: Path, sources: Sources, tiny_bundle: Path) -> None:
    other = tmp_path / "old bundle"
    shutil.copytree(tiny_bundle, other)
    ready = replace(sources, other_bundle=other)

    assert Sources.from_plain(json.loads(json.dumps(ready.plain()))) == ready

    team = gather(["nerd_tag", "nerd_tag_other"], ready, {}, tmp_path, lambda _: None)
    team.close()

    assert team.skipped == {}
    assert [member.bundle for member in team.members] == [tiny_bundle, other]

    own, others = (member.command(tmp_path / "a", tmp_path / "b") for member in team.members)

    assert others == [other if word == tiny_bundle else word for word in own] != own
    assert team.facts["nerd_tag_other"]["title"] == "nerd-tag, other bundle"
    assert team.facts["nerd_tag_other"]["size_bytes"] == (other / "model.onnx").stat().st_size


def test_ctranslate2_says_what_it_cannot_convert(sources: Sources, checkpoint: Callable[[str], Path]) -> None:
    other = replace(sources, checkpoint=checkpoint("mpnet"))
    assert PEERS["ctranslate2_int8"].reason_unavailable(other) == "CTranslate2 converts no mpnet encoder"
    assert PEERS["ctranslate2_int8"].reason_unavailable(sources) is None


def test_interpreters_come_from_options_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = PEERS["openvino_int8"]
    assert interpreter_of(PEERS["nerd_tag"], {}) == sys.executable
    assert interpreter_of(peer, {}) is None
    monkeypatch.setenv("NERD_BENCH_OPENVINO", "/a/python")
    assert interpreter_of(peer, {}) == "/a/python"
    assert interpreter_of(peer, {"openvino": "/b/python"}) == "/b/python"


def test_missing_packages_are_listed() -> None:
    assert missing_packages(PEERS["pytorch_fp32"], sys.executable) == []


def test_model_files_are_made_once_and_whole(tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    peer, calls = PEERS["onnxruntime_dynamic"], []

    def fail(_sources: Sources, folder: Path) -> None:
        calls.append("fail")
        (folder / "half").touch()
        raise ValueError("half made")

    monkeypatch.setattr(type(peer), "prepare", lambda _, s, f: fail(s, f))
    with pytest.raises(ValueError, match="half made"):
        prepare(peer, sources)

    assert not (sources.folder / peer.name).exists()

    monkeypatch.setattr(type(peer), "prepare", lambda _, _s, f: (f / "whole").touch())
    prepare(peer, sources)

    assert [path.name for path in (sources.folder / peer.name).iterdir()] == ["whole"]
    assert prepare(peer, sources) == {"seconds": 0.0}
    assert made(tmp_path, "x", lambda f: (f / "y").touch()) == made(tmp_path, "x", lambda _: calls.append("again"))
    assert calls == ["fail"]


@pytest.mark.slow
def test_every_peer_that_this_environment_can_run_tags(
    tmp_path: Path, sources: Sources, committed: Callable[[str], Path]
) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": sample_texts()[:9]}), source)
    ready = replace(sources, exported=committed("plain"), calibration=source)
    file = write_sources(ready, tmp_path / "sources.json")

    for name in ("pytorch_bf16", "optimum_int8", "onnxruntime_static"):
        command = [sys.executable, "-m", "benchmarks.processes.serve", name, str(file)]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'export'}"}
        for words in (["--prepare"], ["--tag", str(source), str(tmp_path / "out.parquet")]):
            done = subprocess.run([*command, *words], capture_output=True, text=True, check=False, env=environment)
            assert done.returncode == 0, done.stderr
            assert len(done.stdout.splitlines()) == 1
        tagged = pq.read_table(tmp_path / "out.parquet")
        assert tagged["text"].to_pylist() == sample_texts()[:9]
        labels = {e.get("fine_label") or e["label"] for row in tagged["entities"].to_pylist() for e in row}
        assert labels
        assert labels <= set(
            FINE_LABELS
        )  # complete names: the pipeline alone would shorten ``person-actor`` to ``actor``
