"""
A peer in a process of its own: ``python -m benchmarks.processes.serve PEER SOURCES``, with SOURCES as the suite
writes them.

With ``--prepare`` it makes the peer's model files, with ``--tag INPUT OUTPUT`` it tags one file; with neither it
reads jobs, one JSON object a line, from standard input, and answers each with one line on standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from benchmarks.peers import PEERS
from benchmarks.peers.peer import Engine, Peer, Sources

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_SHOWN = 500  # characters of an error


def main() -> None:
    """Read the options and do one thing, or serve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes.serve", description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("sources", type=Path)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--tag", nargs=2, type=Path, metavar=("INPUT", "OUTPUT"))
    parser.add_argument("--setup", type=json.loads, help="how to run, as JSON; without it the peer's first way")
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    peer, sources = PEERS[options.peer], Sources.from_plain(json.loads(options.sources.read_text("utf-8")))
    if options.prepare:
        _answer(answers, prepare(peer, sources))
        return

    begin = time.perf_counter()
    engine = peer.load(sources, folder_of(peer, sources))
    engine.configure(options.setup or engine.setups[0])
    load_s = time.perf_counter() - begin
    if options.tag:
        _answer(answers, measured(lambda: {"entities": engine.tag(*options.tag)}))
        return

    _answer(answers, {"load_s": load_s, "setups": list(engine.setups), "size_bytes": engine.size_bytes})
    for line in sys.stdin:
        _answer(answers, done(engine, json.loads(line)))


def folder_of(peer: Peer, sources: Sources) -> Path:
    """Where a peer's own model files lie."""
    return sources.folder / peer.name


def prepare(peer: Peer, sources: Sources) -> dict[str, Any]:
    """Make a peer's model files, whole or not at all. :return: how long it took; 0 where they were there"""
    folder = folder_of(peer, sources)
    if folder.is_dir():
        return {"seconds": 0.0}

    begin = time.perf_counter()
    beside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    peer.prepare(sources, beside)
    beside.rename(folder)
    return {"seconds": time.perf_counter() - begin}


def done(engine: Engine, job: Mapping[str, Any]) -> dict[str, Any]:
    """Do one job; a failure is an answer too."""
    try:
        return measured(lambda: _do(engine, job))
    except Exception as err:  # noqa: BLE001 - whatever a peer raises, the others go on
        return {"error": f"{type(err).__name__}: {err}"[:_SHOWN]}


def _do(engine: Any, job: Mapping[str, Any]) -> dict[str, Any]:
    match job["do"]:
        case "configure":
            engine.configure(job["setup"])
        case "tag":
            return {"entities": engine.tag(Path(job["source"]), Path(job["target"]))}
        case "words":
            engine.words(Path(job["source"]), Path(job["target"]))
        case "replay":
            return dict(engine.replay(Path(job["source"])))
    return {}


def measured(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do something. :return: its answer, with its wall time, processor time and peak memory"""
    if _CLEAR.exists():
        _CLEAR.write_text("5")  # the peak from here on
    cpu, begin = _cpu_s(), time.perf_counter()
    answer = action()

    return {
        "seconds": time.perf_counter() - begin,
        "cpu_s": _cpu_s() - cpu,
        "peak_rss_bytes": _peak_rss_bytes(),
        **answer,
    }


def _cpu_s() -> float:
    return sum(os.times()[:4])


def _peak_rss_bytes() -> int:
    if not _STATUS.exists():
        return 0
    line = next(line for line in _STATUS.read_text("utf-8").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _answer(file: IO[str], answer: Mapping[str, Any]) -> None:
    file.write(json.dumps(answer) + "\n")
    file.flush()


if __name__ == "__main__":
    main()
