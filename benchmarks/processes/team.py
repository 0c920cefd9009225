"""The peers of one model shape, each ready to run or named with the reason why not."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.peers.peer import Peer, PeerError, Sources, interpreter_of
from benchmarks.processes.worker import Worker, missing_packages, prepare, write_sources
from nerd_onnx.inference.bundle import Bundle


@dataclass(frozen=True)
class Member:
    """
    A peer that can run here.

    :param sources_file: its :class:`Sources` as JSON
    :param worker: its process; None for a peer that is a command
    """

    peer: Peer
    sources: Sources
    sources_file: Path
    python: str
    worker: Worker | None = None

    @property
    def name(self) -> str:
        """The peer's name."""
        return self.peer.name

    @property
    def bundle(self) -> Path:
        """The bundle that gives the peer tokenizer, labels and sizes."""
        return self.peer.bundle_of(self.sources)

    def command(self, source: Path, target: Path) -> list[str | Path]:
        """Give the command that tags a file; paths are paths, so that a report can shorten them."""
        own = self.peer.command(self.sources, source, target)
        if own is not None:
            return own
        python = f"$NERD_BENCH_{self.peer.environment.upper()}" if self.peer.environment else "python"
        words: list[str | Path] = [python, "-m", "benchmarks.processes.serve", self.name, self.sources_file]
        setup = json.dumps(dict(self.worker.setup)) if self.worker else "{}"
        return [*words, "--setup", f"'{setup}'", "--tag", source, target]

    @contextlib.contextmanager
    def running(self, log: Path) -> Iterator[Worker]:
        """Give the peer's process; one is started for peers that are commands."""
        if self.worker is not None:
            yield self.worker
            return
        worker = Worker(self.peer, self.python, self.sources_file, log)
        try:
            yield worker
        finally:
            worker.close()


@dataclass(frozen=True)
class Team:
    """
    Everyone who runs.

    :param members: in the order of the report
    :param skipped: by peer: why it does not run
    :param facts: by member: ``title``, ``prepare_s``, ``size_bytes``
    """

    members: Sequence[Member]
    skipped: Mapping[str, str]
    facts: Mapping[str, Mapping[str, Any]]

    def close(self) -> None:
        """End their processes."""
        for member in self.members:
            if member.worker is not None:
                member.worker.close()


def gather(names: Sequence[str], sources: Sources, pythons: Mapping[str, str], work: Path, tell: Any) -> Team:
    """
    Make ready all peers that can run here.

    :param names: peers wanted
    :param pythons: interpreters by environment
    :param work: folder for logs and the sources' description
    """
    file = write_sources(sources, work / f"{sources.shape}.json")
    members: list[Member] = []
    skipped: dict[str, str] = {}
    facts: dict[str, dict[str, Any]] = {}

    for name in names:
        peer = PEERS[name]
        reason, python = _reason(peer, sources, pythons)
        if reason is None:
            tell(f"{sources.shape}: making {name} ready")
            try:
                member, facts[name] = _ready(peer, sources, file, python, work)
                members.append(member)
            except PeerError as err:
                reason = str(err)
        if reason is not None:
            skipped[name] = reason
            tell(f"{sources.shape}: {name} does not run: {reason}")

    return Team(members, skipped, facts)


def _reason(peer: Peer, sources: Sources, pythons: Mapping[str, str]) -> tuple[str | None, str]:
    """Say why a peer cannot run, or None; and name its interpreter."""
    unfit = peer.unfit(sources)
    if unfit:
        return unfit, ""
    python = interpreter_of(peer, pythons)
    if python is None:
        return f"no interpreter with {', '.join(peer.packages[:2])} (--python {peer.environment}=PATH)", ""
    missing = missing_packages(peer, python)
    return (f"{' and '.join(missing)} not installed" if missing else None), python


def _ready(peer: Peer, sources: Sources, file: Path, python: str, work: Path) -> tuple[Member, dict[str, Any]]:
    """Prepare a peer and start its process; a peer that is a command needs none yet."""
    prepare_s = prepare(peer, python, file, work / f"{peer.name}.prepare.log")
    facts: dict[str, Any] = {"title": peer.title, "prepare_s": prepare_s}
    if peer.command(sources, file, file) is not None:
        bundle = Bundle.load(peer.bundle_of(sources))
        return Member(peer, sources, file, python), facts | {"size_bytes": bundle.model_file.stat().st_size}
    worker = Worker(peer, python, file, work / f"{peer.name}.log")
    facts |= {"load_s": worker.facts["load_s"], "size_bytes": worker.facts["size_bytes"]}
    return Member(peer, sources, file, python, worker), facts
