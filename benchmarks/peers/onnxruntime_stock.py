"""ONNX Runtime's quantizers, dynamic and static (QDQ) int8, in this project's tagger."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from benchmarks.peers.peer import Engine, Peer, Sources

CALIBRATION_TEXTS = 128


class StockDynamic(Peer):
    """``quantize_dynamic``: one activation scale per batch, computed at run time."""

    name = "onnxruntime_dynamic"
    title = "ONNX Runtime dynamic int8, our batches"
    packages = ("onnx", "onnxruntime")
    needs: ClassVar[tuple[str, ...]] = ("exported",)

    def prepare(self, sources: Sources, folder: Path) -> None:
        """Quantize the exported graph, with weights per channel."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            Path(sources.exported or "") / "model.onnx",
            folder / "model.onnx",
            # The layers that the bundle quantizes too: linear layers and word embeddings.
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )

    def load(self, sources: Sources, folder: Path) -> Engine:
        """Load the quantized graph with all optimizations of onnxruntime; one call per thread."""
        from benchmarks.peers.networks import NetworkEngine, side_by_side, size_of
        from nerd_onnx.inference.session import Session

        file = folder / "model.onnx"
        # "optimized" means that nerd-export has done it. This graph still gets all optimizations of onnxruntime.
        session = Session(file, optimized=False)
        return NetworkEngine(sources.bundle, lambda _: session, side_by_side(sources.threads), size_of(file))


class StockStatic(StockDynamic):
    """``quantize_static``: one activation scale per tensor, fixed by calibration."""

    name = "onnxruntime_static"
    title = "ONNX Runtime static int8 (QDQ), our batches"
    needs = ("exported", "calibration")

    def prepare(self, sources: Sources, folder: Path) -> None:
        """Calibrate on texts, and quantize the exported graph."""
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        exported, plain = Path(sources.exported or "") / "model.onnx", folder / "preprocessed.onnx"
        # Symbolic shape inference needs sympy, which is not among the packages of this peer.
        quant_pre_process(str(exported), str(plain), skip_symbolic_shape=True)

        quantize_static(
            plain,
            folder / "model.onnx",
            _Reader(plain, encoded_texts(sources, CALIBRATION_TEXTS)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Products of two activations stay fp32.
            extra_options={"MatMulConstBOnly": True},
        )
        plain.unlink()


def encoded_texts(sources: Sources, count: int) -> list[Any]:
    """
    Tokenize calibration texts with their special tokens.

    :return: :class:`nerd_onnx.inference.encoding.EncodedBatch` of one text each
    """
    import numpy as np
    import pyarrow.parquet as pq

    from nerd_onnx.inference.bundle import Bundle
    from nerd_onnx.inference.encoding import TextEncoder

    bundle = Bundle.load(sources.bundle)
    encoder = TextEncoder(bundle.tokenizer_file, letter_case=bundle.letter_case)
    texts = pq.read_table(sources.calibration, columns=["text"])["text"].to_pylist()[:count]

    room = bundle.segment_tokens - len(encoder.prefix) - len(encoder.suffix)
    encoded = encoder.encode(texts)
    counts = np.minimum(np.diff(encoded.text_tokens), room).tolist()
    # text_tokens has one item more than there are texts: the end of the last one.
    places = zip(encoded.text_tokens, counts, strict=False)

    return [encoder.batch(encoded, np.array([first]), count) for first, count in places if count]


class _Reader:
    """Calibration batches in the interface that onnxruntime reads."""

    def __init__(self, model_file: Path, batches: list[Any]) -> None:
        import onnx

        names = {value.name for value in onnx.load(model_file, load_external_data=False).graph.input}
        self._feeds = iter([{name: batch.inputs()[name] for name in names} for batch in batches])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch; None at the end."""
        return next(self._feeds, None)
