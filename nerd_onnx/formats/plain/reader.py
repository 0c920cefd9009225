"""Read plain text: each line is a row with one column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow as pa

from nerd_onnx.errors import OptionError
from nerd_onnx.formats.interfaces import ReadOptions, RejectedRow, RowBatch
from nerd_onnx.formats.line_reading import HEAD_BYTES, LinesReader, RowError, grouped, not_utf8, require_text
from nerd_onnx.formats.text_arrays import column_of, has_elements
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.storage.location import Location

NumberedLine = tuple[int, bytes]


class PlainTextReader(LinesReader):
    """
    A file with one text per line, plain or compressed. Its only column has the name of the text column.

    Every line is a row, a blank one too: so row and line belong together. A carriage return before the line feed is
    not part of the text.

    :param path: a file, or ``-``
    :raises OptionError: if there are several text columns, or one with lists
    :raises InputError: if it cannot be opened, or begins like a file of another format
    """

    num_rows: int | None = None

    def __init__(self, path: Location, options: ReadOptions) -> None:
        name, *more = options.text_columns
        if more:
            raise OptionError(
                f"{input_name(path)}: plain text has one column; give one --text-column",
                reason="several-text-columns",
                option="--text-column",
                file=input_name(path),
                found=", ".join(options.text_columns),
            )

        if has_elements(name):
            raise OptionError(
                f"{input_name(path)}: plain text has one text per line, and no lists; give --text-column "
                f"{column_of(name)}",
                reason="lists-of-texts",
                option="--text-column",
                file=input_name(path),
                found=name,
            )

        super().__init__(path, options)
        self.schema: pa.Schema = pa.schema([(name, pa.string())])
        self.column_names: Sequence[str] = self.schema.names

        try:
            require_text(self._name, self._stream.head(HEAD_BYTES), "plain text")
        except BaseException:
            self._stream.close()
            raise

    def batches(self) -> Iterator[RowBatch]:
        """
        Yield the rows in file order.

        :raises InputError: if a line is not valid UTF-8
        """
        lines = islice(self._stream.lines(blank=True), self._options.limit)
        yield from self._counted(grouped(lines, lambda line: len(line[1]), self._options), self._batch)

    def _batch(self, group: list[NumberedLine], first_row: int) -> RowBatch:
        texts: list[str] = []
        kept: list[int] = []
        rejected: list[RejectedRow] = []

        for i, (number, line) in enumerate(group):
            try:
                texts.append(self._text(number, line))
                kept.append(i)
            except RowError as err:
                if not self._options.lenient:
                    raise
                rejected.append(RejectedRow(first_row + i, err.problem, number, raw=line))

        table = pa.RecordBatch.from_arrays([pa.array(texts, pa.string())], schema=self.schema)
        return RowBatch(
            texts=table.column(0),
            table=table,
            lines=None,
            first_row=first_row,
            line_numbers=[group[i][0] for i in kept],
            row_numbers=[first_row + i for i in kept] if rejected else None,
            rejected=tuple(rejected),
        )

    def _text(self, number: int, line: bytes) -> str:
        try:
            return line.removesuffix(b"\r").decode()
        except UnicodeDecodeError as err:
            raise not_utf8(self._name, number, err) from err
