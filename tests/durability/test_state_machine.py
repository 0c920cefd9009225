"""The life of a run, as :mod:`state_machine` draws it: a few sequences here, thousands in its long form."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nerd_onnx.tagging import final_look, previous_runs
from tests.durability.state_machine import check
from tests.support import profiles

SEQUENCES = 2000 if os.environ.get("NERD_LONG") else 50 if profiles.name() == "ci" else 20
TO_FIND_A_FAULT = 200


def test_every_output_is_that_of_an_undisturbed_run_or_the_run_is_refused(tmp_path: Path) -> None:
    counts = check(SEQUENCES, tmp_path)
    assert counts["sequences"] >= SEQUENCES
    assert counts["kills"] > SEQUENCES // 4  # else the sequences do not reach what they are for
    assert counts["done"] > SEQUENCES


@pytest.mark.slow
def test_a_run_that_believes_its_journal_without_a_look_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (previous_runs, final_look):
        monkeypatch.setattr(module, "state_of", lambda *_, **__: "intact")
    with pytest.raises(AssertionError, match="differs after exit code"):
        check(TO_FIND_A_FAULT, tmp_path, shrink=False)
