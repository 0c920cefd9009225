"""Rejected rows: rows that cannot be read or tagged. They are written as null or left out, recorded and counted."""

from __future__ import annotations

from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from nerd_onnx.durability.chunks import Results
from nerd_onnx.durability.totals import Totals
from nerd_onnx.errors import InputError
from nerd_onnx.formats.interfaces import RejectedRow, RowBatch
from nerd_onnx.formats.layouts import count_entities
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.storage.location import Location
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.rejects_file import RejectsPart


class RejectionPolicy:
    """
    Applies ``--on-error`` to the rejected rows of one file, and counts all its rows.

    :param path: the file, for messages
    :param name: the file's name in the rejects file
    :param job: the user's options
    :param part: records the rejected rows; None without ``--rejects``
    :param before: number of rows and files rejected before this file, which count towards ``--max-errors``
    :ivar totals: counts of this file's rows
    """

    def __init__(self, path: Location, name: str, job: TagJob, part: RejectsPart | None, before: int) -> None:
        self.totals = Totals()
        self._path = input_name(path)
        self._name = name
        self._job = job
        self._part = part
        self._before = before

    def settle(self, rows: RowBatch, results: Results) -> tuple[RowBatch, pa.Array, pa.Array | None]:
        """
        Count the rows of a batch, and record those that are rejected.

        :return: the rows to write, their entities, and, if rejected rows are written, their reasons
        :raises InputError: if more rows are rejected than ``--max-errors`` allows, or a rejected row can be neither
            written as null nor recorded
        """
        self._count(rows, results)

        reasons = results.reasons.to_pylist()
        not_tagged = [_rejected_row(rows, i, reason) for i, reason in enumerate(reasons) if reason is not None]

        # A row that could not be read has a null text, so tagging gave it no reason.
        for row in rows.rejected:
            if row.index is not None:
                reasons[row.index] = row.reason

        for row in sorted((*rows.rejected, *not_tagged), key=lambda row: row.row):
            self._record(row)

        rejected = {i for i, reason in enumerate(reasons) if reason is not None}
        self.totals.written += len(reasons) - len(rejected)
        if self._job.on_error == "null":
            self.totals.nulled += len(rejected)
            return rows, results.entities, pa.array(reasons, pa.string())

        if not rejected:
            return rows, results.entities, None
        return rows.without(rejected), results.entities.filter(pa.array([why is None for why in reasons])), None

    def _count(self, rows: RowBatch, results: Results) -> None:
        self.totals.rows += rows.rows_read

        # A row that could not be read is null in the batch, but it is not a row without text.
        without = reduce(pc.and_, (texts.is_null() for texts in rows.all_texts))
        self.totals.null_rows += without.true_count - sum(row.index is not None for row in rows.rejected)
        self.totals.entities += count_entities(results.entities)
        self.totals.tokens += results.tokens

    def _record(self, row: RejectedRow) -> None:
        where = f"{self._path}, {row.place}: {row.reason}"
        if self._part is not None:
            self._part.write(self._name, row)
        elif row.index is None:
            raise InputError(
                f"{where}; the output cannot contain this row as null. Give --rejects FILE for such rows",
                reason="needs-rejects-file",
                file=self._path,
                row=row.shown_number,
                option="--rejects",
            )

        self.totals.rejected += 1
        maximum = self._job.max_errors
        if maximum is not None and self._before + self.totals.rejected > maximum:
            raise InputError(
                f"{where}; this rejected row exceeds --max-errors {maximum}",
                reason="too-many-rejected",
                file=self._path,
                row=row.shown_number,
                option="--max-errors",
                maximum=maximum,
            )


def _rejected_row(rows: RowBatch, index: int, reason: str) -> RejectedRow:
    line = None if rows.line_numbers is None else rows.line_numbers[index]
    return RejectedRow(rows.number(index), reason, line=line, row_group=rows.row_group, index=index)
