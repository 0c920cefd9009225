"""Speeds of engines on one and on more processors, compared by round."""

from __future__ import annotations

from benchmarks.scripts.scaling import Run, Setting, line, table

START = [Run(1.0, 0)] * 3


def lines_of(one: list[float], two: list[float]) -> list[dict[str, object]]:
    """Return the lines of one engine on one and on two processors, from the seconds of its runs."""
    return [
        line(Setting("local", processors), START[: len(seconds)], [Run(taken, 1200) for taken in seconds])
        for processors, seconds in ((1, one), (2, two))
    ]


def test_speeds_are_kept_by_round_and_compared_so() -> None:
    lines = lines_of([5.0, 13.0, 7.0], [3.0, 5.0, 5.0])

    assert lines[0]["rounds"] == [
        {"round": 0, "tokens_per_s": 300},
        {"round": 1, "tokens_per_s": 100},
        {"round": 2, "tokens_per_s": 200},
    ]
    assert lines[0]["tokens_per_s"] == 200
    assert lines[1]["tokens_per_s"] == 300
    assert table(lines).splitlines()[2:] == [
        "| local | 1 | 1.0 | 200 (100 to 300) | 1 |",
        "| local | 2 | 1.0 | 300 (300 to 600) | **2.00x** (1.50 to 3.00, 3 rounds) |",
    ]


def test_rounds_that_took_no_longer_than_starting_are_not_compared() -> None:
    lines = lines_of([5.0, 1.0, 7.0], [3.0, 5.0, 5.0])
    assert lines[0]["tokens_per_s"] is None
    assert table(lines).splitlines()[2:] == [
        "| local | 1 | 1.0 | too few rows to tell | - |",
        "| local | 2 | 1.0 | 300 (300 to 600) | 1.75x (1.50 to 2.00, 2 rounds; fewer than 3 rounds) |",
    ]
    nothing = lines_of([1.0, 1.0, 1.0], [3.0, 5.0, 5.0])
    assert table(nothing).splitlines()[3].endswith("| - |")


def test_figures_without_rounds_are_not_compared() -> None:
    lines = lines_of([5.0, 13.0, 7.0], [3.0, 5.0, 5.0])
    for found in lines:
        del found["rounds"]
    assert table(lines).splitlines()[3].endswith("| rounds not kept |")
