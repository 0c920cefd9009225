"""
How much longer a tokenizer may make a text.

A ``tokenizer.json`` can replace every character by a thousand others, several times over. Text and memory would grow a
million times, and the tokenizer ends the process when there is no more memory. So the growth is computed from the steps
before any text is tokenized.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any

# Known tokenizers have at most 72: Unicode's longest replacement, 18, and two patterns.
MAX_GROWTH = 256.0
_SIZE_BYTES = 4

Step = Mapping[str, Any]


def states_of(tokenizer: Any) -> list[Step]:
    """Return the steps of normalizer and pre-tokenizer of a ``tokenizers.Tokenizer``, as its file describes them."""
    parts = (tokenizer.normalizer, tokenizer.pre_tokenizer)
    return [step for part in parts if part is not None for step in _steps(json.loads(part.__getstate__()))]


def growth(steps: Iterable[Step]) -> float:
    """
    Return how many characters one character becomes at most, as the product of all steps.

    Steps of a fixed kind, such as Unicode normalization, are left out: they do not grow when they are repeated.
    """
    return prod(map(_growth_of, steps))


def has_patterns(steps: Iterable[Step]) -> bool:
    """Whether one of the steps searches for a regular expression, which fails on texts that take too many turns."""
    return any("Regex" in (step.get("pattern") or ()) for step in steps)


def _steps(state: Step) -> Iterator[Step]:
    """Yield the steps of a normalizer or pre-tokenizer, those of nested sequences too."""
    inner = [step for key in ("normalizers", "pretokenizers") for step in state.get(key) or ()]
    if not inner:
        yield state
    for step in inner:
        yield from _steps(step)


def _growth_of(step: Step) -> float:
    kind = step.get("type")
    if kind == "Replace":
        pattern = step["pattern"].get("String", "")
        # A regular expression may match nothing, between all characters.
        return max(1.0, len(step["content"]) / len(pattern)) if pattern else 1.0 + len(step["content"])
    if kind == "Prepend":
        return 1.0 + len(step["prepend"])
    if kind == "ByteLevel":
        return 2.0  # a byte becomes a character of up to two bytes
    if kind == "Precompiled":
        return float(_longest_replacement(step["precompiled_charsmap"]))
    return 1.0


def _longest_replacement(charsmap: str) -> int:
    """Return the number of characters of the longest replacement in SentencePiece's table; 1 if it has none."""
    try:
        table = base64.b64decode(charsmap)
    except binascii.Error:  # the tokenizer could not read it either
        return 1

    # The table is the size of a search tree, the tree, and the replacements with a zero byte after each.
    tree = int.from_bytes(table[:_SIZE_BYTES], "little")
    replacements = table[_SIZE_BYTES + tree :].decode(errors="replace").split("\0")
    return max(1, *map(len, replacements))
