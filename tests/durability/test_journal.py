"""Journals with lines that are swapped, doubled, missing or changed: the same bytes, or a named error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nerd_onnx.durability.chunks import chunk_schema
from nerd_onnx.durability.events import (
    JOURNAL_VERSION,
    NO_HASH,
    BeginEvent,
    ChunkEvent,
    DoneEvent,
    Event,
    KeepEvent,
    RunEvent,
    event_of,
    line_of,
)
from nerd_onnx.durability.journal import Journal, read_progress
from nerd_onnx.errors import NerdError, OutputError
from nerd_onnx.storage.location import Location
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob, TagReport
from nerd_onnx.tagging.previous_runs import done_before
from nerd_onnx.tagging.run import tag_files
from tests.support import damage
from tests.support.failures import fails
from tests.support.journals import Events, forge, journal_of
from tests.support.processes import work_folder
from tests.support.profiles import example_count
from tests.support.runs import interrupt, texts, tree, write_lines

ROWS = 40


def job(folder: Path, **options: Any) -> TagJob:
    rejects = {"on_error": "skip", "rejects": str(folder / "rejects.jsonl")}
    return TagJob([str(folder.parent / "in")], str(folder / "out"), **{"chunk_rows": 10, **rejects, **options})


@pytest.fixture(scope="module")
def template(tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    Interrupt a run over three files, the first of which has a row that cannot be read.

    It is interrupted when one file is done and the next one has three chunks.
    """
    folder = tmp_path_factory.mktemp("journals")
    (folder / "in").mkdir()
    (folder / "killed").mkdir()
    rows = texts(3 * ROWS)
    for number, name in enumerate("abc"):
        path = write_lines(folder / "in" / f"{name}.jsonl", rows[number * ROWS :][:ROWS])
        if number == 0:
            lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join([*lines[:7], b"broken\n", *lines[7:]]))
    interrupt(tagger, job(folder / "killed"), 8)
    return folder / "killed"


@pytest.fixture(scope="module")
def whole(tagger: Tagger, template: Path) -> dict[str, bytes]:
    """Return the outputs of an uninterrupted run."""
    folder = template.with_name("whole")
    folder.mkdir()
    tag_files(tagger, job(folder))
    return tree(folder)


@pytest.fixture
def killed(template: Path) -> Path:
    """Copy the interrupted run, beside the same input."""
    folder = template.with_name("copy")
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(template, folder))


def resumed(tagger: Tagger, folder: Path) -> TagReport:
    """Resume a run, and check that the dry run says what the run does."""
    work = job(folder, resume=True)
    planned = done_before(tagger, [work])
    report = tag_files(tagger, work)
    done = {name: getattr(report, name) for name in ("remade_files", "damaged_lines", "damaged_chunks")}
    assert planned == {**planned, "safe_rows": report.resumed_rows, **done}
    return report


def kinds(lines: list[bytes]) -> list[str]:
    return [json.loads(line)["event"] for line in lines]


def edited(journal: Path, change: Callable[[list[bytes]], object]) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    change(lines)
    journal.write_bytes(b"".join(lines))


def swap_chunks(lines: list[bytes]) -> None:
    first = len(kinds(lines)) - 3
    assert kinds(lines)[first:] == ["chunk"] * 3
    lines[first], lines[first + 1] = lines[first + 1], lines[first]


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        (swap_chunks, 41),  # the first file
        (lambda lines: lines.insert(-1, lines[-2]), 61),
        (lambda lines: lines.pop(-3), 41),
        (lambda lines: lines.pop(-2), 51),
        (lambda lines: lines.__setitem__(-1, b"[" * 100_000 + b"\n"), 61),
        (lambda lines: lines.__setitem__(-1, b"{}\n"), 61),
        (lambda lines: lines.__setitem__(-1, b"[]\n"), 61),
        (lambda lines: lines.__setitem__(0, b"\xff\n"), 0),
    ],
)
def test_lines_out_of_place_are_work_to_be_done_again(
    tagger: Tagger, killed: Path, whole: dict[str, bytes], change: Callable[[list[bytes]], object], rows: int
) -> None:
    edited(journal_of(killed / "out"), change)
    report = resumed(tagger, killed)
    assert report.resumed_rows == rows
    assert report.damaged_lines > 0
    assert tree(killed) == whole


def test_an_output_that_damaged_lines_recorded_is_made_again(
    tagger: Tagger, killed: Path, whole: dict[str, bytes]
) -> None:
    """The work of the first resumed run is interrupted too: what the damaged lines recorded is not forgotten."""
    edited(journal_of(killed / "out"), lambda lines: lines.pop(1))  # the begin of the first file
    interrupt(tagger, job(killed, resume=True), 2)
    report = resumed(tagger, killed)
    assert (report.remade_files, report.files, report.finished_before) == (1, 3, 0)
    assert tree(killed) == whole


