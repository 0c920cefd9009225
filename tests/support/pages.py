"""The pages of the documentation: their blocks of code, and shells to run them in."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.conftest import ROOT

DOCS = ROOT / "docs"


def blocks(name: str, language: str) -> list[str]:
    """Return the fenced blocks of a page, each after as many empty lines as it has lines before it in the file."""
    text = (DOCS / name).read_text("utf-8")

    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return ["\n" * text.count("\n", 0, match.start(1)) + match[1] for match in found]


def run_blocks(found: Sequence[str], folder: Path, environment: Mapping[str, str], before: str = "") -> None:
    """
    Run shell blocks in their order in one folder; none may fail.

    :param before: lines to run before each
    """
    for block in found:
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", before + block],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block.strip()}\n{done.stdout}{done.stderr}"
