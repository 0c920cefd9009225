"""
Letter case, for networks whose vocabulary has none.

An uncased tokenizer throws away what tells most names from other words. The network gets it back through the input that
BERT keeps for pairs of texts (token types; Devlin et al., 2019): the type of a token is the case of its word.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nerd_onnx.inference.arrays import Bools, Ints

NO_CAPITAL, TITLE, UPPER, MIXED = range(4)
LETTER_CASES = 4


def letter_case(word: str) -> int:
    """
    Tell the case of a word: ``NO_CAPITAL`` (also for scripts without case), ``TITLE`` (one capital, in front),
    ``UPPER`` (capitals only) or ``MIXED``.

    :param word: a pre-tokenizer's; those that split at spaces only leave spaces and punctuation around it
    """
    if word == word.lower():
        return NO_CAPITAL
    first = next(filter(str.isalnum, word), "")
    if first.isupper() and sum(map(str.isupper, word)) == 1:
        return TITLE
    return UPPER if word.isupper() else MIXED


def token_cases(texts: Sequence[str], words: Ints, offsets: Ints, text_tokens: Ints) -> Ints:
    """
    Give each token the case of the pre-tokenizer's word that it is of; tokens without characters have no capital.

    :param texts: what was tokenized
    :param words: number of each token's word in its text, -1 for special tokens. *Shape:* (tokens,)
    :param offsets: character range of each token in its text. *Shape:* (tokens, 2)
    :param text_tokens: first token of each text, and the total at the end. *Shape:* (texts + 1,)
    :return: *Shape:* (tokens,)
    """
    first = np.flatnonzero(word_openings(words, text_tokens))
    after = np.append(first[1:], len(words))[: len(first)]
    text = np.searchsorted(text_tokens, first, side="right") - 1
    ranges = zip(text.tolist(), offsets[first, 0].tolist(), offsets[after - 1, 1].tolist(), strict=True)
    cases = (letter_case(texts[i][start:end]) for i, start, end in ranges)
    return np.repeat(np.fromiter(cases, dtype=np.int64, count=len(first)), after - first)


def word_openings(words: Ints, text_tokens: Ints) -> Bools:
    """
    Tell which tokens open a word, as the pre-tokenizer sees it. *Shape:* (tokens,).

    :param words: number of each token's word in its text. *Shape:* (tokens,)
    :param text_tokens: first token of each text, and the total at the end. *Shape:* (texts + 1,)
    """
    opens = np.ones(len(words), dtype=np.bool_)
    opens[1:] = words[1:] != words[:-1]
    opens[text_tokens[:-1][text_tokens[:-1] < len(words)]] = True
    return opens
