"""Read Arrow IPC, one record batch after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from nerd_onnx.errors import InputError, first_line
from nerd_onnx.formats.arrow.messages import Contents, DamagedError, contents_of
from nerd_onnx.formats.arrow.opened import DAMAGE, OpenedBatches
from nerd_onnx.formats.interfaces import ReadOptions, RowBatch
from nerd_onnx.formats.text_columns import TextColumns
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.input_stream import ReadableFile, check_readable, input_name, open_bytes
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.signatures import SIGNATURE_BYTES, foreign_format, is_arrow, is_compressed, is_feather_1

_SMALL_BUFFER = 4096  # bytes: between the descriptions of record batches lie these, which are not read


class ArrowReader(Closing):
    """
    An Arrow file or stream as row batches. Standard input is copied to a temporary file first.

    :param path: a file, or ``-``
    :param as_json: whether the rows will be written as JSON, which cannot hold a row with invalid UTF-8
    :raises InputError: if it is empty, cut off, damaged or in another format, or has no text column
    :ivar contents: what its messages say
    """

    codecs: tuple[str, ...] | None = None
    copied = None
    rewritten_because: str | None = None

    def __init__(self, path: Location, options: ReadOptions, *, as_json: bool) -> None:
        check_readable(path)
        self.path = path
        self._name = input_name(path)
        self._options = options
        self.rows_read = 0
        self._file = ReadableFile(path)

        try:
            self.contents = self._contents()
            self._opened = self._open()
        except BaseException:
            self._file.close()
            raise

        # From here on there are two files to close.
        try:
            self._texts = TextColumns(self._name, self._opened.schema, options, as_json=as_json)
        except BaseException:
            self.close()
            raise

        self.schema: pa.Schema = self._texts.schema
        self.column_names: list[str] = self.schema.names
        self.num_rows = self._limited(self.contents.rows) if self._knows_rows else None

    def progress(self) -> float | None:
        """Return the share of the rows that was read; None for remote files, whose rows are not counted before."""
        if self.num_rows is None:
            return None
        return self.rows_read / self.num_rows if self.num_rows else 1.0

    def batches(self) -> Iterator[RowBatch]:
        """
        Yield the rows; a batch never has rows of two record batches.

        :raises InputError: if the file is damaged, or a text is not valid UTF-8
        """
        for batch in self._record_batches():
            rows = batch.slice(0, self._limited(self.rows_read + batch.num_rows) - self.rows_read)

            for first in range(0, rows.num_rows, self._options.batch_rows):
                read = rows.slice(first, self._options.batch_rows)
                is_last = first + read.num_rows == rows.num_rows
                for found in self._texts.batches(read, self.rows_read, is_last=is_last):
                    self.rows_read += found.rows_read
                    yield found
                    self._opened.release()

            # Before the next batch: the rest of a remote file need not be fetched.
            if self.rows_read == self._options.limit:
                return

        if self.num_rows is not None and self.rows_read != self.num_rows:
            raise self._damaged(f"it has {self.rows_read} rows, and its messages name {self.num_rows}")

    def close(self) -> None:
        """Close the file and delete the temporary copy."""
        self._opened.close()
        self._file.close()

    @property
    def _knows_rows(self) -> bool:
        # Each record batch of a remote file would be a request.
        return not self._file.path.is_remote

    def _limited(self, rows: int) -> int:
        return rows if self._options.limit is None else min(rows, self._options.limit)

    def _contents(self) -> Contents:
        with open_bytes(self._file.path, None if self._file.path.is_remote else _SMALL_BUFFER) as file:
            try:
                size = file.seek(0, 2)
                file.seek(0)
                self._check_head(file.read(SIGNATURE_BYTES))
                return contents_of(file, size, all_batches=self._knows_rows)
            except DamagedError as err:
                raise self._damaged(str(err)) from err
            except OSError as err:
                raise self._damaged(first_line(err)) from err

    def _check_head(self, head: bytes) -> None:
        if not head:
            raise InputError(
                f"{self._name}: the file is empty (0 bytes), and no Arrow file is empty; create it again",
                reason="empty-file",
                file=self._name,
            )

        # Other first bytes may be those of a stream of before 2019: the messages decide.
        foreign = foreign_format(head)
        if foreign is not None and (is_feather_1(head) or not is_arrow(head)):
            # Only its buffers may be compressed.
            advice = "decompress it first" if is_compressed(head) else foreign.advice
            raise InputError(
                f"{self._name}: is {foreign.name} by its first bytes, and not Arrow; {advice}",
                reason="other-format",
                file=self._name,
                found=foreign.name,
            )

    def _open(self) -> OpenedBatches:
        try:
            return OpenedBatches(self._file.path, self.contents)
        except DAMAGE as err:
            raise self._damaged(first_line(err)) from err

    def _record_batches(self) -> Iterator[pa.RecordBatch]:
        found = self._opened.batches()
        while True:
            try:
                batch = next(found, None)
            except DAMAGE as err:
                raise self._damaged(first_line(err), after=self.rows_read) from err

            if batch is None:
                return
            yield batch

    def _damaged(self, problem: str, after: int | None = None) -> InputError:
        where = "" if after is None else f", after row {after - 1}" if after else ", first record batch"
        return InputError(
            f"{self._name}{where}: is no Arrow file or stream, or is cut off or damaged: {problem.rstrip('.')}; take a "
            "good copy of it, or write it again",
            reason="damaged-arrow",
            file=self._name,
        )
