"""BRAT standoff: a folder with one text file and one annotation file per row, and the configuration for BRAT."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nerd_onnx.errors import InputError
from nerd_onnx.formats.tagged_file import TaggedEntity, TaggedRow

# Any of these ends a line or column for some program. BRAT writes an entity with one of them as two fragments.
_FRAGMENT = re.compile("[^\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
_NO_TYPE = re.compile(r"[^\w-]")


def write_brat(rows: Iterable[TaggedRow], folder: Path) -> None:
    """
    Write ``row-0000000.txt`` and ``.ann`` for each row, and ``annotation.conf``.

    :param folder: an existing empty folder
    :raises InputError: if an entity consists of line breaks only
    """
    types: set[str] = set()
    for row in rows:
        # With leading zeros, the files are in the order of the rows where they are listed by name.
        stem = folder / f"row-{row.number:07}"
        text = row.text or ""
        lines: list[str] = []

        for number, entity in enumerate(row.entities or (), 1):
            kind = _NO_TYPE.sub("_", entity.label)
            types.add(kind)

            # The text file has the line breaks, so an entity across lines has to be divided.
            spans = _fragments(row, entity)
            places = ";".join(f"{start} {end}" for start, end in spans)
            lines.append(f"T{number}\t{kind} {places}\t{' '.join(text[start:end] for start, end in spans)}\n")

        # As bytes, because text files of Python change line ends on some systems, and with them the offsets.
        stem.with_suffix(".txt").write_bytes(text.encode())
        stem.with_suffix(".ann").write_bytes("".join(lines).encode())

    # BRAT warns of each of these sections that is missing.
    sections = ["[entities]", *sorted(types), "", "[relations]", "", "[events]", "", "[attributes]", ""]
    (folder / "annotation.conf").write_text("\n".join(sections), "utf-8")


def _fragments(row: TaggedRow, entity: TaggedEntity) -> list[tuple[int, int]]:
    """Return start and end of each part of an entity that has no line break."""
    found = [match.span() for match in _FRAGMENT.finditer(row.text or "", entity.start, entity.end)]
    if not found:
        raise InputError(
            f"{row.place}: entity {entity.start}:{entity.end} consists of line breaks only, which BRAT cannot "
            "represent",
            reason="entity-blank",
            **row.where,
            start=entity.start,
            end=entity.end,
        )

    return found
