"""The peers of one model shape: those that are ready to run, and for the others the reason why not."""

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
    A peer that is ready to run.

    :param sources: its model files
    :param sources_file: the same as JSON
    :param python: its interpreter
    :param worker: its process; None if the peer is a command
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
        """The bundle that gives the tokenizer, the labels and the sizes of the peer."""
        return self.peer.bundle_of(self.sources)

    def command(self, source: Path, target: Path) -> list[str | Path]:
        """Return the command that tags a file; paths have the type Path, so that a report can shorten them."""
        own = self.peer.command(self.sources, source, target)
        if own is not None:
            return own

        # A report must not have a path of this machine, so the variable stands for the interpreter.
        python = f"$NERD_BENCH_{self.peer.environment.upper()}" if self.peer.environment else "python"
        words: list[str | Path] = [python, "-m", "benchmarks.processes.serve", self.name, self.sources_file]
        # Quoted for a shell: the command is shown and not run.
        setup = json.dumps(dict(self.worker.setup)) if self.worker else "{}"
        return [*words, "--setup", f"'{setup}'", "--tag", source, target]

    @contextlib.contextmanager
    def running(self, log: Path) -> Iterator[Worker]:
        """Yield the process of the peer; for a peer that is a command, one that runs only in this block."""
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
    The peers of one shape.

    :param members: peers that are ready, in the order of the report
    :param skipped: by peer that does not run, the reason
    :param facts: by member ``title``, ``prepare_s`` and ``size_bytes``; with a process also ``load_s``
    """

    members: Sequence[Member]
    skipped: Mapping[str, str]
    facts: Mapping[str, Mapping[str, Any]]

    def close(self) -> None:
        """Stop the processes of the members."""
        for member in self.members:
            if member.worker is not None:
                member.worker.close()


def gather(names: Sequence[str], sources: Sources, pythons: Mapping[str, str], work: Path, tell: Any) -> Team:
    """
    Prepare the peers, and start their processes.

    :param names: names of the peers
    :param pythons: by environment, the interpreter of its peers
    :param work: folder for logs and for the sources as JSON
    :param tell: called with one line per step
    """
    file = write_sources(sources, work / f"{sources.shape}.json")
    members: list[Member] = []
    skipped: dict[str, str] = {}
    facts: dict[str, dict[str, Any]] = {}

    for name in names:
        peer = PEERS[name]

        # A peer that cannot run is a line in the report and not an error: no machine has the packages of all of them.
        reason, python = _why_not(peer, sources, pythons)
        if reason is None:
            tell(f"{sources.shape}: preparing {name}")
            try:
                member, facts[name] = _ready(peer, sources, file, python, work)
                members.append(member)
            except PeerError as err:
                reason = str(err)

        if reason is not None:
            skipped[name] = reason
            tell(f"{sources.shape}: {name} does not run: {reason}")

    return Team(members, skipped, facts)


def _why_not(peer: Peer, sources: Sources, pythons: Mapping[str, str]) -> tuple[str | None, str]:
    """Return why a peer cannot run, or None; and its interpreter."""
    reason = peer.reason_unavailable(sources)
    if reason:
        return reason, ""

    python = interpreter_of(peer, pythons)
    if python is None:
        return f"no interpreter with {', '.join(peer.packages[:2])} (--python {peer.environment}=PATH)", ""

    missing = missing_packages(peer, python)
    return (f"{' and '.join(missing)} not installed" if missing else None), python


def _ready(peer: Peer, sources: Sources, file: Path, python: str, work: Path) -> tuple[Member, dict[str, Any]]:
    """Prepare a peer and start its process, if it is not a command; return it with its facts."""
    # In a process of its own, so that a conversion does not count for the memory of the peer.
    prepare_s = prepare(peer, python, file, work / f"{peer.name}.prepare.log")
    facts: dict[str, Any] = {"title": peer.title, "prepare_s": prepare_s}

    # Any paths will do: it is asked only whether the peer is a command.
    if peer.command(sources, file, file) is not None:
        bundle = Bundle.load(peer.bundle_of(sources))
        return Member(peer, sources, file, python), facts | {"size_bytes": bundle.model_file.stat().st_size}

    worker = Worker(peer, python, file, work / f"{peer.name}.log")
    facts |= {"load_s": worker.facts["load_s"], "size_bytes": worker.facts["size_bytes"]}
    return Member(peer, sources, file, python, worker), facts
