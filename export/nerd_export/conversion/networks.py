"""The networks that are compared: the PyTorch original, and what is run beside another to see how they differ."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from nerd_onnx.inference.arrays import Floats, Ints
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.session import Network
from nerd_onnx.tagger import Tagger, TagOptions

_REMEMBERED_BYTES = 256 << 20


class TorchNetwork:
    """The PyTorch original, behind the interface of the runtime's session."""

    def __init__(self, model: Any) -> None:
        self._model = model.eval()

    def logits(self, ids: Ints) -> Floats:
        """Score a batch of segments of one length. *Shape:* (batch, tokens) to (batch, tokens, labels)."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(ids))
            result: Floats = self._model(input_ids=batch, attention_mask=torch.ones_like(batch)).logits.float().numpy()
            return result


class Remembered:
    """
    A network that keeps the logits of batches it has seen, up to a limit.

    One exported graph after the other is compared with the same original on the same texts.

    :param limit_bytes: logits beyond this are computed again
    """

    def __init__(self, network: Network, limit_bytes: int = _REMEMBERED_BYTES) -> None:
        self._network = network
        self.mixes_texts = getattr(network, "mixes_texts", False)
        self._room = limit_bytes
        self._seen: dict[tuple[int, bytes], Floats] = {}
        self._lock = threading.Lock()

    def logits(self, ids: Ints) -> Floats:
        """Score a batch, or give what it got before; see :class:`Network`."""
        key = ids.shape[1], ids.tobytes()
        found = self._seen.get(key)
        if found is None:
            found = self._network.logits(ids)
            with self._lock:
                if found.nbytes <= self._room:
                    self._room -= found.nbytes
                    self._seen[key] = found
        return found


class Observed:
    """Runs two networks on every batch, gives the first's logits, and remembers how the second's differ."""

    def __init__(self, original: Network, exported: Network) -> None:
        self._original, self._exported = original, exported
        self._lock = threading.Lock()
        self.largest = 0.0
        self.changed = 0
        self.tokens = 0

    def logits(self, ids: Ints) -> Floats:
        """Score a batch with both; see :class:`Network`."""
        expected, found = self._original.logits(ids), self._exported.logits(ids)
        difference = float(np.abs(expected - found).max())
        changed = int((expected.argmax(-1) != found.argmax(-1)).sum())
        with self._lock:
            self.largest = float(np.fmax(self.largest, difference)) if np.isfinite(difference) else float("inf")
            self.changed += changed
            self.tokens += ids.size
        return expected


class _Recorder:
    """Keeps the batches it is asked for, and decides nothing."""

    def __init__(self, labels: int) -> None:
        self._labels = labels
        self.batches: list[Ints] = []

    def logits(self, ids: Ints) -> Floats:
        self.batches.append(ids.copy())
        return np.zeros((*ids.shape, self._labels), dtype=np.float32)


def segment_batches(bundle: Bundle, texts: Sequence[str]) -> list[Ints]:
    """
    Give the batches that the runtime makes of some texts, the same ones in the same order every time.

    :return: token ids, special ones included. *Shape:* (batch, tokens) each
    """
    recorder = _Recorder(len(bundle.labels.names))
    tagger = Tagger(bundle, TagOptions(threads=1), network=recorder)
    try:
        tagger.tag_arrays(texts)
    finally:
        tagger.close()
    return recorder.batches
