"""The progress of a run is right at each call of the network: for every format, for files, limits and resumed runs."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from nerd_onnx.errors import InterruptedRunError
from nerd_onnx.inference.arrays import Floats
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.meter import NetworkMeter
from nerd_onnx.tagger import Tagger, TagOptions
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from nerd_onnx.tagging.run_meter import RunMeter
from tests.support.marks import slow_but
from tests.support.models import sample_texts
from tests.support.quick_tagger import QuickNetwork

TOLERANCE = 0.05  # of a share: the reader's buffer, and batches of the longest segments first
ZSTD_BYTES = 1 << 15  # compressed bytes of which the decompressor may still hold back the text


class WatchedNetwork(QuickNetwork):
    """Notes the share that is done at each of its calls, and the tokens that it has read by then."""

    def __init__(self, labels: int, meter: RunMeter) -> None:
        super().__init__(labels)
        self.meter = meter
        self.seen: list[tuple[float | None, int]] = []
        self.tokens = 0

    def logits(self, batch: EncodedBatch) -> Floats:
        """Score a batch. *Shape:* (batch, tokens, labels)"""
        self.seen.append((self.meter.share, self.tokens))
        self.tokens += batch.ids.size - 2 * len(batch.ids)  # special tokens
        return super().logits(batch)


def watched(job: TagJob, model: Path, stop: Callable[[], int | None] | None = None) -> tuple[RunMeter, WatchedNetwork]:
    """Run a job and return its meter, and what the network noted."""
    meter, bundle = RunMeter(), Bundle.load(model)
    network = WatchedNetwork(len(bundle.labels.names), meter)
    tagger = Tagger(bundle, TagOptions(threads=1), network)
    try:
        tag_files(tagger, job, stop=stop, meter=meter)
    except InterruptedRunError:
        assert stop is not None
    finally:
        tagger.close()
    return meter, network


def shares(network: WatchedNetwork) -> list[float]:
    """Return the noted shares, after a check that they never fall and that none is 1."""
    found = [share for share, _ in network.seen if share is not None]
    assert len(found) == len(network.seen)
    assert all(one <= next_one + 1e-9 for one, next_one in pairwise(found))
    assert all(0 <= share < 1 for share in found)
    return found


def texts(number: int) -> Iterator[str]:
    """Yield different texts of similar length, which a compressor does not make much shorter than other texts."""
    rng, words = random.Random(7), " ".join(sample_texts()).split()
    for i in range(number):
        yield f"{i} {' '.join(rng.choices(words, k=40))}"


def lines(number: int) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts(number))


def written(folder: Path, name: str, number: int = 1500) -> Path:
    """Write a file of texts in the format that its name shows."""
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"text": list(texts(number))}), path, row_group_size=500)
    else:
        pack = {"gz": gzip.compress, "st": zstandard.ZstdCompressor().compress}.get(name[-2:], bytes)
        path.write_bytes(pack(lines(number)))
    return path


@pytest.mark.parametrize("limit", slow_but([None, 300], [None, 300, 10_000_000]))
@pytest.mark.parametrize(
    "name", slow_but(["in.jsonl.gz", "in.parquet"], ["in.jsonl", "in.jsonl.gz", "in.jsonl.zst", "in.parquet"])
)
def test_the_share_is_that_of_the_tokens(tiny_bundle: Path, tmp_path: Path, name: str, limit: int | None) -> None:
    source = written(tmp_path, name)
    job = TagJob([str(source)], str(tmp_path / "out.parquet"), limit=limit, chunk_rows=400)
    meter, network = watched(job, tiny_bundle)
    true = [tokens / network.tokens for _, tokens in network.seen]
    held_back = ZSTD_BYTES / source.stat().st_size if name.endswith(".zst") else 0.0
    assert shares(network) == pytest.approx(true, abs=TOLERANCE + held_back)
    assert meter.share == pytest.approx(1)
    assert meter.rows == min(1500, limit or 1500)


@pytest.mark.slow
def test_the_share_moves_within_one_long_text(tiny_bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"text": "\n\n".join(texts(6000))}) + "\n")
    _, network = watched(TagJob([str(source)], str(tmp_path / "out.jsonl")), tiny_bundle)
    true = [tokens / network.tokens for _, tokens in network.seen]
    assert source.stat().st_size > 1 << 20  # several parts
    assert shares(network) == pytest.approx(true, abs=TOLERANCE)


@pytest.mark.slow
def test_files_count_by_their_bytes(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, number in {"a.jsonl": 3000, "b.jsonl": 10, "c.jsonl": 300, "d.parquet": 1500, "e.jsonl.gz": 100}.items():
        written(folder, name, number)
    _, network = watched(TagJob([str(folder)], str(tmp_path / "out")), tiny_bundle)
    found = shares(network)
    assert found[0] < 0.01
    assert found[-1] > 0.9
    assert max(np.diff(found)) < 0.1


def test_a_resumed_run_begins_where_it_was_and_counts_its_own_work(tiny_bundle: Path, tmp_path: Path) -> None:
    source, rows = written(tmp_path, "in.jsonl"), 150
    job = TagJob([str(source)], str(tmp_path / "out.jsonl"), chunk_rows=rows)
    batches = iter([None, None, None, 15])
    stopped, first = watched(job, tiny_bundle, lambda: next(batches))
    assert stopped.rows == 4 * rows

    meter, network = watched(replace(job, resume=True), tiny_bundle)
    assert shares(network)[0] == pytest.approx(4 * rows / 1500, abs=TOLERANCE)
    assert meter.rows == 1500
    assert meter.network.tokens == network.tokens < 0.7 * (first.tokens + network.tokens)

    # A run that has tagged nothing yet knows no speed.
    fresh = RunMeter()
    fresh.begin([], None)
    assert fresh.seconds_left is None


def test_a_stream_has_no_share(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with written(tmp_path, "in.jsonl", 300).open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        meter, network = watched(TagJob(["-"], str(tmp_path / "out.jsonl")), tiny_bundle)
    assert {share for share, _ in network.seen} == {None}
    assert meter.share is meter.seconds_left is None
    assert meter.network.tokens == network.tokens > 0


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1)), max_size=8), st.data())
def test_shares_of_items_never_fall_and_end_at_their_sum(items: list[tuple[int, float]], data: st.DataObject) -> None:
    meter, before = NetworkMeter(), 0.0
    for characters, share in items:
        meter.expect(share)
        place = meter.begin(characters)
        for _ in range(data.draw(st.integers(0, 3))):
            meter.advance(data.draw(st.floats(0, 60)), 1)
            assert meter.share() >= before - 1e-9
            before = meter.share()
        meter.settle(place)
        assert meter.share() >= before - 1e-9
        before = meter.share()
    assert before == pytest.approx(sum(share for _, share in items))
