"""Confidence intervals of F1 and of F1 differences, by the paired bootstrap over sentences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nerd_onnx.inference.arrays import Floats, Ints

RESAMPLES = 2000
_AT_ONCE = 200  # resamples drawn at once, to bound memory


@dataclass(frozen=True)
class Difference:
    """
    One system's F1 minus another's on the same sentences.

    :param value: the difference as measured
    :param low: lower end of the 95% interval
    :param high: upper end of the 95% interval
    """

    value: float
    low: float
    high: float


def paired_difference(system: Ints, reference: Ints, resamples: int = RESAMPLES, seed: int = 42) -> Difference:
    """
    Compare two systems by the paired bootstrap of Koehn (2004, "Statistical Significance Tests for Machine
    Translation Evaluation"): sentences are drawn with replacement, the same ones for both.

    :param system: right, predicted and expected entities of each sentence. *Shape:* (sentences, 3)
    :param reference: the same sentences by the other system. *Shape:* (sentences, 3)
    :param resamples: number of draws
    :return: micro F1 of ``system`` minus that of ``reference``; the interval is between the 2.5th and 97.5th percentile
    """
    sentences = len(system)
    value = float(micro_f1(system.sum(axis=0)) - micro_f1(reference.sum(axis=0)))
    if not sentences:
        return Difference(0.0, 0.0, 0.0)

    rng = np.random.default_rng(seed)
    found = []
    for begin in range(0, resamples, _AT_ONCE):
        drawn = min(_AT_ONCE, resamples - begin)
        # How often each sentence is drawn is enough: counts are additive, so no sentence has to be copied.
        times = rng.multinomial(sentences, np.full(sentences, 1 / sentences), size=drawn)
        found.append(micro_f1(times @ system) - micro_f1(times @ reference))

    low, high = np.percentile(np.concatenate(found), [2.5, 97.5])
    return Difference(value, float(low), float(high))


def f1_interval(system: Ints, resamples: int = RESAMPLES, seed: int = 42) -> tuple[float, float]:
    """
    Return the 95% interval of the micro F1 of one system, by the bootstrap over sentences.

    :param system: right, predicted and expected entities of each sentence. *Shape:* (sentences, 3)
    """
    # Against a system that finds nothing, whose F1 is 0 in every draw.
    found = paired_difference(system, np.zeros_like(system), resamples, seed)
    return found.low, found.high


def micro_f1(counts: Ints) -> Floats:
    """
    F1 of counts of right, predicted and expected entities; 0 where there are none.

    :param counts: *Shape:* (..., 3)
    :return: *Shape:* (...)
    """
    total = counts[..., 1] + counts[..., 2]
    return np.asarray(2 * counts[..., 0] / np.maximum(total, 1), dtype=np.float64)
