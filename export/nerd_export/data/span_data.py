"""
Read texts with marked spans as labelled sentences: what nerd-tag writes, and what annotation tools export.

The text is kept as it is. It is cut into sentences at line breaks and at the ends of sentences, and each sentence into
words; a span always begins and ends a word.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from nerd_onnx.errors import InputError, TrainingDataError
from nerd_onnx.formats.tagged_file import TaggedRow, tagged_rows
from nerd_onnx.inference.labels import OUTSIDE

TEXT_COLUMN = "text"
SPAN_COLUMNS = ("entities", "spans", "labels", "label")  # of nerd-tag, spaCy, Prodigy, doccano and others
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?|[^\s\w]|_")
_LINE = re.compile(r"[^\n\r\f]+")
# A full stop behind a short word with a capital may belong to an abbreviation: Mr. Babbage, J. Smith.
_NO_ABBREVIATION = r"(?<![A-Z])(?<![A-Z][a-z])(?<![A-Z][a-z]{2})(?<![A-Z][a-z]{3})"
_SENTENCE_END = re.compile(_NO_ABBREVIATION + r"[.!?][\"'\u201d\u2019)]*(?=\s+[\"'\u201c(]?[^\W\d_a-z])")

Marked = Sequence[tuple[int, int, str | None]]  # start, end and label of each span; offsets in code points


@dataclass(frozen=True)
class TextSentence:
    """
    A sentence of a text.

    :param words: its words
    :param tags: BIO tag of each word; None where it is not known
    :param text: the text of the sentence, as it was written
    :param places: the characters (start, end) of each word in it
    """

    words: list[str]
    tags: list[str | None]
    text: str
    places: list[tuple[int, int]]


def tagged_sentences(
    path: str, text_column: str, span_column: str, *, fine: bool
) -> Iterator[tuple[str, list[TextSentence]]]:
    """
    Yield the place of each text of a file, for messages, and its sentences. Texts without a list of spans are left out.

    :param fine: read the fine labels; a span without one has unknown tags
    :raises TrainingDataError: when the file cannot be read, or spans are outside of their text or overlap
    """
    try:
        for row in tagged_rows(path, text_column=text_column, column=span_column):
            if row.text is not None and row.entities is not None:
                marked = [(e.start, e.end, e.fine_label if fine else e.label) for e in row.entities]
                yield row.place, sentences_of(row.text, marked, row)
    except InputError as err:
        raise TrainingDataError(str(err), reason=err.reason, **err.fields) from err


def sentences_of(text: str, marked: Marked, row: TaggedRow) -> list[TextSentence]:
    """
    Cut a text with marked spans into sentences of words with BIO tags.

    :param marked: spans in the order of their starts; a label of None makes an unknown tag
    :param row: the row, for messages
    :return: the sentences that have a word
    :raises TrainingDataError: when two spans overlap
    """
    for (start, end, _), (next_start, next_end, _) in pairwise(marked):
        if next_start < end:
            raise TrainingDataError(
                f"{row.place}: the spans {start}:{end} and {next_start}:{next_end} overlap; a word can have one label "
                "only, so leave one of them out",
                reason="spans-overlap",
                **row.where,
                start=next_start,
                end=next_end,
            )

    words = list(_words(text, marked))
    starts = [start for start, _, _ in words]
    found = []
    for begin, stop in _sentence_ranges(text, marked):
        inside = words[bisect_left(starts, begin) : bisect_left(starts, stop)]
        if inside:
            places = [(start - begin, end - begin) for start, end, _ in inside]
            tags = [tag for _, _, tag in inside]
            found.append(TextSentence([text[s:e] for s, e, _ in inside], tags, text[begin:stop], places))

    return found


def _words(text: str, marked: Marked) -> Iterator[tuple[int, int, str | None]]:
    """Yield each word with its range and its tag. A word ends where a span begins or ends."""
    # In order: the text before a span, the span, the text behind it, and so on.
    borders = [0, *(place for start, end, _ in marked for place in (start, end)), len(text)]
    labels = {start: (end, label) for start, end, label in marked}

    for begin, stop in pairwise(borders):
        is_span = begin in labels and labels[begin][0] == stop
        for i, match in enumerate(_WORD.finditer(text, begin, stop)):
            tag: str | None = OUTSIDE
            if is_span:
                label = labels[begin][1]
                tag = None if label is None else f"{'I' if i else 'B'}-{label}"
            yield match.start(), match.end(), tag


def _sentence_ranges(text: str, marked: Marked) -> Iterator[tuple[int, int]]:
    """Yield the range of each sentence. No range ends inside of a span, so a span may hold a line break."""
    starts = [start for start, _, _ in marked]
    ends = [match.end() for match in _LINE.finditer(text)] + [match.end() for match in _SENTENCE_END.finditer(text)]
    begin = 0

    for end in sorted({*ends, len(text)}):
        # Spans do not overlap, so only the last one that starts before this end can go beyond it.
        last = bisect_left(starts, end) - 1
        is_inside = last >= 0 and end < marked[last][1]

        if end > begin and not is_inside:
            # Without the white space in front, because the places of the words count from the first character.
            yield begin + len(text[begin:end]) - len(text[begin:end].lstrip()), end
            begin = end
