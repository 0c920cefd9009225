"""
What the tokenizer reads in place of a text, with the way back to the characters as given.

Some characters hide the words beside them. A normalizer deletes form feeds, so that the words around one become a
single word; WordPiece turns a whole word into ``[UNK]`` for one emoji in it; it does not know ligatures. So a text is
read with these differences:

- control characters, zero-width spaces and byte order marks are white space,
- symbols (emoji, arrows, superscripts, box drawing) have a space on both sides, where the tokenizer needs it, and are
  a comma where its vocabulary lacks them,
- compatibility letters and digits (ligatures, full-width and mathematical letters) are the plain ones of NFKC,
- HTML entities (``&nbsp;``) are the character that they stand for,
- a lone surrogate is U+FFFD, because UTF-8 cannot represent it.

Most texts have none of this and are read as they are: one search per text finds that out.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html.entities import html5

import numpy as np

from nerd_onnx.inference.arrays import Bools, Ints, ragged_arange

# All C0 and C1 controls but tab, line feed, carriage return and vertical tab; zero-width space; line and paragraph
# separator; byte order mark. No tokenizer may delete them and join the words beside them.
_CONTROLS = "\x00-\x08\x0c\x0e-\x1f\x7f-\x9f\u200b\u2028\u2029\ufeff"
_LINE_TABULATION = "\x0b"  # what word processors write for a line break inside a paragraph
_SURROGATES = "\ud800-\udfff"

# Blocks of symbols. Ranges and not Unicode categories: these differ between versions of Python.
_SYMBOLS = (
    "\u00a6\u00a9\u00ac\u00ae\u00b0-\u00b3\u00b9\u00d7\u00f7"  # Latin-1: broken bar to division sign
    "\u2070\u2074-\u207e"  # superscripts
    "\u2100\u2101\u2103-\u2106\u2108\u2109\u2114\u2116-\u2118\u211e-\u2123\u2125\u2127\u2129\u213a\u213b\u2140-\u2144"
    "\u214a-\u214d\u214f"  # letterlike symbols that are no letters
    "\u2190-\u2bff"  # arrows, mathematics, technical, enclosed, box drawing, shapes, dingbats, more arrows
    "\u3004\u3012\u3013\u3020\u3036\u3037\u303e\u303f\u3200-\u33ff"  # symbols of CJK
    "\ue000-\uf8ff"  # private use: icons of fonts
    "\ufffc"  # object replacement
    "\U0001d000-\U0001d3ff"  # musical notation and more
    "\U0001f000-\U0001fbff"  # emoji, pictographs, shapes
    "\U000f0000-\U0010fffd"  # private use
)
# An emoji goes on over joiners, variation selectors, keycaps and tags.
_JOINERS = "\u200d\u20e3\ufe0e\ufe0f\U000e0020-\U000e007f"
_SYMBOL_RUN = rf"[0-9#*]\ufe0f?\u20e3|[{_SYMBOLS}][{_SYMBOLS}{_JOINERS}]*+"

# Where compatibility letters and digits are; each is looked up in NFKC.
_COMPATIBLE = (
    "\u0132\u0133\u017f\u01c4-\u01cc\u01f1-\u01f3"  # Latin digraphs, long s
    "\u2102\u210a-\u2113\u2115\u2119-\u211d\u2124\u2128\u212a-\u2131\u2133-\u2139\u213c-\u213f\u2145-\u2149"
    "\u2160-\u217f"  # Roman numerals
    "\ufb00-\ufb06\ufb13-\ufb17\ufb1d-\ufb4f"  # ligatures: Latin, Armenian; Hebrew presentation forms
    "\ufb50-\ufdff\ufe70-\ufefc"  # Arabic presentation forms
    "\uff10-\uff19\uff21-\uff3a\uff41-\uff5a"  # full-width digits and letters
    "\U0001d400-\U0001d7ff"  # mathematical letters and digits
)
_ENTITY = r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"

_PARTS = (
    rf"(?P<entity>{_ENTITY})|(?P<space>[{_CONTROLS}{_LINE_TABULATION}]+)|(?P<surrogate>[{_SURROGATES}]+)"
    rf"|(?P<compatible>[{_COMPATIBLE}]+)"
)
_CARE = re.compile(rf"{_PARTS}|(?P<symbol>{_SYMBOL_RUN})")
# What of it an ASCII text can have: most texts need no more than this short search.
_ASCII_CARE = re.compile(rf"{_ENTITY}|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_RUN_OF_SYMBOLS = re.compile(_SYMBOL_RUN)
_SPACES = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x200B, 0x2028, 0x2029, 0xFEFF], " ") | {0x0B: "\n"}

# What is read, the first and one past the last character of the text that it stands for, and whether it is a symbol.
_Part = tuple[str, int, int, bool]


@dataclass(frozen=True)
class Reading:
    """
    A text as the tokenizer reads it.

    :param text: what is tokenized
    :param begin: first character of the text as given that each read character stands for; None where all are the same.
        *Shape:* (characters,)
    :param end: one past the last one. *Shape:* (characters,)
    :param symbols: ranges of ``text`` that are symbols. They begin and end no entity
    """

    text: str
    begin: Ints | None = None
    end: Ints | None = None
    symbols: Sequence[tuple[int, int]] = ()


def read(text: str, symbol: Callable[[str], str] | None) -> Reading:
    """
    Return what the tokenizer reads in place of a text.

    :param symbol: returns what is read, with a space on both sides, in place of a symbol or an emoji of several
        characters; None to read symbols as they are
    """
    care = _ASCII_CARE if text.isascii() else _CARE
    if care.search(text) is None:
        return Reading(text)

    read_parts: list[str] = []
    begins: list[Ints] = []
    ends: list[Ints] = []
    symbols: list[tuple[int, int]] = []
    length, is_moved = 0, False

    for part, begin, end, is_symbol in _parts(text, symbol):
        read_parts.append(part)
        if is_symbol:
            symbols.append((length, length + len(part)))
        length += len(part)

        if len(part) == end - begin:
            places = np.arange(begin, end)
            begins.append(places)
            ends.append(places + 1)
        else:
            # Each character of the part stands for all that it replaces.
            begins.append(np.full(len(part), begin))
            ends.append(np.full(len(part), end))
            is_moved = True

    if not is_moved:
        return Reading("".join(read_parts), symbols=symbols)
    return Reading("".join(read_parts), np.concatenate(begins), np.concatenate(ends), symbols)


def _parts(text: str, symbol: Callable[[str], str] | None) -> Iterator[_Part]:
    """Yield the parts of a text as they are read, see :func:`read`."""
    done = 0
    for match in _CARE.finditer(text):
        begin, end = match.span()
        if begin > done:
            yield text[done:begin], done, begin, False
        done = end

        found, kind = match[0], match.lastgroup
        if kind == "space":
            yield found.translate(_SPACES), begin, end, False
        elif kind == "surrogate":
            yield "\ufffd" * len(found), begin, end, False
        elif kind == "symbol":
            yield from _symbol(found, begin, end, symbol)
        elif kind == "compatible":
            for i, char in enumerate(found, begin):
                yield _plain_letters(char), i, i + 1, False
        else:
            yield from _entity(found, begin, end, symbol)

    if done < len(text):
        yield text[done:], done, len(text), False


def _symbol(found: str, begin: int, end: int, symbol: Callable[[str], str] | None) -> Iterator[_Part]:
    """Yield a symbol, between two spaces that stand for nothing unless it is read as it is."""
    if symbol is None:
        yield found, begin, end, True
        return

    yield " ", begin, begin, False
    yield symbol(found), begin, end, True
    yield " ", end, end, False


def _entity(name: str, begin: int, end: int, symbol: Callable[[str], str] | None) -> Iterator[_Part]:
    """Yield the character of an HTML entity; a name that HTML does not know is read as it is."""
    if name[1] != "#" and name[1:] not in html5:
        yield name, begin, end, False
        return

    # Numbers that are no character give an empty string.
    char = html.unescape(name).translate(_SPACES) or " "
    if _RUN_OF_SYMBOLS.match(char):
        yield from _symbol(char, begin, end, symbol)
    else:
        yield " " if char.isspace() else char, begin, end, False


@lru_cache(maxsize=4096)
def _plain_letters(char: str) -> str:
    """Return the letters or digits that NFKC has for a character; the character itself where these are others."""
    plain = unicodedata.normalize("NFKC", char)
    return plain if plain.isalnum() else char


def symbol_words(readings: Sequence[Reading], start: Ints, end: Ints, text_words: Ints) -> Bools | None:
    """
    Find the words that are symbols.

    :param readings: what was tokenized
    :param start: first character of each word in what was read. *Shape:* (words,)
    :param end: one past its last character. *Shape:* (words,)
    :param text_words: first word of each text, and the total at the end. *Shape:* (texts + 1,)
    :return: whether each word is a symbol; None where none is. *Shape:* (words,)
    """
    found: Bools | None = None
    for i, reading in enumerate(readings):
        if not reading.symbols:
            continue
        if found is None:
            found = np.zeros(len(start), dtype=np.bool_)

        words = slice(int(text_words[i]), int(text_words[i + 1]))
        begins, ends = np.array(reading.symbols, dtype=np.int64).T
        first, after = np.searchsorted(start[words], begins), np.searchsorted(end[words], ends, side="right")
        # A symbol inside of a word has no word of its own: ``after`` is before ``first``.
        found[words.start + ragged_arange(first, np.maximum(first, after))] = True
    return found
