"""Small files share batches of the network, and each output is the same as if its file were tagged alone."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nerd_onnx.errors import InterruptedRunError
from nerd_onnx.formats.interfaces import Reader
from nerd_onnx.inference.arrays import Floats
from nerd_onnx.inference.encoding import EncodedBatch, TextEncoder
from nerd_onnx.inference.session import Network
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging import small_files
from nerd_onnx.tagging.file_pairs import FilePair
from nerd_onnx.tagging.job import TagJob, TagReport
from nerd_onnx.tagging.pipeline import open_pair_reader
from nerd_onnx.tagging.plan import Plan
from nerd_onnx.tagging.run import tag_files
from tests.support.profiles import example_count
from tests.support.runs import texts, tree, write_lines, write_parquet

_TWO: list[list[str | None]] = [["one"], ["two"]]  # so that there are several files


class Counting:
    """A network that counts its calls, and fails where a segment has a token."""

    def __init__(self, network: Network, bad: int | None = None) -> None:
        self._network = network
        self._bad = bad
        self.calls = 0

    def logits(self, batch: EncodedBatch) -> Floats:
        """Score."""
        self.calls += 1
        if self._bad is not None and (batch.ids == self._bad).any():
            raise RuntimeError("no kernel for this")
        return self._network.logits(batch)


def tag(tagger: Tagger, source: Path, output: Path, **options: Any) -> TagReport:
    return tag_files(tagger, TagJob([str(source)], str(output), **options))


def folder_of(folder: Path, rows: list[str], files: int) -> Path:
    folder.mkdir()
    for i in range(files):
        write_lines(folder / f"{i:03}.jsonl", rows[i::files])
    return folder


def calls(tagger: Tagger, source: Path, output: Path) -> int:
    network = Counting(tagger.network)
    counted = Tagger(tagger.bundle, tagger.options, network)
    tag(counted, source, output)
    counted.close()
    return network.calls


@pytest.mark.slow
def test_files_share_batches(tagger: Tagger, tmp_path: Path) -> None:
    rows = texts(400)
    whole = calls(tagger, write_lines(tmp_path / "whole.jsonl", rows), tmp_path / "o.jsonl")
    parts = calls(tagger, folder_of(tmp_path / "parts", rows, 80), tmp_path / "out")
    assert parts == whole


@pytest.mark.slow
def test_files_of_all_formats_give_the_same_bytes_as_alone(tagger: Tagger, tmp_path: Path) -> None:
    rows, folder = texts(60), tmp_path / "in"
    folder.mkdir()
    write_parquet(folder / "a.parquet", rows[:30], 7)
    write_lines(folder / "b.jsonl", rows[:30])  # the same texts once more
    write_lines(folder / "c.jsonl.gz", [f"Anna {i} in Rome" for i in range(2100)])  # more than a batch
    (folder / "d.jsonl").write_text('{"text": null}\n{"n": 1}\n{"text": ""}\nno JSON\n{"text": "Anna Bell"}\n')
    (folder / "e.parquet").write_bytes(b"PAR1 no more")
    with gzip.open(folder / "f.jsonl.gz", "wb") as bomb:
        bomb.write(json.dumps({"text": "Paris. " * 90_000}).encode())  # small on disk alone
    write_lines(folder / "g.jsonl", rows[30:])
    options: dict[str, Any] = {"on_error": "skip"}
    report = tag(tagger, folder, tmp_path / "out", rejects=str(tmp_path / "r.jsonl"), **options)

    assert (report.refused_files, report.rejected) == (1, 1)
    assert "e.parquet" not in tree(tmp_path / "out")
    for name, found in tree(tmp_path / "out").items():
        alone = tmp_path / "alone" / name
        alone.parent.mkdir(exist_ok=True)
        tag(tagger, folder / name, alone, rejects=str(tmp_path / f"{name}.rejects"), **options)
        assert found == alone.read_bytes(), name


@pytest.mark.slow
def test_a_folder_is_not_read_to_its_end_before_anything_is_written(
    tagger: Tagger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(40):
        write_lines(folder / f"{i:03}.jsonl", [f"Anna {n}" for n in range(60)] if i % 2 else [""])
    opened: list[str] = []

    def opening(plan: Plan, pair: FilePair, *, texts_only: bool) -> Reader:
        opened.append(pair.name)
        return open_pair_reader(plan, pair, texts_only=texts_only)

    monkeypatch.setattr(small_files, "open_pair_reader", opening)
    first: list[int] = []
    job = TagJob([str(folder)], str(tmp_path / "out"), chunk_rows=20)  # most files are more than a batch
    tag_files(tagger, job, lambda *_: first.append(len(opened)))

    assert first[0] <= 5
    assert len(opened) == 40


@settings(max_examples=example_count(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.lists(st.sampled_from(["Paris", "Anna Bell in Rome", "", None]), max_size=9), max_size=9),
    chunk_rows=st.sampled_from([None, 1, 4]),
)
def test_any_files(
    tagger: Tagger, tmp_path_factory: pytest.TempPathFactory, files: list[list[str | None]], chunk_rows: int | None
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "in").mkdir()
    for i, rows in enumerate([*files, *_TWO]):
        content = "".join(json.dumps({"text": text}) + "\n" for text in rows)
        (folder / "in" / f"{i}.jsonl").write_text(content or "\n")
    report = tag(tagger, folder / "in", folder / "out", chunk_rows=chunk_rows)
    rows_of = [*files, *_TWO]
    for i, rows in enumerate(rows_of):
        lines = (folder / "out" / f"{i}.jsonl").read_text().splitlines()
        found = [json.loads(line)["entities"] for line in lines]
        wanted = [None if row is None else [(e.start, e.end, e.label) for e in row] for row in tagger.tag(rows)]
        assert wanted == [row and [(e["start"], e["end"], e["label"]) for e in row] for row in found]

    tokens = tagger.tag_arrays([text for rows in rows_of for text in rows]).tokens

    assert (report.rows, report.tokens) == (sum(map(len, rows_of)), tokens)


def test_a_file_that_changes_after_it_was_read_ahead_is_tagged_as_it_is_then(tagger: Tagger, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", texts(40), 8)
    changed = texts(60)[40:]

    def change(report: TagReport, _: object) -> None:
        if report.rows == 5:
            write_lines(folder / "005.jsonl", changed)

    tag_files(tagger, TagJob([str(folder)], str(tmp_path / "out")), change)
    alone = write_lines(tmp_path / "alone.jsonl", changed)
    tag(tagger, alone, tmp_path / "o.jsonl")
    assert (tmp_path / "out" / "005.jsonl").read_bytes() == (tmp_path / "o.jsonl").read_bytes()


def test_a_text_that_fails_fails_only_its_own_file(tagger: Tagger, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", ["Anna Bell", "Rome", "the bad word", "Paris"], 4)
    bad = int(TextEncoder(tagger.bundle.tokenizer_file).encode(["bad"]).ids[0])
    failing = Tagger(tagger.bundle, tagger.options, Counting(tagger.network, bad))
    with pytest.raises(RuntimeError, match="no kernel"):
        tag(failing, folder, tmp_path / "out")
    assert [path.name for path in sorted((tmp_path / "out").glob("*.jsonl"))] == ["000.jsonl", "001.jsonl"]
    failing.close()


@pytest.mark.slow
def test_a_resumed_run_gives_the_same_bytes(tagger: Tagger, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", texts(90), 30)
    tag(tagger, folder, tmp_path / "whole")
    job = TagJob([str(folder)], str(tmp_path / "out"), chunk_rows=6)
    written = 0

    def stop() -> int | None:
        nonlocal written
        written += 1
        return 15 if written % 4 == 0 else None

    stops = 0
    while True:
        try:
            report = tag_files(tagger, replace(job, resume=stops > 0), stop=stop)
            break
        except InterruptedRunError:
            stops += 1

    assert stops >= 5
    assert report.rows == 90
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
