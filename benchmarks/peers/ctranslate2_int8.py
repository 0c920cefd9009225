"""CTranslate2 int8 in this project's tagger: CTranslate2 runs the BERT encoder, and numpy the classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import Engine, Peer, Sources

_HEAD = "classifier.npz"


class CTranslate2(Peer):
    """Dynamic int8 with one scale per token, and one call per thread."""

    name = "ctranslate2_int8"
    title = "CTranslate2 int8, our batches"
    packages = ("ctranslate2", "torch", "transformers", "onnxruntime", "tokenizers", "pyarrow")
    environment = "ctranslate2"
    needs = ("checkpoint",)

    def reason_unavailable(self, sources: Sources) -> str | None:
        """Return why a checkpoint cannot be converted, which only BERT can; None if it can."""
        found = super().reason_unavailable(sources)
        if found or sources.checkpoint is None:
            return found

        kind = json.loads((sources.checkpoint / "config.json").read_text("utf-8")).get("model_type")
        return None if kind == "bert" else f"CTranslate2 converts no {kind} encoder"

    def prepare(self, sources: Sources, folder: Path) -> None:
        """Convert the encoder, and write the classifier beside it."""
        import ctranslate2
        import numpy as np
        from transformers import AutoModel, AutoModelForTokenClassification, AutoTokenizer

        checkpoint, encoder = Path(sources.checkpoint or ""), folder / "encoder"
        # CTranslate2 converts encoders without a head for tokens, so the classifier is kept apart.
        AutoModel.from_pretrained(checkpoint).save_pretrained(encoder)
        AutoTokenizer.from_pretrained(checkpoint).save_pretrained(encoder)

        ctranslate2.converters.TransformersConverter(str(encoder)).convert(
            str(folder / "converted"), quantization="int8"
        )

        head = AutoModelForTokenClassification.from_pretrained(checkpoint).classifier
        np.savez(folder / _HEAD, weight=head.weight.detach().numpy().T, bias=head.bias.detach().numpy())

        for path in encoder.iterdir():  # only the converter needs these files
            path.unlink()

    def load(self, sources: Sources, folder: Path) -> Engine:
        """Load the encoder."""
        import ctranslate2

        from benchmarks.peers.networks import NetworkEngine, side_by_side, size_of

        encoder = ctranslate2.Encoder(
            str(folder / "converted"),
            device="cpu",
            compute_type="int8_float32",
            # One call per thread.
            inter_threads=sources.threads,
            intra_threads=1,
        )
        network = _Network(encoder, folder / _HEAD)
        size = size_of(folder / "converted" / "model.bin", folder / _HEAD)
        return NetworkEngine(sources.bundle, lambda _: network, side_by_side(sources.threads), size)


class _Network:
    """The encoder with the classifier."""

    def __init__(self, encoder: Any, head: Path) -> None:
        import numpy as np

        self._encoder = encoder
        arrays = np.load(head)
        self._weight, self._bias = arrays["weight"], arrays["bias"]

    def logits(self, batch: Any) -> Any:
        """Return the logits of a batch. *Shape:* (texts, tokens, tags)."""
        import ctranslate2
        import numpy as np

        # All segments of a batch have one length, so nothing is padding.
        lengths = np.full(len(batch.ids), batch.ids.shape[1], dtype=np.int32)
        found = self._encoder.forward_batch(
            ctranslate2.StorageView.from_array(np.ascontiguousarray(batch.ids, dtype=np.int32)),
            ctranslate2.StorageView.from_array(lengths),
            token_type_ids=None if batch.types is None else batch.types.tolist(),
        )

        return np.asarray(found.last_hidden_state) @ self._weight + self._bias
