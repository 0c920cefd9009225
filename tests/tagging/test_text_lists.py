"""A text column with lists (``sentences[]``): each element has the entities that it has as a text of its own."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nerd_onnx.cli import convert, tag, view
from nerd_onnx.errors import InputError, NerdError, OptionError, OutputError
from nerd_onnx.formats.columns import joined_elements, with_element
from nerd_onnx.formats.tagged_file import tagged_rows
from nerd_onnx.formats.text_arrays import each_text, text_bounds, text_sizes, texts_of
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.integrations.columns import entities_of
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from tests.support.commands import runner
from tests.support.failures import fails
from tests.support.quick_tagger import tagger_of
from tests.support.runs import at_step, in_child, interrupt, kill, resumed, steps_of, texts
from tests.support.tables_io import ENTITIES, rows_of

SENTENCES = texts(200)
ROWS: list[list[str | None] | None] = [
    None if i % 11 == 5 else [SENTENCES[(3 * i + j) % 200] if (i + j) % 5 else None for j in range(i % 4)]
    for i in range(60)
]
ROWS[7] = ["", None, "", SENTENCES[1]]
FORMATS = ["a.parquet", "a.arrow", "a.jsonl"]
KINDS = {
    "list": pa.list_(pa.string()),
    "large": pa.large_list(pa.large_string()),
    "views": pa.list_view(pa.string_view()),
    "bytes": pa.list_(pa.binary()),
    "dictionary": pa.list_(pa.dictionary(pa.int32(), pa.string())),
}


def table() -> pa.Table:
    """Make rows with lists of texts, and a plain text column beside them."""
    return pa.table({"id": range(60), "title": SENTENCES[:60], "sentences": pa.array(ROWS, KINDS["list"])})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write the same rows in each format."""
    pq.write_table(table(), tmp_path / "a.parquet", row_group_size=25)
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table().schema) as writer:
        writer.write_table(table(), max_chunksize=25)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table().to_pylist()))
    return tmp_path


def expected(tagger: Tagger) -> list[list[tuple[Any, ...]] | None]:
    """Return the entities of each row, from a tagger of single texts."""
    found: list[list[tuple[Any, ...]] | None] = []
    for row in ROWS:
        parts = tagger.tag(row or [])
        here = [(i, one.start, one.end, one.label, one.text) for i, part in enumerate(parts) for one in part or ()]
        found.append(None if row is None else here)
    return found


def tuples(found: list[dict[str, Any]] | None) -> list[tuple[Any, ...]] | None:
    names = ("element", "start", "end", "label", "text")
    return None if found is None else [tuple(one[name] for name in names) for one in found]


@pytest.mark.parametrize("output", ["o.parquet", "o.arrow", "o.jsonl"])
@pytest.mark.parametrize("name", FORMATS)
def test_each_element_has_the_entities_of_its_text(bundle: Bundle, data: Path, name: str, output: str) -> None:
    tagger = tagger_of(bundle, "sentences[]")
    report = tag_files(tagger, TagJob([str(data / name)], str(data / output), chunk_rows=7))
    rows = rows_of(data / output)
    assert [tuples(row["entities"]) for row in rows] == expected(tagger)
    assert [row["sentences"] for row in rows] == ROWS
    assert report.entities == sum(len(row or ()) for row in expected(tagger)) > 50
    assert report.null_rows == ROWS.count(None)
    for row in rows:
        for one in row["entities"] or ():
            assert row["sentences"][one["element"]][one["start"] : one["end"]] == one["text"]


@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_every_type(bundle: Bundle, tmp_path: Path, kind: str) -> None:
    column = pa.array([["São Paulo", None], None, [], ["Rome", "Bob met Ada."]], KINDS["list"])
    binary = [
        None if row is None else [None if one is None else one.encode() for one in row] for row in column.to_pylist()
    ]
    typed = pa.array(binary, KINDS[kind]) if kind == "bytes" else pa.array(column.to_pylist(), KINDS[kind])
    rows = pa.table({"sentences": typed})
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), rows.schema) as writer:
        writer.write_table(rows)
    tagger = tagger_of(bundle, "sentences[]")
    for output in ("o.arrow", "o.jsonl"):
        tag_files(tagger, TagJob([str(tmp_path / "a.arrow")], str(tmp_path / output)))
    found = rows_of(tmp_path / "o.jsonl")
    assert [row["sentences"] for row in found] == column.to_pylist()
    assert [tuples(row["entities"]) for row in found] == [
        tuples(row["entities"]) for row in rows_of(tmp_path / "o.arrow")
    ]
    assert sum(len(row["entities"] or ()) for row in found) > 0
    with pa.ipc.open_file(str(tmp_path / "o.arrow")) as file:
        assert file.read_all().drop_columns("entities").equals(rows)


