"""transformers' token-classification pipeline with any model, as in a typical user's script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.peers.peer import Setup

BATCH_SIZES = (1, 8, 32)
STRIDE = 128  # tokens that two windows of a long text share
ENTITY = pa.struct(
    [("start", pa.int32()), ("end", pa.int32()), ("label", pa.string()), ("score", pa.float32()), ("text", pa.string())]
)


class PipelineEngine:
    """
    The pipeline. The label of a word is that of its first token.

    :param model: a model of transformers or optimum
    :param folder: folder of its tokenizer
    :param size_bytes: size of the model files
    """

    setups: Sequence[Setup] = [{"batch_size": size} for size in BATCH_SIZES]

    def __init__(self, model: Any, folder: Path, size_bytes: int) -> None:
        import transformers

        from nerd_onnx.inference.labels import OUTSIDE, scheme_of

        names = model.config.id2label
        if scheme_of(list(names.values())) == "IO":
            # The pipeline treats the part before a hyphen as a prefix: ``person-actor`` would become ``actor``.
            model.config.id2label = {i: name if name == OUTSIDE else f"I-{name}" for i, name in names.items()}

        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        tokenizer.model_max_length = model.config.max_position_embeddings - 2  # some families count from 2

        self._pipeline = transformers.pipeline(
            "token-classification",
            model=model,
            tokenizer=tokenizer,
            aggregation_strategy="first",
            stride=min(STRIDE, tokenizer.model_max_length // 4),
            device="cpu",
        )
        self.size_bytes = size_bytes

    def configure(self, setup: Setup) -> None:
        """Select the batch size."""
        self._batch_size = setup["batch_size"]

    def tag(self, source: Path, target: Path) -> int:
        """Tag a file, and return the number of entities."""
        table = pq.read_table(source)
        found = self._pipeline(table["text"].to_pylist(), batch_size=self._batch_size)

        column = pa.array([[_plain(entity) for entity in entities] for entities in found], pa.list_(ENTITY))
        pq.write_table(table.append_column("entities", column), target, compression="zstd")
        return sum(map(len, found))


def _plain(entity: dict[str, Any]) -> dict[str, Any]:
    """Return an entity of the pipeline as a value of the column."""
    return {
        "start": entity["start"],
        "end": entity["end"],
        "label": entity["entity_group"],
        "score": float(entity["score"]),
        "text": entity["word"],
    }
