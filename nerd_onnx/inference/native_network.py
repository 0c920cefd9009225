"""The network of a bundle in the native encoder, instead of an onnxruntime session."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from nerd_onnx.errors import ModelError
from nerd_onnx.inference.arrays import Floats
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.inference.native_layout import NativeLayout, read_weights
from nerd_onnx.inference.session import checked_logits
from nerd_onnx.native.library import Encoder, Library
from nerd_onnx.stages import stage

# Of what the native encoder computes: the same with every instruction set. It must change with the last bit of a logit,
# because --resume then must not mix results.
NATIVE_BITS = "native encoder 1"
# In one call of the library, which cannot be interrupted: a second of plain C++.
_CALL_TOKENS = 256


class NativeNetwork:
    """
    A network in the native encoder, with one thread per call. Several threads may call it at the same time.

    :param model_file: the graph, which has the weights
    :param layout: where they are in it
    :param library: the native library
    :param path: instruction set; empty for the fastest that this processor has
    :ivar labels: number of labels the network scores
    :ivar instructions: the instruction set that runs
    :raises ModelError: when the weights are not those that the layout describes
    """

    def __init__(self, model_file: Path, layout: NativeLayout, library: Library, path: str = "") -> None:
        shape, weights = read_weights(layout, model_file)
        self._encoder = Encoder(library, path, shape, weights, str(model_file))
        self._name = str(model_file)
        self.labels = self._encoder.labels
        self.instructions = self._encoder.path
        self._stopped = threading.Event()

    @stage("model")
    def logits(self, batch: EncodedBatch) -> Floats:
        """
        Score a batch; see :class:`~nerd_onnx.inference.session.Network`.

        :raises ModelError: when an id is not in the network's table, the segments are too long, or the call was stopped
        :raises NotFiniteError: when a logit is not a finite number
        """
        inputs, stopped = batch.inputs(), self._stopped
        ids, types = inputs["input_ids"], inputs["token_type_ids"]
        tokens = ids.shape[1]
        step = max(1, _CALL_TOKENS // max(1, tokens))

        parts = []
        # Also without any segment, because logits of none have a shape too.
        for begin in range(0, max(1, len(ids)), step):
            if stopped.is_set():
                raise ModelError(f"{self._name}: was stopped", reason="cannot-run", file=self._name, tokens=tokens)
            parts.append(self._encoder.logits(ids[begin : begin + step], types[begin : begin + step]))

        logits = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return checked_logits(logits, batch, self.labels, self._name)

    def stop(self) -> None:
        """End the calls of :meth:`logits` that are running; they fail. Later calls are not affected."""
        stopped, self._stopped = self._stopped, threading.Event()
        stopped.set()