@pytest.mark.parametrize("name", FORMATS)
def test_wide_and_long(bundle: Bundle, data: Path, name: str) -> None:
    tagger = tagger_of(bundle, "sentences[]")
    tag_files(tagger, TagJob([str(data / name)], str(data / "wide.parquet"), layout="wide"))
    tag_files(tagger, TagJob([str(data / name)], str(data / "long.parquet"), layout="long", key="id"))
    wide, long = rows_of(data / "wide.parquet"), rows_of(data / "long.parquet")
    assert [*long[0]][:4] == ["id", "element", "start", "end"]
    for i, row in enumerate(expected(tagger)):
        assert [tuples([one])[0] for one in long if one["id"] == i] == (row or [])  # type: ignore[index]
        for label in tagger.kept_types:
            of_label = [one[:3] for one in row if one[3] == label] if row is not None else None
            found = wide[i][label]
            assert (None if found is None else [(e["element"], e["start"], e["end"]) for e in found]) == of_label


def test_lists_beside_a_plain_text_column(bundle: Bundle, data: Path) -> None:
    tagger = tagger_of(bundle, "title", "sentences[]")
    for name in FORMATS:
        output = data / f"o-{name}"
        tag_files(tagger, TagJob([str(data / name)], str(output), chunk_rows=7))
        rows = rows_of(output)
        assert [tuples(row["sentences_entities"]) for row in rows] == expected(tagger)
        titles = tagger.tag(SENTENCES[:60])
        assert [len(row["title_entities"]) for row in rows] == [len(found or ()) for found in titles]
        assert "element" not in next(row["title_entities"][0] for row in rows if row["title_entities"])


@pytest.mark.parametrize("output", ["o.parquet", "o.arrow", "o.jsonl"])
@pytest.mark.parametrize("name", FORMATS)
def test_long_rows_of_lists_beside_a_plain_text_column(bundle: Bundle, data: Path, name: str, output: str) -> None:
    tagger = tagger_of(bundle, "title", "sentences[]")
    tag_files(tagger, TagJob([str(data / name)], str(data / output), layout="long", key="id"))
    found = rows_of(data / output)
    assert [*found[0]][:4] == ["id", "text_column", "element", "start"]
    titles, lists = tagger.tag(SENTENCES[:60]), expected(tagger)
    for i in range(60):
        here = [(one["text_column"], *tuples([one])[0]) for one in found if one["id"] == i]  # type: ignore[index]
        of_title = [("title", None, one.start, one.end, one.label, one.text) for one in titles[i] or ()]
        assert here == [*of_title, *(("sentences", *one) for one in lists[i] or ())]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "output"), [("a.parquet", "o.parquet"), ("a.jsonl", "o.arrow")])
def test_a_kill_before_any_step_changes_no_byte(bundle: Bundle, data: Path, name: str, output: str) -> None:
    tagger = tagger_of(bundle, "sentences[]")
    (data / "whole").mkdir()
    source = data / name
    steps = steps_of(tagger, source, data / "whole" / output, chunk_rows=10)
    whole = (data / "whole" / output).read_bytes()
    for step in range(3, steps, 6):
        out = data / f"step{step}"
        out.mkdir()

        def killed(step: int = step, out: Path = out) -> None:
            at_step(step, kill)
            tag_files(tagger, TagJob([str(source)], str(out / output), chunk_rows=10))

        assert in_child(killed) == -signal.SIGKILL
        resumed(tagger, source, out / output, chunk_rows=10)
        assert (out / output).read_bytes() == whole, step


def test_a_changed_element_is_noticed_by_a_resumed_run(bundle: Bundle, data: Path) -> None:
    tagger = tagger_of(bundle, "sentences[]")
    source, output = data / "a.jsonl", data / "o.jsonl"
    interrupt(tagger, TagJob([str(source)], str(output), chunk_rows=10), batches=3)

    before, content = source.stat(), source.read_bytes()
    word = json.dumps(SENTENCES[10])[1:8].encode()
    source.write_bytes(content.replace(word, b"Xerxes ", 1) if len(word) == 7 else content)
    assert source.read_bytes() != content
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    with fails(InputError, "input-changed"):
        resumed(tagger, source, output, chunk_rows=10)


