"""
All ratios of a report ("how many times faster").

A ratio is the median of paired ratios, one for each interleaved round that both sides ran. The medians of the two sides
are never divided: the sides may have run different rounds, and the machine may have been slower in some rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

MIN_ROUNDS = 3  # with fewer, a single slow round can determine the median
Ratio = Mapping[str, float]


def paired(numerators: Mapping[int, float], denominators: Mapping[int, float]) -> dict[str, float] | None:
    """
    Return the ratio over the rounds that both sides ran.

    :param numerators: by number of the round, a positive value
    :param denominators: the same of the other side
    :return: ``median``, ``min`` and ``max`` of the ratios of the shared rounds, and ``rounds``, their number; None
        without shared rounds
    """
    shared = numerators.keys() & denominators.keys()
    if not shared:
        return None

    of_rounds = [numerators[number] / denominators[number] for number in sorted(shared)]
    return {"median": median(of_rounds), "min": min(of_rounds), "max": max(of_rounds), "rounds": len(of_rounds)}


def by_round(runs: Sequence[Mapping[str, Any]], figure: str) -> dict[int, float]:
    """Return one figure of each run, by number of its round."""
    return {run["round"]: run[figure] for run in runs}


def ratios(
    peers: Mapping[str, Mapping[str, Any]], subject: str, figure: str = "tagging_s"
) -> dict[str, dict[str, float]]:
    """
    Return how many times faster the subject is than each peer of the same interleaved rounds.

    :param peers: by peer, also the subject, its ``runs``, each with its ``round``
    :param figure: name of the seconds of a run
    :return: by peer its ratio, see :func:`paired`; empty if the subject did not run
    """
    if subject not in peers:
        return {}

    own = by_round(peers[subject]["runs"], figure)
    found = {name: paired(by_round(peer["runs"], figure), own) for name, peer in peers.items() if name != subject}
    return {name: ratio for name, ratio in found.items() if ratio}


def is_settled(ratio: Ratio) -> bool:
    """Whether a ratio has enough rounds to be quoted in documentation."""
    return ratio["rounds"] >= MIN_ROUNDS


def rounds_note(ratio: Ratio) -> str:
    """Return the number of rounds of a ratio as text, with a remark if it is too small."""
    rounds = int(ratio["rounds"])
    if rounds == 0:
        return "medians divided: rounds not kept"  # only in reports of format 2

    counted = f"{rounds} round{'' if rounds == 1 else 's'}"
    return counted if is_settled(ratio) else f"{counted}; fewer than {MIN_ROUNDS} rounds"


def shown_ratio(ratio: Ratio) -> str:
    """Return a ratio as Markdown, bold only if it has enough rounds."""
    figure = f"{ratio['median']:.2f}x"
    figure = f"**{figure}**" if is_settled(ratio) else figure
    return f"{figure} ({ratio['min']:.2f} to {ratio['max']:.2f}, {rounds_note(ratio)})"
