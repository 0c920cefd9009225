"""Entity scores on the given words of the validation sets, which the Trainer computes after each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_export.data.partial_tags import PartialTag, Targets
from nerd_export.scoring.f1 import Scores, coarse_tag, to_bio, word_scores
from nerd_export.training.features import IGNORED
from nerd_onnx.inference.labels import OUTSIDE, LabelSet, coarse_type, split_tag

SET_F1 = "f1_of_"  # followed by the name of a validation set


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
    """
    Entity scores over the given words of the validation sets.

    A sentence that is labelled for some types only is scored on these: predicted tags of other types count as ``O``. A
    set with coarse tags is scored on coarse labels.

    :param labels: the labels of the model
    :param targets: the numbers of all tags
    :param sets: name of each validation set, if there are several; the scores are then means over the sets
    """

    def __init__(self, labels: LabelSet, targets: Targets | None = None, sets: Sequence[str] = ()) -> None:
        self._labels = labels
        self._targets = targets or Targets(labels)
        self._sets = sets
        first = [int(np.flatnonzero(labels.class_of_label == c)[0]) for c in range(len(labels.type_of_class))]
        self._class_names = [labels.names[i] for i in first]  # any fine label of a class names its coarse type

    def __call__(self, prediction: Any) -> dict[str, float]:
        """Score a ``transformers.EvalPrediction`` whose predictions :class:`Decisions` made."""
        if not isinstance(prediction.label_ids, tuple):
            return self._scores(prediction.label_ids, prediction.predictions)

        targets, set_of_row = prediction.label_ids
        names = self._sets or [""]
        by_set = [
            self._scores(targets[set_of_row == i], prediction.predictions[set_of_row == i]) for i in range(len(names))
        ]

        # A set without fine tags has no score of its own for coarse labels: its only score is one.
        keys = dict.fromkeys(key for scores in by_set for key in scores)
        metrics = {
            key: float(np.mean([scores.get(key, scores[key.removeprefix("coarse_")]) for scores in by_set]))
            for key in keys
        }
        if self._sets:
            metrics |= {SET_F1 + name: scores["f1"] for name, scores in zip(names, by_set, strict=True)}

        return metrics

    def _scores(self, targets: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64]) -> dict[str, float]:
        """Return the scores of one validation set."""
        # Later pieces of a word and padding are not decided.
        tags = {number: tag for tag, number in self._targets.ids.items()}
        rows = [
            ([tags[i] for i in row[row != IGNORED]], found[row != IGNORED])
            for row, found in zip(targets, predictions, strict=True)
        ]

        only_coarse = any(isinstance(tag, PartialTag) and tag.is_coarse for row, _ in rows for tag in row)
        if only_coarse:
            return _named(self._level(rows, coarse=True))

        metrics = _named(self._level(rows, coarse=False))
        if self._labels.has_fine_level:
            coarse = _named(self._level(rows, coarse=True))
            metrics |= {f"coarse_{key}": coarse[key] for key in ("precision", "recall", "f1")}

        return metrics

    def _level(self, rows: Sequence[tuple[Sequence[Any], npt.NDArray[np.int64]]], *, coarse: bool) -> Scores:
        """Score one level: words by their likeliest label, or by the class with the largest sum of probabilities."""
        scheme = self._labels.scheme or "IO"
        expected, found = [], []

        for tags, decided in rows:
            gold = [tag.name if isinstance(tag, PartialTag) else tag for tag in tags]
            if coarse:
                # Tags of a coarse file have no hyphen, so they stay as they are.
                gold = [coarse_tag(tag, scheme) for tag in gold]
                guess = [coarse_tag(self._class_names[i], scheme) for i in decided[:, 1]]
            else:
                guess = [self._labels.names[i] for i in decided[:, 0]]

            known = next((tag.known for tag in tags if isinstance(tag, PartialTag) and tag.known is not None), None)
            if known is not None:
                guess = [tag if coarse_type(split_tag(tag, scheme)[1]) in known else OUTSIDE for tag in guess]

            expected.append(to_bio(gold, scheme))
            found.append(to_bio(guess, scheme))

        return word_scores(expected, found)


def _named(scores: Scores) -> dict[str, float]:
    return {
        "precision": scores.precision,
        "recall": scores.recall,
        "f1": scores.f1,
        "accuracy": scores.accuracy or 0.0,
    }
