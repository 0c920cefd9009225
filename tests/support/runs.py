"""What the fault tests share: jobs over real rows, and processes that die, or whose disk fails, at a chosen step."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import signal
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nerd_onnx.errors import InterruptedRunError, NerdError
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob, TagReport
from nerd_onnx.tagging.run import tag_files
from tests.conftest import SHARED
from tests.support.models import sample_texts
from tests.support.processes import WORK

# Every call by which the program changes what is on disk under a name, or makes it safe.
STEPS = ("fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir", "ftruncate")
FAILED = 77
PACKERS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}


def texts(count: int) -> list[str]:
    """Return short real texts: of a corpus where it is there, else of those that ship with the program."""
    path = SHARED / "corpora" / "wikipedia_sentences.parquet"
    if path.is_file():
        found: list[str] = pq.ParquetFile(path).read_row_group(0)["text"].slice(0, count).to_pylist()
        return found

    samples = sample_texts()
    return [samples[i % len(samples)][:150] for i in range(count)]


def write_parquet(path: Path, rows: list[str], row_group_size: int = 60) -> Path:
    """Write rows as Parquet with several row groups."""
    table = pa.table({"id": pa.array(range(len(rows)), pa.int32()), "text": rows})
    pq.write_table(table.replace_schema_metadata({"owner": "us"}), path, row_group_size=row_group_size)
    return path


def write_arrow(path: Path, rows: list[str], batch_rows: int = 60) -> Path:
    """Write rows as an Arrow stream, as datasets does, with several record batches."""
    return write_arrow_table(path, pa.table({"id": pa.array(range(len(rows)), pa.int32()), "text": rows}), batch_rows)


def write_arrow_table(path: Path, table: pa.Table, batch_rows: int) -> Path:
    """Write a table as an Arrow stream with several record batches."""
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return path


def write_lines(path: Path, rows: list[str]) -> Path:
    """Write rows as JSON Lines, compressed where the name says so."""
    content = "".join(json.dumps({"id": i, "text": text}, ensure_ascii=False) + "\n" for i, text in enumerate(rows))
    path.write_bytes(PACKERS.get(path.suffix, bytes)(content.encode()))
    return path


def write_csv(path: Path, rows: list[str]) -> Path:
    """Write rows as the csv module of Python does, compressed where the name says so."""
    content = io.StringIO(newline="")
    csv.writer(content, lineterminator="\n").writerows([("id", "text"), *enumerate(rows)])
    encoded = content.getvalue().encode()
    path.write_bytes(PACKERS.get(path.suffix, bytes)(encoded))
    return path


def in_child(work: Callable[[], Any]) -> int:
    """
    Run something in a process of its own, a copy of this one with the model loaded.

    :return: its exit code; below 0 the signal that killed it; ``FAILED`` for an error that is no user's
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads; the child uses none of them

        child = os.fork()
    if child == 0:
        code = FAILED
        try:
            work()
            code = 0
        except NerdError as err:
            code = err.exit_code
        except BaseException:  # noqa: BLE001 - it must not return into the test
            traceback.print_exc()
        finally:
            # An ordinary exit would run the handlers and flush the buffers of pytest in this copy of its process.
            os._exit(code)

    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def at_step(number: int, act: Callable[[], None], count: list[int] | None = None) -> None:
    """
    From now on, do something just before one of the calls that change the disk.

    :param number: which call, from 0
    :param act: what to do; it may kill the process or raise
    :param count: its first item counts the calls
    """
    seen = count if count is not None else [0]

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*arguments: Any, **options: Any) -> Any:
            seen[0] += 1
            if seen[0] == number + 1:
                act()
            return call(*arguments, **options)

        return stepping

    # Never undone: this runs in a child process, which ends with the run.
    for name in STEPS:
        setattr(os, name, wrapped(getattr(os, name)))


def kill() -> None:
    """Die as in a power cut: no handler runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def tree(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder with their bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def visible(folder: Path) -> dict[str, bytes]:
    """Return the outputs in a folder with their bytes: all files but those of work folders."""
    return {name: content for name, content in tree(folder).items() if WORK not in name}


def job(inputs: Path | list[Path], output: Path, **options: Any) -> TagJob:
    """Make a job with small chunks."""
    paths = inputs if isinstance(inputs, list) else [inputs]
    return TagJob([str(path) for path in paths], str(output), **{"chunk_rows": 40, **options})


def interrupt(tagger: Tagger, work: TagJob, batches: int, number: int = signal.SIGTERM) -> InterruptedRunError:
    """
    Run until some batches are written, then stop as by a signal.

    :return: what the run ended in
    """
    left = [batches]

    def stop() -> int | None:
        left[0] -= 1
        return number if left[0] <= 0 else None

    with pytest.raises(InterruptedRunError) as caught:
        tag_files(tagger, work, stop=stop)

    assert caught.value.exit_code == 128 + number
    return caught.value


def steps_of(tagger: Tagger, inputs: Path | list[Path], output: Path, **options: Any) -> int:
    """Count the calls that change the disk in a whole run."""
    reader, writer = os.pipe()

    def counted() -> None:
        count = [0]
        # A step that never comes: the calls are only counted.
        at_step(-2, kill, count)
        tag_files(tagger, job(inputs, output, **options))
        os.write(writer, str(count[0]).encode())

    assert in_child(counted) == 0

    steps = int(os.read(reader, 100))
    os.close(reader)
    os.close(writer)
    return steps


def resumed(tagger: Tagger, inputs: Path | list[Path], output: Path, **options: Any) -> TagReport:
    """Go on with a run to its end."""
    return tag_files(tagger, job(inputs, output, resume=True, **options))
