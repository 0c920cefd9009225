"""Mistakes in the options of the commands are found before the work begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nerd_export.cli.export import export_command
from nerd_export.cli.train import train_command
from nerd_onnx.errors import OptionError, OutputError
from tests.support.failures import assert_failure


def refused(command: Any, *arguments: object) -> BaseException | str:
    """Run a command that must fail, and return its error or the output of click."""
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    assert result.exit_code != 0
    return result.output if isinstance(result.exception, SystemExit) else (result.exception or "")


@pytest.mark.parametrize(
    "option", [("--epochs", 0), ("--epochs", -1), ("--learning-rate", -1), ("--learning-rate", 0), ("--seed", -1)]
)
def test_numbers_out_of_range_are_usage_errors(tmp_path: Path, option: tuple[str, object]) -> None:
    text = refused(train_command, "--output", tmp_path / "o", "--dataset", tmp_path, *option)
    assert "is not in the range" in str(text)
    assert option[0] in str(text)


def test_train_outputs_that_cannot_be_made_are_refused_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for output, reason in (
        ("/dev/null/x", "not-folder"),
        (tmp_path / "file", "not-folder"),
        (tmp_path, "folder-not-empty"),
    ):
        error = refused(train_command, "--output", output, "--dataset", tmp_path)
        assert isinstance(error, OutputError)
        assert_failure(error, reason, file=output)
    both = refused(train_command, "--output", tmp_path / "o", "--resume", "--overwrite")
    assert isinstance(both, OptionError)
    assert_failure(both, "resume-and-overwrite")
    assert not (tmp_path / "o").exists()


def test_reports_that_cannot_be_written_are_refused_first(tmp_path: Path) -> None:
    for report, reason in (
        (tmp_path / "gone" / "r.json", "missing-folder"),
        (tmp_path, "is-folder"),
        ("/dev/null/r.json", "missing-folder"),
    ):
        error = refused(export_command, "--model", tmp_path, "--output", tmp_path / "o", "--report", report)
        assert isinstance(error, OutputError)
        assert_failure(error, reason, file=report)
