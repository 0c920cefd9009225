"""
Metadata in which other programs describe the columns of a file.

Spark, pandas, Avro and datasets of Hugging Face learn of new columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa

SPARK_KEY = b"org.apache.spark.sql.parquet.row.metadata"
PANDAS_KEY = b"pandas"
HUGGING_FACE_KEY = b"huggingface"
AVRO_KEYS = (b"parquet.avro.schema", b"avro.schema")

Json = Any
_Check = Callable[[pa.DataType], bool]


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


_SPARK_TYPES: tuple[tuple[_Check, str], ...] = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_int8, "byte"),
    (pa.types.is_int16, "short"),
    (pa.types.is_int32, "integer"),
    (pa.types.is_int64, "long"),
    (pa.types.is_float32, "float"),
    (pa.types.is_float64, "double"),
    (pa.types.is_date32, "date"),
    (_is_string, "string"),
    (_is_binary, "binary"),
)
_AVRO_TYPES: tuple[tuple[_Check, str], ...] = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_int32, "int"),
    (pa.types.is_int64, "long"),
    (pa.types.is_float32, "float"),
    (pa.types.is_float64, "double"),
    (_is_string, "string"),
    (_is_binary, "bytes"),
)
_HUGGING_FACE_TYPES: tuple[tuple[_Check, str], ...] = (
    (pa.types.is_boolean, "bool"),
    (pa.types.is_integer, ""),  # as Arrow names them
    (pa.types.is_float32, "float32"),
    (pa.types.is_float64, "float64"),
    (pa.types.is_string, "string"),
    (pa.types.is_large_string, "large_string"),
)
_NUMBERS = ("int", "uint", "float", "bool")
_TEXT_LABELS = ("unicode", "string", "mixed", "empty")


def updated_metadata(metadata: Mapping[bytes, bytes], new_fields: Sequence[pa.Field]) -> dict[bytes, bytes]:
    """
    Return the key-value metadata of a file after columns were added to it or replaced.

    Spark and Avro read only the columns that their own schema in the metadata names, and pandas restores types by
    names. Each of these schemas gets the new columns; a column that it has already is described anew, in its place.
    datasets of Hugging Face also keeps a fingerprint, by which it finds results of earlier calls. It is taken out,
    because the rows are others now, and datasets makes a new one.
    A value that is not as its program writes it stays as it is, and so do all other keys.

    :param metadata: metadata of the file, of the schema, or both
    :param new_fields: the added or replaced columns, in the order of their addition
    """
    updates: dict[bytes, Callable[[Json, pa.Field], None]] = {
        SPARK_KEY: _add_to_spark,
        PANDAS_KEY: _add_to_pandas,
        HUGGING_FACE_KEY: _add_to_hugging_face,
        **dict.fromkeys(AVRO_KEYS, _add_to_avro),
    }

    updated = dict(metadata)
    for key, add in updates.items():
        if key not in updated or not new_fields:
            continue

        # What another program wrote may have any content, and the columns are right without it.
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            schema = json.loads(updated[key], parse_float=_finite)
            for field in new_fields:
                add(schema, field)
            updated[key] = json.dumps(schema, separators=(",", ":")).encode()

    return updated


def _add_to_spark(schema: Json, field: pa.Field) -> None:
    if schema["type"] != "struct":
        raise ValueError("no schema of Spark")

    _put(schema["fields"], _spark_field(field), "name")


def _spark_field(field: pa.Field) -> Json:
    return {"name": field.name, "type": _spark_type(field.type), "nullable": field.nullable, "metadata": {}}


def _spark_type(kind: pa.DataType) -> Json:
    """Return an Arrow type as Spark's ``StructType.json()`` names it."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        item = kind.value_field
        return {"type": "array", "elementType": _spark_type(item.type), "containsNull": item.nullable}
    if pa.types.is_struct(kind):
        return {"type": "struct", "fields": [_spark_field(part) for part in kind]}
    return _named(_SPARK_TYPES, kind)


