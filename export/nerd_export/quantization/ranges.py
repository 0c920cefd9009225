"""Measure the fixed 8-bit range of each activation on real text; memory does not grow with the text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from nerd_export.graph.observing import observed
from nerd_export.quantization.layers import ActivationRange
from nerd_onnx.inference.encoding import EncodedBatch

_BINS = 2048  # on either side of zero
_STEPS = 255
_CANDIDATES = np.linspace(1.0, 0.2, 81)  # ranges to try, as shares of the largest value


class Histogram:
    """
    A histogram of an activation's values; its range doubles when a larger value arrives.

    :ivar limit: values lie between minus and plus this
    :ivar counts: *Shape:* (2 * bins,)
    """

    def __init__(self) -> None:
        self.limit = 0.0
        self.counts: npt.NDArray[np.int64] = np.zeros(2 * _BINS, dtype=np.int64)

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count values of any shape."""
        largest = float(np.abs(values).max(initial=0.0))
        if self.limit == 0.0:
            self.limit = largest

        while largest > self.limit > 0:
            # Doubling, and not the exact maximum: bins merge in pairs, so counts stay exact.
            self.limit *= 2
            # Twice the range in the same number of bins: neighbours merge and move to the middle.
            folded = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([np.zeros(_BINS // 2, np.int64), folded, np.zeros(_BINS // 2, np.int64)])

        if self.limit > 0:
            place = ((values.ravel() / self.limit + 1) * _BINS).astype(np.int64)
            self.counts += np.bincount(np.minimum(place, 2 * _BINS - 1), minlength=2 * _BINS)

    def best_range(self) -> ActivationRange:
        """
        Return the range with the lowest mean square error of rounding and clipping over the counted values.

        Encoders have a few activations far outside the rest. A range that covers them is too coarse for the others; a
        range that clips all of them loses too much: the error decides between the two.
        """
        filled = np.flatnonzero(self.counts)
        if not len(filled):
            return ActivationRange(1.0, 0)

        middles = ((np.arange(2 * _BINS) + 0.5) / _BINS - 1) * self.limit
        values, weights = middles[filled], self.counts[filled].astype(np.float64)

        # Zero must lie in the range: the zero point is one of its integers.
        low, high = min(values[0], 0.0), max(values[-1], 0.0)
        options = [_range(low * share, high * share) for share in _CANDIDATES]
        errors = [float((weights * (values - _rounded(values, option)) ** 2).sum()) for option in options]
        return options[int(np.argmin(errors))]


def calibrated_ranges(
    model: ir.Model, names: Sequence[str], batches: Iterable[EncodedBatch], scratch: Path
) -> Mapping[str, ActivationRange]:
    """
    Run a network on real batches and choose the range of each named activation.

    :param model: the fp32 graph; it is not changed
    :param names: names of values in the graph
    :param batches: real segments
    :param scratch: folder for the graph that returns its activations
    """
    histograms = {name: Histogram() for name in names}
    for found in observed(model, names, batches, scratch):
        for name, values in found.items():
            histograms[name].add(values)
    return {name: histogram.best_range() for name, histogram in histograms.items()}


def _range(low: float, high: float) -> ActivationRange:
    """Return the range from low to high, in which 0 is exactly one of the integers."""
    scale = max((high - low) / _STEPS, 1e-12)
    return ActivationRange(scale, int(np.clip(round(-low / scale), 0, _STEPS)))


def _rounded(values: npt.NDArray[np.float64], to: ActivationRange) -> npt.NDArray[np.float64]:
    integers = np.clip(np.rint(values / to.scale) + to.zero_point, 0, _STEPS)
    return np.asarray((integers - to.zero_point) * to.scale, dtype=np.float64)
