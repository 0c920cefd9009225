"""Ratios are medians of paired rounds and do not depend on other rounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measurements.measure import summary_of
from benchmarks.measurements.ratios import MIN_ROUNDS, is_settled, paired, ratios, rounds_note, shown_ratio
from benchmarks.report import as_markdown, as_page
from tests.benchmarks.helpers import full_report, run

SECONDS = st.floats(min_value=1e-3, max_value=1e4)
ROUNDS = st.dictionaries(st.integers(0, 9), SECONDS, max_size=8)


def test_a_ratio_is_the_median_of_the_rounds_that_both_ran() -> None:
    own = {0: 1.0, 1: 2.0, 2: 4.0, 3: 100.0}  # round 3 was slow, and the peer did not run it
    peer = {0: 8.0, 1: 10.0, 2: 24.0, 7: 1.0}
    assert paired(peer, own) == {"median": 6.0, "min": 5.0, "max": 8.0, "rounds": 3}
    assert paired({0: 8.0, 1: 10.0}, own) == {"median": 6.5, "min": 5.0, "max": 8.0, "rounds": 2}


def test_medians_of_each_side_are_not_divided() -> None:
    own, peer = {0: 1.0, 1: 2.0, 2: 3.0}, {0: 6.0, 1: 2.0, 2: 3.0}
    found = paired(peer, own)
    assert found is not None
    assert found["median"] == 1.0  # the quotient of the medians would be 3 / 2


def test_without_a_shared_round_there_is_no_ratio() -> None:
    assert paired({0: 1.0}, {1: 1.0}) is None
    assert paired({}, {}) is None
    speed = {"own": summary_of([run(1.0, 0)], 1, 1), "peer": summary_of([run(1.0, 1)], 1, 1)}
    assert ratios(speed, "own") == {}


@given(own=ROUNDS, peer=ROUNDS)
def test_the_figure_lies_between_minimum_and_maximum(own: dict[int, float], peer: dict[int, float]) -> None:
    found = paired(peer, own)
    shared = own.keys() & peer.keys()
    assert (found is None) == (not shared)
    if found is not None:
        assert found["min"] <= found["median"] <= found["max"]
        assert found["rounds"] == len(shared)


@given(own=ROUNDS, peer=ROUNDS, more=st.lists(SECONDS, max_size=5), side=st.booleans())
def test_rounds_that_one_side_ran_alone_change_nothing(
    own: dict[int, float], peer: dict[int, float], more: list[float], *, side: bool
) -> None:
    alone = {10 + number: seconds for number, seconds in enumerate(more)}
    wider = paired(peer | alone, own) if side else paired(peer, own | alone)
    assert wider == paired(peer, own)


@given(own=ROUNDS, peer=ROUNDS, factor=st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_a_round_that_slows_both_sides_changes_nothing(
    own: dict[int, float], peer: dict[int, float], factor: float
) -> None:
    slowed = {number: seconds * factor for number, seconds in own.items()}
    assert paired({n: s * factor for n, s in peer.items()}, slowed) == paired(peer, own)


def test_ratios_compare_the_subject_with_every_peer() -> None:
    own = summary_of([run(1.0, 0), run(2.0, 1), run(3.0, 2)], 1, 1)
    speed = {"own": own, "peer": summary_of([run(8.0, 0), run(10.0, 1)], 1, 1)}
    assert ratios(speed, "own") == {"peer": {"median": 6.5, "min": 5.0, "max": 8.0, "rounds": 2}}
    assert ratios({"peer": own}, "own") == {}


@pytest.mark.parametrize(
    ("rounds", "note", "shown"),
    [
        (0, "medians divided: rounds not kept", "2.00x"),
        (1, "1 round; fewer than 3 rounds", "2.00x"),
        (2, "2 rounds; fewer than 3 rounds", "2.00x"),
        (3, "3 rounds", "**2.00x**"),
    ],
)
def test_a_ratio_of_fewer_than_three_rounds_is_marked(rounds: int, note: str, shown: str) -> None:
    ratio = {"median": 2.0, "min": 1.0, "max": 3.0, "rounds": rounds}
    assert is_settled(ratio) == (rounds >= MIN_ROUNDS)
    assert rounds_note(ratio) == note
    assert shown_ratio(ratio) == f"{shown} (1.00 to 3.00, {note})"


def test_both_renderings_show_the_rounds() -> None:
    page, text = as_page(full_report()), as_markdown(full_report())
    assert "<strong>6.00x</strong> (5.00 to 8.00, 3 rounds)" in page
    for rendered in (page, text):
        assert "4.00x (3.00 to 5.00, 2 rounds; fewer than 3 rounds)" in rendered
    assert "<strong>4.00x" not in page
