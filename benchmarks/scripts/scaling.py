"""
What does an engine cost, and what do more processors bring? ``python -m benchmarks.scripts.scaling``.

The same files are tagged by the local run, by Ray and by Spark, held to one processor and to more. A run of one row a
file tells what starting costs; what a whole run takes beyond that is tagging. All take turns, so that they may be
compared; nothing else should run on the machine.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import commit, machine_facts
from benchmarks.measurements.ratios import by_round, paired, shown_ratio
from benchmarks.paths import SHARED

ENGINES = ("local", "ray", "spark")
_CORPUS = Path("corpora") / "wikipedia_sentences.parquet"


@dataclass(frozen=True)
class Setting:
    """
    Who works, on how many processors.

    :param processors: those that the process and all that it starts may use
    """

    engine: str
    processors: int

    @property
    def options(self) -> list[str]:
        """Its options: a worker a processor; the local run has threads instead."""
        if self.engine == "local":
            return ["--threads", str(self.processors)]
        return ["--engine", self.engine, "--workers", str(self.processors), "--threads", "1"]


@dataclass(frozen=True)
class Run:
    """
    One run.

    :param seconds: from the command's start to its end
    """

    seconds: float
    tokens: int


def write_files(folder: Path, texts: Sequence[str], files: int) -> Path:
    """Write texts as so many Parquet files of about the same number of rows."""
    folder.mkdir()
    for i in range(files):
        pq.write_table(pa.table({"text": texts[i::files]}), folder / f"{i:03}.parquet")
    return folder


def timed(setting: Setting, source: Path, output: Path) -> Run:
    """
    Tag files and take the time.

    :raises click.ClickException: when it fails
    """
    command = [sys.executable, "-m", "nerd_onnx.cli", *setting.options, str(source), str(output), "--json"]
    allowed = sorted(os.sched_getaffinity(0))[: setting.processors]
    begin = time.perf_counter()
    # taskset, not a function before exec: the engines' own processes are to be held too.
    held = ["taskset", "--cpu-list", ",".join(map(str, allowed)), *command]
    here = {**os.environ, "RAY_ADDRESS": "local"}  # not a Ray that runs on this machine already
    done = subprocess.run(held, capture_output=True, text=True, check=False, env=here)
    seconds = time.perf_counter() - begin
    said = done.stderr.strip().splitlines()
    if done.returncode != 0:
        raise click.ClickException(f"{setting}: exit code {done.returncode}: {said[-1] if said else 'it said nothing'}")

    return Run(seconds, json.loads(said[-1])["tokens"])


def line(setting: Setting, starts: Sequence[Run], wholes: Sequence[Run]) -> dict[str, Any]:
    """
    Sum the runs of a setting up: medians, and the speed of each round.

    A speed is None where a run took no longer than starting.
    """
    start_s = statistics.median(run.seconds for run in starts)
    whole_s = statistics.median(run.seconds for run in wholes)
    tokens = wholes[0].tokens - starts[0].tokens
    by_number = [
        {"round": number, "tokens_per_s": round(tokens / (run.seconds - start_s))}
        for number, run in enumerate(wholes)
        if run.seconds > start_s
    ]
    rates = [found["tokens_per_s"] for found in by_number]

    return {
        "engine": setting.engine,
        "processors": setting.processors,
        "start_s": round(start_s, 2),
        "whole_s": round(whole_s, 2),
        "tokens_per_s": round(statistics.median(rates)) if len(rates) == len(wholes) else None,
        "lowest_tokens_per_s": round(min(rates, default=0)),
        "highest_tokens_per_s": round(max(rates, default=0)),
        "rounds": by_number,
    }


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Write the lines as Markdown, each engine's first one as what the others are compared with."""
    rows = ["| engine | processors | start, s | tokens/s after it | times one processor |", "|---|---|---|---|---|"]

    for found in lines:
        first = next(one for one in lines if one["engine"] == found["engine"])
        speed, times = "too few rows to tell", "-"
        if found["tokens_per_s"]:
            spread = f"{found['lowest_tokens_per_s']:,} to {found['highest_tokens_per_s']:,}"
            speed = f"{found['tokens_per_s']:,} ({spread})"
            times = "1" if found is first else _times(found, first)
        rows.append(f"| {found['engine']} | {found['processors']} | {found['start_s']:.1f} | {speed} | {times} |")

    return "\n".join(rows)


def _times(found: dict[str, Any], first: dict[str, Any]) -> str:
    """Write how much faster a line is than another, by the rounds that both have."""
    if "rounds" not in found:
        return "rounds not kept"  # figures of 2026-11-24 and before

    ratio = paired(by_round(found["rounds"], "tokens_per_s"), by_round(first["rounds"], "tokens_per_s"))
    return shown_ratio(ratio) if ratio else "-"


@click.command(context_settings={"show_default": True})
@click.option("--engine", "engines", type=click.Choice(ENGINES), multiple=True, default=ENGINES)
@click.option("--processors", type=click.IntRange(min=1), multiple=True, default=(1, 2))
@click.option("--rows", type=click.IntRange(min=1), default=6_000, help="Rows in all files.")
@click.option("--files", type=click.IntRange(min=1), default=8)
@click.option("--rounds", type=click.IntRange(min=1), default=3)
@click.option("--shared", type=click.Path(path_type=Path), default=SHARED, show_default="../shared/data")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures there, as JSON.")
def main(
    *,
    engines: Sequence[str],
    processors: Sequence[int],
    rows: int,
    files: int,
    rounds: int,
    shared: Path,
    out: Path | None,
) -> None:
    """Print start-up and speed of each engine on each number of processors."""
    settings = [Setting(engine, count) for engine in engines for count in sorted(processors)]
    texts = pq.read_table(shared / _CORPUS, columns=["text"])["text"].slice(0, rows).to_pylist()
    starts: dict[Setting, list[Run]] = {setting: [] for setting in settings}
    wholes: dict[Setting, list[Run]] = {setting: [] for setting in settings}
    facts = {"machine": machine_facts(), "commit": commit(), "rows": len(texts), "files": files, "rounds": rounds}

    with tempfile.TemporaryDirectory(prefix="nerd-scaling-") as scratch:
        few = write_files(Path(scratch, "few"), texts[:files], files)
        many = write_files(Path(scratch, "many"), texts, files)
        for number in range(rounds):
            for setting in settings:
                place = Path(scratch, f"{setting.engine}-{setting.processors}-{number}")
                starts[setting].append(timed(setting, few, place.with_suffix(".few")))
                wholes[setting].append(timed(setting, many, place.with_suffix(".many")))
                click.echo(f"round {number + 1}, {setting}: {wholes[setting][-1].seconds:.1f} s", err=True)

    lines = [line(setting, starts[setting], wholes[setting]) for setting in settings]
    if out is not None:
        out.write_text(json.dumps({**facts, "lines": lines}, indent=1) + "\n", "utf-8")
    click.echo(f"{facts}\n\n{table(lines)}")


if __name__ == "__main__":
    main()