@pytest.mark.parametrize("lost", ["commit", "commit and all before it"])
def test_an_output_that_no_line_records_any_more_is_refused(
    tagger: Tagger, killed: Path, whole: dict[str, bytes], lost: str
) -> None:
    def cut(lines: list[bytes]) -> None:
        commit = kinds(lines).index("commit")
        lines[commit if lost == "commit" else 0 : commit + 1] = [b"\x00\n"]

    edited(journal_of(killed / "out"), cut)
    for _ in range(2):  # also when the damaged lines are gone
        with fails(OutputError, "output-unknown", file=killed / "out" / "a.jsonl"):
            done_before(tagger, [job(killed, resume=True)])
        with fails(OutputError, "output-unknown", file=killed / "out" / "a.jsonl"):
            tag_files(tagger, job(killed, resume=True))
    tag_files(tagger, job(killed, resume=True, overwrite=True))
    assert tree(killed) == whole


def test_a_journal_that_lost_its_last_lines(tagger: Tagger, killed: Path, whole: dict[str, bytes]) -> None:
    """As after a power cut on a disk that lies. The file with rejected rows is not taken for an earlier output."""

    def cut(lines: list[bytes]) -> None:
        del lines[1:]

    edited(journal_of(killed / "out"), cut)
    with fails(OutputError, "output-unknown", file=killed / "out" / "a.jsonl"):
        tag_files(tagger, job(killed, resume=True))
    (killed / "out" / "a.jsonl").unlink()
    resumed(tagger, killed)
    assert tree(killed) == whole


def test_a_chunk_may_have_no_rows(tagger: Tagger, tmp_path: Path) -> None:
    """All rows of its batch were rejected while they were read."""
    source = tmp_path / "a.jsonl"
    source.write_bytes(b"broken\n" * 20 + write_lines(tmp_path / "good.jsonl", texts(20)).read_bytes())
    options: dict[str, Any] = {"chunk_rows": 10, "on_error": "skip"}

    def work(name: str, **more: Any) -> TagJob:
        rejects = str(tmp_path / f"{name}.rejects")
        return TagJob([str(source)], str(tmp_path / f"{name}.jsonl"), rejects=rejects, **options, **more)

    tag_files(tagger, work("whole"))
    for batches in (1, 2, 3):
        interrupt(tagger, work("killed"), batches)
        tag_files(tagger, work("killed", resume=True))
        for suffix in ("jsonl", "rejects"):
            killed, whole = tmp_path / f"killed.{suffix}", tmp_path / f"whole.{suffix}"
            assert killed.read_bytes() == whole.read_bytes()
            killed.unlink()


def test_an_older_journal_is_refused(tagger: Tagger, killed: Path, whole: dict[str, bytes]) -> None:
    """Version 2 had neither numbers nor hashes."""
    old = [{"event": "run", "version": 2, "overwrite": False, "facts": {}}, {"event": "begin", "name": "a.jsonl"}]
    journal = journal_of(killed / "out")
    journal.write_text("".join(json.dumps(event) + "\n" for event in old))
    before = journal.read_bytes()
    for options in ({}, {"resume": True}):
        (killed / "out" / "a.jsonl").unlink(missing_ok=True)
        with fails(OutputError, "other-version", found=2, expected=JOURNAL_VERSION):
            tag_files(tagger, job(killed, **options))
        with fails(OutputError, "other-version"):
            done_before(tagger, [job(killed, **options)])
    assert journal.read_bytes() == before
    tag_files(tagger, job(killed, overwrite=True))
    assert tree(killed) == whole


# -- any damage --------------------------------------------------------------------------------------------------------


