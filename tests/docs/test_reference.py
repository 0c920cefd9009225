"""The documentation says what the program does: its reference is the program's own help."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.scripts import DOCS, docs_script


def test_the_reference_is_what_the_commands_say() -> None:
    written = docs_script("make_reference").reference()
    assert (DOCS / "reference.md").read_text("utf-8") == written, "python docs/make_reference.py"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_offered_as_the_docs_say(shell: str) -> None:
    code = "from nerd_onnx.cli.tag import main; import sys; sys.argv[0] = 'nerd-tag'; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"_NERD_TAG_COMPLETE": f"{shell}_source", "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "_NERD_TAG_COMPLETE=" in done.stdout


def test_the_picture_shows_what_the_default_model_and_the_reports_say() -> None:
    written = docs_script("make_picture").picture()
    assert (DOCS / "picture.svg").read_text("utf-8") == written, "python docs/make_picture.py"
