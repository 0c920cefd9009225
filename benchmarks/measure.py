"""Interleaved repeats, and the figures drawn from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.paths import shown_command
from benchmarks.peers.peer import Peer, PeerRun
from benchmarks.workloads import Workload

_FIGURES = ("tagging_s", "wall_s", "start_s", "load_s", "cpu_s", "peak_rss_bytes")


def interleaved(peers: Sequence[Peer], repeats: int) -> Iterator[tuple[int, Peer]]:
    """Yield every peer once, then every peer again: what slows the machine for a while slows them all."""
    for repeat in range(repeats):
        for peer in peers:
            yield repeat, peer


def measure(
    peers: Sequence[Peer], workload: Workload, repeats: int, tell: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """
    Run the peers in turn on one workload.

    :param tell: receives a line a step
    :return: by peer: how it was called, and its figures
    :raises PeerError: when a peer fails
    """
    setups = {}
    for peer in peers:
        tell(f"{workload.name}: preparing {peer.name}")
        setups[peer.name] = peer.prepare(workload)
    runs: dict[str, list[PeerRun]] = {peer.name: [] for peer in peers}
    for repeat, peer in interleaved(peers, repeats):
        run = peer.run(workload)
        runs[peer.name].append(run)
        rate = workload.rows / run.tagging_s
        tell(f"{workload.name}: {peer.name}, run {repeat + 1} of {repeats}: {rate:,.1f} rows/s")
    return {
        peer.name: {
            "command": shown_command(peer.command(workload)),
            "setup": setups[peer.name],
            **summary_of(runs[peer.name], workload.rows, workload.tokens),
        }
        for peer in peers
    }


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


def ratios(speed: Mapping[str, Mapping[str, Any]], subject: str) -> dict[str, dict[str, float]]:
    """
    Tell how many times faster the subject is than each other peer of the same interleaved run.

    :param speed: figures by peer
    :return: by other peer: ``tagging``, the ratio of medians without start-up; ``tagging_min`` and ``tagging_max``,
        over the pairs of neighbouring runs; ``whole``, the ratio of whole processes
    """
    own = speed[subject]
    result = {}
    for name, other in speed.items():
        if name != subject:
            pairs = zip(own["runs"], other["runs"], strict=True)
            of_pairs = [theirs["tagging_s"] / ours["tagging_s"] for ours, theirs in pairs]
            result[name] = {
                "tagging": other["tagging_s"]["median"] / own["tagging_s"]["median"],
                "tagging_min": min(of_pairs),
                "tagging_max": max(of_pairs),
                "whole": other["wall_s"]["median"] / own["wall_s"]["median"],
            }
    return result