def _add_to_pandas(schema: Json, field: pa.Field) -> None:
    # pandas evaluates labels as what the columns of the frame were: tuples, numbers, dates.
    labels = schema.get("column_indexes", [])
    if len(labels) > 1:
        # A column of several levels is named by the text of its tuple.
        name = str((field.name, *[""] * (len(labels) - 1)))
    else:
        name = field.name
        # The name of the new column is no number or date, so the labels are strings from now on.
        for label in labels:
            if label["pandas_type"] not in _TEXT_LABELS:
                label.update(pandas_type="unicode", numpy_type="object", metadata={"encoding": "UTF-8"})

    pandas_type = _pandas_type(field.type)
    column = {
        "name": name,
        "field_name": field.name,
        "pandas_type": pandas_type,
        "numpy_type": pandas_type if pandas_type.startswith(_NUMBERS) else "object",
        "metadata": None,
    }

    # The entries of the index stand after those of the columns. A replaced index is a column now.
    index = [entry for entry in schema["index_columns"] if entry != field.name]
    end = len(schema["columns"]) - sum(isinstance(entry, str) for entry in index)
    _put(schema["columns"], column, "field_name", end=max(0, end))
    schema["index_columns"] = index


def _pandas_type(kind: pa.DataType) -> str:
    """Return an Arrow type as the metadata of pandas names it."""
    if pa.types.is_list(kind):
        return f"list[{_pandas_type(kind.value_type)}]"
    if _is_string(kind):
        return "unicode"
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return str(kind)
    if pa.types.is_floating(kind):
        return f"float{kind.bit_width}"
    return "object"


def _add_to_hugging_face(schema: Json, field: pa.Field) -> None:
    schema["info"]["features"][field.name] = _feature(field.type)
    schema.pop("fingerprint", None)


def _feature(kind: pa.DataType) -> Json:
    """Return an Arrow type as all versions of datasets read it."""
    if pa.types.is_list(kind):
        # A list of one: what "Sequence" and "List" mean differs between versions.
        return [_feature(kind.value_type)]
    if pa.types.is_struct(kind):
        return {part.name: _feature(part.type) for part in kind}
    return {"dtype": _named(_HUGGING_FACE_TYPES, kind) or str(kind), "_type": "Value"}


def _add_to_avro(schema: Json, field: pa.Field) -> None:
    if schema["type"] != "record":
        raise ValueError("no Avro schema of rows")

    # Avro has no names with other characters: its readers cannot read such a file, whatever the schema says.
    if not _is_avro_name(field.name):
        raise ValueError("no name in Avro")
    _put(schema["fields"], _avro_field(field, f"nerd_onnx.{field.name}"), "name")


def _avro_field(field: pa.Field, namespace: str) -> Json:
    kind = _avro_type(field.type, namespace)
    if not field.nullable:
        return {"name": field.name, "type": kind}

    # In a union of Avro, the default is a value of the first type.
    return {"name": field.name, "type": ["null", kind], "default": None}


def _avro_type(kind: pa.DataType, namespace: str) -> Json:
    """
    Return an Arrow type as an Avro type.

    :param namespace: of the records in it: a schema may define each full name only once
    """
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        item = _avro_type(kind.value_type, namespace)
        return {"type": "array", "items": ["null", item] if kind.value_field.nullable else item}
    if pa.types.is_struct(kind):
        fields = [_avro_field(part, f"{namespace}.{part.name}") for part in kind]
        return {"type": "record", "name": "element", "namespace": namespace, "fields": fields}

    return _named(_AVRO_TYPES, kind)


def _is_avro_name(name: str) -> bool:
    return name.isascii() and name.isidentifier()


def _put(entries: Json, entry: Json, key: str, *, end: int | None = None) -> None:
    """
    Replace the entry with the same name, or insert the entry.

    :param key: under which an entry has its name
    :param end: where a new entry is inserted; None for the end
    """
    # Old metadata of pandas has no field_name.
    names = [known.get(key, known.get("name")) for known in entries]
    if entry[key] in names:
        entries[names.index(entry[key])] = entry
    else:
        entries.insert(len(entries) if end is None else end, entry)


def _named(types: Sequence[tuple[_Check, str]], kind: pa.DataType) -> str:
    for check, name in types:
        if check(kind):
            return name

    raise ValueError(f"no name for {kind}")


def _finite(digits: str) -> float:
    """Return a number of JSON that Python can write again with the same value."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is too large")
    return number
