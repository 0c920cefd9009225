"""A run killed at any step, or a disk that fails there, leaves no incomplete output and resumes to the same bytes."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nerd_onnx.errors import NerdError, OutputError
from nerd_onnx.formats.column_types import ColumnTypes
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from tests.support import profiles
from tests.support.failures import fails
from tests.support.marks import slow_but
from tests.support.processes import work_folder
from tests.support.runs import (
    at_step,
    in_child,
    job,
    kill,
    resumed,
    steps_of,
    texts,
    tree,
    write_arrow,
    write_csv,
    write_lines,
    write_parquet,
)

# Of the steps to die at, the long form takes all.
STRIDE = 1 if os.environ.get("NERD_LONG") else 5 if profiles.name() == "ci" else 8
CASES = [
    "parquet",
    "lines",
    "gzip",
    "xz",
    "bzip2",
    "to parquet",
    "mixed",
    "folder",
    "rejects",
    "wide",
    "long",
    "csv",
    "csv rejects",
    "arrow",
    "to arrow",
    "csv types",
]


@pytest.fixture(scope="module")
def tagger(tiny_bundle: Path) -> Tagger:
    """Load the small model with one thread: a fork copies no other threads."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return Tagger.load(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the inputs."""
    folder = tmp_path_factory.mktemp("data")
    rows = texts(150)
    write_parquet(folder / "a.parquet", rows)
    write_lines(folder / "a.jsonl", rows)
    write_arrow(folder / "a.arrow", rows)
    for suffix in (".gz", ".xz", ".bz2"):
        write_lines(folder / f"a.jsonl{suffix}", rows)
    (folder / "set" / "year=2024").mkdir(parents=True)
    (folder / "set" / "year=2025").mkdir()
    write_parquet(folder / "set" / "year=2024" / "a.parquet", rows[:70], 30)
    write_lines(folder / "set" / "year=2025" / "b.jsonl", rows[70:])
    # Each third text has a line feed, which CSV keeps in quotes.
    values = ["1", '"a"', "null", "[1.5]", '{"k": NaN}']  # of a field with several types
    mixed = [f'{{"text": {json.dumps(text)}, "x": {values[i % 5]}}}\n' for i, text in enumerate(rows)]
    (folder / "mixed.jsonl").write_text("".join(mixed))
    write_csv(folder / "a.csv.gz", [f"{text}\n\n" if i % 3 == 0 else text for i, text in enumerate(rows)])
    plain = [" ".join(text.replace('"', "").split()) for text in rows]
    records = write_csv(folder / "bad.csv", plain).read_bytes().splitlines()
    for i, row in ((3, b"3,a,b"), (77, b'77,"no end'), (149, b"149,\xff")):
        records[i + 1] = row
    (folder / "bad.csv").write_bytes(b"\n".join(records))
    bad = (folder / "a.jsonl").read_bytes().splitlines(keepends=True)
    for i in (3, 77, 149):
        bad[i] = b'{"text": \xff}\n'
    (folder / "bad.jsonl").write_bytes(b"".join(bad))
    return folder


def case_of(name: str, data: Path, out: Path) -> tuple[Path, Path, dict[str, Any]]:
    """Return input, output and options of a case."""
    cases: dict[str, tuple[str, str, dict[str, Any]]] = {
        "parquet": ("a.parquet", "o.parquet", {}),
        "lines": ("a.jsonl", "o.jsonl", {}),
        "gzip": ("a.jsonl.gz", "o.jsonl.gz", {}),
        "xz": ("a.jsonl.xz", "o.csv.xz", {}),
        "bzip2": ("a.jsonl.bz2", "o.jsonl.bz2", {}),
        "to parquet": ("a.jsonl", "o.parquet", {}),
        "mixed": ("mixed.jsonl", "o.parquet", {"mixed": "json"}),
        "folder": ("set", "o", {}),
        "arrow": ("a.arrow", "o.arrow", {}),
        "to arrow": ("a.jsonl", "o.feather", {}),
        "csv": ("a.csv.gz", "o.tsv.gz", {}),
        "csv rejects": ("bad.csv", "o.csv", {"on_error": "skip", "rejects": str(out / "rejects.jsonl")}),
        "csv types": (
            "bad.csv",
            "o.parquet",
            {"on_error": "skip", "rejects": str(out / "rejects.jsonl"), "csv_types": ColumnTypes(is_auto=True)},
        ),
        "wide": ("a.parquet", "o.parquet", {"layout": "wide"}),
        "long": ("a.jsonl", "o.parquet", {"layout": "long", "key": "id"}),
        "rejects": ("bad.jsonl", "o.jsonl", {"on_error": "skip", "rejects": str(out / "rejects.jsonl")}),
    }
    source, target, options = cases[name]
    return data / source, out / target, options


