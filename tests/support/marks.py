"""Which values of a parametrized test the README's command leaves to the tests marked slow."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_but(fast: Collection[Any], values: Iterable[Any]) -> list[Any]:
    """
    Return parameters of a test, of which all but some are marked slow.

    :param fast: the values that the README's command runs
    :param values: all of them; a tuple holds the values of several parameters
    """
    values = list(values)
    unknown = [value for value in fast if value not in values]
    if unknown:
        raise ValueError(f"no such values: {unknown}")

    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)), marks=[] if value in fast else pytest.mark.slow
        )
        for value in values
    ]
