"""Read CSV and TSV as rows in which every column is text, or has the type that is asked for."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import pyarrow as pa
import pyarrow.csv

from nerd_onnx.errors import InputError, OptionError
from nerd_onnx.formats.column_types import OPTION
from nerd_onnx.formats.csv.records import Record, records
from nerd_onnx.formats.interfaces import ReadOptions, RejectedRow, RowBatch
from nerd_onnx.formats.line_reading import (
    HEAD_BYTES,
    LinesReader,
    RowError,
    grouped,
    not_utf8,
    require_text,
    whole_first_line,
)
from nerd_onnx.formats.text_arrays import column_of, find_text_column
from nerd_onnx.formats.typed_text import Kind, KindSearch, converted, first_misfits, kind_named
from nerd_onnx.storage.input_stream import is_stream
from nerd_onnx.storage.location import Location

_HEADER_BYTES = 1 << 16
_SHOWN_CHARACTERS = 60


class CsvReader(LinesReader):
    """
    A file with fields between delimiters, plain or compressed. Its first record has the names of the columns.

    Every column is text unless the options give it a type. A field without characters is null, and ``""`` is an empty
    text, or null in a column of another type. Blank lines are not rows. An empty file has no rows and only the text
    column. pyarrow parses the records.

    If the types of columns are to be found, a first pass on opening looks at all rows.

    :param path: a file, or ``-``
    :param delimiters: characters of ASCII; the first one that gives a header with the text columns is taken
    :param title: name of the format in messages
    :raises InputError: if it cannot be opened, its header cannot be read, it has no text column, or lacks a column that
        gets a type
    :raises OptionError: if the text column gets a type, or types are to be found in what can be read only once
    """

    num_rows: int | None = None

    def __init__(self, path: Location, options: ReadOptions, delimiters: str, title: str) -> None:
        super().__init__(path, options)

        try:
            require_text(self._name, self._stream.head(HEAD_BYTES), title)
            self._delimiter = self._delimiter_of(whole_first_line(self._stream.head(_HEADER_BYTES)), delimiters)
            # With blank lines: in a quoted field, they are a part of the text.
            self._records = records(self._stream.lines(blank=True), self._delimiter.encode(), options.line_bytes)

            header = next(self._records, None)
            self._texts_schema = self._schema_of(header)
            self.column_names: Sequence[str] = self._texts_schema.names
            self._text_indices = [
                find_text_column(self._name, self._texts_schema, name) for name in options.text_columns
            ]

            self._named = {} if header is None else self._named_kinds()
            self._kinds = dict(self._named)
            if header is None:
                self.num_rows = 0
            elif options.column_types.is_auto:
                found, self.num_rows = self._found_kinds(delimiters, title)
                self._kinds |= found

            self.schema = self._typed_schema()
        except BaseException:
            self._stream.close()
            raise

    def batches(self) -> Iterator[RowBatch]:
        """
        Yield the rows in file order.

        :raises InputError: if a row has another number of fields than the header, malformed quotes or invalid UTF-8
        """
        # No further than the first pass: a file that grows meanwhile is read as it was.
        limited = islice(self._records, self._options.limit if self.num_rows is None else self.num_rows)
        yield from self._counted(grouped(limited, lambda record: record.size, self._options), self._batch)

    def _delimiter_of(self, header: str | None, delimiters: str) -> str:
        """Return the delimiter of a header; the usual one if the header's end is not among the first bytes."""
        if header is None or len(delimiters) == 1:
            return delimiters[0]

        names = {delimiter: _names(header, delimiter) for delimiter in delimiters}
        wanted = {*map(column_of, self._options.text_columns)}
        fitting = (delimiter for delimiter in delimiters if wanted <= {*names[delimiter]})

        # Without the text column an error lists the columns, so they should be what the user sees.
        return next(fitting, max(delimiters, key=lambda delimiter: len(names[delimiter])))

    def _schema_of(self, header: Record | None) -> pa.Schema:
        if header is None:
            return pa.schema([(column_of(name), pa.string()) for name in self._options.text_columns])
        if header.problem is not None:
            raise self._quotes_error(header)
        return pa.schema([(name or "", pa.string()) for name in self._fields(header)])

    def _named_kinds(self) -> dict[int, Kind]:
        """Return the types that the user named, by the index of their columns."""
        kinds = {}
        for name, kind_name in self._options.column_types.named:
            places = [i for i, column in enumerate(self.column_names) if column == name]
            if len(places) != 1:
                has = f"has {len(places)} columns" if places else "has no column"
                raise InputError(
                    f"{self._name}: {has} named {name!r} for {OPTION}; the columns are: {', '.join(self.column_names)}",
                    reason="column-ambiguous" if places else "column-missing",
                    file=self._name,
                    option=OPTION,
                    column=name,
                    found=len(places),
                )

            kind = kind_named(kind_name)
            if kind is not None and name in self._options.text_columns:
                raise OptionError(
                    f"{OPTION}: {name!r} is the text column, which is text and not {kind.name}; leave it out",
                    reason="typed-text-column",
                    option=OPTION,
                    column=name,
                )

            if kind is not None:
                kinds[places[0]] = kind

        return kinds

    def _found_kinds(self, delimiters: str, title: str) -> tuple[dict[int, Kind], int]:
        """
        Read all rows, and find the types of the columns that the user did not name.

        :return: the types by the index of their columns, and the number of rows
        """
        if is_stream(self.path):
            raise OptionError(
                f"{OPTION} auto reads {self._name} twice, and it can be read only once; give a file, or name the "
                "types, such as id=int64",
                reason="csv-types-need-file",
                option=OPTION,
                file=self._name,
            )

        chosen = self._options.column_types
        known = {*self._options.text_columns, *(name for name, _ in chosen.named)}
        searches = {i: KindSearch() for i, name in enumerate(self.column_names) if name not in known}

        # The first pass has the types that the user named, so that it leaves out the same rows as the second.
        options = replace(self._options, column_types=chosen.without_search)
        with CsvReader(self.path, options, delimiters, title) as first:
            for rows in first.batches():
                if rows.table is not None:
                    for i, search in searches.items():
                        search.add(rows.table.column(i))

        found = {i: search.found for i, search in searches.items()}
        return {i: kind for i, kind in found.items() if kind is not None}, first.rows_read

    def _typed_schema(self) -> pa.Schema:
        schema = self._texts_schema
        for i, kind in self._kinds.items():
            schema = schema.set(i, schema.field(i).with_type(kind.type))
        return schema

    def _batch(self, group: list[Record], first_row: int) -> RowBatch:
        # Each of the three steps adds the records that it cannot read to the errors.
        errors = {i: self._quotes_error(record) for i, record in enumerate(group) if record.problem is not None}
        kept = [i for i in range(len(group)) if i not in errors]

        tables = list(self._tables(group, kept, errors))
        kept = [i for i in kept if i not in errors]
        texts = tables[0] if tables else pa.RecordBatch.from_pylist([], self._texts_schema)
        texts = texts if len(tables) <= 1 else pa.concat_batches(tables)  # which would copy a single one
        table = self._typed(texts, group, kept, errors)
        good = [i for i in kept if i not in errors]
        if errors and not self._options.lenient:
            raise errors[min(errors)]

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

    def _typed(
        self, texts: pa.RecordBatch, group: list[Record], places: list[int], errors: dict[int, RowError]
    ) -> pa.RecordBatch:
        """
        Convert columns, and leave out the rows with a value that does not fit the type of its column.

        :param texts: the rows as text
        :param places: the place of each row in the group
        :param errors: the errors of the rows that are left out are added to it, by place
        """
        columns, misfits = list(texts.columns), []
        for i, kind in sorted(self._kinds.items()):
            columns[i], unfit = converted(columns[i], kind)
            misfits.append((i, unfit))

        wrong = first_misfits(misfits)
        for row, i in wrong.items():
            errors[places[row]] = self._misfit_error(group[places[row]], i, texts.column(i)[row].as_py())

        table = pa.RecordBatch.from_arrays(columns, schema=self.schema)
        if not wrong:
            return table
        return table.filter(pa.array([row not in wrong for row in range(len(places))], pa.bool_()))

    def _misfit_error(self, record: Record, column: int, value: str) -> RowError:
        """
        Return the error of a row with a value that does not fit.

        :raises InputError: if its type was found, and not named by the user
        """
        name, kind = self.column_names[column], self._kinds[column]
        # A type that was found fitted all values of the first pass.
        if column not in self._named:
            raise InputError(
                f"{self._name}, line {record.line}: the lines changed while the file was read",
                reason="changed-while-read",
                file=self._name,
                row=record.line,
            )

        shown = value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}..."
        return RowError(
            self._name,
            record.line,
            f"column {name!r} is {shown!r}, which is no {kind.name}; correct it, or choose another type with {OPTION}, "
            "such as text",
            reason="csv-type",
            column=name,
            found=shown,
            expected=kind.name,
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
        names = [str(i) for i in range(len(self._texts_schema))]
        try:
            table = self._parse(b"".join(record.content + b"\n" for record in group), names)
        except pa.ArrowInvalid:
            return None

        if table.num_rows != len(group):  # pyarrow ends a line at a carriage return too
            return None
        columns = [column.combine_chunks() for column in table.columns]
        return pa.RecordBatch.from_arrays(columns, schema=self._texts_schema)

    def _parse(self, content: bytes, names: list[str], *, counts: bool = False) -> pa.Table:
        """
        Parse records as columns of text.

        :param content: the records, each with a line feed
        :param names: names of the columns
        :param counts: let pyarrow count the columns, which are then named f0, f1 and so on
        :raises pa.ArrowInvalid: if a record has another number of fields, or is not valid UTF-8
        """
        # One block: a record must not lie in two.
        reading = pyarrow.csv.ReadOptions(
            use_threads=False,
            block_size=len(content),
            column_names=None if counts else names,
            autogenerate_column_names=counts,
        )
        parsing = pyarrow.csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True, ignore_empty_lines=False)
        # By default pyarrow takes "NA", "null" and others for null.
        conversion = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        )

        return pyarrow.csv.read_csv(
            pa.BufferReader(content),  # without a copy of it, as a file of Python would be
            read_options=reading,
            parse_options=parsing,
            convert_options=conversion,
        )

    def _fields(self, record: Record) -> list[str | None]:
        """
        Return the fields of a record, however many it has.

        :raises RowError: if it is not valid UTF-8, or holds several rows
        """
        # Before pyarrow sees it, whose error names no byte.
        try:
            record.content.decode()
        except UnicodeDecodeError as err:
            raise not_utf8(self._name, record.line, err) from err

        # No record has more fields than delimiters and one: with fewer names pyarrow would guess types.
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
            found, expected = len(self._fields(record)), len(self._texts_schema)
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
