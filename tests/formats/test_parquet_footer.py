"""Footers with parts that pyarrow does not know, that cannot be copied, or that are damaged."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nerd_onnx.errors import NerdError
from nerd_onnx.formats.parquet import footer as footer_module
from nerd_onnx.formats.parquet.copied_file import CopiedFile
from nerd_onnx.formats.parquet.footer import CannotCopyError, Footer, FooterContent
from nerd_onnx.formats.parquet.thrift import BINARY, I32, Struct, zigzag
from tests.formats.test_parquet_copy import check_copied
from tests.support.tables_io import footer_length, opened, with_entities

UNKNOWN = 77
Change = Callable[[Struct], object]


def plain(groups: int = 2) -> bytes:
    """Make a file with two columns."""
    file = io.BytesIO()
    table = pa.table({"text": ["Ada", None, "Bo"] * groups, "x": [b"1", b"2", None] * groups})
    pq.write_table(table.replace_schema_metadata({"owner": "us"}), file, row_group_size=3)
    return file.getvalue()


def footer_of(content: bytes) -> bytes:
    return content[-footer_length(content) : -8]


def with_footer(content: bytes, footer: bytes) -> bytes:
    """Return a file with another footer."""
    return content[: -footer_length(content)] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def changed(change: Change) -> bytes:
    """Return a file whose footer was changed."""
    content = plain()
    footer = Struct(footer_of(content))
    change(footer)
    return with_footer(content, bytes(footer))


def of_chunk(change: Change, place: int = 1) -> Change:
    """Apply a change to a ``ColumnChunk`` of each row group."""

    def apply(footer: Struct) -> None:
        groups = footer.structs(4)
        for group in groups:
            chunks = group.structs(1)
            change(chunks[place])
            group.set_items(1, map(bytes, chunks))
        footer.set_items(4, map(bytes, groups))

    return apply


def of_meta(change: Change, place: int = 1) -> Change:
    """Apply a change to a ``ColumnMetaData`` of each row group."""

    def apply(chunk: Struct) -> None:
        meta = chunk.struct(3)
        assert meta is not None
        change(meta)
        chunk.set_struct(3, meta)

    return of_chunk(apply, place)


def of_element(change: Change, place: int = 2) -> Change:
    """Apply a change to a ``SchemaElement``."""

    def apply(footer: Struct) -> None:
        elements = footer.structs(2)
        change(elements[place])
        footer.set_items(2, map(bytes, elements))

    return apply


def unknown_logical_type(element: Struct) -> None:
    element.remove(6).set_struct(10, Struct().set_struct(UNKNOWN, Struct().set_integer(1, 5)))


def unknown_fields(footer: Struct) -> None:
    """Add a field to each struct, also far from the others."""
    for change in (of_chunk, of_meta):
        change(lambda part: part.set_binary(UNKNOWN, b"kept").set_integer(2000, -5))(footer)
    of_element(lambda part: part.set_binary(UNKNOWN, b"kept"))(footer)
    footer.set_struct(UNKNOWN, Struct().set_binary(3, b"kept")).set_binary(32767, b"kept")


KEPT: dict[str, Change] = {
    "logical type": of_element(unknown_logical_type),
    "codec": of_meta(lambda meta: meta.set_integer(4, UNKNOWN)),
    "encoding": of_meta(lambda meta: meta.set_items(2, [zigzag(UNKNOWN)], I32)),
    "fields": unknown_fields,
    "field id": of_element(lambda element: element.set_integer(9, 12, I32)),
    "metadata without a value": lambda footer: footer.extend(5, [bytes(Struct().set_binary(1, b"lonely"))]),
    "metadata twice": lambda footer: footer.extend(5, footer.items(5)[:1]),
    "no writer": lambda footer: footer.remove(6),
    "no orders": lambda footer: footer.remove(7),
    "no metadata": lambda footer: footer.remove(5),
}


@pytest.mark.parametrize("what", KEPT)
def test_what_pyarrow_does_not_know_is_kept(tmp_path: Path, what: str) -> None:
    path = tmp_path / "in.parquet"
    path.write_bytes(changed(KEPT[what]))
    output = with_entities(path, tmp_path / "out.parquet")
    before, after = path.read_bytes(), output.read_bytes()
    assert after.startswith(before[: -footer_length(before)])

    old, new = Struct(footer_of(before)), Struct(footer_of(after))
    assert new.items(2)[1 : len(old.items(2))] == old.items(2)[1:]
    assert len(new.items(7)) == (len(old.items(7)) and len(old.items(7)) + 5)
    for expected, found in zip(old.structs(4), new.structs(4), strict=True):
        assert found.items(1)[:2] == expected.items(1)
    for number in (1, 3, 6, UNKNOWN, 32767):
        assert (number in new) == (number in old)
    assert new.binary(32767) == old.binary(32767)
    assert [item for item in old.items(5) if b"ARROW" not in item] == [
        item for item in new.items(5)[: len(old.items(5))] if b"ARROW" not in item
    ]
    assert pq.ParquetFile(output).read(columns=["entities"]).num_rows == 6


def other_arrow_schema(encoded: bytes) -> Change:
    pair = Struct().set_binary(1, b"ARROW:schema").set_binary(2, encoded)
    return lambda footer: footer.set_items(5, [bytes(pair)])


ONE_COLUMN = base64.b64encode(pa.schema([("text", pa.string())]).serialize())
REFUSED: dict[str, tuple[Change, str]] = {
    "encryption": (lambda footer: footer.set_struct(8, Struct()), "encrypted"),
    "signature": (lambda footer: footer.set_binary(9, b"key"), "signed"),
    "column key": (of_chunk(lambda chunk: chunk.set_struct(8, Struct())), "encrypted"),
    "hidden metadata": (of_chunk(lambda chunk: chunk.set_binary(9, b"?")), "encrypted"),
    "other file": (of_chunk(lambda chunk: chunk.set_binary(1, b"part-2")), "other files"),
    "no metadata": (of_chunk(lambda chunk: chunk.remove(3)), "no metadata"),
    "page beyond the end": (of_meta(lambda meta: meta.set_integer(7, 1 << 40)), "all pages"),
    "negative size": (of_meta(lambda meta: meta.set_integer(7, -1)), "all pages"),
    "fewer chunks": (lambda footer: footer.set_items(4, [bytes(Struct().set_items(1, []))]), "all columns"),
    "longer schema": (of_element(lambda root: root.set_integer(5, 1), 0), "longer"),
    "shorter schema": (of_element(lambda root: root.set_integer(5, 3), 0), "cut off"),
    "one order": (lambda footer: footer.set_items(7, footer.items(7)[:1]), "no order"),
    "other rows": (lambda footer: footer.set_integer(3, 5), "numbers of rows"),
    "type of a field": (lambda footer: footer.set_binary(3, b"6"), "has type"),
    "name that is no text": (of_element(lambda element: element.set_binary(4, b"\xff")), "damaged"),
    "Arrow schema of noise": (other_arrow_schema(b"!!"), "Arrow schema is damaged"),
    "other Arrow schema": (other_arrow_schema(ONE_COLUMN), "other columns than the file"),
}


def copied(content: bytes) -> Footer:
    """Return the footer of a file that can be copied."""
    file = io.BytesIO(content)
    return CopiedFile(file, "in.parquet", ("entities",), FooterContent.read(file)).footer


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_copied_is_named(what: str) -> None:
    change, reason = REFUSED[what]
    content = changed(change)
    with pytest.raises(CannotCopyError, match=reason):
        copied(content)


def test_bytes_after_the_footer_are_not_lost() -> None:
    content = plain()
    footer = footer_of(content)
    begin = len(content) - footer_length(content)
    assert Footer(FooterContent.of(footer, begin)).names == ["text", "x"]
    with pytest.raises(CannotCopyError, match="3 other bytes"):
        Footer(FooterContent.of(footer + b"sig", begin))


def test_a_large_footer_is_left_to_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in.parquet"
    path.write_bytes(plain())
    monkeypatch.setattr(footer_module, "MAX_FOOTER_BYTES", 100)
    with opened(path, typed=True, added_columns=("entities",)) as source:
        assert source.copied is None
        assert "its footer has more than" in str(source.rewritten_because)
        assert all(rows.table is not None for rows in source.batches())


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return a file whose footer has flipped, cut, doubled or inserted bytes."""
    footer = bytearray(footer_of(content))
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(footer))
        kind = rng.randrange(4)
        if kind == 0:
            footer[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del footer[at : at + rng.randint(1, 20)]
        elif kind == 2:
            footer[at:at] = footer[at : at + rng.randint(1, 20)]
        else:
            footer[at:at] = rng.choice([b"\xff" * 9, b"\x80" * 12, b"\x19" * 99, b"\x1c" * 99, b"\0"])
    return with_footer(content, bytes(footer))


@pytest.mark.parametrize("seeds", [range(400), pytest.param(range(400, 20_000), marks=pytest.mark.slow)])
def test_damaged_footers_are_copied_as_they_are_or_named(seeds: range) -> None:
    content = plain()
    refused = 0
    for seed in seeds:
        wrong = damaged(content, random.Random(seed))
        try:
            found = copied(wrong)
        except (CannotCopyError, NerdError):
            refused += 1
            continue
        extended = found.extended([], [], [[] for _ in found.group_rows], {})
        again = Footer(FooterContent.of(extended, found.pages_end))
        assert (again.names, again.group_rows, again.metadata) == (found.names, found.group_rows, found.metadata)
    assert 0.1 < refused / len(seeds) < 0.99


def test_cut_footers_are_named() -> None:
    content = plain()
    footer = footer_of(content)
    for size in range(len(footer)):
        with pytest.raises((CannotCopyError, NerdError)):
            copied(with_footer(content, footer[:size]))
    for size in range(len(content)):
        with pytest.raises((CannotCopyError, NerdError)):
            copied(content[:size])


def test_binary_lists_are_what_the_specification_says() -> None:
    assert bytes(Struct().set_items(1, [b"\1a"], BINARY)) == b"\x19\x18\1a\0"


def test_a_file_whose_footer_was_written_by_this_module(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    path.write_bytes(changed(lambda footer: footer))
    check_copied(path, with_entities(path, tmp_path / "out.parquet"))
