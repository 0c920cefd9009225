"""Texts to token ids, words and character offsets, as flat arrays over many texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from nerd_onnx.errors import ModelError, first_line
from nerd_onnx.inference.arrays import Bools, Ints
from nerd_onnx.inference.letter_case import token_cases, word_openings
from nerd_onnx.inference.words import PROBE, WordRule, joined_words, split_at_borders, splits_words

_SURROGATES = dict.fromkeys(range(55296, 57344), "�")


@dataclass(frozen=True)
class EncodedBatch:
    """
    Segments of one length, as a network takes them.

    :param ids: vocabulary ids, special ones included. *Shape:* (batch, tokens)
    :param types: token types, see :mod:`letter_case`; None where all are 0. *Shape:* (batch, tokens)
    """

    ids: Ints
    types: Ints | None = None

    def inputs(self) -> dict[str, Ints]:
        """Give all that a network may take, by the names that exporters use; nothing is padding."""
        types = np.zeros_like(self.ids) if self.types is None else self.types
        return {"input_ids": self.ids, "attention_mask": np.ones_like(self.ids), "token_type_ids": types}


@dataclass(frozen=True)
class EncodedTexts:
    """
    The tokens and words of many texts, one after the other, without special tokens.

    A word is what the tokenizer's pre-tokenizer makes one (see :mod:`words` for those that make none, and for words
    that are joined); it is decided by its first token.

    :param ids: vocabulary id of each token. *Shape:* (tokens,)
    :param token_end: one past the last character of each token in its text. *Shape:* (tokens,)
    :param text_tokens: first token of each text, and the total at the end. *Shape:* (texts + 1,)
    :param word_token: first token of each word. *Shape:* (words,)
    :param word_start: character offset of each word in its text. *Shape:* (words,)
    :param word_end: one past the word's last character. *Shape:* (words,)
    :param text_words: first word of each text, and the total at the end. *Shape:* (texts + 1,)
    :param types: type of each token, see :mod:`letter_case`; None where all are 0. *Shape:* (tokens,)
    """

    ids: Ints
    token_end: Ints
    text_tokens: Ints
    word_token: Ints
    word_start: Ints
    word_end: Ints
    text_words: Ints
    types: Ints | None = None

    def with_words(self, words: Sequence[Ints]) -> EncodedTexts:
        """
        Decide given words instead of the pre-tokenizer's; offsets then count words, not characters.

        :param words: character ranges of each text's words. *Shape:* (words, 2) each
        :return: the same tokens; a given word without any token is left out
        """
        tokens, numbers, counts = [], [], []
        for i, ranges in enumerate(words):
            first, last = self.text_tokens[i], self.text_tokens[i + 1]
            token = first + np.searchsorted(self.token_end[first:last], ranges[:, 0], side="left")
            found = token < last
            found[found] = self.token_end[token[found]] <= ranges[found, 1]
            tokens.append(token[found])
            numbers.append(np.flatnonzero(found))
            counts.append(int(found.sum()))
        number = np.concatenate(numbers) if numbers else np.empty(0, np.int64)
        return replace(
            self,
            word_token=np.concatenate(tokens) if tokens else np.empty(0, np.int64),
            word_start=number,
            word_end=number + 1,
            text_words=_ends(np.array(counts, dtype=np.int64)),
        )


class TextEncoder:
    """
    A ``tokenizer.json`` with truncation and padding switched off, whatever the file says.

    :param tokenizer_file: the file to read
    :param word_rule: whether words are joined as treebanks do
    :param letter_case: whether tokens get types, which tell letter case
    :raises ModelError: when it cannot be read, or adds special tokens other than before and after the text
    """

    def __init__(self, tokenizer_file: Path, word_rule: WordRule = "pretokens", *, letter_case: bool = False) -> None:
        self._letter_case = letter_case
        self._word_rule: WordRule = "pretokens"  # until it is known what the tokenizer's own words are
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            probe = self._tokenizer.encode("a", add_special_tokens=True)
        except BaseException as err:  # tokenizers raises plain Exception, and panics, which are no Exception
            if not isinstance(err, Exception) and type(err).__name__ != "PanicException":
                raise
            raise ModelError(
                f"{tokenizer_file}: this version cannot read the tokenizer: {first_line(err)}",
                reason="unreadable-tokenizer",
                file=str(tokenizer_file),
            ) from err
        special = np.array(probe.special_tokens_mask, dtype=np.bool_)
        plain = np.flatnonzero(~special)
        if not len(plain):
            raise ModelError(
                f"{tokenizer_file}: its vocabulary has no token for the letter a",
                reason="unusable-vocabulary",
                file=str(tokenizer_file),
            )
        if special[plain[0] : plain[-1] + 1].any():
            raise ModelError(
                f"{tokenizer_file}: it puts special tokens inside the text; only special tokens before and after the "
                "text are supported",
                reason="special-tokens-inside",
                file=str(tokenizer_file),
            )
        ids = np.array(probe.ids, dtype=np.int64)
        self.prefix: Ints = ids[: plain[0]]
        self.suffix: Ints = ids[plain[-1] + 1 :]
        self._splits_words = True
        probe_words = self.encode([PROBE])
        self._splits_words = splits_words(PROBE, probe_words.word_start, probe_words.word_end)
        self._word_rule = word_rule

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """
        Tokenize texts; a lone surrogate is read as U+FFFD, which keeps every offset.

        :param texts: any strings, empty ones too
        """
        readable = list(map(_encodable, texts))
        encodings = self._tokenizer.encode_batch(readable, add_special_tokens=False)
        counts = np.fromiter(map(len, encodings), dtype=np.int64, count=len(encodings))
        text_tokens = _ends(counts)
        total = int(text_tokens[-1])
        ids = np.fromiter(chain.from_iterable(e.ids for e in encodings), dtype=np.int64, count=total)
        pairs = chain.from_iterable(chain.from_iterable(e.offsets for e in encodings))
        offsets = np.fromiter(pairs, dtype=np.int64, count=2 * total).reshape(total, 2)
        words = np.fromiter(
            (-1 if w is None else w for e in encodings for w in e.word_ids), dtype=np.int64, count=total
        )
        types = token_cases(readable, words, offsets, text_tokens) if self._letter_case else None
        opens = word_openings(words, text_tokens)
        if not self._splits_words:
            offsets, borders = split_at_borders(readable, offsets, text_tokens, words)
            opens |= borders
        word_token, word_end = _words(words, opens, offsets)
        if self._word_rule == "treebank":
            text_words = np.searchsorted(word_token, text_tokens)
            kept, word_end = joined_words(readable, offsets[word_token, 0], word_end, text_words)
            word_token = word_token[kept]
        return EncodedTexts(
            ids=ids,
            token_end=np.ascontiguousarray(offsets[:, 1]),
            text_tokens=text_tokens,
            word_token=word_token,
            word_start=offsets[word_token, 0],
            word_end=word_end,
            text_words=np.searchsorted(word_token, text_tokens),
            types=types,
        )

    def batch(self, encoded: EncodedTexts, begin: Ints, length: int) -> EncodedBatch:
        """
        Cut segments of one length out of texts, and put the special tokens around them, whose type is 0.

        :param begin: first token of each segment. *Shape:* (batch,)
        :param length: tokens of each
        """
        tokens = begin[:, None] + np.arange(length)
        inside = slice(len(self.prefix), len(self.prefix) + length)
        ids = np.empty((len(begin), len(self.prefix) + length + len(self.suffix)), dtype=np.int64)
        ids[:, : inside.start], ids[:, inside], ids[:, inside.stop :] = self.prefix, encoded.ids[tokens], self.suffix
        types = None
        if encoded.types is not None:
            types = np.zeros_like(ids)
            types[:, inside] = encoded.types[tokens]
        return EncodedBatch(ids, types)


def word_ranges(words: Sequence[str]) -> Ints:
    """Character range of each word in ``" ".join(words)``. *Shape:* (words, 2)."""
    lengths = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
    ends = np.cumsum(lengths + 1) - 1
    return np.stack([ends - lengths, ends], axis=1)


def _words(words: Ints, opens: Bools, offsets: Ints) -> tuple[Ints, Ints]:
    """
    Find the first token and the last character of each word; words without width are no words.

    :return: first token and character end of each word. *Shape:* (words,) each
    """
    if not len(words):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    first = np.flatnonzero(opens)
    has_width = offsets[:, 1] > offsets[:, 0]
    end = np.maximum.reduceat(np.where(has_width, offsets[:, 1], 0), first)
    kept = (words[first] >= 0) & (end > offsets[first, 0])
    return first[kept], end[kept]


def _encodable(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 can hold, one for one."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.translate(_SURROGATES)
    return text


def _ends(counts: Ints) -> Ints:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)))
