"""The parts of a report, independent of the output format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """
    A table; the first column has the names of the rows.

    :param strong: indices of rows to emphasise
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Plot:
    """
    A drawing, for renderers that can show drawings.

    :param svg: an SVG element without a fixed size
    :param caption: description in words
    """

    svg: str
    caption: str


@dataclass(frozen=True)
class Code:
    """Lines of code, shown unchanged."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Mark:
    """
    A marked part of a text.

    :param start: first character
    :param end: index after the last character
    :param name: the text of the mark
    :param style: class of the page's style sheet
    """

    start: int
    end: int
    name: str
    style: str


@dataclass(frozen=True)
class Passages:
    """
    Texts with marked parts, for renderers that can show marks.

    :param passages: each text and its marks; where two overlap, the second is shortened
    """

    passages: Sequence[tuple[str, Sequence[Mark]]]


@dataclass(frozen=True)
class Section:
    """
    A part of the report under a heading.

    :param blocks: paragraphs as plain text, bullet lists as tuples, tables, plots, code, passages
    :param level: level of the heading
    """

    title: str
    blocks: Sequence[str | tuple[str, ...] | Table | Plot | Code | Passages]
    level: int = 2
