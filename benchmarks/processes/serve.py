"""
The process of a peer: ``python -m benchmarks.processes.serve PEER SOURCES``. The suite writes the file SOURCES.

With ``--prepare`` it makes the model files of the peer. With ``--tag INPUT OUTPUT`` it tags one file. Without these
options it reads jobs from standard input, one JSON object per line, and writes one line per answer to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from benchmarks.peers import PEERS
from benchmarks.peers.peer import Engine, Peer, Sources
from nerd_onnx.machine.memory import peak_rss_bytes
from nerd_onnx.storage.atomic_folder import AtomicFolder

_CLEAR = Path("/proc/self/clear_refs")
_SHOWN = 500  # characters of an error message


def main() -> None:
    """Read the options; then prepare, tag one file, or answer jobs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes.serve", description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("sources", type=Path)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--tag", nargs=2, type=Path, metavar=("INPUT", "OUTPUT"))
    parser.add_argument("--setup", type=json.loads, help="setup as JSON  [default: the first setup of the peer]")
    options = parser.parse_args()

    # Standard output is for answers only.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    peer, sources = PEERS[options.peer], Sources.from_plain(json.loads(options.sources.read_text("utf-8")))

    if options.prepare:
        _answer(answers, prepare(peer, sources))
        return

    begin = time.perf_counter()
    engine = peer.load(sources, folder_of(peer, sources))
    # Part of the loading time, because a setup may load the model again.
    engine.configure(options.setup or engine.setups[0])
    load_s = time.perf_counter() - begin

    if options.tag:
        _answer(answers, measured(lambda: {"entities": engine.tag(*options.tag)}))
        return

    _answer(answers, {"load_s": load_s, "setups": list(engine.setups), "size_bytes": engine.size_bytes})
    for line in sys.stdin:
        _answer(answers, answer_to(engine, json.loads(line)))


def folder_of(peer: Peer, sources: Sources) -> Path:
    """Return the folder of the model files that a peer makes."""
    return sources.folder / peer.name


def prepare(peer: Peer, sources: Sources) -> dict[str, Any]:
    """Make the model files of a peer atomically, and return the ``seconds`` that it took; 0 if they existed."""
    folder = folder_of(peer, sources)
    if folder.is_dir():
        return {"seconds": 0.0}

    begin = time.perf_counter()
    # Atomic, because an interruption must not leave a folder that looks complete.
    with AtomicFolder(folder) as made:
        peer.prepare(sources, made.path)
        made.commit(replace=False)
    return {"seconds": time.perf_counter() - begin}


def answer_to(engine: Engine, job: Mapping[str, Any]) -> dict[str, Any]:
    """Run one job, and return its answer; an error is also an answer."""
    try:
        return measured(lambda: _do(engine, job))
    except Exception as err:  # noqa: BLE001 - an error of one peer must not end the run
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
    """Return the answer of an action, with its wall time, processor time and peak memory."""
    # Linux alone has the file; elsewhere the peak includes the loading of the model.
    if _CLEAR.exists():
        _CLEAR.write_text("5")  # resets the peak of this process

    cpu, begin = _cpu_s(), time.perf_counter()
    answer = action()

    return {
        "seconds": time.perf_counter() - begin,
        "cpu_s": _cpu_s() - cpu,
        "peak_rss_bytes": peak_rss_bytes(),
        **answer,
    }


def _cpu_s() -> float:
    # User and system time of this process and of its finished child processes.
    return sum(os.times()[:4])


def _answer(file: IO[str], answer: Mapping[str, Any]) -> None:
    file.write(json.dumps(answer) + "\n")
    # The suite waits for this line; a buffer would keep it.
    file.flush()


if __name__ == "__main__":
    main()
