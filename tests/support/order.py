"""The order of the test files: a few that take long go first."""

from __future__ import annotations

from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]

# Each worker takes one file after the other. By default xdist begins with the files that have most tests, so one with
# few but long tests, which wait for processes or export models, would be the last, and two workers would have no work.
_LONG = (
    "export/conversion/test_export.py",
    "durability/test_crashes.py",
    "durability/test_state_machine.py",
    "hostile/test_waits.py",
    "hostile/test_hostile.py",
    "storage/remote/test_interrupted.py",
    "durability/test_processes.py",
    "export/conversion/test_check_on_machine.py",
    "export/models/test_restoring.py",
    "export/evaluation/test_eval.py",
    "durability/test_resume.py",
    "test_tagger.py",
    "cli/test_engine_choice.py",
    "storage/remote/test_bytes.py",
    "storage/remote/test_refused.py",
    "native/test_auto.py",
    "formats/test_open_output.py",
    "tagging/test_text_columns.py",
)
_PLACES = {_TESTS / name: place for place, name in enumerate(_LONG)}


def started_first(path: Path) -> int:
    """
    Return the place of a test file in the order.

    :raises FileNotFoundError: if a file of the list was moved: the list would have no effect without a sign of it
    """
    if missing := [str(file) for file in _PLACES if not file.is_file()]:
        raise FileNotFoundError(f"{missing[0]}: is in the order of {__file__} and does not exist")
    return _PLACES.get(path, len(_PLACES))
