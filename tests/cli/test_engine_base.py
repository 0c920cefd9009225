"""An engine is one module and one entry of the list: here a small one that tags in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from nerd_onnx.engines.base import ENGINES, Engine, engine_named
from nerd_onnx.engines.choice import EngineChoice
from nerd_onnx.engines.run import tag_on_engine
from nerd_onnx.engines.worker import FileTasks, Outcome
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from tests.support.runs import texts, tree, write_lines


def run_files(tasks: FileTasks, archive: bytes, choice: EngineChoice) -> Iterator[Outcome]:
    """Tag one file after the other."""
    assert (archive, choice.engine) == (b"", "serial")  # the default model is not sent
    for number in range(len(tasks.jobs)):
        yield tasks.run(number, lambda: archive)


def test_another_engine_writes_the_files_of_a_local_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = cast("Engine", SimpleNamespace(run_files=run_files))
    monkeypatch.setitem(ENGINES, "serial", lambda: engine)
    (tmp_path / "in").mkdir()
    sources = [str(write_lines(tmp_path / "in" / f"{name}.jsonl", texts(20))) for name in "ab"]
    tagger = Tagger.load(threads=1)

    tag_files(tagger, TagJob(sources, f"{tmp_path / 'local'}/"))
    summary = tag_on_engine(EngineChoice("serial"), tagger, TagJob(sources, f"{tmp_path / 'engine'}/"))

    assert (summary["engine"], summary["files"], summary["rows"]) == ("serial", 2, 40)
    assert tree(tmp_path / "engine") == tree(tmp_path / "local")


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_every_engine_of_the_list_can_run_files(name: str) -> None:
    assert callable(engine_named(name).run_files)
