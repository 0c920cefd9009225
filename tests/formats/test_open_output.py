"""Outputs appear whole or not at all, whatever happens; and the real corpora come back as they were."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nerd_onnx.errors import NerdError, OutputError
from nerd_onnx.formats.interfaces import Format, Reader, Writer
from nerd_onnx.formats.layouts import Layout
from nerd_onnx.formats.open_output import check_output, open_writer, output_format
from nerd_onnx.storage import atomic_file
from nerd_onnx.storage.atomic_file import open_target
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import output_errors
from tests.support.failures import assert_failure, fails
from tests.support.marks import slow_but
from tests.support.tables_io import (
    ENTITIES,
    METADATA,
    ODD_NAME,
    SHOWN_NAME,
    converted,
    corpus,
    opened,
    words_as_entities,
)

ROOT = Path(__file__).parents[2]
FORMATS: tuple[Format, ...] = ("parquet", "jsonl")
OUTPUTS = ["out.parquet", "out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.jsonl.xz", "out.jsonl.bz2"]


@pytest.fixture(params=["nameless", "named"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with files that have no name yet, and as on systems that know only files with one."""
    if request.param == "named":
        monkeypatch.setattr(atomic_file, "can_link_nameless", lambda _: False)
    return str(request.param)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Make an input in a folder of its own."""
    folder = tmp_path / "input"
    folder.mkdir()
    pq.write_table(pa.table({"text": [os.urandom(100).hex() for _ in range(3000)]}), folder / "in.parquet")
    return folder / "in.parquet"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make the folder for the output."""
    (tmp_path / "output").mkdir()
    return tmp_path / "output"


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def refused(path: Path | str, output: Path, reason: str, **fields: object) -> NerdError:
    """Return the error that a refused output leads to."""
    with fails(OutputError, reason, **fields) as caught:
        converted(path, output)
    str(caught.value).encode()  # a lone surrogate in it could not be printed
    return caught.value


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("name", OUTPUTS)
def test_new_file_has_the_rights_of_any_new_file(source: Path, folder: Path, name: str) -> None:
    with umask(0o027):
        output = converted(source, folder / name)
    assert output.stat().st_mode & 0o777 == 0o640
    assert list(folder.iterdir()) == [output]


@pytest.mark.usefixtures("either_way")
def test_replaced_file_keeps_its_rights_and_its_links(source: Path, folder: Path) -> None:
    output, link = folder / "out.parquet", folder / "link.parquet"
    output.write_text("old")
    output.chmod(0o604)
    link.symlink_to(output)
    refused(source, output, "output-exists")
    refused(source, link, "output-exists")
    assert output.read_text() == "old"
    converted(source, link, overwrite=True)
    assert link.is_symlink()
    assert output.stat().st_mode & 0o777 == 0o604
    assert pq.read_table(output).num_rows == 3000
    assert sorted(folder.iterdir()) == [link, output]


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_nothing(source: Path, folder: Path, name: str, failure: type[BaseException]) -> None:
    (folder / "old").write_text("old")
    kind: Format = "parquet" if "parquet" in name else "jsonl"
    for output, overwrite in ((folder / name, False), (folder / "old", True)):
        with pytest.raises(failure), opened(source, batch_rows=500) as rows:  # noqa: SIM117, PT012
            with writer_for(rows, output, kind, overwrite=overwrite) as writer:
                batch = next(rows.batches())
                writer.write(batch, words_as_entities(batch.texts))
                raise failure
    assert list(folder.iterdir()) == [folder / "old"]
    assert (folder / "old").read_text() == "old"


def writer_for(rows: Reader, output: Path, kind: Format, *, overwrite: bool) -> Writer:
    return open_writer(
        str(output),
        format=kind,
        source=rows,
        layout=Layout(ENTITIES),
        entities_metadata=METADATA,
        replace=False,
        overwrite=overwrite,
    )


