"""Folders that are made once per test session, whichever worker of pytest-xdist needs them first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nerd_onnx.machine import system


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """
    Return a folder that the first worker fills, while the others wait. Tests must only read it.

    :param factory: pytest's, for the folder of this session
    :param name: what is made, as a relative path; the same for all workers
    :param make: fills a folder that does not exist yet
    :return: the filled folder
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # each worker has a folder of its own below the one of the session
    folder = base / "shared" / name
    folder.parent.mkdir(parents=True, exist_ok=True)

    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        system.lock(lock.fileno(), wait=True)
        if not folder.exists():
            # A worker that died in the middle leaves a part, never a folder that looks complete.
            part = folder.with_name(f"{folder.name}.part") / folder.name
            shutil.rmtree(part.parent, ignore_errors=True)
            part.parent.mkdir()
            make(part)
            part.rename(folder)
    return folder
