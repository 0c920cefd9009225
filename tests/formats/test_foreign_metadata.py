"""Spark, pandas and Avro learn of new columns through their own metadata; all other metadata stays as it is."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerd_onnx.formats.columns import entities_type
from nerd_onnx.formats.foreign_metadata import AVRO_KEYS, PANDAS_KEY, SPARK_KEY, updated_metadata
from tests.support.tables_io import JSON_VALUES

ENTITIES = pa.field("entities", entities_type(with_fine=True))
REASONS = pa.field("why", pa.string())
VALUE = [{"start": 0, "end": 3, "label": "person", "fine_label": None, "score": 0.5, "text": "Ada"}]
KNOWN_KEYS = (SPARK_KEY, PANDAS_KEY, *AVRO_KEYS)
# As StructType.json() of Spark writes it.
SPARK_ENTITIES = {
    "name": "entities",
    "type": {
        "type": "array",
        "elementType": {
            "type": "struct",
            "fields": [
                {"name": "start", "type": "integer", "nullable": True, "metadata": {}},
                {"name": "end", "type": "integer", "nullable": True, "metadata": {}},
                {"name": "label", "type": "string", "nullable": True, "metadata": {}},
                {"name": "fine_label", "type": "string", "nullable": True, "metadata": {}},
                {"name": "score", "type": "float", "nullable": True, "metadata": {}},
                {"name": "text", "type": "string", "nullable": True, "metadata": {}},
            ],
        },
        "containsNull": True,
    },
    "nullable": True,
    "metadata": {},
}


def spark_metadata(*names: str) -> dict[bytes, bytes]:
    fields = [{"name": name, "type": "long", "nullable": False, "metadata": {"comment": "é"}} for name in names]
    return {SPARK_KEY: json.dumps({"type": "struct", "fields": fields}).encode()}


def spark_fields(metadata: Mapping[bytes, bytes]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(metadata[SPARK_KEY])["fields"]
    return found


def test_spark_learns_of_a_new_column() -> None:
    before = spark_metadata("id", "text")
    found = spark_fields(updated_metadata(before, [ENTITIES, REASONS]))
    assert found[:2] == spark_fields(before)
    assert found[2] == SPARK_ENTITIES
    assert found[3] == {"name": "why", "type": "string", "nullable": True, "metadata": {}}


def test_spark_learns_the_new_type_of_a_replaced_column() -> None:
    found = spark_fields(updated_metadata(spark_metadata("id", "entities", "text"), [ENTITIES]))
    assert [field["name"] for field in found] == ["id", "entities", "text"]
    assert found[1] == SPARK_ENTITIES


FRAMES: dict[str, pd.DataFrame] = {
    "range index": pd.DataFrame({"text": ["Ada"], "n": pd.array([1], dtype="Int8")}),
    "named index": pd.DataFrame({"text": ["Ada"]}, index=pd.Index(["k"], name="id")),
    "index without a name": pd.DataFrame({"text": ["Ada"]}, index=pd.Index([7])),
    "index of two levels": pd.DataFrame(
        {"text": ["Ada"]}, index=pd.MultiIndex.from_tuples([("x", 1)], names=["a", "b"])
    ),
    "replaced column of another type": pd.DataFrame({"entities": pd.array([1], dtype="Int64"), "text": ["Ada"]}),
    "replaced category": pd.DataFrame({"entities": pd.Categorical(["x"]), "text": ["Ada"]}),
    "replaced index": pd.DataFrame({"text": ["Ada"]}, index=pd.Index(["k"], name="entities")),
    "columns of two levels": pd.DataFrame({("text", "a"): ["Ada"], ("n", "b"): [1]}),
    "columns named by numbers": pd.DataFrame({0: ["Ada"], 1: [1]}),
    "columns named by dates": pd.DataFrame({pd.Timestamp("2020-01-01"): ["Ada"]}),
}


def with_entities(table: pa.Table) -> pa.Table:
    """Return a table with the entities column, added or replaced, and metadata that says so."""
    column = pa.array([VALUE], ENTITIES.type)
    place = table.schema.get_field_index("entities")
    if place < 0:
        place = table.num_columns
        table = table.append_column(ENTITIES, column)
    else:
        table = table.set_column(place, ENTITIES, column)
    return table.replace_schema_metadata(updated_metadata(table.schema.metadata, [ENTITIES]))


@pytest.mark.parametrize("name", FRAMES)
def test_pandas_restores_index_and_types(name: str) -> None:
    frame = FRAMES[name]
    buffer = io.BytesIO()
    pq.write_table(with_entities(pa.Table.from_pandas(frame)), buffer)
    found = pd.read_parquet(buffer)
    label = ("entities", "") if frame.columns.nlevels > 1 else "entities"
    assert found[label].iloc[0].tolist() == VALUE

    if "entities" in frame.index.names:
        assert found.index.equals(pd.RangeIndex(1))
        return
    pd.testing.assert_index_equal(found.index, frame.index)
    # pandas turns labels of several kinds to text when it writes a file itself.
    kept = [column for column in frame.columns if column != label]
    texts = kept if isinstance(frame.columns, pd.MultiIndex) else [str(column) for column in kept]
    for before, after in zip(kept, texts, strict=True):
        pd.testing.assert_series_equal(found[after], frame[before], check_names=False)


def test_pandas_describes_columns_as_pandas_itself_would() -> None:
    """The metadata of a frame with entities, written by pandas, and that of one to which they were added, are equal."""
    frame = pd.DataFrame({"text": ["Ada"]}, index=pd.Index(["k"], name="id"))
    added = with_entities(pa.Table.from_pandas(frame))
    frame["entities"] = [np.array(VALUE, object)]
    itself = pa.Table.from_pandas(frame)
    assert json.loads(added.schema.metadata[PANDAS_KEY]) == json.loads(itself.schema.metadata[PANDAS_KEY])


@pytest.mark.parametrize("key", AVRO_KEYS)
def test_avro_learns_of_new_columns(key: bytes) -> None:
    parts = [part for part in ENTITIES.type.value_type if part.name != "label"]
    wide = [pa.field(name, pa.list_(pa.struct(parts))) for name in ("person", "place")]
    record = {"type": "record", "name": "Post", "namespace": "org", "fields": [{"name": "text", "type": "string"}]}
    found = json.loads(updated_metadata({key: json.dumps(record).encode()}, wide)[key])

    text, *added = found.pop("fields")
    assert found == {name: value for name, value in record.items() if name != "fields"}
    assert text == {"name": "text", "type": "string"}
    assert [field["name"] for field in added] == ["person", "place"]
    assert [field["default"] for field in added] == [None, None]
    items = [field["type"][1]["items"][1] for field in added]
    # A schema may define a name only once.
    assert len({(item["namespace"], item["name"]) for item in items}) == 2
    assert [(part["name"], part["type"]) for part in items[0]["fields"]] == [
        ("start", ["null", "int"]),
        ("end", ["null", "int"]),
        ("fine_label", ["null", "string"]),
        ("score", ["null", "float"]),
        ("text", ["null", "string"]),
    ]


def test_avro_schema_stays_where_the_name_is_none_in_avro() -> None:
    before = {AVRO_KEYS[0]: b'{"type": "record", "name": "Post", "fields": []}'}
    assert updated_metadata(before, [pa.field("art-film", pa.string())]) == before


@pytest.mark.parametrize("key", KNOWN_KEYS)
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"null",
        b"[1]",
        b'"struct"',
        b"{}",
        b'{"type": "map", "fields": []}',
        b'{"type": "struct", "fields": {}, "index_columns": [], "columns": null}',
        b'{"type": "struct", "fields": [1], "index_columns": [], "columns": [1]}',
        b'{"type": "struct", "fields": [], "index_columns": [], "columns": [], "x": 1e400}',
        b'{"type": "struct", "fields": [], "index_columns": [], "columns": [], "x": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
    ],
)
def test_metadata_of_another_kind_stays_as_it_is(key: bytes, value: bytes) -> None:
    assert updated_metadata({key: value}, [ENTITIES]) == {key: value}


@given(
    metadata=st.dictionaries(
        st.binary(max_size=6) | st.sampled_from(KNOWN_KEYS),
        st.binary(max_size=8) | JSON_VALUES.map(lambda value: json.dumps(value).encode()),
        max_size=5,
    )
)
def test_any_metadata_keeps_its_keys(metadata: dict[bytes, bytes]) -> None:
    found = updated_metadata(metadata, [ENTITIES])
    assert found.keys() == metadata.keys()
    assert {key: found[key] for key in metadata if key not in KNOWN_KEYS} == {
        key: value for key, value in metadata.items() if key not in KNOWN_KEYS
    }


@given(
    names=st.lists(st.text("ab(')é", min_size=1, max_size=4), min_size=1, max_size=4, unique=True),
    index=st.integers(0, 3),
    data=st.data(),
)
def test_any_frame_comes_back_with_one_column_more(names: list[str], index: int, data: st.DataObject) -> None:
    kinds = ["int8", "Int16", "float32", "boolean", "category", "datetime64[us]", "object"]
    frame = pd.DataFrame({name: pd.Series([None]).astype("object") for name in names})
    for name in names:
        kind = data.draw(st.sampled_from(kinds))
        frame[name] = pd.Series([1 if kind != "object" else "x"]).astype(kind)
    if 0 < index < len(names):
        frame = frame.set_index(names[:index])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = pa.Table.from_pandas(frame)
        found = with_entities(table).to_pandas()
    # pandas itself does not restore every index.
    expected = table.to_pandas()
    assert found.pop("entities").iloc[0].tolist() == VALUE
    pd.testing.assert_frame_equal(found, expected, check_column_type=False)


@given(metadata=st.dictionaries(st.binary(max_size=6), st.binary(max_size=6), max_size=3))
def test_metadata_without_new_columns_stays_as_it_is(metadata: dict[bytes, bytes]) -> None:
    whole = {**metadata, **spark_metadata("text")}
    assert updated_metadata(whole, []) == whole