@pytest.mark.usefixtures("either_way")
def test_file_made_meanwhile_is_not_overwritten(source: Path, folder: Path) -> None:
    output = folder / "out.parquet"
    with fails(OutputError, "exists-elsewhere"), opened(source) as rows:  # noqa: SIM117
        with writer_for(rows, output, "parquet", overwrite=False):
            output.write_text("theirs")
    assert output.read_text() == "theirs"
    assert list(folder.iterdir()) == [output]


def test_file_system_without_hard_links(source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    output = converted(source, folder / "out.parquet")
    assert pq.read_table(output).num_rows == 3000
    assert list(folder.iterdir()) == [output]
    refused(source, output, "output-exists")


def test_places_that_cannot_be_written(source: Path, folder: Path) -> None:
    refused(source, folder, "is-folder")
    refused(source, folder / "no" / "out.parquet", "missing-folder", folder=folder / "no")
    (folder / "file").write_text("")
    refused(source, folder / "file" / "out.parquet", "cannot-write")
    assert list(folder.iterdir()) == [folder / "file"]


def test_input_and_output_the_same_file(source: Path, folder: Path) -> None:
    (folder / "symbolic.parquet").symlink_to(source)
    (folder / "hard.parquet").hardlink_to(source)
    for output in (source, folder / "symbolic.parquet", folder / "hard.parquet"):
        for overwrite in (False, True):
            with fails(OutputError, "output-is-input", file=output):
                check_output(Location.of(source), Location.of(output), overwrite=overwrite)
    check_output(Location.of(source), Location.of(folder / "other.parquet"), overwrite=False)
    check_output(Location.of(source), Location.of("-"), overwrite=False)
    check_output(Location.of("-"), Location.of(folder / "other.parquet"), overwrite=False)
    check_output(Location.of(folder / "missing"), Location.of("/dev/null"), overwrite=False)


CHECK = """
import sys
from nerd_onnx.errors import NerdError
from nerd_onnx.formats.open_output import check_output
from nerd_onnx.storage.location import Location
try:
    check_output(*map(Location.of, sys.argv[1:]), overwrite=True)
except NerdError as err:
    sys.exit(err.reason)
"""


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        ("in.jsonl - >> in.jsonl", True),
        ("link - >> in.jsonl", True),
        ("- - < in.jsonl >> in.jsonl", True),
        ("- in.jsonl < in.jsonl", True),
        ("in.jsonl - >> other", False),
        ("missing - >> in.jsonl", False),
        ("- - < other >> in.jsonl", False),
        ("- - < /dev/null > /dev/null", False),
        ("- - <&- >> in.jsonl", False),
        ("in.jsonl - | cat", False),
    ],
)
def test_shell_redirection_into_the_input(folder: Path, arguments: str, *, refused: bool) -> None:
    (folder / "in.jsonl").write_text('{"text": "a"}\n')
    (folder / "link").symlink_to(folder / "in.jsonl")
    (folder / "other").write_text("other")
    script = f'"$0" -c "$1" {arguments}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        ["/bin/sh", "-c", script, sys.executable, CHECK], cwd=folder, env=environment, capture_output=True, check=False
    )
    assert result.stderr == (b"output-is-input\n" if refused else b"")


def test_closed_standard_output(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as closed:  # noqa: PTH123
        pass
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stdout", stream)
        with fails(OutputError, "closed-stream", file="standard output"):
            check_output(Location.of(source), Location.of("-"), overwrite=False)
        for spooled in (False, True):
            with fails(OutputError, "closed-stream", file="standard output"):
                open_target("-", overwrite=False, spooled=spooled)


def test_standard_output_put_in_place_by_a_program(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    check_output(Location.of(source), Location.of("-"), overwrite=False)
    check_output(Location.of("-"), Location.of("-"), overwrite=False)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".jsonl.gz"])
