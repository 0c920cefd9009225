"""Bundles of every format since the first: they are read, and find what the program of their time found."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from nerd_onnx.errors import ModelError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.description import FORMAT_VERSION
from nerd_onnx.tagger import Tagger
from tests.conftest import ROOT
from tests.support.failures import fails

BUNDLES = ROOT / "tests" / "data" / "bundles"
FORMATS = range(1, FORMAT_VERSION + 1)
REFUSED = (1, 2)  # with a calibration

Found = dict[tuple[int, int, str, str], float]


def folder(version: int) -> Path:
    return BUNDLES / f"format-{version}"


def test_a_bundle_of_each_format_is_kept() -> None:
    kept = {path.name: json.loads((path / "nerd.json").read_text("utf-8")) for path in BUNDLES.glob("format-*")}
    assert {name: content["format_version"] for name, content in kept.items()} == {f"format-{v}": v for v in FORMATS}


@pytest.mark.parametrize("version", FORMATS)
def test_a_bundle_finds_what_the_program_of_its_time_found(version: int) -> None:
    rows = [json.loads(line) for line in (folder(version) / "tagged.jsonl").read_text("utf-8").splitlines()]
    with closing(Tagger.load(folder(version))) as tagger:
        found = tagger.tag([row["text"] for row in rows])

    expected = [
        {(e["start"], e["end"], e["label"], e["fine_label"]): e["score"] for e in row["entities"]} for row in rows
    ]
    now: list[Found] = [{(e.start, e.end, e.label, str(e.fine_label)): e.score for e in row or []} for row in found]
    same = [(one[key], other[key]) for one, other in zip(expected, now, strict=True) for key in one.keys() & other]
    total = sum(len(one.keys() | other) for one, other in zip(expected, now, strict=True))

    # On the processor that wrote them all are the same. Others round differently, and random weights are near ties.
    assert total > 150
    assert len(same) >= 0.97 * total
    assert max(abs(one - other) for one, other in same) < 0.02


@pytest.mark.parametrize("version", REFUSED)
def test_a_calibration_that_cannot_be_computed_is_refused(version: int, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder(version), tmp_path / "copy"))
    (copy / "calibrated.json").replace(copy / "nerd.json")
    with fails(ModelError, "old-calibration", file=copy / "nerd.json", found=str(version), expected=3):
        Bundle.load(copy)


@pytest.mark.parametrize("version", FORMATS)
def test_calibrations_are_read_in_all_other_formats(version: int) -> None:
    assert (Bundle.load(folder(version)).calibration is None) == (version in REFUSED)


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, True, "4", None])
def test_other_versions_are_refused(version: object, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder(FORMAT_VERSION), tmp_path / "copy"))
    description = json.loads((copy / "nerd.json").read_text("utf-8")) | {"format_version": version}
    (copy / "nerd.json").write_text(json.dumps(description), "utf-8")
    with fails(ModelError, "other-format-version", file=copy / "nerd.json", found=str(version)):
        Bundle.load(copy)
