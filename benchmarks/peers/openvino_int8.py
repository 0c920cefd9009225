"""OpenVINO int8 by NNCF in this project's tagger. Streams, tokens per batch and inner precision are tried."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import Engine, Peer, Setup, Sources

CALIBRATION_TEXTS = 300


class OpenVino(Peer):
    """Static int8 by NNCF's preset for transformers, with one thread per stream."""

    name = "openvino_int8"
    title = "OpenVINO int8 (NNCF), our batches"
    packages = ("openvino", "nncf", "onnxruntime", "tokenizers", "pyarrow")
    environment = "openvino"
    needs = ("exported", "calibration")

    def prepare(self, sources: Sources, folder: Path) -> None:
        """Convert the exported graph, and quantize it on calibration texts."""
        import nncf
        import openvino

        from benchmarks.peers.onnxruntime_stock import encoded_texts

        model = openvino.convert_model(Path(sources.exported or "") / "model.onnx")
        names = [port.get_any_name() for port in model.inputs]
        batches = [_feed(names, batch) for batch in encoded_texts(sources, CALIBRATION_TEXTS)]

        quantized = nncf.quantize(
            model,
            nncf.Dataset(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(batches),
        )
        # By default, save_model() rounds the weights that stay floats to 16 bits.
        openvino.save_model(quantized, folder / "model.xml", compress_to_fp16=False)

    def load(self, sources: Sources, folder: Path) -> Engine:
        """Load the quantized model. It is compiled once for each combination of calls and precision."""
        import openvino

        from benchmarks.peers.networks import NetworkEngine, size_of

        core = openvino.Core()
        model = core.read_model(folder / "model.xml")
        compiled: dict[tuple[Any, ...], _Network] = {}

        def make(setup: Setup) -> _Network:
            # Compiling is slow, and the tokens per batch do not affect it.
            key = (setup["calls"], setup["precision"])
            if key not in compiled:
                hints = {
                    "PERFORMANCE_HINT": "THROUGHPUT",
                    "NUM_STREAMS": str(setup["calls"]),
                    "INFERENCE_NUM_THREADS": str(sources.threads),
                    "INFERENCE_PRECISION_HINT": setup["precision"],
                }
                compiled[key] = _Network(core.compile_model(model, "CPU", hints))

            return compiled[key]

        threads = sources.threads
        setups = [
            {"calls": threads, "precision": precision, "batch_tokens": budget}
            for precision in ("bf16", "f32")
            for budget in (256, 512, 1024)
        ]
        # All threads in one call.
        setups.append({"calls": 1, "precision": "bf16", "batch_tokens": 1024})
        return NetworkEngine(sources.bundle, make, setups, size_of(folder / "model.xml", folder / "model.bin"))


class _Network:
    """A compiled model, with one request per calling thread."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._names = [port.get_any_name() for port in compiled.inputs]
        self._local = threading.local()

    def logits(self, batch: Any) -> Any:
        """Return the logits of a batch. *Shape:* (texts, tokens, tags)."""
        import numpy as np

        # Two threads must not use the same request at the same time.
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()

        result = request.infer(_feed(self._names, batch), share_inputs=True)[0]
        return np.asarray(result, dtype=np.float32)


def _feed(names: list[str], batch: Any) -> dict[str, Any]:
    """Return the named inputs of a batch."""
    inputs = batch.inputs()
    return {name: inputs[name] for name in names}
