"""Split texts into tokens, for formats without character offsets. No model is needed; entities are whole tokens."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

from nerd_onnx.errors import InputError
from nerd_onnx.formats.tagged_file import TaggedEntity, TaggedRow

_WORD_OR_SIGN = re.compile(r"\w+|[^\w\s]")


def tokens_of(text: str, entities: Sequence[TaggedEntity]) -> list[tuple[int, int]]:
    """
    Split a text at white space, around each character that is no letter or digit, and where an entity begins or ends.

    :param entities: ordered by their start
    :return: start and end of each token, in code points; no token has white space
    """
    # Formats with one tag per token cannot divide a token, so the tokens follow the entities.
    borders = sorted({border for entity in entities for border in (entity.start, entity.end)})
    tokens: list[tuple[int, int]] = []
    for start, end in _words(text):
        # A border inside of a word splits it; on its edge there is nothing to split.
        inside = borders[bisect_right(borders, start) : bisect_left(borders, end)]
        tokens += pairwise([start, *inside, end])

    return tokens


def check_entities(row: TaggedRow, format_name: str) -> None:
    """
    Check that each entity of a row has tokens of its own.

    :param format_name: the format that cannot represent other entities, for the message
    :raises InputError: if two entities overlap, or one is only white space
    """
    for entity in row.entities or ():
        if not (row.text or "")[entity.start : entity.end].strip():
            raise InputError(
                f"{row.place}: entity {entity.start}:{entity.end} consists of white space only, which {format_name} "
                "cannot represent",
                reason="entity-blank",
                **row.where,
                start=entity.start,
                end=entity.end,
            )

    for one, other in pairwise(row.entities or ()):
        if other.start < one.end:
            raise InputError(
                f"{row.place}: entities {one.start}:{one.end} and {other.start}:{other.end} overlap, which "
                f"{format_name} cannot represent",
                reason="entities-overlap",
                **row.where,
                start=other.start,
                end=one.end,
            )


def _words(text: str) -> list[tuple[int, int]]:
    """Return words and single other characters; accents and vowel signs stay with the letter before them."""
    words: list[tuple[int, int]] = []
    for match in _WORD_OR_SIGN.finditer(text):
        start, end = match.span()
        touches = bool(words) and words[-1][1] == start
        # The expression for words ends them at vowel signs, which would cut words of Hindi or Tamil into pieces.
        if touches and (_is_mark(text[start]) or (_is_mark(text[start - 1]) and text[start].isalnum())):
            start = words.pop()[0]
        words.append((start, end))

    return words


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")
