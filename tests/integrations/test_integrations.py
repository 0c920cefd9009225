"""The tagger inside other libraries gives what it gives by itself."""

from __future__ import annotations

import itertools
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from datasets.fingerprint import Hasher

from nerd_onnx.errors import InputError, ModelError, OutputError
from nerd_onnx.inference.bundle import DEFAULT_FOLDER
from nerd_onnx.integrations.columns import entities_of
from nerd_onnx.integrations.datasets import map_function
from nerd_onnx.integrations.duckdb import register
from nerd_onnx.integrations.pandas import entities as in_pandas
from nerd_onnx.integrations.polars import entities as in_polars
from nerd_onnx.tagger import Entity, Tagger
from tests.support.failures import fails
from tests.support.models import sample_texts

TEXTS: list[str | None] = [None, *("" for _ in range(1500)), *sample_texts(), "🙂 é 東京 Anna", None] * 2


@pytest.fixture(scope="module")
def expected(tagger: Tagger) -> list[Any]:
    """Return the rows of the new column, tagged at once."""
    rows: list[Any] = tagger.tag_batch(pa.RecordBatch.from_pydict({"text": TEXTS})).column("entities").to_pylist()
    assert sum(len(row or ()) for row in rows) > 300
    return rows


def test_none_is_imported_with_its_module() -> None:
    modules = ("datasets", "polars", "duckdb", "pandas")
    code = "import sys; "
    code += "".join(f"import nerd_onnx.integrations.{name}; " for name in modules)
    code += "import nerd_onnx.convert.spacy; "
    code += f"print(sorted({{*{modules!r}, 'spacy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_generator_is_read_as_its_results_are_asked_for(tagger: Tagger) -> None:
    read = [0]

    def endless() -> Iterator[str]:
        for number in itertools.count():
            read[0] += 1
            yield f"Anna met Bob in Paris {number}."

    results = tagger.tag(endless())
    assert read[0] == 0
    first = list(itertools.islice(results, 1500))
    assert read[0] <= 1500 + 2048
    assert first == tagger.tag([f"Anna met Bob in Paris {number}." for number in range(1500)])
    long = tagger.tag("Anna met Bob. " * 30_000 for _ in itertools.count())
    assert len(next(long) or ()) > 0


@pytest.mark.slow
def test_a_generator_and_a_list_give_the_same_in_their_order(tagger: Tagger) -> None:
    assert list(tagger.tag(iter(TEXTS))) == tagger.tag(TEXTS)
    assert list(tagger.tag(iter([]))) == tagger.tag([]) == []
    assert isinstance(tagger.tag(tuple(TEXTS[:1])), list)
    found = tagger.tag(iter(["Anna", 3]))  # type: ignore[list-item]
    with pytest.raises(TypeError, match="text 1 is 3"):
        next(found)
    other: list[Entity] | None = next(tagger.tag(iter(["Anna"])))
    assert other is not None


def test_a_column_of_any_chunks(tagger: Tagger, expected: list[Any]) -> None:
    chunks = pa.chunked_array([TEXTS[:7], TEXTS[7:7], TEXTS[7:]], pa.large_string())
    assert entities_of(tagger, chunks).to_pylist() == expected
    assert entities_of(tagger, pa.chunked_array([], pa.string())).type == tagger.entity_field().type
    with fails(InputError, "not-text", found="int64"):
        entities_of(tagger, pa.array([1]))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [None, 2])
def test_datasets_map(tagger: Tagger, expected: list[Any], processes: int | None) -> None:
    rows = datasets.Dataset.from_dict({"text": TEXTS, "id": range(len(TEXTS))})
    tagged = rows.with_format("arrow").map(map_function(tagger), batched=True, batch_size=700, num_proc=processes)
    tagged = tagged.with_format(None)
    assert tagged["entities"][:] == expected
    assert tagged["id"][:] == list(range(len(TEXTS)))
    assert tagged.features["entities"].feature["start"].dtype == "int32"


def test_datasets_a_stream(tagger: Tagger, expected: list[Any]) -> None:
    rows = datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset()
    tagged = rows.with_format("arrow").map(map_function(tagger), batched=True).with_format(None)
    assert [row["entities"] for row in tagged] == expected


def test_datasets_its_cache_knows_the_function(tagger: Tagger, tiny_bundle: Path) -> None:
    same, other = Tagger.load(tiny_bundle), Tagger.load(tiny_bundle, min_score=0.5)
    same.tag(["Anna"])
    assert Hasher.hash(map_function(tagger)) == Hasher.hash(map_function(same))
    assert Hasher.hash(map_function(tagger)) != Hasher.hash(map_function(other))


def test_datasets_cache_knows_another_model_in_the_same_folder(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "model")
    before = map_function(Tagger.load(tmp_path / "model"))
    shutil.rmtree(tmp_path / "model")
    shutil.copytree(DEFAULT_FOLDER, tmp_path / "model")
    assert Hasher.hash(before) != Hasher.hash(map_function(Tagger.load(tmp_path / "model")))
    with fails(ModelError, "model-changed"):
        pickle.loads(pickle.dumps(before))(pa.table({"text": ["Anna"]}))  # noqa: S301 - just written


