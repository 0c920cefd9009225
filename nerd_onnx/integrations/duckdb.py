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
    Register an SQL function ``entities(text)``, which returns a list of structs, and null for null.

    :param name: name of the SQL function
    """
    parts = tagger.entity_field().type.value_type
    struct = ", ".join(f'"{part.name}" {_SQL_TYPES[part.type]}' for part in parts)

    create: Any = connection.create_function  # Any: every version takes names, but the constants in its type moved
    create(
        name,
        partial(entities_of, tagger),
        ["VARCHAR"],
        f"STRUCT({struct})[]",
        type="arrow",
        null_handling="special",
    )
