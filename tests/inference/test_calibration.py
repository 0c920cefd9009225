"""A bundle that was calibrated: scores, --min-score and --precision through the whole tagger."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nerd_onnx import Tagger
from nerd_onnx.errors import ModelError, OptionError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.candidates import EVIDENCE, choose
from tests.support.failures import fails
from tests.support.models import FINE_LABELS, sample_texts

FINE_TYPES = FINE_LABELS[1:]


@pytest.fixture
def calibrated(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle with a calibration that halves the odds of persons and has no threshold of 0.9 for locations."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "calibrated"))
    description = json.loads((folder / "nerd.json").read_text())
    types = Bundle.load(folder).labels.types
    offsets = {name: -0.7 if name == "person" else 0.1 for name in types}
    thresholds = {
        "0.8": dict.fromkeys(types, 0.3),
        "0.9": {name: None if name == "location" else 0.4 for name in types},
    }
    evidence = dict.fromkeys(EVIDENCE, 0.0)
    description["calibration"] = {
        "weights_for": evidence | {"mean": 0.5},
        "weights_against": evidence | {"mean": -0.5},
        "word_weight": 0.0,
        "offsets": offsets,
        "thresholds": thresholds,
        "fine_weights": dict.fromkeys(Bundle.load(folder).labels.fine_types, 1.0),
    }
    (folder / "nerd.json").write_text(json.dumps(description))
    return folder


def entities(model: Path, **options: Any) -> list[Any]:
    tagger = Tagger.load(model, **options)
    found = [entity for row in tagger.tag(sample_texts()) for entity in row or []]
    tagger.close()
    return found


def test_entities_are_the_likeliest_candidates_with_their_probabilities(calibrated: Path) -> None:
    tagger = Tagger.load(calibrated, min_score=0)
    texts = [text.replace("\n", " ") for text in sample_texts()]
    candidates, spans, _ = tagger.candidates(texts)
    assert tagger.bundle.calibration is not None
    probability = tagger.bundle.calibration.apply(candidates)
    mean = candidates.mean.astype(np.float64)
    odds = 0.5 * (np.log(mean) - np.log(np.maximum(1 - mean, 1e-3))) + np.where(
        np.array(tagger.labels.types)[candidates.label] == "person", -0.7, 0.1
    )
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-odds)), atol=1e-9)
    chosen = choose(candidates, probability)
    found = tagger.tag_arrays(texts).spans
    tagger.close()
    assert 50 < len(chosen) < len(candidates)
    for column in ("row", "start", "label"):
        np.testing.assert_array_equal(getattr(found, column), getattr(spans, column)[chosen])
    np.testing.assert_array_equal(found.score, probability[chosen].astype(np.float32))
    assert all(found.end - spans.end[chosen] <= 2)  # accents that tokenizers drop


def test_accents_behind_the_last_letter_belong_to_candidates_too(calibrated: Path) -> None:
    text = "Beyonce\u0301 met Andre\u0301 and Ida\u0301\u0300\u0302"
    tagger = Tagger.load(calibrated, min_score=0)
    found = {
        (int(s), int(e))
        for s, e in zip(*(getattr(tagger.candidates([text])[1], n) for n in ("start", "end")), strict=True)
    }
    assert {(e.start, e.end) for e in tagger.tag([text])[0] or ()} <= found
    tagger.close()
    assert all(end == len(text) or text[end] not in "\u0301\u0300\u0302" for _, end in found)


def test_a_tagger_without_the_calibration_of_its_folder_does_not_travel(tiny_bundle: Path, calibrated: Path) -> None:
    bundle = Bundle.load(calibrated).uncalibrated()
    assert bundle.calibration_digest == Bundle.load(tiny_bundle).calibration_digest == "none"
    with pytest.raises(TypeError, match="calibration"):
        pickle.dumps(Tagger(bundle))


def test_without_its_calibration_a_bundle_decides_word_by_word(tiny_bundle: Path, calibrated: Path) -> None:
    plain, judged = Bundle.load(tiny_bundle), Bundle.load(calibrated)
    answers = []
    for bundle in (plain, judged, judged.uncalibrated()):
        tagger = Tagger(bundle)
        answers.append(tagger.tag(sample_texts()))
        tagger.close()
    assert answers[0] == answers[2] != answers[1]


def test_fine_types_weigh_as_recorded_and_nothing_else_changes(calibrated: Path) -> None:
    whole = entities(calibrated)
    assert {entity.fine_label for entity in whole if entity.label == "person"} == {"person-actor", "person-other"}
    description = json.loads((calibrated / "nerd.json").read_text())
    description["calibration"]["fine_weights"]["person-actor"] = 1e9
    before = Bundle.load(calibrated).calibration_digest
    (calibrated / "nerd.json").write_text(json.dumps(description))
    assert Bundle.load(calibrated).calibration_digest != before  # so that no run is resumed with other weights
    found = entities(calibrated)
    assert {entity.fine_label for entity in found if entity.label == "person"} == {"person-actor"}
    assert [replace(e, fine_label=None) for e in found] == [replace(e, fine_label=None) for e in whole]
    assert [e for e in found if e.label != "person"] == [e for e in whole if e.label != "person"]


def test_min_score_counts_the_probability(calibrated: Path) -> None:
    whole = entities(calibrated)
    middle = float(np.median([entity.score for entity in whole]))
    kept = entities(calibrated, min_score=middle)
    assert kept == [entity for entity in whole if entity.score >= np.float32(middle)]
    assert 0 < len(kept) < len(whole)


@pytest.mark.slow
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


def test_precision_takes_the_thresholds_of_each_type(tiny_bundle: Path, calibrated: Path) -> None:
    whole = entities(calibrated)
    assert entities(calibrated, precision=0.75) == [entity for entity in whole if entity.score >= 0.3]
    assert entities(calibrated, precision=0.85) == [
        entity for entity in whole if entity.score >= 0.4 and entity.label != "location"
    ]
    with fails(OptionError, "precision-too-high", option="--precision", maximum=0.9):
        entities(calibrated, precision=0.95)
    with fails(OptionError, "no-thresholds", option="--precision"):
        entities(tiny_bundle, precision=0.9)
    with fails(OptionError, "bad-value", option="precision", found="1.5"):
        entities(calibrated, precision=1.5)


@pytest.mark.parametrize(
    "damage",
    [
        {"weights_for": {}},
        {"weights_for": 3},
        {"weights_against": dict.fromkeys(EVIDENCE, "x")},
        {"word_weight": None},
        {"offsets": {}},
        {"offsets": 3},
        {"thresholds": {"a": {}}},
        {"word_weight": 1e999},
        {"f1_threshold": 2},
        {"fine_weights": {}},
        {"fine_weights": dict.fromkeys(FINE_TYPES, 0)},
        {"fine_weights": dict.fromkeys(FINE_TYPES, 1e999)},
    ],
)
def test_a_damaged_calibration_is_a_damaged_bundle(calibrated: Path, damage: dict[str, Any]) -> None:
    description = json.loads((calibrated / "nerd.json").read_text())
    description["calibration"] |= damage
    (calibrated / "nerd.json").write_text(json.dumps(description))
    with fails(ModelError, "bad-description"):
        Bundle.load(calibrated)
