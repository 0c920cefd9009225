"""The sentences and labels of one training run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nerd_export.data.checks import Sentence
from nerd_onnx.inference.labels import LabelSet


@dataclass(frozen=True)
class TrainingData:
    """
    Checked sentences and the labels they use.

    :param train_source: origin of the training split, for the card
    :param unlabelled: texts for a teacher to label
    """

    train: Sequence[Sentence]
    validation: Sequence[Sentence]
    labels: LabelSet
    train_source: str
    validation_source: str
    unlabelled: Sequence[str] = ()
    unlabelled_source: str | None = None

    def facts(self) -> dict[str, Any]:
        """Return the fingerprints of the sentences and the labels, so that a resumed run notices other data."""
        return {
            "train_source": self.train_source,
            "train_sentences": len(self.train),
            "train_sha256": _sha256_of(self.train),
            "validation_source": self.validation_source,
            "validation_sentences": len(self.validation),
            "validation_sha256": _sha256_of(self.validation),
            "unlabelled_source": self.unlabelled_source,
            "unlabelled_sha256": hashlib.sha256(json.dumps(list(self.unlabelled)).encode()).hexdigest(),
            "labels": list(self.labels.names),
        }


def _sha256_of(sentences: Sequence[Sentence]) -> str:
    """Fingerprint sentences: their words and tags, in order."""
    digest = hashlib.sha256()
    for sentence in sentences:
        # In order: another order of the same sentences gives other batches.
        digest.update(json.dumps([sentence.tokens, sentence.known_tags(), sentence.weight]).encode() + b"\n")
    return digest.hexdigest()
