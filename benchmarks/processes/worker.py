"""The suite's side of a peer's process: start it, send it one job at a time, and stop it."""

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

_MAX_JOB_SECONDS = 900.0  # a peer that hangs must not block the run


class Worker:
    """
    The process of one peer, with its model loaded.

    :param python: interpreter with the packages of the peer
    :param sources_file: the :class:`Sources` as JSON
    :param log: file for the standard error of the process
    :ivar start_s: seconds from the start of the process to the loaded model
    :ivar facts: ``load_s``, ``setups`` and ``size_bytes``, as the process reported them
    :ivar setup: the current setup
    :ivar process: the process itself, for tests that end it
    :raises PeerError: if it cannot start
    """

    def __init__(self, peer: Peer, python: str, sources_file: Path, log: Path) -> None:
        self.name = peer.name
        self._log = log
        begin = time.perf_counter()

        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [python, "-m", "benchmarks.processes.serve", peer.name, str(sources_file.absolute())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # To a file, because a pipe that nobody reads would block a peer that logs much.
                stderr=errors,
                cwd=ROOT,
                env=environment(),
                text=True,
            )

        try:
            self.facts = self._read()
        except BaseException:
            self.close()  # the caller has no object with which it could stop the process
            raise

        self.start_s = time.perf_counter() - begin
        self.setup: Setup = self.facts["setups"][0]

    def do(self, job: str, **details: Any) -> dict[str, Any]:
        """
        Send a job, and wait for the answer.

        :param job: ``configure``, ``tag``, ``words`` or ``replay``
        :param details: arguments of the job
        :raises PeerError: if the job fails, or the process has ended
        """
        words = {key: str(value.absolute()) if isinstance(value, Path) else value for key, value in details.items()}

        try:
            self._input().write(json.dumps({"do": job, **words}) + "\n")
            self._input().flush()
        except OSError as err:
            raise PeerError(f"{self.name} ended: {self._last_log_line()}") from err

        answer = self._read()
        if "error" in answer:
            raise PeerError(f"{self.name}: {without_folders(answer['error'])}")

        return answer

    def configure(self, setup: Setup) -> None:
        """Select a setup."""
        self.do("configure", setup=dict(setup))
        self.setup = setup

    def close(self) -> None:
        """Stop the process."""
        with contextlib.suppress(OSError):
            # The process ends when its input ends.
            self._input().close()

        try:
            # A peer may be in the middle of a job when the suite fails.
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

        if self.process.stdout:
            self.process.stdout.close()

    def _input(self) -> Any:
        return self.process.stdin

    def _read(self) -> dict[str, Any]:
        """Return one answer."""
        stdout = self.process.stdout
        # A read alone would wait forever for a peer that hangs.
        if stdout is None or not select.select([stdout], [], [], _MAX_JOB_SECONDS)[0]:
            self.process.kill()
            raise PeerError(f"{self.name} did not answer within {_MAX_JOB_SECONDS:g} s")

        line = stdout.readline()
        if not line:
            raise PeerError(f"{self.name} ended: {self._last_log_line()}")

        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_log_line(self) -> str:
        return last_line(self._log)


def prepare(peer: Peer, python: str, sources_file: Path, log: Path) -> float:
    """
    Make the model files of a peer, in a process of its own.

    :return: the seconds that it took; 0 if the files existed
    :raises PeerError: if it fails
    """
    command = [python, "-m", "benchmarks.processes.serve", peer.name, str(sources_file.absolute()), "--prepare"]

    with log.open("w") as errors:
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=errors, text=True, check=False
        )

    if done.returncode:
        raise PeerError(f"{peer.name} could not be prepared: {last_line(log)}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def last_line(log: Path) -> str:
    """Return the last line of a log, where Python writes the error."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return without_folders(lines[-1].strip()) if lines else "it printed nothing"


def missing_packages(peer: Peer, python: str) -> list[str]:
    """Return the packages of a peer that its interpreter does not have."""
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
    """Write the sources to a JSON file for the processes of the peers."""
    sources.folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(sources.plain(), indent=2) + "\n", "utf-8")
    return file
