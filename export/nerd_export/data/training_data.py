"""The sentences and labels of one training run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nerd_export.data.checks import Sentence
from nerd_export.data.partial_tags import Targets
from nerd_onnx.inference.labels import LabelSet


@dataclass(frozen=True)
class TrainingData:
    """
    Checked sentences and the labels they use.

    :param train_source: origin of the training split, for the card
    :param validation: sentences of all validation sets, one after the other
    :param validation_sets: name and number of sentences of each validation set
    :param unlabelled: texts for a teacher to label
    """

    train: Sequence[Sentence]
    validation: Sequence[Sentence]
    labels: LabelSet
    train_source: str
    validation_source: str
    unlabelled: Sequence[str] = ()
    unlabelled_source: str | None = None
    validation_sets: Sequence[tuple[str, int]] = ()

    @property
    def is_mixed(self) -> bool:
        """Whether some tags say less than a label, or there are several validation sets."""
        partial = any(s.known is not None or s.is_coarse for s in (*self.train, *self.validation))
        return partial or bool(self.validation_sets)

    @cached_property
    def targets(self) -> Targets:
        """The numbers of all tags that occur, partial ones included."""
        return Targets(self.labels, {tag for s in (*self.train, *self.validation) for tag in s.targets() if tag})

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
        facts: list[Any] = [sentence.tokens, sentence.known_tags(), sentence.weight]
        # Only where a sentence has them: other data keeps the fingerprint that an earlier version recorded.
        if sentence.known is not None or sentence.is_coarse or sentence.share != 1:
            facts += [None if sentence.known is None else sorted(sentence.known), sentence.is_coarse, sentence.share]

        digest.update(json.dumps(facts).encode() + b"\n")
    return digest.hexdigest()
