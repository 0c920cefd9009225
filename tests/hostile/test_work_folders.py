"""Work folders that were damaged between a kill and the run that resumes it; the long form is ``make fuzz``."""

from __future__ import annotations

from random import Random

import pytest

from tests.hostile.work_folders import CASES_PER_RUN, WorkFolders, sealed
from tests.support.profiles import example_count

RUNS = 4


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> WorkFolders:
    """Return the fuzzers' targets."""
    return WorkFolders(tmp_path_factory.mktemp("work-folders"))


@pytest.mark.examples
@pytest.mark.parametrize("number", range(RUNS))
def test_a_damaged_journal_counts_up_to_its_first_damage(targets: WorkFolders, number: int) -> None:
    run = targets.run_of(number * CASES_PER_RUN)
    assert sealed(run.lines) == run.lines  # so that damages that are sealed again get past the hashes
    for seed in range(example_count(400)):
        targets.journal(run, Random(f"{number} {seed}"))


@pytest.mark.examples
@pytest.mark.parametrize("number", range(RUNS))
def test_a_run_resumed_from_a_damaged_work_folder_has_the_same_bytes(targets: WorkFolders, number: int) -> None:
    run = targets.run_of(number * CASES_PER_RUN)
    ends = [targets.work_folder(run, Random(f"{number} {seed}")) for seed in range(example_count(50))]
    assert "done" in ends
