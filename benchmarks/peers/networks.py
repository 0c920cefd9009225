"""Networks of other makers behind this project's tagger: same tokens, same length-sorted batches, same decoding.

They decide word by word, as models do without a calibration: networks are compared here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.peers.peer import Setup
from nerd_onnx.inference.arrays import Floats
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.inference.session import Network
from nerd_onnx.tagger import Tagger, TagOptions
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files

BUDGETS = (256, 512, 1024)  # tokens a batch that are tried
WORD_SPANS = pa.list_(
    pa.struct([("start", pa.int64()), ("end", pa.int64()), ("label", pa.string()), ("fine_label", pa.string())])
)


class NetworkEngine:
    """
    Any network in the tagger.

    :param folder: bundle that gives tokenizer, labels and segment length
    :param make: makes the network that a setup describes; ``calls`` of it run at the same time, with at most
        ``batch_tokens`` tokens each
    :param setups: what to try
    :param size_bytes: size of its model files
    """

    def __init__(
        self, folder: Path, make: Callable[[Setup], Network], setups: Sequence[Setup], size_bytes: int
    ) -> None:
        self._bundle = Bundle.load(folder)
        self._make = make
        self.setups = setups
        self.size_bytes = size_bytes

    def configure(self, setup: Setup) -> None:
        """Make the network, and a tagger around it."""
        self._setup = setup
        self._network = AsGiven(self._make(setup))
        self._tagger = self._tagger_of(self._network)

    def tag(self, source: Path, target: Path) -> int:
        """Tag a file by the project's own file-to-file pipeline."""
        return tag_files(self._tagger, TagJob([str(source)], str(target), overwrite=True)).entities

    def words(self, source: Path, target: Path) -> None:
        """
        Tag given words.

        :param source: Parquet file with a column ``tokens``
        :param target: receives a column ``entities``, whose offsets count words
        """
        sentences = pq.read_table(source, columns=["tokens"])["tokens"].to_pylist()
        spans, labels = self._tagger.tag_words(sentences), self._bundle.labels
        found: list[list[dict[str, Any]]] = [[] for _ in sentences]

        for row, start, end, label, fine in zip(
            spans.row, spans.start, spans.end, spans.label, spans.fine, strict=True
        ):
            fine_label = labels.fine_types[fine] if labels.has_fine_level else None
            found[row].append(
                {"start": int(start), "end": int(end), "label": labels.types[label], "fine_label": fine_label}
            )

        pq.write_table(pa.table({"entities": pa.array(found, WORD_SPANS)}), target)

    def replay(self, source: Path) -> dict[str, float]:
        """
        Run the network alone over the batches that a file makes.

        :return: ``seconds``; ``tokens`` of the texts; ``positions``, with special tokens; ``squares``, the sum of the
            squared lengths of the segments
        """
        texts = pq.read_table(source, columns=["text"])["text"].to_pylist()
        recorder = Recorder(len(self._bundle.labels.names))
        tokens = self._tagger_of(recorder, calls=1).tag_arrays(texts).tokens
        with ThreadPoolExecutor(self._setup["calls"]) as pool:
            begin = time.perf_counter()
            list(pool.map(self._network.logits, recorder.batches))
            seconds = time.perf_counter() - begin

        return {
            "seconds": seconds,
            "tokens": tokens,
            "positions": sum(batch.ids.size for batch in recorder.batches),
            "squares": sum(batch.ids.size * batch.ids.shape[1] for batch in recorder.batches),
        }

    def _tagger_of(self, network: Network, calls: int | None = None) -> Tagger:
        options = TagOptions(batch_tokens=self._setup["batch_tokens"], threads=calls or self._setup["calls"])
        return Tagger(self._bundle.uncalibrated(), options, network=network)


class AsGiven:
    """A network without its warnings: the tagger would run one that mixes texts on one text at a time."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def logits(self, batch: EncodedBatch) -> Floats:
        """Score a batch."""
        return self._network.logits(batch)


class Recorder:
    """Keeps the batches that it is given, and scores them all zero."""

    def __init__(self, labels: int) -> None:
        self._labels = labels
        self.batches: list[EncodedBatch] = []

    def logits(self, batch: EncodedBatch) -> Floats:
        """Remember a batch."""
        self.batches.append(batch)
        return np.zeros((*batch.ids.shape, self._labels), dtype=np.float32)


def side_by_side(threads: int) -> list[Setup]:
    """Give the setups of a network that runs a call a thread."""
    return [{"calls": threads, "batch_tokens": budget} for budget in BUDGETS]


def size_of(*paths: Path) -> int:
    """Add up the sizes of files."""
    return sum(path.stat().st_size for path in paths)
