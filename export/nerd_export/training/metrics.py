"""Entity scores on the given words of the validation split, which the Trainer computes after each epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_export.scoring.f1 import Scores, to_bio, word_scores
from nerd_export.training.features import IGNORED
from nerd_onnx.inference.labels import LabelSet


class Decisions:
    """Reduces logits to decided ids, so that the evaluation does not keep all logits in memory."""

    def __init__(self, labels: LabelSet) -> None:
        self._labels = labels

    def __call__(self, logits: Any, labels: Any) -> Any:  # noqa: ARG002
        """
        Return the best label, and the best class by the sums of the fine probabilities.

        :return: *Shape:* (batch, tokens, 2): label id, class id
        """
        import torch

        class_of_label = torch.from_numpy(self._labels.class_of_label).to(logits.device)
        probabilities = logits.float().softmax(-1)
        # The runtime decides coarse labels by these sums, so the validation does too.
        summed = torch.zeros(*logits.shape[:-1], len(self._labels.type_of_class), device=logits.device)
        summed.index_add_(-1, class_of_label, probabilities)
        return torch.stack([logits.argmax(-1), summed.argmax(-1)], dim=-1)


class Metrics:
    """Entity scores over the given words of the validation split."""

    def __init__(self, labels: LabelSet) -> None:
        self._labels = labels

    def __call__(self, prediction: Any) -> dict[str, float]:
        """Score a ``transformers.EvalPrediction`` whose predictions :class:`Decisions` made."""
        names = self._labels.names
        gold_ids: npt.NDArray[np.int64] = prediction.label_ids
        # Later pieces of a word and padding are not decided.
        kept = [row != IGNORED for row in gold_ids]
        gold = [[names[i] for i in row[k]] for row, k in zip(gold_ids, kept, strict=True)]
        guess = [[names[i] for i in row[k][:, 0]] for row, k in zip(prediction.predictions, kept, strict=True)]
        scheme = self._labels.scheme
        scores = word_scores([to_bio(t, scheme) for t in gold], [to_bio(t, scheme) for t in guess])
        metrics = {
            "precision": scores.precision,
            "recall": scores.recall,
            "f1": scores.f1,
            "accuracy": scores.accuracy or 0.0,
        }
        if self._labels.has_fine_level:
            metrics |= {f"coarse_{k}": v for k, v in self._coarse(gold, prediction.predictions, kept).items()}

        return metrics

    def _coarse(self, gold: list[list[str]], predictions: npt.NDArray[np.int64], kept: list[Any]) -> dict[str, float]:
        """Return the scores of the classes that have the largest sum of fine probabilities."""
        labels, scheme = self._labels, self._labels.scheme
        first = [int(np.flatnonzero(labels.class_of_label == c)[0]) for c in range(len(labels.type_of_class))]
        names = [labels.names[i] for i in first]  # any fine label of a class names its coarse type
        guess = [[names[c] for c in row[k][:, 1]] for row, k in zip(predictions, kept, strict=True)]
        expected = [to_bio(tags, scheme, coarse=True) for tags in gold]
        scores: Scores = word_scores(expected, [to_bio(tags, scheme, coarse=True) for tags in guess])
        return {"precision": scores.precision, "recall": scores.recall, "f1": scores.f1}
