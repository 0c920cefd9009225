"""Errors as programs see them: by class, reason and fields. Their messages are for people and may change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nerd_onnx.errors import Field, NerdError


@contextmanager
def fails(kind: type[NerdError], reason: str, **fields: object) -> Iterator[pytest.ExceptionInfo[NerdError]]:
    """
    Expect an error of a class, with a reason and at least these fields.

    :param fields: paths are compared by their names
    """
    with pytest.raises(kind) as caught:
        yield caught
    assert_failure(caught.value, reason, **fields)


def assert_failure(err: NerdError, reason: str, **fields: object) -> None:
    """Check the reason of an error, its fields, and that its message is one line."""
    assert err.reason == reason, f"{err.reason}: {err}"
    assert {name: err.fields.get(name) for name in fields} == {name: _plain(value) for name, value in fields.items()}

    assert str(err)
    assert len(str(err).splitlines()) == 1


def failure_of(stderr: str) -> dict[str, Any]:
    """Return what a command says of its failure with ``--json``."""
    failure: dict[str, Any] = json.loads(stderr.splitlines()[-1])
    assert failure["status"] == "failed"
    return failure


def _plain(value: object) -> Field:
    return value if isinstance(value, str | int | float) else str(value)
