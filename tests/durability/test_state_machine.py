"""The life of a run, as :mod:`state_machine` draws it: a few sequences here, thousands in its long form."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nerd_onnx.durability import chunks, events
from nerd_onnx.tagging import previous_runs
from tests.durability.state_machine import check

SEQUENCES = 2000 if os.environ.get("NERD_LONG") else 50
TO_FIND_A_FAULT = 400


def test_every_output_is_that_of_an_undisturbed_run_or_the_run_is_refused(tmp_path: Path) -> None:
    counts = check(SEQUENCES, tmp_path)
    assert counts["sequences"] >= SEQUENCES
    assert counts["kills"] > SEQUENCES // 2  # else the sequences do not reach what they are for
    assert counts["done"] > SEQUENCES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name", "broken"),
    [
        (previous_runs, "state_of", lambda *_, **__: "intact"),
        (events, "_hash_of", lambda _, body: events.hashlib.sha256(body[:1]).hexdigest()),
        (chunks, "_is_intact", lambda *_: True),
    ],
)
def test_a_run_that_believes_without_a_look_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, broken: Callable[..., object]
) -> None:
    monkeypatch.setattr(module, name, broken)
    with pytest.raises(BaseException, match=r"differs after exit code|traceback|lines"):
        check(TO_FIND_A_FAULT, tmp_path, shrink=False)
