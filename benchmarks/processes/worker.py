"""A peer's process, seen from the suite: started, given jobs one at a time, and ended."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.paths import ROOT, without_folders
from benchmarks.peers.peer import Peer, PeerError, Setup, Sources
from benchmarks.processes.process import environment

_LONGEST_JOB_S = 900.0  # a peer that hangs must not hold the others up for ever


class Worker:
    """
    One peer, loaded.

    :param python: interpreter with the peer's packages
    :param sources_file: the :class:`Sources` as JSON
    :param log: receives what the process says on standard error
    :ivar start_s: from starting the process to the loaded model
    :ivar facts: what the process said when it was ready: ``load_s``, ``setups``, ``size_bytes``
    :raises PeerError: when it cannot start
    """

    def __init__(self, peer: Peer, python: str, sources_file: Path, log: Path) -> None:
        self.name = peer.name
        self._log = log
        begin = time.perf_counter()

        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.processes.serve", peer.name, str(sources_file.absolute())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=environment(),
                text=True,
            )

        try:
            self.facts = self._read()
        except BaseException:
            self.close()
            raise

        self.start_s = time.perf_counter() - begin
        self.setup: Setup = self.facts["setups"][0]  # what it starts with

    def do(self, job: str, **details: Any) -> dict[str, Any]:
        """
        Give a job and wait for the answer.

        :raises PeerError: when the peer fails at it
        """
        words = {key: str(value.absolute()) if isinstance(value, Path) else value for key, value in details.items()}

        try:
            self._input().write(json.dumps({"do": job, **words}) + "\n")
            self._input().flush()
        except OSError as err:
            raise PeerError(f"{self.name} ended: {self._last_words()}") from err

        answer = self._read()
        if "error" in answer:
            raise PeerError(f"{self.name}: {without_folders(answer['error'])}")

        return answer

    def configure(self, setup: Setup) -> None:
        """Choose a way to run."""
        self.do("configure", setup=dict(setup))
        self.setup = setup

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._input().close()

        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

        if self._process.stdout:
            self._process.stdout.close()

    def _input(self) -> Any:
        return self._process.stdin

    def _read(self) -> dict[str, Any]:
        """Read one answer."""
        stdout = self._process.stdout
        if stdout is None or not select.select([stdout], [], [], _LONGEST_JOB_S)[0]:
            self._process.kill()
            raise PeerError(f"{self.name} did not answer within {_LONGEST_JOB_S:g} s")

        line = stdout.readline()
        if not line:
            raise PeerError(f"{self.name} ended: {self._last_words()}")

        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        return last_words(self._log)


def prepare(peer: Peer, python: str, sources_file: Path, log: Path) -> float:
    """
    Let a peer make its model files, where it has not made them before.

    :return: how long it took, in seconds
    :raises PeerError: when it fails
    """
    command = [python, "-m", "benchmarks.processes.serve", peer.name, str(sources_file.absolute()), "--prepare"]
    with log.open("w") as errors:
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=errors, text=True, check=False
        )
    if done.returncode:
        raise PeerError(f"{peer.name} could not be prepared: {last_words(log)}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def last_words(log: Path) -> str:
    """Give the last line of a log, which is where Python names an error."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return without_folders(lines[-1].strip()) if lines else "it said nothing"


def missing_packages(peer: Peer, python: str) -> list[str]:
    """List the packages of a peer that its interpreter cannot find."""
    code = (
        "import importlib.util, sys\n"
        "def has(name):\n"
        "    try: return importlib.util.find_spec(name) is not None\n"
        "    except ImportError: return False\n"
        "print(' '.join(name for name in sys.argv[1:] if not has(name)))"
    )
    try:
        done = subprocess.run([python, "-c", code, *peer.packages], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ["a working interpreter"]

    return done.stdout.split()


def write_sources(sources: Sources, file: Path) -> Path:
    """Write the sources where a peer's process finds them."""
    sources.folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(sources.plain(), indent=2) + "\n", "utf-8")
    return file
