"""
Exponential and logarithm with the same bits on every processor.

The last digits of numpy's own depend on the processor's instructions. These use additions, products, quotients and
roundings alone, one numpy call each, which IEEE 754 defines to the last bit. Their error is at most two units in the
last place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from nerd_onnx.inference.arrays import Doubles

Real = TypeVar("Real", np.float32, np.float64)


@dataclass(frozen=True)
class _Kind:
    """
    How the exponential of one type of numbers is computed.

    :param terms: degree of the series
    :param high: the first digits of ln 2, so few that their product with an exponent is exact
    :param low: what is left of ln 2
    :param bounds: within these, the result and its power of two are normal numbers
    :param integers: integers of the same size
    """

    terms: int
    high: float
    low: float
    bounds: tuple[float, float]
    integers: type[np.signedinteger[Any]]


_KINDS = {
    np.dtype(np.float32): _Kind(7, 0.693359375, -2.12194440e-4, (-87, 88), np.int32),
    np.dtype(np.float64): _Kind(13, 6.93147180369123816490e-01, 1.90821492927058770002e-10, (-708, 709), np.int64),
}
_LOG_TERMS = 11


def exponential(values: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """
    Return ``exp`` of each value, in its type.

    :param values: float32 or float64. They are limited to -87 and 88, and -708 and 709, so that the result is neither 0
        nor infinite; nan stays
    :return: *Shape:* as ``values``
    """
    kind, number = _KINDS[values.dtype], values.dtype.type
    lower, upper = map(number, kind.bounds)
    bounded = np.clip(values, lower, upper)

    # exp(x) = 2^n exp(r) with |r| <= ln(2) / 2, where a short series is exact.
    exponent = np.rint(bounded * number(1 / math.log(2)))
    rest = bounded - exponent * number(kind.high) - exponent * number(kind.low)

    result = np.full_like(rest, 1 / math.factorial(kind.terms))
    # The order of these products and sums decides the last bit, so it must not change.
    for term in range(kind.terms - 1, -1, -1):
        result *= rest
        result += number(1 / math.factorial(term))

    # 2^n is the number whose bits of the exponent are n and whose fraction is 0.
    layout = np.finfo(values.dtype)
    with np.errstate(invalid="ignore"):  # nan has no exponent, and stays nan
        power = (exponent.astype(kind.integers) + (layout.maxexp - 1)) << layout.nmant
    return np.asarray(result * power.view(values.dtype), dtype=values.dtype)


def logarithm(values: Doubles) -> Doubles:
    """
    Return the natural logarithm of each value.

    :param values: positive and finite
    :return: *Shape:* as ``values``
    """
    # log(x) = n ln(2) + log(m), with m between the roots of 1/2 and of 2, and log(m) = 2 atanh((m - 1) / (m + 1)).
    fraction, exponent = np.frexp(values)
    is_small = fraction < math.sqrt(0.5)

    fraction = np.where(is_small, 2 * fraction, fraction)
    exponent = (exponent - is_small).astype(np.float64)

    ratio = (fraction - 1) / (fraction + 1)
    square = ratio * ratio

    series = np.full_like(ratio, 2 / (2 * _LOG_TERMS + 1))
    for term in range(_LOG_TERMS - 1, -1, -1):
        series *= square
        series += 2 / (2 * term + 1)

    ln2 = _KINDS[values.dtype]
    return np.asarray(exponent * ln2.high + (exponent * ln2.low + ratio * series))