def test_small_files_of_a_folder_are_tagged_the_same(bundle: Bundle, data: Path) -> None:
    tagger = tagger_of(bundle, "sentences[]")
    (data / "in").mkdir()
    for name in FORMATS:
        (data / name).rename(data / "in" / name)
        tag_files(tagger, TagJob([str(data / "in" / name)], str(data / name)))
    tag_files(tagger, TagJob([str(data / "in")], str(data / "out")))
    for name in FORMATS:
        assert (data / "out" / name).read_bytes() == (data / name).read_bytes()


def test_view_and_convert_read_each_element(bundle: Bundle, data: Path) -> None:
    tagger = tagger_of(bundle, "sentences[]", offset_unit="utf8")
    for name in ("o.parquet", "o.jsonl", "o.csv"):
        tag_files(tagger, TagJob([str(data / "a.jsonl")], str(data / name)))
    for name in ("o.parquet", "o.jsonl"):
        unit = {"unit": "utf8"} if name == "o.jsonl" else {}
        rows = list(tagged_rows(data / name, text_column="sentences[]", **unit))
        assert [(row.number, row.element, row.text) for row in rows if row.element is not None] == [
            (i, element, text) for i, row in enumerate(ROWS) for element, text in enumerate(row or ())
        ]
        found = [(row.number, row.element, e.start, e.end) for row in rows for e in row.entities or ()]
        assert found == [(i, *one[:3]) for i, row in enumerate(expected(tagger)) for one in row or ()]
    wrong = [{"text": ["a"], "entities": [{"element": 1, "start": 0, "end": 1, "label": "x"}]}]
    (data / "wrong.jsonl").write_text(json.dumps(wrong[0]) + "\n")
    with fails(InputError, "not-entities", row=1):
        list(tagged_rows(data / "wrong.jsonl", text_column="text[]"))


def test_the_commands_take_lists(
    tiny_bundle: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mains = {"nerd-tag": tag.main, "nerd-view": view.main, "nerd-convert": convert.main}

    def command(name: str, *arguments: object) -> str:
        code, out, err = runner(name, mains[name], monkeypatch, capfd)(*arguments, "--text-column", "sentences[]")
        assert code == 0, err
        return out

    tagged = data / "o.parquet"
    command("nerd-tag", data / "a.parquet", tagged, "--model", tiny_bundle, "--min-score", "0")
    command("nerd-view", tagged, data / "o.html")
    command("nerd-convert", tagged, data / "long.jsonl", "--to", "long", "--key", "id")
    long = [json.loads(line) for line in (data / "long.jsonl").read_text().splitlines()]
    assert [(row["id"], row["element"], row["text"]) for row in long] == [
        (row["id"], one["element"], one["text"]) for row in rows_of(tagged) for one in row["entities"] or ()
    ]
    shown = command("nerd-tag", data / "a.jsonl", "-", "--model", tiny_bundle, "--output-format", "text")
    assert shown.count("(null)") == sum([row] == [None] or (row or []).count(None) for row in ROWS)
    assert "[" in command("nerd-tag", "--text", "Ada met Bob.", "--model", tiny_bundle, "--min-score", "0")


# -- rows and columns that do not fit ----------------------------------------------------------------------------------


def test_bytes_that_are_no_utf8_name_the_element(bundle: Bundle, tmp_path: Path) -> None:
    rows = pa.table({"sentences": pa.array([[b"Rome"], [b"Oslo", None, b"\xff"], [b"Paris"]])})
    pq.write_table(rows, tmp_path / "a.parquet")
    tagger = tagger_of(bundle, "sentences[]")
    with fails(InputError, "not-utf8", row=1, column="sentences") as caught:
        tag_files(tagger, TagJob([str(tmp_path / "a.parquet")], str(tmp_path / "o.parquet")))
    assert "element 2" in str(caught.value)

    job = TagJob([str(tmp_path / "a.parquet")], str(tmp_path / "o.parquet"), on_error="null")
    assert tag_files(tagger, job).rejected == 1
    assert [row["entities"] is None for row in rows_of(tmp_path / "o.parquet")] == [False, True, False]
    rejects = str(tmp_path / "r.jsonl")
    tag_files(
        tagger,
        TagJob([str(tmp_path / "a.parquet")], str(tmp_path / "o.jsonl"), on_error="skip", rejects=rejects),
    )
    assert [row["sentences"] for row in rows_of(tmp_path / "o.jsonl")] == [["Rome"], ["Paris"]]
    assert json.loads(Path(rejects).read_text())["row"] == 1


@pytest.mark.parametrize("value", ['"one text"', "5", '{"a": 1}', '["a", 5]', '[["a"]]'])
@pytest.mark.parametrize("output", ["o.jsonl", "o.parquet"])
def test_a_line_without_a_list_of_texts(bundle: Bundle, tmp_path: Path, value: str, output: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"s": ["Rome"]}}\n{{"s": {value}}}\n{{"s": null}}\n')
    tagger = tagger_of(bundle, "s[]")
    with fails(InputError, "not-text", row=2, column="s"):
        tag_files(tagger, TagJob([str(tmp_path / "a.jsonl")], str(tmp_path / output)))
    rejects = str(tmp_path / "r.jsonl")
    job = TagJob([str(tmp_path / "a.jsonl")], str(tmp_path / output), on_error="skip", rejects=rejects)
    assert tag_files(tagger, job).rejected == 1
    assert [row["s"] for row in rows_of(tmp_path / output)] == [["Rome"], None]


