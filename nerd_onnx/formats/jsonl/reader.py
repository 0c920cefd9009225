"""Read JSON Lines, as raw lines of which only the text is interpreted, or as typed columns."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from nerd_onnx.errors import InputError
from nerd_onnx.formats.interfaces import ReadOptions, RejectedRow, RowBatch
from nerd_onnx.formats.jsonl.lines import (
    TYPED,
    UNTYPED,
    Text,
    parse_object,
    require_json_lines,
    require_text_column,
    text_array,
    text_of,
)
from nerd_onnx.formats.jsonl.long_lines import decoded, is_marked, long_string, shortened
from nerd_onnx.formats.jsonl.types import FieldShape, MixedTypesError
from nerd_onnx.formats.line_reading import HEAD_BYTES, LinesReader, RowError, grouped
from nerd_onnx.formats.text_arrays import column_of, has_elements, texts_of
from nerd_onnx.storage.closing import Closing
from nerd_onnx.storage.input_stream import ByteStream, ReadableFile, input_name
from nerd_onnx.storage.location import Location

NumberedLine = tuple[int, bytes]
HEAD_ROWS = 2048  # one of these must have the text field
MAX_MIXED_ROWS = 100_000  # each is kept in memory from the first pass to the second


class RawLinesReader(LinesReader):
    """
    JSON Lines, plain or compressed, as raw lines: all fields but the text are passed on without being interpreted.

    Blank lines are not rows. A row without the text field has a null text. Each escaped lone surrogate in a text
    becomes one U+FFFD; the raw line keeps it. The first rows are read on opening, so that a wrong text field is found
    before anything is written.

    :param path: a file, or ``-``
    :raises InputError: if it cannot be opened, its first rows are damaged, or none of them has the text field
    """

    schema: pa.Schema | None = None
    num_rows: int | None = None

    def __init__(self, path: Location, options: ReadOptions) -> None:
        super().__init__(path, options)
        self.column_names: Sequence[str] = ()
        self._text_columns = options.text_columns
        self._groups = grouped(islice(self._stream.lines(), options.limit), _size_of, options)

        try:
            require_json_lines(self._name, self._stream.head(HEAD_BYTES))
            self._head = self._read_head()
        except BaseException:
            self._stream.close()
            raise

    def batches(self) -> Iterator[RowBatch]:
        """
        Yield the rows in file order.

        :raises InputError: if a line is not a JSON object in UTF-8, or its text is neither a string nor null
        """
        while self._head:
            head = self._head.popleft()
            self.rows_read += head.rows_read
            yield head

        yield from self._counted(self._groups, lambda group, first_row: self._batch(group, first_row, {}))

    def _read_head(self) -> deque[RowBatch]:
        """Read until a row has the text field, or :data:`HEAD_ROWS` rows do not have it."""
        head: deque[RowBatch] = deque()
        keys: dict[str, None] = {}
        rows = 0

        while rows < HEAD_ROWS and not keys.keys() >= set(map(column_of, self._text_columns)):
            group = next(self._groups, None)
            if group is None:
                break

            head.append(self._batch(group, rows, keys))
            rows += len(group)

        self.column_names = list(keys)
        if any(batch.num_rows for batch in head):
            for name in self._text_columns:
                require_text_column(self._name, self.column_names, column_of(name))

        return head

    def _batch(self, group: list[NumberedLine], first_row: int, keys: dict[str, None]) -> RowBatch:
        """
        Return the rows of some lines.

        :param keys: the keys of the rows are added to it, in order of first appearance
        """
        long = self._long_row(group, first_row, keys)
        if long is not None:
            return long

        texts: list[tuple[Text, ...]] = []
        kept: list[tuple[int, int]] = []
        rejected: list[RejectedRow] = []

        for i, (number, line) in enumerate(group):
            # A line that is no JSON has no place in an output of JSON Lines.
            try:
                record = parse_object(self._name, number, line, UNTYPED)
                keys.update(dict.fromkeys(record))
            except RowError as err:
                rejected.append(self._rejected_row(err, RejectedRow(first_row + i, err.problem, number, raw=line)))
                continue

            # One with a text of another type has: --on-error null writes it with null entities.
            kept.append((i, number))
            try:
                texts.append(tuple(text_of(self._name, number, record, name) for name in self._text_columns))
            except RowError as err:
                rejected.append(
                    self._rejected_row(err, RejectedRow(first_row + i, err.problem, number, index=len(texts)))
                )
                texts.append((None,) * len(self._text_columns))

        first, *more = (text_array([row[i] for row in texts], name) for i, name in enumerate(self._text_columns))
        return RowBatch(
            texts=first,
            more_texts=tuple(more),
            table=None,
            lines=[group[i][1] for i, _ in kept],
            first_row=first_row,
            line_numbers=[number for _, number in kept],
            row_numbers=[first_row + i for i, _ in kept] if rejected else None,
            rejected=tuple(rejected),
        )

    def _long_row(self, group: list[NumberedLine], first_row: int, keys: dict[str, None]) -> RowBatch | None:
        """Return the row of one line with a long text; None for all other lines, damaged ones among them."""
        name = self._text_columns[0]
        is_plain = len(self._text_columns) == 1 and not has_elements(name)
        short = shortened(group[0][1]) if len(group) == 1 and is_plain else None
        if short is None:
            return None

        number, line = group[0]
        try:
            record = parse_object(self._name, number, short.content, UNTYPED)
            text = text_of(self._name, number, record, name)
            # The mark of a long key would be listed among the names of fields.
            if is_marked(record, short):
                return None

            for mark, place in short.strings.items():
                if mark != text:
                    deque(decoded(line, *place), maxlen=0)  # raises an error if it is damaged

            texts = long_string(line, *short.strings[text]) if text in short.strings else text_array([text], name)
        except (RowError, ValueError):
            return None

        keys.update(dict.fromkeys(record))
        return RowBatch(texts=texts, table=None, lines=[line], first_row=first_row, line_numbers=[number])

    def _rejected_row(self, err: RowError, rejected: RejectedRow) -> RejectedRow:
        if not self._options.lenient:
            raise err
        return rejected


class TypedLinesReader(Closing):
    """
    JSON Lines, plain or compressed, as typed columns, for Parquet output. Reads its input twice.

    The first pass, on opening, checks every row and infers one schema: columns and struct fields in order of first
    appearance; int64 (uint64 if needed), double, bool, string, list, struct; null if a field is always null, missing
    or an empty object. Values without a common type are an error, or JSON text if the options say so. Strings stay
    strings, also dates. Lone surrogates become U+FFFD in all strings, because Parquet holds valid UTF-8 only. Standard
    input is copied to a temporary file.

    :param path: a file, or ``-``
    :raises InputError: if a line is damaged, no row has the text field, or a field mixes types
    """

    codecs: tuple[str, ...] | None = None
    copied = None
    rewritten_because = None

    def __init__(self, path: Location, options: ReadOptions) -> None:
        self.path = path
        self._name = input_name(path)
        self._text_columns = options.text_columns
        self._options = options
        self._mixed_rows: dict[int, str] = {}
        self.rows_read = 0
        self._file = ReadableFile(path)

        try:
            with ByteStream(self._file.path, options.line_bytes) as stream:
                require_json_lines(self._name, stream.head(HEAD_BYTES))
                self.schema, self.num_rows = self._find_schema(islice(stream.lines(), options.limit))

            self.column_names: Sequence[str] = self.schema.names
            self._stream = ByteStream(self._file.path, options.line_bytes)
        except BaseException:
            self._file.close()
            raise

    def progress(self) -> float | None:
        """Return the share of the bytes that was consumed in the second pass."""
        return self._stream.progress()

    def batches(self) -> Iterator[RowBatch]:
        """
        Yield the rows in file order.

        :raises InputError: if the file changed after the first pass
        """
        # No further than the first pass: a file that grows meanwhile is read as it was.
        for group in grouped(islice(self._stream.lines(), self.num_rows), _size_of, self._options):
            rows = self._batch(group, self.rows_read)
            self.rows_read += len(group)
            yield rows

    def close(self) -> None:
        """Close the file and delete the temporary copy."""
        self._stream.close()
        self._file.close()

    def _find_schema(self, lines: Iterator[NumberedLine]) -> tuple[pa.Schema, int]:
        shape = FieldShape("", mixes=self._options.mixed_as_json)
        rows, parsed, missing = 0, False, {*map(column_of, self._text_columns)}
        for number, line in lines:
            rows += 1
            try:
                record = self._parse(number, line)
                parsed = True
                missing -= record.keys()
                self._fit(shape, record, number)
            except RowError as err:
                if not self._options.lenient:
                    raise
                self._note_mixed(number, err)

        # Without a single row that could be parsed, the keys are unknown, and the rejected rows say more.
        for name in self._text_columns if parsed else ():
            if column_of(name) in missing:
                require_text_column(self._name, shape.fields, column_of(name))

        # Most columns are as pyarrow reads them, and are spared the walk over their values.
        self._shapes = {name: member for name, member in shape.fields.items() if member.is_converted}
        types = {name: member.arrow_type() for name, member in shape.fields.items()}
        # The text columns get their type even if all of their values are null, or no row has them.
        for name in self._text_columns:
            types[column_of(name)] = pa.list_(pa.string()) if has_elements(name) else pa.string()

        return pa.schema(list(types.items())), rows

    def _note_mixed(self, number: int, err: RowError) -> None:
        """
        Note a row that is rejected in the second pass.

        :raises InputError: if there are more than :data:`MAX_MIXED_ROWS`
        """
        self._mixed_rows[number] = err.problem
        mixed = len(self._mixed_rows)
        if mixed > MAX_MIXED_ROWS:
            raise InputError(
                f"{self._name}, line {number}: {mixed} rows fit no common Parquet schema, and the maximum is "
                f"{MAX_MIXED_ROWS}. Give --mixed json, which stores such fields as JSON text, write JSON "
                "Lines, or make the fields uniform",
                reason="too-many-mixed-rows",
                file=self._name,
                row=number,
                maximum=MAX_MIXED_ROWS,
            ) from err

    def _fit(self, shape: FieldShape, record: dict[str, Any], number: int) -> None:
        """Extend the schema so that it fits one more row."""
        for name in self._text_columns:
            text_of(self._name, number, record, name)

        try:
            shape.add(record, number)
        except MixedTypesError as err:
            raise RowError(
                self._name,
                number,
                f"{err}; a Parquet column has one type. Give --mixed json, which stores the field as JSON text, write "
                "JSON Lines, which allows mixed types, or make the field uniform",
                reason=err.reason,
                **err.fields,
            ) from err

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        return parse_object(self._name, number, line, TYPED, clean=True)

    def _batch(self, group: list[NumberedLine], first_row: int) -> RowBatch:
        good = [(i, number, line) for i, (number, line) in enumerate(group) if number not in self._mixed_rows]
        table = self._table([(number, line) for _, number, line in good])
        rejected = [
            RejectedRow(first_row + i, self._mixed_rows[number], number, raw=line)
            for i, (number, line) in enumerate(group)
            if number in self._mixed_rows
        ]

        first, *more = (
            texts_of(table.column(self.schema.get_field_index(column_of(name))), name) for name in self._text_columns
        )
        return RowBatch(
            texts=first,
            more_texts=tuple(more),
            table=table,
            lines=None,
            first_row=first_row,
            line_numbers=[number for _, number, _ in good],
            row_numbers=[first_row + i for i, _, _ in good] if rejected else None,
            rejected=tuple(rejected),
        )

    def _table(self, group: list[NumberedLine]) -> pa.RecordBatch:
        # All rows fitted the schema in the first pass, so one that does not was another row then.
        try:
            records = [self._parse(number, line) for number, line in group]
            columns = [self._column(records, field) for field in self.schema]
        except (pa.ArrowException, TypeError, OverflowError) as err:
            raise InputError(
                f"{self._name}, lines {group[0][0]} to {group[-1][0]}: the lines changed while the file was read",
                reason="changed-while-read",
                file=self._name,
                row=group[0][0],
            ) from err

        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _column(self, records: list[dict[str, Any]], field: pa.Field) -> pa.Array:
        values = [record.get(field.name) for record in records]
        shape = self._shapes.get(field.name)
        return pa.array(values if shape is None else map(shape.converted, values), field.type)


def _size_of(line: NumberedLine) -> int:
    return len(line[1])
