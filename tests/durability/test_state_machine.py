"""The life of a run, as :mod:`state_machine` draws it: a few sequences here, thousands in its long form."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from nerd_onnx.tagging import final_check, previous_runs
from tests.durability.state_machine import RunLife, check, middles_without_fingerprint
from tests.support import damage, profiles

SEQUENCES = 2000 if os.environ.get("NERD_LONG") else 50 if profiles.name() == "ci" else 4


@pytest.mark.examples
def test_every_output_is_that_of_an_undisturbed_run_or_the_run_is_refused(tmp_path: Path) -> None:
    counts = check(SEQUENCES, tmp_path)
    assert counts["sequences"] >= SEQUENCES
    assert counts["kills"] > SEQUENCES // 4  # else the sequences do not reach what they are for
    assert counts["done"] > SEQUENCES


# One life is written down, because random ones find a planted fault after any number of sequences.
def _resume_over_a_replaced_output(place: Path) -> None:
    """Kill a run of several files when some are finished, replace one of these, and resume."""
    RunLife.prepare(place)
    machine = RunLife()
    with middles_without_fingerprint():
        machine.begin(Random(0), "bundle", ["a.jsonl", "k=1/b.parquet", "k=2/c.jsonl"], ".jsonl", [], chunk_rows=3)
        for step in range(15, 90):  # each kill comes later in the run than the one before
            machine.kill(step=step, again=False)
            if machine.life.visible():
                break
        assert machine.life.visible()
        assert machine.life.work.exists()

        machine.damage_output(rng=Random(0), change=damage.replace)
        machine.run(how=["--resume"])


def test_a_replaced_output_is_refused(tmp_path: Path) -> None:
    _resume_over_a_replaced_output(tmp_path)
    assert RunLife.counts["kills"]
    assert RunLife.counts["refused: output/output-changed"] == 1


@pytest.mark.slow
def test_a_run_that_believes_its_journal_without_a_look_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (previous_runs, final_check):
        monkeypatch.setattr(module, "state_of", lambda *_, **__: "intact")
    with pytest.raises(AssertionError, match="differs after exit code"):
        _resume_over_a_replaced_output(tmp_path)
