"""``nerd-tag`` on clusters of Ray and Spark that run already: a machine is lost, and no file is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.clusters import ray_nodes, spark_environment, spark_program, standalone
from tests.engines.helpers import corpus, run, summary
from tests.engines.kills import machine_of, run_with_kills
from tests.support.runs import tree

ROWS = 200  # of each file; what is left of one lasts longer than the news of its machine's end takes


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus") / "in", ROWS)


@pytest.fixture(scope="module")
def expected(source: Path) -> dict[str, bytes]:
    """Return what the local run writes."""
    output = source.parent / "local"
    assert run(source, output).returncode == 0
    return tree(output)


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with standalone(tmp_path_factory.mktemp("standalone")) as address:
        yield address


def check_loss(engine: str, address: str, source: Path, expected: dict[str, bytes], output: Path) -> None:
    options = ["--engine", engine, "--engine-address", address, "--chunk-rows", 10, source, output]
    killed = run_with_kills(output, *options, kills=1, victim=machine_of)
    assert killed.done.returncode == 0, killed.done.stderr
    assert len(killed.workers) == 1
    assert tree(output) == expected
    told = summary(killed.done)
    assert told["rows"] == 4 * ROWS + 1
    assert told["resumed_rows"] >= 10


def test_a_ray_cluster_that_loses_a_node_gives_the_files_of_the_local_run(
    source: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    with ray_nodes() as address:
        check_loss("ray", address, source, expected, tmp_path / "out")


def test_a_spark_cluster_that_loses_an_executor_gives_the_files_of_the_local_run(
    master: str, source: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    check_loss("spark", master, source, expected, tmp_path / "out")


def test_spark_submit_gives_the_files_of_the_local_run(
    master: str, source: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    job = tmp_path / "job.py"
    job.write_text("from nerd_onnx.cli.tag import main\n\nmain()\n")
    submit = [spark_program("spark-submit"), "--master", master, job, "--engine", "spark", source, tmp_path / "out"]
    done = subprocess.run([*map(str, submit)], capture_output=True, text=True, check=False, env=spark_environment())
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == expected