def test_the_error_of_the_other_kind_of_column_says_what_to_give(bundle: Bundle, data: Path) -> None:
    for name in ("a.parquet", "a.arrow", "a.jsonl"):
        with fails(InputError, "not-text", column="sentences") as caught:
            tag_files(tagger_of(bundle, "sentences"), TagJob([str(data / name)], str(data / "o.parquet")))
        assert "sentences[]" in str(caught.value)
    with fails(InputError, "not-text", column="title"):
        tag_files(tagger_of(bundle, "title[]"), TagJob([str(data / "a.parquet")], str(data / "o.parquet")))
    with fails(InputError, "column-missing", column="other"):
        tag_files(tagger_of(bundle, "other[]"), TagJob([str(data / "a.jsonl")], str(data / "o.parquet")))


def test_uses_that_take_single_texts_refuse_lists(bundle: Bundle, data: Path) -> None:
    tagger = tagger_of(bundle, "sentences[]")
    (batch,) = table().combine_chunks().to_batches()
    with fails(OptionError, "lists-of-texts", option="text_column", found="sentences[]"):
        tagger.tag_batch(batch)
    with fails(OptionError, "lists-of-texts", option="text_column", found="sentences[]"):
        entities_of(tagger, batch.column("sentences"))
    (data / "a.txt").write_text("Rome\n")
    with fails(OptionError, "lists-of-texts", option="--text-column"):
        tag_files(tagger, TagJob([str(data / "a.txt")], str(data / "o.jsonl")))
    (data / "a.csv").write_text("sentences\nRome\n")
    with pytest.raises(NerdError) as caught:
        tag_files(tagger, TagJob([str(data / "a.csv")], str(data / "o.csv")))
    assert caught.value.reason == "not-text"


# -- arrays ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", [0, 1, 7])
def test_slices_of_lists(begin: int) -> None:
    column = pa.array(ROWS, KINDS["list"]).slice(begin, 20)
    lists = texts_of(column, "x[]")
    assert lists.to_pylist() == column.to_pylist()
    for part in (lists, lists.slice(3, 9)):
        flat = [one for row in part.to_pylist() for one in row or ()]
        assert each_text(part).to_pylist() == flat
        assert np.diff(text_bounds(part)).tolist() == [len(row or ()) for row in part.to_pylist()]
        assert text_sizes(part).to_pylist() == [
            sum(1 + len((one or "").encode()) for one in row or ()) for row in part.to_pylist()
        ]


def test_entities_of_elements_are_joined() -> None:
    lists = pa.array([["a", None], None, [], ["b", "c"]], pa.large_list(pa.string()))
    one = {"start": 0, "end": 1, "label": "x", "score": 1.0, "text": "t"}
    found = pa.array([[one, one], None, [], [one]], ENTITIES.type)
    joined = joined_elements(found, lists)
    assert joined.type == with_element(ENTITIES.type)
    assert [None if row is None else [e["element"] for e in row] for row in joined.to_pylist()] == [
        [0, 0],
        None,
        [],
        [1],
    ]


def test_verify_compares_the_elements_of_a_finished_output(bundle: Bundle, data: Path) -> None:
    tagger = tagger_of(bundle, "sentences[]")
    output = data / "o.jsonl"
    tag_files(tagger, TagJob([str(data / "a.arrow")], str(output)))
    job = TagJob([str(data / "a.arrow")], str(output), resume=True, verify=True)
    assert tag_files(tagger, job).finished_before == 1

    lines = output.read_text().splitlines(keepends=True)
    output.write_text("".join([*lines[:7], *lines[8:]]))
    with fails(OutputError, "other-rows", file=output, row=7):
        tag_files(tagger, job)
