"""The code blocks of the documentation run unchanged."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.support.pages import DOCS, blocks, run_blocks

PROGRAMS = {
    "nerd-tag": "-m nerd_onnx.cli",
    "nerd-convert": "-m nerd_onnx.cli.convert",
    "nerd-view": "-m nerd_onnx.cli.view",
    "python3": "",
}


def statements(sql: str) -> list[str]:
    return [one for one in sql.split(";") if one.strip()]


def test_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    found = blocks("python.md", "python")
    assert len(found) == 7

    printed = []
    for block in found:
        exec(compile(block, str(DOCS / "python.md"), "exec"), names)  # noqa: S102 - it is our own
        printed.append(capsys.readouterr().out)
    names["tagger"].close()

    lists, generators, datasets, polars, duckdb, pandas, arrow = printed
    assert lists == "[('person', 'Angela Merkel'), ('person', 'Barack Obama'), ('location', 'Berlin')]\n"
    assert generators.count("Entity(") == 2
    assert "'text': 'Ada Lovelace'" in datasets
    assert "'score': Value('float32')" in datasets
    assert polars == "['Ada Lovelace']\n"
    assert "'person', 'Ada Lovelace'" in duckdb
    assert pandas.startswith("['Ada Lovelace', 'London', ")
    assert arrow == "['text', 'entities']\n"


@pytest.mark.slow
def test_commands(tmp_path: Path) -> None:
    """The shell blocks of formats.md run in one folder, in their order."""
    functions = "".join(f"{name}() {{ '{sys.executable}' {how} \"$@\"; }}\n" for name, how in PROGRAMS.items())
    found = blocks("formats.md", "sh")
    assert len(found) == 11

    run_blocks(found, tmp_path, {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, before=functions)

    with contextlib.chdir(tmp_path), duckdb.connect() as connection:
        answers = [
            connection.sql(one).fetchall() for (sql,) in [blocks("formats.md", "sql")] for one in statements(sql)
        ]
    assert answers[:2] == [[(0,)], [("London", 1)]]
    assert answers[2][0][0]["text"] == "Ada Lovelace"

    made = {path.name for path in tmp_path.iterdir()}
    assert {
        "long.parquet",
        "posts.conll",
        "brat",
        "tasks.json",
        "docs.jsonl",
        "train.spacy",
        "people-tagged.csv",
        "tagged.arrow",
        "lists-long.csv",
        "lines.jsonl",
    } < made
