"""The parts of the gate: intervals, ranges, cached logits, and the search for the fewest layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerd_export.conversion.sensitivity import LayerCost, fewest_kept
from nerd_export.models.networks import Remembered, segment_batches
from nerd_export.quantization.ranges import Histogram
from nerd_export.scoring.bootstrap import micro_f1, paired_difference
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.encoding import EncodedBatch
from tests.support.bundles import TEXTS


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30),
)
def test_a_system_does_not_differ_from_itself(rows: Sequence[tuple[int, int, int]]) -> None:
    counts = np.array([(min(a, b, c), b, c) for a, b, c in rows])
    same = paired_difference(counts, counts, resamples=50)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    nothing = paired_difference(counts * [0, 0, 1], counts, resamples=50)
    assert nothing.low <= nothing.high <= 0
    assert nothing.value == -micro_f1(counts.sum(axis=0))


@pytest.mark.slow
def test_the_bootstrap_interval_covers_what_it_says() -> None:
    """Two systems of equal quality: in 200 simulations, about 95% of the intervals contain the true difference, 0."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        expected = rng.integers(1, 5, 300)
        one, two = (np.stack([rng.binomial(expected, 0.7), expected, expected], axis=1) for _ in range(2))
        found = paired_difference(one, two, resamples=300)
        covered += found.low <= 0 <= found.high
    assert 180 <= covered <= 199


def test_fewest_layers_are_kept() -> None:
    costs = [LayerCost(f"l{i}", 1 / (i + 1)) for i in range(24)]
    for needed in (1, 2, 3, 5, 8, 12):
        tried: list[int] = []

        def passes(names: Sequence[str], needed: int = needed, tried: list[int] = tried) -> bool:
            tried.append(len(names))
            return len(names) >= needed

        assert fewest_kept(costs, passes) == [f"l{i}" for i in range(needed)]
        assert len(tried) <= 8
    assert fewest_kept(costs, lambda names: len(names) > 12) is None


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=200), st.integers(1, 5))
def test_a_histogram_counts_everything_whatever_the_order(values: list[float], parts: int) -> None:
    histogram = Histogram()
    for part in np.array_split(np.array(values, dtype=np.float32), parts):
        histogram.add(part)
    if any(values):
        assert histogram.counts.sum() >= np.count_nonzero(values)
        assert histogram.limit >= np.abs(values).max() * 0.999
    found = histogram.best_range()
    assert 0 <= found.zero_point <= 255
    assert found.scale > 0


def test_the_best_range_clips_a_lone_outlier_and_keeps_the_rest() -> None:
    rng = np.random.default_rng(5)
    histogram = Histogram()
    values = rng.normal(size=200_000).astype(np.float32)
    values[0] = 60
    histogram.add(values)
    found = histogram.best_range()
    rounded = (np.clip(np.rint(values / found.scale) + found.zero_point, 0, 255) - found.zero_point) * found.scale
    plain = np.rint(values / (65 / 255)) * (65 / 255)
    assert ((rounded - values)[1:] ** 2).mean() < 0.7 * ((plain - values)[1:] ** 2).mean()


def test_batches_are_the_runtimes_own_and_remembered_logits_are_the_networks(fp32: Path) -> None:
    batches = segment_batches(Bundle.load(fp32), TEXTS)
    assert len({batch.ids.shape[1] for batch in batches}) > 5
    assert segment_batches(Bundle.load(fp32), TEXTS)[3].ids.tolist() == batches[3].ids.tolist()

    class Counting:
        calls = 0

        def logits(self, batch: EncodedBatch) -> Any:
            self.calls += 1
            return np.full((*batch.ids.shape, 2), sum(a.sum() for a in batch.inputs().values()), dtype=np.float32)

    network = Counting()
    remembered = Remembered(network, limit_bytes=batches[0].ids.size * 8)
    for _ in range(2):
        for batch in batches[:2]:
            assert (remembered.logits(batch) == Counting().logits(batch)).all()
    assert network.calls == 3  # the second batch found no room


def test_batches_that_differ_in_case_alone_are_remembered_apart() -> None:
    class Types:
        def logits(self, batch: EncodedBatch) -> Any:
            return batch.inputs()["token_type_ids"].astype(np.float32)[..., None]

    ids = np.array([[2, 5, 6, 3]])
    remembered = Remembered(Types())
    for types in (None, np.zeros_like(ids), np.array([[0, 1, 3, 0]])):
        batch = EncodedBatch(ids, types)
        assert (remembered.logits(batch)[..., 0] == batch.inputs()["token_type_ids"]).all()
