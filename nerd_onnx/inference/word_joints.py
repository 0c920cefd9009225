"""
Joints: where two words are one written word.

Some models begin an entity at every piece of a written word: they say ``B-EMAIL`` for each of ``maria``, ``@``,
``example``, ``.`` and ``com``. With ``join`` ``touching``, words of one type that touch are one entity, whatever their
prefixes are; and so are two of them with one hyphen or apostrophe between them (``Jean-Pierre``, ``O'Brien``). Scripts
that are written without spaces are left out, because there touching words are not one written word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nerd_onnx.inference.arrays import Bools, Ints
from nerd_onnx.inference.tokenizer_input import Reading

Join = Literal["touching", "scheme"]

_SIGNS = np.array(sorted(map(ord, "-'\u2019\u2010\u2011")), dtype=np.uint32)
# Thai and Lao, Tibetan, Myanmar, Khmer, ideographs and kana.
_WITHOUT_SPACES = (
    (0x0E00, 0x0FFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x2E80, 0x312F),
    (0x31F0, 0x31FF),
    (0x3400, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D),
    (0x20000, 0x323AF),
)


@dataclass(frozen=True)
class Joints:
    """
    The joints in some texts.

    :param touches: whether a word is in one written word with the word before. *Shape:* (words + 1,), false at the end
    :param signs: whether a word is a hyphen or an apostrophe inside of a written word. *Shape:* (words,)
    """

    touches: Bools
    signs: Bools

    def join(self, types: Ints, opens: Bools) -> tuple[Ints, Bools]:
        """
        Join the entities that are parts of one written word.

        :param types: type of each word; below 0 outside of entities. *Shape:* (words,)
        :param opens: whether each word opens an entity. *Shape:* (words,)
        :return: the new types and openings. *Shape:* (words,) each
        """
        types = types.copy()
        # A sign has a word of the same text on both sides, so both indices exist.
        sign = np.flatnonzero(self.signs & (types < 0))
        between = sign[(types[sign - 1] >= 0) & (types[sign - 1] == types[sign + 1])]
        types[between] = types[between - 1]

        joined = self.touches[:-1] & (types >= 0)
        joined[1:] &= types[1:] == types[:-1]
        return types, opens & ~joined


def joints_of(readings: Sequence[Reading], start: Ints, end: Ints, text_words: Ints) -> Joints:
    """
    Find the joints in texts.

    :param readings: what was tokenized
    :param start: first character of each word in what was read. *Shape:* (words,)
    :param end: one past its last character. *Shape:* (words,)
    :param text_words: first word of each text, and the total at the end. *Shape:* (texts + 1,)
    """
    touches = np.zeros(len(start) + 1, dtype=np.bool_)
    touches[1:-1] = start[1:] == end[:-1]
    # Offsets begin at 0 in each text, so equal ones mean nothing across texts.
    touches[text_words] = False

    lengths = np.fromiter((len(reading.text) for reading in readings), dtype=np.int64, count=len(readings))
    base = np.repeat(np.cumsum(lengths) - lengths, np.diff(text_words))  # (words,): where the text of each word begins
    points = np.frombuffer("".join(reading.text for reading in readings).encode("utf-32-le"), dtype=np.dtype("<u4"))

    at = np.flatnonzero(touches)
    place = base[at] + start[at]
    touches[at] = ~(_is_without_spaces(points[place]) | _is_without_spaces(points[place - 1]))

    signs = touches[:-1] & touches[1:] & (end - start == 1)
    signs[signs] = np.isin(points[base[signs] + start[signs]], _SIGNS)
    return Joints(touches, signs)


def _is_without_spaces(points: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> Bools:
    """Whether each code point is of a script that is written without spaces."""
    found = np.zeros(len(points), dtype=np.bool_)
    for first, last in _WITHOUT_SPACES:
        found |= (points >= first) & (points <= last)
    return found
