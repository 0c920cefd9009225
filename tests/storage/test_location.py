"""A path, a URI or a standard stream: parsed once, and the same however it was named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerd_onnx.storage.location import Location


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("file:///a/b%20c.jsonl", "/a/b c.jsonl"),
        ("FILE://localhost/a", "/a"),
        ("file://host/a", "file://host/a"),  # on another machine
        ("a%20b", "a%20b"),
        ("-", "-"),
    ],
)
def test_local_uris_are_paths(name: str, text: str) -> None:
    assert Location.of(name).text == text
    assert Location.of(Location.of(name)) == Location(text)


def test_parts_of_a_uri() -> None:
    folder = Location("s3://me:secret@bucket/corpus/?region=x")
    file = folder.join("A.Parquet")

    assert file.is_remote
    assert file.text == "s3://me:secret@bucket/corpus/A.Parquet?region=x"
    assert (file.name, file.suffixes, file.query) == ("A.Parquet", [".parquet"], "?region=x")
    assert folder.names_folder
    assert folder.identity == file.parent.identity == "s3://***@bucket/corpus?region=x"

    assert file.is_below(folder)
    assert file.is_same(Location("s3://me:secret@bucket/corpus/A.Parquet"))
    assert not file.is_same(Location("A.Parquet"))
    assert file.shown() == "s3://***@bucket/corpus/A.Parquet"


def test_what_exists(tmp_path: Path) -> None:
    folder = Location.of(tmp_path)
    file = folder.join("a.jsonl")
    assert (folder.exists(), folder.is_folder(), file.exists(), file.info_if_any()) == (True, True, False, None)
    with pytest.raises(FileNotFoundError):
        file.info()

    Path(file).write_bytes(b"12345")
    assert file.info().size == 5
    with file.open(16) as opened:
        assert opened.read() == b"12345"

    dangling = folder.join("link")
    Path(dangling).symlink_to("nowhere")
    assert dangling.exists()
    assert dangling.info_if_any() is None


def test_a_link_is_the_file_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    through = Location.of(tmp_path / "link" / "a.jsonl")

    assert through.is_same(Location.of(tmp_path / "data" / "a.jsonl"))
    assert through.is_below(Location.of(tmp_path / "data"))
    assert not through.is_below(Location.of(tmp_path / "dat"))


@given(st.text(alphabet=st.characters(exclude_characters="\0")))
def test_every_name_can_be_shown(name: str) -> None:
    """A question mark belongs to a local name, a byte that is not UTF-8 is shown by its digits."""
    path = Location(name)
    assert path.shown("standard input").encode().decode() == path.shown("standard input")
    assert path.is_remote or path.bare == name
    assert os.fspath(path) == str(path) == name


def test_bytes_that_are_not_text_are_shown() -> None:
    assert Location(os.fsdecode(b"a\xff.jsonl")).shown() == "a\\xff.jsonl"
