"""The footer of a Parquet file: whether the file's columns can be copied, and the footer with columns added."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from nerd_onnx.formats.parquet.thrift import I32, Struct, ThriftError

MAGIC = b"PAR1"
END = struct.Struct("<I4s")  # what follows a footer: its length, and the magic bytes
MAX_FOOTER_BYTES = 8 << 20  # a megabyte takes about a second, and no signal ends the run meanwhile


# The numbers of fields, as in parquet.thrift. Fields that are not listed are kept as they are.
class FileField:
    """Fields of ``FileMetaData``."""

    SCHEMA, ROWS, GROUPS, METADATA, ORDERS, ENCRYPTION, SIGNING_KEY = 2, 3, 4, 5, 7, 8, 9


class ElementField:
    """Fields of ``SchemaElement``."""

    TYPE, LENGTH, REPETITION, NAME, CHILDREN = 1, 2, 3, 4, 5


class GroupField:
    """Fields of ``RowGroup``."""

    CHUNKS, SIZE, ROWS, COMPRESSED = 1, 2, 3, 6


class ChunkField:
    """Fields of ``ColumnChunk``."""

    PATH, OFFSET, META = 1, 2, 3
    OFFSET_INDEX, OFFSET_INDEX_BYTES, COLUMN_INDEX, COLUMN_INDEX_BYTES = 4, 5, 6, 7
    CRYPTO, ENCRYPTED = 8, 9


class MetaField:
    """Fields of ``ColumnMetaData``."""

    ENCODINGS, CODEC, VALUES, SIZE, COMPRESSED, DATA, DICTIONARY = 2, 4, 5, 6, 7, 9, 11
    STATISTICS, ENCODING_STATS, SIZE_STATISTICS = 12, 13, 16


class PairField:
    """Fields of ``KeyValue``."""

    KEY, VALUE = 1, 2


class CannotCopyError(Exception):
    """The columns of a file cannot be copied. The message is the reason, in words that follow "because"."""


class SeekableFile(Protocol):
    """An open file of pyarrow or Python."""

    def seek(self, offset: int, whence: int = ..., /) -> int:
        """Go to an offset, and return it."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most this number of bytes."""


@dataclass(frozen=True)
class FooterContent:
    """
    What a file has as its footer. It is decoded once, for all that look at it.

    :param file: the fields of ``FileMetaData``; none if the footer is not read
    :param groups: its row groups
    :param begin: offset of the footer, where the pages of the file end at the latest
    :param rest: number of bytes that follow the fields, such as those of a signature
    :param problem: why the footer is not read, in words that follow "because"; empty if it is
    :param damage: what is wrong with a footer that was read; None for an intact one
    """

    file: Struct = field(default_factory=Struct)
    groups: Sequence[Struct] = ()
    begin: int = 0
    rest: int = 0
    problem: str = ""
    damage: ThriftError | None = None

    @classmethod
    def of(cls, content: bytes, begin: int) -> Self:
        """Return the footer that some bytes are."""
        try:
            file, size = Struct.leading(content)
            return cls(file, file.structs(FileField.GROUPS), begin, len(content) - size)
        except ThriftError as err:
            return cls(damage=err)

    @classmethod
    def read(cls, file: SeekableFile) -> Self:
        """Return the footer of an open file; its position is changed."""
        size = file.seek(0, os.SEEK_END)
        if size < len(MAGIC) + END.size:
            return cls(problem="it is damaged")

        # An encrypted footer has other magic bytes.
        length, magic = END.unpack(read_at(file, size - END.size, END.size))
        begin = size - END.size - length
        if magic != MAGIC or not len(MAGIC) <= begin < size - END.size:
            return cls(problem="it is encrypted or damaged")
        if length > MAX_FOOTER_BYTES:
            return cls(problem=f"its footer has more than {MAX_FOOTER_BYTES >> 20} MiB")

        return cls.of(read_at(file, begin, length), begin)


def read_at(file: SeekableFile, at: int, size: int) -> bytes:
    """Return bytes of an open file; fewer at its end."""
    file.seek(at)
    return file.read(size) or b""


@dataclass(frozen=True)
class AddedChunk:
    """
    A column chunk that is added to a row group.

    :param content: the encoded ``ColumnChunk``
    :param size: size of its pages in bytes, uncompressed
    :param compressed: size of its pages in bytes
    """

    content: bytes
    size: int
    compressed: int


