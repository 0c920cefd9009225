"""Networks for comparisons: the PyTorch original, a cache of logits, and a pair whose differences are measured."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from nerd_onnx.inference.arrays import Floats
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.inference.session import Network
from nerd_onnx.tagger import Tagger, TagOptions

_REMEMBERED_BYTES = 256 << 20


class TorchNetwork:
    """The PyTorch original with the interface of the runtime's session."""

    def __init__(self, model: Any) -> None:
        self._model = model.eval()

    def logits(self, batch: EncodedBatch) -> Floats:
        """Score segments of one length; see :class:`Network`."""
        import torch

        inputs = batch.inputs()
        if batch.types is None:  # many models have no such input
            del inputs["token_type_ids"]

        with torch.inference_mode():
            tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in inputs.items()}
            result: Floats = self._model(**tensors).logits.float().numpy()
            return result


class Remembered:
    """
    A network that caches the logits of batches, up to a limit.

    Several exported graphs are compared with one original on the same texts; the cache runs the original once.

    :param limit_bytes: logits beyond this are computed again
    """

    def __init__(self, network: Network, limit_bytes: int = _REMEMBERED_BYTES) -> None:
        self._network = network
        self.mixes_texts = getattr(network, "mixes_texts", False)
        self._room = limit_bytes
        self._seen: dict[tuple[int, bytes, bytes], Floats] = {}
        self._lock = threading.Lock()

    def logits(self, batch: EncodedBatch) -> Floats:
        """Return the logits of a batch, from the cache if possible; see :class:`Network`."""
        # The width belongs to the key: the same bytes can be two short segments or one long one.
        key = batch.ids.shape[1], batch.ids.tobytes(), b"" if batch.types is None else batch.types.tobytes()

        found = self._seen.get(key)
        if found is None:
            # Outside of the lock: two threads may compute the same batch, which costs time but changes nothing.
            found = self._network.logits(batch)
            with self._lock:
                if found.nbytes <= self._room:
                    self._room -= found.nbytes
                    self._seen[key] = found

        return found


class Observed:
    """Runs two networks on every batch, returns the logits of the first, and measures how the second differs."""

    def __init__(self, original: Network, exported: Network) -> None:
        self._original, self._exported = original, exported
        self._lock = threading.Lock()
        self.largest = 0.0
        self.changed = 0
        self.tokens = 0

    def logits(self, batch: EncodedBatch) -> Floats:
        """Run both networks on a batch; see :class:`Network`."""
        expected, found = self._original.logits(batch), self._exported.logits(batch)

        difference = float(np.abs(expected - found).max())
        changed = int((expected.argmax(-1) != found.argmax(-1)).sum())

        with self._lock:
            self.largest = float(np.fmax(self.largest, difference)) if np.isfinite(difference) else float("inf")
            self.changed += changed
            self.tokens += batch.ids.size

        return expected


class Recorder:
    """
    A network that keeps the batches that it gets; its logits are zeros.

    :param labels: number of labels
    :ivar batches: what it was called with, in order
    """

    def __init__(self, labels: int) -> None:
        self._labels = labels
        self.batches: list[EncodedBatch] = []

    def logits(self, batch: EncodedBatch) -> Floats:
        """Keep a batch; see :class:`Network`."""
        self.batches.append(batch)
        return np.zeros((*batch.ids.shape, self._labels), dtype=np.float32)


def segment_batches(bundle: Bundle, texts: Sequence[str]) -> list[EncodedBatch]:
    """Return the batches that the runtime makes of texts: always the same batches in the same order."""
    recorder = Recorder(len(bundle.labels.names))
    # One thread: with several, the order of the batches would vary, and with it sums over them.
    tagger = Tagger(bundle, TagOptions(threads=1), network=recorder)
    try:
        tagger.tag_arrays(texts)
    finally:
        tagger.close()
    return recorder.batches