def whole(tagger: Tagger, name: str, data: Path, tmp_path: Path) -> dict[str, bytes]:
    """Return the files that an uninterrupted run leaves."""
    (tmp_path / "whole").mkdir()
    source, target, options = case_of(name, data, tmp_path / "whole")
    tag_files(tagger, job(source, target, **options))
    return tree(tmp_path / "whole")


@pytest.mark.examples
@pytest.mark.parametrize("name", slow_but(["parquet", "rejects"], CASES))
def test_a_kill_before_any_step_changes_no_byte(tagger: Tagger, data: Path, tmp_path: Path, name: str) -> None:
    expected = whole(tagger, name, data, tmp_path)
    (tmp_path / "count").mkdir()
    source, target, options = case_of(name, data, tmp_path / "count")
    steps = steps_of(tagger, source, target, **options)
    assert steps > 15
    for step in range(len(name) % STRIDE, steps, STRIDE):
        out = tmp_path / f"step{step}"
        out.mkdir()
        source, target, options = case_of(name, data, out)

        def killed(step: int = step, source: Path = source, target: Path = target, options: Any = options) -> None:
            at_step(step, kill)
            tag_files(tagger, job(source, target, **options))

        assert in_child(killed) == -signal.SIGKILL
        assert all(tree(out)[file] == content for file, content in expected.items() if file in tree(out)), step
        report = resumed(tagger, source, target, **options)
        assert tree(out) == expected, step
        assert report.finished_before or report.rows == 150


@pytest.mark.parametrize("name", slow_but(["gzip", "folder"], CASES))
def test_a_kill_of_a_resumed_run_changes_no_byte(tagger: Tagger, data: Path, tmp_path: Path, name: str) -> None:
    """Each run is killed a few steps after the one before, until one of them finishes the work."""
    expected = whole(tagger, name, data, tmp_path)
    (tmp_path / "out").mkdir()
    source, target, options = case_of(name, data, tmp_path / "out")
    for attempt in range(100):

        def killed(attempt: int = attempt) -> None:
            at_step(20 + attempt % 5, kill)
            tag_files(tagger, job(source, target, resume=True, **options))

        if in_child(killed) == 0:
            break

    assert tree(tmp_path / "out") == expected
    assert attempt > 1


@contextmanager
def one_line() -> Iterator[None]:
    """Check that the message of an error has one line."""
    try:
        yield
    except NerdError as err:
        if "\n" in str(err):
            raise RuntimeError("an error of several lines") from err
        raise


