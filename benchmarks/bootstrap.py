"""How sure a difference in F1 is: the paired bootstrap over sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
RESAMPLES = 2000
_CONFIDENCE = 0.95


def f1_of(counts: Counts) -> Any:
    """
    Micro F1 of counts, 0 where there is nothing to find and nothing found.

    :param counts: correct, predicted and expected entities. *Shape:* (..., 3)
    """
    found = counts[..., 1] + counts[..., 2]
    return np.divide(2 * counts[..., 0], found, out=np.zeros(found.shape), where=found > 0)


def paired_difference(one: Counts, other: Counts, *, seed: int, resamples: int = RESAMPLES) -> dict[str, float]:
    """
    Give the F1 of ``one`` minus that of ``other`` with its 95% interval, over the same resampled sentences for both.

    :param one: counts by sentence. *Shape:* (sentences, 3)
    :param other: the same sentences. *Shape:* (sentences, 3)
    :return: ``difference``, ``low`` and ``high``
    """
    rng = np.random.default_rng(seed)
    sentences = len(one)
    weights = rng.multinomial(sentences, np.full(sentences, 1 / sentences), size=resamples)
    differences = f1_of(weights @ one) - f1_of(weights @ other)
    edge = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(differences, [edge, 1 - edge])
    return {
        "difference": float(f1_of(one.sum(axis=0)) - f1_of(other.sum(axis=0))),
        "low": float(low),
        "high": float(high),
    }
