"""``nerd-tag --engine``: the bytes of the local run from real Ray and Spark, also when workers are killed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nerd_onnx.inference.bundle import DEFAULT_FOLDER
from tests.engines.helpers import corpus, run, summary
from tests.engines.kills import run_with_kills, stopped_half_done
from tests.support.runs import texts, tree, write_parquet
from tests.support.s3_server import serving

ENGINES = pytest.mark.parametrize("engine", ["ray", "spark"])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus") / "in")


@pytest.fixture(scope="module")
def expected(source: Path) -> dict[str, bytes]:
    """Return what the local run writes."""
    output = source.parent / "local"
    assert run(source, output).returncode == 0
    return tree(output)


@ENGINES
def test_files_are_those_of_the_local_run_and_are_done_once(
    engine: str, source: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    done = run("--engine", engine, "--workers", 2, source, output)
    assert (done.returncode, tree(output)) == (0, expected)
    told = summary(done)
    assert (told["engine"], told["files"], told["rows"]) == (engine, 4, 241)

    (output / "c.jsonl").unlink()
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*.*")}
    told = summary(run("--engine", engine, "--resume", source, output))
    assert (told["finished_before"], told["files"], told["rows"]) == (3, 1, 61)
    assert tree(output) == expected
    assert {path: path.stat().st_mtime_ns for path in times} == times


@ENGINES
def test_killed_workers_are_replaced_and_their_files_resumed(
    engine: str, source: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    killed = run_with_kills(output, "--engine", engine, "--chunk-rows", 10, source, output, kills=2)
    assert len(killed.workers) == 2
    told = summary(killed.done)
    assert (killed.done.returncode, tree(output)) == (0, expected)
    assert told["resumed_rows"] >= 20  # ten of each that was killed, at least
    assert told["rows"] == told["written"] == 241


@ENGINES
def test_a_file_that_kills_its_workers_ends_the_run_and_can_be_resumed(engine: str, tmp_path: Path) -> None:
    source, output = write_parquet(tmp_path / "in.parquet", texts(300)), tmp_path / "out"
    options = ["--engine", engine, "--chunk-rows", 10, source, f"{output}/"]
    killed = run_with_kills(output, *options, kills=100)
    told = summary(killed.done)
    assert (killed.done.returncode, told["error"], len(killed.workers)) == (1, "engine", 4)
    assert not (output / "in.parquet").exists()
    assert summary(run(*options, "--resume"))["resumed_rows"] >= 10
    assert run(source, tmp_path / "local.parquet").returncode == 0
    assert (output / "in.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()


@ENGINES
def test_a_run_that_is_stopped_is_resumed(engine: str, tmp_path: Path) -> None:
    source, output, local = corpus(tmp_path / "in", rows=200), tmp_path / "out", tmp_path / "local"
    options = ["--engine", engine, "--chunk-rows", 10, source, output]
    stopped = stopped_half_done(output, *options)
    assert (stopped.returncode, summary(stopped)["error"]) == (130, "interrupted")
    assert "--resume" in summary(stopped)["message"]
    told = summary(run(*options, "--resume"))
    assert told["resumed_rows"] + told["finished_before"] > 0
    assert run(source, local).returncode == 0
    assert tree(output) == tree(local)


@ENGINES
def test_a_file_with_a_fault_keeps_no_other_from_being_tagged(
    engine: str, source: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    broken, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(source, broken)
    whole = (broken / "c.jsonl").read_bytes()
    (broken / "c.jsonl").write_bytes(whole[:3000] + b"\n{")
    done = run("--engine", engine, broken, output)
    told = summary(done)
    assert (done.returncode, told["error"]) == (1, "input")
    assert told["message"].startswith(str(broken / "c.jsonl"))
    assert tree(output) == {name: content for name, content in expected.items() if name != "c.jsonl"}
    (broken / "c.jsonl").write_bytes(whole)
    assert run("--engine", engine, "--resume", broken, output).returncode == 0
    assert tree(output) == expected


@ENGINES
@pytest.mark.parametrize("sending", ["--ship-model", "--no-ship-model"])
def test_a_model_folder_is_sent_along_or_read_in_place(
    engine: str, sending: str, source: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    model, output = tmp_path / "model", tmp_path / "out.parquet"
    shutil.copytree(DEFAULT_FOLDER, model)
    assert run("--engine", engine, "--model", model, sending, source / "a.parquet", output).returncode == 0
    assert output.read_bytes() == expected["a.parquet"]


@ENGINES
def test_files_and_model_of_a_store(engine: str, source: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    with serving(tmp_path / "log") as s3:
        for folder, files in (("in", tree(source)), ("model", tree(DEFAULT_FOLDER))):
            for name, content in files.items():
                s3.put(f"{folder}/{name}", content)
        options = ["--engine", engine, "--model", s3.uri("model"), "--no-ship-model", s3.uri("in/"), s3.uri("out/")]
        environment = s3.environment(XDG_CACHE_HOME=str(tmp_path / "cache"))
        done = run(*options, env=environment)
        assert (done.returncode, s3.tree("out/")) == (0, expected), done.stderr
        told = summary(run(*options, "--resume", env=environment))
        assert (told["finished_before"], told["rows"]) == (4, 0)


@ENGINES
def test_an_engine_that_cannot_be_reached_is_one_line(engine: str, source: Path, tmp_path: Path) -> None:
    address = "127.0.0.1:1" if engine == "ray" else "nowhere"
    done = run("--engine", engine, "--engine-address", address, source, tmp_path / "out")
    told = summary(done)
    assert (done.returncode, told["error"]) == (1, "engine")
    assert not (tmp_path / "out").exists()
