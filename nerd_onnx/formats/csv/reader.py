"""Read CSV and TSV as typed rows in which every column is text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow as pa
import pyarrow.csv

from nerd_onnx.formats.base import ReadOptions, RejectedRow, RowBatch
from nerd_onnx.formats.csv.records import Record, records
from nerd_onnx.formats.line_reading import (
    HEAD_BYTES,
    LinesReader,
    RowError,
    grouped,
    not_utf8,
    require_text,
    whole_first_line,
)
from nerd_onnx.formats.texts import find_text_column
from nerd_onnx.storage.location import Location

_HEADER_BYTES = 1 << 16


class CsvReader(LinesReader):
    """
    A file with fields between delimiters, plain or compressed. Its first record has the names of the columns.

    Every column is text. A field without characters is null, and ``""`` is an empty text. Blank lines are not rows. An
    empty file has no rows and only the text column. pyarrow parses the records.

    :param path: a file, or ``-``
    :param delimiters: characters of ASCII; the first one that gives a header with the text columns is taken
    :param title: name of the format in messages
    :raises InputError: if it cannot be opened, its header cannot be read, or it has no text column
    """

    def __init__(self, path: Location, options: ReadOptions, delimiters: str, title: str) -> None:
        super().__init__(path, options)

        try:
            require_text(self._name, self._stream.head(HEAD_BYTES), title)
            self._delimiter = self._delimiter_of(whole_first_line(self._stream.head(_HEADER_BYTES)), delimiters)
            self._records = records(self._stream.lines(blank=True), self._delimiter.encode(), options.line_bytes)
            header = next(self._records, None)
            self.num_rows = 0 if header is None else None
            self.schema = self._schema_of(header)
            self.column_names: Sequence[str] = self.schema.names
            self._text_indices = [find_text_column(self._name, self.schema, name) for name in options.text_columns]
        except BaseException:
            self._stream.close()
            raise

    def batches(self) -> Iterator[RowBatch]:
        """
        Yield the rows in file order.

        :raises InputError: if a row has another number of fields than the header, malformed quotes or invalid UTF-8
        """
        limited = islice(self._records, self._options.limit)
        yield from self._counted(grouped(limited, lambda record: record.size, self._options), self._batch)

    def _delimiter_of(self, header: str | None, delimiters: str) -> str:
        """Return the delimiter of a header; the usual one if the header's end is not among the first bytes."""
        if header is None or len(delimiters) == 1:
            return delimiters[0]

        names = {delimiter: _names(header, delimiter) for delimiter in delimiters}
        fitting = (delimiter for delimiter in delimiters if {*self._options.text_columns} <= {*names[delimiter]})
        # Without the text column an error lists the columns, so they should be what the user sees.
        return next(fitting, max(delimiters, key=lambda delimiter: len(names[delimiter])))

    def _schema_of(self, header: Record | None) -> pa.Schema:
        if header is None:
            return pa.schema([(name, pa.string()) for name in self._options.text_columns])
        if header.problem is not None:
            raise self._quotes_error(header)
        return pa.schema([(name or "", pa.string()) for name in self._fields(header)])

    def _batch(self, group: list[Record], first_row: int) -> RowBatch:
        errors = {i: self._quotes_error(record) for i, record in enumerate(group) if record.problem is not None}
        kept = [i for i in range(len(group)) if i not in errors]
        tables = list(self._tables(group, kept, errors))
        good = [i for i in range(len(group)) if i not in errors]
        if errors and not self._options.lenient:
            raise errors[min(errors)]

        table = pa.concat_batches(tables) if tables else pa.RecordBatch.from_pylist([], self.schema)
        first, *more = (table.column(i) for i in self._text_indices)
        return RowBatch(
            texts=first,
            more_texts=tuple(more),
            table=table,
            lines=None,
            first_row=first_row,
            line_numbers=[group[i].line for i in good],
            row_numbers=[first_row + i for i in good] if errors else None,
            rejected=tuple(
                RejectedRow(first_row + i, errors[i].problem, group[i].line, raw=group[i].content)
                for i in sorted(errors)
            ),
        )

    def _tables(self, group: list[Record], places: list[int], errors: dict[int, RowError]) -> Iterator[pa.RecordBatch]:
        """
        Parse the records of a group at some places, in their order.

        The records that cannot be parsed are found by bisection, because pyarrow stops at the first one.

        :param errors: errors of single records are added to it, by place
        """
        if not places:
            return

        table = self._parsed([group[i] for i in places])
        if table is not None:
            yield table
        elif len(places) == 1:
            errors[places[0]] = self._error_of(group[places[0]])
        else:
            middle = len(places) // 2
            yield from self._tables(group, places[:middle], errors)
            yield from self._tables(group, places[middle:], errors)

    def _parsed(self, group: list[Record]) -> pa.RecordBatch | None:
        """Return the rows of records; None if one of them is no row of the table."""
        # Numbers as names, because two columns may have the same name.
        names = [str(i) for i in range(len(self.schema))]
        try:
            table = self._parse(b"".join(record.content + b"\n" for record in group), names)
        except pa.ArrowInvalid:
            return None

        if table.num_rows != len(group):  # pyarrow ends a line at a carriage return too
            return None
        columns = [column.combine_chunks() for column in table.columns]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _parse(self, content: bytes, names: list[str], *, counts: bool = False) -> pa.Table:
        """
        Parse records as columns of text.

        :param content: the records, each with a line feed
        :param names: names of the columns
        :param counts: let pyarrow count the columns, which are then named f0, f1 and so on
        :raises pa.ArrowInvalid: if a record has another number of fields, or is not valid UTF-8
        """
        return pyarrow.csv.read_csv(
            io.BytesIO(content),
            # One block: a record must not lie in two.
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False,
                block_size=len(content),
                column_names=None if counts else names,
                autogenerate_column_names=counts,
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=self._delimiter, newlines_in_values=True, ignore_empty_lines=False
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
            ),
        )

    def _fields(self, record: Record) -> list[str | None]:
        """
        Return the fields of a record, however many it has.

        :raises RowError: if it is not valid UTF-8, or holds several rows
        """
        try:
            record.content.decode()
        except UnicodeDecodeError as err:
            raise not_utf8(self._name, record.line, err) from err

        most = record.content.count(self._delimiter.encode()) + 1
        try:
            table = self._parse(record.content + b"\n", [f"f{i}" for i in range(most)], counts=True)
        except pa.ArrowInvalid:
            table = None
        if table is None or table.num_rows != 1:
            raise RowError(
                self._name,
                record.line,
                "a carriage return is neither at the end of the line nor in a quoted field; end lines with a line feed",
                reason="stray-carriage-return",
            )
        return [column[0].as_py() for column in table.columns]

    def _error_of(self, record: Record) -> RowError:
        """Return the error of a record that is no row of the table."""
        try:
            found, expected = len(self._fields(record)), len(self.schema)
        except RowError as err:
            return err
        return RowError(
            self._name,
            record.line,
            f"has {found} field{'' if found == 1 else 's'}; expected {expected}, as in the header",
            reason="field-count",
            found=found,
            expected=expected,
        )

    def _quotes_error(self, record: Record) -> RowError:
        return RowError(self._name, record.line, f"its quotes cannot be read: {record.problem}", reason="bad-quotes")


def _names(header: str, delimiter: str) -> list[str]:
    """Return the names in a header; none if it cannot be read with this delimiter."""
    try:
        return next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error:  # such as a carriage return between two characters; pyarrow's error names it
        return []
