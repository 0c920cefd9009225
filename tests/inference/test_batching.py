"""Batches of equal length within a token budget."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nerd_onnx.inference.batching import equal_length_batches


@given(lengths=st.lists(st.integers(1, 30), max_size=80), budget=st.integers(1, 64))
def test_batches_hold_every_segment_once_at_one_length_within_budget(lengths: list[int], budget: int) -> None:
    array = np.array(lengths, dtype=np.int64)
    batches = equal_length_batches(array, budget)
    np.testing.assert_array_equal(np.sort(np.concatenate([*batches, np.empty(0, np.int64)])), np.arange(len(array)))
    for batch in batches:
        assert len(set(array[batch])) == 1
        assert len(batch) == 1 or array[batch].sum() <= budget


def test_longest_segments_come_first() -> None:
    batches = equal_length_batches(np.array([3, 9, 3, 5]), 6)
    assert [batch.tolist() for batch in batches] == [[1], [3], [0, 2]]
