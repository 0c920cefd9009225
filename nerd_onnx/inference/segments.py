"""
Segments: the parts of a text that are run through the network at once.

A network has a maximum length, and attention costs the square of the length, so long texts are cut. No token is lost,
and the time grows linearly with the text. Before tokenization, a text is cut at blank lines, ends of pages and
paragraph separators into *paragraphs*; a very long paragraph is also cut at the end of a line or sentence, or at a
space. After tokenization, a paragraph that does not fit is cut into segments of as many whole sentences as fit, else of
whole lines. A line that is too long is cut into overlapping windows that end between words. A word in an overlap is
decided by the segment whose edge is further away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nerd_onnx.inference.arrays import Ints
from nerd_onnx.inference.encoding import EncodedTexts
from nerd_onnx.long_text import LongText

PARAGRAPH_LIMIT = 32_768  # characters; limits the tokens that one text has in memory

_WINDOW_CHARACTERS = 1 << 18

# Atomic groups keep CR LF together as one line end: a single CR LF is not a blank line. Form feeds (each page of a PDF
# file as text), NEL and the separators of Unicode end a paragraph by themselves.
_ENDS_PARAGRAPH = "\f\x85\u2028\u2029"
_GAP = re.compile(rf"(?>\r\n|\n|\r)[^\S\r\n]*(?>\r\n|\n|\r)\s*|[{_ENDS_PARAGRAPH}]\s*")
_LINE_OR_GAP = re.compile(rf"[\r\n{_ENDS_PARAGRAPH}]")
# A sentence ends after its closing punctuation where white space follows; in CJK no white space is needed. Quantifiers
# are possessive and no match starts inside a series of dots, so that the time grows linearly with the text.
_SENTENCE_END = re.compile(
    r"(?<![.!?\u2026])[.!?\u2026]++[\"'\u2019\u201d)\]]*+(?=\s)|[\u3002\uff01\uff1f]++[\u300d\u300f\u201d]*+"
)
_LINE_END = re.compile(r"[\r\n]++")


@dataclass(frozen=True)
class Segments:
    """
    Token ranges to run through the network, and the words that each of them decides.

    :param token_begin: first token of each segment. *Shape:* (segments,)
    :param token_end: one past the last token of each segment. *Shape:* (segments,)
    :param word_begin: first word that each segment decides. *Shape:* (segments,)
    :param word_end: one past the last word that each segment decides. *Shape:* (segments,)
    """

    token_begin: Ints
    token_end: Ints
    word_begin: Ints
    word_end: Ints


def paragraphs(text: str | LongText, limit: int = PARAGRAPH_LIMIT) -> Iterator[tuple[int, int]]:
    """
    Cut a text into paragraphs.

    It is cut at blank lines, form feeds, NEL, U+2028 and U+2029. A part longer than ``limit`` is also cut at the end of
    a line, else of a sentence, else at a space, else anywhere.

    :param text: any text
    :param limit: maximum number of characters of a paragraph
    :return: character ranges in order, as an iterator; between two of them is white space or nothing
    """
    if isinstance(text, LongText):
        yield from paragraphs_in_windows(text, limit, _WINDOW_CHARACTERS)
        return

    begin = 0
    for gap in _GAP.finditer(text) if _LINE_OR_GAP.search(text) else ():
        yield from _bounded(text, begin, gap.start(), limit)
        begin = gap.end()

    yield from _bounded(text, begin, len(text), limit)


def paragraphs_in_windows(text: LongText, limit: int, window: int) -> Iterator[tuple[int, int]]:
    """
    Cut a text as :func:`paragraphs` does, with a limited part of it in memory.

    :param window: number of characters that are searched at once
    """
    begin, size = 0, window
    while begin < len(text):
        part = text[begin : begin + size]
        is_last = begin + size >= len(text)

        place = 0
        for gap in _GAP.finditer(part):
            if gap.end() == len(part) and not is_last:
                break  # it may go on behind the window
            yield from _shifted(_bounded(part, place, gap.start(), limit), begin)
            place = gap.end()

        # A gap that is not seen whole begins in the white space at the end of the window, so all before is one
        # paragraph. Its last range may go on.
        known = len(part) if is_last else len(part.rstrip())
        ranges = list(_bounded(part, place, known, limit))
        yield from _shifted(ranges if is_last else ranges[:-1], begin)
        if is_last:
            return

        # The next window begins where nothing is certain yet. If that is where this one began, it must be larger.
        if ranges:
            place = ranges[-1][0]
        if place:
            begin, size = begin + place, window
        else:
            size *= 2


def _shifted(ranges: Iterable[tuple[int, int]], by: int) -> Iterator[tuple[int, int]]:
    return ((begin + by, end + by) for begin, end in ranges)


def _bounded(text: str, begin: int, end: int, limit: int) -> Iterator[tuple[int, int]]:
    """Yield the range in parts of at most ``limit`` characters, see :func:`paragraphs`."""
    while end - begin > limit:
        # Cuts are searched in the second half only, so that no part is much shorter than the limit.
        middle = begin + limit // 2
        window = text[middle : begin + limit]

        cut = max(window.rfind("\n"), window.rfind("\r"))
        if cut < 0:
            cut = int(sentence_ends(window).max(initial=0)) - 1
        if cut < 0:
            spaces = (i for i in range(len(window) - 1, -1, -1) if window[i].isspace())
            cut = next(spaces, len(window) - 1)

        stop = middle + cut + 1
        yield begin, stop
        begin = stop

    if end > begin:
        yield begin, end


def sentence_ends(text: str) -> Ints:
    """Return the character offset one past the end of each sentence. *Shape:* (sentences found,)."""
    return np.fromiter((match.end() for match in _SENTENCE_END.finditer(text)), dtype=np.int64)


def line_ends(text: str) -> Ints:
    """Return the character offset one past the end of each line. *Shape:* (lines found,)."""
    return np.fromiter((match.end() for match in _LINE_END.finditer(text)), dtype=np.int64)


def cut_segments(texts: Sequence[str], encoded: EncodedTexts, capacity: int) -> Segments:
    """
    Cut the tokens of every text into segments of at most ``capacity`` tokens.

    :param texts: the texts that were encoded
    :param encoded: their tokens and words
    :param capacity: maximum number of tokens of a segment, without special tokens; at least 2
    :return: segments in the order of the texts; a text without words has none
    """
    # Rows of the table are as those of :func:`_cut_one`. Most texts fit, and need no loop.
    tokens, words = encoded.text_tokens, encoded.text_words
    fits = np.diff(tokens) <= capacity
    has_words = np.diff(words) > 0

    whole = np.stack([tokens[:-1], tokens[1:], words[:-1], words[1:]], axis=1)[fits & has_words]

    long = [_cut_one(texts[i], encoded, i, capacity) for i in np.flatnonzero(~fits & has_words).tolist()]
    table = np.concatenate([whole, *(np.array(rows, dtype=np.int64).reshape(-1, 4) for rows in long)])
    table = table[np.argsort(table[:, 0], kind="stable")]

    return Segments(*(np.ascontiguousarray(table[:, k]) for k in range(4)))


def _cut_one(text: str, encoded: EncodedTexts, index: int, capacity: int) -> list[tuple[int, int, int, int]]:
    """
    Cut one long text into segments.

    :param text: the text
    :param encoded: the texts that were encoded
    :param index: of the text in ``encoded``
    :param capacity: as in :func:`cut_segments`
    :return: for each segment: first token, one past the last, first word it decides, one past the last
    """
    first, last = int(encoded.text_tokens[index]), int(encoded.text_tokens[index + 1])
    word_base, word_stop = int(encoded.text_words[index]), int(encoded.text_words[index + 1])
    words = encoded.word_token[word_base:word_stop]

    ends = encoded.token_end[first:last]

    # Tokens to cut before: after a sentence, else after a line.
    borders = [first + np.searchsorted(ends, found(text), side="right") for found in (sentence_ends, line_ends)]
    overlap = capacity // 4

    rows: list[tuple[int, int, int, int]] = []
    begin, decided = first, 0
    while begin < last:
        end, is_border = _segment_end(begin, last, capacity, borders, words)
        if is_border:
            following, own_token = end, end
        else:
            # The next segment starts in this one. Each decides the words up to the middle of the overlap.
            following = _word_at_or_before(words, end - overlap, lowest=begin + 1)
            own_token = (following + end + 1) // 2

        own_end = int(np.searchsorted(words, own_token))
        # A word longer than a segment is decided by its first segment; the others need not run.
        if own_end > decided:
            rows.append((begin, end, word_base + decided, word_base + own_end))
        begin, decided = following, max(decided, own_end)

    return rows


def _segment_end(begin: int, last: int, capacity: int, borders: Sequence[Ints], words: Ints) -> tuple[int, bool]:
    """
    Choose where the segment that starts at ``begin`` ends.

    :param begin: first token of the segment
    :param last: one past the last token of the text
    :param capacity: as in :func:`cut_segments`
    :param borders: tokens to cut before, the best kind first
    :param words: first token of each word of the text
    :return: one past the segment's last token, and whether the text, a sentence or a line ends there
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
    """
    Return the last first token of a word in ``lowest..token``.

    :param otherwise: the result where no word begins in that range; None for ``token``, or ``lowest`` where it is
        greater
    """
    k = int(np.searchsorted(words, token, side="right")) - 1
    if k >= 0 and words[k] >= lowest:
        return int(words[k])

    return max(token, lowest) if otherwise is None else otherwise
