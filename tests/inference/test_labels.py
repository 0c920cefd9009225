"""Label schemes and levels."""

from __future__ import annotations

import numpy as np
import pytest

from nerd_onnx.errors import OptionError
from nerd_onnx.inference.labels import LabelSet, scheme_of
from tests.support.failures import assert_failure, fails


@pytest.mark.parametrize(
    ("names", "scheme"),
    [
        (["O", "B-PER", "I-PER"], "IOB2"),
        (["O", "I-PER", "I-LOC"], "IOB2"),
        (["O", "B-PER", "I-PER", "L-PER", "U-PER"], "BILOU"),
        (["O", "B-PER", "I-PER", "E-PER", "S-PER"], "BILOU"),
        (["O", "person", "building-hotel"], "IO"),
        (["O", "B-PER", "person"], "IO"),
        (["O", "B-LOC", "I-LOC", "X", "[CLS]"], "IOB2"),
        (["O"], "IO"),
    ],
)
def test_scheme_is_told_from_names(names: list[str], scheme: str) -> None:
    assert scheme_of(names) == scheme


def test_two_levels_sum_fine_labels_into_coarse_classes() -> None:
    labels = LabelSet.hierarchical(["O", "person-actor", "art-film", "person-other"])
    assert labels.types == ("person", "art")
    assert labels.fine_types == ("person-actor", "art-film", "person-other")
    assert labels.class_of_label.tolist() == [0, 1, 2, 1]
    assert labels.type_of_class.tolist() == [-1, 0, 1]
    assert labels.type_of_fine_type.tolist() == [0, 1, 0]


def test_two_levels_keep_prefixes_apart() -> None:
    labels = LabelSet.hierarchical(["O", "B-person-actor", "I-person-actor", "B-person-other", "I-person-other"])
    assert labels.types == ("person",)
    assert labels.class_of_label.tolist() == [0, 1, 2, 1, 2]
    np.testing.assert_array_equal(labels.class_starts, [False, True, False])


def test_one_level_makes_every_label_a_class() -> None:
    labels = LabelSet(("O", "B-PER", "I-PER", "U-LOC", "L-LOC", "B-LOC", "I-LOC"))
    assert labels.class_of_label.tolist() == list(range(7))
    assert labels.class_ends.tolist() == [False, False, False, True, True, False, False]
    assert not labels.has_fine_level


def test_faulty_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="repeat"):
        LabelSet(("O", "x", "x"))
    with pytest.raises(ValueError, match="no coarse type"):
        LabelSet(("O", "x"), {"y": "z"})


def test_labels_that_are_not_there_are_answered_with_those_much_like_them() -> None:
    labels = LabelSet.hierarchical(("O", "person-actor", "person-artist/author", "location-GPE", "art-film"))
    labels.check_known(["person", "location-GPE"])
    with pytest.raises(OptionError) as caught:
        labels.check_known(["persn", "art-flim", "location-gpe", "planet"])
    assert_failure(caught.value, "unknown-label", found="art-flim, location-gpe, persn, planet")
    said = str(caught.value)
    assert "art-film, location-GPE, location, " in said
    assert "art, location, person" in said
    with fails(OptionError, "no-label", option="--labels"):
        labels.check_known([])
    with fails(OptionError, "unknown-label", found="planet"):
        LabelSet(("O", "B-person", "I-person", "B-location", "I-location")).check_known(["planet"])
