"""What a dry run says of the runs before: what is safe, what would be refused; and nothing changes by asking."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nerd_onnx.cli.tag import main
from nerd_onnx.durability.lock import RunLock
from nerd_onnx.errors import NerdError, OutputError
from nerd_onnx.storage.location import Location
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.previous_runs import done_before
from nerd_onnx.tagging.run import tag_files
from tests.support.commands import runner
from tests.support.failures import fails, failure_of
from tests.support.processes import work_folder
from tests.support.runs import interrupt, texts, write_lines, write_parquet


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Make a folder of three files of 60 rows each."""
    (tmp_path / "in").mkdir()
    for name in ("a.parquet", "b.parquet"):
        write_parquet(tmp_path / "in" / name, texts(60), 20)
    write_lines(tmp_path / "in" / "c.jsonl", texts(60))
    return tmp_path / "in"


def job(source: Path, output: Path, **options: Any) -> TagJob:
    return TagJob([str(source)], str(output), **{"chunk_rows": 20, **options})


def counted(tagger: Tagger, work: TagJob) -> tuple[int, int]:
    """Return the safe rows and the finished files of a job in which nothing is to be done again."""
    facts = done_before(tagger, [work])
    assert {facts[name] for name in ("remade_files", "damaged_lines", "damaged_chunks")} == {0}
    return facts["safe_rows"], facts["finished_files"]


def standing(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return content and time of all files, at any depth."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_partly_finished_folder(tagger: Tagger, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert counted(tagger, job(source, output)) == (0, 0)
    interrupt(tagger, job(source, output), 5)
    before = standing(tmp_path)

    assert counted(tagger, job(source, output, resume=True)) == (100, 1)
    assert counted(tagger, job(source, output, overwrite=True)) == (0, 0)
    with fails(OutputError, "interrupted-run", safe_rows=100):
        done_before(tagger, [job(source, output)])

    assert standing(tmp_path) == before
    report = tag_files(tagger, job(source, output, resume=True))

    assert report.resumed_rows == 100
    assert counted(tagger, job(source, output, resume=True)) == (0, 3)


def _another_begun(source: Path) -> None:
    write_parquet(source / "b.parquet", texts(61))


def _another_finished(source: Path) -> None:
    write_parquet(source / "a.parquet", texts(61))


@pytest.mark.parametrize(
    ("change", "options", "of_tagger"),
    [
        (_another_begun, {}, {}),
        (_another_finished, {}, {}),
        (None, {"limit": 7}, {}),
        (None, {"layout": "wide"}, {}),
        (None, {"on_error": "null"}, {}),
        (None, {}, {"min_score": 0.5}),
        (None, {}, {"model": None}),
    ],
)
def test_the_count_raises_what_the_run_would_raise(
    tagger: Tagger,
    tiny_bundle: Path,
    source: Path,
    tmp_path: Path,
    change: Callable[[Path], None] | None,
    options: dict[str, Any],
    of_tagger: dict[str, Any],
) -> None:
    output = tmp_path / "out"
    interrupt(tagger, job(source, output), 5)
    if change is not None:
        change(source)
    other = Tagger.load(**{"model": tiny_bundle, **of_tagger})
    work = job(source, output, resume=True, **options)
    before = standing(tmp_path)
    with pytest.raises(NerdError) as planned:
        done_before(other, [work])

    assert standing(tmp_path) == before
    with pytest.raises(type(planned.value)) as run:
        tag_files(other, work)

    assert str(run.value).startswith(str(planned.value))  # the run adds how many rows are safe


def test_a_finished_file_is_checked(tagger: Tagger, source: Path, tmp_path: Path) -> None:
    work = job(source / "a.parquet", tmp_path / "o.parquet", resume=True)
    tag_files(tagger, job(source / "a.parquet", tmp_path / "o.parquet"))
    assert counted(tagger, work) == (0, 1)
    os.utime(tmp_path / "o.parquet", (1, 1))
    with fails(OutputError, "older-than-input"):
        done_before(tagger, [work])


@pytest.mark.parametrize(
    ("name", "verify"),
    [("c.jsonl", False), *((f"c.jsonl.{suffix}", True) for suffix in ("gz", "zst", "xz", "bz2")), ("a.parquet", True)],
)
def test_a_finished_file_of_an_earlier_run_must_be_complete(
    tagger: Tagger, source: Path, tmp_path: Path, name: str, *, verify: bool
) -> None:
    """No journal is left of it: its end is looked at, and --verify reads all of it."""
    given, output = source / (name if name == "a.parquet" else "c.jsonl"), tmp_path / name
    tag_files(tagger, job(given, output))
    work = job(given, output, resume=True, verify=verify)
    assert counted(tagger, work) == (0, 1)
    assert tag_files(tagger, work).finished_before == 1

    content = bytearray(output.read_bytes())
    if name == "a.parquet":
        content[100:900] = bytes(800)
    output.write_bytes(content if name == "a.parquet" else content[:-3])
    for look in (lambda: done_before(tagger, [work]), lambda: tag_files(tagger, work)):
        with fails(OutputError, "incomplete-output", file=output):
            look()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".csv.gz"])
