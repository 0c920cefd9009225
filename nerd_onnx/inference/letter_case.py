"""
Letter case as an input of networks with an uncased vocabulary.

An uncased tokenizer turns all text into lower case, and so drops a strong hint at names. The network gets the letter
case through another input: the token types, which BERT uses for pairs of texts (Devlin et al., 2019). The type of a
token is the letter case of its word.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from nerd_onnx.inference.arrays import Bools, Ints

NO_CAPITAL, TITLE, UPPER, MIXED = range(4)
LETTER_CASES = 4

# Characters of a word whose letter case is kept: a word may be a whole text, which must not stay in memory.
_LONGEST_KEPT = 32


def letter_case(word: str) -> int:
    """
    Return the letter case of a word.

    It is ``NO_CAPITAL`` (also for scripts without case), ``TITLE`` (one capital, which is the first letter), ``UPPER``
    (capitals only) or ``MIXED``.

    :param word: a word of a pre-tokenizer; spaces and punctuation may stand around it
    """
    if word == word.lower():
        return NO_CAPITAL

    first = next(filter(str.isalnum, word), "")
    if first.isupper() and sum(map(str.isupper, word)) == 1:
        return TITLE
    return UPPER if word.isupper() else MIXED


_case_of_short = lru_cache(maxsize=1 << 15)(letter_case)


def _kept_case(word: str) -> int:
    """Return the letter case of a word; that of a short one is computed once, because words repeat."""
    return _case_of_short(word) if len(word) <= _LONGEST_KEPT else letter_case(word)


def token_cases(texts: Sequence[str], words: Ints, offsets: Ints, text_tokens: Ints) -> Ints:
    """
    Return the letter case of each token's word; a token without characters has no capital.

    :param texts: what was tokenized
    :param words: number of each token's word in its text, -1 for special tokens. *Shape:* (tokens,)
    :param offsets: character range of each token in its text. *Shape:* (tokens, 2)
    :param text_tokens: first token of each text, and the total at the end. *Shape:* (texts + 1,)
    :return: *Shape:* (tokens,)
    """
    first = np.flatnonzero(word_openings(words, text_tokens))
    # The slice is for texts without any token, which have no last word.
    after = np.append(first[1:], len(words))[: len(first)]
    text = np.searchsorted(text_tokens, first, side="right") - 1

    ranges = zip(text.tolist(), offsets[first, 0].tolist(), offsets[after - 1, 1].tolist(), strict=True)
    cases = (_kept_case(texts[i][start:end]) for i, start, end in ranges)
    return np.repeat(np.fromiter(cases, dtype=np.int64, count=len(first)), after - first)


def word_openings(words: Ints, text_tokens: Ints) -> Bools:
    """
    Find the tokens that open a word of the pre-tokenizer.

    :param words: number of each token's word in its text. *Shape:* (tokens,)
    :param text_tokens: first token of each text, and the total at the end. *Shape:* (texts + 1,)
    :return: whether each token opens a word. *Shape:* (tokens,)
    """
    opens = np.ones(len(words), dtype=np.bool_)
    opens[1:] = words[1:] != words[:-1]
    # Two texts may follow each other with the same word number. Empty texts at the end have no first token.
    opens[text_tokens[:-1][text_tokens[:-1] < len(words)]] = True
    return opens
