"""
Run any network in this project's tagger, with the same tokens, the same length-sorted batches and the same decoding.

The bundle's calibration is not used, because it belongs to the bundle's own graph: each word is decoded by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.peers.peer import Setup
from nerd_export.models.networks import Recorder
from nerd_onnx.inference.arrays import Floats
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.inference.session import Network
from nerd_onnx.tagger import Tagger, TagOptions
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files

BUDGETS = (256, 512, 1024)  # tokens per batch that are tried
WORD_SPANS = pa.list_(
    pa.struct([("start", pa.int64()), ("end", pa.int64()), ("label", pa.string()), ("fine_label", pa.string())])
)


class NetworkEngine:
    """
    A network in this project's tagger.

    :param folder: bundle that gives the tokenizer, the labels and the segment length
    :param make: returns the network of a setup. The setup's ``calls`` run at the same time, each with at most
        ``batch_tokens`` tokens
    :param setups: setups to try
    :param size_bytes: size of the model files
    """

    def __init__(
        self, folder: Path, make: Callable[[Setup], Network], setups: Sequence[Setup], size_bytes: int
    ) -> None:
        self._bundle = Bundle.load(folder)
        self._make = make
        self.setups = setups
        self.size_bytes = size_bytes

    def configure(self, setup: Setup) -> None:
        """Make the network of a setup, and its tagger."""
        self._setup = setup
        self._network = WithoutWarnings(self._make(setup))
        self._tagger = self._tagger_of(self._network)

    def tag(self, source: Path, target: Path) -> int:
        """Tag a file through the same pipeline as ``nerd-tag``, and return the number of entities."""
        return tag_files(self._tagger, TagJob([str(source)], str(target), overwrite=True)).entities

    def words(self, source: Path, target: Path) -> None:
        """
        Tag sentences that are split into words.

        :param source: Parquet file with a column ``tokens``
        :param target: Parquet file to write, with a column ``entities`` whose offsets count words
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
        Run only the network, on the batches of a file.

        :return: ``seconds``; ``tokens`` of the texts; ``positions``: tokens with the special ones; ``squares``: sum of
            the squared lengths of the segments
        """
        texts = pq.read_table(source, columns=["text"])["text"].to_pylist()
        # Tokenize before the clock starts.
        recorder = Recorder(len(self._bundle.labels.names))
        # One call at a time, so that the order of the batches is the same for all peers.
        tokens = self._tagger_of(recorder, calls=1).tag_arrays(texts).tokens

        with ThreadPoolExecutor(self._setup["calls"]) as pool:
            begin = time.perf_counter()
            # Through list(), because the map is lazy: it has to end inside the clock.
            list(pool.map(self._network.logits, recorder.batches))
            seconds = time.perf_counter() - begin

        return {
            "seconds": seconds,
            "tokens": tokens,
            "positions": sum(batch.ids.size for batch in recorder.batches),
            # Attention compares each token with each token of its own segment.
            "squares": sum(batch.ids.size * batch.ids.shape[1] for batch in recorder.batches),
        }

    def _tagger_of(self, network: Network, calls: int | None = None) -> Tagger:
        options = TagOptions(batch_tokens=self._setup["batch_tokens"], threads=calls or self._setup["calls"])
        return Tagger(self._bundle.uncalibrated(), options, network=network)


class WithoutWarnings:
    """
    A network without the properties that make the tagger careful.

    The tagger gives a network whose texts influence each other only one text per call. That would slow down peers.
    """

    def __init__(self, network: Network) -> None:
        self._network = network

    def logits(self, batch: EncodedBatch) -> Floats:
        """Return the logits of a batch. *Shape:* (texts, tokens, tags)."""
        return self._network.logits(batch)


def side_by_side(threads: int) -> list[Setup]:
    """Return the setups of a network that runs one call per thread."""
    return [{"calls": threads, "batch_tokens": budget} for budget in BUDGETS]


def size_of(*paths: Path) -> int:
    """Return the total size of files in bytes."""
    return sum(path.stat().st_size for path in paths)
