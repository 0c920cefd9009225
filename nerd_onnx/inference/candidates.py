"""
Candidates: consecutive words that may be an entity, and what the network says of them.

To decide each word by itself loses entities: one of three words falls apart where the middle word is slightly more
probable outside, and where two types are almost equally probable each gets one half. So consecutive words whose
probability for a type passes a threshold form a candidate. There are several thresholds, so candidates of one type
nest in one another, like the components of a component tree in image analysis (Salembier et al., 1998).

For every candidate the *evidence* is computed: the probabilities of its words and of the words beside it. Its score is
the estimated probability of being correct, which :mod:`calibration` computes from the evidence. Of overlapping
candidates the best is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nerd_onnx.inference.arrays import Bools, Floats, Ints, ragged_arange
from nerd_onnx.inference.text_borders import TextBorders

# Thresholds of a type's probability. F1 on validation was lower with three of them, and not higher with more.
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)

# The evidence of a candidate. All values are probabilities from 0 to 1. A calibration in nerd.json has weights under
# these names, so another name makes bundles with a calibration unreadable.
EVIDENCE = (
    "mean",  # of its type, mean over its words
    "least",  # of its type, minimum over its words
    "fine",  # of the most probable fine type within its type, mean over its words
    "rival",  # of the most probable other type, mean over its words
    "outside",  # of no entity, mean over its words
    "before",  # that the word before is not of its type; 1 without such a word, or where it is in another entity
    "after",  # that the word after is not of its type; 1 likewise
    "outside_before",  # that the word before is in no entity; 1 without such a word
    "outside_after",  # that the word after is in no entity; 1 without such a word
)


@dataclass(frozen=True)
class WordProbabilities:
    """
    The probabilities of all words of some texts, in the order of the texts.

    :param of_type: probability of each type. *Shape:* (words, types)
    :param of_fine: probability of the most probable fine type within each type; equal to ``of_type`` without a fine
        level. *Shape:* (words, types)
    :param outside: probability that a word is in no entity; 1 where the model has no tag for that. *Shape:* (words,)
    """

    of_type: Floats
    of_fine: Floats
    outside: Floats


@dataclass(frozen=True)
class Candidates:
    """
    Consecutive words that may be an entity of a type. They may overlap. They are sorted by type and place.

    :param first: index of the first word, counted over all texts. *Shape:* (candidates,)
    :param last: index of the last word. *Shape:* (candidates,)
    :param label: index of the type. *Shape:* (candidates,)
    :param evidence: in the order of :data:`EVIDENCE`. *Shape:* (candidates, evidence)
    """

    first: Ints
    last: Ints
    label: Ints
    evidence: Floats

    def __len__(self) -> int:
        return len(self.first)

    @property
    def words(self) -> Ints:
        """Number of words of each candidate. *Shape:* (candidates,)."""
        return self.last - self.first + 1

    @property
    def mean(self) -> Floats:
        """Mean probability of the candidate's type over its words. *Shape:* (candidates,)."""
        return self.evidence[:, EVIDENCE.index("mean")]

    def select(self, kept: Bools | Ints) -> Candidates:
        """Return the candidates at ``kept``: a mask, or indices in any order."""
        return Candidates(self.first[kept], self.last[kept], self.label[kept], self.evidence[kept])


