"""
The long form of the kill test: ``python -m tests.durability.soak --kills 300 --log soak.json``.

Jobs over real corpora, as files and as a folder, in Parquet and JSON Lines, are killed with SIGKILL at random moments
and resumed until they are finished; every output is compared, byte by byte, with that of an uninterrupted run.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.conftest import SHARED
from tests.support.processes import Forked, Starter, run_with_kills, start
from tests.support.runs import texts, tree, write_lines, write_parquet

ROWS = {"wikipedia_sentences.parquet": 800, "novels_paragraphs.parquet": 250, "speeches_and_masc.jsonl.gz": 400}
SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.xz", ".csv", ".csv.bz2", ".arrow")  # of outputs
FOLDER_ROWS = 400  # of each file
FORKED_SHARE = 4  # a fork starts at once, so that a quarter of the rows takes as long as they need
KILLS_A_ROUND = 6
BROKEN_LINES = (b"broken \xff\n", b'{"text": 5}\n', b'{"text": "a\n')


def inputs(folder: Path) -> dict[str, Path]:
    """Return the inputs: each corpus, or generated texts if it is missing, a folder, and lines to reject."""
    found = {}
    for name in ROWS:
        path = SHARED / "corpora" / name
        if not path.is_file():
            path = (write_lines if ".jsonl" in name else write_parquet)(folder / name, texts(2000))
        found[name] = path

    parts = folder / "set"
    for year in range(4):
        (parts / f"year={year}").mkdir(parents=True)
        write_parquet(parts / f"year={year}" / "a.parquet", texts(150 + year * 50), 128)

    lines = write_lines(parts / "more.jsonl", texts(400)).read_bytes().splitlines(keepends=True)
    (parts / "more.jsonl").write_bytes(b"".join([*lines[:77], b"broken \xff\n", *lines[77:]]))
    (folder / "bad.jsonl").write_bytes(b"".join([*lines[:100], *BROKEN_LINES, *lines[100:], *BROKEN_LINES]))

    return {**found, "set": parts, "rejects": folder / "bad.jsonl"}


def jobs(folder: Path, share: int) -> dict[str, list[object]]:
    """
    Return the arguments of each job: input, name of the output, options.

    :param share: one of so many rows is tagged
    """
    found = inputs(folder)
    limits = {name: ("--limit", rows // share) for name, rows in ROWS.items()}
    small: list[object] = ["--chunk-rows", 25]
    kinds: dict[str, list[object]] = {}
    for name in ROWS:
        for suffix in SUFFIXES:
            kinds[f"{name} to {suffix}"] = [found[name], f"out{suffix}", *limits[name], *small]

    small += ["--limit", FOLDER_ROWS // share]
    kinds["folder"] = [found["set"], "out", "--on-error", "skip", "--rejects", "rejects.jsonl", *small]
    kinds["folder to lines"] = [
        *(found["set"], "out", "--output-format", "jsonl", "--on-error", "null", "--rejects", "rejects.jsonl", *small)
    ]
    kinds["rejects"] = [found["rejects"], "out.jsonl", "--on-error", "skip", "--rejects", "rejects.jsonl", *small]

    sentences = next(iter(ROWS))
    for layout in ("wide", "long"):
        kinds[layout] = [found[sentences], "out.parquet", *small, *limits[sentences], "--layout", layout]

    return kinds


def placed(arguments: list[object], folder: Path, model: str | None) -> list[object]:
    """Put a job's outputs into a new folder."""
    folder.mkdir()
    names = {"out", *(f"out{suffix}" for suffix in SUFFIXES), "rejects.jsonl"}
    return [folder / str(a) if str(a) in names else a for a in arguments] + (["--model", model] if model else [])


def undisturbed(arguments: list[object], out: Path, starter: Starter) -> tuple[dict[str, bytes], float]:
    """
    Run a job without a kill.

    :param out: folder of its outputs
    :return: its outputs, and the seconds that it took
    """
    begin = time.monotonic()
    starter(*arguments, "--quiet").communicate()
    seconds = time.monotonic() - begin
    return tree(out), seconds


def soak(kills: int, seconds: float, seed: int, model: str | None, starter: Starter) -> dict[str, Any]:
    """Kill until there were enough kills or the time is over. ``starter`` starts the processes."""
    rng, begin = random.Random(seed), time.monotonic()
    done: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory(prefix="nerd-soak-") as name:
        folder = Path(name)
        kinds = jobs(folder, FORKED_SHARE if starter is Forked else 1)
        whole: dict[str, tuple[dict[str, bytes], float]] = {}
        while sum(facts["kills"] for facts in done.values()) < kills and time.monotonic() - begin < seconds:
            kind = rng.choice(list(kinds))
            if kind not in whole:
                out = folder / f"whole{len(whole)}"
                whole[kind] = undisturbed(placed(kinds[kind], out, model), out, starter)
            expected, whole_s = whole[kind]

            out = folder / "killed"
            survival = run_with_kills(
                placed(kinds[kind], out, model),
                rng,
                # A little behind the end, so that the last steps can be hit, too.
                longest_s=whole_s * 1.05,
                most_kills=KILLS_A_ROUND,
                first_s=0.02 if starter is Forked else 0.2,
                starter=starter,
            )

            facts = done.setdefault(kind, {"rounds": 0, "starts": 0, "kills": 0, "different": 0})
            facts["rounds"] += 1
            facts["starts"] += survival.starts
            facts["kills"] += survival.kills
            facts["different"] += tree(out) != expected
            shutil.rmtree(out)
            print(json.dumps({"kind": kind, **facts}), file=sys.stderr, flush=True)

    total = {key: sum(facts[key] for facts in done.values()) for key in ("rounds", "starts", "kills", "different")}
    return {"seed": seed, "seconds": round(time.monotonic() - begin), **total, "jobs": done}


def main() -> None:
    """Run from the command line; exit code 1 when an output differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--model", help="model folder  [default: the default model]")
    parser.add_argument("--forked", action="store_true", help="processes are forked and need no time for imports")
    parser.add_argument("--log", type=Path)
    asked = parser.parse_args()
    summary = soak(asked.kills, asked.seconds, asked.seed, asked.model, Forked if asked.forked else start)

    text = json.dumps(summary, indent=1)
    print(text)
    if asked.log:
        asked.log.write_text(text + "\n")
    sys.exit(1 if summary["different"] else 0)


if __name__ == "__main__":
    main()
