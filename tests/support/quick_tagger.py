"""A tagger whose network costs nothing, for tests that are about everything around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nerd_onnx.inference.arrays import Floats
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.tagger import Tagger, TagOptions


class QuickNetwork:
    """
    Scores made up of the token ids: an entity now and then.

    :param labels: number of labels
    """

    def __init__(self, labels: int) -> None:
        self._scores = np.random.default_rng(3).random((1000, labels), dtype=np.float32) * 3
        self._scores[:950, 0] += 9  # most tokens stand outside

    def logits(self, batch: EncodedBatch) -> Floats:
        """Score a batch. *Shape:* (batch, tokens, labels)"""
        found: Floats = self._scores[batch.ids % 1000]
        return found


def quick_tagger(model: Path | None = None) -> Tagger:
    """Load a model, all but its network."""
    bundle = Bundle.load(model)
    return Tagger(bundle, TagOptions(threads=1), QuickNetwork(len(bundle.labels.names)))


def tagger_of(bundle: Bundle, *text_columns: str, **options: Any) -> Tagger:
    """Make such a tagger for some text columns; it keeps all entities."""
    chosen = TagOptions(threads=1, text_column=text_columns, **{"min_score": 0, **options})
    return Tagger(bundle, chosen, QuickNetwork(len(bundle.labels.names)))
