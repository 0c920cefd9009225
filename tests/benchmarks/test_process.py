"""Processes: their own memory, clear errors, and no paths of this machine in reports."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import typed_command
from benchmarks.machine import machine_facts
from benchmarks.paths import ROOT, shown, shown_command, without_folders
from benchmarks.peers.peer import PeerError
from benchmarks.processes.process import last_json_object, run_process
from benchmarks.processes.versions import versions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}\nnoise', {"a": 1}),
        ('{"a": 1}\n{"a": 2}\n', {"a": 2}),
        ('{"a": 1}\n{broken', {"a": 1}),
        ("no object\n[1]", None),
        ("", None),
    ],
)
def test_last_json_object(text: str, expected: dict[str, Any] | None) -> None:
    assert last_json_object(text) == expected


def test_process_is_measured_without_the_memory_of_this_one(tmp_path: Path) -> None:
    ballast = os.urandom(1) * (300 << 20)
    done = run_process([sys.executable, "-c", "print('{\"entities\": 3}')"], tmp_path)
    assert done.message == {"entities": 3}
    assert 0 < done.peak_rss_bytes < len(ballast)
    assert done.wall_s > 0
    assert done.cpu_s > 0


def test_failing_process_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"exit code 3\nbad luck"):
        run_process([sys.executable, "-c", "import sys; print('bad luck', file=sys.stderr); sys.exit(3)"], tmp_path)
    with pytest.raises(PeerError, match="no JSON object"):
        run_process([sys.executable, "-c", "print('hello')"], tmp_path)
    assert run_process([sys.executable, "-c", "print('hello')"], tmp_path, prints_json=False).message == {}


def test_paths_are_shown_from_the_repository() -> None:
    assert shown(ROOT / "benchmarks" / "out") == "benchmarks/out"
    assert shown(ROOT.parent / "shared" / "data") == "../shared/data"
    assert shown("/somewhere/else/model") == "model"


def test_commands_are_shown_as_typed() -> None:
    assert shown_command([sys.executable, "-m", "x", ROOT / "a.parquet"]) == "python -m x a.parquet"
    assert typed_command(["--model", "/x/m", "--out=/x/o", "--python", "spacy=/v/bin/python"]) == (
        "python -m benchmarks --model m --out=o --python spacy=python"
    )


def test_messages_lose_their_folders() -> None:
    answer = f"ImportError: no x ({ROOT}/benchmarks/a.py, '/opt/some-where/b.so'): see https://example.org/a/b or c/d"
    short = "ImportError: no x (benchmarks/a.py, 'b.so'): see https://example.org/a/b or c/d"
    assert without_folders(answer) == short


def test_machine_facts_hold_no_path() -> None:
    assert str(ROOT) not in json.dumps([machine_facts(), versions()])


def test_versions_are_asked_of_the_peers_interpreter() -> None:
    found = versions({"spacy": sys.executable, "openvino": "/nowhere/python"})
    assert "spacy" in found
    assert found["nncf"] is None