@pytest.mark.slow
@pytest.mark.examples
@pytest.mark.parametrize("code", slow_but([errno.ENOSPC], [errno.ENOSPC, errno.EIO]))
@pytest.mark.parametrize("name", slow_but(["folder"], ["parquet", "gzip", "folder", "rejects", "csv"]))
def test_a_failing_step_is_one_line_and_changes_no_byte(
    tagger: Tagger, data: Path, tmp_path: Path, name: str, code: int
) -> None:
    expected = whole(tagger, name, data, tmp_path)
    (tmp_path / "count").mkdir()
    source, target, options = case_of(name, data, tmp_path / "count")
    failed = 0
    for step in range(code % STRIDE, steps_of(tagger, source, target, **options), STRIDE):
        out = tmp_path / f"step{step}"
        out.mkdir()
        source, target, options = case_of(name, data, out)

        def failing() -> None:
            raise OSError(code, os.strerror(code))

        def faulty(step: int = step, source: Path = source, target: Path = target, options: Any = options) -> None:
            at_step(step, failing)
            with one_line():
                tag_files(tagger, job(source, target, **options))

        ended = in_child(faulty)
        assert ended in (0, OutputError.exit_code), step  # 0: what failed was not needed
        failed += ended != 0
        assert all(tree(out)[file] == content for file, content in expected.items() if file in tree(out)), step
        resumed(tagger, source, target, **options)
        assert tree(out) == expected, step

    assert failed >= (12 if STRIDE == 1 else 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_but(["to parquet"], CASES))
def test_a_disk_that_fills_up_at_any_size(tagger: Tagger, data: Path, tmp_path: Path, name: str) -> None:
    expected = whole(tagger, name, data, tmp_path)
    largest = max(map(len, expected.values()))
    for part in range(len(name) % 2, 12, 2 if STRIDE > 1 else 1):
        out = tmp_path / f"size{part}"
        out.mkdir()
        source, target, options = case_of(name, data, out)

        work = job(source, target, **options)

        def small(size: int = largest * part // 12, work: TagJob = work) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            tag_files(tagger, work)

        assert in_child(small) == OutputError.exit_code
        assert all(tree(out)[file] == content for file, content in expected.items() if file in tree(out))
        resumed(tagger, source, target, **options)
        assert tree(out) == expected


def on_tmpfs(folder: Path, size: int, work: Callable[[], None]) -> int:
    """Do something with a disk of ``size`` bytes mounted on a folder, seen by one child only."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def mounted() -> None:
        if libc.unshare(0x00020000) or libc.mount(None, b"/", None, 0x44000, None):  # CLONE_NEWNS; private, recursive
            os._exit(99)
        if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode()):
            os._exit(99)
        work()

    return in_child(mounted)


@pytest.mark.parametrize("name", slow_but(["lines"], ["parquet", "lines", "folder"]))
def test_a_small_disk(tagger: Tagger, data: Path, tmp_path: Path, name: str) -> None:
    expected = whole(tagger, name, data, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    source, target, options = case_of(name, data, out)
    need = sum(map(len, expected.values()))
    if on_tmpfs(out, 1 << 20, lambda: None) == 99:
        pytest.skip("only root may mount a disk; the tests with file size limits cover the rest")
    for size in range(8 * 4096, need, need // 4):  # less than that holds no journal

        def fill_and_go_on() -> None:
            with fails(OutputError, "disk-full") as caught:
                tag_files(tagger, job(source, target, **options))
            assert "\n" not in str(caught.value)
            assert not [file for file in tree(out) if ".nerd-work" not in file and file not in expected]
            subprocess.run(["mount", "-o", f"remount,size={64 << 20}", str(out)], check=True)  # noqa: S607
            resumed(tagger, source, target, **options)
            assert tree(out) == expected

        assert on_tmpfs(out, size, fill_and_go_on) == 0, size


def test_an_overwriting_run_that_stored_nothing_still_replaces(tagger: Tagger, tmp_path: Path) -> None:
    """JSON Lines do not record their options: the old output would count as finished."""
    source, output = write_lines(tmp_path / "a.jsonl", texts(30)), tmp_path / "o.jsonl"
    tag_files(tagger, job(source, output))
    old = output.read_bytes()

    def killed() -> None:
        at_step(7, kill)  # after the journal's first events, before its first chunk
        tag_files(tagger, job(source, output, overwrite=True, layout="wide"))

    assert in_child(killed) == -signal.SIGKILL
    assert work_folder(output).is_dir()
    assert output.read_bytes() == old
    assert tag_files(tagger, job(source, output, resume=True, layout="wide")).finished_before == 0
    assert output.read_bytes() != old
