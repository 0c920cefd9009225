"""
Long texts to segments that fit the model. Nothing is cut away, and work grows linearly with the text.

First a text falls apart at blank lines into *paragraphs* (one of extreme length also at line or sentence ends, or
spaces), before tokenization. Then a paragraph with more tokens than fit becomes segments: as many whole sentences as
fit, else lines, and where one line alone is too long, overlapping windows that end between words. In an overlap, the
word is decided by the segment in which it stands further from the edge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nerd_onnx.inference.arrays import Ints
from nerd_onnx.inference.encoding import EncodedTexts

PARAGRAPH_LIMIT = 32_768  # characters: one text of any length becomes parts that segments can be cut from in turn

# Atomic groups keep CR LF one line end: a single one is no blank line.
_BLANK_LINES = re.compile(r"(?>\r\n|\n|\r)[^\S\r\n]*(?>\r\n|\n|\r)\s*")
# A sentence ends after its closing punctuation where white space follows (CJK: at once). Possessive, and never begun
# inside a run of dots: linear in the length of the text.
_SENTENCE_END = re.compile(
    r"(?<![.!?\u2026])[.!?\u2026]++[\"'\u2019\u201d)\]]*+(?=\s)|[\u3002\uff01\uff1f]++[\u300d\u300f\u201d]*+"
)
_LINE_END = re.compile(r"[\r\n]++")


@dataclass(frozen=True)
class Segments:
    """
    Token ranges to run, and the words each of them decides.

    :param token_begin: first token of each segment. *Shape:* (segments,)
    :param token_end: one past its last token. *Shape:* (segments,)
    :param word_begin: first word it decides. *Shape:* (segments,)
    :param word_end: one past the last word it decides. *Shape:* (segments,)
    """

    token_begin: Ints
    token_end: Ints
    word_begin: Ints
    word_end: Ints


def paragraphs(text: str, limit: int = PARAGRAPH_LIMIT) -> Iterator[tuple[int, int]]:
    """
    Cut a text at blank lines, and what is then longer than ``limit`` at a line's or sentence's end, or a space.

    :return: character ranges in order, found as they are asked for; between two of them is white space or nothing
    """
    has_lines = "\n" in text or "\r" in text
    begin = 0
    for gap in _BLANK_LINES.finditer(text) if has_lines else ():
        yield from _bounded(text, begin, gap.start(), limit)
        begin = gap.end()
    yield from _bounded(text, begin, len(text), limit)


def _bounded(text: str, begin: int, end: int, limit: int) -> Iterator[tuple[int, int]]:
    """Yield the range, in parts of at most ``limit`` characters where it is longer."""
    while end - begin > limit:
        middle = begin + limit // 2
        window = text[middle : begin + limit]
        cut = max(window.rfind("\n"), window.rfind("\r"))
        if cut < 0:
            cut = int(sentence_ends(window).max(initial=0)) - 1
        if cut < 0:
            cut = next((i for i in range(len(window) - 1, -1, -1) if window[i].isspace()), len(window) - 1)
        stop = middle + cut + 1
        yield begin, stop
        begin = stop
    if end > begin:
        yield begin, end


def sentence_ends(text: str) -> Ints:
    """Character offsets one past the end of each sentence. *Shape:* (sentences found,)."""
    return np.fromiter((match.end() for match in _SENTENCE_END.finditer(text)), dtype=np.int64)


def line_ends(text: str) -> Ints:
    """Character offsets one past the end of each line. *Shape:* (lines found,)."""
    return np.fromiter((match.end() for match in _LINE_END.finditer(text)), dtype=np.int64)


def cut_segments(texts: Sequence[str], encoded: EncodedTexts, capacity: int) -> Segments:
    """
    Cut every text's tokens into segments of at most ``capacity`` tokens.

    :param texts: the texts that were encoded
    :param encoded: their tokens and words
    :param capacity: tokens that fit beside the special ones, at least 2
    :return: segments in the order of the texts; texts without words have none
    """
    tokens, words = encoded.text_tokens, encoded.text_words
    fits = np.diff(tokens) <= capacity
    has_words = np.diff(words) > 0
    whole = np.stack([tokens[:-1], tokens[1:], words[:-1], words[1:]], axis=1)[fits & has_words]
    long = [_cut_one(texts[i], encoded, i, capacity) for i in np.flatnonzero(~fits & has_words).tolist()]
    table = np.concatenate([whole, *(np.array(rows, dtype=np.int64).reshape(-1, 4) for rows in long)])
    table = table[np.argsort(table[:, 0], kind="stable")]
    return Segments(*(np.ascontiguousarray(table[:, k]) for k in range(4)))


def _cut_one(text: str, encoded: EncodedTexts, index: int, capacity: int) -> list[tuple[int, int, int, int]]:
    """Cut one long text; each row is (token begin, token end, first word decided, one past the last)."""
    first, last = int(encoded.text_tokens[index]), int(encoded.text_tokens[index + 1])
    words = encoded.word_token[encoded.text_words[index] : encoded.text_words[index + 1]]
    word_base = int(encoded.text_words[index])
    ends = encoded.token_end[first:last]
    # The places to cut at, the best first: after a sentence, else after a line.
    borders = [first + np.searchsorted(ends, found(text), side="right") for found in (sentence_ends, line_ends)]
    overlap = capacity // 4
    rows: list[tuple[int, int, int, int]] = []
    begin, decided = first, 0
    while begin < last:
        end, whole = _segment_end(begin, last, capacity, borders, words)
        if whole:
            following, own_token = end, end
        else:
            following = _word_at_or_before(words, end - overlap, lowest=begin + 1)
            own_token = (following + end + 1) // 2
        own_end = int(np.searchsorted(words, own_token))
        if own_end > decided:
            rows.append((begin, end, word_base + decided, word_base + own_end))
        begin, decided = following, max(decided, own_end)
    return rows


def _segment_end(begin: int, last: int, capacity: int, borders: Sequence[Ints], words: Ints) -> tuple[int, bool]:
    """
    Choose where the segment that starts at ``begin`` ends.

    :return: one past its last token, and whether the text, a sentence or a line ends there
    """
    limit = begin + capacity
    if limit >= last:
        return last, True
    for places in borders:
        k = int(np.searchsorted(places, limit, side="right")) - 1
        if k >= 0 and places[k] > begin:
            return int(places[k]), True
    return _word_at_or_before(words, limit, lowest=begin + 1, otherwise=limit), False


def _word_at_or_before(words: Ints, token: int, *, lowest: int, otherwise: int | None = None) -> int:
    """Give the last word start in ``lowest..token``; without one, ``otherwise`` or ``token`` itself."""
    k = int(np.searchsorted(words, token, side="right")) - 1
    if k >= 0 and words[k] >= lowest:
        return int(words[k])
    return max(token, lowest) if otherwise is None else otherwise
