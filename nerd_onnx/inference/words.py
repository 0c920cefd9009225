"""
Words where the pre-tokenizer makes none, or too many.

BERT's pre-tokenizer splits text at white space, punctuation and ideographs. Others leave more together:
SentencePiece's takes whatever stands between spaces as one (``Paris,``), some folders have none at all. Their
pre-tokens are split further, at token borders where white space, punctuation or an ideograph stands.

Treebanks, by which most labelled text was cut into words, keep together what people write together: ``Saint-Pierre``,
``No.1``, ``U.S.``, ``AT&T``. A model that was trained on them decides such a word once, by its first token. What is
said of a name is a word of its own, as annotators part it from the name: ``London`` and ``-based``.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from nerd_onnx.inference.arrays import Bools, Ints

WordRule = Literal["pretokens", "treebank"]

# What is said of a name rather than part of it: London-based, Spanish-language.
_SAID_OF = r"-(?:based|born|bred|built|held|language|led|like|style|[a-z]{2,20}(?:ed|ing))(?![^\W_])"
# Letters and digits with a sign between them, or letters each with a full stop behind it. Bounded, so that no text is
# one word; possessive and begun at the start of a run, so that it is linear in the length of the text.
_JOINED = re.compile(
    rf"(?:[^\W\d_]\.){{2,20}}|(?<![^\W_])[^\W_]++(?:(?!{_SAID_OF})[-._/&][^\W_]++){{1,20}}|(?<=[^\W_]|\.){_SAID_OF}"
)

PROBE = 'a b, (c) "d" \u6771\u4eac\u5e02'  # white space, punctuation on both sides of letters, ideographs

_SPACE, _BORDER = 1, 2
_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))


def splits_words(probe: str, start: Ints, end: Ints) -> bool:
    """
    Tell whether a tokenizer's own words are fine enough: none joins what :func:`split_at_borders` would part.

    :param start: where its words of the probe start. *Shape:* (words,)
    :param end: one past their ends. *Shape:* (words,)
    """
    words = (probe[s:e] for s, e in zip(start, end, strict=True))
    return not any(len(word) > 1 and any(map(_kind, word)) for word in words)


def split_at_borders(texts: Sequence[str], offsets: Ints, text_tokens: Ints, pre_tokens: Ints) -> tuple[Ints, Bools]:
    """
    Take white space off the ends of tokens, and tell which tokens open a word by the characters around them.

    A token of nothing but white space (a lone ``\u2581`` or ``\u0120``) opens the word that its pre-token goes on with:
    it is the word's first token for those who train by the tokenizer's words.

    :param offsets: character range of each token in its text. *Shape:* (tokens, 2)
    :param pre_tokens: number of each token's pre-token in its text. *Shape:* (tokens,)
    :param text_tokens: first token of each text, and the total. *Shape:* (texts + 1,)
    :return: the ranges without white space at their ends, and the marks. *Shape:* (tokens, 2), (tokens,)
    """
    points = np.frombuffer("".join((*texts, " ")).encode("utf-32-le"), dtype=np.dtype("<u4"))
    kinds = character_kinds()[points]
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    base = np.repeat(np.cumsum(lengths) - lengths, np.diff(text_tokens))
    start, end = offsets[:, 0] + base, offsets[:, 1] + base
    while (spaced := (start < end) & (kinds[start] == _SPACE)).any():
        start = start + spaced
    while (spaced := (start < end) & (kinds[end - 1] == _SPACE)).any():
        end = end - spaced
    blank, origin = start == end, offsets[:, 0] + base
    start, end = np.where(blank, origin, start), np.where(blank, origin, end)
    before = kinds[np.maximum(start - 1, 0)]
    parted = (before != 0) | (kinds[start] == _BORDER)
    apart = np.ones(len(start), dtype=np.bool_)
    apart[1:] = start[1:] >= end[:-1]  # the bytes of one character stay together
    opens = parted & apart & (start < end)
    leads = np.zeros(len(start), dtype=np.bool_)
    leads[:-1] = blank[:-1] & opens[1:] & (pre_tokens[:-1] == pre_tokens[1:])
    leads[text_tokens[1:][np.diff(text_tokens) > 0] - 1] = False  # the last token of a text leads nowhere
    follows = np.flatnonzero(leads) + 1
    start[leads] = end[leads] = start[follows]
    opens[follows], opens[leads] = False, True
    return np.stack([start - base, end - base], axis=1), opens


def joined_words(texts: Sequence[str], start: Ints, end: Ints, text_words: Ints) -> tuple[Bools, Ints]:
    """
    Put words together that a treebank keeps together.

    :param start: first character of each word in its text. *Shape:* (words,)
    :param end: one past its last character. *Shape:* (words,)
    :param text_words: first word of each text, and the total. *Shape:* (texts + 1,)
    :return: which words open one, and the ends of these. *Shape:* (words,), (words opened,)
    """
    opens, ends = np.ones(len(start), dtype=np.bool_), end.copy()
    for i, text in enumerate(texts):
        first, last = int(text_words[i]), int(text_words[i + 1])
        for match in _JOINED.finditer(text) if last - first > 1 else ():
            begin, stop = first + np.searchsorted(start[first:last], match.span())
            if stop - begin > 1 and start[begin] == match.start() and end[stop - 1] == match.end():
                opens[begin + 1 : stop] = False
                ends[begin] = match.end()
    return opens, ends[opens]


@cache
def character_kinds() -> npt.NDArray[np.uint8]:
    """Kind of every code point: white space 1, punctuation, symbols and ideographs 2, others 0."""
    kinds: npt.NDArray[np.uint8] = np.zeros(sys.maxunicode + 1, dtype=np.uint8)
    for point in range(sys.maxunicode + 1):
        kinds[point] = _kind(chr(point))
    return kinds


def _kind(char: str) -> int:
    """Kind of one character, as in :func:`character_kinds`."""
    if char.isspace():
        return _SPACE
    ideograph = any(first <= ord(char) <= last for first, last in _IDEOGRAPHS)
    return _BORDER if ideograph or unicodedata.category(char)[0] in "PS" else 0
