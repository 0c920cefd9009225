"""
Measure the start and the speed of each engine by number of processors: ``python -m benchmarks.scripts.scaling``.

The local run, Ray and Spark tag the same files, limited to one processor and to more. A run over one row per file
measures the start. The additional time of a run over all rows is the time of tagging. All runs are interleaved, so that
they can be compared. Nothing else should run on the machine.
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
    An engine and a number of processors.

    :param engine: ``local``, ``ray`` or ``spark``
    :param processors: number that the process and its child processes may use
    """

    engine: str
    processors: int

    @property
    def options(self) -> list[str]:
        """Options of the command: one worker per processor; for the local run, one thread per processor."""
        if self.engine == "local":
            return ["--threads", str(self.processors)]
        return ["--engine", self.engine, "--workers", str(self.processors), "--threads", "1"]


@dataclass(frozen=True)
class Run:
    """
    One run.

    :param seconds: duration of the command
    :param tokens: number of tagged tokens
    """

    seconds: float
    tokens: int


def write_files(folder: Path, texts: Sequence[str], files: int) -> Path:
    """Write texts to a number of Parquet files of about equal size, and return their folder."""
    folder.mkdir()
    for i in range(files):
        # Every file gets texts from the whole corpus, so that all files take about the same time.
        pq.write_table(pa.table({"text": texts[i::files]}), folder / f"{i:03}.parquet")
    return folder


def timed(setting: Setting, source: Path, output: Path) -> Run:
    """
    Tag files, and measure the time.

    :raises click.ClickException: if it fails
    """
    command = [sys.executable, "-m", "nerd_onnx.cli", *setting.options, str(source), str(output), "--json"]
    allowed = sorted(os.sched_getaffinity(0))[: setting.processors]
    begin = time.perf_counter()

    # taskset also limits the processes that an engine starts.
    limited = ["taskset", "--cpu-list", ",".join(map(str, allowed)), *command]
    variables = {**os.environ, "RAY_ADDRESS": "local"}  # a new Ray, not one that already runs on this machine
    done = subprocess.run(limited, capture_output=True, text=True, check=False, env=variables)
    seconds = time.perf_counter() - begin

    lines = done.stderr.strip().splitlines()
    if done.returncode != 0:
        raise click.ClickException(f"{setting}: exit code {done.returncode}: {lines[-1] if lines else 'no output'}")

    return Run(seconds, json.loads(lines[-1])["tokens"])


def line(setting: Setting, starts: Sequence[Run], wholes: Sequence[Run]) -> dict[str, Any]:
    """
    Return the medians of a setting, and the speed in each round.

    :param starts: runs over one row per file
    :param wholes: runs over all rows
    :return: the median speed is None if a run took no longer than the start
    """
    start_s = statistics.median(run.seconds for run in starts)
    whole_s = statistics.median(run.seconds for run in wholes)

    # Tokens of the start are left out with its time.
    tokens = wholes[0].tokens - starts[0].tokens
    # Without a difference to the start there is no speed.
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
    """Return the lines as a Markdown table. Each line is compared with the first one of its engine."""
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
    """Return the speed of a line divided by that of the first one, over the rounds that both have."""
    if "rounds" not in found:
        return "rounds not kept"  # figures of 2026-11-24 and before

    ratio = paired(by_round(found["rounds"], "tokens_per_s"), by_round(first["rounds"], "tokens_per_s"))
    return shown_ratio(ratio) if ratio else "-"


@click.command(context_settings={"show_default": True})
@click.option("--engine", "engines", type=click.Choice(ENGINES), multiple=True, default=ENGINES)
@click.option("--processors", type=click.IntRange(min=1), multiple=True, default=(1, 2))
@click.option("--rows", type=click.IntRange(min=1), default=6_000, help="Total number of rows.")
@click.option("--files", type=click.IntRange(min=1), default=8)
@click.option("--rounds", type=click.IntRange(min=1), default=3)
@click.option("--shared", type=click.Path(path_type=Path), default=SHARED, show_default="../shared/data")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures to this JSON file.")
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
    """Print start and speed of each engine on each number of processors."""
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
                # Start and whole run one after the other: their difference is the figure, and the machine must be in
                # one state.
                starts[setting].append(timed(setting, few, place.with_suffix(".few")))
                wholes[setting].append(timed(setting, many, place.with_suffix(".many")))
                click.echo(f"round {number + 1}, {setting}: {wholes[setting][-1].seconds:.1f} s", err=True)

    lines = [line(setting, starts[setting], wholes[setting]) for setting in settings]
    if out is not None:
        out.write_text(json.dumps({**facts, "lines": lines}, indent=1) + "\n", "utf-8")
    click.echo(f"{facts}\n\n{table(lines)}")


if __name__ == "__main__":
    main()
