"""The recipes of the cookbook run, in the order of the page, in one folder, against a real S3 server."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nerd_export.data.corpus import read_file
from tests.support.pages import DOCS, run_blocks
from tests.support.s3_server import S3, serving

PROGRAMS = {"nerd-tag": "nerd_onnx.cli", "nerd-convert": "nerd_onnx.cli.convert"}
TEXTS = ["Ada Lovelace lived in London.", "Charles Babbage met Ada Lovelace in London.", "Nothing happened."]
Blocks = list[tuple[str, str]]


def recipes() -> dict[str, Blocks]:
    """Return language and content of the blocks of each recipe."""
    parts = re.split(r"^## (.*)$", (DOCS / "cookbook.md").read_text("utf-8"), flags=re.MULTILINE)
    found = [re.findall(r"^```(\w+)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL) for part in parts[2::2]]
    return dict(zip(parts[1::2], found, strict=True))


def environment(folder: Path, server: S3) -> dict[str, str]:
    """Return an environment with the commands and the keys of the server."""
    (folder / "bin").mkdir()
    for name, module in PROGRAMS.items():
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n', "utf-8")
        program.chmod(0o755)

    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    caches = {"XDG_CACHE_HOME": str(folder / "cache"), "HF_HOME": str(folder / "hf")}
    return server.environment(PATH=path, PYTHONPATH=os.pathsep.join(sys.path), **caches)


def put_crawl(server: S3) -> None:
    """Put a folder of two Parquet files, as FineWeb has them, but of three rows."""
    for part in range(2):
        file = io.BytesIO()
        ids = [f"{part}-{row}" for row in range(len(TEXTS))]
        pq.write_table(pa.table({"text": TEXTS, "id": ids, "url": [f"https://a.example/{i}" for i in ids]}), file)
        server.put(f"crawl/part-{part}.parquet", file.getvalue())


def corrected(tasks: Path) -> None:
    """Write what Label Studio exports when a person accepted every prediction but one."""
    found = json.loads(tasks.read_text("utf-8"))
    for task in found:
        task["annotations"] = [{"result": task.pop("predictions")[0]["result"]}]
    found[0]["annotations"][0]["result"] = found[0]["annotations"][0]["result"][:1]
    (tasks.parent / "corrected.json").write_text(json.dumps(found), "utf-8")


@pytest.mark.slow
def test_the_recipes(tmp_path: Path) -> None:
    answers: list[list[tuple[object, ...]]] = []
    with serving(tmp_path / "s3.log") as server:
        put_crawl(server)
        variables, folder = environment(tmp_path, server), tmp_path / "work"
        folder.mkdir()

        for blocks in recipes().values():
            for language, content in blocks:
                if language == "sh":
                    run_blocks([content], folder, variables)
                elif language == "python":
                    subprocess.run([sys.executable, "-c", content], cwd=folder, env=variables, check=True)
                else:
                    assert language == "sql"
                    answers += _answers(content, folder)
                if (folder / "tasks.json").exists() and not (folder / "corrected.json").exists():
                    corrected(folder / "tasks.json")

        tagged = server.get("tagged/part-1.parquet")

    assert tagged is not None
    assert pq.read_table(io.BytesIO(tagged)).column_names == ["text", "id", "url", "entities"]
    frequent, with_ada, thresholds = answers
    assert frequent == [("Ada Lovelace", "person", 2), ("London", "location", 2), ("Charles Babbage", "person", 1)]
    assert with_ada == [("0-0",), ("0-1",)]
    counts = [int(str(row[1])) for row in thresholds]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] > 0

    assert [json.loads(line)["row"] for line in (folder / "rejects.jsonl").read_text("utf-8").splitlines()] == [1]
    mended = [json.loads(line) for line in (folder / "mended.jsonl").read_text("utf-8").splitlines()]
    assert [(row["id"], row["text"]) for row in mended] == [(2, "Paris was rebuilt.")]
    assert (folder / "redacted.txt").read_text("utf-8") == "[person] lived in London.\nNothing happened.\n"

    sentences = read_file(folder / "corrected.jsonl", "ner_tags")
    assert len(sentences.rows) == len(TEXTS)
    assert json.loads((folder / "corrected.jsonl").read_text("utf-8").splitlines()[0])["ner_tags"][:3] == [
        "person",
        "person",
        "O",
    ]


def _answers(sql: str, folder: Path) -> list[list[tuple[object, ...]]]:
    with duckdb.connect() as connection:
        connection.execute(f"SET file_search_path = '{folder}'")
        return [connection.sql(one).fetchall() for one in sql.split(";") if one.strip()]
