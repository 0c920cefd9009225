"""
Awkward files as they are met: a file in ``golden/`` is a case, and its expected outcome is in the file beside it.

``python -m tests.formats.test_golden_files`` writes what comes of files that have nothing beside them;
read it before it stays.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

from nerd_onnx.errors import NerdError
from nerd_onnx.storage.input_stream import MAX_LINE_BYTES
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from tests.support.quick_tagger import quick_tagger

FOLDER = Path(__file__).parent.parent / "golden"
EXPECTED = ".expected"
CASES = sorted(path for path in FOLDER.iterdir() if path.suffix != EXPECTED)


def outcome(path: Path, folder: Path) -> dict[str, Any]:
    """Tag a file strictly, and once more leaving bad rows out. :return: the error, or rows and rejects"""
    tagger = quick_tagger()
    found: dict[str, Any] = {"error": None}
    try:
        report = tag_files(tagger, TagJob([str(path)], str(folder / "strict.jsonl")))
        found |= {"rows": report.rows, "null_rows": report.null_rows}
    except NerdError as err:
        found["error"] = facts_of(err)
    rejects = folder / "rejects.jsonl"
    job = TagJob([str(path)], str(folder / "lenient.jsonl"), on_error="skip", rejects=str(rejects))
    try:
        report = tag_files(tagger, job)
    except NerdError as err:
        return found | {"lenient_error": facts_of(err)}
    bad = [json.loads(line) for line in rejects.read_bytes().splitlines()] if rejects.exists() else []
    texts = [row.get("text") for row in rows_of(folder / "lenient.jsonl")]
    return found | {"texts": texts, "rejects": [[reject["line"], said(reject["reason"], path)] for reject in bad]}


def facts_of(err: NerdError) -> dict[str, Any]:
    """Return what is to stay the same of an error. The length of a message is checked here."""
    assert "\n" not in str(err)
    assert len(str(err)) < 1000
    return {
        "reason": err.reason,
        **{name: value for name, value in err.fields.items() if name not in ("file", "folder")},
    }


def said(text: str, path: Path) -> str:
    """Leave out of a message what depends on the folder or on the version of Python."""
    return re.sub(r"not JSON: .*? at character", "not JSON: ... at character", text.replace(str(path), path.name))


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_what_comes_of_an_awkward_file(path: Path, tmp_path: Path) -> None:
    found = outcome(path, tmp_path)
    assert found == json.loads(path.with_name(path.name + EXPECTED).read_text("utf-8"))
    if (tmp_path / "lenient.jsonl").exists():
        for row in rows_of(tmp_path / "lenient.jsonl"):
            for entity in row["entities"] or []:
                assert row["text"][entity["start"] : entity["end"]] == entity["text"]
    assert path.stat().st_size < MAX_LINE_BYTES


@pytest.mark.slow
def test_kept_lines_keep_their_bytes(tmp_path: Path) -> None:
    for path in CASES:
        if path.suffix != ".jsonl" or b"\r" in path.read_bytes() or path.read_bytes().startswith((b"\x1f", b"\xef")):
            continue
        job = TagJob([str(path)], str(tmp_path / path.name), on_error="skip", rejects=str(tmp_path / "r"))
        try:
            report = tag_files(quick_tagger(), job)
        except NerdError:
            continue
        finally:
            (tmp_path / "r").unlink(missing_ok=True)
        before = set(path.read_bytes().split(b"\n"))
        after = (tmp_path / path.name).read_bytes().splitlines(keepends=False)
        kept = [line[: line.rindex(b'"entities": ')].rstrip(b", ") for line in after if line]
        assert len(kept) == report.written
        assert all(any(line.rstrip(b" }") == b.rstrip(b" }") for b in before) for line in kept), path.name


if __name__ == "__main__":
    for case in CASES:
        beside = case.with_name(case.name + EXPECTED)
        if not beside.exists():
            with tempfile.TemporaryDirectory() as scratch:
                text = json.dumps(outcome(case, Path(scratch)), indent=1, ensure_ascii=True)
            beside.write_text(text + "\n", "utf-8")
