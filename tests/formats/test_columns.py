"""Entities as a column: offsets slice back in every unit, null stays null, the schema says what is in it."""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.formats import columns
from nerd_onnx.formats.columns import (
    OffsetUnit,
    add_column,
    entities_array,
    entities_type,
    schema_metadata,
    text_values,
)
from tests.support.failures import fails

LABELS = ["person", "location"]
FINE_LABELS = ["person-actor", "location-park"]
TEXTS = st.text(
    st.characters(codec="utf-8") | st.sampled_from("a é😀\u0301\u200d\U0001d518\u0627中\r\n\0"), max_size=30
)


@st.composite
def tagged_texts(draw: st.DrawFn) -> tuple[list[str | None], list[tuple[int, int, int]]]:
    """Texts, some of them null, and entities (row, start, end) in the order of their rows."""
    texts = draw(st.lists(st.none() | TEXTS, max_size=6))
    entities = []
    for row, text in enumerate(texts):
        if text:
            cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
            entities += [(row, start, end) for start, end in zip(cuts[::2], cuts[1::2], strict=False)]
    return texts, entities


def column_of(texts: list[str | None], entities: list[tuple[int, int, int]], **options: Any) -> pa.ListArray:
    row, start, end = np.array(entities, np.int64).reshape(-1, 3).T
    label = np.arange(len(row)) % len(LABELS)
    score = np.linspace(0, 1, len(row), dtype=np.float32)
    return entities_array(texts, row=row, start=start, end=end, label=label, labels=LABELS, score=score, **options)


def unit_slice(text: str, start: int, end: int, unit: OffsetUnit) -> str:
    if unit == "codepoint":
        return text[start:end]
    if unit == "utf8":
        return text.encode()[start:end].decode()
    return text.encode("utf-16-le")[2 * start : 2 * end].decode("utf-16-le")


@given(tagged_texts(), st.sampled_from(["codepoint", "utf8", "utf16"]), st.integers(1, 40))
@settings(deadline=None)
def test_offsets_slice_back_in_every_unit(
    tagged: tuple[list[str | None], list[tuple[int, int, int]]], unit: OffsetUnit, window: int
) -> None:
    texts, entities = tagged
    with patch.multiple(columns, _WINDOW_CHARACTERS=window, _SLICES_AT_ONCE=window):
        column = column_of(texts, entities, unit=unit)
    column.validate(full=True)
    rows = column.to_pylist()
    assert [row is None for row in rows] == [text is None for text in texts]
    found = [(i, entity) for i, row in enumerate(rows) for entity in row or ()]
    assert len(found) == len(entities)
    for (i, entity), (row_number, start, end) in zip(found, entities, strict=True):
        text = texts[i] or ""
        assert i == row_number
        assert entity["text"] == text[start:end] == unit_slice(text, entity["start"], entity["end"], unit)


def test_values_and_types() -> None:
    column = column_of(["ab", None, ""], [(0, 0, 1), (0, 1, 2)], fine=np.array([1, -1]), fine_labels=FINE_LABELS)
    assert column.type.equals(entities_type(with_fine=True), check_metadata=True)
    first = {"start": 0, "end": 1, "label": "person", "fine_label": "location-park", "score": 0.0, "text": "a"}
    second = {"start": 1, "end": 2, "label": "location", "fine_label": None, "score": 1.0, "text": "b"}
    assert column.to_pylist() == [[first, second], None, []]


def test_type_is_the_documented_one() -> None:
    expected = "list<element: struct<start: int32, end: int32, label: string, score: float, text: string>>"
    assert str(entities_type(with_fine=False)) == expected


def test_no_texts_at_all() -> None:
    assert column_of([], []).equals(pa.array([], entities_type(with_fine=False)))


@pytest.mark.parametrize("unit", ["codepoint", "utf8", "utf16"])
def test_long_texts_cost_linear_time(unit: OffsetUnit) -> None:
    text = "naïve 😀 text " * 150_000
    entities = [(0, i * 40, i * 40 + 6) for i in range(48_000)]
    begin = time.perf_counter()
    column = column_of([text], entities, unit=unit)
    assert time.perf_counter() - begin < 5
    last = column[0].as_py()[-1]
    assert last["text"] == text[entities[-1][1] : entities[-1][2]]


def test_programming_errors_are_raised() -> None:
    with pytest.raises(ValueError, match="order of their rows"):
        column_of(["ab", "cd"], [(1, 0, 1), (0, 0, 1)])
    with pytest.raises(ValueError, match="without text"):
        column_of([None], [(0, 0, 1)])


def test_offsets_past_32_bits_are_refused() -> None:
    with fails(InputError, "text-too-long", maximum=2**31 - 1):
        column_of(["ab"], [(0, 2**31, 2**31 + 1)])


def test_metadata_is_under_the_columns_name() -> None:
    said = schema_metadata("who", offset_unit="utf8", model_sha256="ab12")
    assert said == {"nerd_onnx.who.offset_unit": "utf8", "nerd_onnx.who.model_sha256": "ab12"}


@pytest.fixture
def batch() -> pa.RecordBatch:
    schema = pa.schema([pa.field("text", pa.string_view(), metadata={"k": "v"}), ("n", pa.int8())], {"own": "1"})
    return pa.RecordBatch.from_arrays(
        [pa.array(["a", None], pa.string_view()), pa.array([1, 2], pa.int8())], schema=schema
    )


def test_add_column_keeps_all_else(batch: pa.RecordBatch) -> None:
    column = pa.array([1.5, 2.5])
    added = add_column(batch, pa.field("x", pa.float64()), column, {"new": "2"}, replace=False)
    assert added.schema.names == ["text", "n", "x"]
    assert added.schema.metadata == {b"own": b"1", b"new": b"2"}
    assert added.schema.field("text").metadata == {b"k": b"v"}
    assert added.column("x").equals(column)
    replaced = add_column(batch, pa.field("text", pa.float64()), column, {}, replace=True)
    assert replaced.schema.names == ["text", "n"]
    assert replaced.column(0).equals(column)


def test_add_column_refuses_to_replace_unasked(batch: pa.RecordBatch) -> None:
    with fails(OutputError, "column-exists", column="n"):
        add_column(batch, pa.field("n", pa.float64()), pa.array([1.5, 2.5]), {}, replace=False)


def test_add_column_refuses_to_choose_between_two() -> None:
    twice = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])
    with fails(OutputError, "column-ambiguous", column="n", found=2):
        add_column(twice, pa.field("n", pa.float64()), pa.array([1.5]), {}, replace=True)


def test_text_values(batch: pa.RecordBatch) -> None:
    assert text_values(batch, "text") == ["a", None]
    with fails(InputError, "not-text", column="n", found="int8"):
        text_values(batch, "n")
    with fails(InputError, "column-missing", column="body", found="text, n"):
        text_values(batch, "body")


def test_text_values_names_the_row_of_bad_utf8() -> None:
    offsets = pa.py_buffer(np.array([0, 1, 2, 3], np.int32))
    column = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"ab\xff")])
    with fails(InputError, "not-utf8", row=2, column="text"):
        text_values(pa.RecordBatch.from_arrays([column], names=["text"]), "text")
