"""What a peer is: a way to tag text, with the packages and model files it asks for, in an interpreter of its own."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol

Setup = Mapping[str, Any]
_PLAIN = ("shape", "threads")  # fields of Sources that are no paths


class PeerError(Exception):
    """A peer failed, or did not tag what it was given."""


@dataclass(frozen=True)
class Sources:
    """
    What the peers of one model shape are made from.

    :param shape: ``small`` or ``base``
    :param folder: receives the model files that peers make for themselves
    :param bundle: our int8 bundle; its tokenizer, labels and segment length serve every network
    :param plain_bundle: our fp32 bundle of the same weights
    :param other_bundle: another bundle to compare ours with; only the small shape can have one
    :param checkpoint: PyTorch weights and tokenizer
    :param exported: the same weights as optimum exports them to ONNX
    :param calibration: Parquet file with a ``text`` column, for peers that calibrate; never what they are scored on
    :param threads: processors to use
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
        """Give plain data, to hand to another process."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Sources:
        """Read what :meth:`plain` gave."""
        paths = {f.name: Path(data[f.name]) if data[f.name] else None for f in fields(cls) if f.name not in _PLAIN}
        return cls(**paths, **{name: data[name] for name in _PLAIN})  # type: ignore[arg-type]


class Engine(Protocol):
    """A peer's loaded model, in the peer's own process."""

    setups: Sequence[Setup]  # ways to run it, of which the fastest on the workload is taken
    size_bytes: int  # model files that a user must have, without the tokenizer

    def configure(self, setup: Setup) -> None:
        """Choose a way to run; called at least once before anything else."""
        ...

    def tag(self, source: Path, target: Path) -> int:
        """Tag a Parquet file into another, with a column ``entities``. :return: entities found"""
        ...


class Peer(ABC):
    """
    One way to tag text; each has a file of its own beside this one.

    :cvar name: its name in options, files and the report
    :cvar title: what it is, for the report
    :cvar packages: modules that its interpreter must be able to import
    :cvar environment: name of the interpreter it asks for, set by ``--python NAME=PATH``; None for this one
    :cvar asks: fields of :class:`Sources` without which it cannot run
    :cvar is_network: its engine is a network behind the project's tagger: it can also tag given words, and run alone
    """

    name: ClassVar[str]
    title: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    environment: ClassVar[str | None] = None
    asks: ClassVar[tuple[str, ...]] = ()
    is_network: ClassVar[bool] = True

    def unfit(self, sources: Sources) -> str | None:
        """Say why it cannot run these models, or None."""
        words = {
            "checkpoint": "no PyTorch weights (give --checkpoint, or a model folder with config.json for a twin)",
            "exported": "no ONNX export of PyTorch weights",
            "plain_bundle": "no fp32 bundle of the same weights",
            "other_bundle": "no other bundle (give --other-model; only the small shape has one)",
            "calibration": "no texts to calibrate on",
        }
        return next((words[field] for field in self.asks if getattr(sources, field) is None), None)

    def bundle_of(self, sources: Sources) -> Path:
        """Return the bundle that gives tokenizer, labels and sizes: ours, unless the peer has one of its own."""
        return sources.bundle

    def command(
        self,
        sources: Sources,  # noqa: ARG002 - of its own for a peer that is a command
        source: Path,  # noqa: ARG002
        target: Path,  # noqa: ARG002
    ) -> list[str | Path] | None:
        """Give the command line that users call, if the peer has one; else its :class:`Engine` tags."""
        return None

    def prepare(self, sources: Sources, folder: Path) -> None:  # noqa: B027 - a hook: not every peer has files to make
        """
        Make its model files, once; runs in the peer's own process.

        :param folder: empty, kept for later runs when this returns
        """

    @abstractmethod
    def load(self, sources: Sources, folder: Path) -> Engine:
        """Load its model; runs in the peer's own process."""


def interpreter_of(peer: Peer, pythons: Mapping[str, str]) -> str | None:
    """
    Find the interpreter that a peer asks for.

    :param pythons: interpreters by environment, as options gave them; ``NERD_BENCH_<NAME>`` serves otherwise
    :return: None where none was given
    """
    if peer.environment is None:
        return sys.executable
    return pythons.get(peer.environment) or os.environ.get(f"NERD_BENCH_{peer.environment.upper()}")


@dataclass(frozen=True)
class PeerRun:
    """
    One run of a peer over a workload.

    :param round: number of the interleaved round it belongs to
    :param tagging_s: from opening the input to the finished output: without interpreter, imports and model
    :param start_s: everything else: interpreter, imports, model
    :param cpu_s: processor time while tagging; of a command, of the whole process
    :param peak_rss_bytes: largest resident size of the process while tagging
    :param entities: entities found
    """

    round: int
    tagging_s: float
    start_s: float
    cpu_s: float
    peak_rss_bytes: int
    entities: int
