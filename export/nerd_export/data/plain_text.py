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
        is_quote = word in _QUOTES
        opens, closes = is_quote and not quoted, is_quote and quoted
        surface = quotes[quoted] if is_quote else _BRACKETS.get(word.upper(), word).replace("'", quotes[2])
        quoted ^= is_quote

        # An opening quote has a space before it, a closing one has it behind.
        joins = closes or (not is_quote and joins_what_is_before(surface))
        if not (glue or joins):
            parts.append(" ")
            length += 1

        parts.append(surface)
        spans.append((length, length + len(surface)))
        length += len(surface)
        glue = opens or _NO_SPACE_AFTER.fullmatch(surface) is not None

    return "".join(parts), spans
