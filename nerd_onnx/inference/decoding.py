"""
From logits to entities.

First each word is decided by the logits of its first token: the probabilities of its tag and of each type. Then words
become entities. With a calibration, all candidates get a score and the best of overlapping ones are kept (see
:mod:`candidates`). Without one, entities are the words whose tags follow one another. All steps are vectorized over
many texts, and sums run in a fixed order for each row, so that the result of a text depends on that text alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nerd_onnx.inference.arrays import Bools, Doubles, Floats, Ints, ragged_arange
from nerd_onnx.inference.calibration import ScoreCalibration
from nerd_onnx.inference.candidates import LEVELS, Candidates, WordProbabilities, choose, find_candidates
from nerd_onnx.inference.encoding import EncodedTexts
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.inference.portable_math import exponential
from nerd_onnx.inference.text_borders import TextBorders

# Part of the fingerprint of a run. Increase it with each change of the steps from texts to entities (reading, words,
# borders, candidates, decoding) that can change the entities of a text.
RULES_VERSION = 4
# Without a calibration nothing says how long entities are. No name is this long, and lists that a network reads as one
# entity are.
LONGEST_WITHOUT_CALIBRATION = 256


@dataclass(frozen=True)
class WordDecisions:
    """
    The network's decision about each of some words.

    :param word: index of each word. *Shape:* (words,)
    :param cls: most probable class (see :class:`LabelSet`). *Shape:* (words,)
    :param probability: probability of that class: the sum over its labels. *Shape:* (words,)
    :param of_type: probability of each type. *Shape:* (words, types), or (words, 0) when no candidates are needed
    :param outside: probability of no entity. *Shape:* (words,), or (0,) when no candidates are needed
    :param inside: positions in ``word`` of the words that may belong to an entity. *Shape:* (entity words,)
    :param fine: probability of each fine type, for those words only. *Shape:* (entity words, fine types), or
        (entity words, 0) without a fine level
    """

    word: Ints
    cls: Ints
    probability: Floats
    of_type: Floats
    outside: Floats
    inside: Ints
    fine: Floats


_COLUMNS = ("row", "start", "end", "label", "fine", "score")


@dataclass(frozen=True)
class Spans:
    """
    The entities of many texts as arrays, sorted by text and place.

    :param row: index of the text. *Shape:* (entities,)
    :param start: offset of the first character, in code points. *Shape:* (entities,)
    :param end: one past the last character, in code points. *Shape:* (entities,)
    :param label: index into ``LabelSet.types``. *Shape:* (entities,)
    :param fine: index into ``LabelSet.fine_types``; all -1 without a fine level. *Shape:* (entities,)
    :param score: from 0 to 1. With a calibration, the probability that borders and label are correct; else the mean
        probability of the label over the entity's words. *Shape:* (entities,)
    """

    row: Ints
    start: Ints
    end: Ints
    label: Ints
    fine: Ints
    score: Floats

    def __len__(self) -> int:
        return len(self.row)

    def compact(self) -> Spans:
        """Return the same entities with 20 bytes each instead of 44, for texts that have millions of them."""
        offsets = {name: getattr(self, name).astype(np.int32) for name in ("row", "start", "end")}
        labels = {name: getattr(self, name).astype(np.int16) for name in ("label", "fine")}
        return replace(self, **offsets, **labels)

    def select(self, kept: Bools | Ints) -> Spans:
        """Return the entities at ``kept``: a mask, or indices in any order."""
        return Spans(*(getattr(self, name)[kept] for name in _COLUMNS))

    def of_rows(self, rows: Ints) -> Spans:
        """
        Return the entities of some texts. In the result, a text is numbered by its position in ``rows``.

        :param rows: indices of texts, in any order; a text may occur several times. *Shape:* (rows,)
        """
        first, last = (np.searchsorted(self.row, rows, side=side) for side in ("left", "right"))
        return replace(self.select(ragged_arange(first, last)), row=np.repeat(np.arange(len(rows)), last - first))

    @staticmethod
    def concatenate(parts: Sequence[Spans]) -> Spans:
        """Return the spans of all parts, one after the other; empty spans without parts."""
        parts = parts or [Spans.empty()]
        return Spans(*(np.concatenate([getattr(p, name) for p in parts]) for name in _COLUMNS))

    @staticmethod
    def empty() -> Spans:
        """Return spans without entities."""
        none, nothing = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        return Spans(none, none, none, none, none, nothing)


class Decoder:
    """
    Joins words into entities.

    With a calibration, every candidate gets a score, and the best of overlapping candidates are kept
    (:mod:`candidates`). Without one, each word is decided by itself, and entities are read from the tags as conlleval
    and transformers' pipeline do. An entity opens at a word whose tag begins one (``B-``, ``U-``), where the type
    changes, and after a word that is outside. It closes at ``L-`` and ``U-``. Every sequence of tags has a meaning, so
    one rule reads IOB1, IOB2, BILOU and plain IO. Parts of one written word may be joined (:mod:`word_joints`).

    In both ways, the borders that the text shows (:mod:`text_borders`) separate entities, whatever the tags say. So an
    entity crosses at most one line break and no tab. It has at most as many words as the calibration says, or
    :data:`LONGEST_WITHOUT_CALIBRATION`; what is longer is no entity.

    :param labels: the labels of the network
    :param calibration: computes the scores of candidates; None where nothing was fitted
    :param finds_candidates: whether :meth:`candidates` is called though there is no calibration, which takes memory
    """

    def __init__(
        self, labels: LabelSet, calibration: ScoreCalibration | None = None, *, finds_candidates: bool = False
    ) -> None:
        self.labels = labels
        self._calibration = calibration
        self._finds_candidates = finds_candidates or calibration is not None

        self._by_class = _Grouping(labels.class_of_label, len(labels.type_of_class))
        self._by_type = _Grouping(labels.type_of_class, len(labels.types))
        self._outside = _Grouping(np.where(labels.type_of_class < 0, 0, -1), 1)
        self._of_fine_type = _Grouping(labels.type_of_fine_type, len(labels.types))
        self._by_fine_type = _Grouping(labels.fine_type_of_label, len(labels.fine_types))

    def decide(self, words: Ints, logits: Floats) -> WordDecisions:
        """
        Decide the class of each word by the logits of its first token.

        :param words: index of each word. *Shape:* (words,)
        :param logits: *Shape:* (words, labels)
        """
        probabilities = softmax(logits)  # (words, labels)
        of_class = self._by_class.sums(probabilities)  # (words, classes)
        cls = of_class.argmax(axis=1)
        probability = np.take_along_axis(of_class, cls[:, None], axis=1)[:, 0]

        is_inside = self.labels.type_of_class[cls] >= 0

        of_type, outside = np.empty((len(words), 0), dtype=np.float32), np.empty(0, dtype=np.float32)
        if self._finds_candidates:
            of_type, outside = self._by_type.sums(of_class), self._outside_of(of_class)
            # A word below the lowest threshold is in no candidate.
            is_inside |= (of_type >= np.float32(LEVELS[0])).any(axis=1)

        # Most words are outside. Fine types are many, so their probabilities are kept for the other words only.
        inside = np.flatnonzero(is_inside)
        if self.labels.has_fine_level:
            fine = self._by_fine_type.sums(probabilities[inside])
        else:
            fine = np.empty((len(inside), 0), dtype=np.float32)

        return WordDecisions(words, cls, probability, of_type, outside, inside, fine)

    def _outside_of(self, of_class: Floats) -> Floats:
        """Return the probability of no entity; 1 where no class stands for that. *Shape:* (words,)."""
        # The group of that class has no columns then, and reduceat fails on it.
        if not (self.labels.type_of_class < 0).any():
            return np.ones(len(of_class), dtype=np.float32)
        return self._outside.sums(of_class)[:, 0]

    def spans(self, encoded: EncodedTexts, decisions: Sequence[WordDecisions]) -> Spans:
        """
        Join decided words into entities. No entity spans two texts.

        :param encoded: the texts whose words were decided
        :param decisions: contain every word exactly once, in any order
        """
        if self._calibration is None:
            first, last, label, score = self._decided_runs(encoded, decisions)
        else:
            candidates = self.candidates(encoded, decisions)
            candidates = candidates.select(candidates.words <= self._calibration.maximum_words)

            probability = self._calibration.apply(candidates)
            chosen = choose(candidates, probability)

            first, last, label = candidates.first[chosen], candidates.last[chosen], candidates.label[chosen]
            score = probability[chosen].astype(np.float32)

        return Spans(
            row=texts_of(encoded, first),
            start=encoded.word_start[first],
            end=encoded.word_end[last],
            label=label,
            fine=self._fine(encoded, decisions, first, last, label),
            score=score,
        )

    def candidates(self, encoded: EncodedTexts, decisions: Sequence[WordDecisions]) -> Candidates:
        """
        Find all candidates and their evidence.

        Where the scheme has tags for borders, no candidate crosses a border that a word decided for.

        :param encoded: the texts whose words were decided
        :param decisions: contain every word exactly once, in any order
        """
        # The batches of decisions become one table, in the order of the texts.
        words, types = len(encoded.word_token), len(self.labels.types)
        of_type, of_fine = (np.zeros((words, types), dtype=np.float32) for _ in range(2))
        outside, cls = np.zeros(words, dtype=np.float32), np.zeros(words, dtype=np.int64)

        for part in decisions:
            of_type[part.word], outside[part.word], cls[part.word] = part.of_type, part.outside, part.cls
            if self.labels.has_fine_level:
                of_fine[part.word[part.inside]] = self._of_fine_type.largest(part.fine)

        # A tag that begins an entity separates its word from the one before; a tag that ends one, from the one after.
        first_of_text = _first_of_text(encoded)
        parted = np.zeros((words + 1, types), dtype=np.bool_)
        parted[first_of_text] = True

        for class_borders, offset in ((self.labels.class_starts, 0), (self.labels.class_ends, 1)):
            word = np.flatnonzero(class_borders[cls])
            # Inside of a written word, tags part nothing where entities that touch are joined.
            if encoded.joints is not None:
                word = word[~encoded.joints.touches[word + offset]]
            parted[word + offset, self.labels.type_of_class[cls[word]]] = True

        known = WordProbabilities(of_type, of_fine if self.labels.has_fine_level else of_type, outside)
        return find_candidates(known, parted, first_of_text, encoded.borders)

    def _decided_runs(
        self, encoded: EncodedTexts, decisions: Sequence[WordDecisions]
    ) -> tuple[Ints, Ints, Ints, Floats]:
        """
        Read entities from the classes of the words, see :class:`Decoder`.

        :return: first and last word, type, and mean probability of the words. *Shape:* (entities,) each
        """
        words = len(encoded.word_token)
        cls, probability = np.zeros(words, dtype=np.int64), np.zeros(words, dtype=np.float32)
        for part in decisions:
            cls[part.word], probability[part.word] = part.cls, part.probability

        inside, opens = self._borders(cls, _first_of_text(encoded)[:words])
        if encoded.borders is not None:
            opens |= inside & self._opened_by_text(cls, inside, opens, encoded.borders)

        types = self.labels.type_of_class[cls]
        if encoded.joints is not None:
            types, opens = encoded.joints.join(types, opens)
            # The probability of a hyphen is that of no entity.
            sign = np.flatnonzero((types >= 0) & ~inside)
            probability[sign] = probability[sign - 1]

        word = np.flatnonzero(types >= 0)  # words of all entities
        begin = np.flatnonzero(opens[word])  # place of each entity's first word in ``word``
        if not len(begin):
            return word, word, word, np.empty(0, dtype=np.float32)

        first = word[begin]
        last = np.append(word[begin[1:] - 1], word[-1])
        label = types[first]

        if encoded.borders is not None:
            first, last = encoded.borders.without_symbols(first, last)

        # Without symbols at its ends, nothing may be left of an entity.
        kept = (first <= last) & (last - first < LONGEST_WITHOUT_CALIBRATION)
        first, last, label = first[kept], last[kept], label[kept]

        # Sums from each first word up to the one after the last; every second one is of words between two entities.
        bounds = np.stack([first, last + 1], axis=1).ravel()
        sums = np.add.reduceat(np.append(probability.astype(np.float64), 0.0), bounds)[::2] if len(first) else first

        # At most 1: a probability is a sum of rounded ones, which may come out above it.
        return first, last, label, np.minimum(sums / (last - first + 1), 1.0).astype(np.float32)

    def _opened_by_text(self, cls: Ints, inside: Bools, opens: Bools, borders: TextBorders) -> Bools:
        """
        Find the words before which the text shows a border.

        :param cls: class of each word. *Shape:* (words,)
        :param inside: whether each word is inside of an entity. *Shape:* (words,)
        :param opens: whether each word opens an entity by its tag. *Shape:* (words,)
        :return: *Shape:* (words,)
        """
        opened = borders.separated.copy()
        # A part of an entity in a line begins where the tags say so, too.
        borders = replace(borders, separated=borders.separated | opens)

        word = np.flatnonzero(inside)
        label = self.labels.type_of_class[cls[word]]
        by_label = np.argsort(label, kind="stable")  # words stay in order within a label
        breaks, _ = borders.separating_breaks(word[by_label], label[by_label])
        opened[breaks] = True
        return opened

    def _borders(self, cls: Ints, first_of_text: Bools) -> tuple[Bools, Bools]:
        """
        Find the words inside an entity, and those that open one.

        :param cls: class of each word. *Shape:* (words,)
        :param first_of_text: whether each word is the first of its text. *Shape:* (words,)
        :return: whether each word is inside, and whether it opens an entity. *Shape:* (words,) each
        """
        types = self.labels.type_of_class[cls]
        inside = types >= 0
        before = np.concatenate(([-1], types[:-1]))
        closed_before = np.concatenate(([False], self.labels.class_ends[cls][:-1]))

        opens = first_of_text | self.labels.class_starts[cls] | closed_before | (before != types)
        return inside, opens & inside

    def _fine(
        self, encoded: EncodedTexts, decisions: Sequence[WordDecisions], first: Ints, last: Ints, label: Ints
    ) -> Ints:
        """Return the fine type of each entity; -1 without a fine level. *Shape:* (entities,)."""
        if not self.labels.has_fine_level:
            return np.full(len(first), -1, dtype=np.int64)

        weights = None if self._calibration is None else self._calibration.fine_weights
        return choose_fine(self.labels, label, self.fine_sums(encoded, decisions, first, last), weights)

    def fine_sums(self, encoded: EncodedTexts, decisions: Sequence[WordDecisions], first: Ints, last: Ints) -> Floats:
        """
        Sum the probability of each fine type over the words of each entity or candidate.

        :param encoded: the texts whose words were decided
        :param decisions: contain every word exactly once, in any order
        :param first: first word of each. *Shape:* (entities,)
        :param last: last word of each. *Shape:* (entities,)
        :return: *Shape:* (entities, fine types), or (entities, 0) without a fine level
        """
        if not self.labels.has_fine_level or not len(first):
            width = len(self.labels.fine_types) if self.labels.has_fine_level else 0
            return np.empty((len(first), width), dtype=np.float32)

        # Only words that may belong to an entity have a row of fine types. All others share a last one of zeros: of
        # them, only hyphens inside of a written word are in an entity.
        none = np.zeros((1, len(self.labels.fine_types)), dtype=np.float32)
        fine = np.concatenate([*(part.fine for part in decisions), none])

        row = np.full(len(encoded.word_token), len(fine) - 1, dtype=np.int64)
        row[np.concatenate([part.word[part.inside] for part in decisions])] = np.arange(len(fine) - 1)

        length = last - first + 1
        begin = np.cumsum(length) - length
        return np.add.reduceat(fine[row[ragged_arange(first, last + 1)]], begin, axis=0)


def choose_fine(labels: LabelSet, label: Ints, sums: Floats, weights: Doubles | None) -> Ints:
    """
    Choose the most probable fine type of each entity among those within its type.

    :param labels: the labels of the network
    :param label: type of each entity. *Shape:* (entities,)
    :param sums: from :meth:`Decoder.fine_sums`. *Shape:* (entities, fine types)
    :param weights: factors of the probabilities; None for equal weights. *Shape:* (fine types,)
    :return: indices of fine types. *Shape:* (entities,)
    """
    of_type = labels.type_of_fine_type[None, :] == label[:, None]
    weighted = sums if weights is None else sums * weights
    best: Ints = np.where(of_type, weighted, -1.0).argmax(axis=1)
    return best


def texts_of(encoded: EncodedTexts, words: Ints) -> Ints:
    """Return the index of the text of each word. *Shape:* (words,), like ``words``."""
    return np.searchsorted(encoded.text_words, words, side="right") - 1


def _first_of_text(encoded: EncodedTexts) -> Bools:
    """Whether each word is the first of its text; true after the last word too. *Shape:* (words + 1,)."""
    first = np.zeros(len(encoded.word_token) + 1, dtype=np.bool_)
    first[encoded.text_words] = True
    return first


def softmax(logits: Floats) -> Floats:
    """Turn each row of logits into probabilities. *Shape:* (words, labels), like ``logits``."""
    # The maximum is subtracted first so that no exponential overflows.
    shifted = exponential(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


class _Grouping:
    """
    Sums or maxima of columns by group, for instance of tags by type.

    They are computed in a fixed order for each row. The rounding of a matrix product may change with the number of
    rows, so that a text's result would depend on its batch.

    :param group_of_column: group of each column, below 0 for none. *Shape:* (columns,)
    :param groups: number of groups
    """

    def __init__(self, group_of_column: Ints, groups: int) -> None:
        # The columns are sorted by group, so that ``reduceat`` can reduce neighbours.
        order = np.argsort(group_of_column, kind="stable")
        self._columns = order[group_of_column[order] >= 0]

        sizes = np.bincount(group_of_column[self._columns], minlength=groups)
        self._begins = np.concatenate(([0], np.cumsum(sizes)[:-1]))
        self._one_to_one = bool((sizes == 1).all())

    def sums(self, values: Floats) -> Floats:
        """
        Return the sums of each row's columns by group, in a new array.

        :param values: *Shape:* (rows, columns)
        :return: *Shape:* (rows, groups)
        """
        sorted_values = values[:, self._columns]
        if self._one_to_one or not len(values):
            return sorted_values[:, : len(self._begins)]

        return np.add.reduceat(sorted_values, self._begins, axis=1)

    def largest(self, values: Floats) -> Floats:
        """
        Return the maxima of each row's columns by group.

        :param values: *Shape:* (rows, columns)
        :return: *Shape:* (rows, groups)
        """
        return np.maximum.reduceat(values[:, self._columns], self._begins, axis=1)
