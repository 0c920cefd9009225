"""
Tags that say less than a label of the model.

A labelled file may have only some types of a model, or only its coarse ones. Its ``O`` then means "none of my types",
and its ``person`` any fine label of ``person``. Such a tag is a set of labels: one of them is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nerd_onnx.inference.arrays import Bools
from nerd_onnx.inference.labels import OUTSIDE, LabelSet, split_tag


@dataclass(frozen=True)
class PartialTag:
    """
    A tag of a sentence that is not labelled with all labels of the model.

    :param name: ``O``, or a tag in the scheme of the model
    :param known: the coarse types that the sentence is labelled for; None for all
    :param is_coarse: whether ``name`` is a coarse tag of a model with fine labels
    """

    name: str
    known: frozenset[str] | None
    is_coarse: bool

    def allowed(self, labels: LabelSet) -> Bools:
        """
        Return which labels may be right.

        :param labels: the labels of the model
        :return: *Shape:* (labels,)
        :raises ValueError: if the model has no such tag
        """
        scheme = labels.scheme or "IO"
        tags = [split_tag(name, scheme) for name in labels.names]
        coarse = [labels.coarse.get(kind, kind) for _, kind in tags]

        if self.name == OUTSIDE:
            known = frozenset(coarse) if self.known is None else self.known
            found = [not kind or kind not in known for kind in coarse]
        elif self.is_coarse:
            wanted = split_tag(self.name, scheme)
            found = [(prefix, kind) == wanted for (prefix, _), kind in zip(tags, coarse, strict=True)]
        else:
            found = [name == self.name for name in labels.names]

        if not any(found):
            raise ValueError(f"the model has no label for the tag {self.name!r}")
        return np.array(found, dtype=np.bool_)


Tag = str | PartialTag


class Targets:
    """
    A number for each tag that a word can have in training.

    Numbers below the number of labels are those of the labels. Higher ones are those of partial tags.

    :param labels: the labels of the model
    :param tags: every tag that occurs
    :ivar ids: number of each tag
    :ivar partial: the partial tags in the order of their numbers
    :ivar allowed: which labels each number allows. *Shape:* (targets, labels)
    """

    def __init__(self, labels: LabelSet, tags: Iterable[Tag] = ()) -> None:
        found = {tag for tag in tags if isinstance(tag, PartialTag)}
        # Sorted, so that the numbers do not depend on the order of the sentences.
        self.partial = sorted(found, key=lambda tag: (tag.name, tag.is_coarse, sorted(tag.known or ())))

        tags_in_order: list[Tag] = [*labels.names, *self.partial]
        self.ids: dict[Tag, int] = dict(zip(tags_in_order, range(len(tags_in_order)), strict=True))
        self.allowed: Bools = np.vstack(
            [np.eye(len(labels.names), dtype=np.bool_), *(tag.allowed(labels) for tag in self.partial)]
        )
