"""What a report is made of, whatever it is rendered to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


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
class Section:
    """
    A part of the report under a heading.

    :param blocks: paragraphs as plain text, bullet lists as tuples, tables, plots, code
    :param level: of the heading
    """

    title: str
    blocks: Sequence[str | tuple[str, ...] | Table | Plot | Code]
    level: int = 2


def rate(figures: Mapping[str, float]) -> str:
    """Show a median with its least and greatest value."""
    digits = 0 if figures["median"] >= 100 else 1  # noqa: PLR2004
    return f"{figures['median']:,.{digits}f} ({figures['min']:,.{digits}f} to {figures['max']:,.{digits}f})"


def title_of(report: Mapping[str, Any], shape: str, peer: str) -> str:
    """Name a peer as readers know it."""
    return str(report["shapes"][shape]["peers"].get(peer, {}).get("title", peer))
