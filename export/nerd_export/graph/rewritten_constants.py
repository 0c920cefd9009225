"""
Suffixes of constants' names that record what a rewrite did to them.

Names and not ``metadata_props``: a bundle is read back from its graph file (:mod:`nerd_export.models.restoring`), and
bundles of earlier versions have only the names, so a reader must understand them anyway. Metadata would be a second
record of the same fact that can disagree with the first, and it would change the bytes of every graph, and
with them the fingerprints of bundles that are exported again.
"""

from __future__ import annotations

import onnx_ir as ir

CENTERED = "centered"  # a bias from which a mean was subtracted, or to which one was added
SCALED = "scaled"  # weights and bias of the queries, multiplied by the scale of the attention scores
WITH_VALUES = "with_values"  # a bias to which the bias of the attention's values was added
ONE_ROW = "row0"  # the row of token type 0, which replaces the table
INT8 = "int8"  # a table of word embeddings in 8 bits


def marked(name: str, mark: str) -> str:
    """Return the name of a constant after a rewrite."""
    return f"{name}.{mark}"


def has_mark(value: ir.Value | None, mark: str) -> bool:
    """Whether a rewrite left this mark on a constant, perhaps before other rewrites."""
    return value is not None and f".{mark}" in str(value.name)


def without_mark(name: str, mark: str) -> str | None:
    """Return the name of a constant before its last rewrite; None if that was another rewrite."""
    suffix = f".{mark}"
    return name.removesuffix(suffix) if name.endswith(suffix) else None
