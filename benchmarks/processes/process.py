"""Run a command, and read the JSON object that it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.paths import ROOT, shown_command
from benchmarks.peers.peer import PeerError

_LAUNCHER = Path(__file__).with_name("launch.py")
_SHOWN_LINES = 5


@dataclass(frozen=True)
class Finished:
    """
    Time, memory and output of a finished process.

    :param message: the last JSON object that it printed on a line of its own
    """

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    message: dict[str, Any]


def run_process(command: Sequence[str | Path], scratch: Path, *, prints_json: bool = True) -> Finished:
    """
    Run a command at the root of the repository, and wait for it.

    :param scratch: folder for a file with its time and memory
    :param prints_json: the command must print a JSON object
    :raises PeerError: if it fails, or prints no JSON object
    """
    measured = scratch.absolute() / "launch.json"
    # The figures of an earlier command must not stand for one that could not be started.
    measured.unlink(missing_ok=True)

    done = subprocess.run(
        # -I -S: the launcher must stay small, because its memory counts.
        [sys.executable, "-I", "-S", str(_LAUNCHER), str(measured), *map(_absolute, command)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        error = "\n".join(done.stderr.splitlines()[-_SHOWN_LINES:])
        raise PeerError(f"{shown_command(command)}: exit code {done.returncode}\n{error}")

    # nerd-tag writes its summary to standard error, other programs write theirs to standard output.
    message = last_json_object(f"{done.stdout}\n{done.stderr}")
    if message is None and prints_json:
        raise PeerError(f"{shown_command(command)}: printed no JSON object")

    return Finished(**json.loads(measured.read_text("utf-8")), message=message or {})


def last_json_object(text: str) -> dict[str, Any] | None:
    """Return the last line that is a JSON object; None if there is none."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            try:
                value = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(value, dict):
                return value
    return None


def _absolute(word: str | Path) -> str:
    """Return a word of a command with its path absolute, because the command runs in another folder."""
    return str(word.absolute()) if isinstance(word, Path) else word


def environment() -> dict[str, str]:
    """Return environment variables with which a child process imports this checkout, not an installed version."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [str(ROOT), str(ROOT / "export"), *(part for part in inherited if part)]

    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
