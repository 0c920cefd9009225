"""Exponential and logarithm: close to the true values, and the committed bits on every processor."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerd_onnx.inference.portable_math import exponential, logarithm

# SHA-256 of the results for the numbers of `inputs`.
GOLDEN = {
    "float32": "37b15c2623fdff5f5ded29f0e793870c7c79f230790c357e0571c7564f253128",
    "float64": "77efa6a92320b05bcaa7cfe995eb8b889cc3b082c7f1d4fe113c04d2e8d7a997",
    "logarithm": "2c0fbda04f795decbfa1285b49e8438f499f38570677233107454938fdac89ee",
}
PROGRAM = "from tests.inference.test_portable_math import digests; print(digests())"


def inputs(kind: type[np.floating[Any]]) -> npt.NDArray[Any]:
    """Return numbers from -80 to 0, the same everywhere: quotients of integers."""
    return np.asarray(np.arange(20_000, dtype=kind) * kind(-1) / kind(250), dtype=kind)


def digests() -> dict[str, str]:
    """Return the fingerprints of all results."""
    found: dict[str, npt.NDArray[Any]] = {
        "float32": exponential(inputs(np.float32)),
        "float64": exponential(inputs(np.float64)),
        "logarithm": logarithm(1 / (1 - inputs(np.float64))),
    }
    return {
        name: hashlib.sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest()
        for name, values in found.items()
    }


def test_the_bits_are_those_that_are_committed() -> None:
    assert digests() == GOLDEN


# numpy passes over names that it, or the processor, does not have.
@pytest.mark.parametrize("features", ["AVX512F AVX512_SKX X86_V4", "FMA3 AVX2 X86_V3 AVX512F AVX512_SKX X86_V4"])
def test_the_bits_do_not_depend_on_the_code_that_numpy_chooses(features: str) -> None:
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(GOLDEN), done.stderr


@given(st.floats(-700, 700))
def test_exponentials_are_close_in_double_precision(value: float) -> None:
    found = float(exponential(np.array([value]))[0])
    assert abs(found - math.exp(value)) <= 2 * math.ulp(math.exp(value))


@given(st.floats(-87, 88, width=32))
def test_exponentials_are_close_in_single_precision(value: float) -> None:
    found = exponential(np.array([value], np.float32))[0]
    assert found.dtype == np.float32
    assert abs(float(found) - math.exp(value)) <= 2 * float(np.spacing(np.float32(math.exp(value))))


@given(st.floats(1e-300, 1e300))
def test_logarithms_are_close(value: float) -> None:
    expected = math.log(value)
    assert abs(float(logarithm(np.array([value]))[0]) - expected) <= max(2 * math.ulp(expected), 1e-16)


def test_values_at_the_ends() -> None:
    ends = np.array([-math.inf, -1e9, 0, 1e9, math.inf, math.nan])
    found = exponential(ends)
    assert found[:2].tolist() == [exponential(np.array([-708.0]))[0]] * 2
    assert found[2] == 1
    assert np.isfinite(found[3:5]).all()
    assert np.isnan(found[5])
    assert logarithm(np.array([1.0])).tolist() == [0.0]
    assert exponential(np.empty((0, 3), np.float32)).shape == (0, 3)
