"""
Round weights to signed 8 bits so that no integer kernel can saturate, with the smallest error of the layer's output.

On x86 without VNNI the fast product of unsigned and signed 8 bits (``vpmaddubsw``) adds two neighbouring products in 16
bits. An activation is at most 255, so the sum is exact when ``255 * (|w[2j]| + |w[2j+1]|) <= 32767`` for each pair of
neighbours along the reduced axis whose signs agree, that is when ``|w[2j]| + |w[2j+1]| <= 128``. MLAS, the kernel
library of onnxruntime, packs the reduced axis in groups of four from its beginning in all kernels of that kind (SSE4.1,
AVX2, AVX-512; matrix and vector), so these pairs are the ones it adds. VNNI, AMX and arm64's dot products add in 32
bits.

Within that limit each output channel takes the scale with the smallest error. The weights are then rounded one input
after the other, and the later inputs compensate for the error of each, given how inputs vary together on real text.
This is GPTQ (Frantar et al., 2023, arXiv:2210.17323) with the limit added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from nerd_export.graph.linear import Linear
from nerd_export.graph.observing import observed
from nerd_onnx.inference.arrays import Bools, Doubles, Floats
from nerd_onnx.inference.encoding import EncodedBatch

LARGEST = 127  # of a weight; -128 stays unused, so that the range is symmetrical
PAIR_LIMIT = 128  # of two neighbouring weights of the same sign, together
SMALLEST_SCALE = 1e-9  # a channel of zeros stays zero instead of dividing by zero

# The scales to try map the largest weight of a channel to one of these integers. Above 127 it is clipped; below it
# fewer pairs are trimmed. Weights that were rounded before find their own scale among them, so they do not change.
_LARGEST_INTEGERS = range(64, 142)
_DAMPING = 0.1  # of the mean variance; few texts then say little instead of too much
_BLOCK = 64  # inputs that are rounded before their error reaches the others, a matter of speed alone

Rounded = tuple[npt.NDArray[np.int8], Floats]


class WeightRounding:
    """
    Rounds the weights of a graph's linear layers, each matrix once.

    :param moments: second moments of the inputs by the name of the weight, as :func:`input_moments` returns them; a
        weight without one is rounded as if its inputs were independent and of equal size
    """

    def __init__(self, moments: Mapping[str, Floats] | None = None) -> None:
        self._moments = moments or {}
        self._rounded: dict[str, Rounded] = {}

    def __call__(self, layer: Linear) -> Rounded:
        """
        Round the weights of a layer.

        :return: integers, *Shape:* (inputs, outputs), and one scale per output channel, *Shape:* (outputs,)
        """
        if layer.weight_name not in self._rounded:
            moments = self._moments.get(layer.weight_name)
            self._rounded[layer.weight_name] = rounded_weight(layer.weight, moments)
        return self._rounded[layer.weight_name]


def input_moments(
    model: ir.Model, layers: Sequence[Linear], batches: Iterable[EncodedBatch], scratch: Path
) -> Mapping[str, Floats]:
    """
    Measure how the inputs of linear layers vary together on real text.

    :param model: the fp32 graph of the layers; it is not changed
    :param layers: a weight that several of them share gets the sum of their moments
    :param batches: real segments
    :param scratch: folder for the graph that returns its activations
    :return: the sum of ``x x^T`` over all tokens, by the name of the weight. *Shape:* (inputs, inputs) each
    :raises OutputError: when the disk has no room for that graph
    """
    sources = list(dict.fromkeys(layer.source_name for layer in layers))
    sums: dict[str, Floats] = {}
    for found in observed(model, sources, batches, scratch):
        for name, values in found.items():
            # Single precision is enough: the damping below is far larger than its rounding error.
            rows = values.reshape(-1, values.shape[-1]).astype(np.float32, copy=False)
            product = rows.T @ rows
            sums[name] = sums[name] + product if name in sums else product

    moments: dict[str, Floats] = {}
    for layer in layers:
        own = sums.get(layer.source_name)
        if own is not None:
            # Layers that share a matrix must also share its integers, so one rounding has to suit the inputs of all.
            shared = moments.get(layer.weight_name)
            moments[layer.weight_name] = own if shared is None else shared + own

    return moments


def rounded_weight(weight: Floats, moments: Floats | None = None) -> Rounded:
    """
    Round a weight matrix to signed 8 bits within :data:`PAIR_LIMIT`, with one scale per output channel.

    :param weight: *Shape:* (inputs, outputs)
    :param moments: second moments of the inputs, None where they are not known. *Shape:* (inputs, inputs)
    :return: integers, *Shape:* (inputs, outputs), and scales, *Shape:* (outputs,)
    """
    if moments is None or not np.isfinite(moments).all() or moments.trace() <= 0:
        scale = _best_scales(weight, np.ones(len(weight), dtype=np.float32))
        return _within_limit(weight / scale).astype(np.int8), scale

    # In double precision, because the inverse of nearly singular moments amplifies rounding errors.
    damped = moments.astype(np.float64)
    damped[np.diag_indices_from(damped)] += _DAMPING * moments.trace() / len(moments)
    scale = _best_scales(weight, damped.diagonal().astype(np.float32))

    return _compensated(weight, scale, damped).astype(np.int8), scale


def _best_scales(weight: Floats, importance: Floats) -> Floats:
    """
    Choose the scale of each output channel by the least square error of rounding within the limit.

    :param importance: weight of each input in the error. *Shape:* (inputs,)
    :return: *Shape:* (outputs,)
    """
    size = np.abs(weight).max(axis=0)
    best, least = np.empty_like(size), np.full(len(size), np.inf)
    for integer in _LARGEST_INTEGERS:
        scale = np.maximum(size / np.float32(integer), np.float32(SMALLEST_SCALE))
        # The diagonal of the moments stands for all of them here: the compensation comes after the scale is chosen.
        error = importance @ np.square(_within_limit(weight / scale) * scale - weight)
        best = np.where(error < least, scale, best)
        least = np.minimum(error, least)

    return np.asarray(best, dtype=np.float32)


def _within_limit(steps: Floats) -> Floats:
    """
    Round weights, in units of their scale, to integers. The weights of a pair above the limit are reduced together.

    :param steps: *Shape:* (inputs, outputs)
    """
    integers: Floats = np.clip(np.rint(steps), -LARGEST, LARGEST)
    paired = len(steps) // 2 * 2  # the last of an odd number has no neighbour
    first, second = integers[0:paired:2], integers[1:paired:2]
    over = _above_limit(first, second)

    size = _first_of_pair(steps[0:paired:2][over], steps[1:paired:2][over])
    first[over] = np.copysign(size, first[over])
    second[over] = np.copysign(PAIR_LIMIT - size, second[over])
    return integers


def _above_limit(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> Bools:
    """Whether the weights of a pair have one sign and are more than :data:`PAIR_LIMIT` together."""
    above: Bools = (np.abs(first) + np.abs(second) > PAIR_LIMIT) & (first * second > 0)
    return above


def _first_of_pair(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return the size of the first integer of a pair at the limit that leaves the least square error."""
    size: npt.NDArray[np.floating] = np.clip(np.rint((np.abs(first) - np.abs(second) + PAIR_LIMIT) / 2), 1, LARGEST)
    return size


