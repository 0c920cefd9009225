"""A file format is one module and one entry of FORMATS: detection, messages, reading and writing follow from these."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.formats import registry
from nerd_onnx.formats.open_input import detect_format, format_of_name
from nerd_onnx.formats.open_output import output_format
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from tests.formats.colon_format import COLON
from tests.support.failures import fails
from tests.support.quick_tagger import quick_tagger
from tests.support.runs import texts


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "FORMATS", (*registry.FORMATS, COLON))


def test_a_registered_format_is_detected(tmp_path: Path) -> None:
    assert format_of_name("a.colon") == format_of_name("a.COLON.gz") == "colon"
    unnamed = tmp_path / "unnamed"
    unnamed.write_bytes(b"#colon\n")
    assert detect_format(str(unnamed), None) == "colon"
    assert output_format("o.colon", None, lambda: "jsonl") == "colon"


def test_messages_list_it(tmp_path: Path) -> None:
    unknown = tmp_path / "unknown"
    unknown.write_bytes(b"?")
    with fails(InputError, "unknown-format", file=unknown, option="--format") as read:
        detect_format(str(unknown), None)
    with fails(OutputError, "unknown-format", file="o.odt") as written:
        output_format("o.odt", None, lambda: "jsonl")
    assert all(found.title in str(read.value) for found in registry.readable_formats())
    assert all(found.title in str(written.value) for found in registry.writable_formats() if found.suffixes)
    assert "colon text" in str(read.value)
    assert "colon text" in str(written.value)


def test_files_are_read_and_written(tmp_path: Path) -> None:
    rows = [text.replace(":", ";").replace("\n", " ") or "empty" for text in texts(50)]
    source, lines, back = tmp_path / "in.colon.gz", tmp_path / "o.jsonl", tmp_path / "o.colon"
    source.write_bytes(gzip.compress("".join(f"{row}\n" for row in rows).encode()))
    tagger = quick_tagger()
    try:
        tag_files(tagger, TagJob([str(source)], str(lines)))
        report = tag_files(tagger, TagJob([str(lines)], str(back), overwrite_column=True))
    finally:
        tagger.close()
    written = back.read_text("utf-8").splitlines()
    assert [line.rpartition(":")[0] for line in written] == rows
    assert sum(line.count("=") for line in written) >= report.entities > 0


def test_a_finished_output_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.colon").write_text("Paris\nBerlin\n")
    job = TagJob([str(tmp_path / "in")], str(tmp_path / "out"), resume=True)
    with closing(quick_tagger()) as tagger:
        assert tag_files(tagger, job).files == 1
        assert tag_files(tagger, job).finished_before == 1
        written = tmp_path / "out" / "a.colon"
        os.truncate(written, written.stat().st_size - 1)
        with fails(OutputError, "incomplete-output", file=written):
            tag_files(tagger, job)


def test_names_of_formats_need_no_pyarrow() -> None:
    code = "import sys; from nerd_onnx.formats import registry; print(len(registry.FORMATS), 'pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7", "False"]
