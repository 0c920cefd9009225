"""Folders of Delta, Iceberg and Hudi tables are not read as plain files; no folder is left out without a word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nerd_onnx.errors import InputError, MissingExtraError
from nerd_onnx.storage.location import Location
from nerd_onnx.tagging.file_pairs import file_pairs
from tests.support.failures import fails
from tests.support.runs import texts, write_lines, write_parquet

# The files that make a folder a table.
TABLES = {
    "Iceberg": ["metadata/v1.metadata.json", "metadata/version-hint.text"],
    "Iceberg of pyiceberg": ["metadata/00000-0e2b7a0c-6f0e-4a0e-9a53-0f7b2f1e3c11.metadata.json"],
    "Iceberg, compressed": ["metadata/v3.gz.metadata.json"],
    "Hudi": [".hoodie/hoodie.properties"],
}
PLAIN = ["metadata/my.metadata.json", "delta_log/a.txt", "deep/_delta"]


def pairs(*inputs: Path | str) -> list[str]:
    return [pair.name for pair in file_pairs([Location.of(path) for path in inputs], Location("out/"), lambda _: None)]


def table(folder: Path, marks: list[str]) -> Path:
    """Make a folder with data and with what marks it as a table."""
    (folder / "data" / "p=1").mkdir(parents=True)
    write_lines(folder / "data" / "p=1" / "a.jsonl", ["Ada"])
    for mark in marks:
        (folder / mark).parent.mkdir(exist_ok=True)
        (folder / mark).write_text("")
    return folder


@pytest.mark.parametrize("kind", TABLES)
def test_tables_are_recognized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Those of Hudi are refused, and those of Iceberg need their extra."""
    monkeypatch.setitem(sys.modules, "pyiceberg.table", None)
    folder = table(tmp_path / "lake" / "users", TABLES[kind])
    for path in (folder, tmp_path, f"{tmp_path}/*", f"{tmp_path}/lake/us*"):
        if kind == "Hudi":
            with fails(InputError, "table-folder", file=str(folder), found="Hudi"):
                pairs(path)
        else:
            with fails(MissingExtraError, "iceberg-missing", extra="iceberg"):
                pairs(path)
    for path in (folder / "data", f"{folder}/data/*", f"{folder}/data/p=1/*.jsonl", f"{tmp_path}/**/*.jsonl"):
        with fails(InputError, "inside-table", table=str(folder)):
            pairs(path)
    # A file that was asked for by its name is read.
    assert pairs(folder / "data" / "p=1" / "a.jsonl") == ["a.jsonl"]


def test_folders_that_are_no_tables(tmp_path: Path) -> None:
    folder = table(tmp_path / "users", PLAIN)
    assert pairs(folder) == ["data/p=1/a.jsonl", "metadata/my.metadata.json"]
    assert pairs(folder / "data") == ["p=1/a.jsonl"]


def test_delta_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(tmp_path / "users", ["_delta_log/00000000000000000000.json"])
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with fails(MissingExtraError, "delta-missing", extra="delta"):
        pairs(tmp_path)


@pytest.mark.parametrize(
    ("mark", "kind"),
    [("_delta_log/0.json", "Delta"), (".hoodie/x", "Hudi")],
)
def test_tables_in_remote_storage_are_refused(mark: str, kind: str, tmp_path: Path) -> None:
    """Delta tables may describe themselves as Iceberg tables too."""
    folder = table(tmp_path / "lake" / "users", [mark, "metadata/v1.metadata.json"])
    for path in (f"local://{tmp_path}", f"local://{folder}", f"local://{tmp_path}/**/*.jsonl"):
        with fails(InputError, "table-folder", found=kind):
            pairs(path)


def test_iceberg_needs_its_extra_in_remote_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiceberg.table", None)
    folder = table(tmp_path / "users", ["metadata/v1.metadata.json"])
    for path in (f"local://{tmp_path}", f"local://{folder}", f"local://{folder}/metadata/v1.metadata.json"):
        with fails(MissingExtraError, "iceberg-missing", extra="iceberg"):
            pairs(path)
    with fails(InputError, "table-folder", found="Iceberg"):
        pairs(f"local://{tmp_path}/**/*.jsonl")


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """Make a folder with two subfolders, of which the second cannot be listed."""
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        write_parquet(tmp_path / "in" / name / "1.parquet", texts(20))
    (tmp_path / "in" / "b").chmod(0)
    yield tmp_path
    (tmp_path / "in" / "b").chmod(0o755)


# Root may list every folder, unless it gives up these capabilities.
_AS_OTHERS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


def tag(folder: Path, *options: str, source: str = "in") -> tuple[int, dict[str, object]]:
    done = subprocess.run(
        [*_AS_OTHERS, sys.executable, "-m", "nerd_onnx.cli", source, "out", "--json", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, object] = json.loads(done.stderr.strip().splitlines()[-1])
    return done.returncode, found


@pytest.mark.parametrize("source", ["in", "in/*", "in/**/*.parquet", "in/*/*.parquet"])
def test_folder_that_cannot_be_listed_ends_the_run(closed: Path, source: str) -> None:
    code, error = tag(closed, source=source)
    assert code == 1
    assert (error["reason"], error["file"]) == ("cannot-list", "in/b")
    assert not (closed / "out").exists()


def test_folder_that_a_glob_does_not_name_is_not_listed(closed: Path) -> None:
    code, summary = tag(closed, source="in/a*/*.parquet")
    assert (code, summary["files"]) == (0, 1)


def test_folder_that_cannot_be_listed_is_an_unreadable_file(closed: Path) -> None:
    rejects = closed / "rejects.jsonl"
    code, summary = tag(closed, "--on-error", "skip", "--rejects", "rejects.jsonl")
    assert (code, summary["files"], summary["refused_files"]) == (3, 1, 1)
    (line,) = rejects.read_text().splitlines()
    assert json.loads(line)["file"] == "b"
    assert "cannot be listed" in json.loads(line)["reason"]
    assert [path.name for path in (closed / "out").rglob("*")] == ["a", "1.parquet"]
