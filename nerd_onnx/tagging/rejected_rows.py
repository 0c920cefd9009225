"""Rows that cannot be read or tagged: written as null, or left out, and in either case recorded and counted."""

from __future__ import annotations

import pyarrow as pa

from nerd_onnx.durability.results import Results
from nerd_onnx.errors import InputError
from nerd_onnx.formats.base import Fault, RowBatch
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.tagging.job import TagJob, Totals
from nerd_onnx.tagging.rejects_file import RejectsPart

REASONS_SUFFIX = "_error"


def reasons_field(job: TagJob, column: str) -> pa.Field | None:
    """Name and type of the column that says why a row has no entities; None where no such row is written."""
    return pa.field(column + REASONS_SUFFIX, pa.string()) if job.on_error == "null" else None


class FaultPolicy:
    """
    What becomes of the bad rows of one file; it counts the good ones too.

    :param path: the file, for messages
    :param name: the file, for the rejects
    :param job: what the user chose
    :param part: takes the rejects; None where none are asked for
    :param before: rows of other files that were rejected
    """

    def __init__(self, path: str, name: str, job: TagJob, part: RejectsPart | None, before: int) -> None:
        self.totals = Totals()
        self._path = input_name(path)
        self._name = name
        self._job = job
        self._part = part
        self._before = before

    def settle(self, rows: RowBatch, results: Results) -> tuple[RowBatch, pa.Array, pa.Array | None]:
        """
        Decide on a batch.

        :return: the rows to write, their entities, and why some have none where that is written
        :raises InputError: when there are more bad rows than allowed, or one that cannot be written has no other place
        """
        self._count(rows, results)
        whys = results.reasons.to_pylist()
        tagging = [_fault(rows, i, reason) for i, reason in enumerate(whys) if reason is not None]
        for fault in rows.faults:
            if fault.index is not None:
                whys[fault.index] = fault.reason
        for fault in sorted((*rows.faults, *tagging), key=lambda fault: fault.row):
            self._record(fault)
        bad = {i for i, reason in enumerate(whys) if reason is not None}
        self.totals.written += len(whys) - len(bad)
        if self._job.on_error == "null":
            self.totals.nulled += len(bad)
            return rows, results.entities, pa.array(whys, pa.string())
        if not bad:
            return rows, results.entities, None
        return rows.without(bad), results.entities.filter(pa.array([reason is None for reason in whys])), None

    def _count(self, rows: RowBatch, results: Results) -> None:
        offsets = results.entities.offsets
        self.totals.rows += rows.rows_read
        self.totals.null_rows += rows.texts.null_count - sum(fault.index is not None for fault in rows.faults)
        self.totals.entities += offsets[-1].as_py() - offsets[0].as_py()
        self.totals.tokens += results.tokens

    def _record(self, fault: Fault) -> None:
        where = f"{self._path}, {fault.place}: {fault.reason}"
        if self._part is not None:
            self._part.write(self._name, fault)
        elif fault.index is None:
            raise InputError(
                f"{where}; the output cannot contain this row as null. Give --rejects FILE for such rows",
                reason="needs-rejects-file",
                file=self._path,
                row=fault.shown_number,
                option="--rejects",
            )
        self.totals.rejected += 1
        most = self._job.max_errors
        if most is not None and self._before + self.totals.rejected > most:
            raise InputError(
                f"{where}; this rejected row exceeds --max-errors {most}",
                reason="too-many-rejected",
                file=self._path,
                row=fault.shown_number,
                option="--max-errors",
                maximum=most,
            )


def _fault(rows: RowBatch, index: int, reason: str) -> Fault:
    line = None if rows.line_numbers is None else rows.line_numbers[index]
    return Fault(rows.number(index), reason, line=line, row_group=rows.row_group, index=index)
