"""DuckDB: a function for SQL."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from nerd_onnx.integrations.columns import entities_of
from nerd_onnx.tagger import Tagger

if TYPE_CHECKING:
    import duckdb

_SQL_TYPES = {pa.int32(): "INTEGER", pa.float32(): "FLOAT", pa.string(): "VARCHAR"}


def register(connection: duckdb.DuckDBPyConnection, tagger: Tagger, name: str = "entities") -> None:
    """
    Register a function ``entities(text)``, which gives a list of structs, null for null.

    :param name: of the function
    """
    parts = tagger.entity_field().type.value_type
    struct = ", ".join(f'"{part.name}" {_SQL_TYPES[part.type]}' for part in parts)
    create: Any = connection.create_function  # whose constants moved between versions; names are taken by all
    create(
        name,
        partial(entities_of, tagger),
        ["VARCHAR"],
        f"STRUCT({struct})[]",
        type="arrow",
        null_handling="special",
    )
