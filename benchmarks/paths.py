"""Folders of the repository, and names of files in reports: a report never has a path of this machine."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
OUT = ROOT / "benchmarks" / "out"
# Folders of absolute paths, but not those of addresses and of relative paths.
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/:'\"]+/)+")


def shown(path: Path | str) -> str:
    """Return a path relative to the repository if it is in it or beside it; of any other path, the last part."""
    path = Path(path).absolute()
    if path.is_relative_to(ROOT):
        return path.relative_to(ROOT).as_posix()
    if path.is_relative_to(ROOT.parent):
        return f"../{path.relative_to(ROOT.parent).as_posix()}"
    return path.name


def without_folders(text: str) -> str:
    """Return a message with every absolute path shortened to its last part."""
    return _FOLDERS.sub("", text.replace(f"{ROOT}/", ""))


def shown_command(command: Sequence[str | Path]) -> str:
    """Return a command as a user types it at the root of the repository."""
    words = ["python" if word == sys.executable else word for word in command]
    return " ".join(shown(word) if isinstance(word, Path) else word for word in words)
