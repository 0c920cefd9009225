"""What a report is made of, whatever it is rendered to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """
    A table; its first column names the rows.

    :param strong: rows to set off, by number
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Plot:
    """
    A drawing, for renderers that can show one.

    :param svg: without any size of its own
    :param caption: what it shows, in words
    """

    svg: str
    caption: str


@dataclass(frozen=True)
class Code:
    """Lines to be copied as they are."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Mark:
    """
    A marked part of a text.

    :param start: first character
    :param end: one past the last
    :param name: what is said of it
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

    :param passages: each text and its marks; where two overlap, the second shows what is left of it
    """

    passages: Sequence[tuple[str, Sequence[Mark]]]


@dataclass(frozen=True)
class Section:
    """
    A part of the report under a heading.

    :param blocks: paragraphs as plain text, bullet lists as tuples, tables, plots, code, passages
    :param level: of the heading
    """

    title: str
    blocks: Sequence[str | tuple[str, ...] | Table | Plot | Code | Passages]
    level: int = 2
