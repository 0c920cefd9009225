"""
Join treebank words to plain text as a person would have written it, and locate each word in it.

Labelled corpora have words (``It 's `` Time Out '' ( 1983 ) .``); users send text (``It's "Time Out" (1983).``).
Scores on joined words measure the effect of this difference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
STRAIGHT, CURLY = '""\'', "\u201c\u201d\u2019"
_QUOTES = frozenset({"``", "''", '"'})
_NO_SPACE_BEFORE = re.compile(
    r"[.,;:!?%)\]}\u2019\u201d\u00bb\u2026]+|\.\.\.|n't|n\u2019t|['\u2019](?:s|re|ve|ll|d|m)?|[-\u2013\u2014]\w.*",
    re.IGNORECASE,
)
_NO_SPACE_AFTER = re.compile(r"[(\[{$\u00a3\u20ac#\u2018\u201c\u00ab]+")


def joins_what_is_before(word: str) -> bool:
    """Whether a treebank word is written without a space before it: punctuation, or the end of a contraction."""
    return _NO_SPACE_BEFORE.fullmatch(word) is not None


def plain_text(words: Sequence[str], quotes: str = STRAIGHT) -> tuple[str, list[tuple[int, int]]]:
    """
    Join words into plain text.

    Quotes of any form become those of ``quotes``, alternately opening and closing.

    :param words: words and punctuation of one sentence
    :param quotes: the opening quote, the closing one, and the apostrophe
    :return: the text, and the character range of each word in it
    """
    parts: list[str] = []
    spans: list[tuple[int, int]] = []
    length = 0
    glue = True  # the first word has no space before it
    quoted = False

    for word in words:
        # Opening and closing quotes alternate, because many corpora write both the same way.
        surface = quotes[quoted] if word in _QUOTES else _BRACKETS.get(word.upper(), word).replace("'", quotes[2])
        # An opening quote has a space before it, a closing one has it behind.
        closing = word in _QUOTES and quoted
        if not (glue or closing or (word not in _QUOTES and joins_what_is_before(surface))):
            parts.append(" ")
            length += 1
        parts.append(surface)
        spans.append((length, length + len(surface)))
        length += len(surface)
        opening = word in _QUOTES and not quoted
        quoted ^= word in _QUOTES
        glue = opening or bool(_NO_SPACE_AFTER.fullmatch(surface))

    return "".join(parts), spans
