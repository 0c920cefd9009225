"""The default model on everyday text: missing spaces, lists, emoji, pages, ligatures."""

from __future__ import annotations

import pytest

from nerd_onnx import Tagger


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    return Tagger.load()


NAMES = ["Angela Merkel", "Barack Obama", "Emmanuel Macron", "Boris Johnson", "Joe Biden"]
LIST = "\n".join(NAMES * 20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("We met Angela Merkel.She was born in Hamburg.", ["Angela Merkel", "Hamburg"]),
        ("John Lennon/Paul McCartney wrote it.", ["John Lennon", "Paul McCartney"]),
        ("They flew to Paris/London/New York today.", ["Paris", "London", "New York"]),
        ("I met Maria&nbsp;Schmidt in Berlin.", ["Maria&nbsp;Schmidt", "Berlin"]),
        ("He comes from Saint-Pierre.", ["Saint-Pierre"]),
        (LIST, NAMES * 20),
        ("Speakers:\n" + "\n".join(NAMES[:4]), NAMES[:4]),
        ("Speakers: " + "\r\n".join(NAMES[:4]), NAMES[:4]),
        ("He lives in New\nYork City and works there.", ["New\nYork City"]),
        ("He lives in New\nYork City", ["New\nYork City"]),
        (
            "We flew to Berlin\U0001f600 and met Angela Merkel\U0001f44d\U0001f3fd in Paris\U0001f1e9\U0001f1ea.",
            ["Berlin", "Angela Merkel", "Paris"],
        ),
        ("He met Angela Merkel\fBerlin is the capital of Germany.", ["Angela Merkel", "Berlin", "Germany"]),
        ("He met Angela\u200bMerkel in Berlin.", ["Angela\u200bMerkel", "Berlin"]),
        ("The o\ufb03ce in She\ufb03eld, and Angela Mer\ufb02 came.", ["She\ufb03eld", "Angela Mer\ufb02"]),
    ],
)
def test_names_are_found(tagger: Tagger, text: str, expected: list[str]) -> None:
    (found,) = tagger.tag([text])
    assert found is not None
    assert [entity.text for entity in found] == expected
    assert all(text[entity.start : entity.end] == entity.text for entity in found)


def test_a_symbol_behind_a_name_changes_nothing_but_places(tagger: Tagger) -> None:
    """A symbol has the effect that it has with a space before it, to the last bit."""
    for symbol in ["\U0001f600", "\u2122", "\u2192", "\u00b9", "\u2764\ufe0f"]:
        pair = tagger.tag([f"In Berlin{symbol} he met Angela Merkel.", f"In Berlin {symbol} he met Angela Merkel."])
        glued, spaced = ([(e.text, e.label, e.score) for e in found or []] for found in pair)
        assert glued == spaced
        assert "Berlin" in [text for text, *_ in glued]