def find_candidates(
    words: WordProbabilities, parted: Bools, first_of_text: Bools, borders: TextBorders | None = None
) -> Candidates:
    """
    Find all candidates and their evidence.

    :param words: the probabilities of the words
    :param parted: whether a word cannot continue an entity of the type that the word before is in; true for the first
        word of each text, and in a row after the last word. *Shape:* (words + 1, types)
    :param first_of_text: whether a word is the first of its text; true after the last word. *Shape:* (words + 1,)
    :param borders: borders that the texts show; None where they show none
    """
    of_type = words.of_type
    if borders is not None:
        parted = _parted_by_texts(of_type, parted, borders)

    # A pair is a word and a type it may be of; most words have none. Pairs are sorted by type, then by word.
    pair_label, pair_word = np.nonzero(np.float32(LEVELS[0]) <= of_type.T)  # (pairs,) each
    probability = of_type[pair_word, pair_label]  # (pairs,)

    goes_on = np.zeros(len(pair_word), dtype=np.bool_)
    goes_on[1:] = (
        (pair_word[1:] == pair_word[:-1] + 1)
        & (pair_label[1:] == pair_label[:-1])
        & ~parted[pair_word[1:], pair_label[1:]]
    )

    begin, end = _nested_ranges(probability, goes_on)
    if borders is not None:
        begin, end = _without_symbols(begin, end, pair_word, borders)

    first, last, label = pair_word[begin], pair_word[end - 1], pair_label[begin]  # (candidates,) each
    if not len(first):
        return Candidates(first, last, label, np.empty((0, len(EVIDENCE)), dtype=np.float32))

    found = _inner_evidence(words, first, last, label)
    found["least"] = _minima(probability, begin, end)

    for name, border, beside in (("before", first, first - 1), ("after", last + 1, last + 1)):
        # Where there is no word beside the candidate any index serves: ``parted`` is true there.
        neighbour = np.clip(beside, 0, len(of_type) - 1)
        found[name] = np.where(parted[border, label], np.float32(1), 1 - of_type[neighbour, label])
        found[f"outside_{name}"] = np.where(first_of_text[border], np.float32(1), words.outside[neighbour])

    evidence = np.stack([found[name] for name in EVIDENCE], axis=1)
    return Candidates(first, last, label, np.clip(evidence, 0, 1).astype(np.float32))


def _parted_by_texts(of_type: Floats, parted: Bools, borders: TextBorders) -> Bools:
    """Return ``parted`` with the borders that the texts show, see :func:`find_candidates`."""
    parted = parted.copy()
    parted[:-1] |= borders.separated[:, None]
    if not borders.broken.any():
        return parted

    # A line break separates if it does so at any of the thresholds: entities are less probable than their words.
    for level in LEVELS:
        label, word = np.nonzero(np.float32(level) <= of_type.T)
        word, label = borders.separating_breaks(word, label)
        parted[word, label] = True
    return parted


def _without_symbols(begin: Ints, end: Ints, pair_word: Ints, borders: TextBorders) -> tuple[Ints, Ints]:
    """Return ranges of pairs without symbols at their ends, each once; see :func:`_nested_ranges`."""
    if not borders.symbols.any():
        return begin, end

    first, last = pair_word[begin], pair_word[end - 1]
    new_first, new_last = borders.without_symbols(first, last)
    begin, end = begin + (new_first - first), end + (new_last - last)

    kept = begin < end
    ranges = np.unique(np.stack([begin[kept], end[kept]], axis=1), axis=0)
    return ranges[:, 0], ranges[:, 1]


def _inner_evidence(
    words: WordProbabilities, first: Ints, last: Ints, label: Ints
) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """
    Compute the evidence that is a mean over a candidate's words.

    :param first: first word of each candidate. *Shape:* (candidates,)
    :param last: last word of each. *Shape:* (candidates,)
    :param label: type of each. *Shape:* (candidates,)
    :return: by name in :data:`EVIDENCE`. *Shape:* (candidates,) each
    """
    means = _CandidateMeans(first, last)
    word = means.word  # (words of all candidates,)
    own = np.repeat(label, last - first + 1)  # (words of all candidates,): the type of the word's candidate

    # Type after type: all at once would take memory by words times types.
    rival = np.zeros(len(first))
    for other in range(words.of_type.shape[1]):
        rival = np.maximum(rival, np.where(label == other, 0, means.of(words.of_type[word, other])))

    return {
        "mean": means.of(words.of_type[word, own]),
        "fine": means.of(words.of_fine[word, own]),
        "rival": rival,
        "outside": means.of(words.outside[word]),
    }


class _CandidateMeans:
    """
    Means over the words of each candidate.

    The words of all candidates are laid out one candidate after the other; a word of several candidates occurs several
    times. For the candidates 4 to 6 and 5 to 5, ``word`` is ``[4, 5, 6, 5]``.

    :param first: first word of each candidate. *Shape:* (candidates,)
    :param last: last word of each candidate. *Shape:* (candidates,)
    :ivar word: *Shape:* (words of all candidates,)
    """

    def __init__(self, first: Ints, last: Ints) -> None:
        self.word = ragged_arange(first, last + 1)
        self._length = last - first + 1
        self._begin = np.cumsum(self._length) - self._length

    def of(self, values: Floats) -> np.ndarray[Any, np.dtype[np.float64]]:
        """
        Return the mean of each candidate, whose words are summed in their order.

        :param values: one value for each of :attr:`word`. *Shape:* (words of all candidates,)
        :return: *Shape:* (candidates,)
        """
        return np.asarray(np.add.reduceat(values.astype(np.float64), self._begin) / self._length)


