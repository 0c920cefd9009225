"""Small Parquet files made page by page, whose page headers and footer may claim anything."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nerd_onnx.formats.parquet.footer import MAGIC, ElementField, FileField, GroupField, MetaField
from nerd_onnx.formats.parquet.thrift import BINARY, I32, Struct, zigzag

CODECS = {"none": 0, "snappy": 1, "gzip": 2, "brotli": 4, "zstd": 6, "lz4_raw": 7}
PLAIN, DICTIONARY, BIT_PACKED_DELTA, LENGTH_DELTA, PREFIX_DELTA = 0, 8, 5, 6, 7
_RLE = 3
INT64, BYTE_ARRAY, FIXED = 2, 6, 7
REQUIRED, OPTIONAL, REPEATED = 0, 1, 2


@dataclass(frozen=True)
class Page:
    """
    A page of version 1.

    :param body: its bytes, compressed
    :param size: what its header says of its size, uncompressed
    :param values: what its header says of its values
    :param encoding: how values are stored; None for a page that is a dictionary
    """

    body: bytes
    size: int
    values: int
    encoding: int | None = PLAIN

    @property
    def content(self) -> bytes:
        """The header and the page."""
        if self.encoding is None:
            kind, number = 2, 7
            inner = Struct().set_integer(1, self.values, I32).set_integer(2, PLAIN, I32)
        else:
            kind, number = 0, 5
            inner = Struct().set_integer(1, self.values, I32).set_integer(2, self.encoding, I32)
            inner.set_integer(3, _RLE, I32).set_integer(4, _RLE, I32)
        header = Struct().set_integer(1, kind, I32).set_integer(2, self.size, I32)
        header.set_integer(3, len(self.body), I32).set_struct(number, inner)
        return bytes(header) + self.body


@dataclass(frozen=True)
class Column:
    """
    A column with one chunk.

    :param values: what the footer says of its values; None for the sum of what its pages say
    :param size: what the footer says of its size, uncompressed; None for the sum of what its pages say
    :param is_list: whether the column has lists, of which the leaf is the element
    """

    pages: Sequence[Page]
    name: str = "text"
    codec: str = "zstd"
    kind: int = BYTE_ARRAY
    repetition: int = REQUIRED
    type_length: int = 0
    values: int | None = None
    size: int | None = None
    is_list: bool = False


def write_pages(path: Path, columns: Sequence[Column], rows: int) -> Path:
    """Write a file of one row group, and return its path."""
    content, chunks, elements = bytearray(MAGIC), [], []
    for column in columns:
        begin = len(content)
        content += b"".join(page.content for page in column.pages)
        chunks.append(bytes(_chunk(column, begin, len(content) - begin)))
        elements += _elements(column)

    root = Struct().set_binary(ElementField.NAME, b"schema").set_integer(ElementField.CHILDREN, len(columns), I32)
    group = Struct().set_items(GroupField.CHUNKS, chunks).set_integer(GroupField.SIZE, 100)
    group.set_integer(GroupField.ROWS, rows)
    footer = Struct().set_integer(1, 2, I32).set_items(FileField.SCHEMA, map(bytes, (root, *elements)))
    footer.set_integer(FileField.ROWS, rows).set_items(FileField.GROUPS, [bytes(group)])
    content += bytes(footer) + struct.pack("<I4s", len(bytes(footer)), MAGIC)
    path.write_bytes(content)
    return path


def _elements(column: Column) -> list[Struct]:
    leaf = Struct().set_integer(ElementField.TYPE, column.kind, I32).set_integer(3, column.repetition, I32)
    if column.type_length:
        leaf.set_integer(2, column.type_length, I32)
    if column.kind == BYTE_ARRAY:
        leaf.set_integer(6, 0, I32)  # UTF8
    if not column.is_list:
        return [leaf.set_binary(ElementField.NAME, column.name.encode())]

    group = Struct().set_integer(3, OPTIONAL, I32).set_binary(ElementField.NAME, column.name.encode())
    group.set_integer(ElementField.CHILDREN, 1, I32).set_integer(6, 3, I32)  # LIST
    inner = Struct().set_integer(3, REPEATED, I32).set_binary(ElementField.NAME, b"list")
    inner.set_integer(ElementField.CHILDREN, 1, I32)
    return [group, inner, leaf.set_binary(ElementField.NAME, b"element")]


def _chunk(column: Column, begin: int, length: int) -> Struct:
    has_dictionary = column.pages[0].encoding is None
    pages = [page for page in column.pages if page.encoding is not None]
    path = [column.name, *(("list", "element") if column.is_list else ())]
    meta = Struct().set_integer(1, column.kind, I32)
    meta.set_items(MetaField.ENCODINGS, [zigzag(code) for code in (PLAIN, _RLE, DICTIONARY)], I32)
    meta.set_items(3, [_binary(name) for name in path], BINARY).set_integer(4, CODECS[column.codec], I32)
    values = sum(page.values for page in pages) if column.values is None else column.values
    size = sum(page.size for page in column.pages) if column.size is None else column.size
    meta.set_integer(MetaField.VALUES, values).set_integer(MetaField.SIZE, size)
    meta.set_integer(MetaField.COMPRESSED, length)
    first = len(column.pages[0].content) if has_dictionary else 0
    meta.set_integer(MetaField.DATA, begin + first)
    if has_dictionary:
        meta.set_integer(MetaField.DICTIONARY, begin)
    return Struct().set_integer(2, begin).set_struct(3, meta)


def varint(number: int) -> bytes:
    """Return an unsigned integer encoded."""
    return zigzag(number // 2 if number % 2 == 0 else -(number + 1) // 2)


def _binary(text: str) -> bytes:
    content = Struct().set_binary(1, text.encode())
    return bytes(content)[1:-1]  # without the head of the field and the end of the struct
