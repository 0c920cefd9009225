"""Plain text: every line is a row, whatever is in it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerd_onnx.errors import OutputError
from nerd_onnx.formats.open_output import output_format
from nerd_onnx.storage.location import Location
from nerd_onnx.tagging.file_pairs import file_pairs, suffix_for
from tests.support.failures import fails
from tests.support.tables_io import all_texts, converted, read, refused


@given(
    lines=st.lists(st.text().filter(lambda text: "\n" not in text and not text.endswith("\r"))), size=st.integers(1, 5)
)
def test_each_line_is_a_row(tmp_path_factory: pytest.TempPathFactory, lines: list[str], size: int) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    lines = [text.lstrip("\ufeff") for text in lines]
    for end in ("\n", "\r\n"):
        path.write_bytes("".join(text + end for text in lines).encode())
        assert all_texts(read(path, batch_rows=size)) == lines
        assert all_texts(read(path, limit=2)) == lines[:2]


def test_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"ORC\n\nPar\xffis\nRome"))
    refused(path, "not-utf8", row=3, byte=4)
    (rows,) = read(path, lenient=True)
    assert all_texts([rows]) == ["ORC", "", "Rome"]
    (rejected,) = rows.rejected
    assert (rejected.row, rejected.line, rejected.raw) == (2, 3, b"Par\xffis")
    assert [(rows.number(i), rows.shown_number(i)) for i in range(3)] == [(0, 1), (1, 2), (3, 4)]

    path.write_bytes("Paris\n".encode("utf-16"))
    refused(path, "other-format")


def test_its_outputs_have_another_format(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Paris\n\n")
    output = converted(tmp_path / "a.txt", tmp_path / "o.csv")
    assert output.read_text().splitlines()[::2] == ["text,entities", '"",[]']
    assert output_format("-", None, lambda: "txt") == "jsonl"
    with fails(OutputError, "unknown-format", file="o.txt"):
        output_format("o.txt", None, lambda: "txt")


def test_a_folder_is_tagged_without_its_notes(tmp_path: Path) -> None:
    for name in ("a.csv", "readme.txt"):
        (tmp_path / name).write_text("text\n")
    found = file_pairs([Location(str(tmp_path))], Location("out/"), lambda path: suffix_for(path, "jsonl"))
    assert [(pair.name, pair.output.name) for pair in found] == [("a.csv", "a.jsonl")]
    (pair,) = file_pairs([Location(str(tmp_path / "*.txt"))], Location("out/"), lambda path: suffix_for(path, "jsonl"))
    assert (pair.name, pair.output.name) == ("readme.txt", "readme.jsonl")