def _compensated(weight: Floats, scale: Floats, moments: Doubles) -> Doubles:
    """
    Round input after input, and let those that follow make up for the error of each.

    :param moments: damped second moments of the inputs. *Shape:* (inputs, inputs)
    :return: integers. *Shape:* (inputs, outputs)
    """
    steps = weight.astype(np.float64) / scale
    integers = np.zeros_like(steps)
    # The rows of this factor say by how much each later input corrects the error of an earlier one.
    factor = np.linalg.cholesky(np.linalg.inv(moments)).T

    for begin in range(0, len(steps), _BLOCK):
        end = min(begin + _BLOCK, len(steps))
        errors = np.zeros((end - begin, steps.shape[1]))
        for i in range(begin, end):
            integers[i] = _next_integers(steps, integers, i)
            # Within a block each error is passed on at once; the inputs behind the block get the errors of the block in
            # one matrix product.
            error = (steps[i] - integers[i]) / factor[i, i]
            steps[i + 1 : end] -= np.outer(factor[i, i + 1 : end], error)
            errors[i - begin] = error
        steps[end:] -= factor[begin:end, end:].T @ errors

    return integers


def _next_integers(steps: Doubles, integers: Doubles, i: int) -> Doubles:
    """Round the weights of input ``i``, which is the first of a pair or bound by the first."""
    here: Doubles = steps[i]
    if i % 2 == 1:
        first = integers[i - 1]
        room = PAIR_LIMIT - np.abs(first)  # at most LARGEST where the first has a sign
        low = np.where(first < 0, -room, -LARGEST)
        high = np.where(first > 0, room, LARGEST)
        return np.clip(np.rint(here), low, high)

    # The first of a pair leaves room for the second, which is not rounded yet: otherwise the second would bear the
    # whole reduction.
    limit = np.full(len(here), float(LARGEST))
    if i + 1 < len(steps):
        second = steps[i + 1]
        limit = np.where(_above_limit(here, second), _first_of_pair(here, second), limit)

    return np.clip(np.rint(here), -limit, limit)
