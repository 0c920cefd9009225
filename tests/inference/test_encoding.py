"""Offsets point into the original text, for every script and sign; given words keep their numbers."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.errors import ModelError
from nerd_onnx.inference.encoding import TextEncoder, word_ranges
from tests.support.failures import fails
from tests.support.models import train_tokenizer
from tests.support.profiles import example_count


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder, "bert")
    return TextEncoder(folder / "tokenizer.json")


def words_of(encoder: TextEncoder, text: str) -> list[str]:
    encoded = encoder.encode([text])
    return [text[s:e] for s, e in zip(encoded.word_start, encoded.word_end, strict=True)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("U.S. troops", ["U", ".", "S", ".", "troops"]),
        ("a\r\nb  \u00a0c", ["a", "b", "c"]),
        ("Bar\u200back", ["Bar", "ack"]),
        ("cafe\u0301 x", ["cafe", "x"]),
        ("東京x", ["東", "京", "x"]),
        ("a\x00b\x1bc", ["a", "b", "c"]),
        ("שלום עולם", ["שלום", "עולם"]),
        ("\ud800Paris", ["Paris"]),
        ("", []),
        (" \u200b\n", []),
    ],
)
def test_words_are_slices_of_the_text(encoder: TextEncoder, text: str, words: list[str]) -> None:
    assert words_of(encoder, text) == words


@given(st.text(max_size=60))
@settings(max_examples=example_count(300), deadline=None)
def test_words_are_in_order_and_hold_every_letter(encoder: TextEncoder, text: str) -> None:
    encoded = encoder.encode([text])
    assert (encoded.word_start < encoded.word_end).all()
    assert (encoded.word_start[1:] >= encoded.word_end[:-1]).all()
    assert not len(encoded.word_end) or encoded.word_end[-1] <= len(text)
    covered = {i for s, e in zip(encoded.word_start, encoded.word_end, strict=True) for i in range(s, e)}
    letters = {
        i
        for i, char in enumerate(text)
        if unicodedata.category(char)[0] == "L" and unicodedata.decomposition(char) == ""
    }
    assert letters <= covered


def test_truncation_and_padding_in_the_file_are_switched_off(encoder: TextEncoder) -> None:
    encoded = encoder.encode(["the war " * 500, "the"])
    assert int(np.diff(encoded.text_tokens)[0]) >= 1000
    assert int(np.diff(encoded.text_tokens)[1]) == 1


def test_texts_do_not_change_each_other(encoder: TextEncoder) -> None:
    texts = ["The army", "", "of Paris .", "\ud83d\ude42"]
    together = encoder.encode(texts)
    for i, text in enumerate(texts):
        alone = encoder.encode([text])
        part = slice(together.text_tokens[i], together.text_tokens[i + 1])
        np.testing.assert_array_equal(together.ids[part], alone.ids)
        assert together.text_words[i + 1] - together.text_words[i] == len(alone.word_token)


@given(st.lists(st.text(alphabet="ab.-'é\u0301\u200b東", min_size=1, max_size=6), max_size=12))
@settings(deadline=None)
def test_given_words_are_decided_by_their_first_token(encoder: TextEncoder, words: list[str]) -> None:
    text = " ".join(words)
    encoded = encoder.encode([text])
    given_words = encoded.with_words([word_ranges(words)])
    for token, number in zip(given_words.word_token, given_words.word_start, strict=True):
        begin, end = word_ranges(words)[number]
        assert begin < encoded.token_end[token] <= end
        assert token == 0 or encoded.token_end[token - 1] <= begin
    assert (np.diff(given_words.word_start) > 0).all()


def test_a_damaged_tokenizer_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with fails(ModelError, "unreadable-tokenizer"):
        TextEncoder(tmp_path / "tokenizer.json")
