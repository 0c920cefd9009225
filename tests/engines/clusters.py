"""Clusters on loopback, of real processes: Spark's master with workers, Ray's head with nodes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

_HANGING_S = 600  # nothing here takes so long to start or to end, on whatever machine
_DEPLOY = "org.apache.spark.deploy"


class Log(NamedTuple):
    """A running process and where it writes to."""

    path: Path
    process: subprocess.Popen[bytes]


def spark_environment() -> dict[str, str]:
    """Return what Spark's scripts need to find the Spark of this Python, whatever else is installed."""
    return {**os.environ, "PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}


def spark_program(name: str) -> str:
    """Name one of Spark's scripts."""
    return str(Path(sys.executable).with_name(name))


@contextmanager
def standalone(folder: Path) -> Iterator[str]:
    """
    Start a Spark master and two workers of one processor each.

    :param folder: takes their logs and files
    :return: the master's address
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    address = ["--host", "127.0.0.1", "--webui-port", "0"]
    master = f"spark://127.0.0.1:{port}"
    with ExitStack() as stack:
        log = stack.enter_context(_started(folder / "master", [f"{_DEPLOY}.master.Master", *address, "--port", port]))
        _wait_for(log, "New state: ALIVE")
        logs = []
        for place in (folder / "worker0", folder / "worker1"):
            room = ["--work-dir", str(place), "--cores", "1", "--memory", "1g"]
            logs.append(stack.enter_context(_started(place, [f"{_DEPLOY}.worker.Worker", *address, *room, master])))
        for log in logs:
            _wait_for(log, "Successfully registered with master")
        yield master


@contextmanager
def ray_nodes() -> Iterator[str]:
    """
    Start Ray's head, without processors, and two nodes of one processor each.

    :return: its address
    """
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()


@contextmanager
def _started(place: Path, arguments: list[str]) -> Iterator[Log]:
    """
    Run a process of Spark.

    :param place: its log gets this name
    """
    path = place.with_suffix(".log")
    with path.open("w") as output:
        command = [spark_program("spark-class"), *arguments]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=spark_environment())
    try:
        yield Log(path, process)
    finally:
        process.terminate()
        process.wait(_HANGING_S)


def _wait_for(log: Log, words: str) -> None:
    """Wait until a process has written something to its log; one that ended will not."""
    end = time.monotonic() + _HANGING_S
    while words not in log.path.read_text():
        assert log.process.poll() is None, log.path.read_text()
        assert time.monotonic() < end, log.path.read_text()
        time.sleep(0.1)
