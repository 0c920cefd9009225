"""The public interface is what the snapshot says; the snapshot changes only with a line in CHANGELOG.md."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import nerd_onnx
from nerd_onnx.cli import tag
from tests.support.scripts import DOCS, docs_script

RECORDED = json.loads((DOCS / "interface.json").read_text("utf-8"))
REGENERATE = "make interface LINE='words of the line in CHANGELOG.md about the change'"
script = docs_script("make_interface")


def test_the_interface_is_what_the_snapshot_says() -> None:
    assert script.interface() == RECORDED["interface"], REGENERATE


def test_the_recorded_change_is_in_the_change_log() -> None:
    words = " ".join((DOCS.parent / "CHANGELOG.md").read_text("utf-8").split())
    assert " ".join(RECORDED["changelog"].split()) in words


@pytest.fixture
def older() -> dict[str, Any]:
    """Return the snapshot of a version that lacked an option."""
    recorded: dict[str, Any] = copy.deepcopy(RECORDED)
    recorded["interface"]["commands"]["nerd-tag"]["parameters"].pop()
    return recorded


@pytest.mark.parametrize("line", ["", "words that no line of the change log has"])
def test_a_change_without_a_line_is_refused(older: dict[str, Any], line: str) -> None:
    with pytest.raises(script.UnrecordedChangeError, match="lacks the text"):
        script.snapshot(line, older)


def test_one_line_records_one_change(older: dict[str, Any]) -> None:
    with pytest.raises(script.UnrecordedChangeError, match="previous change"):
        script.snapshot(RECORDED["changelog"], older)


def test_a_change_with_a_line_is_recorded(
    older: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changes = tmp_path / "CHANGELOG.md"
    changes.write_text("# Changes\n\n## 2.0.0\n\n- A new\n  option.\n\n## 1.0.0\n\n- An old one.\n", "utf-8")
    monkeypatch.setattr(script, "CHANGES", changes)

    assert script.snapshot("A new option.", older) == {"changelog": "A new option.", "interface": script.interface()}
    with pytest.raises(script.UnrecordedChangeError):
        script.snapshot("An old one.", older)


def test_nothing_changes_without_a_change() -> None:
    assert script.snapshot("", RECORDED) == RECORDED


@pytest.mark.parametrize("change", ["an option", "a default", "a Python name"])
def test_each_change_is_seen(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if change == "an option":
        monkeypatch.setattr(tag.command, "params", [*tag.command.params, click.Option(["--new-option"])])
    elif change == "a default":
        option = next(found for found in tag.command.params if "--column" in found.opts)
        monkeypatch.setattr(option, "default", "other")
    else:
        monkeypatch.setattr(nerd_onnx, "__all__", nerd_onnx.__all__[1:])
    assert script.interface() != RECORDED["interface"]


def test_the_recorded_exit_code_is_that_of_the_program() -> None:
    done = CliRunner().invoke(tag.command, ["--no-such-option"])
    assert done.exit_code == RECORDED["interface"]["exit_codes"]["usage"] == 2
