"""
What the pages of a Parquet file will take in memory, by their headers, before pyarrow reads them.

pyarrow takes the memory that a page claims to need, and reads the number of rows that it is asked for, however large
they are. A page of 3 KB may hold 100 MB, a dictionary may hold one text that a million rows repeat, and a few bytes may
stand for two thousand million lengths. So the headers of a row group's pages are read first: they say how many rows fit
into memory at once, and pages that do not fit are refused by name.

Data that compress well are no fault: a page may always take :data:`PAGE_BYTES`, and more if it is large in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import pyarrow as pa

from nerd_onnx.errors import InputError
from nerd_onnx.formats.parquet.encoded import RowSizes, lengths_claimed, level_bytes
from nerd_onnx.formats.parquet.footer import (
    ChunkField,
    ElementField,
    FileField,
    FooterContent,
    GroupField,
    MetaField,
    SeekableFile,
    read_at,
)
from nerd_onnx.formats.parquet.thrift import Struct, ThriftError

PAGE_BYTES = 128 << 20  # of one page, and of one row
_PAGES_BYTES = 512 << 20  # of one page of each column
_GROWTH = 32  # bytes that a page may have for each of its bytes in the file; texts that differ have less than ten
_ROWS_BYTES = 64 << 20  # of the rows that are read at once
_LISTS_BYTES = 256 << 20  # of a chunk with lists, whose rows need no closer look
_HEADER_BYTES = (512, 1 << 16, 16 << 20)  # read until the header is complete; pyarrow's maximum is the last one

_BYTES_PER_WORD = 20  # of a dictionary, beside its text
_BYTES_PER_LENGTH = 8
_BYTES_PER_ELEMENT = 16  # of a list: its levels, and its place

_OPTIONAL, _REPEATED = 1, 2  # FieldRepetitionType
_BYTES, _FIXED_BYTES = 6, 7  # Type: byte arrays of any length, and of one length
_WIDTH = 12  # bytes of the largest value of the other types
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3  # PageType
_RLE, _LENGTHS, _PREFIXES = 3, 6, 7  # Encoding: of levels; of texts with their lengths as differences
_CODECS = {0: None, 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}

# Returns the bytes of the longest value in the dictionary of a row group's column, or None if that cannot be told. Its
# arguments are the row group, the path of the column, and the number of values in the dictionary.
Longest = Callable[[int, str, int], int | None]


class _PageField:
    """Fields of ``PageHeader``, and of the headers of data pages and dictionaries in it."""

    KIND, SIZE, COMPRESSED, DATA, DICTIONARY, DATA_2 = 1, 2, 3, 5, 7, 8
    VALUES, ENCODING, DEFINITIONS, REPETITIONS = 1, 2, 3, 4
    ENCODING_2, DEFINITIONS_2, REPETITIONS_2, IS_COMPRESSED_2 = 4, 5, 6, 7


@dataclass(frozen=True)
class _Leaf:
    """
    A leaf column.

    :param path: names of its column and of what is nested in it, joined with dots
    :param definition: maximum definition level
    :param repetition: maximum repetition level; 0 for a column without lists
    :param width: maximum size of a value in bytes; 0 if it may have any
    """

    path: str
    definition: int
    repetition: int
    width: int

    def is_of(self, column: str) -> bool:
        """Whether pyarrow reads it for a column: it also reads a column ``text.en`` for ``text``."""
        return self.path == column or self.path.startswith(f"{column}.")


@dataclass(frozen=True)
class _Chunk:
    """
    A column chunk.

    :param group: its row group
    :param rows: number of rows
    :param meta: its ``ColumnMetaData``
    """

    leaf: _Leaf
    group: int
    rows: int
    meta: Struct


@dataclass(frozen=True)
class _Page:
    """
    A page, by its header.

    :param begin: where its bytes begin in the file, behind the header
    :param compressed: their number
    :param size: their number when they are decompressed
    :param values: number of values, with null
    :param encoding: how a data page stores its values; None for a dictionary
    :param header: the header of its kind
    :param is_second: whether it is a data page of version 2
    """

    begin: int
    compressed: int
    size: int
    values: int
    encoding: int | None
    header: Struct
    is_second: bool = False

    @property
    def memory(self) -> int:
        """Bytes that pyarrow takes for it, as far as its size in the file does not explain them."""
        words = _BYTES_PER_WORD if self.encoding is None else 0
        lengths = _BYTES_PER_LENGTH if self.encoding in (_LENGTHS, _PREFIXES) else 0
        return self.size + self.values * (words + lengths) - _GROWTH * self.compressed


@dataclass
class _Needs:
    """
    What a column chunk needs in memory.

    :ivar page: bytes of the page with the largest claim that its size in the file does not explain
    :ivar row: bytes of a row, in the page with the largest ones
    :ivar dictionary: bytes of the dictionary, of which one value may be nearly all; 0 without one
    :ivar words: number of values in the dictionary
    """

    page: int = 0
    row: int = 1
    dictionary: int = 0
    words: int = 0


class Pages:
    """
    The pages of an open file.

    :param file: the file; its position is changed
    :param name: its name for messages
    :raises ThriftError: if its footer is damaged
    :ivar footer: what it has as its footer
    """

    def __init__(self, file: SeekableFile, name: str) -> None:
        self._file = file
        self._name = name
        self.footer = FooterContent.read(file)
        if self.footer.damage is not None:
            raise self.footer.damage
        self._needs: dict[tuple[int, str], _Needs] = {}
        # Before pyarrow takes memory for each chunk of which there is said to be one.
        for group in self.footer.groups:
            if group.count(GroupField.CHUNKS) != len(self._leaves):
                raise ThriftError("a row group does not have all columns")

    def rows_at_once(self, group: int, columns: Sequence[str] | None, rows: int, longest: Longest | None = None) -> int:
        """
        Return how many rows of a row group fit into memory at once, at least 1.

        :param columns: the columns that are read; None for all
        :param rows: number of rows that are wanted
        :param longest: looks into dictionaries; without it, one of their values may be as long as all
        :raises InputError: if a page or a row does not fit
        :raises ThriftError: if the footer is damaged
        """
        needs = {chunk.leaf.path: self._needs_of(chunk) for chunk in self._chunks(group, columns)}
        if sum(found.page for found in needs.values()) > _PAGES_BYTES:
            path = max(needs, key=lambda path: needs[path].page)
            raise self._too_large(group, path, "the pages of all columns take", _PAGES_BYTES)

        row = _largest_row(needs.values())
        if rows * row > _ROWS_BYTES and longest is not None:
            for path, found in needs.items():
                if found.words:
                    value = longest(group, path, found.words)
                    found.dictionary, found.words = found.dictionary if value is None else value, 0
            row = _largest_row(needs.values())
        return max(1, min(rows, _ROWS_BYTES // row))

    @cached_property
    def _leaves(self) -> list[_Leaf]:
        return list(_leaves(self.footer.file.structs(FileField.SCHEMA)))

    def _chunks(self, group: int, columns: Sequence[str] | None) -> Iterator[_Chunk]:
        """Yield the chunks that pyarrow reads for some columns."""
        if group >= len(self.footer.groups):
            return

        facts = self.footer.groups[group]
        for leaf, content in zip(self._leaves, facts.items(GroupField.CHUNKS), strict=True):
            if columns is None or any(map(leaf.is_of, columns)):
                chunk = Struct(content)
                meta = chunk.struct(ChunkField.META)
                if meta is not None and ChunkField.CRYPTO not in chunk:  # pyarrow refuses the others
                    yield _Chunk(leaf, group, facts.integer(GroupField.ROWS), meta)

    def _needs_of(self, chunk: _Chunk) -> _Needs:
        key = chunk.group, chunk.leaf.path
        if key not in self._needs:
            self._needs = {known: needs for known, needs in self._needs.items() if known[0] == chunk.group}
            self._needs[key] = self._measured(chunk)
        return self._needs[key]

    def _measured(self, chunk: _Chunk) -> _Needs:
        """Return what a chunk needs, by the headers of its pages."""
        needs, size, values = _Needs(row=max(1, chunk.leaf.width)), 0, 0
        pages = []
        for page in self._pages(chunk):
            if page.memory > PAGE_BYTES:
                raise self._too_large(chunk.group, chunk.leaf.path, f"the page before byte {page.begin} takes")
            needs.page = max(needs.page, page.memory)

            if page.encoding is None:
                if not chunk.leaf.width:
                    needs.dictionary, needs.words = page.size, page.values
                continue
            if page.encoding in (_LENGTHS, _PREFIXES):
                self._check_lengths(chunk, page)
            # With prefixes, a value may begin with all of the one before.
            needs.row = max(needs.row, page.size if page.encoding == _PREFIXES else page.size // max(1, page.values))
            size, values = size + page.size, values + page.values
            if chunk.leaf.repetition:
                pages.append(page)

        if chunk.leaf.width > PAGE_BYTES:
            raise self._too_large(chunk.group, chunk.leaf.path, "a value takes")
        if chunk.leaf.repetition:
            needs.row = max(needs.row, size // max(1, chunk.rows))
            if size + _BYTES_PER_ELEMENT * values > _LISTS_BYTES:
                needs.row = max(needs.row, self._largest_list(chunk, pages))
        return needs

    def _pages(self, chunk: _Chunk) -> Iterator[_Page]:
        """Yield the pages of a chunk, as far as pyarrow reads them."""
        at = chunk.meta.integer(MetaField.DATA)
        if 0 < chunk.meta.integer(MetaField.DICTIONARY) < at:
            at = chunk.meta.integer(MetaField.DICTIONARY)
        end, values = at + chunk.meta.integer(MetaField.COMPRESSED), chunk.meta.integer(MetaField.VALUES)

        while values > 0 and at < end:
            header, length = self._header(chunk, at, end)
            if min(header.integer(_PageField.SIZE), header.integer(_PageField.COMPRESSED)) < 0:
                raise self._damaged(chunk, f"the page at byte {at} has a negative size")
            page = _page(header, at + length)
            at += length + header.integer(_PageField.COMPRESSED)
            if page is not None:
                values -= 0 if page.encoding is None else page.values
                yield page

    def _header(self, chunk: _Chunk, at: int, end: int) -> tuple[Struct, int]:
        """Return the header of the page that begins at an offset, and its length."""
        for size in _HEADER_BYTES:
            content = read_at(self._file, at, min(size, end - at))
            try:
                return Struct.leading(content)
            except ThriftError as err:
                problem = err
            if len(content) < size:
                break
        raise self._damaged(chunk, f"the header of the page at byte {at} is damaged: {problem}") from problem

    def _largest_list(self, chunk: _Chunk, pages: Sequence[_Page]) -> int:
        """
        Return the bytes of the largest row of a chunk with lists.

        :raises InputError: if it does not fit into memory
        """
        found = RowSizes()
        for page in pages:
            levels, _, _ = self._decompressed(chunk, page)
            found.add(levels, page.values, chunk.leaf.repetition, page.size)

        row = found.size + _BYTES_PER_ELEMENT * found.values
        if row > PAGE_BYTES + _GROWTH * sum(page.compressed for page in pages):
            raise self._too_large(
                chunk.group, chunk.leaf.path, f"a row has a list of {found.values} elements, which takes"
            )
        return row

    def _check_lengths(self, chunk: _Chunk, page: _Page) -> None:
        """Check that a page has no more lengths of texts than values."""
        try:
            _, data, at = self._decompressed(chunk, page)
            claimed = lengths_claimed(data, at, with_prefixes=page.encoding == _PREFIXES)
        except (IndexError, ValueError) as err:
            raise self._damaged(chunk, f"the page at byte {page.begin} is damaged: {err}") from err
        if claimed > page.values:
            raise self._damaged(chunk, f"the page at byte {page.begin} has {claimed} lengths and {page.values} values")

    def _decompressed(self, chunk: _Chunk, page: _Page) -> tuple[bytes, bytes, int]:
        """Return the repetition levels of a page, its decompressed bytes, and where in these its values begin."""
        leaf, header = chunk.leaf, page.header
        old = [leaf.repetition and header.integer(_PageField.REPETITIONS) != _RLE]
        old.append(leaf.definition and header.integer(_PageField.DEFINITIONS) != _RLE)
        if not page.is_second and any(old):
            raise self._damaged(chunk, f"the page at byte {page.begin} has levels of an encoding that is not read")

        content = read_at(self._file, page.begin, page.compressed)
        try:
            codec = _CODECS[chunk.meta.integer(MetaField.CODEC)]
            if not page.is_second:
                data = content if codec is None else pa.Codec(codec).decompress(content, page.size, asbytes=True)
                levels, at = level_bytes(data, 0, leaf.repetition)
                return levels, data, level_bytes(data, at, leaf.definition)[1]

            repetitions = header.integer(_PageField.REPETITIONS_2)
            before = repetitions + header.integer(_PageField.DEFINITIONS_2)
            rest = content[before:]
            if codec is not None and header.boolean(_PageField.IS_COMPRESSED_2, default=True):
                rest = pa.Codec(codec).decompress(rest, page.size - before, asbytes=True)
            return content[:repetitions], rest, 0
        except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as err:
            raise self._damaged(chunk, f"the page at byte {page.begin} cannot be decompressed") from err

    def _too_large(self, group: int, path: str, what: str, maximum: int = PAGE_BYTES) -> InputError:
        return InputError(
            f"{self._name}, row group {group}, column {path!r}: {what} more than {maximum >> 20} MiB of memory and few "
            "bytes of the file: it is damaged, or was made to fill the memory. If it is right, write it again without "
            "compression, or with smaller pages",
            reason="page-too-large",
            file=self._name,
            row_group=group,
            column=path,
            maximum=maximum,
        )

    def _damaged(self, chunk: _Chunk, problem: str) -> InputError:
        return InputError(
            f"{self._name}, row group {chunk.group}, column {chunk.leaf.path!r}: {problem}; take a good copy of the "
            "file, or write it again",
            reason="damaged-parquet",
            file=self._name,
            row_group=chunk.group,
            column=chunk.leaf.path,
        )


def _largest_row(needs: Iterable[_Needs]) -> int:
    return max(1, sum(max(found.row, found.dictionary) for found in needs))


def _page(header: Struct, begin: int) -> _Page | None:
    """
    Return a page by its header; None if it is of a kind that is not read.

    :param begin: where the page begins, behind the header
    """
    field, encoding = {
        _DATA: (_PageField.DATA, _PageField.ENCODING),
        _DICTIONARY: (_PageField.DICTIONARY, _PageField.ENCODING),
        _DATA_2: (_PageField.DATA_2, _PageField.ENCODING_2),
    }.get(kind := header.integer(_PageField.KIND), (0, 0))
    inner = header.struct(field)
    if inner is None:
        return None
    return _Page(
        begin,
        compressed=header.integer(_PageField.COMPRESSED),
        size=header.integer(_PageField.SIZE),
        values=max(0, inner.integer(_PageField.VALUES)),
        encoding=None if kind == _DICTIONARY else inner.integer(encoding),
        header=inner,
        is_second=kind == _DATA_2,
    )


class _Place(NamedTuple):
    """Where an element of a schema is: the names above it and its own, and its levels."""

    names: tuple[str, ...] = ()
    definition: int = 0
    repetition: int = 0


def _leaves(elements: Sequence[Struct]) -> Iterator[_Leaf]:
    """Yield the leaf columns of a schema, whose elements are a tree in depth-first order."""
    # Places for the elements to come, the next one last: each element that has others puts its own there for them.
    above = [_Place()] * min(elements[0].integer(ElementField.CHILDREN) if elements else 0, len(elements))
    for element in elements[1:]:
        if not above:
            raise ThriftError("the schema is longer than its root says")
        place = above.pop()
        repetition = element.integer(ElementField.REPETITION)
        own = _Place(
            (*place.names, (element.binary(ElementField.NAME) or b"").decode(errors="replace")),
            place.definition + (repetition in (_OPTIONAL, _REPEATED)),
            place.repetition + (repetition == _REPEATED),
        )

        if ElementField.TYPE not in element:
            above += [own] * min(element.integer(ElementField.CHILDREN), len(elements))
        else:
            width = {_BYTES: 0, _FIXED_BYTES: element.integer(ElementField.LENGTH)}
            kind = element.integer(ElementField.TYPE)
            yield _Leaf(".".join(own.names), own.definition, own.repetition, width.get(kind, _WIDTH))
