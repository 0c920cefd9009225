"""Words of tokenizers whose pre-tokenizer does not split at punctuation: SentencePiece, byte-level ones, and none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from nerd_onnx.inference.encoding import TextEncoder
from nerd_onnx.inference.words import JOINED as PATTERN
from nerd_onnx.inference.words import joined_matches, joined_words, split_at_borders
from tests.support.models import sample_texts, train_tokenizer
from tests.support.profiles import example_count


@pytest.fixture(scope="module", params=["metaspace", "whole", "bytes"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    file: Path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    special = ["<s>", "</s>", "<unk>"]
    if request.param == "bytes":  # as ModernBERT: byte-level BPE, offsets with the space before a word
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    else:  # as XLM-R and DeBERTa-v3, with and without a split at white space
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=600, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    tokenizer.train_from_iterator(sample_texts(), trainer)
    if request.param == "whole":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    ids = [(token, tokenizer.token_to_id(token)) for token in special[:2]]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    tokenizer.save(str(file))
    assert json.loads(file.read_text("utf-8"))["truncation"] is None
    return TextEncoder(file)


def words_of(encoder: TextEncoder, text: str) -> list[str]:
    encoded = encoder.encode([text])
    return [text[s:e] for s, e in zip(encoded.word_start, encoded.word_end, strict=True)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("in Paris, and London.", ["in", "Paris", ",", "and", "London", "."]),
        ('the "army" of (the state)', ["the", '"', "army", '"', "of", "(", "the", "state", ")"]),
        ("the\n war", ["the", "war"]),
        ("  ", []),
    ],
)
def test_words_end_at_white_space_and_punctuation(encoder: TextEncoder, text: str, words: list[str]) -> None:
    assert words_of(encoder, text) == words


@given(st.text(alphabet="ab .,\n(\u00e9\u6771\u4eac\U0001f642", max_size=40))
@settings(deadline=None)
def test_words_are_in_order_and_without_white_space_at_their_ends(encoder: TextEncoder, text: str) -> None:
    words = words_of(encoder, text)
    assert all(word and word == word.strip() for word in words)
    encoded = encoder.encode([text, text])
    half = encoded.text_words[1]
    assert encoded.word_start[:half].tolist() == encoded.word_start[half:].tolist()
    assert (encoded.word_start[1:half] >= encoded.word_end[: half - 1]).all()


def test_a_lone_space_token_is_the_first_of_its_word() -> None:
    """SentencePiece and byte-level tokenizers put a space before rare words as a token of its own."""
    texts = ["a ", "", "rare words", " x"]
    offsets = np.array([[0, 1], [1, 2], [0, 4], [4, 5], [5, 8], [8, 10], [0, 1], [1, 2]])
    text_tokens = np.array([0, 2, 2, 6, 8])
    pre_tokens = np.array([0, 1, 0, 1, 1, 1, 0, 0])
    found, opens = split_at_borders(texts, offsets, text_tokens, pre_tokens)
    assert opens.tolist() == [False, False, True, True, False, False, True, False]  # the first text opens by itself
    assert found[3].tolist() == [5, 5]
    assert found[6].tolist() == [1, 1]
    _, apart = split_at_borders(texts, offsets, text_tokens, np.arange(8))
    assert apart.tolist() == [False, False, True, False, True, False, False, True]


def test_tokens_of_a_tokenizer_that_splits_at_spaces_only() -> None:
    """The example in the docstring of the function."""
    offsets = np.array([(0, 1), (1, 5), (5, 6), (6, 8), (8, 9), (9, 12)])
    found, opens = split_at_borders(["I met Jo, ok"], offsets, np.array([0, 6]), np.array([0, 1, 2, 2, 2, 3]))
    assert found.tolist() == [[0, 1], [2, 5], [6, 6], [6, 8], [8, 9], [10, 12]]
    assert opens.tolist() == [False, True, True, False, True, True]


def test_joined_words_end_where_their_last_word_ends() -> None:
    """The example in the docstring of the function."""
    opens, ends = joined_words(["AT&T, ok"], np.array([0, 2, 3, 4, 6]), np.array([2, 3, 4, 5, 8]), np.array([0, 5]))
    assert opens.tolist() == [True, False, False, True, True]
    assert ends.tolist() == [4, 5, 8]


JOINED = [
    ("in Saint-Pierre.", ["in", "Saint-Pierre", "."]),
    ("the U.S. army, M.D.", ["the", "U.S.", "army", ",", "M.D."]),
    ("Biwi No.1 (AT&T) won.", ["Biwi", "No.1", "(", "AT&T", ")", "won", "."]),
    ("C-rich/G-poor", ["C-rich/G-poor"]),
    ("a steven_noble b", ["a", "steven_noble", "b"]),
    ("no - dash, no--dash- or -x", ["no", "-", "dash", ",", "no", "-", "-", "dash", "-", "or", "-", "x"]),
    ("Reagan's don't", ["Reagan", "'", "s", "don", "'", "t"]),
    ("I. The end. B. Next", ["I", ".", "The", "end", ".", "B", ".", "Next"]),
    ("東京-大阪", ["東京-大阪"]),
    ("New York-based, TGF-b-induced", ["New", "York", "-based", ",", "TGF-b", "-induced"]),
    ("Spanish-language x-style film-making", ["Spanish", "-language", "x", "-style", "film", "-making"]),
    ("The Ex-Based, Bo-ed B-basedness", ["The", "Ex-Based", ",", "Bo-ed", "B-basedness"]),
    ("a U.S.-led St.-born", ["a", "U.S.", "-led", "St", ".", "-born"]),
    # Only a space is missing behind the full stop of a sentence.
    ("Angela Merkel.She was", ["Angela", "Merkel", ".", "She", "was"]),
    ("the NATO.The army", ["the", "NATO", ".", "The", "army"]),
    ("in 1990.Merkel", ["in", "1990", ".", "Merkel"]),
    ("in Berlin.I was", ["in", "Berlin", ".", "I", "was"]),
    ("Saint-Pierre.Élan", ["Saint-Pierre", ".", "Élan"]),
    ("No.1 Node.js example.com", ["No.1", "Node.js", "example.com"]),
    ("J.Smith J.K.Rowling U.S.Army", ["J.Smith", "J.K.", "Rowling", "U.S.", "Army"]),
    ("ASP.Net Amazon.Com Ph.D", ["ASP.Net", "Amazon.Com", "Ph.D"]),
    # A slash between two names is a list.
    ("John Lennon/Paul McCartney", ["John", "Lennon", "/", "Paul", "McCartney"]),
    ("Paris/London/New York", ["Paris", "/", "London", "/", "New", "York"]),
    ("Microsoft/IBM, AC/DC, TCP/IP", ["Microsoft", "/", "IBM", ",", "AC/DC", ",", "TCP/IP"]),
    ("and/or km/h", ["and/or", "km/h"]),
    ("-based --led", ["-", "based", "-", "-", "led"]),
    ("", []),
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    train_tokenizer(folder, "bert")
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def pretokens(bert: Path) -> TextEncoder:
    return TextEncoder(bert)


@pytest.fixture(scope="module")
def treebank(bert: Path) -> TextEncoder:
    return TextEncoder(bert, "treebank")


@pytest.mark.parametrize(("text", "words"), JOINED)
def test_treebank_words_are_what_people_write_together(treebank: TextEncoder, text: str, words: list[str]) -> None:
    assert words_of(treebank, text) == words


def test_joined_words_are_decided_by_the_first_of_them_whatever_stands_beside(
    treebank: TextEncoder, pretokens: TextEncoder
) -> None:
    texts = [text for text, _ in JOINED]
    together, own = treebank.encode(texts), pretokens.encode(texts)
    assert set(together.word_token.tolist()) <= set(own.word_token.tolist())
    np.testing.assert_array_equal(together.ids, own.ids)
    for i, (_, words) in enumerate(JOINED):
        first, last = together.text_words[i : i + 2]
        found = zip(together.word_start[first:last], together.word_end[first:last], strict=True)
        assert [texts[i][s:e] for s, e in found] == words


@settings(max_examples=example_count(300))
@given(st.lists(st.sampled_from([*"ab1東 .-_/&'\t\n\u2028", "-led", "U.S.", "-based"]), max_size=60).map("".join))
def test_matches_in_the_parts_with_signs_are_those_in_the_whole_text(text: str) -> None:
    found = [match.span() for match in joined_matches(text)]
    assert found == [match.span() for match in PATTERN.finditer(text)]


@given(st.lists(st.sampled_from([*"ab1東 .-_/&'é🙂\u0301", "-led", "ing"]), max_size=60).map("".join))
def test_joining_only_drops_borders_inside_words_without_white_space(
    treebank: TextEncoder, pretokens: TextEncoder, text: str
) -> None:
    small, large = pretokens.encode([text]), treebank.encode([text])
    assert set(large.word_start.tolist()) <= set(small.word_start.tolist())
    assert set(large.word_end.tolist()) <= set(small.word_end.tolist())
    assert (large.word_start[1:] >= large.word_end[:-1]).all()
    for start, end in zip(large.word_start, large.word_end, strict=True):
        inside = (small.word_start >= start) & (small.word_end <= end)
        assert inside.any()
        assert inside.sum() == 1 or not any(map(str.isspace, text[start:end]))


def test_no_text_is_one_word(treebank: TextEncoder) -> None:
    words = words_of(treebank, "a." * 5000)
    assert len(words) > 200
    assert "".join(words) == "a." * 5000


def test_a_long_run_of_letters_costs_its_length(treebank: TextEncoder) -> None:
    """Backtracking over it would take hours; the letters between two signs stay a word."""
    text = (
        "0f" * 100_000
        + " Saint-Pierre Ab."
        + "Ab" * 40_000
        + "/Ab "
        + "ab-" * 40_000
        + " x-"
        + "ing" * 40_000
        + "-led" * 20_000
    )
    words = words_of(treebank, text)
    assert words[:5] == ["0f" * 100_000, "Saint-Pierre", "Ab", ".", "Ab" * 40_000]
    assert "".join(words) == text.replace(" ", "")
