"""The committed tiny models behave as models made afresh; ``python -m tests.support.make_models`` writes them again."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nerd_onnx.tagger import Tagger
from tests.support.make_models import MAKERS, MODELS, make
from tests.support.marks import slow_but
from tests.support.models import sample_texts

# What an export measures or dates. Another processor rounds otherwise, and another release has another version.
MEASURED = {"verification", "lineage", "files"}


def entities(folder: Path) -> set[tuple[int, int, int, str, str | None]]:
    """Return the entities that a model finds in the sample texts."""
    with closing(Tagger.load(folder)) as tagger:
        rows = tagger.tag(sample_texts())
    return {(i, e.start, e.end, e.label, e.fine_label) for i, row in enumerate(rows) for e in row or []}


def described(folder: Path) -> dict[str, Any]:
    """Return what a bundle says of itself, without what was measured; nothing for a plain folder."""
    if not (folder / "nerd.json").exists():
        return {}
    found: dict[str, Any] = json.loads((folder / "nerd.json").read_text("utf-8"))
    return {key: value for key, value in found.items() if key not in MEASURED}


@pytest.mark.parametrize("name", slow_but(["int8"], sorted(MAKERS)))
def test_a_committed_model_is_what_an_export_makes_now(
    name: str, committed: Callable[[str], Path], tiny_bundle: Path, tmp_path: Path
) -> None:
    fresh = tiny_bundle if name == "int8" else tmp_path / name
    if name != "int8":
        make(name, fresh)

    stored = committed(name)
    assert {path.name for path in stored.iterdir()} == {path.name for path in fresh.iterdir()}
    assert described(stored) == described(fresh)

    before, now = entities(stored), entities(fresh)
    assert len(now) > 100
    assert len(before & now) > 0.97 * len(before | now)  # random weights have near ties


def test_the_committed_models_are_small() -> None:
    assert {folder.name for folder in MODELS.iterdir()} == set(MAKERS)
    for folder in MODELS.iterdir():
        assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000