def test_name_that_is_not_utf8(source: Path, folder: Path, suffix: str) -> None:
    output = folder / (ODD_NAME + suffix)
    converted(source, output)
    shown = str(output).replace(ODD_NAME, SHOWN_NAME)
    refused(source, output, "output-exists", file=shown)
    converted(source, output, overwrite=True)
    assert list(folder.iterdir()) == [output]
    for other in (folder / ODD_NAME / f"out{suffix}", output / f"out{suffix}"):
        reason = "cannot-write" if other.parent == output else "missing-folder"
        refused(source, other, reason, file=str(other).replace(ODD_NAME, SHOWN_NAME))
    with fails(OutputError, "output-is-input", file=shown):
        check_output(Location.of(output), Location.of(output), overwrite=True)


def test_message_of_an_error_that_says_nothing() -> None:
    with fails(OutputError, "cannot-write", file="out"), output_errors("out"):
        raise pa.ArrowInvalid
    with fails(OutputError, "cannot-write", file="out"), output_errors("out"):
        raise OSError


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("o.parquet", "parquet"),
        ("o.JSONL", "jsonl"),
        ("o.v2.json.zst", "jsonl"),
        ("o", "the input's"),
        ("some.folder/o", "the input's"),
        (".hidden", "the input's"),
        ("-", "the input's"),
        ("/dev/fd/63", "the input's"),
    ],
)
def test_output_format_by_name(path: str, expected: str) -> None:
    for kind in FORMATS:
        found = output_format(path, None, lambda kind=kind: kind)  # type: ignore[misc]  # its default is its type
        assert found == (kind if expected == "the input's" else expected)


@pytest.mark.parametrize("name", ["o.odt", "o.parquet.gz", "o.gz", "a.jsonl/o.txt", f"{ODD_NAME}.odt"])
def test_output_format_is_asked_for_where_the_name_is_of_another_kind(name: str) -> None:
    with pytest.raises(OutputError) as caught:
        output_format(name, None, lambda: "parquet")
    shown = name.replace(ODD_NAME, SHOWN_NAME)
    assert_failure(caught.value, "unknown-format", file=shown)
    assert output_format(name, "jsonl", lambda: "parquet") == "jsonl"


def test_output_format_asked_for_needs_no_look_at_the_input() -> None:
    for path in ("o", "o.odt", "-", "o.jsonl"):
        assert output_format(path, "parquet", lambda: pytest.fail("the input was looked at")) == "parquet"
    assert output_format("o.jsonl", None, lambda: pytest.fail("the input was looked at")) == "jsonl"


def test_devices_are_written_to_not_replaced(source: Path) -> None:
    before = Path("/dev/null").stat()
    for kind in ("parquet", "jsonl"):
        converted(source, Path("/dev/null"), format=kind)
    assert Path("/dev/null").stat() == before


@pytest.mark.parametrize("kind", ["parquet", "arrow", "jsonl", "csv"])
def test_full_disk_on_a_device(source: Path, kind: str) -> None:
    with fails(OutputError, "disk-full"):
        converted(source, Path("/dev/full"), format=kind)


SCRIPT = """
import os, resource, signal, sys, time
from pathlib import Path
from nerd_onnx.errors import NerdError
from nerd_onnx.storage import atomic_file as whole_file
from tests.support.tables_io import converted, opened, open_writer, words_as_entities, ENTITIES, METADATA
from nerd_onnx.formats.layouts import Layout
task, source, output, way = sys.argv[1:]
if way == "named":
    whole_file.can_link_nameless = lambda _: False
if task == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
if task == "nobody":
    # This user may not read the code.
    import nerd_onnx.formats.parquet.copying_writer, nerd_onnx.formats.parquet.reader, nerd_onnx.formats.parquet.writer
    os.setuid(65534)
if task == "kill":
    with opened(source, batch_rows=100) as rows, open_writer(
        output, format="jsonl", source=rows, layout=Layout(ENTITIES), entities_metadata=METADATA, replace=False,
        overwrite=False) as writer:
        for i, batch in enumerate(rows.batches()):
            writer.write(batch, words_as_entities(batch.texts))
            if i == 20:
                writer._target.file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
elif output == "-":
    converted(source, output, format=way)
else:
    try:
        converted(source, Path(output))
    except NerdError as err:
        sys.exit(err.reason)
"""


