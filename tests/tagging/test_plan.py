"""What follows from tagger and job is derived once per run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nerd_onnx.errors import OptionError
from nerd_onnx.formats import open_input
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging import pipeline, plan
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.plan import Plan
from nerd_onnx.tagging.run import tag_files
from tests.support.failures import fails
from tests.support.runs import texts, write_lines

FILES = 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write some small files."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(FILES):
        write_lines(folder / f"{i}.jsonl", texts(20)[i::FILES])
    return folder


def test_a_run_derives_each_fact_once(
    tagger: Tagger, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def count(name: str) -> None:
        original = getattr(plan, name)

        def counted(*args: Any, **options: Any) -> Any:
            calls[name] += 1
            return original(*args, **options)

        monkeypatch.setattr(plan, name, counted)

    for name in ("Layout", "options_of", "facts_of", "output_format_of"):
        count(name)
    tag_files(tagger, TagJob([str(folder)], str(tmp_path / "out"), output_format="parquet"))

    assert calls == {"Layout": 1, "options_of": 1, "facts_of": 1, "output_format_of": FILES}


def test_only_the_turn_of_a_small_file_reads_its_types(
    tagger: Tagger, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, bool]] = []

    def counted(path: str, *, typed: bool, **options: Any) -> Any:
        opened.append((Path(path).name, typed))
        return open_input.open_reader(path, typed=typed, **options)

    monkeypatch.setattr(pipeline, "open_reader", counted)
    tag_files(tagger, TagJob([str(folder)], str(tmp_path / "out"), output_format="parquet"))

    assert sorted(opened) == [(f"{i}.jsonl", typed) for i in range(FILES) for typed in (False, True)]


def test_a_plan_reports_a_mistake_when_the_fact_is_needed(tagger: Tagger, folder: Path, tmp_path: Path) -> None:
    too_small = Plan.of(tagger, TagJob([str(folder)], str(tmp_path / "out"), max_memory=1_000_000))
    assert [pair.name for pair in too_small.pairs] == [f"{i}.jsonl" for i in range(FILES)]
    with fails(OptionError, "memory-too-small"):
        _ = too_small.limits


def test_retried_rows_select_their_files(tagger: Tagger, folder: Path, tmp_path: Path) -> None:
    rejects = tmp_path / "r.jsonl"
    rejects.write_text('{"file": "1.jsonl", "row": 2}\n{"file": "3.jsonl", "row": null}\n')
    retry = Plan.of(tagger, TagJob([str(folder)], str(tmp_path / "out"), retry_rejects=str(rejects)))
    assert [(pair.name, retry.retried_rows(pair)) for pair in retry.pairs] == [
        ("1.jsonl", frozenset({2})),
        ("3.jsonl", None),
    ]
