"""Timestamps of type INT96, whose range is larger than that of any Arrow type: read without loss, or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nerd_onnx.errors import InputError

_PER_SECOND = 10**9
_PER_MICROSECOND = 1000
# Seconds from 1970 that fit in 64 bits of the finer unit, with one second to spare.
_MAX_SECONDS = {"us": 2**63 // 10**6 - 1, "ns": 2**63 // 10**9 - 1}
_BATCH_ROWS = 1 << 16

Open = Callable[[str], pq.ParquetFile]
RowsAtOnce = Callable[[int, Sequence[str], int], int]
Int64s = npt.NDArray[np.int64]


def int96_columns(file: pq.ParquetFile) -> list[str]:
    """Return the paths of the leaf columns of type INT96."""
    columns = [file.schema.column(i) for i in range(file.metadata.num_columns)]
    return [column.path for column in columns if column.physical_type == "INT96"]


def int96_unit(opened: Open, rows_at_once: RowsAtOnce, name: str) -> str:
    """
    Return the unit in which all INT96 timestamps of a file can be read without loss: ``us``, else ``ns``.

    pyarrow reports neither an overflow nor digits that it cuts off. So the values are read twice: in seconds, which
    cannot overflow, and in nanoseconds, whose lowest 64 bits show the digits below a second.

    :param opened: opens the file with a given unit
    :param rows_at_once: returns how many rows of columns of a row group may be read at once, by the number wanted
    :param name: name of the file in messages
    :raises InputError: if a value fits in neither unit, or values need both
    """
    seconds, nanoseconds = opened("s"), opened("ns")
    # By unit that cannot hold all values: the first row group and column that shows it.
    misfits: dict[str, tuple[int, str]] = {}

    for group in range(seconds.num_row_groups):
        for column, whole, fine in _values(seconds, nanoseconds, group, rows_at_once):
            # Unsigned: a difference of overflowed numbers is right in its lowest 64 bits.
            below_second = fine.view(np.uint64) - whole.view(np.uint64) * np.uint64(_PER_SECOND)
            distance = np.abs(whole)

            if (distance > _MAX_SECONDS["us"]).any() or (below_second % np.uint64(_PER_MICROSECOND)).any():
                misfits.setdefault("us", (group, column))
            if (distance > _MAX_SECONDS["ns"]).any():
                misfits.setdefault("ns", (group, column))

            if len(misfits) == len(_MAX_SECONDS):
                raise _outside(name, *misfits["ns"])

    return "ns" if "us" in misfits else "us"


def _outside(name: str, group: int, column: str) -> InputError:
    return InputError(
        f"{name}, row group {group}: column {column!r} has INT96 timestamps outside of the years 1677 to 2262, and the "
        "file has some beyond the year 294,246 or with nanoseconds: no Arrow type holds all of them. Write the columns "
        "as INT64 timestamps, or remove them",
        reason="timestamp-outside",
        file=name,
        row_group=group,
        column=column,
    )


def _values(
    seconds: pq.ParquetFile, nanoseconds: pq.ParquetFile, group: int, rows_at_once: RowsAtOnce
) -> Iterator[tuple[str, Int64s, Int64s]]:
    """Yield the INT96 values of a row group in both units, with the name of their column. *Shape:* (values,) each"""
    for path in int96_columns(seconds):
        size = rows_at_once(group, [path], _BATCH_ROWS)
        batches = [
            file.iter_batches(batch_size=size, row_groups=[group], columns=[path], use_threads=False)
            for file in (seconds, nanoseconds)
        ]
        for coarse, fine in zip(*batches, strict=True):
            for left, right in zip(coarse.columns, fine.columns, strict=True):
                # Several only if they are nested: in both files in the same order.
                for whole, exact in zip(_timestamps(left), _timestamps(right), strict=True):
                    # A column "a.b" is read too where "b" in "a" is asked for; only INT96 comes in seconds.
                    if whole.type.unit == "s":
                        yield path, _int64(whole), _int64(exact)


def _timestamps(array: pa.Array) -> Iterator[pa.Array]:
    """Yield the timestamps in an array of any type, without nulls."""
    if pa.types.is_timestamp(array.type):
        yield array.drop_null()
    elif pa.types.is_struct(array.type):
        for part in array.flatten():
            yield from _timestamps(part)
    elif pa.types.is_map(array.type):
        yield from _timestamps(array.keys)
        yield from _timestamps(array.items)
    elif pa.types.is_nested(array.type):
        yield from _timestamps(pc.list_flatten(array))


def _int64(timestamps: pa.Array) -> Int64s:
    values: Int64s = timestamps.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return values
