"""Fingerprints: that of texts depends on the texts alone, and each other text changes it; a signal ends a long one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerd_onnx import interruption
from nerd_onnx.durability.fingerprints import content_sha256, texts_fingerprint
from nerd_onnx.errors import InterruptedRunError
from nerd_onnx.storage.location import Location

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


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that send signals")
def test_a_signal_ends_the_hashing_of_a_large_file(tmp_path: Path) -> None:
    interruption.begin()
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, 1 << 40)  # zeros that take no place, and hours to read

    before = signal.signal(signal.SIGALRM, lambda number, _: interruption.signalled(number))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(InterruptedRunError):
            content_sha256(Location(str(large)))
    finally:
        signal.signal(signal.SIGALRM, before)
        interruption.begin()
