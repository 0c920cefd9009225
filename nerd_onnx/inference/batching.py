"""
Batches of segments of one length.

The result of a text must not depend on the texts that are tagged with it. Padding would break that, as it changes the
order of sums, and it costs time. So all segments of a batch have the same number of tokens, and no batch is padded or
masked. Activations are quantized with one scale per token (per-token int8), so the rows of a batch are independent.
"""

from __future__ import annotations

import math

import numpy as np

from nerd_onnx.inference.arrays import Ints


def equal_length_batches(lengths: Ints, batch_tokens: int) -> list[Ints]:
    """
    Group segments of equal length, and split each group into even batches within the token budget.

    With the lengths ``[3, 9, 3, 5]`` and a budget of 6 tokens, the batches are ``[1]``, ``[3]`` and ``[0, 2]``.

    :param lengths: number of tokens of each segment. *Shape:* (segments,)
    :param batch_tokens: maximum number of tokens of a batch; a longer segment is a batch of its own
    :return: indices of the segments of each batch, the longest segments first
    """
    if not len(lengths):
        return []

    # The longest come first so that the last batches are small: no thread is left with a large one at the end.
    order = np.argsort(-lengths, kind="stable")
    borders = np.flatnonzero(np.diff(lengths[order])) + 1

    batches: list[Ints] = []
    for group in np.split(order, borders):
        maximum = max(1, batch_tokens // max(1, int(lengths[group[0]])))
        batches.extend(np.array_split(group, math.ceil(len(group) / maximum)))

    return batches