class Footer:
    """
    A footer whose file can be copied.

    :param content: what the file has as its footer
    :raises CannotCopyError: if the footer is not read, is damaged, or says that the file is encrypted or has parts in
        other files
    :ivar pages_end: offset of the footer, where the pages of the file end at the latest
    :ivar names: names of the columns, without those nested in others
    :ivar leaves: number of leaf columns
    :ivar num_rows: number of rows
    :ivar group_rows: number of rows of each row group
    :ivar metadata: the file's key-value metadata, without keys that have no value
    :ivar has_page_index: whether a column has a page index
    """

    def __init__(self, content: FooterContent) -> None:
        if content.problem:
            raise CannotCopyError(content.problem)
        if content.damage is not None or content.rest:
            raise CannotCopyError(f"its footer is damaged: {content.damage or f'{content.rest} other bytes follow it'}")

        self.pages_end = content.begin
        self._file, self._groups = content.file, content.groups
        try:
            if FileField.ENCRYPTION in self._file or FileField.SIGNING_KEY in self._file:
                raise CannotCopyError("it is encrypted or signed")

            columns = list(_columns(self._file.structs(FileField.SCHEMA)))
            self.names = [name.decode() for name, _ in columns]
            self.leaves = sum(leaves for _, leaves in columns)

            self.has_page_index = False  # _checked_rows sets it, where a column chunk has one
            self.group_rows = [self._checked_rows(group) for group in self._groups]

            self.metadata = _pairs(self._file)
            self.num_rows = self._file.integer(FileField.ROWS)
            if self.num_rows != sum(self.group_rows):
                raise CannotCopyError("its numbers of rows do not agree")

            # An order for each leaf column, or none at all.
            self._has_orders = bool(self._file.items(FileField.ORDERS))
            if self._has_orders and len(self._file.items(FileField.ORDERS)) != self.leaves:
                raise CannotCopyError("its footer is damaged: columns have no order")
        except (ThriftError, UnicodeDecodeError) as err:
            raise CannotCopyError(f"its footer is damaged: {err}") from err

    def bytes_per_row(self, group: int, name: str) -> int:
        """Return the average size of a column's values in a row group: in bytes, uncompressed, and at least 1."""
        chunks = self._chunks_of(self._groups[group], name)
        size = sum(_meta(chunk).integer(MetaField.SIZE) for chunk in chunks)
        return max(1, size // max(1, self.group_rows[group]))

    def extended(
        self,
        elements: Sequence[bytes],
        orders: Sequence[bytes],
        groups: Sequence[Sequence[AddedChunk]],
        metadata: Mapping[bytes, bytes],
    ) -> bytes:
        """
        Return the footer with columns added at the end.

        The writer's name stays the input's: readers know by it which errors the statistics of old writers have.

        :param elements: the encoded ``SchemaElement`` of each column and of what is nested in it
        :param orders: the encoded ``ColumnOrder`` of each leaf column
        :param groups: the chunks that each row group gets
        :param metadata: the new key-value metadata; keys that it lacks stay
        """
        # A copy: this footer stays the input's, and rows are still read by it.
        file = Struct(bytes(self._file))
        root, *others = file.items(FileField.SCHEMA)
        top = Struct(root)
        # The elements are a tree in depth-first order: new columns are its last ones, and only the root counts them.
        top.set_integer(ElementField.CHILDREN, len(self.names) + _top_level(elements), I32)
        file.set_items(FileField.SCHEMA, [bytes(top), *others, *elements])

        extended = [_extended_group(group, chunks) for group, chunks in zip(self._groups, groups, strict=True)]
        file.set_items(FileField.GROUPS, extended)

        if self._has_orders:
            file.extend(FileField.ORDERS, orders)

        pairs = self._pairs_with(metadata)
        if pairs:
            file.set_items(FileField.METADATA, pairs)

        return bytes(file)

    def _pairs_with(self, metadata: Mapping[bytes, bytes]) -> list[bytes]:
        """Return the encoded key-value pairs, of which only those that changed are made again."""
        changed = {key: value for key, value in metadata.items() if self.metadata.get(key) != value}
        pairs = self._file.structs(FileField.METADATA)
        for pair in pairs:
            key = pair.binary(PairField.KEY)
            if key in changed:
                pair.set_binary(PairField.VALUE, changed[key])

        added = [key for key in changed if key not in self.metadata]
        new = [Struct().set_binary(PairField.KEY, key).set_binary(PairField.VALUE, changed[key]) for key in added]
        return [bytes(pair) for pair in (*pairs, *new)]

    def _checked_rows(self, group: Struct) -> int:
        """
        Return the number of rows of a row group.

        :raises CannotCopyError: if the file does not hold all of its column chunks
        """
        chunks = group.structs(GroupField.CHUNKS)
        # All that is read later is read here, where an error still leads to another way.
        rows, _, _ = (group.integer(number) for number in (GroupField.ROWS, GroupField.SIZE, GroupField.COMPRESSED))
        if len(chunks) != self.leaves or rows < 0:
            raise CannotCopyError("a row group does not have all columns")

        for chunk in chunks:
            self._check_chunk(chunk)
        return rows

    def _check_chunk(self, chunk: Struct) -> None:
        if chunk.binary(ChunkField.PATH):
            raise CannotCopyError("some of its columns are in other files")
        if ChunkField.CRYPTO in chunk or ChunkField.ENCRYPTED in chunk:
            raise CannotCopyError("it is encrypted")

        meta = _meta(chunk)
        begin, size = pages_begin(meta), meta.integer(MetaField.COMPRESSED)
        if min(size, meta.integer(MetaField.SIZE)) < 0 or (size and begin + size > self.pages_end):
            raise CannotCopyError("it does not hold all pages of a column")
        self.has_page_index |= ChunkField.OFFSET_INDEX in chunk

    def _chunks_of(self, group: Struct, name: str) -> list[Struct]:
        """Return the column chunks of one column."""
        before = 0
        for found, leaves in _columns(self._file.structs(FileField.SCHEMA)):
            if found.decode() == name:
                return group.structs(GroupField.CHUNKS)[before : before + leaves]
            before += leaves

        return []


def pages_begin(meta: Struct) -> int:
    """Return the offset of a chunk's first page, by its ``ColumnMetaData``; 0 if it has none."""
    # Some writers give 0 for a page that is not there.
    return min(filter(None, (meta.integer(MetaField.DICTIONARY), meta.integer(MetaField.DATA))), default=0)


def _pairs(file: Struct) -> dict[bytes, bytes]:
    """Return the key-value metadata of a file, without keys that have no value."""
    pairs = [(pair.binary(PairField.KEY), pair.binary(PairField.VALUE)) for pair in file.structs(FileField.METADATA)]
    return {key: value for key, value in pairs if key is not None and value is not None}


def _meta(chunk: Struct) -> Struct:
    found = chunk.struct(ChunkField.META)
    if found is None:
        raise CannotCopyError("its footer is damaged: a column chunk has no metadata")
    return found


def _columns(elements: Sequence[Struct]) -> Iterator[tuple[bytes, int]]:
    """Yield the name and the number of leaf columns of each column below the root, the first element."""
    rest = iter(elements)
    root = next(rest, Struct())
    for _ in range(root.integer(ElementField.CHILDREN)):
        # The schema is a tree in depth-first order: an element counts down one and adds its children.
        name, leaves, expected = None, 0, 1
        while expected > 0:
            element = next(rest, None)
            if element is None:
                raise CannotCopyError("its footer is damaged: the schema is cut off")

            name = name or element.binary(ElementField.NAME)
            leaves += ElementField.TYPE in element
            expected += element.integer(ElementField.CHILDREN) - 1

        yield name or b"", leaves

    if next(rest, None) is not None:
        raise CannotCopyError("its footer is damaged: the schema is longer than its root says")


def _top_level(elements: Sequence[bytes]) -> int:
    """Return the number of elements that are not nested in others."""
    inner = sum(Struct(element).integer(ElementField.CHILDREN) for element in elements)
    return len(elements) - inner


def _extended_group(before: Struct, chunks: Sequence[AddedChunk]) -> bytes:
    group = Struct(bytes(before))
    # The chunks that are there are not decoded: a row group may have thousands of them.
    group.extend(GroupField.CHUNKS, [chunk.content for chunk in chunks])
    group.set_integer(GroupField.SIZE, group.integer(GroupField.SIZE) + sum(chunk.size for chunk in chunks))
    if GroupField.COMPRESSED in group:
        total = group.integer(GroupField.COMPRESSED) + sum(chunk.compressed for chunk in chunks)
        group.set_integer(GroupField.COMPRESSED, total)

    return bytes(group)