def test_a_copy_of_the_input_is_no_finished_output(tagger: Tagger, source: Path, tmp_path: Path, suffix: str) -> None:
    """These formats have no metadata, and the copy is whole and newer than the input."""
    given, output = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    tag_files(tagger, job(source / "c.jsonl", given, output_format=suffix[1:].removesuffix(".gz")))
    shutil.copy(given, output)
    work = job(given, output, resume=True, overwrite_column=True)
    assert tag_files(tagger, work).finished_before == 1  # nothing tells the columns apart

    other = Tagger.load(tagger.bundle.folder, column="found")
    with fails(OutputError, "no-new-column", file=output, column="found"):
        tag_files(other, work)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("name", ["c.jsonl", "b.parquet"])
def test_an_output_that_appears_during_the_run_is_no_finished_one(
    tagger: Tagger, source: Path, tmp_path: Path, name: str, *, resume: bool
) -> None:
    out, theirs = tmp_path / "out", tmp_path / name
    tag_files(tagger, job(source / name, theirs))  # even if it is what this run would write

    def create(_: object, __: object) -> None:
        if not (out / name).exists():
            shutil.copy(theirs, out / name)

    with fails(OutputError, "output-exists", file=out / name):
        tag_files(tagger, job(source, out, resume=resume), on_batch=create)
    assert (out / name).read_bytes() == theirs.read_bytes()


def lose_lines(path: Path) -> int:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:7]))
    return 7


def gain_a_line(path: Path) -> int:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[-1]]))
    return len(lines) - (path.suffix == ".csv")


def other_text(path: Path) -> int:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[2], lines[1], *lines[3:]]))
    return 0 if path.suffix == ".csv" else 1


@pytest.mark.parametrize("change", [lose_lines, gain_a_line, other_text])
@pytest.mark.parametrize("name", ["o.jsonl", "o.csv"])
@pytest.mark.parametrize("layout", ["nested", "wide"])
def test_verify_compares_the_texts_of_a_finished_file(
    tagger: Tagger, source: Path, tmp_path: Path, change: Callable[[Path], int], name: str, layout: Any
) -> None:
    """Its lines are whole, and nothing else would show that they are not those of the input."""
    given, output = source / "c.jsonl", tmp_path / name
    tag_files(tagger, job(given, output, layout=layout))
    work = job(given, output, resume=True, verify=True, layout=layout)
    assert tag_files(tagger, work).finished_before == 1

    row = change(output)
    with fails(
        OutputError, "other-rows", file=output, input=given, row=row - (change is lose_lines and name == "o.csv")
    ):
        tag_files(tagger, work)
    assert tag_files(tagger, job(given, output, resume=True, layout=layout)).finished_before == 1


def test_verify_knows_the_limit_of_rows(tagger: Tagger, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    tag_files(tagger, job(source / "c.jsonl", output, limit=5))
    work = job(source / "c.jsonl", output, limit=5, resume=True, verify=True)
    assert tag_files(tagger, work).finished_before == 1
    with fails(OutputError, "other-rows", row=5):
        tag_files(tagger, job(source / "c.jsonl", output, resume=True, verify=True))


def test_the_command_reports_it_while_another_run_holds_the_lock(
    tagger: Tagger, tiny_bundle: Path, source: Path, tmp_path: Path, monkeypatch: Any, capfd: Any
) -> None:
    output = tmp_path / "out"
    interrupt(tagger, job(source, output), 5)
    run = runner("nerd-tag", main, monkeypatch, capfd)
    arguments = (source, output, "--model", tiny_bundle, "--chunk-rows", 20, "--resume", "--dry-run")
    with RunLock(Location.of(output), str(work_folder(output))):
        before = standing(tmp_path)
        code, _, err = run(*arguments, "--json")
        facts = json.loads(err)
        assert (code, facts["rows"], facts["safe_rows"], facts["finished_files"]) == (0, None, 100, 1)
        assert "\nsafe rows: 100\nfinished files: 1\n" in run(*arguments)[2]
        assert standing(tmp_path) == before

    _another_begun(source)
    code, _, err = run(*arguments, "--json")
    failure = failure_of(err)

    assert (code, failure["reason"], failure["changed"].partition(" ")[0]) == (1, "input-changed", "size")


def test_streams_have_no_earlier_runs(tagger: Tagger, source: Path) -> None:
    work = TagJob([str(source / "c.jsonl")], "-")
    assert counted(tagger, work) == (0, 0)
