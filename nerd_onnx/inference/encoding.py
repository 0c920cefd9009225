"""
From texts to tokens, words and character offsets.

The tokens of many texts are in flat arrays, one text after the other, without special tokens: numpy then processes all
texts at once. The tokenizer reads some characters differently, see :mod:`tokenizer_input`; offsets are those of the
text as given. Which tokens form a word is decided in :mod:`words`. Segments are cut out of the arrays later, and the
special tokens are put around each segment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from nerd_onnx.errors import ModelError, NerdError, first_line
from nerd_onnx.inference.arrays import Bools, Ints
from nerd_onnx.inference.letter_case import token_cases, word_openings
from nerd_onnx.inference.model_files import require_regular_file
from nerd_onnx.inference.text_borders import TextBorders, text_borders
from nerd_onnx.inference.tokenizer_growth import MAX_GROWTH, Step, growth, has_patterns, states_of
from nerd_onnx.inference.tokenizer_input import Reading, read
from nerd_onnx.inference.word_joints import Joints, joints_of
from nerd_onnx.inference.words import PROBE, WordRule, joined_words, split_at_borders, splits_words
from nerd_onnx.interruption import waiting
from nerd_onnx.terminal import quiet_panics

_CHARACTERS_AT_ONCE = 1 << 16  # in one call of the tokenizer, if it does not make texts longer
# The worst of known tokenizers: 18 characters of four bytes each.
_MAX_TOKENS_PER_CHARACTER = 64
_MAX_EXTRA_TOKENS = 1024  # per text
# Their models turn a word with one unknown character into a single unknown token.
_WHOLE_WORDS = frozenset({"WordPiece", "WordLevel"})
# Networks saw commas in training and hardly any unknown token. With nothing instead, the names on both sides of the
# symbol become one. docs/measurements.md has F1 on sentences with a symbol behind each name.
_UNKNOWN_SYMBOL = ","


@dataclass(frozen=True)
class EncodedBatch:
    """
    Segments of one length, the input of a network.

    :param ids: vocabulary ids, with those of special tokens. *Shape:* (batch, tokens)
    :param types: token types, see :mod:`letter_case`; None when all are 0. *Shape:* (batch, tokens)
    """

    ids: Ints
    types: Ints | None = None

    def inputs(self) -> dict[str, Ints]:
        """Return all inputs a network may have, by the names that exporters use. No token is padding."""
        types = np.zeros_like(self.ids) if self.types is None else self.types
        return {"input_ids": self.ids, "attention_mask": np.ones_like(self.ids), "token_type_ids": types}


@dataclass(frozen=True)
class EncodedTexts:
    """
    The tokens and words of many texts, one after the other, without special tokens.

    Words are those of the tokenizer's pre-tokenizer, or are made by the rules in :mod:`words`. The network decides a
    word by its first token.

    :param ids: vocabulary id of each token. *Shape:* (tokens,)
    :param token_end: one past the last character of each token in its text. *Shape:* (tokens,)
    :param text_tokens: first token of each text, and the total at the end. *Shape:* (texts + 1,)
    :param word_token: first token of each word. *Shape:* (words,)
    :param word_start: first character of each word in its text. *Shape:* (words,)
    :param word_end: one past the last character of each word. *Shape:* (words,)
    :param text_words: first word of each text, and the total at the end. *Shape:* (texts + 1,)
    :param types: type of each token, see :mod:`letter_case`; None when all are 0. *Shape:* (tokens,)
    :param borders: borders of entities that the texts show; None where they show none
    :param joints: where words are one written word; None where entities are not joined there
    """

    ids: Ints
    token_end: Ints
    text_tokens: Ints
    word_token: Ints
    word_start: Ints
    word_end: Ints
    text_words: Ints
    types: Ints | None = None
    borders: TextBorders | None = None
    joints: Joints | None = None

    def with_words(self, words: Sequence[Ints]) -> EncodedTexts:
        """
        Return the same tokens with given words. Offsets then count words instead of characters.

        :param words: character ranges of the words of each text. *Shape:* (words, 2) each
        :return: without the words that have no token
        """
        tokens, numbers, counts = [], [], []

        for i, ranges in enumerate(words):
            first, last = self.text_tokens[i], self.text_tokens[i + 1]
            # The first token that ends at or behind the start of the word, and not behind its end.
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
            borders=None,
            joints=None,
        )


class TextEncoder:
    """
    The tokenizer of a ``tokenizer.json``. Truncation and padding are off, whatever the file says.

    :param tokenizer_file: the file to read
    :param word_rule: which tokens form a word, see :mod:`words`
    :param letter_case: whether token types are the letter case of words, see :mod:`letter_case`
    :param joins_touching: whether entities that touch are joined, see :mod:`word_joints`
    :ivar prefix: ids of the special tokens before each segment. *Shape:* (prefix tokens,)
    :ivar suffix: ids of the special tokens after each segment. *Shape:* (suffix tokens,)
    :raises ModelError: when the file cannot be read, or its special tokens stand elsewhere than before and after a text
    """

    def __init__(
        self,
        tokenizer_file: Path,
        word_rule: WordRule = "pretokens",
        *,
        letter_case: bool = False,
        joins_touching: bool = False,
    ) -> None:
        self._letter_case = letter_case
        self._joins_touching = joins_touching
        self._name = str(tokenizer_file)

        self._tokenizer, steps = self._loaded(tokenizer_file)
        self._symbols_apart = type(self._tokenizer.model).__name__ in _WHOLE_WORDS
        self._growth = growth(steps)
        self._check_growth()
        # Only the search for a pattern panics. Otherwise the standard error of the process is left alone.
        self._quiet = quiet_panics if has_patterns(steps) else nullcontext

        self.prefix, self.suffix = self._special_tokens()

        # A text is encoded without any rule, to learn whether the tokenizer's own words are fine enough.
        self._word_rule: WordRule = "pretokens"
        self._splits_words = True
        probe_words = self.encode([PROBE])
        self._splits_words = splits_words(PROBE, probe_words.word_start, probe_words.word_end)
        self._word_rule = word_rule

    @staticmethod
    def _loaded(tokenizer_file: Path) -> tuple[Tokenizer, list[Step]]:
        """Return the tokenizer of a file, and the steps before it splits a text."""
        require_regular_file(tokenizer_file)
        try:
            with quiet_panics():
                tokenizer = Tokenizer.from_file(str(tokenizer_file))

            tokenizer.no_truncation()
            tokenizer.no_padding()
            # A text that spells a special token, such as [MASK], is plain text.
            tokenizer.encode_special_tokens = True
            return tokenizer, states_of(tokenizer)
        except BaseException as err:  # tokenizers raises plain Exception, and panics that are not an Exception
            if not _is_of_tokenizers(err):
                raise
            raise ModelError(
                f"{tokenizer_file}: this version cannot read the tokenizer: {first_line(err)}",
                reason="unreadable-tokenizer",
                file=str(tokenizer_file),
            ) from err

    def _check_growth(self) -> None:
        """Check, before any text is tokenized, that no text grows without bounds."""
        if self._growth > MAX_GROWTH:
            raise ModelError(
                f"{self._name}: its normalizer may make a text {self._growth:.3g} times as long; expected at most "
                f"{MAX_GROWTH:g} times",
                reason="growing-tokenizer",
                file=self._name,
                found=self._growth,
                maximum=MAX_GROWTH,
            )

    def _special_tokens(self) -> tuple[Ints, Ints]:
        """Return the ids of the special tokens before and after a text. *Shape:* (prefix tokens,), (suffix tokens,)."""
        (probe,) = self._encodings(["a"], special=True)
        special = np.array(probe.special_tokens_mask, dtype=np.bool_)

        plain = np.flatnonzero(~special)
        if not len(plain):
            raise ModelError(
                f"{self._name}: its vocabulary has no token for the letter a",
                reason="unusable-vocabulary",
                file=self._name,
            )

        # Segments are cut out of a text later, and get these tokens around them.
        if special[plain[0] : plain[-1] + 1].any():
            raise ModelError(
                f"{self._name}: it puts special tokens inside the text; only special tokens before and after the text "
                "are supported",
                reason="special-tokens-inside",
                file=self._name,
            )

        ids = np.array(probe.ids, dtype=np.int64)
        return ids[: plain[0]], ids[plain[-1] + 1 :]

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """
        Tokenize texts. All offsets are those of the texts as given.

        :param texts: any strings; they may be empty
        """
        readings = [read(text, self.as_symbol if self._symbols_apart else None) for text in texts]
        readable = [reading.text for reading in readings]

        counts, ids, offsets, words = self._tokenized(readable)
        text_tokens = _ends(counts)
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

        text_words = np.searchsorted(word_token, text_tokens)
        word_start = offsets[word_token, 0]
        encoded = EncodedTexts(
            ids=ids,
            token_end=np.ascontiguousarray(offsets[:, 1]),
            text_tokens=text_tokens,
            word_token=word_token,
            word_start=word_start,
            word_end=word_end,
            text_words=text_words,
            types=types,
            borders=text_borders(readings, word_start, word_end, text_words),
            joints=joints_of(readings, word_start, word_end, text_words) if self._joins_touching else None,
        )

        _place_in_texts(encoded, readings)
        return encoded

    def as_symbol(self, symbol: str) -> str:
        """Return what is read in place of a symbol: a comma for one that the vocabulary lacks."""
        return symbol if self._tokenizer.token_to_id(symbol) is not None else _UNKNOWN_SYMBOL

    def _tokenized(self, texts: Sequence[str]) -> tuple[Ints, Ints, Ints, Ints]:
        """
        Tokenize texts, some at a time: the tokenizer's own objects take much more memory than arrays.

        :return: number of tokens of each text; id, character range and word number (-1 for none) of each token.
            *Shape:* (texts,), (tokens,), (tokens, 2), (tokens,)
        :raises ModelError: when the tokenizer fails, or makes too many tokens of a text
        """
        parts = [_arrays_of([])]
        tokens = characters = 0

        for group in grouped_by_size(texts, max(1, int(_CHARACTERS_AT_ONCE / self._growth))):
            # A signal ends the run between two calls: one takes a fraction of a second.
            with waiting():
                parts.append(_arrays_of(self._encodings(group)))

            tokens += len(parts[-1][1])
            characters += sum(map(len, group))
            if tokens > _MAX_TOKENS_PER_CHARACTER * characters + _MAX_EXTRA_TOKENS * len(texts):
                raise ModelError(
                    f"{self._name}: makes {tokens} tokens of {characters} characters; the tokenizer is damaged",
                    reason="growing-tokenizer",
                    file=self._name,
                    found=tokens,
                )

        counts, ids, offsets, words = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return counts, ids, offsets, words

    def _encodings(self, texts: Sequence[str], *, special: bool = False) -> list[Encoding]:
        """
        Return the tokenizer's own objects.

        :param special: whether special tokens are put around each text
        :raises ModelError: when the tokenizer fails
        """
        try:
            # ``encode`` would keep other Python threads from running, also the one that ends the process at a signal.
            with self._quiet():
                found: list[Encoding] = self._tokenizer.encode_batch(texts, add_special_tokens=special)
        except BaseException as err:
            if not _is_of_tokenizers(err):
                raise
            raise ModelError(
                f"{self._name}: the tokenizer fails on a text: {first_line(err)}",
                reason="tokenizer-fails",
                file=self._name,
            ) from err
        return found

    def batch(self, encoded: EncodedTexts, begin: Ints, length: int) -> EncodedBatch:
        """
        Cut segments of one length out of texts, and put the special tokens around each of them.

        :param encoded: the texts
        :param begin: first token of each segment. *Shape:* (batch,)
        :param length: number of tokens of each segment, without special tokens
        """
        tokens = begin[:, None] + np.arange(length)  # (batch, length)
        inside = slice(len(self.prefix), len(self.prefix) + length)

        ids = np.empty((len(begin), len(self.prefix) + length + len(self.suffix)), dtype=np.int64)
        ids[:, : inside.start] = self.prefix
        ids[:, inside] = encoded.ids[tokens]
        ids[:, inside.stop :] = self.suffix

        types = None
        if encoded.types is not None:
            types = np.zeros_like(ids)  # special tokens have type 0
            types[:, inside] = encoded.types[tokens]
        return EncodedBatch(ids, types)


def grouped_by_size(texts: Sequence[str], characters: int) -> Iterator[Sequence[str]]:
    """Yield consecutive texts in groups of at most that many characters; a longer text is a group of its own."""
    begin = size = 0
    for i, text in enumerate(texts):
        if i > begin and size + len(text) > characters:
            yield texts[begin:i]
            begin, size = i, 0
        size += len(text)

    if begin < len(texts):
        yield texts[begin:]


def _arrays_of(encodings: Sequence[Encoding]) -> tuple[Ints, Ints, Ints, Ints]:
    """Return the arrays of :meth:`TextEncoder._tokenized`; ``fromiter`` needs no list of all tokens in between."""
    counts = np.fromiter(map(len, encodings), dtype=np.int64, count=len(encodings))
    total = int(counts.sum())

    ids = np.fromiter(chain.from_iterable(e.ids for e in encodings), dtype=np.int64, count=total)
    pairs = chain.from_iterable(chain.from_iterable(e.offsets for e in encodings))
    offsets = np.fromiter(pairs, dtype=np.int64, count=2 * total).reshape(total, 2)

    words = np.fromiter((-1 if w is None else w for e in encodings for w in e.word_ids), dtype=np.int64, count=total)
    return counts, ids, offsets, words


def _is_of_tokenizers(err: BaseException) -> bool:
    """Whether an exception comes from the tokenizer: plain exceptions, and panics that are not an ``Exception``."""
    # A signal that ends a wait raises an error of ours, which must reach the caller as it is.
    is_plain = isinstance(err, Exception) and not isinstance(err, NerdError)
    return is_plain or type(err).__name__ == "PanicException"


def word_ranges(words: Sequence[str]) -> Ints:
    """Return the character range of each word in ``" ".join(words)``. *Shape:* (words, 2)."""
    lengths = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
    ends = np.cumsum(lengths + 1) - 1
    return np.stack([ends - lengths, ends], axis=1)


def _words(words: Ints, opens: Bools, offsets: Ints) -> tuple[Ints, Ints]:
    """
    Find the first token and the end of each word. Words without characters are dropped.

    :param words: number of each token's word in its text, -1 for none. *Shape:* (tokens,)
    :param opens: whether each token opens a word. *Shape:* (tokens,)
    :param offsets: character range of each token in its text. *Shape:* (tokens, 2)
    :return: first token of each word, and one past its last character. *Shape:* (words,) each
    """
    if not len(words):
        return np.empty(0, np.int64), np.empty(0, np.int64)

    first = np.flatnonzero(opens)
    # The offsets of a token without characters may lie anywhere.
    has_width = offsets[:, 1] > offsets[:, 0]
    end = np.maximum.reduceat(np.where(has_width, offsets[:, 1], 0), first)

    kept = (words[first] >= 0) & (end > offsets[first, 0])
    return first[kept], end[kept]


def _place_in_texts(encoded: EncodedTexts, readings: Sequence[Reading]) -> None:
    """Turn the offsets in what was read into offsets in the texts as given, in place."""
    for i, reading in enumerate(readings):
        if reading.begin is None or reading.end is None:
            continue

        tokens, words = (slice(int(first[i]), int(first[i + 1])) for first in (encoded.text_tokens, encoded.text_words))
        encoded.word_start[words] = reading.begin[encoded.word_start[words]]
        for ends in (encoded.word_end[words], encoded.token_end[tokens]):
            # A token without characters may end at 0.
            ends[:] = np.where(ends > 0, reading.end[np.maximum(ends - 1, 0)], 0)


def _ends(counts: Ints) -> Ints:
    """Return where each of some consecutive groups begins, and the total at the end. *Shape:* (groups + 1,)."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)))
