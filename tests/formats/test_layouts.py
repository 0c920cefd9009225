"""Nested, wide and long say the same; each keeps the promises of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.cli.dry_run import plan_facts
from nerd_onnx.errors import InputError, OptionError, OutputError
from nerd_onnx.formats.columns import entities_type
from nerd_onnx.formats.interfaces import RowBatch
from nerd_onnx.formats.layouts import EntityRows, Layout
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob, TagReport
from nerd_onnx.tagging.run import tag_files
from tests.support.failures import fails
from tests.support.models import sample_texts
from tests.support.runs import interrupt
from tests.support.tables_io import ENTITIES, converted

LABELS = ["person", "location"]
NESTED = pa.field("entities", entities_type(with_fine=True))
ENTITY = st.fixed_dictionaries(
    {
        "start": st.integers(0, 9),
        "end": st.integers(10, 19),
        "label": st.sampled_from(LABELS),
        "fine_label": st.none() | st.just("person-actor"),
        "score": st.sampled_from([0.25, 1.0]),
        "text": st.text(max_size=3),
    }
)
ROWS = st.lists(st.none() | st.lists(ENTITY, max_size=3), max_size=6)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Make an input with a key, a null and an empty text, in three row groups."""
    texts: list[str | None] = [*sample_texts()[:40], None, ""]
    keys = pa.array([f"k{i % 5}" for i in range(42)]).dictionary_encode()
    table = pa.table({"id": keys, "text": texts}).replace_schema_metadata({"owner": "us"})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=15)
    rows = [{"id": i, "text": text, "n": 1.0} for i, text in enumerate(texts)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "in.parquet"


def run(tagger: Tagger, source: Path, output: Path, **options: Any) -> TagReport:
    return tag_files(tagger, TagJob([str(source)], str(output), **{"overwrite": True, **options}))


def rows_in(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def in_columns(rows: list[dict[str, Any]], labels: list[str]) -> list[dict[str, Any]]:
    """Do by hand what the wide layout does."""
    result = []
    for row in rows:
        entities = row.pop("entities")
        of = {label: entities and [e for e in entities if e["label"] == label] for label in labels}
        wide = {label: found and [without(e, "label") for e in found] for label, found in of.items()}
        result.append({**row, **wide})
    return result


def in_rows(rows: list[dict[str, Any]], key: Callable[[int, dict[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
    """Do by hand what the long layout does."""
    return [{**key(i, row), **e} for i, row in enumerate(rows) for e in row["entities"] or ()]


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


@settings(deadline=None)
@given(ROWS, st.data())
def test_any_part_of_any_column_is_laid_out(rows: list[Any], data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(rows)))
    count = data.draw(st.integers(0, len(rows) - begin))
    column = pa.array(rows, NESTED.type).slice(begin, count)
    if data.draw(st.booleans()):  # as chunks give it back, and as rows that are left out leave it
        column = column.filter(pa.array([True] * count, pa.bool_()))
    kept = [{"entities": row} for row in rows[begin : begin + count]]
    wide = Layout(NESTED, "wide", LABELS)
    found = pa.RecordBatch.from_arrays(wide.columns(column), schema=pa.schema(wide.fields))
    found.validate(full=True)
    assert found.to_pylist() == in_columns([dict(row) for row in kept], LABELS)
    batch = RowBatch(pa.nulls(count, pa.string()), pa.RecordBatch.from_pydict({"k": range(count)}), None, first_row=7)
    for key, name, first in (("k", "k", 0), (None, "row", 7)):
        layout = Layout(NESTED, "long", key=key)
        long = EntityRows(pa.schema({"k": pa.int64()}), layout, {}).placed(batch, column, None)
        long.validate(full=True)
        assert long.to_pylist() == in_rows(kept, lambda i, _, n=name, f=first: {n: i + f})  # type: ignore[misc]


@pytest.mark.parametrize("output", ["o.parquet", "o.jsonl"])
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_the_layouts_of_a_file_say_the_same(
    tagger: Tagger, source: Path, tmp_path: Path, suffix: str, output: str
) -> None:
    path = source.with_suffix(suffix)
    run(tagger, path, tmp_path / f"nested-{output}")
    nested = rows_in(tmp_path / f"nested-{output}")
    assert sum(len(row["entities"] or ()) for row in nested) > 20
    report = run(tagger, path, tmp_path / f"wide-{output}", layout="wide")
    assert report.rows == 42
    assert rows_in(tmp_path / f"wide-{output}") == in_columns([dict(row) for row in nested], list(tagger.labels.types))
    report = run(tagger, path, tmp_path / f"long-{output}", layout="long")
    found = rows_in(tmp_path / f"long-{output}")
    assert found == in_rows(nested, lambda i, _: {"row": i})
    assert (report.rows, report.entities) == (42, len(found))
    run(tagger, path, tmp_path / f"keyed-{output}", layout="long", key="id")
    assert rows_in(tmp_path / f"keyed-{output}") == in_rows(nested, lambda _, row: {"id": row["id"]})


def test_parquet_keeps_groups_types_and_facts(tagger: Tagger, source: Path, tmp_path: Path) -> None:
    run(tagger, source, tmp_path / "wide.parquet", layout="wide")
    wide = pq.ParquetFile(tmp_path / "wide.parquet")
    assert wide.num_row_groups == 3
    assert wide.schema_arrow.metadata[b"owner"] == b"us"
    assert wide.schema_arrow.metadata[b"nerd_onnx.entities.layout"] == b"wide"
    assert wide.read(["id", "text"]).equals(pq.read_table(source))
    run(tagger, source, tmp_path / "long.parquet", layout="long", key="id")
    long = pq.ParquetFile(tmp_path / "long.parquet")
    assert long.num_row_groups == 1
    assert long.schema_arrow.field("id").type == pq.read_schema(source).field("id").type
    assert long.schema_arrow.metadata[b"nerd_onnx.entities.key"] == b"id"
    assert b"owner" not in long.schema_arrow.metadata


def test_wide_has_the_labels_that_were_asked_for(tiny_bundle: Path, source: Path, tmp_path: Path) -> None:
    some = Tagger.load(tiny_bundle, labels="person-actor")
    run(some, source, tmp_path / "o.parquet", layout="wide")
    table = pq.read_table(tmp_path / "o.parquet")
    assert table.column_names == ["id", "text", "person"]
    fine = {e["fine_label"] for row in table["person"].to_pylist() for e in row or ()}
    assert fine == {"person-actor"}
    other = Tagger.load(tiny_bundle, labels="person-actor", column="ner")
    run(other, source, tmp_path / "o.parquet", layout="wide")
    assert pq.read_schema(tmp_path / "o.parquet").names == ["id", "text", "ner_person"]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_taken_name_is_refused_or_replaced(tagger: Tagger, tiny_bundle: Path, tmp_path: Path, suffix: str) -> None:
    table = pa.table({"person": ["her"], "text": [sample_texts()[0]], "location": [3]})
    pq.write_table(table, tmp_path / "in.parquet")
    (tmp_path / "in.jsonl").write_text(json.dumps(table.to_pylist()[0]) + "\n")
    path = tmp_path / f"in{suffix}"
    with fails(OutputError, "column-exists"):
        run(tagger, path, tmp_path / f"o{suffix}", layout="wide")
    run(tagger, path, tmp_path / f"o{suffix}", layout="wide", overwrite_column=True)
    row = rows_in(tmp_path / f"o{suffix}")[0]
    assert list(row) == ["person", "text", "location"]
    assert isinstance(row["location"], list)
    run(Tagger.load(tiny_bundle, column="x"), path, tmp_path / f"p{suffix}", layout="wide")
    assert {"x_person", "x_location", "person", "location"} < set(rows_in(tmp_path / f"p{suffix}")[0])
    person = Tagger.load(tiny_bundle, text_column="person")
    with fails(OptionError, "column-is-text-column", column="person"):
        run(person, path, tmp_path / f"o{suffix}", layout="wide", overwrite_column=True)


def test_a_key_that_is_not_there_is_refused(tagger: Tagger, source: Path, tmp_path: Path) -> None:
    for path in (source, source.with_suffix(".jsonl")):
        for output in ("o.parquet", "o.jsonl"):
            with fails(InputError, "key-missing", file=path, column="idd"):
                run(tagger, path, tmp_path / output, layout="long", key="idd")
    twice = pa.table([pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], names=["id", "text", "id"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with fails(InputError, "key-ambiguous", column="id"):
        run(tagger, tmp_path / "twice.parquet", tmp_path / "o.parquet", layout="long", key="id")
    with fails(OptionError, "key-name-taken", column="text"):
        run(tagger, source, tmp_path / "o.parquet", layout="long", key="text")
    (tmp_path / "empty.jsonl").write_text("\n")
    for output in ("o.parquet", "o.jsonl"):
        assert run(tagger, tmp_path / "empty.jsonl", tmp_path / output, layout="long", key="id").rows == 0
    assert not any("nerd-work" in path.name for path in tmp_path.iterdir())


def test_one_of_several_files_without_the_key_is_left_out(tagger: Tagger, source: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    source.rename(tmp_path / "set" / "a.parquet")
    pq.write_table(pa.table({"text": ["Anna"]}), tmp_path / "set" / "b.parquet")
    options: dict[str, Any] = {"layout": "long", "key": "id", "overwrite": False}
    with fails(InputError, "key-missing", file=tmp_path / "set" / "b.parquet", column="id"):
        run(tagger, tmp_path / "set", tmp_path / "strict", **options)
    report = run(tagger, tmp_path / "set", tmp_path / "o", on_error="skip", rejects=str(tmp_path / "r"), **options)
    assert (report.files, report.refused_files) == (1, 1)
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["a.parquet"]


def test_no_entities_are_no_long_rows(tiny_bundle: Path, source: Path, tmp_path: Path) -> None:
    strict = Tagger.load(tiny_bundle, min_score=1.0)
    for name in ("o.parquet", "o.jsonl"):
        report = run(strict, source, tmp_path / name, layout="long")
        assert (report.rows, report.entities, rows_in(tmp_path / name)) == (42, 0, [])
    assert pq.read_schema(tmp_path / "o.parquet").names[:3] == ["row", "start", "end"]


def test_a_key_keeps_its_bytes(tagger: Tagger, tmp_path: Path) -> None:
    keys = ['{"a": [1.000, "\\u00e9"]}', "12345678901234567890123", '"\\ud83d\\ude42"']
    text = json.dumps(sample_texts()[0])
    lines = [f'{{"text": {text}, "k/1": {key}}}\n' for key in keys]
    (tmp_path / "in.jsonl").write_text("".join([*lines, f'{{"text": {text}}}\n']))
    run(tagger, tmp_path / "in.jsonl", tmp_path / "o.jsonl", layout="long", key="k/1")
    found = (tmp_path / "o.jsonl").read_text("utf-8").splitlines()
    starts = list(dict.fromkeys(line[: line.index(', "start"')] for line in found))
    assert starts == [*(f'{{"k/1": {key}' for key in keys), '{"k/1": null']


def test_options_that_do_not_go_together() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"key": "id"}, "key-needs-long"),
        ({"layout": "wide", "key": "id"}, "key-needs-long"),
        ({"layout": "long", "on_error": "null", "rejects": "r"}, "null-with-long"),
    ]
    for options, reason in wrong:
        with fails(OptionError, reason):
            TagJob(["a"], "b", **options)


@pytest.mark.parametrize("layout", ["wide", "long"])
def test_rows_read_are_rows_written_and_rejected(tagger: Tagger, tmp_path: Path, layout: Any) -> None:
    lines = [json.dumps({"id": i, "text": text}) for i, text in enumerate(sample_texts()[:30])]
    lines[3], lines[17] = "broken", '{"text": 3}'
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    options: dict[str, Any] = {"on_error": "skip", "rejects": str(tmp_path / "r.jsonl"), "layout": layout}
    report = run(tagger, tmp_path / "in.jsonl", tmp_path / "o.jsonl", **options)
    assert (report.rows, report.written, report.rejected) == (30, 28, 2)
    rows = rows_in(tmp_path / "o.jsonl")
    if layout == "wide":
        assert [row["id"] for row in rows] == [i for i in range(30) if i not in (3, 17)]
    else:
        assert len(rows) == report.entities
        assert {row["row"] for row in rows} <= {i for i in range(30) if i not in (3, 17)}
        assert max(row["row"] for row in rows) > 17


def test_reasons_stand_beside_wide_columns(tagger: Tagger, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "Anna"}\n{"text": 3}\n')
    options: dict[str, Any] = {"on_error": "null", "rejects": str(tmp_path / "r.jsonl"), "layout": "wide"}
    run(tagger, tmp_path / "in.jsonl", tmp_path / "o.jsonl", **options)
    assert [row["person"] is None for row in rows_in(tmp_path / "o.jsonl")] == [False, True]
    invalid = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff")]
    )
    pq.write_table(pa.table({"text": pa.chunked_array([pa.array(["Anna"]), invalid])}), tmp_path / "in.parquet")
    run(tagger, tmp_path / "in.parquet", tmp_path / "o.parquet", **options)
    table = pq.read_table(tmp_path / "o.parquet", columns=["person", "location", "entities_error"])
    assert table["person"].is_null().to_pylist() == table["location"].is_null().to_pylist() == [False, True]
    assert pc.is_valid(table["entities_error"]).to_pylist() == [False, True]


@pytest.mark.parametrize(("layout", "other"), [("nested", "wide"), ("wide", "long"), ("long", "nested")])
def test_another_layout_is_no_way_to_go_on(
    tagger: Tagger, source: Path, tmp_path: Path, layout: Any, other: Any
) -> None:
    output = tmp_path / "out.parquet"
    small: dict[str, Any] = {"chunk_rows": 10, "overwrite": False}
    stopped = interrupt(tagger, TagJob([str(source)], str(output), layout=layout, **small), 2)
    assert stopped.safe_rows > 0
    with fails(OutputError, "run-changed", changed=f"--layout (was {layout}, is {other})"):
        run(tagger, source, output, layout=other, resume=True, **small)
    assert run(tagger, source, output, layout=layout, resume=True, **small).resumed_rows > 0
    whole = tmp_path / "whole.parquet"
    run(tagger, source, whole, layout=layout)
    assert output.read_bytes() == whole.read_bytes()
    with fails(OutputError, "other-options"):
        run(tagger, source, output, layout=other, resume=True, **small)


def test_the_plan_names_the_new_columns(tagger: Tagger, source: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "o.parquet")
    facts = {}
    for name in ("nested", "wide", "long"):
        facts[name] = plan_facts(tagger, TagJob([str(source)], output, layout=name))

    assert facts["nested"]["new_columns"] == ["entities"]
    assert sorted(facts["wide"]["new_columns"]) == ["location", "person"]
    assert facts["long"]["new_columns"] == ["row", "start", "end", "label", "fine_label", "score", "text"]
    with fails(InputError, "key-missing", option="--key"):
        plan_facts(tagger, TagJob([str(source)], output, layout="long", key="x"))


@pytest.mark.parametrize(
    "kind", [pa.string_view(), pa.binary_view(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_key_of_any_type(tmp_path: Path, kind: pa.DataType) -> None:
    """Pyarrow cannot take rows from all of them."""
    texts = sample_texts()[:3]
    keys = (
        pa.array(["a", None, "c"]).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(["a", None, "c"])
    )
    pq.write_table(pa.table({"id": keys.cast(kind), "text": texts}), tmp_path / "in.parquet")
    output = converted(tmp_path / "in.parquet", tmp_path / "out.parquet", layout=Layout(ENTITIES, "long", key="id"))
    found = pq.read_table(output)
    assert found.schema.field("id").type == kind
    assert found["id"].cast(pa.string()).to_pylist() == ["a", None, "c"]


@pytest.mark.parametrize(
    "keys",
    [
        pc.run_end_encode(pa.array(["a", "a", None])),
        pa.array([["a"], [], None], pa.list_(pa.string_view())),
        pa.array([{"k": "a"}, {"k": None}, None], pa.struct([("k", pa.string_view())])),
    ],
    ids=["runs", "lists of views", "structs of views"],
)
def test_key_of_a_type_that_pyarrow_takes_no_rows_of(keys: pa.Array) -> None:
    entity = {"start": 0, "end": 1, "label": "person", "fine_label": None, "score": 1.0, "text": "a"}
    found = pa.array([[entity, entity], [], [entity]], NESTED.type)
    table = pa.RecordBatch.from_arrays([keys], ["k"])
    batch = RowBatch(pa.nulls(3, pa.string()), table, None, first_row=0)

    long = EntityRows(table.schema, Layout(NESTED, "long", key="k"), {}).placed(batch, found, None)

    long.validate(full=True)
    values = keys.to_pylist()
    assert long.column("k").type == keys.type
    assert long.column("k").to_pylist() == [values[0], values[0], values[2]]
