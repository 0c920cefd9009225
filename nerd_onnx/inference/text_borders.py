"""
Borders of entities that a text shows by its lines, tabs and symbols.

Networks are trained on sentences and read white space as white space. So a list of names, one per line, looks like one
long name to them. A name that is wrapped over two lines looks the same, and must stay one entity. The difference is
where the parts are: in a list, a name fills its line.

- A tab, a blank line or several line breaks separate. No entity crosses them.
- A single line break separates where the part of the entity before it begins its line, or follows a colon; and where
  the part after it ends its line, unless this is the last line of the text. Elsewhere an entity may cross it. So no
  entity crosses two of them: the part between two breaks begins its line.
- A symbol (:mod:`tokenizer_input`) may be inside an entity, but not at its begin or end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nerd_onnx.inference.arrays import Bools, Ints
from nerd_onnx.inference.tokenizer_input import Reading, symbol_words

_LINES = re.compile(r"[\n\r\t]")
_MARKS = re.compile(r"(?P<line>(?>\r\n|\n|\r))|(?P<tab>\t)|:")


@dataclass(frozen=True)
class TextBorders:
    """
    The borders in some texts.

    :param separated: whether no entity goes from the word before to this one; true for the first word of each text.
        *Shape:* (words,)
    :param broken: whether a single line break is before a word. *Shape:* (words,)
    :param begins_line: whether a word is the first of its line or table cell, or follows a colon. *Shape:* (words,)
    :param ends_line: whether a word is the last of its line or table cell; false at the end of a text. *Shape:*
        (words,)
    :param symbols: whether a word is a symbol. *Shape:* (words,)
    """

    separated: Bools
    broken: Bools
    begins_line: Bools
    ends_line: Bools
    symbols: Bools

    def separating_breaks(self, word: Ints, label: Ints) -> tuple[Ints, Ints]:
        """
        Find the line breaks that separate entities.

        :param word: words that may be in an entity of a label, sorted by label, then by word. *Shape:* (pairs,)
        :param label: the label of each. *Shape:* (pairs,)
        :return: words that cannot continue an entity of a label, and these labels. *Shape:* (borders,) each
        """
        if not len(word):
            return word, label

        goes_on = np.zeros(len(word), dtype=np.bool_)
        goes_on[1:] = (word[1:] == word[:-1] + 1) & (label[1:] == label[:-1]) & ~self.separated[word[1:]]
        at_break = goes_on & self.broken[word]

        # A part of an entity is a range of pairs in one line.
        opens = ~goes_on | at_break
        part = np.cumsum(opens) - 1  # (pairs,)

        begin = np.flatnonzero(opens)  # (parts,)
        end = np.append(begin[1:], len(word))

        # The first pair continues nothing, so there is a part before each break.
        after = part[at_break]
        separates = self.begins_line[word[begin[after - 1]]] | self.ends_line[word[end[after] - 1]]
        return word[at_break][separates], label[at_break][separates]

    def without_symbols(self, first: Ints, last: Ints) -> tuple[Ints, Ints]:
        """
        Move the borders of entities inwards to the next words that are no symbols.

        :param first: first word of each entity. *Shape:* (entities,)
        :param last: last word of each. *Shape:* (entities,)
        :return: the new first and last words; the first is greater than the last where all words are symbols. *Shape:*
            (entities,) each
        """
        place = np.arange(len(self.symbols))
        before = np.maximum.accumulate(np.where(self.symbols, -1, place))
        behind = np.minimum.accumulate(np.where(self.symbols, len(place), place)[::-1])[::-1]
        return behind[first], before[last]


def text_borders(readings: Sequence[Reading], start: Ints, end: Ints, text_words: Ints) -> TextBorders | None:
    """
    Return the borders that texts show; None where none of them shows any.

    :param readings: what was tokenized
    :param start: first character of each word in what was read. *Shape:* (words,)
    :param end: one past its last character. *Shape:* (words,)
    :param text_words: first word of each text, and the total at the end. *Shape:* (texts + 1,)
    """
    symbols = symbol_words(readings, start, end, text_words)
    with_lines = [i for i, reading in enumerate(readings) if _LINES.search(reading.text)]
    if symbols is None and not with_lines:
        return None

    words = len(start)
    lines, tabs, follows_colon = _marks_before(readings, with_lines, start, text_words)

    # Texts without words at the end begin behind the last word, which is why all arrays have one place more.
    firsts = text_words[:-1]
    lines[firsts] = tabs[firsts] = 0

    opens_line = (lines > 0) | (tabs > 0)  # (words + 1,)
    # Before the first words are marked, because the last word of a text ends no line.
    ends_line = opens_line[1:].copy()
    opens_line[firsts] = True

    separated = (lines > 1) | (tabs > 0)
    separated[firsts] = True
    return TextBorders(
        separated=separated[:words],
        broken=(lines == 1)[:words] & (tabs == 0)[:words],
        begins_line=(opens_line | follows_colon)[:words],
        ends_line=ends_line,
        symbols=np.zeros(words, dtype=np.bool_) if symbols is None else symbols,
    )


def _marks_before(
    readings: Sequence[Reading], with_lines: Sequence[int], start: Ints, text_words: Ints
) -> tuple[Ints, Ints, Bools]:
    """
    Count the line breaks and tabs before each word, and find the words that follow a colon.

    :param with_lines: the texts to look at; the others have no lines
    :param start: see :func:`text_borders`, as ``text_words``
    :return: number of line breaks, number of tabs, and whether a colon is before the word. *Shape:* (words + 1,) each
    """
    lines, tabs = (np.zeros(len(start) + 1, dtype=np.int64) for _ in range(2))
    follows_colon = np.zeros(len(start) + 1, dtype=np.bool_)

    for i in with_lines:
        first, after = int(text_words[i]), int(text_words[i + 1])
        marks = [(match.start(), match.lastgroup) for match in _MARKS.finditer(readings[i].text)]
        kinds = np.array([kind or "colon" for _, kind in marks])
        following = first + np.searchsorted(start[first:after], [place for place, _ in marks], side="right")

        # What is behind the last word of a text is before no word of it.
        inside = following < after
        np.add.at(lines, following[inside & (kinds == "line")], 1)
        np.add.at(tabs, following[inside & (kinds == "tab")], 1)
        follows_colon[following[inside & (kinds == "colon")]] = True

    return lines, tabs, follows_colon
