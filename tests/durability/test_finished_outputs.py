"""Exit code 0 means that every output was looked at: what is lost is made again, what is another's is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nerd_onnx.errors import InputError, InterruptedRunError, NerdError, OutputError
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob, TagReport
from nerd_onnx.tagging.previous_runs import done_before
from nerd_onnx.tagging.run import tag_files
from tests.support.failures import fails
from tests.support.journals import Events, forge, journal_of
from tests.support.marks import slow_but
from tests.support.processes import work_folder
from tests.support.runs import interrupt, texts, tree, write_lines, write_parquet

FIRST_DONE = 5  # batches of 20 rows, of files with 60 rows: the first file is done, the second has two chunks
LOST: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: os.truncate(path, 0),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "without its end": lambda path: os.truncate(path, path.stat().st_size - 1),
}


def flip(path: Path) -> None:
    """Change one byte in the middle, and set the time back."""
    found, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def replace(path: Path, content: bytes) -> None:
    """Put another file under the name."""
    path.with_name("other").write_bytes(content)
    path.with_name("other").replace(path)


CHANGED: dict[str, Callable[[Path], object]] = {
    "another file": lambda path: replace(path, b"theirs"),
    "another file of the same size": lambda path: replace(path, bytes(path.stat().st_size)),
    "a flipped bit": flip,
    "more bytes": lambda path: path.write_bytes(path.read_bytes() * 2),
    "other bytes": lambda path: path.write_bytes(b"theirs"),
}


def write_source(folder: Path) -> Path:
    """Write three files of 60 rows each into a new folder; the third one has a row that cannot be read."""
    folder.mkdir()
    rows = texts(60)
    write_parquet(folder / "a.parquet", rows, 20)
    write_lines(folder / "b.jsonl", rows[::-1])
    lines = write_lines(folder / "c.jsonl", rows).read_bytes().splitlines(keepends=True)
    (folder / "c.jsonl").write_bytes(b"".join([*lines[:30], b"broken\n", *lines[30:]]))
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Make the inputs."""
    return write_source(tmp_path / "in")


def job(source: Path, folder: Path, **options: Any) -> TagJob:
    folder.mkdir(exist_ok=True)
    rejects = {"on_error": "skip", "rejects": str(folder / "rejects.jsonl")}
    return TagJob([str(source)], str(folder / "out"), **{"chunk_rows": 20, **rejects, **options})