def command(task: str, source: Path, output: Path | str, way: str) -> dict[str, Any]:
    """Return a command that writes an output in a process of its own."""
    return {"args": [sys.executable, "-c", SCRIPT, task, str(source), str(output), way], "cwd": ROOT}


def run(task: str, source: Path, output: Path | str, way: str = "nameless") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(**command(task, source, output, way), capture_output=True, check=False)


@pytest.mark.parametrize("way", slow_but(["nameless"], ["nameless", "named"]))
@pytest.mark.parametrize("name", slow_but(["out.parquet", "out.jsonl.gz"], OUTPUTS))
def test_file_size_limit_leaves_nothing_but_one_line(source: Path, folder: Path, name: str, way: str) -> None:
    result = run("limit", source, folder / name, way)
    assert result.stderr == b"file-too-large\n"
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="nameless files are Linux's")
def test_even_a_kill_leaves_nothing(source: Path, folder: Path) -> None:
    if not atomic_file.can_link_nameless(str(folder)):
        pytest.skip("this file system knows no nameless files")
    result = run("kill", source, folder / "out.jsonl")
    assert result.returncode == -signal.SIGKILL
    assert list(folder.iterdir()) == []


def test_no_permission(source: Path) -> None:
    # Not in tmp_path, which is closed to the user that root becomes here: root itself may write anywhere.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(source, folder / "in.parquet")
        folder.chmod(0o555)
        result = run("nobody" if os.geteuid() == 0 else "self", folder / "in.parquet", folder / "out.parquet")
        assert result.stderr == b"no-permission\n"
        assert list(folder.iterdir()) == [folder / "in.parquet"]
        folder.chmod(0o755)


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_standard_output(source: Path, folder: Path, kind: str) -> None:
    result = run("stdout", source, "-", kind)
    assert result.stdout == converted(source, folder / f"out.{kind}").read_bytes(), result.stderr


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("unbuffered", slow_but([""], ["", "1"]))
def test_closed_pipe_is_a_broken_pipe(source: Path, kind: str, unbuffered: str) -> None:
    how = {**command("stdout", source, "-", kind), "env": {**os.environ, "PYTHONUNBUFFERED": unbuffered}}
    with subprocess.Popen(**how, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert b"BrokenPipeError" in process.stderr.read()


@pytest.mark.parametrize(
    "name", ["wikipedia_sentences.parquet", "novels_paragraphs.parquet", "novels_documents.parquet"]
)
def test_real_parquet(tmp_path: Path, name: str) -> None:
    for i, path in enumerate(corpus(tmp_path, name)):
        limit = 12 if "documents" in name else 2500
        output = converted(path, tmp_path / f"{i}.parquet", source={"limit": limit})
        expected, found = pq.ParquetFile(path).read().slice(0, limit), pq.read_table(output)
        assert (
            found.drop_columns("entities")
            .replace_schema_metadata(expected.schema.metadata)
            .equals(expected, check_metadata=True)
        )
        for text, entities in zip(found["text"].to_pylist(), found["entities"].to_pylist(), strict=True):
            assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in entities)


@pytest.mark.parametrize("pack", [gzip.open, open])
def test_real_lines(tmp_path: Path, pack: Callable[..., contextlib.AbstractContextManager[Iterator[bytes]]]) -> None:
    suffix = ".gz" if pack is gzip.open else ""
    for i, path in enumerate(corpus(tmp_path, "speeches_and_masc.jsonl.gz")):
        output = converted(path, tmp_path / f"{i}.jsonl{suffix}", source={"limit": 2000})
        with gzip.open(path, "rb") as before, pack(output, "rb") as after:
            for old, new in zip(before, after, strict=False):
                assert new.startswith(old[:-2] + b', "entities": [')
                assert json.loads(new)["text"] == json.loads(old)["text"]
