"""Structs in Thrift's compact protocol: read, changed and written, with every field that is not known."""

from __future__ import annotations

import io
import struct
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerd_onnx.formats.parquet.thrift import BINARY, I16, I32, Struct, ThriftError, zigzag
from tests.support.tables_io import footer_length

NUMBERS = st.integers(-(2**15), 2**15 - 1)


@st.composite
def values(draw: st.DrawFn, depth: int = 0) -> tuple[int, bytes]:
    """Draw a value of any type, encoded as the specification of the protocol has it, with its type."""
    kind = draw(st.integers(1, 13 if depth < 3 else 8))
    if kind in (1, 2):
        return kind, b""
    if kind in (4, 5, 6):
        return kind, zigzag(draw(st.integers(-(2**63), 2**63 - 1)))
    if kind == 8:
        return kind, sized(draw(st.binary(max_size=200)))
    if 9 <= kind <= 12:
        return kind, draw({9: lists, 10: lists, 11: maps, 12: structs}[kind](depth + 1))
    width = {3: 1, 7: 8, 13: 16}[kind]
    return kind, draw(st.binary(min_size=width, max_size=width))


@st.composite
def lists(draw: st.DrawFn, depth: int) -> bytes:
    kind, item = draw(values(depth))
    item = item or b"\1"  # a flag in a list takes a byte
    count = draw(st.sampled_from([0, 1, 14, 15, 200]))
    head = bytes([count << 4 | kind]) if count < 15 else bytes([0xF0 | kind]) + varint(count)
    return head + item * count


@st.composite
def maps(draw: st.DrawFn, depth: int) -> bytes:
    (key_kind, key), (kind, value) = draw(values(depth)), draw(values(depth))
    count = draw(st.integers(0, 3))
    return (
        varint(count) + (bytes([key_kind << 4 | kind]) if count else b"") + ((key or b"\1") + (value or b"\2")) * count
    )


@st.composite
def structs(draw: st.DrawFn, depth: int = 0) -> bytes:
    numbers = sorted(draw(st.sets(NUMBERS, max_size=4)))
    before, parts = 0, []
    for number in numbers:
        kind, value = draw(values(depth))
        step = number - before
        parts += [bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + zigzag(number), value]
        before = number
    return b"".join((*parts, b"\0"))


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def sized(content: bytes) -> bytes:
    return varint(len(content)) + content


@given(content=structs())
def test_any_struct_is_written_as_it_was_read(content: bytes) -> None:
    assert bytes(Struct(content)) == content


@given(content=structs(), data=st.data())
def test_a_cut_struct_and_one_with_more_are_refused(content: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(content) - 1))
    for wrong in (content[:cut], content + b"\0"):
        with pytest.raises(ThriftError):
            Struct(wrong)


@given(content=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        found = Struct(content)
    except ThriftError:
        return
    assert bytes(Struct(bytes(found))) == bytes(found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x19" * 10_000 + b"\0" * 10_001, "nested"),
        (b"\x1c" * 10_000 + b"\0" * 10_001, "nested"),
        (b"\x15" + b"\x80" * 10 + b"\0\0", "too long"),
        (b"\x19\xfc\xff\xff\xff\xff\x07\0", "cut off"),
        (b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\x7f\0", "cut off"),
        (b"\x15\x02\x05\x02\x02\0", "twice"),
        (b"\x1e\0", "no type"),
        (b"\x10\0", "no type"),
    ],
)
def test_hostile_bytes_end_soon(content: bytes, message: str) -> None:
    with pytest.raises(ThriftError, match=message):
        Struct(content)


@given(number=NUMBERS, value=st.integers(-(2**63), 2**63 - 1), content=st.binary(max_size=200))
def test_what_is_set_is_read_back(number: int, value: int, content: bytes) -> None:
    found = Struct(bytes(Struct().set_integer(number, value).set_binary(number + 1, content)))
    assert (found.integer(number), found.binary(number + 1)) == (value, content)
    assert (found.integer(number + 2, -7), found.binary(number + 2), number + 2 in found) == (-7, None, False)
    assert found.remove(number, number + 1, number + 2).items(number) == []


@given(first=st.lists(st.binary(max_size=9), max_size=20), second=st.lists(st.binary(max_size=9), max_size=20))
def test_lists_are_set_and_extended(first: list[bytes], second: list[bytes]) -> None:
    found = Struct().set_items(3, map(sized, first), BINARY)
    assert found.extend(3, map(sized, second)).items(3, BINARY) == [sized(item) for item in (*first, *second)]


def test_a_field_keeps_its_type_and_is_not_read_as_another() -> None:
    found = Struct().set_integer(1, 5, I16).set_struct(2, Struct().set_integer(1, 6, I32))
    assert bytes(found.set_integer(1, 7))[0] & 15 == I16
    for wrong in (
        lambda: found.binary(1),
        lambda: found.integer(2),
        lambda: found.items(2),
        lambda: found.extend(9, []),
    ):
        with pytest.raises(ThriftError):
            wrong()


def test_footers_of_pyarrow_at_each_level() -> None:
    """The numbers of fields are those of parquet.thrift; pyarrow says what their values are."""
    table = pa.table({f"c{i}": pa.array([i, None], pa.int64()) for i in range(20)})
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=1, write_page_index=True)
    content = file.getvalue()
    (length,) = struct.unpack("<I", content[-8:-4])
    assert length + 8 == footer_length(content)
    footer = Struct(content[-8 - length : -8])
    expected: Any = pq.read_metadata(file)
    assert footer.integer(3) == 2
    assert footer.binary(6) == expected.created_by.encode()
    for i, group in enumerate(footer.structs(4)):
        for j, chunk in enumerate(group.structs(1)):
            known = expected.row_group(i).column(j)
            meta = chunk.struct(3)
            assert meta is not None
            assert (meta.integer(7), meta.integer(9)) == (known.total_compressed_size, known.data_page_offset)
            assert meta.items(3, BINARY) == [sized(known.path_in_schema.encode())]
