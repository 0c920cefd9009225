"""Segments to batches. Every batch holds segments of one length, so there is no padding and no mask."""

from __future__ import annotations

import numpy as np

from nerd_onnx.inference.arrays import Ints


def equal_length_batches(lengths: Ints, batch_tokens: int) -> list[Ints]:
    """
    Group segments of equal length and cut each group by the token budget, in even parts.

    :param lengths: tokens of each segment. *Shape:* (segments,)
    :param batch_tokens: most tokens in a batch; a segment longer than that is a batch of its own
    :return: indices of the segments of each batch, the longest segments first, so that the last batches
        to finish are small ones
    """
    if not len(lengths):
        return []
    order = np.argsort(-lengths, kind="stable")
    borders = np.flatnonzero(np.diff(lengths[order])) + 1
    batches: list[Ints] = []
    for group in np.split(order, borders):
        most = max(1, batch_tokens // max(1, int(lengths[group[0]])))
        batches.extend(np.array_split(group, -(-len(group) // most)))
    return batches