@pytest.fixture(scope="module")
def whole(tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the outputs of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    tag_files(tagger, job(write_source(folder / "in"), folder / "out"))
    return tree(folder / "out")


@pytest.fixture
def out(tagger: Tagger, source: Path, tmp_path: Path) -> Path:
    """Interrupt a run after its first file, and return the folder with its outputs."""
    interrupt(tagger, job(source, tmp_path / "killed"), FIRST_DONE)
    assert (tmp_path / "killed" / "out" / "a.parquet").is_file()
    return tmp_path / "killed"


def resumed(tagger: Tagger, source: Path, out: Path, **options: Any) -> TagReport:
    """Resume a run, and check that the dry run says what the run does."""
    work = job(source, out, resume=True, **options)
    before = tree(out)
    planned = done_before(tagger, [work])
    assert tree(out) == before
    report = tag_files(tagger, work)
    done = {name: getattr(report, name) for name in ("remade_files", "damaged_lines", "damaged_chunks")}
    assert planned == {**planned, "safe_rows": report.resumed_rows, **done}
    return report


def refused(tagger: Tagger, source: Path, out: Path, error: type[NerdError], reason: str, **options: Any) -> None:
    """Check that the run and its dry run are refused, and that nothing changes."""
    work = job(source, out, resume=True, **options)
    before = standing(out)
    with fails(error, reason):
        done_before(tagger, [work])
    with fails(error, reason):
        tag_files(tagger, work)
    assert standing(out) == before


def standing(out: Path) -> dict[str, bytes]:
    """Return all files but the lock, in which each run writes when it began."""
    return {name: content for name, content in tree(out).items() if Path(name).name != "lock"}


@pytest.mark.parametrize("damage", slow_but(["missing", "empty"], LOST))
def test_a_lost_output_is_made_again(
    tagger: Tagger, source: Path, whole: dict[str, bytes], out: Path, damage: str
) -> None:
    LOST[damage](out / "out" / "a.parquet")
    report = resumed(tagger, source, out)
    assert (report.remade_files, report.rows, report.resumed_rows, report.files) == (1, 181, 40, 3)
    assert tree(out) == whole


@pytest.mark.parametrize("damage", slow_but(["another file of the same size", "a flipped bit"], CHANGED))
def test_an_output_that_is_another_file_is_refused(
    tagger: Tagger, source: Path, whole: dict[str, bytes], out: Path, damage: str
) -> None:
    CHANGED[damage](out / "out" / "a.parquet")
    refused(tagger, source, out, OutputError, "output-changed")

    tag_files(tagger, job(source, out, resume=True, overwrite=True))
    assert tree(out) == whole


@pytest.mark.parametrize("damage", slow_but(["cut"], LOST))
def test_a_lost_output_that_is_made_again_may_be_interrupted_again(
    tagger: Tagger, source: Path, whole: dict[str, bytes], out: Path, damage: str
) -> None:
    LOST[damage](out / "out" / "a.parquet")
    interrupt(tagger, job(source, out, resume=True), 2)
    resumed(tagger, source, out)
    assert tree(out) == whole


def test_a_copied_or_touched_output_is_the_same_output(
    tagger: Tagger, source: Path, whole: dict[str, bytes], out: Path
) -> None:
    os.utime(out / "out" / "a.parquet", (1, 1))
    replace(out / "out" / "a.parquet", (out / "out" / "a.parquet").read_bytes())
    assert resumed(tagger, source, out).remade_files == 0
    assert tree(out) == whole


def test_an_output_that_never_was(tagger: Tagger, source: Path, whole: dict[str, bytes], out: Path) -> None:
    """The journal says that a file is done which was not even begun."""

    def done(events: Events) -> None:
        commit = next(event for event in events if event["event"] == "commit")
        begin = next(event for event in events if event["event"] == "begin")
        name = "c.jsonl"
        events += [{**begin, "name": name}, {**commit, "name": name}, {"event": "done", "name": name, "version": None}]

    forge(journal_of(out / "out"), done)
    assert tag_files(tagger, job(source, out, resume=True)).remade_files == 1
    assert tree(out) == whole


@pytest.mark.parametrize("state", ["as it was", "missing", "cut", "another file"])
def test_a_commit_without_done(tagger: Tagger, source: Path, whole: dict[str, bytes], out: Path, state: str) -> None:
    """The run died between renaming the output into place and recording that; or before it was renamed."""

    def undone(events: Events) -> None:
        del events[next(i for i, event in enumerate(events) if event["event"] == "done") :]

    forge(journal_of(out / "out"), undone)
    for chunk in work_folder(out / "out").glob("chunk*"):  # they are those of the next file
        chunk.unlink()
    if state in {**LOST, **CHANGED}:
        {**LOST, **CHANGED}[state](out / "out" / "a.parquet")

    if state == "another file":
        refused(tagger, source, out, OutputError, "exists-elsewhere")
        return
    report = resumed(tagger, source, out)
    assert report.resumed_rows == (60 if state == "as it was" else 0)
    assert tree(out) == whole


@pytest.mark.parametrize("moment", ["while others are tagged", "at the end"])
@pytest.mark.parametrize("damage", slow_but(["missing", "other bytes"], [*LOST, *CHANGED]))
def test_an_output_is_looked_at_once_more_at_the_end(
    tagger: Tagger, source: Path, whole: dict[str, bytes], tmp_path: Path, damage: str, moment: str
) -> None:
    out = tmp_path / "killed"
    rows = {"while others are tagged": 80, "at the end": 181}[moment]

    def meddle(report: TagReport, _: object) -> None:
        path = out / "out" / "a.parquet"
        if report.rows >= rows and path.exists() and path.read_bytes() == whole["out/a.parquet"]:
            {**LOST, **CHANGED}[damage](path)

    reason = "output-lost" if damage in LOST else "output-changed"
    with fails(OutputError, reason, file=out / "out" / "a.parquet") as caught:
        tag_files(tagger, job(source, out), on_batch=meddle)
    if damage in LOST:
        assert caught.value.fields["safe_rows"] == 121
    assert work_folder(out / "out").is_dir()
    if damage in LOST:
        assert resumed(tagger, source, out).resumed_rows == 121
        assert tree(out) == whole
    else:
        refused(tagger, source, out, OutputError, "output-changed")


def test_an_output_of_an_earlier_run_is_looked_at_once_more(tagger: Tagger, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    tag_files(tagger, job(source, out))
    (out / "out" / "c.jsonl").unlink()
    (out / "rejects.jsonl").unlink()

    with fails(OutputError, "output-lost", file=out / "out" / "a.parquet"):
        tag_files(
            tagger,
            job(source, out, resume=True),
            on_batch=lambda _, __: (out / "out" / "a.parquet").unlink(missing_ok=True),
        )


# -- the rejects file --------------------------------------------------------------------------------------------------


@pytest.fixture
def all_done(tagger: Tagger, source: Path, whole: dict[str, bytes], tmp_path: Path) -> Path:
    """Interrupt a run just before it removes its work folder: all files are done, and the rejects file too."""
    out = tmp_path / "killed"

    def remove(report: TagReport, _: object) -> None:
        if report.rows >= 121:
            (out / "out" / "b.jsonl").unlink(missing_ok=True)

    with fails(OutputError, "output-lost", file=out / "out" / "b.jsonl"):
        tag_files(tagger, job(source, out), on_batch=remove)
    assert tree(out)["rejects.jsonl"] == whole["rejects.jsonl"]
    return out


@pytest.mark.parametrize("damage", slow_but([None, "cut"], [None, *LOST]))
def test_a_lost_rejects_file_is_made_again(
    tagger: Tagger, source: Path, whole: dict[str, bytes], all_done: Path, damage: str | None
) -> None:
    if damage is not None:
        LOST[damage](all_done / "rejects.jsonl")
    resumed(tagger, source, all_done)
    assert tree(all_done) == whole


@pytest.mark.parametrize("damage", slow_but(["another file"], CHANGED))
def test_a_rejects_file_that_is_another_file_is_not_replaced(
    tagger: Tagger, source: Path, all_done: Path, damage: str
) -> None:
    CHANGED[damage](all_done / "rejects.jsonl")
    before = tree(all_done).get("rejects.jsonl")
    with pytest.raises(OutputError) as caught:
        tag_files(tagger, job(source, all_done, resume=True))
    assert caught.value.reason == "output-exists"
    assert tree(all_done).get("rejects.jsonl") == before


@pytest.mark.parametrize("damage", slow_but(["missing", "a flipped bit"], [*LOST, *CHANGED]))
def test_lost_rejected_rows_are_found_again(
    tagger: Tagger, source: Path, whole: dict[str, bytes], all_done: Path, damage: str
) -> None:
    """Of a finished file the rejected rows are in the work folder; without them it is tagged again."""
    [part] = work_folder(all_done / "out").glob("rejects*")
    {**LOST, **CHANGED}[damage](part)
    assert resumed(tagger, source, all_done).remade_files == 2
    assert tree(all_done) == whole


def test_rejected_rows_of_a_run_that_had_no_rejects_file(tagger: Tagger, source: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (source / "b.jsonl").read_bytes().splitlines()]
    rows[7]["text"] = 7
    (source / "b.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (source / "c.jsonl").write_bytes(write_lines(source.parent / "c.jsonl", texts(60)).read_bytes())
    tag_files(tagger, job(source, tmp_path / "whole", on_error="null"))
    interrupt(tagger, job(source, tmp_path / "killed", on_error="null", rejects=None), 8)
    resumed(tagger, source, tmp_path / "killed", on_error="null")
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


# -- inputs ------------------------------------------------------------------------------------------------------------


def write_large(folder: Path) -> None:
    """Make the files larger than what the fingerprint of their ends covers."""
    rows = texts(120)
    for name in ("a.jsonl", "b.jsonl"):
        lines = [json.dumps({"text": text, "other": "x" * 35_000}) + "\n" for text in rows]
        (folder / name).write_text("".join(lines))
    (folder / "a.parquet").unlink()
    (folder / "c.jsonl").unlink()


def interrupt_at(tagger: Tagger, work: TagJob, rows: int) -> None:
    """Interrupt a run when it has tagged so many rows."""
    found: list[TagReport] = []
    with fails(InterruptedRunError, "interrupted"):
        tag_files(
            tagger,
            work,
            lambda report, _: found.append(report),
            lambda: 15 if found and found[-1].rows >= rows else None,
        )


def change_row(path: Path, number: int) -> None:
    """Change the text of a row; the file keeps its size and time."""
    found, lines = path.stat(), path.read_bytes().splitlines(keepends=True)
    begin = b'{"text": "'
    assert lines[number].startswith(begin)
    letter = lines[number][len(begin) : len(begin) + 1]
    lines[number] = begin + (b"Q" if letter != b"Q" else b"R") + lines[number][len(begin) + 1 :]
    path.write_bytes(b"".join(lines))
    assert path.stat().st_size == found.st_size
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.parametrize("row", slow_but([40], [40, 59]))
def test_texts_that_changed_between_kill_and_resume(tagger: Tagger, source: Path, tmp_path: Path, row: int) -> None:
    write_large(source)
    interrupt_at(tagger, job(source, tmp_path / "killed"), 180)
    change_row(source / "b.jsonl", row)
    with fails(InputError, "input-changed", file=source / "b.jsonl", changed="texts") as caught:
        tag_files(tagger, job(source, tmp_path / "killed", resume=True))
    assert int(caught.value.fields["row"]) in range(row - 20, row + 2)
    assert not (tmp_path / "killed" / "out" / "b.jsonl").exists()
    tag_files(tagger, job(source, tmp_path / "killed", overwrite=True))
    tag_files(tagger, job(source, tmp_path / "whole"))
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


@pytest.mark.slow
def test_a_text_that_is_not_tagged_yet_may_change(tagger: Tagger, source: Path, tmp_path: Path) -> None:
    write_large(source)
    interrupt_at(tagger, job(source, tmp_path / "killed"), 180)
    change_row(source / "b.jsonl", 80)
    resumed(tagger, source, tmp_path / "killed")
    tag_files(tagger, job(source, tmp_path / "whole"))
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


def test_an_input_that_changed_in_its_middle_after_it_was_tagged(tagger: Tagger, source: Path, tmp_path: Path) -> None:
    write_large(source)
    interrupt_at(tagger, job(source, tmp_path / "killed"), 180)
    change_row(source / "a.jsonl", 40)
    refused(tagger, source, tmp_path / "killed", InputError, "input-changed")


def test_a_copied_or_linked_input_is_the_same_input(tagger: Tagger, source: Path, out: Path) -> None:
    shutil.copy2(source / "a.parquet", source.parent / "copy")
    (source.parent / "copy").replace(source / "a.parquet")
    (source.parent / "link").hardlink_to(source / "b.jsonl")
    assert resumed(tagger, source, out).resumed_rows == 100


# -- --verify ----------------------------------------------------------------------------------------------------------


def test_verify_reads_what_size_and_time_do_not_show(tagger: Tagger, source: Path, out: Path) -> None:
    """A disk that lies changes bytes without a change of any fact about the file."""
    path = out / "out" / "a.parquet"
    flip(path)

    def hidden(events: Events) -> None:
        found = path.stat()
        done = next(event for event in events if event["event"] == "done")
        done["version"] = f"{found.st_ino}:{found.st_ctime_ns}"

    forge(journal_of(out / "out"), hidden)
    refused(tagger, source, out, OutputError, "output-changed", verify=True)
    assert resumed(tagger, source, out).resumed_rows == 100


# -- the work folder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_no_row_is_said_to_be_safe_when_the_work_folder_is_gone(
    tagger: Tagger, source: Path, tmp_path: Path, how: str
) -> None:
    out = tmp_path / "killed"

    def lose(report: TagReport, _: object) -> None:
        if report.rows >= 80 and (folder := out / "out" / ".nerd-work").exists():
            shutil.rmtree(folder) if how == "removed" else folder.rename(tmp_path / "moved")

    with pytest.raises(OutputError) as caught:
        tag_files(tagger, job(source, out), on_batch=lose)
    assert caught.value.reason == "work-folder-lost"
    assert "safe_rows" not in caught.value.fields
    assert "--resume" not in str(caught.value)
    assert not (out / "out" / ".nerd-work").exists()


def test_an_interrupted_run_says_that_its_work_folder_is_gone(tagger: Tagger, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    calls: list[int] = []

    def stop() -> int | None:
        calls.append(1)
        if len(calls) == FIRST_DONE:
            shutil.rmtree(out / "out" / ".nerd-work")
            return 15
        return None

    with pytest.raises(NerdError) as caught:
        tag_files(tagger, job(source, out), stop=stop)
    assert caught.value.fields["safe_rows"] == 0
    assert "saved" not in str(caught.value).replace("Nothing is saved", "")
