"""JSON files of a model that anybody may have written: they are read, or the error names the field."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nerd_onnx.errors import ModelError, NerdError
from nerd_onnx.inference.bundle import DEFAULT_FOLDER
from nerd_onnx.inference.description import DESCRIPTION, Description
from nerd_onnx.inference.json_object import read_json
from tests.conftest import ROOT
from tests.support.failures import fails
from tests.support.profiles import example_count
from tests.support.quick_tagger import quick_tagger

MODELS = ROOT / "tests/data/models"
PLAIN, DESCRIBED, DEFAULT = MODELS / "plain", MODELS / "int8", DEFAULT_FOLDER
HOSTILE: list[Any] = [
    *(None, True, False, 0, -1, 1, 3, 128, 1 << 63, -(1 << 64), 10**400, 0.5, -0.0, 1e308, 5e-324),
    *(
        float("nan"),
        float("inf"),
        -float("inf"),
        "",
        "O",
        "nan",
        "1e999",
        "\0",
        "\ud800",
        "/etc/passwd",
        "../x",
        "x" * 5000,
    ),
    *([], [[]], [None], ["O", "O"], [0], {}, {"": None}, {"0": "O"}, {"x": {"sha256": "y"}}, {"method": []}),
]
VALUES = st.sampled_from(HOSTILE) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
Place = tuple[str | int, ...]


def places(value: Any, above: Place = ()) -> Iterator[Place]:
    """Yield the place of each value in a JSON value, at all depths."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*above, key)
        yield from places(inner, (*above, key))


def changed(content: dict[str, Any], place: Place, value: Any) -> str:
    """Return a JSON text in which one value is replaced."""
    content = copy.deepcopy(content)
    inner: Any = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return json.dumps(content)


def content_of(folder: Path, name: str) -> dict[str, Any]:
    return dict(read_json(folder / name).content)


def changes(folder: Path, name: str) -> st.SearchStrategy[str]:
    content = content_of(folder, name)
    return st.builds(lambda place, value: changed(content, place, value), st.sampled_from([*places(content)]), VALUES)


def assert_names_the_field(err: ModelError, file: Path) -> None:
    assert len(str(err)) < 2100
    assert err.fields["file"] == str(file)
    if err.reason == "bad-description":
        assert err.fields["field"]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a copy of each model."""
    folder = tmp_path_factory.mktemp("models")
    for model in (PLAIN, DESCRIBED):
        shutil.copytree(model, folder / model.name)
    return folder


@given(text=changes(DEFAULT, DESCRIPTION))
@settings(max_examples=example_count(150), deadline=None)
def test_any_value_of_a_description_is_read_or_named(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / DESCRIPTION).write_text(text, "utf-8")
    try:
        description = Description.read(folder)
    except ModelError as err:
        assert_names_the_field(err, folder / DESCRIPTION)
    else:
        assert description.score_calibration() is not None or description.calibration is None


def tag_or_fail(model: Path) -> None:
    """Tag with a model, or fail with an error of this project."""
    with suppress(NerdError), closing(quick_tagger(model)) as tagger:
        assert len(tagger.tag(["Anna Smith lives in Paris.", ""])) == 2


@given(text=changes(DESCRIBED, DESCRIPTION))
@settings(max_examples=example_count(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_model_with_any_value_in_its_description_tags_or_is_refused(text: str, scratch: Path) -> None:
    (scratch / "int8" / DESCRIPTION).write_text(text, "utf-8")
    tag_or_fail(scratch / "int8")


@given(
    config=changes(PLAIN, "config.json"),
    tokenizer_config=changes(PLAIN, "tokenizer_config.json"),
    special=changes(PLAIN, "special_tokens_map.json"),
)
@settings(max_examples=example_count(60), deadline=None)
def test_a_plain_model_with_any_value_tags_or_is_refused(
    config: str, tokenizer_config: str, special: str, scratch: Path
) -> None:
    (scratch / "plain" / "config.json").write_text(config, "utf-8")
    (scratch / "plain" / "tokenizer_config.json").write_text(tokenizer_config, "utf-8")
    (scratch / "plain" / "special_tokens_map.json").write_text(special, "utf-8")
    tag_or_fail(scratch / "plain")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"segment_tokens": 48', '"segment_tokens": Infinity', "segment_tokens"),
        ('"segment_tokens": 48', '"segment_tokens": 1e400', "segment_tokens"),
        ('"segment_tokens": 48', '"segment_tokens": 1' + "0" * 400, "segment_tokens"),
        ('"segment_tokens": 48', '"segment_tokens": 48, "segment_tokens": 49', "'segment_tokens'"),
        ('"opset": 20', '"opset": true', "opset"),
        ('"metrics": {}', '"metrics": {"test": {"f1": NaN}}', "metrics.test.f1"),
        ('"metrics": {}', '"metrics": []', "metrics"),
        ('"metrics": {}', '"metrics": {"a": ' + "[" * 200 + "]" * 200 + "}", "metrics.a" + "[0]" * 99),
        ('"scheme": "IO"', '"scheme": "XY"', "scheme"),
        ('"O",', '"",', "labels[0]"),
        ('"O",', '"\\ud800",', "labels[0]"),
        ('"O",', '"person-actor",', "labels"),
        ('"location-GPE": "location"', '"location-GPE": 7', "coarse.location-GPE"),
    ],
)
def test_a_bad_field_of_a_description_is_named(old: str, new: str, field: str, tmp_path: Path) -> None:
    text = (DESCRIBED / DESCRIPTION).read_text("utf-8")
    assert old in text
    (tmp_path / DESCRIPTION).write_text(text.replace(old, new, 1), "utf-8")
    with fails(ModelError, "bad-description", file=tmp_path / DESCRIPTION, field=field):
        Description.read(tmp_path)


@pytest.mark.parametrize(
    ("changes_of", "field"),
    [
        ({"max_position_embeddings": "512"}, "max_position_embeddings"),
        ({"max_position_embeddings": 10**400}, "max_position_embeddings"),
        ({"model_type": ["roberta"]}, "model_type"),
        ({"model_type": "roberta", "pad_token_id": 1.5}, "pad_token_id"),
        ({"letter_case": "yes"}, "letter_case"),
        ({"id2label": {"0": "O", "1": None}}, "id2label.1"),
        ({"id2label": {"0": "O", "1": ["a"]}}, "id2label.1"),
    ],
)
def test_a_bad_field_of_a_configuration_is_named(changes_of: dict[str, Any], field: str, tmp_path: Path) -> None:
    model = Path(shutil.copytree(PLAIN, tmp_path / "plain"))
    (model / "config.json").write_text(json.dumps(content_of(PLAIN, "config.json") | changes_of), "utf-8")
    with fails(ModelError, "bad-description", field=field):
        quick_tagger(model)


@pytest.mark.slow
def test_300_000_labels_make_a_short_message(tmp_path: Path) -> None:
    model = Path(shutil.copytree(PLAIN, tmp_path / "plain"))
    names = {str(2 * i): f"label-{i}" for i in range(300_000)}
    (model / "config.json").write_text(json.dumps({"id2label": names}), "utf-8")
    with fails(ModelError, "bad-labels") as caught:
        quick_tagger(model)
    assert len(str(caught.value)) < 2100
    assert "characters left out" in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "null", "{", '{"a": 1}x', "\ufeff{}", "[" * 100_000, "9" * 5000])
def test_what_is_no_json_object_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content, "utf-8")
    with fails(ModelError, "not-object" if content in ("[]", "null") else "not-json"):
        read_json(tmp_path / "config.json")
