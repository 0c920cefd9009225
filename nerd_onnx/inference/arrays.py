"""Names for the array types that pass between the steps, and one helper they share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def ragged_arange(begins: Ints, ends: Ints) -> Ints:
    """
    Concatenate ``range(begin, end)`` for each pair, without a Python loop.

    :param begins: *Shape:* (ranges,)
    :param ends: *Shape:* (ranges,), none below its begin
    :return: *Shape:* (sum of lengths,)
    """
    lengths = ends - begins
    total = int(lengths.sum())
    shift = (
        np.repeat(begins - np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths) if total else np.empty(0, np.int64)
    )
    return np.arange(total, dtype=np.int64) + shift
