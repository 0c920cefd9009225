"""Shared fixtures and settings of all tests: small real models and bundles, and how many examples hypothesis tries."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nerd_onnx.cli.tag import main
from nerd_onnx.tagger import Tagger
from tests.support import profiles
from tests.support.commands import Run, runner
from tests.support.make_models import MODELS
from tests.support.models import FINE_LABELS, make_checkpoint
from tests.support.order import started_first
from tests.support.shared import made_once

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"

profiles.load()

# Hundreds of tests start processes. Each would compile the package anew, for a third of a second, where the environment
# (that of a container image, for example) asks for no stored bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# For networks this small, more threads in torch only wait for each other, and the workers share the processors.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: started_first(item.path))  # stable: all others keep their order


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, tuple[str, ...]], Path]:
    """Return a function that makes, once per session, the checkpoint of a family with some labels."""

    def make(family: str, labels: tuple[str, ...] = FINE_LABELS) -> Path:
        name = f"{family}-{hashlib.sha256(repr(labels).encode()).hexdigest()[:12]}/checkpoint"
        return made_once(tmp_path_factory, name, lambda folder: make_checkpoint(folder, family, labels))

    return make


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that copies a model of ``tests/data/models``, so that no test changes the committed one."""

    def copy(name: str) -> Path:
        return made_once(tmp_path_factory, f"committed/{name}", lambda folder: shutil.copytree(MODELS / name, folder))

    return copy


@pytest.fixture(scope="session")
def tiny_bundle(committed: Callable[[str], Path]) -> Path:
    """Return the tiny two-level BERT as an int8 bundle."""
    return committed("int8")


@pytest.fixture(scope="session")
def tagger(tiny_bundle: Path) -> Iterator[Tagger]:
    """Load the small model: labels location and person, with fine ones."""
    tagger = Tagger.load(tiny_bundle)
    yield tagger
    tagger.close()


@pytest.fixture
def nerd_tag(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs ``nerd-tag`` in this process, with the default model."""
    return runner("nerd-tag", main, monkeypatch, capfd)
