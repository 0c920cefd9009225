"""
Entities that might be: what deciding each word for itself does not see.

A word's likeliest type says too much and too little: an entity of three words, of which the middle one is a little
likelier outside, falls apart, and where two types are almost alike half of an entity goes to each. So wherever a type
reaches one of a few probabilities, the words that reach it together are a candidate (the nested runs that are cut
thresholds of a curve, as in the component trees of image analysis). How likely each is to be right is for
:mod:`calibration` to say; of those that overlap the likeliest is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nerd_onnx.inference.arrays import Bools, Floats, Ints

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of a type's probability; finer ones found nothing more on validation


@dataclass(frozen=True)
class Candidates:
    """
    Runs of words that may be an entity of a type; they overlap. Sorted by type and place.

    :param first: number of the first word, counted over all texts. *Shape:* (candidates,)
    :param last: number of the last word. *Shape:* (candidates,)
    :param label: index of the type. *Shape:* (candidates,)
    :param mean: mean probability of its words for the type, 0 to 1. *Shape:* (candidates,)
    :param least: that of its least sure word. *Shape:* (candidates,)
    :param before: probability that the word before is not of the type; 1 where there is none, and where it cannot be of
        the same entity. *Shape:* (candidates,)
    :param after: the same of the word behind. *Shape:* (candidates,)
    """

    first: Ints
    last: Ints
    label: Ints
    mean: Floats
    least: Floats
    before: Floats
    after: Floats

    def __len__(self) -> int:
        return len(self.first)

    @property
    def words(self) -> Ints:
        """Words of each. *Shape:* (candidates,)."""
        return self.last - self.first + 1

    def select(self, kept: Bools | Ints) -> Candidates:
        """Give only those at ``kept``."""
        return Candidates(**{name: getattr(self, name)[kept] for name in self.__dataclass_fields__})


def find_candidates(of_type: Floats, parted: Bools) -> Candidates:
    """
    Find all candidates.

    :param of_type: probability of each type. *Shape:* (words, types)
    :param parted: whether a word cannot go on with an entity of the type that the word before is in; true for the first
        word of each text, and in a row after the last word. *Shape:* (words + 1, types)
    """
    label, word = np.nonzero(np.float32(LEVELS[0]) <= of_type.T)
    probability = of_type[word, label]
    goes_on = np.zeros(len(word), dtype=np.bool_)
    goes_on[1:] = (word[1:] == word[:-1] + 1) & (label[1:] == label[:-1]) & ~parted[word[1:], label[1:]]
    begin, end = _runs(probability, goes_on)
    first, last, label = word[begin], word[end - 1], label[begin]
    bounds = np.stack([begin, end], axis=1).ravel()  # every second range is one that is asked for
    padded = np.append(probability, np.float32(0))
    mean = np.add.reduceat(padded.astype(np.float64), bounds)[::2] / (end - begin) if len(begin) else padded[:0]
    least = np.minimum.reduceat(padded, bounds)[::2] if len(begin) else padded[:0]
    beside = [
        np.where(parted[border, label], np.float32(1), 1 - of_type[np.clip(word_beside, 0, len(of_type) - 1), label])
        for border, word_beside in ((first, first - 1), (last + 1, last + 1))
    ]
    return Candidates(first, last, label, np.minimum(mean, 1.0).astype(np.float32), least, *beside)


def _runs(probability: Floats, goes_on: Bools) -> tuple[Ints, Ints]:
    """
    Give the runs of neighbours that reach each level together, each once.

    :param probability: of words for a type, type by type. *Shape:* (pairs,)
    :param goes_on: whether a pair goes on where the one before it ends. *Shape:* (pairs,)
    :return: first pair and one past the last. *Shape:* (runs,) each
    """
    size = len(probability) + 1
    found = [np.empty(0, dtype=np.int64)]
    for level in LEVELS:
        on = np.flatnonzero(probability >= np.float32(level))
        opens = np.ones(len(on), dtype=np.bool_)
        opens[1:] = (on[1:] != on[:-1] + 1) | ~goes_on[on[1:]]
        begin = np.flatnonzero(opens)
        found.append(on[begin] * size + on[np.append(begin[1:], len(on)) - 1] + 1 if len(on) else on)
    begin, end = np.divmod(np.unique(np.concatenate(found)), size)
    return begin, end


def choose(candidates: Candidates, probability: np.ndarray[tuple[int], np.dtype[np.floating]]) -> Ints:
    """
    Choose candidates that do not overlap, the likeliest first; of equal ones that which begins, then ends earlier.

    :param probability: that each is right. *Shape:* (candidates,)
    :return: which are chosen, by place. *Shape:* (chosen,)
    """
    first, last = candidates.first, candidates.last
    by_place = np.lexsort((candidates.label, last, first))
    reach = np.maximum.accumulate(last[by_place])
    opens = np.ones(len(first), dtype=np.bool_)
    opens[1:] = first[by_place][1:] > reach[:-1]
    alone = opens & np.append(opens[1:], True)
    kept = np.zeros(len(first), dtype=np.bool_)
    kept[by_place[alone]] = True
    rivals = by_place[~alone]
    rivals = rivals[np.argsort(-probability[rivals], kind="stable")]
    taken = np.zeros(int(reach[-1]) + 1 if len(reach) else 0, dtype=np.bool_)
    for place, begin, end in zip(rivals.tolist(), first[rivals].tolist(), (last[rivals] + 1).tolist(), strict=True):
        if not taken[begin:end].any():
            taken[begin:end] = kept[place] = True
    return by_place[kept[by_place]]
