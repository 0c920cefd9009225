"""Long texts are handled in windows and pieces, to the same result as a Python string."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerd_onnx.formats.jsonl import long_lines
from nerd_onnx.formats.jsonl.lines import replace_surrogates
from nerd_onnx.formats.jsonl.long_lines import decoded, long_string, shortened
from nerd_onnx.formats.text_arrays import text_objects
from nerd_onnx.inference.segments import paragraphs, paragraphs_in_windows
from nerd_onnx.long_text import LONG_BYTES, LongText

# Characters of one to four bytes, those that end lines and sentences, and those that JSON escapes.
TEXTS = st.text(st.sampled_from(list('ab. \n\r\t\f\x85\u00a0\u2028é東🙂"\\')), max_size=60)


@given(TEXTS, st.integers(1, 20), st.data())
def test_slices_are_those_of_a_string(text: str, chunk_bytes: int, data: st.DataObject) -> None:
    long = LongText(text.encode(), chunk_bytes)
    assert (len(long), long.isascii()) == (len(text), text.isascii())
    for _ in range(4):
        begin, end = (data.draw(st.integers(0, len(text) + 2)) for _ in range(2))
        assert long[begin:end] == text[begin:end]
        if begin < len(text):
            assert long[begin] == text[begin]


@given(TEXTS, st.integers(1, 12), st.integers(1, 12))
def test_paragraphs_are_those_of_a_string(text: str, limit: int, window: int) -> None:
    long = LongText(text.encode(), 5)
    assert list(paragraphs_in_windows(long, limit, window)) == list(paragraphs(text, limit))


@given(st.text(st.sampled_from(list('ab\n"\\é東🙂\ud83d\ude42\ud83d')), max_size=60), st.integers(24, 60), st.data())
def test_strings_in_pieces_are_those_of_the_parser(text: str, size: int, data: st.DataObject) -> None:
    """Also where a piece would end between two bytes, two surrogates, or in the middle of an escape."""
    ascii_only = data.draw(st.booleans()) or not text.isprintable()
    literal = json.dumps(text, ensure_ascii=ascii_only)
    line = literal.encode("utf-8", "surrogatepass") if ascii_only else literal.encode("utf-8", "replace")
    if data.draw(st.booleans()):
        line = line.replace(b"a", b"\\\\")
    expected = json.loads(line)
    pieces = list(decoded(line, 1, len(line) - 1, size))
    assert replace_surrogates("".join(pieces)) == replace_surrogates(expected)
    assert "".join(map(replace_surrogates, pieces)) == replace_surrogates(expected)
    assert long_string(line, 1, len(line) - 1).to_pylist() == [replace_surrogates(expected)]


@pytest.mark.parametrize("string", ["a" * 30 + "\t", "a" * 30 + "\\x", "a" * 30 + "\\"])
def test_a_damaged_string_is_an_error(string: str) -> None:
    line = f'"{string}"'.encode()
    with pytest.raises(ValueError, match=r".+"):
        list(decoded(line, 1, len(line) - 1, 24))


def test_a_line_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_lines, "LONG_BYTES", 64)
    line = json.dumps({"id": 7, "text": 'a "b" \\' * 20, "more": ["x" * 30, "short"]}).encode()
    short = shortened(line)
    assert short is not None
    record, expected = json.loads(short.content), json.loads(line)
    assert record["id"] == 7
    assert record["more"][1] == "short"
    for found, value in ((record["text"], expected["text"]), (record["more"][0], expected["more"][0])):
        assert json.loads(b'"' + line[slice(*short.strings[found])] + b'"') == value
    assert shortened(b'{"text": "' + b"a" * 70) is None
    assert shortened(json.dumps(["b"] * 30).encode()) is None


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_only_long_texts_are_not_strings(kind: pa.DataType) -> None:
    texts = ["a", None, "é" * LONG_BYTES, ""]
    found = text_objects(pa.array(["before", *texts], kind).slice(1))
    assert [type(text) for text in found] == [str, type(None), LongText, str]
    assert found[2] is not None
    assert found[2][5:8] == "ééé"
