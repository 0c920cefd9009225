"""
Word rules: which tokens form one word.

A network decides each word once, by its first token, so the words must be those it was trained on. BERT's
pre-tokenizer splits text at white space, punctuation and ideographs. Other pre-tokenizers split less: SentencePiece's
keeps everything between two spaces together (``Paris,``), and some tokenizers have none. Their pre-tokens are split
further here, at token borders next to white space, punctuation or an ideograph (:func:`split_at_borders`).

Treebanks, whose words most labelled text has, keep some of these pieces together: ``Saint-Pierre``, ``No.1``,
``U.S.``, ``AT&T``. The rule ``treebank`` joins them again (:func:`joined_words`). A suffix that describes a name is a
word of its own, as annotators separate it from the name: ``London`` and ``-based``. Words are not joined where only a
space is missing (``Merkel.She``), or where a slash is between two names (``Paris/London``).
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from nerd_onnx.inference.arrays import Bools, Ints

WordRule = Literal["pretokens", "treebank"]

# A suffix that describes a name and is no part of it: London-based, Spanish-language.
_SUFFIX = r"-(?:based|born|bred|built|held|language|led|like|style|[a-z]{2,20}(?:ed|ing))(?![^\W_])"
# Letters and digits with a sign between them, or single letters that each have a full stop behind them. The number of
# repeats is limited, so that a whole text cannot become one word. Quantifiers are possessive and a match starts only
# where letters start, so that the time grows linearly with the text.
JOINED = re.compile(
    rf"(?:[^\W\d_]\.){{2,20}}|(?<![^\W_])[^\W_]++(?:(?!{_SUFFIX})[-._/&][^\W_]++){{1,20}}|(?<=[^\W_]|\.){_SUFFIX}"
)
# Each match of JOINED has such a sign, and no white space. Most words have none, and looking for it is quick.
_SIGN = re.compile(r"[-._/&](?=[^\W_])")
_WHITE_SPACE = re.compile(r"\s")

_LETTERS = re.compile(r"[^\W_]++")
# Letters in capitals: in ASP.Net and NO.A a full stop ends no sentence, in NATO.The it does.
_LONGEST_ABBREVIATION = 3
_ONE_LETTER_WORDS = frozenset({"A", "I"})
# A full stop before one of these is a part of a name, as in Node.Js, and ends no sentence.
_WEB_ENDINGS = frozenset({"Com", "Js", "Net", "Org"})

PROBE = 'a b, (c) "d" \u6771\u4eac\u5e02'  # white space, punctuation on both sides of letters, ideographs

_SPACE, _BORDER = 1, 2
_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))


def splits_words(probe: str, start: Ints, end: Ints) -> bool:
    """
    Whether a tokenizer's own words are fine enough: no word contains a border of :func:`split_at_borders`.

    :param probe: the text that was split into words, see :data:`PROBE`
    :param start: first character of each word. *Shape:* (words,)
    :param end: one past the last character of each word. *Shape:* (words,)
    """
    words = (probe[s:e] for s, e in zip(start, end, strict=True))
    return not any(len(word) > 1 and any(map(_kind, word)) for word in words)


def split_at_borders(texts: Sequence[str], offsets: Ints, text_tokens: Ints, pre_tokens: Ints) -> tuple[Ints, Bools]:
    """
    Trim white space off the ends of tokens, and find the tokens that open a word by the characters around them.

    A token of nothing but white space (a lone ``\u2581`` or ``\u0120``) opens the word that follows it in the same
    pre-token: a network that was trained on the tokenizer's words decides such a word by that first token. Example,
    for a tokenizer that splits at spaces only::

        text        I met Jo, ok
        offsets     (0, 1) (1, 5) (5, 6) (6, 8) (8, 9) (9, 12)
        pre_tokens  0      1      2      2      2      3
        characters  "I"    " met" " "    "Jo"   ","    " ok"
        trimmed     (0, 1) (2, 5) (6, 6) (6, 8) (8, 9) (10, 12)
        opens       no     yes    yes    no     yes    yes

    The first word of a text is not always marked; :func:`letter_case.word_openings` finds it.

    :param texts: what was tokenized
    :param offsets: character range of each token in its text. *Shape:* (tokens, 2)
    :param text_tokens: first token of each text, and the total at the end. *Shape:* (texts + 1,)
    :param pre_tokens: number of each token's pre-token in its text. *Shape:* (tokens,)
    :return: the ranges without white space at their ends, and whether each token opens a word. *Shape:* (tokens, 2),
        (tokens,)
    """
    # All texts become one array of character kinds, and the tokens' offsets become places in it: UTF-32 has one number
    # per character. The space at the end may be looked at by a token that ends with the last text.
    points = np.frombuffer("".join((*texts, " ")).encode("utf-32-le"), dtype=np.dtype("<u4"))
    kinds = character_kinds()[points]  # (characters of all texts + 1,)

    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    text_start = np.cumsum(lengths) - lengths  # (texts,)
    base = np.repeat(text_start, np.diff(text_tokens))  # (tokens,): where the text of each token starts

    origin = offsets[:, 0] + base
    start, end = _trimmed(kinds, origin, offsets[:, 1] + base)
    # Trimming moved a blank token to its end.
    is_blank = start == end
    start, end = np.where(is_blank, origin, start), np.where(is_blank, origin, end)

    # A word opens behind a space or a sign, and at a sign.
    at_border = (kinds[np.maximum(start - 1, 0)] != 0) | (kinds[start] == _BORDER)

    # Tokens of single bytes overlap where they make up one character; these stay together.
    begins_character = np.ones(len(start), dtype=np.bool_)
    begins_character[1:] = start[1:] >= end[:-1]

    opens = at_border & begins_character & (start < end)

    # Blank tokens take over the opening of the word behind them, unless their text or their pre-token ends before it.
    leads = np.zeros(len(start), dtype=np.bool_)
    leads[:-1] = is_blank[:-1] & opens[1:] & (pre_tokens[:-1] == pre_tokens[1:])

    last_of_text = text_tokens[1:][np.diff(text_tokens) > 0] - 1  # (texts with tokens,)
    leads[last_of_text] = False

    led = np.flatnonzero(leads) + 1
    start[leads] = end[leads] = start[led]
    opens[led], opens[leads] = False, True
    return np.stack([start - base, end - base], axis=1), opens


def _trimmed(kinds: npt.NDArray[np.uint8], start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """
    Take white space off both ends of character ranges. A range of white space alone becomes empty.

    :param kinds: kind of each character, see :func:`character_kinds`. *Shape:* (characters,)
    :param start: first character of each range. *Shape:* (tokens,)
    :param end: one past the last character. *Shape:* (tokens,)
    :return: the new starts and ends. *Shape:* (tokens,) each
    """
    # One character per turn from all tokens at once: tokens have few spaces at their ends.
    while (on_space := (start < end) & (kinds[start] == _SPACE)).any():
        start = start + on_space
    while (on_space := (start < end) & (kinds[end - 1] == _SPACE)).any():
        end = end - on_space
    return start, end


def joined_words(texts: Sequence[str], start: Ints, end: Ints, text_words: Ints) -> tuple[Bools, Ints]:
    """
    Join the words that a treebank keeps together.

    For the text ``AT&T, ok`` with the words ``AT``, ``&``, ``T``, ``,`` and ``ok``, the result is that the first, the
    fourth and the fifth open a word, and that these words end at the characters 4, 5 and 8.

    :param texts: what was tokenized
    :param start: first character of each word in its text. *Shape:* (words,)
    :param end: one past its last character. *Shape:* (words,)
    :param text_words: first word of each text, and the total at the end. *Shape:* (texts + 1,)
    :return: whether each word opens a joined word, and the ends of the joined words. *Shape:* (words,),
        (joined words,)
    """
    opens, ends = np.ones(len(start), dtype=np.bool_), end.copy()

    for i, text in enumerate(texts):
        first, last = int(text_words[i]), int(text_words[i + 1])

        for match in joined_matches(text) if last - first > 1 else ():
            for span in _without_glue(text, *match.span()):
                begin, stop = first + np.searchsorted(start[first:last], span)
                # Only whole words are joined; a match may begin or end inside a word of the tokenizer.
                if stop - begin > 1 and start[begin] == span[0] and end[stop - 1] == span[1]:
                    opens[begin + 1 : stop] = False
                    ends[begin] = span[1]

    return opens, ends[opens]


def joined_matches(text: str) -> Iterator[re.Match[str]]:
    """Yield the matches of :data:`JOINED`, found in the parts of a text between spaces that have a sign."""
    done = 0
    for sign in _SIGN.finditer(text):
        if sign.start() < done:
            continue

        begin = max(done, text.rfind(" ", done, sign.start()) + 1)
        behind = _WHITE_SPACE.search(text, sign.start())
        done = len(text) if behind is None else behind.start()
        yield from JOINED.finditer(text, begin, done)


def _without_glue(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a match of :data:`JOINED` between the signs that join no words."""
    for before, behind in pairwise(_LETTERS.finditer(text, begin, end)):
        sign = text[before.end() : behind.start()]
        if (sign == "." and _is_sentence_end(before[0], behind[0])) or (sign == "/" and _is_list(before[0], behind[0])):
            yield begin, before.end()
            begin = behind.start()
    yield begin, end


