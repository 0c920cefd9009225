"""What every peer can do, and what a run of one gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq

from benchmarks.workloads import Workload


class PeerError(Exception):
    """A peer failed, or did not tag what it was given."""


@dataclass(frozen=True)
class PeerRun:
    """
    One run of a peer: a whole process.

    :param wall_s: from the start of the process to its end
    :param tagging_s: of it, from opening the input to the finished output: without interpreter, imports and model
    :param load_s: of it, the model's load, by the peer's own clock
    :param cpu_s: processor time of the process, user and system
    :param peak_rss_bytes: largest resident size of the process
    :param entities: entities found
    """

    wall_s: float
    tagging_s: float
    load_s: float
    cpu_s: float
    peak_rss_bytes: int
    entities: int

    @property
    def start_s(self) -> float:
        """Everything before and after tagging: interpreter, imports, model."""
        return self.wall_s - self.tagging_s


class Peer(Protocol):
    """A way to tag a file."""

    name: str

    def available(self) -> str | None:
        """Say why it cannot run here, or None."""
        ...

    def prepare(self, workload: Workload) -> dict[str, Any]:
        """Warm up and choose what suits the workload. :return: the choice, for the report"""
        ...

    def command(self, workload: Workload) -> list[str | Path]:
        """Give the command line of a run; paths are paths, so that a report can shorten them."""
        ...

    def run(self, workload: Workload) -> PeerRun:
        """
        Tag the workload once, in a process of its own.

        :raises PeerError: when that fails, or the output has other rows
        """
        ...


def output_of(workload: Workload, peer: str) -> Path:
    """Where a peer writes."""
    return workload.path.with_name(f"{workload.name}.{peer}.parquet")


def check_output(workload: Workload, peer: str) -> None:
    """
    Check that a peer wrote every row.

    :raises PeerError: when it did not
    """
    rows = pq.read_metadata(output_of(workload, peer)).num_rows
    if rows != workload.rows:
        raise PeerError(f"{peer} wrote {rows} rows of {workload.name}, which has {workload.rows}")
