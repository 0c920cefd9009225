"""``nerd.json``: what is written is read again, and what is read describes the files beside it."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.errors import ModelError
from nerd_onnx.inference.candidates import EVIDENCE
from nerd_onnx.inference.description import GRAPH, TOKENIZER, Description, sha256_of
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.inference.words import WordRule
from tests.support.failures import fails
from tests.support.profiles import example_count

NUMBERS = st.floats(-100, 100)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.dictionaries(st.text(), VALUES, max_size=4)


@st.composite
def label_sets(draw: st.DrawFn) -> LabelSet:
    """Labels of one level or two, in every scheme."""
    name = st.text(min_size=1, max_size=8) | st.sampled_from(["O", "B-PER", "I-PER", "U-LOC", "person-actor"])
    names = tuple(draw(st.lists(name, min_size=1, max_size=6, unique=True)))
    single = LabelSet(names)
    if not draw(st.booleans()):
        return single
    return LabelSet(names, {fine: draw(st.sampled_from("abc")) for fine in single.fine_types}, single.scheme)


@st.composite
def calibrations(draw: st.DrawFn, labels: LabelSet) -> dict[str, Any]:
    """Records of a calibration that fits the labels."""

    def by_name(names: tuple[str, ...], value: st.SearchStrategy[Any]) -> dict[str, Any]:
        return {name: draw(value) for name in names}

    return {
        "weights_for": by_name(EVIDENCE, NUMBERS),
        "weights_against": by_name(EVIDENCE, NUMBERS),
        "word_weight": draw(NUMBERS),
        "offsets": by_name(labels.types, NUMBERS),
        "f1_threshold": draw(st.floats(0, 1)),
        "fine_weights": by_name(labels.fine_types, st.floats(0.01, 100)),
        "thresholds": {wish: by_name(labels.types, st.none() | st.floats(0, 1)) for wish in ("0.8", "0.9")},
    }


@st.composite
def descriptions(draw: st.DrawFn) -> Description:
    labels = draw(label_sets())
    return Description(
        labels=labels,
        segment_tokens=draw(st.integers(1, 512)),
        word_rule=draw(st.sampled_from(get_args(WordRule))),
        letter_case=draw(st.booleans()),
        quantization=draw(RECORDS) | {"method": draw(st.text()), "integer_products": draw(st.booleans())},
        opset=draw(st.integers(1, 30)),
        lineage=draw(RECORDS),
        calibration=draw(st.none() | calibrations(labels)),
        metrics=draw(RECORDS),
        verification=draw(st.none() | RECORDS),
    )


def bundle_files(folder: Path) -> None:
    (folder / GRAPH).write_bytes(b"graph")
    (folder / TOKENIZER).write_bytes(b"tokenizer")
    (folder / "README.md").write_bytes(b"for people")


def refusal(folder: Path) -> ModelError | None:
    """Return the error of reading a description, or None where it is read."""
    try:
        Description.read(folder)
    except ModelError as err:
        return err
    return None


@settings(max_examples=example_count(150), deadline=None)
@given(written=descriptions())
def test_a_description_is_read_as_it_was_written(written: Description) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        bundle_files(folder)
        written.write(folder, frozenset({"README.md"}))
        found = Description.read(folder)
        files = {file: sha256_of(folder / file) for file in (GRAPH, TOKENIZER)}
    for field in fields(Description):
        if field.name != "files":
            assert getattr(found, field.name) == getattr(written, field.name), field.name
    assert found == replace(written, files=files)
    assert found.calibration_digest == written.calibration_digest


@settings(max_examples=example_count(100), deadline=None)
@given(written=descriptions(), value=VALUES, data=st.data())
def test_any_value_in_any_field_is_read_or_is_a_model_error(
    written: Description, value: object, data: st.DataObject
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        bundle_files(folder)
        written.write(folder)
        content = json.loads((folder / "nerd.json").read_text("utf-8"))
        key = data.draw(st.sampled_from(sorted(content)))
        content[key] = value
        (folder / "nerd.json").write_text(json.dumps(content), "utf-8")
        err = refusal(folder)
        assert err is None or err.reason in {"other-format-version", "no-fingerprint", "bad-description"}
        assert err is None or err.fields["file"] == str(folder / "nerd.json")


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "missing-file"), (b"{", "not-json"), (b"\xff", "not-json"), (b"[]", "not-object")]
)
def test_what_is_no_json_object_has_its_reason(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "nerd.json").write_bytes(content)
    with fails(ModelError, reason, file=tmp_path / "nerd.json"):
        Description.read(tmp_path)
