"""Several text columns: each is tagged as it is alone, in every format and layout, also by a run that is resumed."""

from __future__ import annotations

import json
import re
import signal
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from nerd_onnx.engines.worker import check_columns, tag_table
from nerd_onnx.errors import InputError, NerdError, OptionError, OutputError
from nerd_onnx.formats.tagged_file import TaggedFile
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from tests.support.failures import fails
from tests.support.marks import slow_but
from tests.support.quick_tagger import tagger_of
from tests.support.runs import at_step, in_child, kill, resumed, steps_of, texts
from tests.support.tables_io import rows_of

TITLES = [text[:40] or None for text in texts(60)]
BODIES = [None if i % 7 == 0 else text for i, text in enumerate(texts(120)[60:])]
FORMATS = ["a.parquet", "a.arrow", "a.jsonl", "a.csv"]
SOME_PAIRS = [*zip(FORMATS, FORMATS, strict=True), ("a.jsonl", "a.parquet")]  # of an input and an output


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write the same rows in each format."""
    table = pa.table({"title": TITLES, "n": [str(i) for i in range(60)], "body": BODIES})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=25)
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=25)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    pyarrow.csv.write_csv(table, tmp_path / "a.csv")
    return tmp_path


@pytest.mark.parametrize(("name", "output"), slow_but(SOME_PAIRS, product(FORMATS, FORMATS)))
@pytest.mark.parametrize("key", [None, "n"])
def test_rows_of_the_long_layout_say_which_column_they_are_from(
    bundle: Bundle, data: Path, name: str, output: str, key: str | None
) -> None:
    tagger = tagger_of(bundle, "body", "title")
    target = data / f"o{Path(output).suffix}"
    options: dict[str, Any] = {"layout": "long", "key": key}
    report = tag_files(tagger, TagJob([str(data / name)], str(target), **options))
    expected: list[dict[str, Any]] = []
    for column in ("body", "title"):
        alone = data / f"{column}{target.suffix}"
        tag_files(tagger_of(bundle, column), TagJob([str(data / name)], str(alone), **options))
        for row in rows_of(alone):
            first, *others = row.items()
            expected.append(dict([first, ("text_column", column), *others]))
    expected.sort(key=lambda row: int(row[key or "row"]))  # stable: in a row, body comes first
    found = rows_of(target)
    assert found == expected
    assert list(found[0]) == list(expected[0])
    assert report.entities == len(found) > 50


def test_a_key_with_the_name_of_a_new_column(bundle: Bundle, data: Path) -> None:
    job = TagJob([str(data / "a.jsonl")], str(data / "o.jsonl"), layout="long", key="text_column")
    with fails(OptionError, "key-name-taken", option="--key", column="text_column"):
        tag_files(tagger_of(bundle, "title", "body"), job)
    with fails(InputError, "key-missing", column="text_column"):
        tag_files(tagger_of(bundle, "title"), job)


def test_the_text_output_has_a_line_for_each_column(bundle: Bundle, data: Path) -> None:
    (data / "b.jsonl").write_text('{"title": "Anna", "body": null}\n{"title": "", "body": "a\\nb"}\n')
    tagger = tagger_of(bundle, "title", "body")
    tag_files(tagger, TagJob([str(data / "b.jsonl")], str(data / "o.txt"), output_format="text"))
    shown = re.sub(r" \[\w+\]", "", (data / "o.txt").read_text())
    assert shown == "title: Anna\nbody: (null)\n\ntitle: \nbody: a\\nb\n\n"


@pytest.mark.parametrize("layout", ["nested", "wide"])
@pytest.mark.parametrize(("name", "output"), slow_but(SOME_PAIRS, product(FORMATS, FORMATS)))
def test_each_column_has_what_it_has_alone(bundle: Bundle, data: Path, name: str, output: str, layout: Any) -> None:
    tagger = tagger_of(bundle, "body", "title")
    target = data / f"o{Path(output).suffix}"
    report = tag_files(tagger, TagJob([str(data / name)], str(target), layout=layout))
    rows, found = rows_of(target), 0
    for column in ("body", "title"):
        alone = data / f"{column}{target.suffix}"
        tag_files(tagger_of(bundle, column), TagJob([str(data / name)], str(alone), layout=layout))
        for row, other in zip(rows, rows_of(alone), strict=True):
            new = {key: value for key, value in other.items() if key not in ("title", "n", "body")}
            assert new.keys() == ({"entities"} if layout == "nested" else {*tagger.kept_types})
            assert {key: row[f"{column}_{key}"] for key in new} == new
            found += sum(len(value or ()) for value in new.values())
    assert report.entities == found > 50
    assert report.null_rows == sum(title is body is None for title, body in zip(TITLES, BODIES, strict=True))
    assert len(rows[0]) == 3 + 2 * (1 if layout == "nested" else len(tagger.kept_types))


def test_the_metadata_is_that_of_each_column(bundle: Bundle, data: Path) -> None:
    tagger = tagger_of(bundle, "title", "body", offset_unit="utf16", column="found")
    tag_files(tagger, TagJob([str(data / "a.parquet")], str(data / "o.parquet")))
    for column, texts_ in (("title", TITLES), ("body", BODIES)):
        path = data / "o.parquet"
        with TaggedFile(str(path), text_column=column, column=f"{column}_found") as file:
            read = [row for _, rows in file.batches() for row in rows]
        assert [row.text for row in read] == texts_
        spans = [None if row.entities is None else [(e.start, e.end) for e in row.entities] for row in read]
        found = [None if row is None else [(e.start, e.end) for e in row] for row in tagger.tag(texts_)]
        assert spans == found  # in code points, as TaggedFile converts offsets
    metadata = pq.read_schema(data / "o.parquet").metadata
    assert metadata[b"nerd_onnx.title_found.text_column"] == b"title"
    assert metadata[b"nerd_onnx.body_found.offset_unit"] == b"utf16"


def test_a_small_file_in_a_folder_is_tagged_the_same(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    tagger = tagger_of(bundle, "title", "body")
    (tmp_path / "in").mkdir()
    for name in FORMATS:
        (data / name).rename(tmp_path / "in" / name)
        tag_files(tagger, TagJob([str(tmp_path / "in" / name)], str(tmp_path / name)))
    tag_files(tagger, TagJob([str(tmp_path / "in")], str(tmp_path / "out")))
    for name in FORMATS:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "output"),
    slow_but([("a.jsonl", "o.jsonl")], [("a.jsonl", "o.jsonl"), ("a.parquet", "o.parquet"), ("a.csv", "o.csv")]),
)
def test_a_kill_before_any_step_changes_no_byte(bundle: Bundle, data: Path, name: str, output: str) -> None:
    tagger = tagger_of(bundle, "title", "body")
    (data / "whole").mkdir()
    source = data / name
    steps = steps_of(tagger, source, data / "whole" / output, chunk_rows=10)
    expected = (data / "whole" / output).read_bytes()
    for step in range(3, steps, 6):
        target = data / str(step) / output
        target.parent.mkdir()

        def killed(step: int = step, target: Path = target) -> None:
            at_step(step, kill)
            tag_files(tagger, TagJob([str(source)], str(target), chunk_rows=10))

        assert in_child(killed) == -signal.SIGKILL
        report = resumed(tagger, source, target, chunk_rows=10)
        assert target.read_bytes() == expected, step
        assert report.finished_before or report.rows == 60


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_a_row_that_fails_in_one_column_has_no_entities(bundle: Bundle, tmp_path: Path, name: str) -> None:
    title = " ".join(texts(9))
    if name == "a.parquet":
        bodies = pa.array([title.encode(), b"\xff", title.encode()]).cast(pa.string(), safe=False)
        pq.write_table(pa.table({"title": [title] * 3, "body": bodies}), tmp_path / name)
    else:
        bad = json.dumps({"title": title, "body": 5})
        good = json.dumps({"title": title, "body": title})
        (tmp_path / name).write_text(f"{good}\n{bad}\n{good}\n")
    tagger = tagger_of(bundle, "title", "body")
    with fails(InputError, "not-utf8" if name == "a.parquet" else "not-text", column="body"):
        tag_files(tagger, TagJob([str(tmp_path / name)], str(tmp_path / f"fail-{name}")))

    output = tmp_path / f"o-{name}"
    report = tag_files(tagger, TagJob([str(tmp_path / name)], str(output), on_error="null"))
    assert (report.rejected, report.rows, report.null_rows) == (1, 3, 0)
    if name == "a.jsonl":
        rows = rows_of(output)
    else:
        rows = pq.read_table(output, columns=["title_entities", "body_entities", "entities_error"]).to_pylist()
    assert rows[1]["title_entities"] is rows[1]["body_entities"] is None
    assert "body" in rows[1]["entities_error"]
    assert rows[0]["title_entities"] == rows[2]["body_entities"] != []


def test_plain_text_has_one_column(bundle: Bundle, data: Path) -> None:
    (data / "a.txt").write_text("Anna\n")
    job = TagJob([str(data / "a.txt")], str(data / "o.jsonl"))
    with fails(OptionError, "several-text-columns", option="--text-column", found="title, body"):
        tag_files(tagger_of(bundle, "title", "body"), job)


def test_a_batch_gets_a_column_for_each(bundle: Bundle, data: Path) -> None:
    tagger = tagger_of(bundle, "title", "body")
    tag_files(tagger, TagJob([str(data / "a.parquet")], str(data / "o.parquet")))
    expected = pq.read_table(data / "o.parquet")
    batches = pq.read_table(data / "a.parquet").to_batches(max_chunksize=17)
    tagged = pa.Table.from_batches([tagger.tag_batch(batch) for batch in batches])
    assert tagged.equals(expected.cast(tagged.schema))
    assert tagged.schema.metadata[b"nerd_onnx.body_entities.text_column"] == b"body"

    table = tag_table(tagger, pq.read_table(data / "a.parquet"), replace_column=False)
    assert table.equals(tagged)
    assert tag_table(tagger, table.slice(0, 0), replace_column=True).schema == tagged.schema
    with fails(OutputError, "column-exists", column="title_entities"):
        tagger.tag_batch(table.to_batches()[0])
    with fails(InputError, "column-missing", column="body"):
        tagger.tag_batch(batches[0].drop_columns(["body"]))


def test_an_engine_looks_at_the_names_of_all_columns(bundle: Bundle) -> None:
    options = tagger_of(bundle, "title", "body").options
    check_columns(["body", "title"], options, replace_column=False)
    check_columns(["body", "title", "body_entities"], options, replace_column=True)
    with fails(InputError, "column-missing", column="body"):
        check_columns(["title"], options, replace_column=False)
    with fails(OutputError, "column-exists", column="body_entities"):
        check_columns(["title", "body", "body_entities"], options, replace_column=False)


@pytest.mark.parametrize(
    ("columns", "reason", "option"),
    [
        (("title", "title"), "text-column-twice", "text_column"),
        ((), "no-text-column", "text_column"),
        (("title", "missing"), "column-missing", None),
        (("a", "a_entities"), "column-is-text-column", "column"),
    ],
)
def test_names_that_cannot_be(
    bundle: Bundle, data: Path, columns: tuple[str, ...], reason: str, option: str | None
) -> None:
    for name in FORMATS:
        with pytest.raises(NerdError) as caught:
            tag_files(tagger_of(bundle, *columns), TagJob([str(data / name)], str(data / f"o{name}")))
        assert caught.value.reason == reason
        assert caught.value.fields.get("option") == option


def test_other_text_columns_are_another_run(bundle: Bundle, data: Path) -> None:
    tag_files(tagger_of(bundle, "title", "body"), TagJob([str(data / "a.parquet")], str(data / "o.parquet")))
    again = TagJob([str(data / "a.parquet")], str(data / "o.parquet"), resume=True)
    assert tag_files(tagger_of(bundle, "title", "body"), again).finished_before == 1
    with pytest.raises(NerdError) as caught:
        tag_files(tagger_of(bundle, "title", "n"), again)
    assert caught.value.reason in ("other-options", "run-changed", "other-model")
