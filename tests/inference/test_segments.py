"""Long texts in segments: every word is decided once, no segment is too long, and cuts prefer sentence ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.inference.encoding import TextEncoder
from nerd_onnx.inference.segments import cut_segments, paragraphs, sentence_ends
from tests.support.models import sample_texts, train_tokenizer
from tests.support.profiles import example_count


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder, "bert")
    return TextEncoder(folder / "tokenizer.json")


WORDS = st.sampled_from(
    ["Paris", "a", ".", "wordpieces", "Dr.", "\n", "!", "東京", "  ", "incomprehensibilities" * 3, "🙂", '"']
)


@given(words=st.lists(WORDS, max_size=120), capacity=st.integers(2, 40))
@settings(max_examples=example_count(200), deadline=None)
def test_every_word_is_decided_exactly_once(encoder: TextEncoder, words: list[str], capacity: int) -> None:
    texts = [" ".join(words), "", "Short one."]
    encoded = encoder.encode(texts)
    segments = cut_segments(texts, encoded, capacity)
    assert ((segments.token_end - segments.token_begin) <= capacity).all()
    decided = np.concatenate(
        [np.arange(b, e) for b, e in zip(segments.word_begin, segments.word_end, strict=True)] or [np.empty(0, int)]
    )
    np.testing.assert_array_equal(np.sort(decided), np.arange(len(encoded.word_token)))
    first = encoded.word_token[segments.word_begin]
    last = encoded.word_token[segments.word_end - 1]
    assert (first >= segments.token_begin).all()
    assert (last < segments.token_end).all()


def test_cuts_stand_at_sentence_ends_where_they_fit(encoder: TextEncoder) -> None:
    text = "The army fought. The war was long. The people were free. The state was new."
    encoded = encoder.encode([text])
    segments = cut_segments([text], encoded, 12)
    ends = set(sentence_ends(text).tolist()) | {len(text)}
    assert len(segments.token_end) > 1
    assert {int(encoded.token_end[end - 1]) for end in segments.token_end} <= ends


def test_a_word_in_an_overlap_is_decided_further_from_the_edge(encoder: TextEncoder) -> None:
    text = "the " * 100
    encoded = encoder.encode([text])
    segments = cut_segments([text], encoded, 20)
    assert len(segments.token_begin) > 4
    for k in range(1, len(segments.token_begin)):
        border = int(encoded.word_token[segments.word_begin[k]])
        before = segments.token_end[k - 1] - border  # tokens to the right in the segment before
        after = border - segments.token_begin[k]  # tokens to the left in this one
        assert abs(int(before) - int(after)) <= 1


@given(st.text(alphabet="ab \n\r\t\f\x85\u2028", max_size=80), st.integers(4, 20))
@settings(deadline=None)
def test_paragraphs_lose_only_white_space(text: str, limit: int) -> None:
    ranges = list(paragraphs(text, limit))
    assert all(begin < end <= begin + limit for begin, end in ranges)
    covered = "".join(text[begin:end] for begin, end in ranges)
    assert "".join(covered.split()) == "".join(text.split())
    assert ranges == sorted(ranges)


@pytest.mark.parametrize("end", ["\f", "\n\f", "\f\n\f", "\x85", "\u2028", "\u2029"])
def test_pages_and_separators_end_a_paragraph(end: str) -> None:
    text = f"One page{end}Two"
    assert [text[b:e].strip() for b, e in paragraphs(text)] == ["One page", "Two"]


def test_paragraphs_split_at_blank_lines() -> None:
    text = "One\nline.\n\nTwo\r\n \r\nThree\r\nlines\rof it"
    assert [text[b:e] for b, e in paragraphs(text)] == ["One\nline.", "Two", "Three\r\nlines\rof it"]


def test_a_long_paragraph_is_cut_after_a_sentence() -> None:
    text = "The war was long. " * 10 + "New York was not."
    parts = [text[b:e].strip() for b, e in paragraphs(text, limit=60)]
    assert len(parts) > 2
    assert all(part.endswith(".") for part in parts)


def test_a_run_of_dots_costs_linear_time() -> None:
    assert sentence_ends("." * 300_000 + " x").tolist() == [300_000]  # minutes, were it quadratic


def test_lines_are_cut_only_where_no_sentence_ends(encoder: TextEncoder) -> None:
    text = "The army\nof the state fought. The war\nof the people was long"
    segments = cut_segments([text], encoder.encode([text]), 10)
    encoded = encoder.encode([text])
    assert text[: int(encoded.token_end[segments.token_end[0] - 1])] == "The army\nof the state fought."
    lines = "the army\nthe war\nthe state\nthe people"
    encoded = encoder.encode([lines])
    segments = cut_segments([lines], encoded, 5)
    assert {lines[: int(encoded.token_end[e - 1])].rsplit("\n", 1)[-1] for e in segments.token_end} <= set(
        lines.split("\n")
    )


def test_sentence_ends_in_several_scripts() -> None:
    text = 'He said "Go." Then he went! 東京は大きい。次。 3.14 is pi. End'
    assert [text[:end].rsplit(" ", 1)[-1] for end in sentence_ends(text)] == [
        '"Go."',
        "went!",
        "東京は大きい。",
        "東京は大きい。次。",
        "pi.",
    ]


def test_segments_do_not_depend_on_neighbours(encoder: TextEncoder) -> None:
    texts = sample_texts()[:20]
    together = cut_segments(texts, encoder.encode(texts), 24)
    lengths = [int(n) for n in together.token_end - together.token_begin]
    alone: list[int] = []
    for text in texts:
        one = cut_segments([text], encoder.encode([text]), 24)
        alone.extend(int(n) for n in one.token_end - one.token_begin)
    assert lengths == alone
