"""Going on with a run: only with the same input, model and options; from whatever a crash left of its journal."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nerd_onnx.errors import InputError, NerdError, OutputError
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob, TagReport
from nerd_onnx.tagging.rejects_file import part_path
from nerd_onnx.tagging.run import tag_files
from tests.support.failures import fails
from tests.support.make_models import MODELS
from tests.support.processes import work_folder
from tests.support.profiles import example_count
from tests.support.runs import interrupt, texts, tree, write_lines, write_parquet

STOPPED_AFTER = 5  # batches of 20 rows


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Make an input of 300 rows."""
    (tmp_path / "in").mkdir()
    return write_parquet(tmp_path / "in" / "a.parquet", texts(300), 100)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Name the output, in a folder of its own."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "o.parquet"


def job(source: Path, output: Path, **options: Any) -> TagJob:
    return TagJob([str(source)], str(output), **{"chunk_rows": 20, **options})


def whole(tagger: Tagger, source: Path, folder: Path, **options: Any) -> bytes:
    output = folder / f"whole{source.suffix}"
    tag_files(tagger, job(source, output, overwrite=True, **options))
    return output.read_bytes()


def test_an_interrupted_run_is_neither_discarded_nor_resumed_unasked(
    tagger: Tagger, source: Path, output: Path, tmp_path: Path
) -> None:
    interrupt(tagger, job(source, output), STOPPED_AFTER)
    with fails(OutputError, "interrupted-run", file=output, safe_rows=100):
        tag_files(tagger, job(source, output))
    report = tag_files(tagger, job(source, output, resume=True))

    assert (report.rows, report.resumed_rows) == (300, 100)
    assert output.read_bytes() == whole(tagger, source, tmp_path)
    assert list(output.parent.iterdir()) == [output]
    interrupt(tagger, job(source, output, overwrite=True), STOPPED_AFTER)

    assert tag_files(tagger, job(source, output, overwrite=True)).resumed_rows == 0
    assert list(output.parent.iterdir()) == [output]


def test_a_resumed_run_keeps_the_right_to_overwrite(tagger: Tagger, source: Path, output: Path) -> None:
    output.write_text("old")
    with fails(OutputError, "output-exists", file=output):
        tag_files(tagger, job(source, output))
    interrupt(tagger, job(source, output, overwrite=True), STOPPED_AFTER)
    assert output.read_text() == "old"
    assert tag_files(tagger, job(source, output, resume=True)).resumed_rows == 100
    assert output.read_bytes().startswith(b"PAR1")


def test_a_file_created_meanwhile_is_not_overwritten(tagger: Tagger, source: Path, output: Path) -> None:
    interrupt(tagger, job(source, output), STOPPED_AFTER)
    output.write_text("theirs")
    with fails(OutputError, "exists-elsewhere", file=output):
        tag_files(tagger, job(source, output, resume=True))
    assert output.read_text() == "theirs"


def _flip_last_byte_but_keep_the_time(path: Path) -> None:
    found = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda path: os.utime(path, (1, 1)), "modification time"),
        (lambda path: write_parquet(path, texts(299)), "size"),
        (_flip_last_byte_but_keep_the_time, "head and footer"),
    ],
)
def test_a_changed_input_is_refused(
    tagger: Tagger, source: Path, output: Path, change: Callable[[Path], object], named: str
) -> None:
    interrupt(tagger, job(source, output), STOPPED_AFTER)
    change(source)
    with fails(InputError, "input-changed", file=source) as caught:
        tag_files(tagger, job(source, output, resume=True))
    assert str(caught.value.fields["changed"]).startswith(named)
    assert work_folder(output).is_dir()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"limit": 299}, "--limit (was not given, is 299)"),
        ({"chunk_rows": 30}, "--chunk-rows (was 20, is 30)"),
        ({"overwrite_column": True}, "--overwrite-column"),
        ({"output_format": "jsonl"}, "--output-format"),
    ],
)
def test_a_changed_option_is_refused(
    tagger: Tagger, source: Path, output: Path, options: dict[str, Any], named: str
) -> None:
    interrupt(tagger, job(source, output), STOPPED_AFTER)
    with fails(OutputError, "run-changed", file=output) as caught:
        tag_files(tagger, job(source, output, resume=True, **options))
    assert str(caught.value.fields["changed"]).startswith(named)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"min_score": 0.5}, "--min-score"), ({"labels": "person"}, "--labels"), ({"offset_unit": "utf8"}, "--offset")],
)
def test_a_changed_option_of_the_tagger_is_refused(
    tagger: Tagger, tiny_bundle: Path, source: Path, output: Path, options: dict[str, Any], named: str
) -> None:
    interrupt(tagger, job(source, output), STOPPED_AFTER)
    with fails(OutputError, "run-changed", file=output) as caught:
        tag_files(Tagger.load(tiny_bundle, **options), job(source, output, resume=True))
    assert str(caught.value.fields["changed"]).startswith(named)


