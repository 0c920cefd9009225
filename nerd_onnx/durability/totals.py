"""Counts of rows, which the journal records for each finished file."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass
class Totals:
    """
    Counts of rows, of one file or of all. ``rows`` is ``written`` plus ``rejected``.

    :param rows: rows read
    :param written: rows written with their entities
    :param rejected: rows that could not be read or tagged
    :param nulled: rejected rows that were written with null entities and a reason
    :param null_rows: rows without text, whose entities are null
    :param entities: entities in the rows written
    :param tokens: tokens that the network read
    :param refused_files: files that could not be read to their end; their rows are not counted
    """

    rows: int = 0
    written: int = 0
    rejected: int = 0
    nulled: int = 0
    null_rows: int = 0
    entities: int = 0
    tokens: int = 0
    refused_files: int = 0

    def add(self, other: Totals) -> None:
        """Add the counts of another file."""
        for part in fields(Totals):
            setattr(self, part.name, getattr(self, part.name) + getattr(other, part.name))

    def set_totals(self, *parts: Totals) -> None:
        """Replace all counts by the sums of others."""
        for part in fields(Totals):
            setattr(self, part.name, sum(getattr(other, part.name) for other in parts))
