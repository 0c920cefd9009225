"""How a Parquet file was written, and the options of pyarrow's writer that write such a file again."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

ARROW_SCHEMA_KEY = b"ARROW:schema"
_FALSE_POSITIVES = 0.05  # share of a Bloom filter's wrong answers, pyarrow's default
_BITS_SET_PER_VALUE = 8  # of Parquet's Bloom filters
# The schema of pyarrow names only leaf columns; the type of a group is in its printed form alone.
_VARIANT = re.compile(
    r"^  (?:required|optional|repeated) group field_id=-?\d+ (.*) \(Variant(?:\(.*\))?\) \{$", re.MULTILINE
)
# pyarrow writes integers of these types without naming them.
_PLAIN_INTEGERS = ("Int(bitWidth=32, isSigned=true)", "Int(bitWidth=64, isSigned=true)")
_FROM_CONVERTED = "is_from_converted_type=true"


@dataclass(frozen=True)
class Leaf:
    """
    A leaf column of a Parquet file.

    :param path: names of its column and of what is nested in it, joined with dots
    :param physical_type: how a value is stored, such as ``INT96``
    :param logical_type: what a value means, as pyarrow prints it; ``None`` for nothing beyond the physical type
    :param bloom_bytes: size of its Bloom filter in the first row group; 0 without one
    """

    path: str
    physical_type: str
    logical_type: str
    bloom_bytes: int = 0

    @property
    def is_int96(self) -> bool:
        """Whether the values are timestamps of Spark's and Impala's older kind."""
        return self.physical_type == "INT96"

    def keeps_type(self, before: Leaf) -> bool:
        """Whether the values mean what they meant in another file."""
        if before.logical_type in ("None", *_PLAIN_INTEGERS):
            return True  # nothing to lose; an Arrow schema in the file may say more

        if before.logical_type.startswith("Timestamp("):
            # Converted types of old writers do not say whether a timestamp is in UTC, and readers do not rely on it.
            is_old = _FROM_CONVERTED in before.logical_type
            return self._timestamp(without_zone=is_old) == before._timestamp(without_zone=is_old)

        return self.logical_type == before.logical_type

    def _timestamp(self, *, without_zone: bool) -> str:
        """Return the unit of timestamps, and whether they are in UTC."""
        found = re.match(r"Timestamp\(isAdjustedToUTC=(\w+), timeUnit=(\w+)", self.logical_type)
        if found is None:
            return self.logical_type
        return found[2] if without_zone else f"{found[2]} {found[1]}"


@dataclass(frozen=True)
class FileProperties:
    """
    How a Parquet file was written.

    :param leaves: its leaf columns
    :param metadata: key-value metadata of the file, without the Arrow schema
    :param sorting: the order of the rows, if all row groups name the same one; its columns are numbers of leaves
    :param has_page_index: whether the first row group has one
    :param variants: names of the columns of type VARIANT
    """

    leaves: Sequence[Leaf]
    metadata: Mapping[bytes, bytes]
    sorting: Sequence[pq.SortingColumn] = ()
    has_page_index: bool = False
    variants: frozenset[str] = frozenset()

    def writer_options(self, origins: Sequence[int | None], paths: Sequence[str]) -> dict[str, Any]:
        """
        Return the options of ``pq.ParquetWriter`` that keep these properties, as far as this pyarrow has them.

        :param origins: for each leaf column of the output, its number in this file; None for a new one
        :param paths: paths of the leaf columns of the output
        """
        kept = [self.leaves[origin] for origin in origins if origin is not None]
        types = [leaf.logical_type for leaf in kept]
        has_timestamps = any(kind.startswith("Timestamp(") for kind in types)
        decimals = {leaf.physical_type for leaf in kept if leaf.logical_type.startswith("Decimal(")}

        options = {
            # These three hold for all columns, so they are chosen only if they change no other column.
            "use_deprecated_int96_timestamps": any(leaf.is_int96 for leaf in kept) and not has_timestamps,
            "store_decimal_as_integer": bool(decimals & {"INT32", "INT64"}),
            "write_time_adjusted_to_utc": any(kind.startswith("Time(isAdjustedToUTC=true") for kind in types),
            "write_page_index": self.has_page_index,
            "sorting_columns": self._sorting(origins),
            "bloom_filter_options": {
                path: {"ndv": _distinct_values(self.leaves[origin].bloom_bytes), "fpp": _FALSE_POSITIVES}
                for path, origin in zip(paths, origins, strict=True)
                if origin is not None and self.leaves[origin].bloom_bytes
            },
        }

        # pyarrow refuses options that it does not have yet.
        known = inspect.signature(pq.ParquetWriter).parameters
        return {name: value for name, value in options.items() if value and name in known}

    def lost_type(self, origins: Sequence[int | None], written: Sequence[Leaf]) -> tuple[str, str] | None:
        """
        Return the first column whose logical type another file does not have, and this type; None if none is lost.

        :param origins: for each leaf column of the other file, its number in this one; None for a new one
        :param written: the leaf columns of the other file
        """
        for leaf, origin in zip(written, origins, strict=True):
            if origin is None:
                continue

            before = self.leaves[origin]
            column = before.path.split(".", 1)[0]
            # The leaves of a variant have no logical type of their own that could be compared.
            if column in self.variants:
                return column, "Variant"
            if not leaf.keeps_type(before):
                return before.path, before.logical_type

        return None

    def _sorting(self, origins: Sequence[int | None]) -> list[pq.SortingColumn]:
        """Return the order of the rows of another file; it ends before a column that this file does not have."""
        places = {origin: place for place, origin in enumerate(origins) if origin is not None}
        kept = []
        for column in self.sorting:
            # Rows that are equal up to here were sorted by a column that is gone: the next one says nothing.
            if column.column_index not in places:
                break
            kept.append(pq.SortingColumn(places[column.column_index], column.descending, column.nulls_first))

        return kept


def file_properties(file: pq.ParquetFile) -> FileProperties:
    """Return how a file was written, as far as pyarrow shows it."""
    facts = file.metadata
    groups = [facts.row_group(i) for i in range(facts.num_row_groups)]
    # Columns have indexes and filters in all row groups or in none.
    chunks = [groups[0].column(i) for i in range(facts.num_columns)] if groups else []
    orders = {tuple(group.sorting_columns) for group in groups}
    metadata = facts.metadata or {}

    return FileProperties(
        # Older versions of pyarrow do not tell the length.
        leaves=file_leaves(file, [getattr(chunk, "bloom_filter_length", None) or 0 for chunk in chunks]),
        metadata={key: value for key, value in metadata.items() if key != ARROW_SCHEMA_KEY},
        sorting=orders.pop() if len(orders) == 1 else (),
        has_page_index=any(chunk.has_column_index or chunk.has_offset_index for chunk in chunks),
        variants=frozenset(_VARIANT.findall(str(file.schema))),
    )


def file_leaves(file: pq.ParquetFile, bloom_bytes: Sequence[int] = ()) -> list[Leaf]:
    """
    Return the leaf columns of a file.

    :param bloom_bytes: sizes of their Bloom filters; empty if they are not known
    """
    columns = [file.schema.column(i) for i in range(file.metadata.num_columns)]
    sizes = bloom_bytes or [0] * len(columns)
    return [
        Leaf(column.path, column.physical_type, str(column.logical_type), size)
        for column, size in zip(columns, sizes, strict=True)
    ]


def _distinct_values(bloom_bytes: int) -> int:
    """Return the number of distinct values for which pyarrow's Bloom filter has at most this size."""
    # The formula of Parquet's specification for the number of bits, the other way round.
    bits = 8 * bloom_bytes
    share = math.log(1 - _FALSE_POSITIVES ** (1 / _BITS_SET_PER_VALUE))
    return max(1, int(-bits * share / _BITS_SET_PER_VALUE))