def test_threads_and_batches_may_change(
    tagger: Tagger, tiny_bundle: Path, source: Path, output: Path, tmp_path: Path
) -> None:
    interrupt(tagger, job(source, output), STOPPED_AFTER)
    other = Tagger.load(tiny_bundle, threads=3, batch_tokens=33)
    assert tag_files(other, job(source, output, resume=True)).resumed_rows == 100
    other.close()
    assert output.read_bytes() == whole(tagger, source, tmp_path)


def test_another_model_is_refused(tagger: Tagger, source: Path, output: Path) -> None:
    interrupt(tagger, job(source, output), STOPPED_AFTER)
    with fails(OutputError, "run-changed", file=output):
        tag_files(Tagger.load(), job(source, output, resume=True))


def test_other_weights_beside_the_graph_are_refused(source: Path, output: Path, tmp_path: Path) -> None:
    """The graph stays the same, byte for byte; only a file that it names changes."""
    import onnx

    model = Path(shutil.copytree(MODELS / "plain", tmp_path / "model"))
    graph = onnx.load(model / "model.onnx")
    (model / "model.onnx").unlink()
    onnx.save_model(graph, model / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=64)

    interrupt(Tagger.load(model), job(source, output), STOPPED_AFTER)
    weights = bytearray((model / "weights.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (model / "weights.bin").write_bytes(weights)
    with fails(OutputError, "run-changed", file=output) as caught:
        tag_files(Tagger.load(model), job(source, output, resume=True))
    assert str(caught.value.fields["changed"]).startswith("model")


@pytest.mark.slow
def test_on_error_may_become_milder_but_not_stricter(tagger: Tagger, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "a.jsonl", texts(300))
    lines = source.read_bytes().splitlines(keepends=True)
    source.write_bytes(b"".join([*lines[:200], b"broken\n", *lines[200:]]))
    with fails(InputError, "not-json", file=source, row=201, safe_rows=180):
        tag_files(tagger, job(source, tmp_path / "o.jsonl"))
    milder = {"on_error": "skip", "rejects": str(tmp_path / "r.jsonl")}
    report = tag_files(tagger, job(source, tmp_path / "o.jsonl", resume=True, **milder))

    assert (report.rows, report.rejected, report.resumed_rows) == (301, 1, 180)
    expected = tree(tmp_path)
    (tmp_path / "o.jsonl").unlink()
    (tmp_path / "r.jsonl").unlink()
    tag_files(tagger, job(source, tmp_path / "o.jsonl", **milder))

    assert tree(tmp_path) == expected


def test_a_finished_output_is_left_alone(tagger: Tagger, tiny_bundle: Path, source: Path, output: Path) -> None:
    tag_files(tagger, job(source, output))
    before = output.stat().st_mtime_ns
    report = tag_files(tagger, job(source, output, resume=True))

    assert (report.finished_before, report.rows) == (1, 0)
    assert output.stat().st_mtime_ns == before
    with fails(OutputError, "other-options", file=output, changed="--offset-unit (was codepoint, is utf16)"):
        tag_files(Tagger.load(tiny_bundle, offset_unit="utf16"), job(source, output, resume=True))
    os.utime(output, (1, 1))
    with fails(OutputError, "older-than-input", file=output):
        tag_files(tagger, job(source, output, resume=True))
    output.write_bytes(b"PAR1")
    with fails(OutputError, "incomplete-output", file=output):
        tag_files(tagger, job(source, output, resume=True))

    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize(
    ("options", "of_tagger", "named"),
    [
        ({"limit": 299}, {}, "--limit (was not given, is 299)"),
        ({"on_error": "null"}, {}, "--on-error (was fail, is null)"),
        ({"overwrite_column": True}, {}, "--overwrite-column (was False, is True)"),
        ({}, {"min_score": 0.5}, "--min-score (was 0.0, is 0.5)"),
    ],
)
def test_a_finished_output_of_other_options_is_refused(
    tagger: Tagger,
    tiny_bundle: Path,
    source: Path,
    output: Path,
    options: dict[str, Any],
    of_tagger: dict[str, Any],
    named: str,
) -> None:
    tag_files(tagger, job(source, output))
    before = output.read_bytes()
    other = Tagger.load(tiny_bundle, **of_tagger)
    with fails(OutputError, "other-options", file=output) as caught:
        tag_files(other, job(source, output, resume=True, **options))

    assert str(caught.value.fields["changed"]).startswith(named)
    assert output.read_bytes() == before
    table = pq.read_table(output)
    facts = {key: value for key, value in table.schema.metadata.items() if not key.endswith(b".options")}
    pq.write_table(table.replace_schema_metadata(facts), output)  # as earlier versions wrote it

    assert tag_files(other, job(source, output, resume=True, **options)).finished_before == 1


@pytest.mark.slow
def test_a_file_finished_under_fail_is_finished_under_skip(tagger: Tagger, source: Path, output: Path) -> None:
    tag_files(tagger, job(source, output))
    milder = {"on_error": "skip", "rejects": str(output.with_name("r.jsonl"))}
    assert tag_files(tagger, job(source, output, resume=True, **milder)).finished_before == 1
    tag_files(tagger, job(source, output, overwrite=True, **milder))
    with fails(OutputError, "other-options", changed="--on-error (was skip, is fail)"):
        tag_files(tagger, job(source, output, resume=True))


def test_an_input_that_changes_while_it_is_read(tagger: Tagger, source: Path, output: Path) -> None:
    def touch(_: TagReport, __: object) -> None:
        os.utime(source, (1, 1))

    with fails(InputError, "input-changed", file=source):
        tag_files(tagger, job(source, output), on_batch=touch)
    assert not output.exists()


@pytest.mark.slow
def test_a_damaged_chunk_is_tagged_again(tagger: Tagger, source: Path, output: Path, tmp_path: Path) -> None:
    expected = whole(tagger, source, tmp_path)
    for damage in ("flip", "cut", "remove", "pipe", "link"):
        interrupt(tagger, job(source, output), STOPPED_AFTER)
        chunk = work_folder(output) / "chunk-000002.arrow"
        content = chunk.read_bytes()
        if damage in ("remove", "pipe", "link"):
            chunk.unlink()
            if damage == "pipe":
                os.mkfifo(chunk)
            elif damage == "link":
                (tmp_path / "elsewhere").write_bytes(b"kept")
                chunk.symlink_to(tmp_path / "elsewhere")
        else:
            chunk.write_bytes(content[:-9] if damage == "cut" else content[:99] + b"\xff" + content[100:])
        report = tag_files(tagger, job(source, output, resume=True))
        assert report.resumed_rows == 40
        assert output.read_bytes() == expected
        output.unlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"kept"


def test_rejected_rows_are_not_written_into_a_pipe_or_through_a_link(tagger: Tagger, tmp_path: Path) -> None:
    source, output, rejects = tmp_path / "a.jsonl", tmp_path / "o.jsonl", tmp_path / "r.jsonl"
    source.write_bytes(b"broken\n" + write_lines(tmp_path / "b.jsonl", texts(5)).read_bytes())
    (tmp_path / "elsewhere").write_bytes(b"kept")
    part = Path(part_path(str(work_folder(output)), source.name))
    for kind in ("pipe", "link"):
        part.parent.mkdir(mode=0o700)
        if kind == "pipe":
            os.mkfifo(part)
        else:
            part.symlink_to(tmp_path / "elsewhere")
        report = tag_files(tagger, job(source, output, on_error="skip", rejects=str(rejects), overwrite=True))
        assert (report.rejected, rejects.read_bytes().count(b"\n")) == (1, 1)
    assert (tmp_path / "elsewhere").read_bytes() == b"kept"


@pytest.mark.slow
@settings(max_examples=example_count(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damaged_journal_gives_the_same_bytes_or_an_error(
    tagger: Tagger, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """The journal is cut anywhere, as by a power cut, or something is written over its end."""
    folder = tmp_path_factory.mktemp("journal")
    source = write_lines(folder / "a.jsonl", texts(120))
    output = folder / "o.jsonl"
    interrupt(tagger, job(source, output), 4)
    journal = work_folder(output) / "journal.jsonl"
    content = journal.read_bytes()
    cut = data.draw(st.integers(0, len(content)), "cut")
    tail = data.draw(st.sampled_from([b"", b"\x00" * 20, b"\n", b"{}\n", b"[]\n", b"\xff"]), "tail")
    journal.write_bytes(content[:cut] + tail)
    report = tag_files(tagger, job(source, output, resume=True))

    assert report.rows == 120
    assert report.resumed_rows in (0, 20, 40, 60, 80)
    assert output.read_bytes() == whole(tagger, source, folder)
    shutil.rmtree(folder)


def test_a_journal_of_another_version_is_refused(tagger: Tagger, source: Path, output: Path) -> None:
    interrupt(tagger, job(source, output), STOPPED_AFTER)
    journal = work_folder(output) / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    header = json.loads(lines[0])
    journal.write_text(json.dumps({**header, "version": 99}) + "\n" + "".join(lines[1:]))
    with fails(OutputError, "other-version", file=output):
        tag_files(tagger, job(source, output, resume=True))


def test_a_work_folder_of_another_user_is_refused(tagger: Tagger, source: Path, output: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    work_folder(output).symlink_to(tmp_path / "elsewhere")
    with fails(OutputError, "foreign-work-folder", file=output):
        tag_files(tagger, job(source, output))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_long_names(tagger: Tagger, source: Path, tmp_path: Path) -> None:
    output = tmp_path / ("n" * 240 + ".parquet")
    interrupt(tagger, job(source, output), STOPPED_AFTER)
    tag_files(tagger, job(source, output, resume=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", output.name]


def test_streams_cannot_be_resumed(tagger: Tagger, source: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for inputs, output in ((["-"], "o.parquet"), ([str(source)], "-"), ([str(tmp_path / "pipe")], "o.parquet")):
        with fails(NerdError, "resume-needs-files"):
            tag_files(tagger, TagJob(inputs, output, resume=True, input_format="parquet", output_format="parquet"))


def test_a_stop_in_a_batch_of_rejected_rows_alone(tagger: Tagger, tmp_path: Path) -> None:
    source, output = tmp_path / "a.jsonl", tmp_path / "o.jsonl"
    source.write_bytes(b"broken\n" + write_lines(tmp_path / "b.jsonl", texts(5)).read_bytes())
    options: dict[str, Any] = {"chunk_rows": 1, "on_error": "skip", "rejects": str(tmp_path / "r.jsonl")}
    interrupt(tagger, job(source, output, **options), 1)
    report = tag_files(tagger, job(source, output, resume=True, **options))
    assert (report.rows, report.rejected) == (6, 1)
