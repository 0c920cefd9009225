"""Run the peers in interleaved rounds, and compute figures from the runs."""

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
from benchmarks.processes.ready_peers import Member

_FIGURES = ("tagging_s", "start_s", "cpu_s", "peak_rss_bytes")
_MAX_RUN_FACTOR = 4.0  # a single run may take this many times ``max_seconds``
Tell = Callable[[str], None]


def measure(
    team: Sequence[Member],
    workload: Workload,
    rounds: int,
    *,
    probe_tokens: int,
    max_seconds: float,
    setups: dict[str, Any] | None = None,
    tell: Tell,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """
    Run the peers on one workload, one after the other in each round, so that a slow phase of the machine affects all.

    A peer skips the remaining rounds after ``max_seconds`` in total, but runs at least three rounds. It does not run at
    all if, by its probe, a single run would take several times ``max_seconds``.

    :param rounds: number of rounds
    :param probe_tokens: approximate number of tokens on which the setups of a peer are compared
    :param setups: by peer, the setup chosen on an earlier workload; missing ones are chosen here and added
    :param tell: called with one line per step
    :return: by peer its command, setup and figures; and by peer without figures the reason
    """
    probe = first_rows(workload, probe_tokens, workload.path.with_suffix(".probe.parquet"))
    # The probe is this share of the workload, which gives the time of a full run.
    share = pq.read_metadata(probe).num_rows / workload.rows
    facts: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    runs: dict[str, list[PeerRun]] = {}

    for member in team:
        try:
            facts[member.name], probe_s = _with_setup(member, probe, {} if setups is None else setups)
        except PeerError as err:
            left_out[member.name] = str(err)
            continue
        tell(f"{workload.name}: {member.name} takes {json.dumps(facts[member.name]['setup'])}")

        # Decided before the first run, because all peers of a round wait for the slowest one.
        if probe_s / share > _MAX_RUN_FACTOR * max_seconds:
            left_out[member.name] = (
                f"would take about {probe_s / share:,.0f} s a run, more than {_MAX_RUN_FACTOR * max_seconds:g} s"
            )
        else:
            runs[member.name] = []

    for number, member in _rounds(team, rounds, runs, left_out, max_seconds):
        try:
            run = one_run(member, workload, number)
        except PeerError as err:
            left_out[member.name] = str(err)
            continue

        runs[member.name].append(run)
        tell(f"{workload.name}: {member.name}, round {number + 1}: {workload.tokens / run.tagging_s:,.0f} tokens/s")

    return {
        # A peer that failed in one round has a reason and no figures, although its earlier rounds went well.
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
    max_seconds: float,
) -> Iterator[tuple[int, Member]]:
    """Yield round by round the number of the round with each peer, without those that have run enough."""
    for number in range(rounds):
        for member in team:
            done = runs.get(member.name)
            if done is None or member.name in left_out:
                continue
            if not has_run_enough([run.tagging_s for run in done], max_seconds):
                yield number, member


def has_run_enough(seconds: Sequence[float], max_seconds: float) -> bool:
    """
    Whether a peer skips the remaining rounds. It never does before the minimum number of rounds of a ratio.

    :param seconds: duration of each run
    :param max_seconds: total after which a peer has run enough
    """
    return len(seconds) >= MIN_ROUNDS and sum(seconds) >= max_seconds


def _with_setup(member: Member, probe: Path, setups: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """
    Warm up a peer, and choose its setup.

    :param setups: by peer, the setup chosen earlier; the choice is added
    :return: the chosen and the tried setups; and the seconds of the probe, 0 if it was not timed
    """
    target = probe.with_suffix(f".{member.name}.parquet")
    if member.worker is None:
        # A command has no setups. This run fills the disk cache.
        run_process(member.command(probe, target), probe.parent)
        return {"setup": {}, "tried": []}, 0.0

    wanted = [setups[member.name]] if member.name in setups else member.worker.facts["setups"]
    tried = []

    for setup in wanted:
        member.worker.configure(setup)
        member.worker.do("tag", source=probe, target=target)  # a warm-up, which is not counted
        seconds = member.worker.do("tag", source=probe, target=target)["seconds"]
        tried.append({"setup": setup, "seconds": seconds})

    best = fastest(tried)
    # The setup that was tried last is still set up, and not the best one.
    if len(tried) > 1:
        member.worker.configure(best["setup"])

    setups[member.name] = best["setup"]
    return {"setup": best["setup"], "tried": tried}, float(best["seconds"])


def fastest(tried: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the setup that took the least time."""
    return min(tried, key=lambda one: one["seconds"])


def one_run(member: Member, workload: Workload, number: int) -> PeerRun:
    """
    Tag a workload once.

    :param number: number of the round
    :raises PeerError: if it fails, or the output has another number of rows
    """
    target = output_of(workload, member.name)

    if member.worker is None:
        done = run_process(member.command(workload.path, target), workload.path.parent)
        # The command reports the time of tagging. The rest of the process is its start.
        seconds = float(done.message["seconds"])
        run = PeerRun(
            number, seconds, done.wall_s - seconds, done.cpu_s, done.peak_rss_bytes, int(done.message["entities"])
        )
    else:
        answer = member.worker.do("tag", source=workload.path, target=target)
        run = PeerRun(
            number,
            answer["seconds"],
            member.worker.start_s,
            answer["cpu_s"],
            int(answer["peak_rss_bytes"]),
            int(answer["entities"]),
        )

    # Checked in each round: a peer that skips rows would look fast.
    check_output(workload, member.name)
    return run


def output_of(workload: Workload, peer: str) -> Path:
    """Return the output file of a peer."""
    return workload.path.with_name(f"{workload.name}.{peer}.parquet")


def check_output(workload: Workload, peer: str) -> None:
    """
    Check that a peer wrote every row.

    :raises PeerError: if it did not
    """
    rows = pq.read_metadata(output_of(workload, peer)).num_rows
    if rows != workload.rows:
        raise PeerError(f"{peer} wrote {rows} rows of {workload.name}, which has {workload.rows}")


def summary_of(runs: Sequence[PeerRun], rows: int, tokens: int) -> dict[str, Any]:
    """
    Return the figures of the runs of one peer. Rates count the time of tagging only, without the start.

    :param rows: rows of the workload
    :param tokens: tokens of the workload
    """
    return {
        "rows_per_s": figures([rows / run.tagging_s for run in runs]),
        "tokens_per_s": figures([tokens / run.tagging_s for run in runs]),
        **{name: figures([getattr(run, name) for run in runs]) for name in _FIGURES},
        "entities": runs[-1].entities,
        "runs": [asdict(run) for run in runs],
    }


def figures(values: Sequence[float]) -> dict[str, float]:
    """Return median, minimum and maximum, and ``spread``: maximum minus minimum as a share of the median."""
    # Medians and not means: one slow run on a shared machine would shift a mean.
    middle = median(values)
    return {
        "median": middle,
        "min": min(values),
        "max": max(values),
        "spread": (max(values) - min(values)) / middle if middle else 0.0,
    }
