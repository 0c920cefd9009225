"""The interface of peers: a name, required packages and model files, and a way to load and run the model."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol

Setup = Mapping[str, Any]
_PLAIN = ("shape", "threads")  # fields of Sources that are not paths


class PeerError(Exception):
    """A peer failed, or did not tag every row."""


@dataclass(frozen=True)
class Sources:
    """
    The model files from which the peers of one model shape are made.

    :param shape: ``small`` or ``base``
    :param folder: folder for the model files that peers make
    :param bundle: the int8 bundle to measure; its tokenizer, labels and segment length are used for every network
    :param plain_bundle: the fp32 bundle of the same weights
    :param other_bundle: the bundle of ``--other-model``; only the small shape can have one
    :param checkpoint: PyTorch weights and tokenizer
    :param exported: the ONNX export of the same weights by optimum
    :param calibration: Parquet file with a ``text`` column, for peers that calibrate; peers are not scored on its texts
    :param threads: number of processors to use
    """

    shape: str
    folder: Path
    bundle: Path
    plain_bundle: Path | None
    checkpoint: Path | None
    exported: Path | None
    calibration: Path | None
    threads: int
    other_bundle: Path | None = None

    def plain(self) -> dict[str, Any]:
        """Return plain data for another process."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Sources:
        """Return the sources from the data of :meth:`plain`."""
        paths = {f.name: Path(data[f.name]) if data[f.name] else None for f in fields(cls) if f.name not in _PLAIN}
        return cls(**paths, **{name: data[name] for name in _PLAIN})  # type: ignore[arg-type]


class Engine(Protocol):
    """
    The loaded model of a peer, in the peer's own process.

    The engine of a network has two more methods, ``words`` and ``replay``: see
    :class:`~benchmarks.peers.networks.NetworkEngine`.

    :ivar setups: ways to run the model; the fastest one for a workload is used
    :ivar size_bytes: size of the model files without the tokenizer
    """

    setups: Sequence[Setup]
    size_bytes: int

    def configure(self, setup: Setup) -> None:
        """Select a setup; called before the first run."""
        ...

    def tag(self, source: Path, target: Path) -> int:
        """Tag the column ``text`` of a Parquet file, write a column ``entities``, and return the number of entities."""
        ...


class Peer(ABC):
    """
    A program that tags text.

    :cvar name: name in options, files and reports
    :cvar title: description for readers of a report
    :cvar packages: modules that its interpreter must be able to import
    :cvar environment: name of its own interpreter, set by ``--python NAME=PATH``; None for the current one
    :cvar needs: fields of :class:`Sources` that must not be None
    :cvar is_network: its engine is a network in this project's tagger, which can also tag words and run alone
    :cvar by_default: it runs if the form includes all peers
    """

    name: ClassVar[str]
    title: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    environment: ClassVar[str | None] = None
    needs: ClassVar[tuple[str, ...]] = ()
    is_network: ClassVar[bool] = True
    by_default: ClassVar[bool] = True

    def reason_unavailable(self, sources: Sources) -> str | None:
        """Return why the peer cannot run these models; None if it can."""
        words = {
            "checkpoint": "no PyTorch weights (give --checkpoint, or a bundle with config.json for random weights)",
            "exported": "no ONNX export of PyTorch weights",
            "plain_bundle": "no fp32 bundle of the same weights",
            "other_bundle": "no other bundle (give --other-model; only the small shape has one)",
            "calibration": "no texts to calibrate on",
        }
        return next((words[field] for field in self.needs if getattr(sources, field) is None), None)

    def bundle_of(self, sources: Sources) -> Path:
        """Return the bundle that gives the tokenizer, the labels and the sizes of the network."""
        return sources.bundle

    def command(
        self,
        sources: Sources,  # noqa: ARG002 - for subclasses that are commands
        source: Path,  # noqa: ARG002
        target: Path,  # noqa: ARG002
    ) -> list[str | Path] | None:
        """Return the command line of a run, if the peer is a command; else None, and its :class:`Engine` tags."""
        return None

    def prepare(self, sources: Sources, folder: Path) -> None:  # noqa: B027 - optional: not every peer makes files
        """
        Make the model files of the peer. It runs in the peer's own process.

        :param folder: empty folder; later runs reuse it if this method returns without an error
        """

    @abstractmethod
    def load(self, sources: Sources, folder: Path) -> Engine:
        """
        Load the model. It runs in the peer's own process.

        Packages that only this peer needs are imported here, because the suite imports the module without them.

        :param folder: the model files of :meth:`prepare`
        """


def interpreter_of(peer: Peer, pythons: Mapping[str, str]) -> str | None:
    """
    Return the interpreter of a peer.

    :param pythons: interpreters of ``--python``, by environment; the environment variable ``NERD_BENCH_<NAME>`` is used
        for others
    :return: None if the peer needs an interpreter of its own and none was given
    """
    if peer.environment is None:
        return sys.executable
    return pythons.get(peer.environment) or os.environ.get(f"NERD_BENCH_{peer.environment.upper()}")


@dataclass(frozen=True)
class PeerRun:
    """
    One run of a peer over a workload.

    :param round: number of its interleaved round
    :param tagging_s: seconds from opening the input to the finished output
    :param start_s: seconds before that: interpreter, imports and model
    :param cpu_s: processor time while tagging; for a command, of the whole process
    :param peak_rss_bytes: maximum resident size of the process while tagging
    :param entities: number of entities
    """

    round: int
    tagging_s: float
    start_s: float
    cpu_s: float
    peak_rss_bytes: int
    entities: int
