"""Polars: an expression for the entities of a text column."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from nerd_onnx.integrations.columns import entities_of
from nerd_onnx.tagger import Tagger

if TYPE_CHECKING:
    import polars as pl


def entities(texts: str | pl.Expr, tagger: Tagger) -> pl.Expr:
    """
    Return an expression for the entities of a column, named by the tagger's options. It works in lazy frames too.

    With several text columns, the name is that of the new column that belongs to this one.

    :param texts: the text column, by name or as an expression
    """
    import polars as pl

    # A lazy frame needs the type before the first row is tagged.
    dtype = pl.Series(pl.from_arrow(pa.array([], tagger.entity_field().type))).dtype

    # Elementwise: a text has the same entities in any batch, so Polars may stream.
    column = pl.col(texts) if isinstance(texts, str) else texts
    tagged = column.map_batches(partial(_entities, tagger), return_dtype=dtype, is_elementwise=True)

    # An expression may have no name of its own, such as that of a function.
    name = column.meta.output_name(raise_if_undetermined=False)
    return tagged.alias(tagger.options.new_column_of(name))


def _entities(tagger: Tagger, texts: pl.Series) -> pl.Series:
    import polars as pl

    return pl.Series(texts.name, pl.from_arrow(entities_of(tagger, texts.to_arrow())))
