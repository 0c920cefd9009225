"""Words to training features, and treebank words to plain text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerd_export.data.checks import Sentence
from nerd_export.data.examples import Example
from nerd_export.data.plain_text import plain_text
from nerd_export.training.features import IGNORED, encode

IDS = {"O": 0, "person": 1, "location": 2}


@pytest.mark.parametrize("every_pretoken", [True, False])
def test_tags_stand_on_first_pieces(checkpoint: Callable[[str], Path], *, every_pretoken: bool) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint("bert"))
    sentence = Sentence(
        ("U.S.", "people", "unbelievably", "\u200b", "Rome"), ("location", "O", "person", "O", "location")
    )
    features = encode([Example.of_words(sentence)], tokenizer, IDS, 64, every_pretoken=every_pretoken)
    data, lost = features.dataset, features.lost
    pieces = tokenizer.convert_ids_to_tokens(data[0]["input_ids"])
    labelled = [(p, label) for p, label in zip(pieces, data[0]["labels"], strict=True) if label != IGNORED]
    firsts = [("u", 2), (".", 2), ("s", 2), (".", 2)] if every_pretoken else [("u", 2)]
    assert labelled[: len(firsts)] == firsts
    assert [label for _, label in labelled[len(firsts) :]] == [0, 1, 2]
    assert not any(p.startswith("##") for p, _ in labelled)
    assert lost == 1  # the zero-width word has no piece
    assert data[0]["length"] == len(pieces)


def test_words_beyond_the_limit_are_counted(checkpoint: Callable[[str], Path]) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint("bert"))
    sentence = Sentence(("the",) * 30, ("O",) * 30)
    features = encode([Example.of_words(sentence)], tokenizer, IDS, 12, every_pretoken=True)
    assert len(features.dataset[0]["input_ids"]) == 12
    assert features.lost == 20


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("It 's `` Time Out '' ( 1983 ) .", 'It\'s "Time Out" (1983).'),
        ("He lost $ 5 , or 3 % ; why ?", "He lost $5, or 3%; why?"),
        ("They do n't know the Reds ' coach .", "They don't know the Reds' coach."),
        ("-LRB- Oslo -RRB-", "(Oslo)"),
        ("The `` Zanoni `` novel", 'The "Zanoni" novel'),
        ("New York -based firms", "New York-based firms"),
        ("", ""),
    ],
)
def test_plain_text_reads_as_people_write(words: str, text: str) -> None:
    assert plain_text(words.split())[0] == text


@given(st.lists(st.text(alphabet="ab.,'\"`()-$é東", min_size=1, max_size=4), max_size=20))
def test_plain_text_knows_the_place_of_every_word(words: list[str]) -> None:
    text, spans = plain_text(words)
    shown = ['"' if w in ("``", "''") else w for w in words]
    assert [text[b:e] for b, e in spans] == shown
    assert "".join(text.split()) == "".join(shown)
    assert text == text.strip()
    assert "  " not in text
