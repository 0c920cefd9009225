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
from typing import Any

import numpy as np

from nerd_onnx.inference.arrays import Bools, Floats, Ints, ragged_arange

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of a type's probability; finer ones found nothing more on validation


# What is known of a candidate; all are probabilities, 0 to 1.
EVIDENCE = (
    "mean",  # of its words for its type, on average
    "least",  # the same of its least sure word
    "fine",  # of its words for their likeliest fine type of its type, on average
    "rival",  # of its words for the likeliest other type, on average
    "outside",  # that its words are in no entity, on average
    "before",  # that the word before is not of its type; 1 where there is none, or where it is of another entity
    "after",  # the same of the word behind
    "outside_before",  # that the word before is in no entity; 1 where there is none
    "outside_after",  # the same of the word behind
)


@dataclass(frozen=True)
class WordProbabilities:
    """
    What the network says of words, beside each other as they stand in their texts.

    :param of_type: probability of each type. *Shape:* (words, types)
    :param of_fine: that of the type's likeliest fine type; as ``of_type`` without a fine level. *Shape:* (words, types)
    :param outside: that it is in no entity; 1 for all where the model has no label for that. *Shape:* (words,)
    """

    of_type: Floats
    of_fine: Floats
    outside: Floats


@dataclass(frozen=True)
class Candidates:
    """
    Runs of words that may be an entity of a type; they overlap. Sorted by type and place.

    :param first: number of the first word, counted over all texts. *Shape:* (candidates,)
    :param last: number of the last word. *Shape:* (candidates,)
    :param label: index of the type. *Shape:* (candidates,)
    :param evidence: what is known of each, in the order of :data:`EVIDENCE`. *Shape:* (candidates, evidence)
    """

    first: Ints
    last: Ints
    label: Ints
    evidence: Floats

    def __len__(self) -> int:
        return len(self.first)

    @property
    def words(self) -> Ints:
        """Words of each. *Shape:* (candidates,)."""
        return self.last - self.first + 1

    @property
    def mean(self) -> Floats:
        """Mean probability of its words for its type. *Shape:* (candidates,)."""
        return self.evidence[:, EVIDENCE.index("mean")]

    def select(self, kept: Bools | Ints) -> Candidates:
        """Give only those at ``kept``."""
        return Candidates(self.first[kept], self.last[kept], self.label[kept], self.evidence[kept])


def find_candidates(words: WordProbabilities, parted: Bools, first_of_text: Bools) -> Candidates:
    """
    Find all candidates.

    :param parted: whether a word cannot go on with an entity of the type that the word before is in; true for the first
        word of each text, and in a row after the last word. *Shape:* (words + 1, types)
    :param first_of_text: whether a word is the first of its text; true after the last word. *Shape:* (words + 1,)
    """
    of_type = words.of_type
    label, word = np.nonzero(np.float32(LEVELS[0]) <= of_type.T)
    probability = of_type[word, label]
    goes_on = np.zeros(len(word), dtype=np.bool_)
    goes_on[1:] = (word[1:] == word[:-1] + 1) & (label[1:] == label[:-1]) & ~parted[word[1:], label[1:]]
    begin, end = _runs(probability, goes_on)
    first, last, label = word[begin], word[end - 1], label[begin]
    if not len(first):
        return Candidates(first, last, label, np.empty((0, len(EVIDENCE)), dtype=np.float32))
    bounds = np.stack([begin, end], axis=1).ravel()  # every second range is one that is asked for
    words_of = _WordsOf(first, last)
    word, own = words_of.word, np.repeat(label, last - first + 1)
    rival = np.zeros(len(first))
    for other in range(of_type.shape[1]):  # one by one: all at once would take memory by words and types
        rival = np.maximum(rival, np.where(label == other, 0, words_of.mean(of_type[word, other])))
    found = {
        "mean": words_of.mean(of_type[word, own]),
        "least": np.minimum.reduceat(np.append(probability, np.float32(0)), bounds)[::2],
        "fine": words_of.mean(words.of_fine[word, own]),
        "rival": rival,
        "outside": words_of.mean(words.outside[word]),
    }
    for name, border, beside in (("before", first, first - 1), ("after", last + 1, last + 1)):
        there = np.clip(beside, 0, len(of_type) - 1)
        found[name] = np.where(parted[border, label], np.float32(1), 1 - of_type[there, label])
        found[f"outside_{name}"] = np.where(first_of_text[border], np.float32(1), words.outside[there])
    evidence = np.stack([found[name] for name in EVIDENCE], axis=1)
    return Candidates(first, last, label, np.clip(evidence, 0, 1).astype(np.float32))


class _WordsOf:
    """
    The words of runs one after the other; a word that is in several is there several times.

    :param first: first word of each run. *Shape:* (runs,)
    :param last: last word of each run. *Shape:* (runs,)
    :ivar word: *Shape:* (words of all runs,)
    """

    def __init__(self, first: Ints, last: Ints) -> None:
        self.word = ragged_arange(first, last + 1)
        self._length = last - first + 1
        self._begin = np.cumsum(self._length) - self._length

    def mean(self, values: Floats) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Give each run's mean, summed by itself. *Shape:* as :attr:`word` to (runs,)."""
        return np.asarray(np.add.reduceat(values.astype(np.float64), self._begin) / self._length)


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