def _is_sentence_end(before: str, behind: str) -> bool:
    """Whether a full stop between two words ends a sentence: ``Merkel.She``, and not ``No.1``, ``J.Smith``."""
    if not (before[-1].islower() or len(before) > _LONGEST_ABBREVIATION):
        return False
    if behind in _ONE_LETTER_WORDS:
        return len(before) > _LONGEST_ABBREVIATION
    return behind[0].isupper() and behind[1:2].islower() and behind not in _WEB_ENDINGS


def _is_list(before: str, behind: str) -> bool:
    """Whether a slash is between two names: ``Paris/London`` and not ``AC/DC``, ``and/or``."""
    return before[0].isupper() and behind[0].isupper() and not (before.isupper() and behind.isupper())


@cache
def character_kinds() -> npt.NDArray[np.uint8]:
    """
    Return the kind of every code point: 1 for white space, 2 for punctuation, symbols and ideographs, else 0.

    :return: *Shape:* (code points,)
    """
    kinds: npt.NDArray[np.uint8] = np.zeros(sys.maxunicode + 1, dtype=np.uint8)
    for point in range(sys.maxunicode + 1):
        kinds[point] = _kind(chr(point))
    return kinds


def _kind(char: str) -> int:
    """Return the kind of one character, see :func:`character_kinds`."""
    if char.isspace():
        return _SPACE

    ideograph = any(first <= ord(char) <= last for first, last in _IDEOGRAPHS)
    return _BORDER if ideograph or unicodedata.category(char)[0] in "PS" else 0
