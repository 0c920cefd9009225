"""The fingerprint of texts depends on the texts alone, and each other text changes it."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from nerd_onnx.durability.fingerprints import texts_fingerprint

TEXTS = st.lists(st.none() | st.text(max_size=5), max_size=6)


def stored_otherwise(texts: list[str | None]) -> list[pa.Array]:
    """Return the texts in other layouts of Arrow: large offsets, a slice, and nulls that have bytes."""
    around = pa.array(["x", None, *texts, "ä"], pa.string())
    filled = pa.array([text if text is not None else "gone" for text in texts], pa.string())
    present = pa.array([text is not None for text in texts], pa.bool_())
    with_bytes = pa.Array.from_buffers(pa.string(), len(texts), [present.buffers()[1], *filled.buffers()[1:]])
    return [pa.array(texts, pa.large_string()), around.slice(2, len(texts)), with_bytes]


@given(TEXTS)
def test_how_arrow_stores_texts_makes_no_difference(texts: list[str | None]) -> None:
    expected = texts_fingerprint(pa.array(texts, pa.string()))
    for stored in stored_otherwise(texts):
        assert stored.to_pylist() == texts
        assert texts_fingerprint(stored) == expected


@given(TEXTS, TEXTS)
def test_other_texts_have_another_fingerprint(texts: list[str | None], others: list[str | None]) -> None:
    same = texts_fingerprint(pa.array(texts, pa.string())) == texts_fingerprint(pa.array(others, pa.string()))
    assert same == (texts == others)


def test_a_border_that_moves_between_texts_is_a_change() -> None:
    found = {texts_fingerprint(pa.array(texts)) for texts in (["ab", "c"], ["a", "bc"], ["abc", ""], ["abc", None])}
    assert len(found) == 4
