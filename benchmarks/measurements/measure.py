"""Interleaved rounds, and the figures drawn from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq

from benchmarks.inputs.workloads import Workload, first_rows
from benchmarks.measurements.ratios import MIN_ROUNDS
from benchmarks.paths import shown_command
from benchmarks.peers.peer import PeerError, PeerRun
from benchmarks.processes.process import run_process
from benchmarks.processes.team import Member

_FIGURES = ("tagging_s", "start_s", "cpu_s", "peak_rss_bytes")
_MUCH = 4.0
Tell = Callable[[str], None]


def measure(
    team: Sequence[Member],
    workload: Workload,
    rounds: int,
    *,
    probe_tokens: int,
    most_s: float,
    setups: dict[str, Any] | None = None,
    tell: Tell,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """
    Run the peers in turn on one workload: what slows the machine for a while slows them all.

    A peer that has tagged for ``most_s`` seconds sits out the rounds that are left, but runs three rounds at least; one
    that would take much longer than that for a single run, by what its probe tells, does not run at all.

    :param probe_tokens: tokens on which the setups of a peer are compared, about
    :param setups: what was chosen on another workload, by peer; what is missing is chosen here and put in
    :param tell: receives a line a step
    :return: by peer: how it was called, and its figures; and by peer that gave none: why
    """
    probe = first_rows(workload, probe_tokens, workload.path.with_suffix(".probe.parquet"))
    share = pq.read_metadata(probe).num_rows / workload.rows
    facts: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    runs: dict[str, list[PeerRun]] = {}

    for member in team:
        try:
            facts[member.name], probe_s = _prepared(member, probe, {} if setups is None else setups)
        except PeerError as err:
            left_out[member.name] = str(err)
            continue
        tell(f"{workload.name}: {member.name} takes {json.dumps(facts[member.name]['setup'])}")
        if probe_s / share > _MUCH * most_s:
            left_out[member.name] = f"would take about {probe_s / share:,.0f} s a run, more than {_MUCH * most_s:g} s"
        else:
            runs[member.name] = []

    for number, member in _rounds(team, rounds, runs, left_out, most_s):
        try:
            run = one_run(member, workload, number)
        except PeerError as err:
            left_out[member.name] = str(err)
            continue
        runs[member.name].append(run)
        tell(f"{workload.name}: {member.name}, round {number + 1}: {workload.tokens / run.tagging_s:,.0f} tokens/s")

    return {
        member.name: {
            **facts[member.name],
            "command": shown_command(member.command(workload.path, output_of(workload, member.name))),
            **summary_of(runs[member.name], workload.rows, workload.tokens),
        }
        for member in team
        if runs.get(member.name) and member.name not in left_out
    }, left_out


def _rounds(
    team: Sequence[Member],
    rounds: int,
    runs: Mapping[str, Sequence[PeerRun]],
    left_out: Mapping[str, str],
    most_s: float,
) -> Iterator[tuple[int, Member]]:
    """Yield every peer once, then every peer again, without those that have run enough."""
    for number in range(rounds):
        for member in team:
            done = runs.get(member.name)
            if done is None or member.name in left_out:
                continue
            if not has_run_enough([run.tagging_s for run in done], most_s):
                yield number, member


def has_run_enough(seconds: Sequence[float], most_s: float) -> bool:
    """
    Whether a peer may sit out the rounds that are left. Every ratio needs a minimum of shared rounds.

    :param seconds: what each of its runs took
    :param most_s: time that a peer may take in all
    """
    return len(seconds) >= MIN_ROUNDS and sum(seconds) >= most_s


def _prepared(member: Member, probe: Path, setups: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """
    Warm a peer up and choose its setup.

    :param setups: by peer what was chosen before; receives what is chosen here
    :return: the choice and what was tried; and the seconds that the probe took, 0 where none was timed
    """
    target = probe.with_suffix(f".{member.name}.parquet")
    if member.worker is None:
        run_process(member.command(probe, target), probe.parent)
        return {"setup": {}, "tried": []}, 0.0

    wanted = [setups[member.name]] if member.name in setups else member.worker.facts["setups"]
    tried = []

    for setup in wanted:
        member.worker.configure(setup)
        member.worker.do("tag", source=probe, target=target)  # the first run is for warming up
        seconds = member.worker.do("tag", source=probe, target=target)["seconds"]
        tried.append({"setup": setup, "seconds": seconds})

    best = fastest(tried)
    if len(tried) > 1:
        member.worker.configure(best["setup"])
    setups[member.name] = best["setup"]
    return {"setup": best["setup"], "tried": tried}, float(best["seconds"])


def fastest(tried: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Choose the setup that took least."""
    return min(tried, key=lambda one: one["seconds"])


def one_run(member: Member, workload: Workload, number: int) -> PeerRun:
    """
    Tag a workload once.

    :raises PeerError: when that fails, or the output has other rows
    """
    target = output_of(workload, member.name)
    if member.worker is None:
        done = run_process(member.command(workload.path, target), workload.path.parent)
        seconds = float(done.message["seconds"])
        run = PeerRun(
            number, seconds, done.wall_s - seconds, done.cpu_s, done.peak_rss_bytes, int(done.message["entities"])
        )
    else:
        said = member.worker.do("tag", source=workload.path, target=target)
        run = PeerRun(
            number,
            said["seconds"],
            member.worker.start_s,
            said["cpu_s"],
            int(said["peak_rss_bytes"]),
            int(said["entities"]),
        )
    check_output(workload, member.name)
    return run


def output_of(workload: Workload, peer: str) -> Path:
    """Where a peer writes."""
    return workload.path.with_name(f"{workload.name}.{peer}.parquet")


def check_output(workload: Workload, peer: str) -> None:
    """
    Check that a peer wrote every row.

    :raises PeerError: when it did not
    """
    rows = pq.read_metadata(output_of(workload, peer)).num_rows
    if rows != workload.rows:
        raise PeerError(f"{peer} wrote {rows} rows of {workload.name}, which has {workload.rows}")


def summary_of(runs: Sequence[PeerRun], rows: int, tokens: int) -> dict[str, Any]:
    """
    Draw the figures from the runs of one peer. Rates are those of the steady part: tagging, file to file.

    :param rows: rows of the workload
    :param tokens: its tokens
    """
    return {
        "rows_per_s": figures([rows / run.tagging_s for run in runs]),
        "tokens_per_s": figures([tokens / run.tagging_s for run in runs]),
        **{name: figures([getattr(run, name) for run in runs]) for name in _FIGURES},
        "entities": runs[-1].entities,
        "runs": [asdict(run) for run in runs],
    }


def figures(values: Sequence[float]) -> dict[str, float]:
    """Give median, least and greatest value, and their distance as a share of the median."""
    middle = median(values)
    return {
        "median": middle,
        "min": min(values),
        "max": max(values),
        "spread": (max(values) - min(values)) / middle if middle else 0.0,
    }
