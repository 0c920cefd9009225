"""A bundle that was calibrated: scores, --min-score and --precision through the whole tagger."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nerd_onnx import Tagger
from nerd_onnx.errors import ModelError, OptionError
from nerd_onnx.inference.bundle import Bundle
from tests.models import sample_texts


@pytest.fixture
def calibrated(tiny_bundle: Path, tmp_path: Path) -> Path:
    """Give the tiny bundle a calibration: scores of persons are halved in odds, and locations never reach 0.9."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "calibrated"))
    description = json.loads((folder / "nerd.json").read_text())
    types = Bundle.load(folder).labels.types
    offsets = {name: -0.7 if name == "person" else 0.1 for name in types}
    thresholds = {
        "0.8": dict.fromkeys(types, 0.3),
        "0.9": {name: None if name == "location" else 0.4 for name in types},
    }
    description["calibration"] = {"slope": 0.5, "offsets": offsets, "thresholds": thresholds}
    (folder / "nerd.json").write_text(json.dumps(description))
    return folder


def entities(model: Path, **options: Any) -> list[Any]:
    tagger = Tagger.load(model, **options)
    found = [entity for row in tagger.tag(sample_texts()) for entity in row or []]
    tagger.close()
    return found


def test_scores_are_turned_into_probabilities_and_nothing_else_changes(tiny_bundle: Path, calibrated: Path) -> None:
    before, after = entities(tiny_bundle), entities(calibrated)
    assert [(e.start, e.end, e.label) for e in before] == [(e.start, e.end, e.label) for e in after]
    for old, new in zip(before, after, strict=True):
        odds = 0.5 * np.log(old.score / (1 - old.score)) + (-0.7 if old.label == "person" else 0.1)
        assert new.score == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-5)


def test_min_score_counts_the_probability(calibrated: Path) -> None:
    whole = entities(calibrated)
    middle = float(np.median([entity.score for entity in whole]))
    kept = entities(calibrated, min_score=middle)
    assert kept == [entity for entity in whole if entity.score >= np.float32(middle)]
    assert 0 < len(kept) < len(whole)


def test_the_threshold_of_the_model_holds_unless_another_is_asked(calibrated: Path) -> None:
    whole = entities(calibrated)
    middle = float(np.median([entity.score for entity in whole]))
    description = json.loads((calibrated / "nerd.json").read_text())
    description["calibration"]["f1_threshold"] = middle
    (calibrated / "nerd.json").write_text(json.dumps(description))
    kept = entities(calibrated)
    assert kept == entities(calibrated, min_score=middle) != whole
    assert entities(calibrated, min_score=0) == whole
    least = max(0.0, min(entity.score for entity in whole) - 0.001)
    assert entities(calibrated, min_score=least) == whole
    assert len(entities(calibrated, precision=0.75)) > len(kept)  # its thresholds, not the model's


def test_borders_count(tiny_bundle: Path, calibrated: Path) -> None:
    description = json.loads((calibrated / "nerd.json").read_text())
    description["calibration"]["border_slope"] = 0.5
    before = entities(calibrated)
    (calibrated / "nerd.json").write_text(json.dumps(description))
    tagger = Tagger.load(tiny_bundle)
    borders = tagger.tag_arrays(sample_texts()).spans.border
    tagger.close()
    assert ((borders > 0) & (borders <= 1)).all()
    assert (borders < 0.9).any()
    for old, new, border in zip(before, entities(calibrated), borders.astype(np.float64), strict=True):
        inner = min(border, 1 - 1e-6)
        odds = np.log(old.score / (1 - old.score)) + 0.5 * np.log(inner / (1 - inner))
        assert new.score == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-4)


def test_precision_takes_the_thresholds_of_each_type(tiny_bundle: Path, calibrated: Path) -> None:
    whole = entities(calibrated)
    assert entities(calibrated, precision=0.75) == [entity for entity in whole if entity.score >= 0.3]
    assert entities(calibrated, precision=0.85) == [
        entity for entity in whole if entity.score >= 0.4 and entity.label != "location"
    ]
    with pytest.raises(OptionError, match=r"--precision 0.95: the model records thresholds up to 0.9"):
        entities(calibrated, precision=0.95)
    with pytest.raises(OptionError, match="records no thresholds; export it with nerd-export --dataset"):
        entities(tiny_bundle, precision=0.9)
    with pytest.raises(OptionError, match=r"precision is 1\.5"):
        entities(calibrated, precision=1.5)


@pytest.mark.parametrize(
    "damage",
    [
        {"slope": -1},
        {"slope": "x"},
        {"offsets": {}},
        {"offsets": 3},
        {"thresholds": {"a": {}}},
        {"slope": 1e999},
        {"border_slope": -1},
        {"f1_threshold": 2},
    ],
)
def test_a_damaged_calibration_is_a_damaged_bundle(calibrated: Path, damage: dict[str, Any]) -> None:
    description = json.loads((calibrated / "nerd.json").read_text())
    description["calibration"] |= damage
    (calibrated / "nerd.json").write_text(json.dumps(description))
    with pytest.raises(ModelError, match=r"nerd\.json: incomplete or malformed"):
        Bundle.load(calibrated)