def test_datasets_mistakes(tagger: Tagger) -> None:
    rows = datasets.Dataset.from_dict({"text": ["Anna"]})
    with pytest.raises(TypeError, match=r'with_format\("arrow"\)'):
        rows.map(map_function(tagger), batched=True)
    taken = datasets.Dataset.from_dict({"text": ["Anna"], "entities": [1]}).with_format("arrow")
    with fails(OutputError, "column-exists", column="entities"):
        taken.map(map_function(tagger), batched=True)
    other = datasets.Dataset.from_dict({"body": ["Anna"]}).with_format("arrow")
    with fails(InputError, "column-missing", column="text", found="body"):
        other.map(map_function(tagger), batched=True)


@pytest.mark.parametrize("texts", ["text", pl.col("text"), pl.col("text").cast(pl.Categorical)])
def test_polars_an_expression(tagger: Tagger, expected: list[Any], texts: str | pl.Expr) -> None:
    frame = pl.DataFrame({"text": TEXTS, "id": range(len(TEXTS))})
    tagged = frame.with_columns(in_polars(texts, tagger))
    assert tagged["entities"].to_list() == expected
    lazy = frame.lazy().with_columns(in_polars(texts, tagger)).filter(pl.col("id") >= 5)
    for engine in ("in-memory", "streaming"):
        found = lazy.collect(engine=engine)
        assert found["entities"].to_list() == expected[5:]
        assert found.schema == lazy.collect_schema() == tagged.schema


def test_polars_nothing_and_other_types(tagger: Tagger) -> None:
    assert pl.DataFrame({"text": []}, {"text": pl.String}).select(in_polars("text", tagger)).height == 0
    with pytest.raises((InputError, pl.exceptions.ComputeError), match="int64"):
        pl.DataFrame({"text": [1]}).select(in_polars("text", tagger))


def test_duckdb_a_function(tagger: Tagger, expected: list[Any]) -> None:
    table = pa.table({"id": range(len(TEXTS)), "body": TEXTS})
    with duckdb.connect() as connection:
        register(connection, tagger)
        register(connection, tagger, "again")
        connection.register("articles", table)
        rows = connection.sql("SELECT entities(body) FROM articles ORDER BY id").fetchall()
        assert [row for (row,) in rows] == expected
        kind = connection.sql("SELECT typeof(again(body)) FROM articles LIMIT 1").fetchall()
        assert kind[0][0].lower().startswith('struct("start" integer')
        count = connection.sql("SELECT sum(len(entities(body))) FROM articles").fetchall()
        assert count == [(sum(len(row or ()) for row in expected),)]


def test_duckdb_several_threads(tagger: Tagger, tmp_path: Path) -> None:
    texts = [f"Anna met Bob in Paris {number}." for number in range(6000)]
    expected = entities_of(tagger, pa.array(texts)).to_pylist()
    with duckdb.connect(str(tmp_path / "db"), config={"threads": 4}) as connection:
        register(connection, tagger)
        connection.register("given", pa.table({"id": range(6000), "body": texts}))
        connection.sql("CREATE TABLE articles AS SELECT * FROM given")
        connection.sql("CREATE TABLE tagged AS SELECT id, entities(body) AS found FROM articles")
        found = connection.sql("SELECT found FROM tagged ORDER BY id").fetchall()
    assert [row for (row,) in found] == expected


@pytest.mark.parametrize("kind", ["object", "string", "category"])
def test_pandas(tagger: Tagger, expected: list[Any], kind: Any) -> None:
    series = pd.Series(TEXTS, index=range(100, 100 + len(TEXTS)), dtype=kind)
    found = in_pandas(series, tagger)
    assert found.tolist() == expected
    assert found.index.equals(series.index)
    assert found.name == "entities"
    with fails(InputError, "not-text"):
        in_pandas(pd.Series([1.5]), tagger)


def test_several_text_columns(tiny_bundle: Path) -> None:
    tagger = Tagger.load(tiny_bundle, text_column=("title", "body"))
    table = pa.table({"title": TEXTS[1500:1520], "body": TEXTS[1510:1530]})
    (batch,) = table.to_batches()
    expected = tagger.tag_batch(batch)
    titles, bodies = (expected.column(f"{name}_entities").to_pylist() for name in ("title", "body"))
    assert sum(len(row or ()) for row in titles) > 20

    mapped = datasets.Dataset(table).with_format("arrow").map(map_function(tagger), batched=True).with_format(None)
    assert [mapped["title_entities"][:], mapped["body_entities"][:]] == [titles, bodies]

    shown = pl.DataFrame(pl.from_arrow(table)).with_columns(
        in_polars("title", tagger), in_polars(pl.col("body"), tagger), in_polars(pl.col("body").alias("x"), tagger)
    )
    assert shown.columns == ["title", "body", "title_entities", "body_entities", "entities"]
    assert [shown["title_entities"].to_list(), shown["entities"].to_list()] == [titles, bodies]

    found = in_pandas(table["body"].to_pandas().rename("body"), tagger)
    assert (found.name, found.tolist()) == ("body_entities", bodies)

    with duckdb.connect() as connection:
        register(connection, tagger)
        connection.register("articles", table)
        rows = connection.sql("SELECT entities(title), entities(body) FROM articles").fetchall()
    assert rows == list(zip(titles, bodies, strict=True))
