"""Lines, tabs and symbols of a text set borders of entities; texts beside each other do not."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.inference.arrays import Ints
from nerd_onnx.inference.text_borders import TextBorders, text_borders
from nerd_onnx.inference.tokenizer_input import read
from tests.support.profiles import example_count


def words_in(texts: list[str]) -> tuple[Ints, Ints, Ints]:
    """Return start and end of each word, and the first word of each text."""
    found = [[match.span() for match in re.finditer(r"[^\s:]+|:", text)] for text in texts]
    places = np.array([span for spans in found for span in spans], dtype=np.int64).reshape(-1, 2)
    return places[:, 0], places[:, 1], np.cumsum([0, *map(len, found)])


def borders_of(texts: list[str]) -> TextBorders | None:
    return text_borders([read(text, None) for text in texts], *words_in(texts))


def entities(texts: list[str]) -> list[list[str]]:
    """Return the entities where all words that begin with a capital are of one label."""
    start, end, text_words = words_in(texts)
    rows = np.repeat(np.arange(len(texts)), np.diff(text_words))
    names = [texts[row][s].isupper() for row, s in zip(rows, start, strict=True)]
    word = np.flatnonzero(names)
    borders = text_borders([read(text, None) for text in texts], start, end, text_words)
    cut = set(text_words.tolist())
    if borders is not None:
        cut |= set(np.flatnonzero(borders.separated).tolist())
        cut |= set(borders.separating_breaks(word, np.zeros_like(word))[0].tolist())

    found: list[list[str]] = [[] for _ in texts]
    before = -2
    for i in word.tolist():
        text = texts[rows[i]]
        if i != before + 1 or i in cut:
            begin = start[i]
            found[rows[i]].append("")
        found[rows[i]][-1] = text[begin : end[i]]
        before = i
    return found


CASES = [
    ("Angela Merkel\nBarack Obama\nJoe Biden", ["Angela Merkel", "Barack Obama", "Joe Biden"]),
    ("Angela Merkel\r\nBarack Obama", ["Angela Merkel", "Barack Obama"]),
    ("Speakers :\nAngela Merkel\nBarack Obama\n", ["Speakers", "Angela Merkel", "Barack Obama"]),
    ("speakers : Angela Merkel\nBarack Obama\nJoe Biden said", ["Angela Merkel", "Barack Obama", "Joe Biden"]),
    ("we met Angela Merkel\nBarack Obama\nJoe Biden", ["Angela Merkel", "Barack Obama", "Joe Biden"]),
    ("he lives in New\nYork City and", ["New\nYork City"]),
    ("he lives in New\r\nYork City and", ["New\r\nYork City"]),
    ("he lives in New\n  York City", ["New\n  York City"]),  # the last line
    ("Angela Merkel\nBarack Obama met", ["Angela Merkel", "Barack Obama"]),
    ("in Angela\tBarack Obama\tParis ok", ["Angela", "Barack Obama", "Paris"]),
    ("name\tAngela\nBarack is", ["Angela", "Barack"]),
    ("of New\n\nYork is", ["New", "York"]),
    ("of New\n \t\nYork is", ["New", "York"]),
    ("of the University\nOf California\nLos Angeles is", ["University", "Of California", "Los Angeles"]),
    ("\n\nNew York\n\n", ["New York"]),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_lines_and_tabs(text: str, expected: list[str]) -> None:
    assert entities([text]) == [expected]


def test_texts_beside_each_other_change_nothing() -> None:
    assert entities([text for text, _ in CASES]) == [expected for _, expected in CASES]
    assert entities(["in New", "\nYork is", "", "\tParis", "Paris"]) == [["New"], ["York"], [], ["Paris"], ["Paris"]]


PIECES = st.lists(st.sampled_from(["Ab", "Cd", "e", ":", " ", " ", "\n", "\r\n", "\t", "\n\n"]), max_size=25)


@given(st.lists(PIECES.map(" ".join), max_size=4))
@settings(max_examples=example_count(300), deadline=None)
def test_no_entity_crosses_two_line_breaks_or_a_tab(texts: list[str]) -> None:
    found = entities(texts)
    assert found == [entities([text])[0] for text in texts]
    for entity in (entity for row in found for entity in row):
        assert len(re.findall(r"\r\n|\n", entity)) <= 1
        assert "\t" not in entity


def test_ordinary_texts_have_no_borders() -> None:
    assert borders_of([]) is None
    assert borders_of(["", "Angela Merkel met: Barack Obama", "Zürich 東京"]) is None


def test_symbols_are_inside_and_not_at_the_ends() -> None:
    borders = borders_of(["\u2122 a \u2122 b \u2192 \u2122", "\u2122"])
    assert borders is not None
    assert borders.symbols.tolist() == [True, False, True, False, True, True, True]
    first, last = borders.without_symbols(np.array([0, 1, 2, 4, 6]), np.array([5, 3, 2, 5, 6]))
    assert list(zip(first[:2].tolist(), last[:2].tolist(), strict=True)) == [(1, 3), (1, 3)]
    assert (first[2:] > last[2:]).all()
