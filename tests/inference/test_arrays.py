"""Ranges of numbers, without a Python loop."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nerd_onnx.inference.arrays import ragged_arange


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 9)), max_size=30))
def test_ranges_are_concatenated(ranges: list[tuple[int, int]]) -> None:
    pairs = np.array([(begin, begin + length) for begin, length in ranges], dtype=np.int64).reshape(-1, 2)
    found = ragged_arange(pairs[:, 0], pairs[:, 1])
    assert found.tolist() == [number for begin, end in pairs.tolist() for number in range(begin, end)]
    assert found.dtype == np.int64
