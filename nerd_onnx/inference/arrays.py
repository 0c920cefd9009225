"""The array types that the steps of inference share, and one helper for ranges."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def ragged_arange(begins: Ints, ends: Ints) -> Ints:
    """
    Concatenate ``range(begin, end)`` of all pairs, without a Python loop.

    The begins ``[4, 9]`` and the ends ``[7, 11]`` make ``[4, 5, 6, 9, 10]``.

    :param begins: *Shape:* (ranges,)
    :param ends: none below its begin. *Shape:* (ranges,)
    :return: *Shape:* (sum of lengths,)
    """
    lengths = ends - begins
    total = int(lengths.sum())
    if not total:
        return np.empty(0, np.int64)

    # The result counts on from 0, shifted for each range from its place in the result to its begin.
    place = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    return np.arange(total, dtype=np.int64) + np.repeat(begins - place, lengths)
