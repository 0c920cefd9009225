"""Run a command to its end and read what it says."""

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
    What a process took and said.

    :param message: the JSON object in the last line it printed that holds one
    """

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    message: dict[str, Any]


def run_process(command: Sequence[str | Path], scratch: Path, *, speaks: bool = True) -> Finished:
    """
    Run a command at the repository's root to its end.

    :param scratch: folder for its measurements
    :param speaks: it prints a JSON object; without one its message is empty
    :raises PeerError: when it fails or prints no JSON object
    """
    measured = scratch.absolute() / "launch.json"
    measured.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(_LAUNCHER), str(measured), *map(_word, command)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = "\n".join(done.stderr.splitlines()[-_SHOWN_LINES:])
        raise PeerError(f"{shown_command(command)}: exit code {done.returncode}\n{said}")

    message = last_json_object(f"{done.stdout}\n{done.stderr}")
    if message is None and speaks:
        raise PeerError(f"{shown_command(command)}: printed no JSON object")

    return Finished(**json.loads(measured.read_text("utf-8")), message=message or {})


def last_json_object(text: str) -> dict[str, Any] | None:
    """Find the last line that is a JSON object."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            try:
                value = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(value, dict):
                return value
    return None


def _word(word: str | Path) -> str:
    """Make paths absolute: the command runs at the repository's root, wherever this one was started."""
    return str(word.absolute()) if isinstance(word, Path) else word


def environment() -> dict[str, str]:
    """Let child processes import this checkout, whatever is installed."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [str(ROOT), str(ROOT / "export"), *(part for part in inherited if part)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
