"""The documentation says what the program does: its reference is the program's own help."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_reference_is_what_the_commands_say() -> None:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "reference.md").read_text("utf-8") == module.reference(), "python docs/make_reference.py"


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
    spec = importlib.util.spec_from_file_location("make_picture", ROOT / "docs" / "make_picture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "picture.svg").read_text("utf-8") == module.picture(), "python docs/make_picture.py"
