"""Rewrite tags from one scheme into another, so that files with different schemes can be trained on together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nerd_export.data.corpus import Row, Split
from nerd_onnx.errors import TrainingDataError
from nerd_onnx.inference.labels import OUTSIDE, Scheme, scheme_of, split_tag

_STARTS, _ENDS = "BUS", "LEUS"


def split_scheme(split: Split) -> Scheme | None:
    """Return the scheme of the tags of a split; None if it has no entity."""
    names = {tag for row in split.rows for tag in _named(row, split.tag_names) if isinstance(tag, str)} - {OUTSIDE}
    return scheme_of(names) if names else None


def in_scheme(split: Split, scheme: Scheme) -> Split:
    """
    Return a split with its tags in another scheme. Tags that are no names stay as they are, for the check to find.

    :param scheme: ``IO`` or ``IOB2``
    :raises TrainingDataError: if the tags have another scheme and ``scheme`` is neither of these
    """
    found = split_scheme(split)
    if found is None or found == scheme:
        return split
    if scheme not in ("IO", "IOB2"):
        raise TrainingDataError(
            f"{split.source}: its tags are {found} and those of the first file {scheme}; only IO and BIO tags can be "
            "made from others. Put the file with IO or BIO tags first, or convert this one",
            reason="schemes-differ",
            file=split.source,
            found=found,
        )

    rows = (replace(row, tags=_converted(_named(row, split.tag_names), found, scheme)) for row in split.rows)
    return replace(split, rows=tuple(rows), tag_names=None)


def _named(row: Row, names: Sequence[str] | None) -> Sequence[str | int | None]:
    """Return the tags of a row, with names instead of numbers where these are known."""
    tags = row.tags if isinstance(row.tags, list | tuple) else ()
    return [names[tag] if names and isinstance(tag, int) and 0 <= tag < len(names) else tag for tag in tags]


def _converted(tags: Sequence[str | int | None], old: Scheme, new: Scheme) -> list[str | int | None]:
    converted: list[str | int | None] = []
    previous, ended = "", True

    for tag in tags:
        if not isinstance(tag, str):
            converted.append(tag)
            previous, ended = "", True
            continue

        prefix, kind = split_tag(tag, old)
        opens = ended or kind != previous or prefix in _STARTS
        if not kind:
            converted.append(OUTSIDE)
        elif new == "IO":
            converted.append(kind)
        else:
            converted.append(f"B-{kind}" if opens else f"I-{kind}")
        previous, ended = kind, prefix in _ENDS

    return converted