# A seed, and not draws from hypothesis: what may be drawn would depend on the journal, which has times and inodes.
SEEDS = st.integers(0, 2**32 - 1)
ANY = settings(
    max_examples=example_count(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@ANY
@given(seed=SEEDS)
def test_any_damage_gives_the_same_bytes_or_an_error(
    tagger: Tagger, template: Path, whole: dict[str, bytes], seed: int
) -> None:
    rng = Random(seed)
    folder = template.with_name("copy")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    journal = journal_of(folder / "out")
    assert journal.read_bytes() == journal_of(template / "out").read_bytes()
    damage.damage_lines(journal, rng)

    try:
        resumed(tagger, folder)
    except NerdError as err:
        assert err.reason in ("output-unknown", "exists-elsewhere", "other-version")  # noqa: PT017
        return
    assert tree(folder) == whole


@ANY
@given(seed=SEEDS)
def test_forged_events_end_in_no_traceback(tagger: Tagger, template: Path, seed: int) -> None:
    """All hashes fit, so a person wrote these lines: what they say may be untrue, but they end in no traceback."""
    rng = Random(seed)
    folder = template.with_name("copy")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)

    def change(events: Events) -> None:
        for _ in range(rng.randint(1, 3)):
            damage.change_value(rng.choice(events), rng)

    forge(journal_of(folder / "out"), change)
    try:
        resumed(tagger, folder)
    except NerdError as err:
        assert err.reason != "unknown"  # noqa: PT017


# -- chunks that fit their hash ----------------------------------------------------------------------------------------


def as_chunk(path: Path, batch: pa.RecordBatch, facts: dict[str, str]) -> None:
    with pa.ipc.new_stream(str(path), batch.schema) as writer:
        writer.write_batch(batch, custom_metadata=facts)


@pytest.mark.parametrize(
    "content",
    ["no Arrow", "other columns", "fewer rows", "no metadata", "other metadata", "invalid offsets", "nothing"],
)
def test_a_chunk_with_a_fitting_hash_that_is_no_result(
    tagger: Tagger, killed: Path, whole: dict[str, bytes], content: str
) -> None:
    path = work_folder(killed / "out") / "chunk-000001.arrow"
    schema = chunk_schema(tagger.entity_field())
    empty = pa.RecordBatch.from_arrays([pa.nulls(10, schema.field(0).type), pa.nulls(10, pa.string())], schema=schema)
    facts = {"tokens": "1", "texts": ""}
    match content:
        case "no Arrow":
            path.write_bytes(b"ARROW1 but no more")
        case "nothing":
            path.write_bytes(b"")
        case "other columns":
            as_chunk(path, pa.record_batch({"x": range(10)}), facts)
        case "fewer rows":
            as_chunk(path, empty.slice(0, 3), facts)
        case "no metadata":
            as_chunk(path, empty, {})
        case "other metadata":
            as_chunk(path, empty, {"tokens": "many", "texts": "\u00e9"})
        case "invalid offsets":
            offsets = pa.array([0, 5, 2, *range(8)], pa.int32()).buffers()[1]
            bad = pa.Array.from_buffers(pa.string(), 10, [None, offsets, pa.py_buffer(b"some text")])
            as_chunk(path, pa.RecordBatch.from_arrays([empty.column(0), bad], schema=schema), facts)

    def fit(events: Events) -> None:
        import hashlib

        chunk = [event for event in events if event["event"] == "chunk"][-2]
        chunk.update(size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        if content != "fewer rows":
            chunk["tokens"] = 1

    forge(journal_of(killed / "out"), fit)
    report = resumed(tagger, killed)
    assert (report.damaged_chunks, report.resumed_rows) == (2, 51)
    assert tree(killed) == whole


# -- events ------------------------------------------------------------------------------------------------------------

RUN = RunEvent(JOURNAL_VERSION, overwrite=False, facts={"a": [1, None]})
BEGIN = BeginEvent("a.jsonl", {"size": 1})
CHUNK = ChunkEvent(0, 10, 5, 100, "0" * 64)


def test_a_line_gives_its_event_in_its_place_only() -> None:
    line, digest = line_of(0, RUN, NO_HASH)
    assert event_of(line, 0, NO_HASH) == (RUN, digest)
    second, _ = line_of(1, BEGIN, digest)
    assert event_of(second, 1, digest)[0] == BEGIN
    for number, previous in ((2, digest), (0, digest), (1, NO_HASH)):
        with pytest.raises(ValueError, match="not"):
            event_of(second, number, previous)


@pytest.mark.parametrize(
    "events",
    [
        [BEGIN],
        [RUN, RUN],
        [RUN, CHUNK],
        [RUN, BEGIN, ChunkEvent(10, 10, 5, 100, "")],
        [RUN, BEGIN, CHUNK, CHUNK],
        [RUN, BEGIN, CHUNK, KeepEvent(2)],
        [RUN, BEGIN, DoneEvent("a.jsonl", None)],
    ],
)
def test_an_event_that_cannot_follow_is_damage(tmp_path: Path, events: list[Event]) -> None:
    lines, previous = [], NO_HASH
    for number, event in enumerate(events):
        line, previous = line_of(number, event, previous)
        lines.append(line)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"".join(lines))
    assert read_progress(str(path)).damaged_lines == 1
    with Journal(str(path), Location("o")) as journal:
        assert journal.progress.damaged_lines == (1 if len(events) > 1 else 0)
