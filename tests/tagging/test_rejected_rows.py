"""Rows that cannot be read or tagged: the run stops, writes null with a reason, or leaves them out, and loses none."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nerd_onnx.errors import ExistsError, InputError, NerdError, OptionError
from nerd_onnx.inference.arrays import Floats
from nerd_onnx.inference.encoding import EncodedBatch, TextEncoder
from nerd_onnx.inference.session import Session
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob, TagReport
from nerd_onnx.tagging.job_fingerprint import options_of
from nerd_onnx.tagging.run import tag_files
from tests.support.failures import fails
from tests.support.profiles import example_count
from tests.support.tables_io import invalid_utf8

GOOD = [b'{"text": "Paris in France", "n": 1}', b'{"text": null}', b'{"text": "", "n": 2}', b'{"n": 3}']
BROKEN = [b'{"text": ', b"[1]", b'{"text": "\xff"}', b"[" * 100_000]
WRONG = [b'{"text": 7}', b'{"text": ["Paris"], "n": 4}']


def tag(tagger: Tagger, source: Path, output: Path, **options: Any) -> TagReport:
    return tag_files(tagger, TagJob([str(source)], str(output), **options))


def lines_file(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_null_keeps_the_row_with_a_reason(tagger: Tagger, tmp_path: Path) -> None:
    source = lines_file(tmp_path / "in.jsonl", [GOOD[0], WRONG[0], GOOD[1]])
    report = tag(tagger, source, tmp_path / "o.jsonl", on_error="null")
    rows = rows_of(tmp_path / "o.jsonl")

    assert [row["text"] for row in rows] == ["Paris in France", 7, None]
    assert [row["entities"] is None for row in rows] == [False, True, True]
    assert rows[1]["entities_error"] == "field 'text' is a number; expected a string or null"
    assert "entities_error" not in rows[0]
    assert "entities_error" not in rows[2]
    assert (report.rows, report.written, report.rejected, report.nulled, report.null_rows) == (3, 2, 1, 1, 1)


def test_null_needs_rejects_for_a_row_that_cannot_be_written(tagger: Tagger, tmp_path: Path) -> None:
    source = lines_file(tmp_path / "in.jsonl", [GOOD[0], BROKEN[0], WRONG[0]])
    with fails(InputError, "needs-rejects-file", file=source, row=2):
        tag(tagger, source, tmp_path / "o.jsonl", on_error="null")
    assert list(tmp_path.iterdir()) == [source]
    tag(tagger, source, tmp_path / "o.jsonl", on_error="null", rejects=str(tmp_path / "r.jsonl"))
    assert len(rows_of(tmp_path / "o.jsonl")) == 2
    assert [(reject["line"], "raw" in reject) for reject in rows_of(tmp_path / "r.jsonl")] == [(2, True), (3, False)]


def test_skip_and_rejects(tagger: Tagger, tmp_path: Path) -> None:
    lines = [GOOD[0], BROKEN[0], b"", WRONG[0], GOOD[2], BROKEN[2], GOOD[3]]
    source = lines_file(tmp_path / "in.jsonl", lines)
    report = tag(tagger, source, tmp_path / "o.jsonl", on_error="skip", rejects=str(tmp_path / "r.jsonl"))
    found = (tmp_path / "o.jsonl").read_bytes().splitlines()

    assert [line.startswith(good[:-1]) for line, good in zip(found, [GOOD[0], GOOD[2], GOOD[3]], strict=True)]
    rejects = rows_of(tmp_path / "r.jsonl")

    assert [(reject["file"], reject["row"], reject["line"]) for reject in rejects] == [
        ("in.jsonl", 1, 2),
        ("in.jsonl", 2, 4),
        ("in.jsonl", 4, 6),
    ]
    assert rejects[0]["raw"].encode() == BROKEN[0]
    assert base64.b64decode(rejects[2]["raw_base64"]) == BROKEN[2]
    assert (report.rows, report.written, report.rejected) == (6, 3, 3)


def test_no_rejects_no_file(tagger: Tagger, tmp_path: Path) -> None:
    source = lines_file(tmp_path / "in.jsonl", GOOD)
    report = tag(tagger, source, tmp_path / "o.jsonl", on_error="skip", rejects=str(tmp_path / "r.jsonl"))
    assert report.rejected == 0
    tag(tagger, source, tmp_path / "plain.jsonl")
    assert (tmp_path / "o.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "o.jsonl", "plain.jsonl"]


def test_a_limit_of_errors(tagger: Tagger, tmp_path: Path) -> None:
    source = lines_file(tmp_path / "in.jsonl", [GOOD[0], WRONG[0], WRONG[1], GOOD[2]])
    options: dict[str, Any] = {"on_error": "skip", "rejects": str(tmp_path / "r.jsonl")}
    with fails(InputError, "too-many-rejected", file=source, row=3, maximum=1):
        tag(tagger, source, tmp_path / "o.jsonl", max_errors=1, **options)
    assert list(tmp_path.iterdir()) == [source]
    assert tag(tagger, source, tmp_path / "o.jsonl", max_errors=2, **options).rejected == 2


def bad_text_table() -> pa.Table:
    texts = pa.chunked_array([invalid_utf8(), pa.array(["Paris", None])])
    return pa.table({"id": range(6), "text": texts, "other": [b"\xff"] * 6})


@pytest.mark.parametrize("on_error", ["null", "skip"])
@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_parquet_texts_that_are_no_utf8(tagger: Tagger, tmp_path: Path, on_error: Any, suffix: str) -> None:
    pq.write_table(bad_text_table(), tmp_path / "in.parquet", row_group_size=4)
    options = {"on_error": on_error, "rejects": str(tmp_path / "r.jsonl")}
    report = tag(tagger, tmp_path / "in.parquet", tmp_path / f"o.{suffix}", **options)
    kept = on_error == "null" and suffix == "parquet"  # JSON cannot hold it

    assert (report.rows, report.written, report.rejected, report.nulled) == (6, 5, 1, int(kept))
    reject = rows_of(tmp_path / "r.jsonl")[0]

    assert (reject["row"], reject["row_group"], "UTF-8" in reject["reason"]) == (2, 0, True)
    if suffix == "parquet":
        found = pq.read_table(tmp_path / "o.parquet")
        assert found["id"].to_pylist() == [0, 1, *([2] if kept else []), 3, 4, 5]
        if kept:
            assert found["entities_error"].to_pylist()[2] == reject["reason"]
            assert found["entities_error"].null_count == 5
            assert found["text"].chunk(0).buffers() is not None
            assert found["text"].cast(pa.binary()).equals(bad_text_table()["text"].cast(pa.binary()))
            assert found["entities"].to_pylist()[2] is None
    else:
        assert [row["id"] for row in rows_of(tmp_path / "o.jsonl")] == [0, 1, 3, 4, 5]
        assert base64.b64decode(reject["raw_base64"]) == b"n\xff"


def test_rows_that_fit_no_schema(tagger: Tagger, tmp_path: Path) -> None:
    lines = [b'{"text": "Paris", "n": 1}', b'{"text": "a", "n": "x"}', b'{"text": "b", "n": 1' + b"0" * 30 + b"}"]
    source = lines_file(tmp_path / "in.jsonl", [*lines, b'{"text": "c", "n": 2}', BROKEN[0]])
    options: dict[str, Any] = {"on_error": "null", "rejects": str(tmp_path / "r.jsonl")}
    report = tag(tagger, source, tmp_path / "o.parquet", **options)
    assert pq.read_table(tmp_path / "o.parquet")["n"].to_pylist() == [1, 2]
    assert [reject["line"] for reject in rows_of(tmp_path / "r.jsonl")] == [2, 3, 5]
    assert (report.rows, report.written, report.rejected, report.nulled) == (5, 2, 3, 0)


class FailsOn:
    """A network that fails on segments with a token, as a damaged model might."""

    def __init__(self, session: Session, token: int) -> None:
        self._session = session
        self._token = token

    def logits(self, batch: EncodedBatch) -> Floats:
        """Score, or fail."""
        if (batch.ids == self._token).any():
            raise RuntimeError("no kernel for this\nsecond line")
        return self._session.logits(batch)


def test_texts_that_the_model_fails_on(tagger: Tagger, tmp_path: Path) -> None:
    texts = ["Paris in France", "the bad word is here", "Anna Bell met him", None, "bad again"]
    encoder = TextEncoder(tagger.bundle.tokenizer_file)
    token = int(encoder.encode(["bad"]).ids[0])
    network = FailsOn(tagger.network, token)  # type: ignore[arg-type]
    failing = Tagger(tagger.bundle, tagger.options, network)
    bad = {i for i, text in enumerate(texts) if text and token in encoder.encode([text]).ids.tolist()}

    assert 1 in bad
    assert len(bad) < 4
    source = lines_file(tmp_path / "in.jsonl", [json.dumps({"text": text}).encode() for text in texts])
    report = tag(failing, source, tmp_path / "o.jsonl", on_error="null")
    whole = tagger.tag(texts)
    for i, row in enumerate(rows_of(tmp_path / "o.jsonl")):
        if i in bad:
            assert row["entities"] is None
            assert row["entities_error"] == "no kernel for this"
        else:
            assert (row["entities"] is None) == (whole[i] is None)
            assert [entity["text"] for entity in row["entities"] or []] == [e.text for e in whole[i] or []]

    assert report.rejected == len(bad)
    failing.close()


def test_retry_tags_just_the_rejected_rows(tagger: Tagger, tmp_path: Path) -> None:
    lines = [GOOD[0], BROKEN[0], GOOD[2], WRONG[0]]
    source = lines_file(tmp_path / "in.jsonl", lines)
    rejects = str(tmp_path / "r.jsonl")
    tag(tagger, source, tmp_path / "o.jsonl", on_error="skip", rejects=rejects)
    lines_file(source, [GOOD[0], b'{"text": "Berlin"}', GOOD[2], WRONG[0]])
    report = tag(
        *(tagger, source, tmp_path / "again.jsonl"),
        retry_rejects=rejects,
        on_error="skip",
        rejects=str(tmp_path / "r2.jsonl"),
    )

    assert [row["text"] for row in rows_of(tmp_path / "again.jsonl")] == ["Berlin"]
    assert [reject["row"] for reject in rows_of(tmp_path / "r2.jsonl")] == [3]
    assert (report.rows, report.written, report.rejected) == (2, 1, 1)
    lines_file(tmp_path / "other.jsonl", GOOD)
    with fails(InputError, "rejects-of-other-input", file=rejects):
        tag(tagger, tmp_path / "other.jsonl", tmp_path / "x.jsonl", retry_rejects=rejects)
    lines_file(source, GOOD[:2])
    with fails(InputError, "retried-rows-missing", file=source):
        tag(tagger, source, tmp_path / "x.jsonl", retry_rejects=rejects)


@pytest.mark.parametrize(
    "options",
    [{"on_error": "skip"}, {"rejects": "r"}, {"max_errors": 1}, {"resume": True, "inputs": ["-"]}],
)
def test_contradicting_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        TagJob(**{"inputs": ["a"], "output": "b", **options})


def test_rejects_have_a_file_of_their_own(tagger: Tagger, tmp_path: Path) -> None:
    source = lines_file(tmp_path / "in.jsonl", GOOD)
    for rejects in (source, tmp_path / "o.jsonl", tmp_path / "none" / "r", "-"):
        with pytest.raises(NerdError):
            tag(tagger, source, tmp_path / "o.jsonl", on_error="skip", rejects=str(rejects))
    (tmp_path / "r.jsonl").write_text("mine")
    with fails(NerdError, "output-exists", file=tmp_path / "r.jsonl"):
        tag(tagger, source, tmp_path / "o.jsonl", on_error="skip", rejects=str(tmp_path / "r.jsonl"))
    (tmp_path / "no.jsonl").write_text("{}\n")
    with fails(InputError, "not-rejects-file", file=tmp_path / "no.jsonl", row=1):
        tag(tagger, source, tmp_path / "o.jsonl", retry_rejects=str(tmp_path / "no.jsonl"))
    os.mkfifo(tmp_path / "pipe")
    with fails(OptionError, "retry-needs-file", file=tmp_path / "pipe"):
        tag(tagger, source, tmp_path / "o.jsonl", retry_rejects=str(tmp_path / "pipe"))


def test_a_changed_rejects_file_is_another_option(tagger: Tagger, tmp_path: Path) -> None:
    """Also if it changed in its middle, which is in neither of its ends."""
    job = TagJob([str(lines_file(tmp_path / "in.jsonl", GOOD))], "o.jsonl", retry_rejects=str(tmp_path / "r.jsonl"))
    found = set()
    for row in (0, 1):
        lines = [json.dumps({"file": "in.jsonl", "row": row if i == 15_000 else 2}) for i in range(30_000)]
        (tmp_path / "r.jsonl").write_text("".join(f"{line:<80}\n" for line in lines))
        found.add(options_of(tagger, job)["--retry-rejects"])
    assert len(found) == 2


@settings(max_examples=example_count(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.sampled_from([*GOOD, *BROKEN, *WRONG, b"", b" "]), max_size=12),
    on_error=st.sampled_from(["null", "skip"]),
    suffix=st.sampled_from(["jsonl", "parquet"]),
    chunk_rows=st.sampled_from([1, 2, 100]),
)
def test_every_row_is_written_or_rejected(
    tagger: Tagger, tmp_path: Path, lines: list[bytes], on_error: Any, suffix: str, chunk_rows: int
) -> None:
    source, output, rejects = lines_file(tmp_path / "in.jsonl", lines), tmp_path / f"o.{suffix}", tmp_path / "r.jsonl"
    rows = [line for line in lines if line.strip()]
    options: dict[str, Any] = {"on_error": on_error, "rejects": str(rejects), "overwrite": True}
    rejects.unlink(missing_ok=True)
    if not any(line in {*GOOD[:3], *WRONG} for line in lines):
        return  # no row has the text field: an error of its own
    report = tag(tagger, source, output, chunk_rows=chunk_rows, **options)
    rejected = rows_of(rejects) if rejects.exists() else []

    assert report.rows == len(rows) == report.written + report.rejected
    assert report.rejected == len(rejected)
    assert {rows[reject["row"]] in GOOD for reject in rejected} <= {False}
    out = pq.read_metadata(output).num_rows if suffix == "parquet" else len(output.read_bytes().splitlines())

    assert out == report.written + report.nulled


@pytest.mark.parametrize("on_error", ["skip", "null"])
def test_a_line_that_has_the_field_already_is_rejected_with_its_bytes(
    tagger: Tagger, tmp_path: Path, on_error: str
) -> None:
    taken = b'{"text": "Rome", "\\u0065ntities": [1]}'
    source = lines_file(tmp_path / "in.jsonl", [GOOD[0], WRONG[0], taken, GOOD[2], WRONG[1]])
    with fails(NerdError, "column-exists", file=tmp_path / "two.jsonl", row=3):
        tag(tagger, lines_file(tmp_path / "two.jsonl", [GOOD[0], GOOD[2], taken]), tmp_path / "o.jsonl")
    report = tag(tagger, source, tmp_path / "o.jsonl", on_error=on_error, rejects=str(tmp_path / "r.jsonl"))
    rejects = rows_of(tmp_path / "r.jsonl")

    assert [(reject["row"], reject["line"]) for reject in rejects] == [(1, 2), (2, 3), (4, 5)]
    assert rejects[1] == {**rejects[1], "reason": "already has a field 'entities'", "raw": taken.decode()}
    assert (report.rows, report.written, report.rejected) == (5, 2, 3)
    assert [row["text"] for row in rows_of(tmp_path / "o.jsonl")] == (
        ["Paris in France", ""] if on_error == "skip" else ["Paris in France", 7, "", ["Paris"]]
    )
    kept = tag(tagger, source, tmp_path / "p.jsonl", on_error="null", overwrite_column=True)

    assert (kept.rows, kept.rejected, len(rows_of(tmp_path / "p.jsonl"))) == (5, 2, 5)


def test_a_run_that_failed_on_such_a_line_is_resumed_without_it(tagger: Tagger, tmp_path: Path) -> None:
    lines = [b'{"text": "Paris in France", "n": %d}' % i for i in range(40)]
    lines[25] = b'{"text": "Rome", "entities": []}'
    source = lines_file(tmp_path / "in.jsonl", lines)
    options: dict[str, Any] = {"chunk_rows": 4}
    with fails(NerdError, "column-exists", file=source, row=26):
        tag(tagger, source, tmp_path / "o.jsonl", **options)
    options |= {"on_error": "skip", "rejects": str(tmp_path / "r.jsonl")}
    report = tag(tagger, source, tmp_path / "o.jsonl", resume=(tmp_path / ".o.jsonl.nerd-work").exists(), **options)

    assert (report.rows, report.written, report.rejected) == (40, 39, 1)


def test_a_rejects_file_of_another_run_ends_a_resumed_run_at_its_first_rejected_row(
    tagger: Tagger, tmp_path: Path
) -> None:
    folder, rejects = tmp_path / "in", tmp_path / "r.jsonl"
    folder.mkdir()
    lines_file(folder / "a.jsonl", [GOOD[0], BROKEN[0]])
    lines_file(folder / "b.jsonl", GOOD)
    rejects.write_bytes(b"somebody's\n")
    options: dict[str, Any] = {"on_error": "skip", "rejects": str(rejects), "resume": True}

    with fails(ExistsError, "output-exists", file=rejects):
        tag(tagger, folder, tmp_path / "out", **options)
    assert not list((tmp_path / "out").glob("*.jsonl"))
    assert rejects.read_bytes() == b"somebody's\n"

    rejects.unlink()
    assert tag(tagger, folder, tmp_path / "out", **options).rejected == 1
    # Everything is finished now, so no rejects file is written, and any may be there.
    rejects.write_bytes(b"somebody's\n")
    assert tag(tagger, folder, tmp_path / "out", **options).finished_before == 2