def _minima(values: Floats, begin: Ints, end: Ints) -> Floats:
    """
    Return the minimum of each range of values; ranges may overlap.

    :param values: *Shape:* (values,)
    :param begin: first value of each range. *Shape:* (ranges,)
    :param end: one past its last value. *Shape:* (ranges,)
    :return: *Shape:* (ranges,)
    """
    # ``reduceat`` reduces from each index up to the next one. With begins and ends in turns, every second result is
    # that of a range, and those between are dropped. An end may be one past the values, hence one more value.
    bounds = np.stack([begin, end], axis=1).ravel()
    return np.minimum.reduceat(np.append(values, np.float32(0)), bounds)[::2]


def _nested_ranges(probability: Floats, goes_on: Bools) -> tuple[Ints, Ints]:
    """
    Find the longest ranges of connected pairs that pass a threshold, for each of :data:`LEVELS`.

    Ranges that several thresholds find are returned once. For one type and the connected probabilities
    ``[0.2, 0.8, 0.6, 0.2]``, 0.1 finds the range 0 to 4, 0.3 and 0.5 find 1 to 3, 0.7 finds 1 to 2, and 0.9 finds
    none: the result is ``[0, 1, 1]`` and ``[4, 2, 3]``.

    :param probability: of each pair of a word and a type, sorted by type, then word. *Shape:* (pairs,)
    :param goes_on: whether a pair is connected to the pair before it: of the same type, and of the next word, which
        may continue an entity. *Shape:* (pairs,)
    :return: first pair and one past the last pair of each range, sorted. *Shape:* (ranges,) each
    """
    # A range is packed into one integer, begin * size + end, so that one np.unique sorts ranges and drops duplicates.
    size = len(probability) + 1
    packed = [np.empty(0, dtype=np.int64)]

    for level in LEVELS:
        passing = np.flatnonzero(probability >= np.float32(level))  # indices of pairs
        if not len(passing):
            break  # the next levels are higher

        opens = np.ones(len(passing), dtype=np.bool_)
        opens[1:] = (passing[1:] != passing[:-1] + 1) | ~goes_on[passing[1:]]

        opening = np.flatnonzero(opens)  # places in ``passing``, one per range
        closing = np.append(opening[1:], len(passing)) - 1
        packed.append(passing[opening] * size + passing[closing] + 1)

    begin, end = np.divmod(np.unique(np.concatenate(packed)), size)
    return begin, end


def choose(candidates: Candidates, probability: np.ndarray[tuple[int], np.dtype[np.floating]]) -> Ints:
    """
    Choose candidates that do not overlap, the most probable first.

    Of equally probable ones, the one that begins first is chosen, then the one that ends first.

    :param probability: that each candidate is correct. *Shape:* (candidates,)
    :return: indices of the chosen candidates, sorted by place. *Shape:* (chosen,)
    """
    first, last = candidates.first, candidates.last
    by_place = np.lexsort((candidates.label, last, first))

    # Most candidates overlap no other one. They are chosen without the loop below, which is slow in Python. A candidate
    # opens a group where all before it end before it begins; it is alone where the next one opens a group too.
    reach = np.maximum.accumulate(last[by_place])
    opens = np.ones(len(first), dtype=np.bool_)
    opens[1:] = first[by_place][1:] > reach[:-1]

    alone = opens & np.append(opens[1:], True)

    kept = np.zeros(len(first), dtype=np.bool_)
    kept[by_place[alone]] = True

    # The sort is stable, so that equally probable candidates stay sorted by place.
    rivals = by_place[~alone]
    rivals = rivals[np.argsort(-probability[rivals], kind="stable")]
    taken = np.zeros(int(reach[-1]) + 1 if len(reach) else 0, dtype=np.bool_)  # words of chosen candidates

    for place, begin, end in zip(rivals.tolist(), first[rivals].tolist(), (last[rivals] + 1).tolist(), strict=True):
        if not taken[begin:end].any():
            taken[begin:end] = kept[place] = True

    return by_place[kept[by_place]]
